//! HUP takes effect as a whole or not at all; TTIN and TTOU change the number of workers; nobody notices any of it.

use rustix::process::Signal;
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use tests::{Client, Load, PATIENCE, Server, Site, children, eventually, probe};

/// Answers with what the environ has as GREETING. There is `other`, which answers otherwise.
const GREETING: &str = r#"
#include "host.h"
HOST_EXPORT host_body *application(host_env *env, host_start_response *start_response) {
    start_response->call(start_response, HOST_STR("200 OK"), NULL, 0, NULL);
    host_str greeting = env->get(env, HOST_STR("GREETING"));
    return env->bytes(env, greeting.ptr ? greeting : HOST_STR("none"));
}
HOST_EXPORT host_body *other(host_env *env, host_start_response *start_response) {
    start_response->call(start_response, HOST_STR("200 OK"), NULL, 0, NULL);
    return env->bytes(env, HOST_STR("other"));
}
"#;

fn site() -> Site {
    let site = Site::new();
    site.compile("greeting", GREETING);
    site.write("html/a.txt", "a");
    site
}

/// Starts a server that takes everything from `host.toml` but its folder of private copies.
fn start(site: &Site, settings: &str) -> Server {
    site.write("host.toml", settings);
    Server::start(site.command(&["--config", "host.toml", "--runtime", "runtime"]))
}

/// Has the server read these settings. Gives the line that says what has changed.
fn reload(site: &Site, server: &Server, settings: &str) -> String {
    let mark = server.mark();
    site.write("host.toml", settings);
    server.signal(Signal::HUP);
    server.wait_for_log_since(mark, "reloaded everything in", PATIENCE);
    server.wait_for_log_since(mark, "changed options: ", PATIENCE)
}

fn workers(server: &Server) -> Vec<u32> {
    let workers = children(server.id()).into_iter().filter(|child| child.command == "host: worker");
    workers.map(|worker| worker.id).collect()
}

fn load(server: &Server) -> Load {
    Load::start(server.address(), 8, &["/greeting.so", "/a.txt"], |path, response| {
        let right = if path == "/a.txt" { response.text() == "a" } else { response.status == 200 };
        right.then_some(()).ok_or_else(|| response.head.clone())
    })
}

const TCP: &str = "bind = [\"127.0.0.1:0\"]\n";

#[test]
fn every_setting_takes_effect_and_no_connection_is_closed() {
    let site = site();
    site.write("other/b.txt", "b");
    let server = start(&site, &format!("{TCP}threads = 2\n"));
    let load = load(&server);
    let mut client = server.connect();
    assert_eq!(client.get("/greeting.so").expect("an answer").text(), "none");
    assert_eq!(client.get("/mounted/x").expect("an answer").status, 404);
    let head = [("X-Long", &*"x".repeat(2000))];
    assert_eq!(client.request("GET", "/a.txt", &head, b"").expect("an answer").status, 200);

    let before = workers(&server);
    let settings = "threads = 1\nserver-header = \"another\"\nenv = [\"GREETING=hello\"]\nmount = [\"/mounted=greeting:other\"]\n\
         limit-body = 100\ntimeout-body = \"7s\"\napplication = \"greeting\"\n";
    let line = reload(&site, &server, &format!("{TCP}{settings}"));
    let changed = line.rsplit(": ").next().expect("a list");
    assert_eq!(
        changed.split(", ").collect::<std::collections::BTreeSet<_>>(),
        ["application", "env", "limit-body", "mount", "server-header", "threads", "timeout-body"].into(),
        "{line}"
    );
    // The old one may still have connections to pass on.
    assert!(workers(&server).iter().any(|worker| !before.contains(worker)), "it was replaced");
    let response = client.get("/greeting.so").expect("an answer");
    assert_eq!((response.text(), response.field("Server")), ("hello", Some("another")));
    assert_eq!(client.get("/mounted/x").expect("an answer").text(), "other");
    assert_eq!(client.get("/nothing/x").expect("an answer").text(), "hello");
    load.flow(50);
    load.finish().assert_nothing_lost();
    assert_eq!(client.request("POST", "/greeting.so", &[], &[b'x'; 101]).expect("an answer").status, 413);

    // What closes connections for good reason, and other folders.
    let line = reload(&site, &server, &format!("{TCP}html = \"./other\"\nlimit-head = \"1K\"\ntrace = true\n"));
    assert!(line.contains("html") && line.contains("limit-head") && line.contains("trace"), "{line}");
    let mut client = server.connect();
    assert_eq!(client.get("/b.txt").expect("an answer").text(), "b");
    assert_eq!(client.get("/a.txt").expect("an answer").status, 404);
    server.wait_for_log("< GET /b.txt HTTP/1.1", PATIENCE);
    assert_eq!(client.request("GET", "/b.txt", &head, b"").expect("an answer").status, 431);
    assert!(reload(&site, &server, &format!("{TCP}html = \"none\"\n")).contains("html, "));
    assert_eq!(server.get("/b.txt").status, 404);
    assert!(reload(&site, &server, &format!("{TCP}html = \"none\"\n")).ends_with("changed options: nothing"));
}

