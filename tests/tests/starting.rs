//! Starting: what is refused with which words and code, what the start-up table says, and builds that pass the check but
//! fail when they are about to serve.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::{Command, Output};
use tests::{Client, PATIENCE, Server, Site, children, probe};

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs `host` on port 0 to its end and gives its code and what it said.
fn refusal(site: &Site, arguments: &[&str]) -> (Option<i32>, String) {
    let output = site.run(&[&["--bind", "127.0.0.1:0", "--runtime", "runtime"], arguments].concat());
    (output.status.code(), stderr(&output))
}

/// Waits for the table that is expected.
#[track_caller]
fn assert_table(server: &Server, expected: &str) {
    // The line of the address is known as soon as it is read, and the others follow.
    let last = expected.lines().last().expect("a table has lines");
    server.wait_for_log(last, PATIENCE);
    assert_eq!(table(server), expected);
}

/// The table as it was printed, from its first line about a site.
fn table(server: &Server) -> String {
    let log = server.log();
    let rows = log.iter().skip_while(|line| !line.starts_with("listening on")).skip(1);
    rows.take_while(|line| line.starts_with("  ")).map(|line| format!("{line}\n")).collect()
}

/// A crate in the folder of handlers that has never been built.
fn add_crate(site: &Site, name: &str) {
    let manifest = format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\n[lib]\ncrate-type = [\"cdylib\"]\n");
    site.write(&format!("handlers/{name}/Cargo.toml"), manifest);
    site.write(&format!("handlers/{name}/src/lib.rs"), "");
}

#[test]
fn a_busy_port_is_named_with_the_option_and_the_code_is_1() {
    let site = Site::new();
    let busy = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = busy.local_addr().expect("an address").to_string();
    // Nothing is left of the address that came first.
    let output = site.run(&["--runtime", "runtime", "--bind", "unix:first.sock", "--bind", &address]);
    assert_eq!(output.status.code(), Some(1));
    let words = stderr(&output);
    assert!(words.contains(&format!("{address} is in use by another process; choose another with --bind")), "{words}");
    assert!(!site.path("first.sock").exists());
}

#[test]
fn the_file_of_a_unix_socket_goes_with_its_server_and_that_of_another_stays() {
    let site = Site::new();
    probe::build(&site, "probe", 1, &[]);
    let server = site.start(&["--bind", "unix:host.sock"]);
    let path = site.path("host.sock");
    assert_eq!(Client::connect_unix(&path).expect("it listens").get("/probe.so").expect("an answer").status, 200);
    // Another server takes the name while this one still serves.
    std::fs::remove_file(&path).expect("our own file");
    let other = site.start(&["--bind", "unix:host.sock"]);
    assert_eq!(server.stop().code(), Some(0));
    assert_eq!(Client::connect_unix(&path).expect("it listens").get("/probe.so").expect("an answer").status, 200);
    assert_eq!(other.stop().code(), Some(0));
    assert!(!path.exists());
}

