//! USR2: a new binary takes the sockets over, and the connections when it serves; one that does not changes nothing.

use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use tests::process::{self, descriptors, find};
use tests::server::binary;
use tests::{Client, Load, PATIENCE, Response, Server, Site, children, eventually, probe};

/// How often the server is upgraded or reloaded under load, in turn.
const CYCLES: usize = 200;

/// Names another number.
const CYCLES_VARIABLE: &str = "HOST_TEST_CYCLES";

/// A site with a handler and a page, whose program is a link that can be turned to another one.
fn site() -> Site {
    let site = Site::new();
    probe::build(&site, "probe", 1, &[]);
    site.write("html/a.txt", "a");
    turn_to(&site, binary());
    site
}

/// Makes `host` in the site's folder a link to this program.
fn turn_to(site: &Site, program: &Path) {
    let link = site.path("host");
    _ = fs::remove_file(&link);
    symlink(program, link).expect("a link in our own folder");
}

fn start(site: &Site, arguments: &[&str]) -> Server {
    let always = ["--bind", "127.0.0.1:0", "--runtime", "runtime"];
    let threads: &[&str] = if arguments.contains(&"--threads") { &[] } else { &["--threads", "2"] };
    Server::start(site.command_by(&site.path("host"), &[&always, threads, arguments].concat()))
}

/// Waits until the connection is with another process than these: idle ones move soon after the upgrade.
fn moves(client: &mut Client<impl Read + Write>, old: &[u32]) {
    eventually("the connection moves", PATIENCE, || {
        let process = probe::process(&client.get("/probe.so").expect("an answer"));
        (!old.contains(&process)).then_some(())
    });
}

fn kill(id: u32, signal: Signal) {
    kill_process(Pid::from_raw(id.cast_signed()).expect("a process id"), signal).expect("the process is there");
}

fn is_gone(id: u32) -> Option<()> {
    find(id).is_none_or(|process| process.state == 'Z').then_some(())
}

fn workers(server: &Server) -> Vec<u32> {
    let workers = children(server.id()).into_iter().filter(|child| child.command == "host: worker");
    workers.map(|worker| worker.id).collect()
}

fn load(server: &Server, connections: usize) -> Load {
    Load::start(server.address(), connections, &["/probe.so", "/a.txt"], |path, response| {
        let right = if path == "/a.txt" { "a" } else { "answered\n" };
        (response.status == 200 && response.text() == right).then_some(()).ok_or_else(|| response.head.clone())
    })
}

#[track_caller]
fn assert_answer(response: std::io::Result<Response>, text: &str) {
    let response = response.expect("an answer");
    assert_eq!((response.status, response.text()), (200, text), "{}", response.head);
}

/// Nothing of the server is left but the lock that servers share.
fn assert_nothing_left(site: &Site) {
    assert_eq!(process::in_folder(&site.path(".").canonicalize().expect("it is there")), [0; 0]);
    let left: Vec<_> = fs::read_dir(site.path("runtime")).expect("the runtime folder").filter_map(Result::ok).collect();
    assert!(left.iter().all(|entry| entry.file_name() == "lock"), "{left:?}");
}

#[test]
fn two_hundred_upgrades_and_reloads_under_load_lose_nothing_and_leave_nothing() {
    let cycles = std::env::var(CYCLES_VARIABLE).map_or(CYCLES, |count| count.parse().expect("a number of cycles"));
    let site = site();
    let mut server = start(&site, &["--bind", "unix:host.sock"]);
    let load = load(&server, 8);
    let mut idle = server.connect();
    assert_answer(idle.get("/a.txt"), "a");
    // After the first upgrade, so that one heir is compared with another.
    let mut before = None;
    for cycle in 0..cycles {
        load.flow(20);
        if cycle % 2 == 0 {
            server.upgrade();
        } else {
            let mark = server.mark();
            server.signal(Signal::HUP);
            server.wait_for_log_since(mark, "reloaded everything in", PATIENCE);
        }
        if cycle == 0 || cycle + 1 == cycles {
            server.wait_for_former();
            let count = eventually("the workers of before are gone", PATIENCE, || {
                (workers(&server).len() == 1).then(|| descriptors(server.id())).flatten()
            });
            before.get_or_insert(count);
            let at_most = before.expect("it was counted");
            eventually("there are no more descriptors than after the first upgrade", PATIENCE, || {
                descriptors(server.id()).filter(|now| *now <= at_most)
            });
        }
    }
    load.flow(100);
    load.finish().assert_nothing_lost();
    assert_answer(idle.get("/a.txt"), "a");
    let folder = site.path(".").canonicalize().expect("it is there");
    eventually("a supervisor and a worker are left", PATIENCE, || {
        (process::in_folder(&folder).len() == 2).then_some(())
    });
    eventually("no zombie is left", PATIENCE, || {
        children(server.id()).iter().all(|child| child.state != 'Z').then_some(())
    });
    assert!(!server.log().iter().any(|line| line.contains(" error ") || line.contains(" warn ")), "{:?}", server.log());
    assert_eq!(server.stop().code(), Some(0));
    assert!(!site.path("host.sock").exists());
    assert_nothing_left(&site);
}