#[test]
fn what_is_wrong_is_refused_with_one_line_and_changes_nothing() {
    let site = site();
    let good = format!("{TCP}server-header = \"good\"\nenv = [\"GREETING=hello\"]\napplication = \"greeting\"\n");
    let server = start(&site, &good);
    let load = load(&server);
    let before = workers(&server);
    let mut client = server.connect();
    let busy = TcpListener::bind("127.0.0.1:0").expect("a port");
    let busy = busy.local_addr().expect("an address").to_string();
    site.write("bad/broken.so", "no library");
    site.write("bad/README", "");

    let base = "server-header = \"bad\"\n";
    let cases = [
        ("bind = \n".to_owned(), "host.toml:2: not TOML"),
        ("limit-heat = 1\n".to_owned(), "did you mean \"limit-head\"?"),
        ("workers = 0\n".to_owned(), "host.toml:2: workers"),
        ("html = \"./nowhere\"\n".to_owned(), "no folder ./nowhere"),
        ("html = \"./handlers\"\n".to_owned(), "handlers"),
        (format!("bind = [\"127.0.0.1:0\", \"{busy}\"]\n"), "is in use by another process"),
        ("bind = [\"fd:9\"]\n".to_owned(), "only be taken over when the server is started"),
        (format!("{TCP}log-format = \"json\"\n"), "read at the start only"),
        (format!("{TCP}application = \"nosuch\"\n"), "no module \"nosuch\""),
        (format!("{TCP}application = \"greeting:noone\"\n"), "greeting:noone cannot be loaded"),
        (format!("{TCP}application = \"greeting\"\nhandlers = \"./bad\"\n"), "no module \"greeting\" in ./bad"),
        (format!("{TCP}application = \"broken\"\nhandlers = \"./bad\"\n"), "broken:application cannot be loaded"),
    ];
    for (settings, why) in cases {
        let mark = server.mark();
        site.write("host.toml", format!("{base}{settings}"));
        server.signal(Signal::HUP);
        let line = server.wait_for_log_since(mark, "not reloaded, going on as before", PATIENCE);
        assert!(line.contains(why), "{line}");
        let response = client.get("/greeting.so").expect("an answer");
        assert_eq!((response.text(), response.field("Server")), ("hello", Some("good")), "{line}");
        assert_eq!(server.log()[mark..].len(), 1, "{:?}", &server.log()[mark..]);
    }
    assert_eq!(workers(&server), before);
    // A reload that is well comes after all of them.
    reload(&site, &server, &good.replace("good", "better"));
    assert_eq!(client.get("/greeting.so").expect("an answer").field("Server"), Some("better"));
    load.flow(50);
    load.finish().assert_nothing_lost();
}

/// The address in the line that comes after `mark`.
fn address(server: &Server, mark: usize) -> SocketAddr {
    let line = server.wait_for_log_since(mark, "listening on http://", PATIENCE);
    line.rsplit("http://").next().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no address in {line}"))
}