#[test]
fn an_inherited_listener_serves_and_is_let_go_at_the_end() {
    let site = Site::new();
    probe::build(&site, "probe", 1, &[]);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let output = site.run(&["--bind", "fd:7", "--runtime", "runtime"]);
    assert!(stderr(&output).contains("fd:7 is not open; pass a listening socket under that number"), "{output:?}");
    // As a service manager does; the shell gives it the number.
    let host = site.command(&[]);
    let mut command = Command::new("sh");
    command
        .current_dir(site.path("."))
        .args(["-c", "exec 7<&0 </dev/null; exec \"$0\" \"$@\""])
        .arg(host.get_program());
    command.args(["--bind", "fd:7", "--runtime", "runtime"]).stdin(OwnedFd::from(listener));
    let server = Server::start(command);
    assert_eq!(server.address(), address);
    let listing = server.get("/probe.so/descriptors");
    assert_eq!(listing.text().matches("socket:").count(), 0, "{}", listing.text());
    assert_eq!(server.stop().code(), Some(0));
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[test]
fn a_root_application_that_cannot_be_loaded_ends_with_4_and_the_remedy() {
    let site = Site::new();
    add_crate(&site, "sayhello");
    let source = site.write(
        "sources/framework.c",
        "#include <host.h>\nHOST_EXPORT host_body *app(host_env *env, host_start_response *start) \
         { start->call(start, HOST_STR(\"200 OK\"), NULL, 0, NULL); return env->bytes(env, HOST_STR(\"app\")); }\n",
    );
    tests::cc(&source, &site.path("handlers/libframework.so"), &[]);
    probe::build(&site, "ctime", 1, &[]);
    probe::build(&site, "refuses", 1, &["-DCHECK=return 7"]);
    probe::build(&site, "fails", 1, &["-DSERVE=return 7"]);
    probe::build(&site, "crashes", 1, &["-DSERVE=abort()"]);
    for (root, words) in [
        ("nosuch", "no module \"nosuch\" in ./handlers; found: crashes, ctime, fails, framework, refuses, sayhello"),
        ("framework:ap", "handlers/libframework.so: exports no \"ap\"; did you mean \"app\"?"),
        ("sayhello", "sayhello is not built; run: cargo build -p sayhello"),
        ("refuses", "handlers/refuses.so: refuses to start: its init returned 7"),
        ("fails", "handlers/fails.so: its init answered 7 when it was about to serve"),
        ("crashes", "handlers/crashes.so: the worker that loaded it died of SIGABRT (6)"),
    ] {
        let (code, said) = refusal(&site, &[root]);
        assert!(said.contains(words), "{root}: {said}");
        assert_eq!(code, Some(4), "{root}: {said}");
    }
    let server = site.start(&["framework:app"]);
    assert_eq!(server.get("/").text(), "app");
}

#[test]
fn the_table_says_what_serves_what_and_what_is_not_built() {
    let site = Site::new();
    site.write("html/index.html", "<!doctype html>");
    add_crate(&site, "sayhello");
    add_crate(&site, "ctime");
    for (profile, version) in [("release", 1), ("debug", 2)] {
        let built = probe::build(&site, "built", version, &[]);
        let path = site.write(&format!("handlers/ctime/target/{profile}/libctime.so"), "");
        std::fs::rename(built, path).expect("the same folder");
    }
    probe::build(&site, "root", 1, &[]);
    probe::build(&site, "broken", 1, &["-DCHECK=return 7"]);
    probe::build(&site, "admin/users", 1, &[]);
    let server = site.start(&["--mount", "/api=ctime", "root"]);
    let expected = "  site             ./html
  root             root:application         handlers/root.so
  /api/            ctime:application        handlers/ctime/target/debug/libctime.so (newer than release)
  /admin/users.so  admin/users:application  handlers/admin/users.so
  /ctime.so        ctime:application        handlers/ctime/target/debug/libctime.so (newer than release)
  /root.so         root:application         handlers/root.so
  refused:         broken                   handlers/broken.so: refuses to start: its init returned 7
  not built:       sayhello                 cargo build -p sayhello
";
    assert_table(&server, expected);
    server.wait_for_log(
        "GET / is html/index.html; root:application answers what html lacks (--html none gives it everything)",
        PATIENCE,
    );
    assert_eq!(probe::version(&server.get("/api/x")), 2);
}

#[test]
fn modules_that_crash_or_fail_when_they_are_about_to_serve_are_refused_and_the_rest_serves() {
    let site = Site::new();
    probe::build(&site, "sound", 1, &[]);
    probe::build(&site, "aborts", 1, &["-DSERVE=abort()"]);
    probe::build(&site, "exits", 1, &["-DSERVE=_exit(3)"]);
    probe::build(&site, "fails", 1, &["-DSERVE=return 7"]);
    let server = site.start(&["--threads", "1"]);
    let expected = "  site       ./html
  /sound.so  sound:application  handlers/sound.so
  refused:   aborts             handlers/aborts.so: the worker that loaded it died of SIGABRT (6)
  refused:   exits              handlers/exits.so: the worker that loaded it exited with code 3
  refused:   fails              handlers/fails.so: its init answered 7 when it was about to serve
";
    assert_table(&server, expected);
    assert_eq!(probe::version(&server.get("/sound.so")), 1);
    for module in ["aborts", "exits", "fails"] {
        assert_eq!(server.get(&format!("/{module}.so")).status, 503);
        let lines = server.log().into_iter().filter(|line| line.contains(&format!("refused {module}"))).count();
        assert_eq!(lines, 1, "one line about {module}");
    }
    // A better build comes in at once.
    probe::build(&site, "aborts", 2, &[]);
    server.wait_for_log("loaded aborts generation 2", PATIENCE);
    assert_eq!(probe::version(&server.get("/aborts.so")), 2);
}

#[test]
fn a_build_that_crashes_when_it_is_about_to_serve_is_refused_once_and_the_one_before_answers() {
    for flags in [&[][..], &["-DREPLACE"]] {
        let site = Site::new();
        probe::build(&site, "probe", 1, flags);
        probe::build(&site, "other", 1, &[]);
        let server = site.start(&["--threads", "1"]);
        for (version, behaviour) in [(2, "-DSERVE=abort()"), (3, "-DSERVE=return 7"), (4, "-DSERVE=_exit(0)")] {
            let mark = server.mark();
            probe::build(&site, "probe", version, &[&[behaviour], flags].concat());
            let line = server.wait_for_log_since(mark, "kept probe generation 1", PATIENCE);
            assert!(line.contains("handlers/probe.so: "), "{line}");
            assert_eq!(probe::version(&server.get("/probe.so")), 1);
            assert_eq!(probe::version(&server.get("/other.so")), 1);
            assert_eq!(
                server.log()[mark..].iter().filter(|line| line.contains(" error ")).count(),
                1,
                "{:?}",
                server.log()
            );
        }
        // No worker is left that dies again: the same one answers now and after the next build has come in.
        let mark = server.mark();
        probe::build(&site, "probe", 5, flags);
        let line = server.wait_for_log_since(mark, "reloaded probe generation", PATIENCE);
        assert!(line.contains("generation 5"), "{line}");
        assert_eq!(probe::version(&server.get("/probe.so")), 5);
        assert!(!server.log().iter().any(|line| line.contains("one after the other")));
    }
}

#[test]
fn two_bad_builds_in_a_row_do_not_cost_the_good_one_before_them() {
    let site = Site::new();
    probe::build(&site, "probe", 1, &[]);
    let server = site.start(&["--threads", "1", "--workers", "2"]);
    // The second comes while the first is still on its way.
    let mark = server.mark();
    probe::build(&site, "probe", 2, &["-DSERVE=wait_ms(500); return 7"]);
    tests::eventually("both workers are in the first one's init", PATIENCE, || {
        let loading = |worker: tests::Process| std::fs::read_to_string(format!("/proc/{}/maps", worker.id)).ok();
        let maps: Vec<String> = children(server.id()).into_iter().filter_map(loading).collect();
        (maps.iter().filter(|maps| maps.contains("probe@2")).count() == 2).then_some(())
    });
    probe::build(&site, "probe", 3, &["-DSERVE=wait_ms(500); return 8"]);
    let line = server.wait_for_log_since(mark, "init answered 8", PATIENCE);
    assert!(line.contains("kept probe generation 1"), "{line}");
    for worker in children(server.id()) {
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(worker.id.cast_signed()).expect("a process id"),
            rustix::process::Signal::KILL,
        )
        .expect("the worker is there");
    }
    assert_eq!(probe::version(&server.get("/probe.so")), 1);
}