#[test]
fn connections_in_every_state_go_on_with_the_new_process() {
    let site = site();
    let gate = format!("GATE={}", site.path("gate").display());
    let mut server = start(&site, &["--bind", "unix:host.sock", "--env", &gate]);
    let path = site.path("host.sock");
    let file = fs::metadata(&path).expect("the socket's file").ino();
    let old = workers(&server);
    let [mut idle, mut content, mut large, mut slow] = std::array::from_fn(|_| server.connect());
    let mut unix = Client::connect_unix(&path).expect("it listens");
    assert_answer(idle.get("/probe.so"), "answered\n");
    assert_answer(unix.get("/probe.so"), "answered\n");
    let post = |length: usize| format!("POST /probe.so/echo HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
    content.send(&[post(10).as_bytes(), b"01234"].concat()).expect("the connection is open");
    let bytes: Vec<u8> = (0..300_000).map(|at| b'a' + (at % 23) as u8).collect();
    large.send(&[post(bytes.len()).as_bytes(), &bytes[..200_000]].concat()).expect("the connection is open");
    slow.send(b"GET /probe.so/gate?10 HTTP/1.1\r\nHost: a\r\n\r\n").expect("the connection is open");
    server.wait_for_log("waiting", PATIENCE);

    let first = server.id();
    server.upgrade();
    assert_ne!(server.id(), first);

    moves(&mut idle, &old);
    moves(&mut unix, &old);
    content.send(b"56789").expect("the connection is open");
    assert_answer(content.response(), "0123456789");
    large.send(&bytes[200_000..]).expect("the connection is open");
    assert_answer(large.response(), std::str::from_utf8(&bytes).expect("letters"));
    // The old process waits for what is under way there.
    assert!(find(first).is_some());
    site.write("gate", "");
    let answer = slow.response().expect("an answer");
    assert!(old.contains(&probe::process(&answer)), "it is answered where it began");
    moves(&mut slow, &old);
    server.wait_for_former();
    assert_eq!(fs::metadata(&path).expect("the socket's file").ino(), file);
    assert_answer(Client::connect_unix(&path).expect("it listens").get("/a.txt"), "a");
    assert_eq!(server.stop().code(), Some(0));
    assert!(!path.exists());
    assert_nothing_left(&site);
}

#[test]
fn those_who_wait_in_the_queue_are_answered_by_the_new_process() {
    let site = site();
    let mut server = start(&site, &["--timeout-stop", "1"]);
    let worker = workers(&server)[0];
    // Who connects now waits: a worker that is stopped accepts nothing, nor can it be drained.
    kill(worker, Signal::STOP);
    eventually("the worker is stopped", PATIENCE, || find(worker).filter(|process| process.state == 'T'));
    let mut clients: Vec<Client> = (0..20).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send(b"GET /probe.so HTTP/1.1\r\nHost: a\r\n\r\n").expect("the kernel takes it");
    }
    server.upgrade();
    for client in &mut clients {
        assert_ne!(probe::process(&client.response().expect("an answer")), worker);
    }
    server.wait_for_former();
    is_gone(worker).expect("it was ended with its supervisor");
}