#[test]
fn addresses_come_and_go_and_connections_stay() {
    let site = site();
    let server = start(&site, "bind = [\"127.0.0.1:0\", \"unix:first.sock\"]\n");
    let mut by_first = Client::connect_unix(&site.path("first.sock")).expect("it listens");
    assert_eq!(by_first.get("/a.txt").expect("an answer").text(), "a");
    let load = load(&server);

    // Each that stays is matched by one: the second port 0 is another.
    let mark = server.mark();
    reload(&site, &server, "bind = [\"127.0.0.1:0\", \"127.0.0.1:0\", \"unix:second.sock\"]\n");
    let second = address(&server, mark);
    assert_ne!(second, server.address());
    let mut by_second = Client::connect(second).expect("it listens");
    assert_eq!(by_second.get("/a.txt").expect("an answer").text(), "a");
    assert_eq!(by_first.get("/a.txt").expect("an answer").text(), "a");
    let mut unix = Client::connect_unix(&site.path("second.sock")).expect("it listens");
    assert_eq!(unix.get("/a.txt").expect("an answer").text(), "a");
    server.wait_for_log_since(mark, "no longer listening on unix:", PATIENCE);
    assert!(!site.path("first.sock").exists());

    let mark = server.mark();
    reload(&site, &server, "bind = [\"127.0.0.1:0\", \"unix:first.sock\"]\n");
    server.wait_for_log_since(mark, &format!("no longer listening on http://{second}"), PATIENCE);
    assert!(TcpStream::connect(second).is_err());
    assert_eq!(by_second.get("/a.txt").expect("an answer").text(), "a");
    assert_eq!(unix.get("/a.txt").expect("an answer").text(), "a");
    assert_eq!(by_first.get("/a.txt").expect("an answer").text(), "a");
    let mut anew = Client::connect_unix(&site.path("first.sock")).expect("it listens");
    assert_eq!(anew.get("/a.txt").expect("an answer").text(), "a");
    load.flow(50);
    load.finish().assert_nothing_lost();
    assert_eq!(server.stop().code(), Some(0));
    assert!(!site.path("first.sock").exists() && !site.path("second.sock").exists());
}

#[test]
fn who_waits_at_an_address_that_goes_is_answered() {
    let site = site();
    let stop = "timeout-stop = \"1s\"\n";
    let server = start(&site, &format!("bind = [\"127.0.0.1:0\", \"unix:gone.sock\"]\n{stop}"));
    let worker = workers(&server)[0];
    // A worker that is stopped accepts nothing.
    let id = rustix::process::Pid::from_raw(worker.cast_signed()).expect("a process id");
    rustix::process::kill_process(id, Signal::STOP).expect("it lives");
    eventually("it is stopped", PATIENCE, || tests::process::find(worker).filter(|process| process.state == 'T'));
    let mut waiting = Client::connect_unix(&site.path("gone.sock")).expect("the kernel takes it");
    waiting.send(b"GET /a.txt HTTP/1.1\r\nHost: a\r\n\r\n").expect("the kernel takes it");
    reload(&site, &server, &format!("{TCP}{stop}"));
    assert_eq!(waiting.response().expect("an answer").text(), "a");
    assert_eq!(waiting.get("/a.txt").expect("an answer").text(), "a");
}

#[test]
fn another_folder_of_handlers_has_other_modules() {
    let site = site();
    let server = start(&site, TCP);
    assert_eq!(server.get("/greeting.so").text(), "none");
    fs::create_dir(site.path("more")).expect("a new folder");
    fs::copy(site.path("handlers/greeting.so"), site.path("more/welcome.so")).expect("a copy");
    assert!(reload(&site, &server, &format!("{TCP}handlers = \"./more\"\n")).contains("handlers"));
    assert_eq!(server.get("/greeting.so").status, 404);
    assert_eq!(server.get("/welcome.so").text(), "none");
    // Changes are noticed there, and there alone.
    let mark = server.mark();
    fs::copy(site.path("handlers/greeting.so"), site.path("more/late.so")).expect("a copy");
    server.wait_for_log_since(mark, "loaded late generation 1", PATIENCE);
    assert_eq!(server.get("/late.so").text(), "none");
    let mark = server.mark();
    reload(&site, &server, TCP);
    server.wait_for_log_since(mark, "loaded greeting generation 2", PATIENCE);
    assert_eq!(server.get("/late.so").status, 404);
}

