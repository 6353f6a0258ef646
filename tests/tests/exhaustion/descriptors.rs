//! Too few descriptors: for clients (`ulimit -n`), and because a handler takes all of them.

use crate::{Fixture, processor_time, raise_own_descriptor_limit};
use std::io::ErrorKind;
use std::time::Duration;
use tests::{Client, PATIENCE, eventually};

const CLIENTS: usize = 1000;

const REQUEST: &[u8] = b"GET /modest.so HTTP/1.1\r\nHost: a\r\n\r\n";

/// One exchange; `false` if the server had no room for it.
fn is_answered(client: std::io::Result<Client>) -> bool {
    let response = client.and_then(|mut client| {
        client.send(REQUEST)?;
        client.response()
    });
    match response {
        Ok(response) if response.status == 200 => true,
        Ok(response) => {
            assert_eq!((response.status, response.field("Retry-After")), (503, Some("1")), "{}", response.head);
            false
        }
        // Whoever is sent away before its request has come may see the end of the connection only.
        Err(error) => {
            let kinds = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe, ErrorKind::UnexpectedEof];
            assert!(kinds.contains(&error.kind()), "{error}");
            false
        }
    }
}

#[test]
fn a_thousand_clients_at_256_descriptors_are_all_answered_in_the_end() {
    raise_own_descriptor_limit();
    let fixture = Fixture::start(&["prlimit", "--nofile=256"], &["--threads", "2"]);
    let (before, worker) = (fixture.footprint(), fixture.worker());
    // All at the same time, and nobody leaves before all are there.
    let clients: Vec<_> = (0..CLIENTS).map(|_| Client::connect(fixture.server.address())).collect();
    let refused = clients.into_iter().map(is_answered).filter(|answered| !answered).count();
    assert!((1..CLIENTS).contains(&refused), "{refused} of {CLIENTS} were refused");
    // Who was sent away comes again.
    std::thread::scope(|scope| {
        for _ in 0..refused {
            scope.spawn(|| {
                eventually("the client is answered", 2 * PATIENCE, || {
                    is_answered(Client::connect(fixture.server.address())).then_some(())
                });
            });
        }
    });
    assert_eq!(fixture.worker(), worker, "the worker has lived on");
    fixture.assert_as_before(before);
}

#[test]
fn a_worker_without_a_descriptor_serves_who_is_connected_and_takes_the_others_later() {
    let fixture = Fixture::start(&["prlimit", "--nofile=256"], &["--threads", "2"]);
    let (before, worker) = (fixture.footprint(), fixture.worker());
    let mut connected = fixture.server.connect();
    assert_eq!(connected.get("/page.txt").expect("an answer").status, 200);
    let mut greedy = fixture.server.connect();
    greedy.send(b"GET /greedy.so/descriptors HTTP/1.1\r\nHost: a\r\n\r\n").expect("the kernel takes it");
    eventually("there is no descriptor left", PATIENCE, || {
        tests::process::descriptors(worker).filter(|count| *count >= 256)
    });
    let mut waiting: Vec<_> = (0..20).map(|_| fixture.server.connect()).collect();
    waiting.iter_mut().for_each(|client| client.send(REQUEST).expect("the kernel takes it"));
    fixture.server.wait_for_log("cannot accept connections on", PATIENCE);
    // What needs a descriptor is refused, what needs none is not, and the loops do not turn in vain.
    fixture.site.write("html/other.txt", "another page\n");
    let used = processor_time(worker);
    assert_eq!(connected.get("/greedy.so/sleep?1000").expect("an answer").status, 200);
    let used = processor_time(worker) - used;
    assert!(used < Duration::from_millis(500), "{used:?} of processor time in a second of waiting");
    let page = connected.get("/other.txt").expect("an answer");
    assert_eq!((page.status, page.field("Retry-After")), (503, Some("1")), "{}", page.text());
    let content = connected.request("POST", "/modest.so", &[], &[b'x'; 200_000]).expect("an answer");
    assert_eq!((content.status, content.field("Retry-After")), (503, Some("1")), "{}", content.text());
    fixture.open_gate();
    for client in &mut waiting {
        assert_eq!(client.response().expect("an answer").text(), "Hello, World!\n");
    }
    assert_eq!(greedy.response().expect("an answer").status, 200);
    drop((connected, greedy, waiting));
    assert_eq!(fixture.server.get("/other.txt").text(), "another page\n");
    assert_eq!(fixture.worker(), worker);
    fixture.assert_as_before(before);
}

#[test]
fn a_supervisor_without_a_descriptor_replaces_a_dead_worker_as_soon_as_it_can() {
    let fixture = Fixture::start(&["prlimit", "--nofile=64"], &["--threads", "1"]);
    let (before, worker) = (fixture.footprint(), fixture.worker());
    let limit = |count: usize| {
        let options = [format!("--pid={}", fixture.server.id()), format!("--nofile={count}:64")];
        assert!(std::process::Command::new("prlimit").args(&options).status().is_ok_and(|status| status.success()));
    };
    // From so few that nothing can be opened up to where a worker can nearly be started.
    for room in 0..4 {
        limit(before.of_supervisor - 4 + room);
        let mark = fixture.server.mark();
        let dead = fixture.worker();
        crate::kill(dead, rustix::process::Signal::KILL);
        fixture.server.wait_for_log_since(mark, &format!("worker {dead} died of SIGKILL"), PATIENCE);
        eventually("another try has failed, or another worker is there", PATIENCE, || {
            let told = fixture.server.log()[mark..].iter().any(|line| line.contains("cannot start a worker"));
            (told || fixture.workers().iter().any(|id| *id != dead)).then_some(())
        });
        limit(64);
        eventually("there is another worker, and nothing else", PATIENCE, || match &children_of(&fixture)[..] {
            [(id, 'S' | 'R')] if *id != dead => Some(()),
            _ => None,
        });
        assert_eq!(fixture.server.get("/modest.so").status, 200);
    }
    assert_ne!(fixture.worker(), worker);
    fixture.server.wait_for_log("cannot start a worker", PATIENCE);
    fixture.assert_as_before(before);
}

fn children_of(fixture: &Fixture) -> Vec<(u32, char)> {
    tests::children(fixture.server.id()).into_iter().map(|child| (child.id, child.state)).collect()
}