#[test]
fn numbers_of_builds_and_changed_settings_are_those_of_now() {
    let site = site();
    let config = site.write("host.toml", "server-header = \"one\"\n");
    let mut server = start(&site, &["--config", "host.toml"]);
    let mark = server.mark();
    probe::build(&site, "probe", 2, &[]);
    server.wait_for_log_since(mark, "reloaded probe generation 2", PATIENCE);
    fs::write(&config, "server-header = \"two\"\n").expect("it can be written");
    let mut client = server.connect();
    assert_eq!(client.get("/a.txt").expect("an answer").field("Server"), Some("one"));
    let old = workers(&server);
    server.upgrade();
    moves(&mut client, &old);
    assert_eq!(client.get("/a.txt").expect("an answer").field("Server"), Some("two"));
    let mark = server.mark();
    probe::build(&site, "probe", 3, &[]);
    // The second one was the heir's third.
    server.wait_for_log_since(mark, "reloaded probe generation 4", PATIENCE);
    assert_eq!(probe::version(&client.get("/probe.so").expect("an answer")), 3);
}

/// Upgrades to what cannot take over, and sees to it that nothing has changed.
#[track_caller]
fn refuse(server: &mut Server, client: &mut Client, why: &[&str]) {
    let (id, mark) = (server.id(), server.mark());
    let before = probe::process(&client.get("/probe.so").expect("an answer"));
    server.ask_for_upgrade();
    let line = server.wait_for_log_since(mark, "not upgraded: ", PATIENCE);
    assert!(why.iter().all(|words| line.contains(words)) && line.ends_with("going on as before"), "{line}");
    assert_eq!((server.id(), find(id).is_some()), (id, true));
    assert_eq!(probe::process(&client.get("/probe.so").expect("an answer")), before);
    assert_eq!(probe::process(&server.get("/probe.so")), before);
    eventually("no other child is left", PATIENCE, || {
        children(id).iter().all(|child| child.command == "host: worker" && child.state != 'Z').then_some(())
    });
}

#[test]
fn a_binary_that_cannot_take_over_changes_nothing() {
    let site = site();
    site.write("host.toml", "");
    let mut server = start(&site, &["--bind", "unix:host.sock", "--config", "host.toml", "probe"]);
    let file = fs::metadata(site.path("host.sock")).expect("the socket's file").ino();
    let mut client = server.connect();
    let load = load(&server, 4);

    let program = |text: &[u8], mode| {
        let path = site.write("program", text);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("our own file");
        turn_to(&site, &path);
    };
    program(b"#!/bin/sh\n", 0o644);
    refuse(&mut server, &mut client, &["cannot execute", "/host", "denied"]);
    // As much of an ELF file as execve(2) looks at, for a machine that does not exist.
    let mut elf = fs::read(binary()).expect("the program");
    elf.truncate(4096);
    elf[18..20].copy_from_slice(&[0xff, 0xfe]);
    program(&elf, 0o755);
    refuse(&mut server, &mut client, &[]);
    program(b"#!/bin/sh\nexit 7\n", 0o755);
    refuse(&mut server, &mut client, &["exited with code 7 before it served"]);
    program(b"#!/bin/sh\nkill -KILL $$\n", 0o755);
    refuse(&mut server, &mut client, &["died of SIGKILL (9) before it served"]);
    fs::remove_file(site.path("host")).expect("our own link");
    refuse(&mut server, &mut client, &["cannot execute", "No such file"]);
    program(b"#!/bin/sh\nexec sleep 3600\n", 0o755);
    refuse(&mut server, &mut client, &["did not say a word within 10 s"]);

    // It is the right one, and finds something wrong.
    turn_to(&site, binary());
    site.write("host.toml", "limit-head = \"much\"\n");
    refuse(&mut server, &mut client, &["exited with code 2 before it served"]);
    site.write("host.toml", "");
    let sound = fs::read(site.path("handlers/probe.so")).expect("the module");
    fs::remove_file(site.path("handlers/probe.so")).expect("the module");
    let mark = server.mark();
    server.ask_for_upgrade();
    server.wait_for_log_since(mark, "exited with code 4 before it served; going on as before", PATIENCE);
    site.write("handlers/probe.so", sound);
    server.wait_for_log_since(mark, "loaded probe generation", PATIENCE);

    assert_eq!(fs::metadata(site.path("host.sock")).expect("the socket's file").ino(), file);
    server.upgrade();
    assert_answer(client.get("/a.txt"), "a");
    load.flow(100);
    // While the module was away its requests had nobody to answer them.
    let report = load.finish();
    assert_eq!(report.closed, 0, "{report:?}");
    assert!(report.failures.iter().all(|failure| failure.contains("404")), "{report:?}");
}

/// A site whose handler takes its time to start, once the file `slow` is there: an heir stands still there.
fn slow_to_start(site: &Site) {
    let wait = r#"-DSERVE=while(access("slow",0)==0)wait_ms(2)"#;
    probe::build(site, "probe", 1, &[wait]);
}

