//! No room for private copies: the old build keeps serving, nothing is left behind, and the next build that fits is taken.

use std::fs;
use std::process::Command;
use tests::process::descriptors;
use tests::server::{self, Server};
use tests::{PATIENCE, Site, cc, children, eventually, repository};

#[test]
fn a_build_for_which_the_disk_has_no_room_never_replaces_a_good_one() {
    let site = Site::new();
    site.compile("big", &source(1, ""));
    // A disk of our own, in a mount namespace of our own.
    let script = "mount -t tmpfs -o size=512k,mode=0700 tmpfs runtime && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", script, "sh"]).arg(server::binary());
    command.args(["--bind", "127.0.0.1:0", "--runtime", "runtime"]).current_dir(site.path(""));
    let server = Server::start(command);
    assert_eq!(server.get("/big.so").text(), "version 1");

    let mark = server.mark();
    site.compile("big", &source(2, "__attribute__((used)) static const char ballast[1 << 20] = {1};"));
    let line = server.wait_for_log_since(mark, "kept big generation 1", PATIENCE);
    assert!(line.contains("the disk is full"), "{line}");
    assert_eq!(server.get("/big.so").text(), "version 1");

    // The half copy is gone, or this one would not fit either.
    let mark = server.mark();
    site.compile("big", &source(3, "__attribute__((used)) static const char ballast[200 << 10] = {1};"));
    server.wait_for_log_since(mark, "reloaded big generation 2", PATIENCE);
    assert_eq!(server.get("/big.so").text(), "version 3");
}

#[test]
fn a_request_whose_content_finds_no_room_is_answered_507_and_others_go_on() {
    let site = Site::new();
    site.compile(
        "length",
        r#"#include "host.h"
        HOST_EXPORT host_body *application(host_env *env, host_start_response *start_response) {
            start_response->call(start_response, HOST_STR("200 OK"), NULL, 0, NULL);
            return env->bytes(env, env->get(env, HOST_STR("CONTENT_LENGTH")));
        }"#,
    );
    let script = "mount -t tmpfs -o size=512k,mode=0700 tmpfs runtime && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", script, "sh"]).arg(server::binary());
    command.args(["--bind", "127.0.0.1:0", "--runtime", "runtime"]).current_dir(site.path(""));
    let server = Server::start(command);

    let mut other = server.connect();
    let large = vec![b'x'; 4 << 20];
    let refused = server.connect().request("POST", "/length.so", &[], &large).expect("an answer");
    assert_eq!(refused.status, 507, "{}", refused.text());
    assert!(refused.closes());
    let small = other.request("POST", "/length.so", &[], &large[..1000]).expect("an answer");
    assert_eq!((small.status, small.text()), (200, "1000"));
    // The room that the first one took is free again.
    let medium = other.request("POST", "/length.so", &[], &large[..200 << 10]).expect("an answer");
    assert_eq!((medium.status, medium.text()), (200, "204800"));
    assert!(fs::read_dir(site.path("runtime")).expect("our own folder").next().is_none(), "the mount is the server's");
}

#[test]
fn uploads_for_which_together_there_is_no_room_are_refused_one_by_one_and_leave_nothing_behind() {
    const CLIENTS: usize = 8;
    let site = Site::new();
    cc(&repository().join("handlers/hello.c"), &site.path("handlers/hello.so"), &[]);
    let script = "mount -t tmpfs -o size=512k,mode=0700 tmpfs runtime && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", script, "sh"]).arg(server::binary());
    command.args(["--bind", "127.0.0.1:0", "--runtime", "runtime", "--threads", "2"]).current_dir(site.path(""));
    let server = Server::start(command);
    let content = vec![b'x'; 150 << 10];
    let head = format!("POST /hello.so HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", content.len());
    let workers = || children(server.id()).into_iter().filter(|child| child.command == "host: worker");
    let worker = workers().next().expect("it serves").id;
    let before = descriptors(worker);
    for _ in 0..3 {
        // All of them are in their midst when the disk becomes full.
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| server.connect()).collect();
        clients.iter_mut().for_each(|client| client.send(head.as_bytes()).expect("the kernel takes it"));
        std::thread::scope(|scope| {
            for client in &mut clients {
                // Who is refused early may find the connection closed.
                scope.spawn(|| _ = client.send(&content[1..]));
            }
        });
        let statuses = clients.iter_mut().map(|client| {
            _ = client.send(&content[..1]);
            client.response().map(|response| response.status)
        });
        let statuses: Vec<_> = statuses.collect();
        let refused = statuses.iter().filter(|status| matches!(status, Ok(507) | Err(_))).count();
        let answered = statuses.iter().filter(|status| matches!(status, Ok(200))).count();
        assert!(statuses.iter().any(|status| matches!(status, Ok(507))), "{statuses:?}");
        assert_eq!(answered + refused, CLIENTS, "{statuses:?}");
        drop(clients);
        // The disk is empty again, as far as these are concerned: the largest that fits does.
        eventually("the files are gone", PATIENCE, || (descriptors(worker) <= before).then_some(()));
        let fits = server.connect().request("POST", "/hello.so", &[], &vec![b'x'; 300 << 10]).expect("an answer");
        assert_eq!(fits.status, 200, "{}", fits.text());
    }
    assert!(workers().any(|process| process.id == worker), "the worker has lived on");
}

fn source(version: usize, ballast: &str) -> String {
    format!(
        r#"#include "host.h"
        {ballast}
        HOST_EXPORT host_body *application(host_env *env, host_start_response *start_response) {{
            start_response->call(start_response, HOST_STR("200 OK"), NULL, 0, NULL);
            return env->bytes(env, HOST_STR("version {version}"));
        }}"#
    )
}
