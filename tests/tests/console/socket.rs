//! The socket: who may speak to it, and that nobody who does can hold anything up.

use crate::{build, server_folder, status};
use std::fs::{Permissions, set_permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use tests::{PATIENCE, Server, Site, probe};

fn start() -> (Site, Server) {
    let site = Site::new();
    probe::build(&site, "probe", 1, &[]);
    let server = site.start(&["--threads", "1"]);
    (site, server)
}

fn connect(site: &Site) -> UnixStream {
    let client = UnixStream::connect(server_folder(site).join("console")).expect("the server listens");
    client.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    client.set_write_timeout(Some(PATIENCE)).expect("a time-out");
    client
}

/// What comes until the server closes; whoever sends too much may find that it has closed already.
fn rest(mut client: UnixStream) -> String {
    let mut answer = Vec::new();
    if let Err(error) = client.read_to_end(&mut answer) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    }
    String::from_utf8(answer).expect("it is text")
}

fn ask(site: &Site, request: &[u8]) -> String {
    let mut client = connect(site);
    // The server need not take all of it.
    _ = client.write_all(request);
    rest(client)
}

#[test]
fn the_socket_speaks_json_in_lines() {
    let (site, server) = start();
    let answer = ask(&site, b"\"identity\"\n");
    assert!(answer.starts_with(r#"{"identity":{"#) && answer.ends_with("}\n"), "{answer}");
    assert!(answer.contains(&format!("\"pid\":{}", server.id())), "{answer}");
    let answer = ask(&site, b"{\"rollback\":{\"module\":\"nosuch\",\"generation\":null}}\n");
    assert_eq!(answer, "{\"error\":\"no module \\\"nosuch\\\"; there are: probe\"}\n");
}

#[test]
fn garbage_and_floods_are_refused() {
    let (site, server) = start();
    for garbage in [&b"\n"[..], b"{}\n", b"GET / HTTP/1.1\r\n\r\n", b"\xff\xfe\n", b"\"nosuch\"\n"] {
        let answer = ask(&site, garbage);
        assert!(answer.starts_with(r#"{"error":"that is no request that host "#), "{answer}");
    }
    let answer = ask(&site, &vec![b'x'; 1_000_000]);
    // The refusal may be lost to a client that goes on sending.
    assert!(answer.is_empty() || answer.contains("a request is one line of at most 4096 bytes"), "{answer}");
    let client = connect(&site);
    client.shutdown(std::net::Shutdown::Write).expect("it is open");
    assert!(rest(client).contains("the request ended before its line did"));
    assert_eq!(status(&site)["pid"], server.id());
}

#[test]
fn those_who_say_nothing_or_take_nothing_hold_up_nobody() {
    let (site, server) = start();
    // More than are served at a time, and half of them with a request whose answer they leave.
    let mut silent: Vec<UnixStream> = (0..40).map(|_| connect(&site)).collect();
    for client in silent.iter_mut().step_by(2) {
        client.write_all(b"\"status\"\n").expect("it fits the socket's buffer");
    }
    // Requests and builds go on at once.
    assert_eq!(probe::version(&server.get("/probe.so")), 1);
    probe::build(&site, "probe", 2, &[]);
    server.wait_for_log("reloaded probe generation 2", PATIENCE);
    // Those who wait behind them have their turn.
    assert_eq!(status(&site)["pid"], server.id());
    let mut answers = silent.into_iter().map(rest);
    assert!(answers.next().is_some_and(|answer| answer.starts_with(r#"{"status":"#)));
    assert!(answers.next().is_some_and(|answer| answer.contains("the request did not come in 2 s")));
    drop(answers);
    // And a server that is to end does.
    let _silent = connect(&site);
    assert!(server.stop().success());
}

#[test]
fn it_is_for_its_user_alone() {
    let (site, _server) = start();
    let folder = server_folder(&site);
    let mode = |path: &Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode(&folder), mode(&folder.join("console"))), (0o700, 0o600));
    if !rustix::process::geteuid().is_root() {
        // Nobody but root can become somebody else to try; the modes are what keeps others out.
        return;
    }
    // Should the modes be opened by mistake, the server still looks who asks.
    for (path, mode) in [
        (site.path(""), 0o755),
        (site.path("runtime"), 0o755),
        (folder.clone(), 0o755),
        (folder.join("console"), 0o666),
    ] {
        set_permissions(path, Permissions::from_mode(mode)).expect("our own file");
    }
    let answer = std::thread::scope(|scope| {
        let as_nobody = scope.spawn(|| {
            // It is of this thread alone (the system call is), which ends with it.
            let nobody = rustix::process::Uid::from_raw(65534);
            rustix::thread::set_thread_res_uid(nobody, nobody, nobody).expect("root may");
            ask(&site, b"\"status\"\n")
        });
        as_nobody.join().expect("the thread ends")
    });
    assert_eq!(answer, "{\"error\":\"this server belongs to user 0, and takes nothing from user 65534\"}\n");
}

#[test]
fn a_server_whose_folder_has_a_long_path_can_be_reached() {
    // The address of a Unix socket has room for 108 bytes.
    let site = Site::new();
    build(&site, "hello", include_str!("../../../handlers/hello.c"), &[]);
    let long = format!("runtime/{}", "long/".repeat(30));
    std::fs::create_dir_all(site.path(&long)).expect("a folder");
    let mut command = site.command(&["--bind", "127.0.0.1:0", "--runtime", &long]);
    command.env("HOST_LOG", "info");
    let server = Server::start(command);
    let output = site.run(&["status", "--runtime", &long]);
    assert!(String::from_utf8_lossy(&output.stdout).contains(&format!("process {}", server.id())), "{output:?}");
    assert!(!server.log().iter().any(|line| line.contains("warn")), "{:?}", server.log());
}