/// Begins an upgrade that stands still. Gives the heir.
fn begin(site: &Site, server: &mut Server) -> u32 {
    site.write("slow", "");
    server.ask_for_upgrade();
    let heir = || {
        children(server.id()).into_iter().find(|child| child.command.starts_with(&*site.path("host").to_string_lossy()))
    };
    let heir = eventually("an heir", PATIENCE, heir).id;
    eventually("its worker", PATIENCE, || children(heir).into_iter().find(|child| child.command == "host: worker"));
    heir
}

fn end_wait(site: &Site) {
    fs::remove_file(site.path("slow")).expect("our own file");
}

#[test]
fn what_is_asked_for_during_an_upgrade_is_refused_or_done_after_it() {
    let site = site();
    slow_to_start(&site);
    site.write("host.toml", "server-header = \"one\"\n");
    let mut server = start(&site, &["--config", "host.toml"]);
    let mut client = server.connect();
    let mark = server.mark();
    let heir = begin(&site, &mut server);
    server.signal(Signal::USR2);
    server.wait_for_log_since(mark, &format!("not upgraded: process {heir} is about to take over already"), PATIENCE);
    // The heir has read the file by now.
    site.write("host.toml", "server-header = \"two\"\n");
    server.signal(Signal::HUP);
    server.wait_for_log_since(mark, "reloading later", PATIENCE);
    assert_eq!(client.get("/a.txt").expect("an answer").field("Server"), Some("one"));
    end_wait(&site);
    server.follow(mark);
    assert_eq!(server.id(), heir);
    server.wait_for_log_since(mark, "reloaded everything in", PATIENCE);
    assert_eq!(client.get("/a.txt").expect("an answer").field("Server"), Some("two"));

    // A reload that waits for an upgrade of which nothing comes is made here.
    let mark = server.mark();
    let heir = begin(&site, &mut server);
    site.write("host.toml", "server-header = \"three\"\n");
    server.signal(Signal::HUP);
    server.wait_for_log_since(mark, "reloading later", PATIENCE);
    kill(heir, Signal::KILL);
    server.wait_for_log_since(mark, "died of SIGKILL (9) before it served; going on as before", PATIENCE);
    end_wait(&site);
    server.wait_for_log_since(mark, "reloaded everything in", PATIENCE);
    assert_eq!(client.get("/a.txt").expect("an answer").field("Server"), Some("three"));
}

#[test]
fn a_stop_during_an_upgrade_stops_both() {
    for signal in [Signal::TERM, Signal::INT] {
        let site = site();
        slow_to_start(&site);
        let mut server = start(&site, &["--bind", "unix:host.sock"]);
        let mut client = server.connect();
        client.send(b"GET /probe.so HTTP/1.1\r\nHost: a\r\n").expect("the connection is open");
        let heir = begin(&site, &mut server);
        server.signal(signal);
        server.wait_for_log("the server stops", PATIENCE);
        if signal == Signal::TERM {
            client.send(b"\r\n").expect("the connection is open");
            assert_answer(client.response(), "answered\n");
        }
        assert_eq!(server.wait().code(), Some(0), "{signal:?}");
        is_gone(heir).expect("its end was waited for");
        assert!(!site.path("host.sock").exists());
        assert_nothing_left(&site);
    }
}

#[test]
fn an_heir_serves_on_when_its_predecessor_is_killed() {
    let site = site();
    slow_to_start(&site);
    let mut server = start(&site, &["--bind", "unix:host.sock"]);
    let mark = server.mark();
    let heir = begin(&site, &mut server);
    server.signal(Signal::KILL);
    server.wait();
    // It waits in the queue of sockets that the heir has, too.
    let mut client = server.connect();
    client.send(b"GET /probe.so HTTP/1.1\r\nHost: a\r\n\r\n").expect("the kernel takes it");
    end_wait(&site);
    assert_answer(client.response(), "answered\n");
    server.wait_for_log_since(mark, "took over from process", PATIENCE);
    kill(heir, Signal::TERM);
    eventually("the heir ends", PATIENCE, || is_gone(heir));
    assert!(!site.path("host.sock").exists(), "it was the heir's");
}