#[test]
fn what_changes_while_the_server_reloads_is_not_lost() {
    let site = site();
    // A check that stands still as long as there is the file `slow`.
    let wait = r#"-DCHECK=while(access("slow",0)==0)wait_ms(2)"#;
    probe::build(&site, "slow", 1, &[wait]);
    probe::build(&site, "probe", 1, &[]);
    let server = start(&site, TCP);
    let gone = site.compile("gone", GREETING);
    server.wait_for_log("loaded gone generation 1", PATIENCE);
    site.write("slow", "");
    let mark = server.mark();
    site.write("host.toml", format!("{TCP}server-header = \"one\"\n"));
    server.signal(Signal::HUP);
    let checker = || children(server.id()).into_iter().find(|child| child.command.starts_with("host: checker"));
    eventually("the check of a reload", PATIENCE, checker);
    probe::build(&site, "probe", 2, &[]);
    fs::remove_file(gone).expect("our own file");
    site.write("host.toml", format!("{TCP}server-header = \"two\"\n"));
    server.signal(Signal::HUP);
    server.wait_for_log_since(mark, "reloading later", PATIENCE);
    assert_eq!(probe::version(&server.get("/probe.so")), 1, "it is held back");
    fs::remove_file(site.path("slow")).expect("our own file");
    eventually("all of it has come", PATIENCE, || {
        let response = server.get("/probe.so");
        let is_gone = server.get("/gone.so").status == 404;
        (probe::version(&response) == 2 && response.field("Server") == Some("two") && is_gone).then_some(())
    });
}

#[test]
fn workers_come_and_go_under_load() {
    let site = site();
    let server = start(&site, &format!("{TCP}threads = 1\n"));
    let load = load(&server);
    let settle = |signal, count: usize| {
        let mark = server.mark();
        server.signal(signal);
        let workers_serve = format!("{count} worker{} serve", if count == 1 { "" } else { "s" });
        server.wait_for_log_since(mark, &workers_serve, PATIENCE);
        eventually("so many live", PATIENCE, || (workers(&server).len() == count).then_some(()));
        load.flow(20);
    };
    for _ in 0..3 {
        settle(Signal::TTIN, 2);
        settle(Signal::TTIN, 3);
        settle(Signal::TTOU, 2);
        settle(Signal::TTOU, 1);
    }
    let mark = server.mark();
    server.signal(Signal::TTOU);
    server.wait_for_log_since(mark, "no worker less: there is at least 1", PATIENCE);
    // All at once, and what the configuration says after that.
    for _ in 0..4 {
        let mark = server.mark();
        server.signal(Signal::TTIN);
        server.wait_for_log_since(mark, "one worker more", PATIENCE);
    }
    for _ in 0..2 {
        let mark = server.mark();
        server.signal(Signal::TTOU);
        server.wait_for_log_since(mark, "one worker less", PATIENCE);
    }
    eventually("there are three", PATIENCE, || (workers(&server).len() == 3).then_some(()));
    reload(&site, &server, &format!("{TCP}threads = 1\nworkers = 2\n"));
    eventually("there are two", PATIENCE, || (workers(&server).len() == 2).then_some(()));
    reload(&site, &server, &format!("{TCP}threads = 1\nworkers = 4\n"));
    eventually("there are four", PATIENCE, || (workers(&server).len() == 4).then_some(()));
    load.flow(50);
    load.finish().assert_nothing_lost();
    eventually("no zombie is left", PATIENCE, || {
        children(server.id()).iter().all(|child| child.state != 'Z').then_some(())
    });
    // A worker that a service manager signals with all others takes no notice.
    let worker = workers(&server)[0];
    let id = rustix::process::Pid::from_raw(worker.cast_signed()).expect("a process id");
    for signal in [Signal::TTIN, Signal::TTOU] {
        rustix::process::kill_process(id, signal).expect("it lives");
    }
    assert_eq!(server.get("/a.txt").text(), "a");
    assert!(tests::process::find(worker).is_some_and(|process| process.state != 'T'));
}