#[test]
fn a_build_that_hangs_when_it_is_about_to_serve_is_refused_and_everything_else_is_answered() {
    let site = Site::new();
    probe::build(&site, "probe", 1, &[]);
    probe::build(&site, "other", 1, &[]);
    let server = site.start(&["--threads", "2"]);
    let mark = server.mark();
    let load = tests::Load::start(server.address(), 4, &["/probe.so", "/other.so"], |_, response| {
        if probe::version(response) == 1 { Ok(()) } else { Err(response.head.clone()) }
    });
    probe::build(&site, "probe", 2, &["-DSERVE=wait_ms(3600000)"]);
    let line = server.wait_for_log_since(mark, "kept probe generation 1", PATIENCE);
    assert!(line.contains("init or restore did not finish when it was about to serve"), "{line}");
    load.flow(100);
    // The worker with the thread that hangs is replaced, so that the next build finds its way.
    let mark = server.mark();
    load.finish().assert_nothing_lost();
    probe::build(&site, "probe", 3, &[]);
    server.wait_for_log_since(mark, "reloaded probe generation 3", PATIENCE);
    assert_eq!(probe::version(&server.get("/probe.so")), 3);
}

#[test]
fn a_module_that_hangs_at_the_very_start_is_refused_and_the_rest_serves() {
    let site = Site::new();
    probe::build(&site, "hangs", 1, &["-DSERVE=wait_ms(3600000)"]);
    probe::build(&site, "sound", 1, &[]);
    let server = site.start(&["--threads", "1"]);
    assert_eq!(probe::version(&server.get("/sound.so")), 1);
    assert_eq!(server.get("/hangs.so").status, 503);
    server.wait_for_log("refused:   hangs", PATIENCE);
}

#[test]
fn a_json_log_is_json_from_its_first_line_to_its_last() {
    let site = Site::new();
    probe::build(&site, "probe", 1, &[]);
    let mut server = site.start(&["--log-format", "json", "--trace"]);
    server.get("/probe.so");
    let mark = server.mark();
    probe::build(&site, "probe", 2, &[]);
    server.wait_for_log_since(mark, "reloaded probe generation 2", PATIENCE);
    server.signal(rustix::process::Signal::TERM);
    server.wait_for_log("stopping", PATIENCE);
    server.wait();
    let log = server.log();
    for expected in ["/probe.so  probe:application", "< GET /probe.so HTTP/1.1", "stopping"] {
        assert!(log.iter().any(|line| line.contains(expected)), "{expected} in {log:?}");
    }
    for line in log {
        assert!(line.starts_with("{\"") && line.ends_with('}') && line.contains("\"message\":"), "{line}");
    }
}