#[test]
fn upgrades_may_overtake_each_other() {
    let site = site();
    let gate = format!("GATE={}", site.path("gate").display());
    let mut server = start(&site, &["--env", &gate]);
    let load = load(&server, 4);
    let mut held: Vec<Client> = Vec::new();
    for _ in 0..4 {
        let mark = server.mark();
        let mut client = server.connect();
        client.send(b"GET /probe.so/gate HTTP/1.1\r\nHost: a\r\n\r\n").expect("the connection is open");
        server.wait_for_log_since(mark, "waiting", PATIENCE);
        held.push(client);
        // The one before has a connection still, that will have to come through all that follow.
        server.upgrade();
    }
    site.write("gate", "");
    for client in &mut held {
        assert_answer(client.response(), "answered\n");
        // Through all of them, since the ones between have no reason to stay.
        eventually("it arrives at the last", PATIENCE, || {
            let process = probe::process(&client.get("/probe.so").expect("an answer"));
            workers(&server).contains(&process).then_some(())
        });
    }
    server.wait_for_former();
    load.finish().assert_nothing_lost();
}

#[test]
fn a_service_manager_is_told_which_process_is_the_main_one() {
    let site = site();
    let manager = UnixDatagram::bind(site.path("manager")).expect("a socket in our own folder");
    manager.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    let told = || {
        let mut buffer = [0; 256];
        let length = manager.recv(&mut buffer).expect("the manager is told");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let mut command = site.command_by(&site.path("host"), &["--bind", "127.0.0.1:0", "--runtime", "runtime"]);
    command.env("NOTIFY_SOCKET", site.path("manager"));
    let mut server = Server::start(command);
    assert_eq!(told(), "READY=1");
    for _ in 0..2 {
        server.upgrade();
        assert_eq!(told(), format!("MAINPID={}", server.id()));
        assert_eq!(told(), "READY=1");
    }
    assert_eq!(server.stop().code(), Some(0));
    assert_eq!(told(), "STOPPING=1");
}

/// What another version of `host` may be: it speaks a version of the protocol that is not ours.
const STRANGER: &str = r#"
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int take_listener(void) {
    char text[65536], control[4096];
    struct iovec part = {text, sizeof text};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    if (recvmsg(0, &message, 0) <= 0) return -1;
    int listener;
    memcpy(&listener, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof listener);
    return listener;
}

static void say(const char *text) { send(0, text, strlen(text), MSG_NOSIGNAL); }

int main(void) {
    static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nstranger\n";
    int listener = take_listener();
    say("i{\"Hello\":{\"protocol\":999}}");
    say("i\"Serving\"");
    char text[65536];
    /* The first word after that is that it may take over. A connection would be another. */
    ssize_t len = recv(0, text, sizeof text, 0);
    if (len <= 0 || memcmp(text, "i\"TakeOver\"", 11) != 0) return 1;
    if (recv(0, text, sizeof text, 0) > 0) return 2;
    for (;;) {
        int client = accept(listener, NULL, NULL);
        while (client >= 0 && read(client, text, sizeof text) > 0) write(client, answer, sizeof answer - 1);
        close(client);
    }
}
"#;

#[test]
fn another_version_gets_the_sockets_and_no_connection_it_might_not_understand() {
    let site = site();
    // One loop: when it has closed the idle connection, it knows for all of them.
    let mut server = start(&site, &["--threads", "1"]);
    let [mut client, mut idle] = std::array::from_fn(|_| server.connect());
    assert_answer(client.get("/a.txt"), "a");
    assert_answer(idle.get("/a.txt"), "a");
    client.send(b"GET /a.txt HTTP/1.1\r\nHost: a\r\n").expect("the connection is open");
    let mut link = Command::new("cc");
    link.args(["-x", "c", "-o"]).arg(site.path("stranger")).arg(site.write("sources/stranger.c", STRANGER));
    assert!(link.status().is_ok_and(|status| status.success()), "{link:?}");
    turn_to(&site, &site.path("stranger"));
    let mark = server.mark();
    server.ask_for_upgrade();
    // What has begun is answered, and then its connection is closed.
    let line = server.wait_for_log_since(mark, "takes no connections from this version", PATIENCE);
    assert!(line.contains(" warn "), "{line}");
    assert_eq!(idle.rest().expect("it ends as it should"), b"");
    client.send(b"\r\n").expect("the connection is open");
    let response = client.response().expect("an answer");
    assert_eq!((response.text(), response.closes()), ("a", true));
    assert_eq!(server.wait().code(), Some(0));
    assert_eq!(server.get("/a.txt").text(), "stranger\n");
}
