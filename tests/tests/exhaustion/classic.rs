//! The classic client: M clients at the same time, each of which makes N connections, one after the other, and sends one
//! request over each. It ends lines with LF alone.

use crate::{Fixture, raise_own_descriptor_limit};
use std::io::{Error, ErrorKind};
use std::net::SocketAddr;
use std::time::Instant;
use tests::{Client, PATIENCE, Response};

/// As it sends it, byte for byte.
const CLASSIC: &[u8] = b"GET / HTTP/1.1\nHost: localhost\n\n";

const PROPER: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Clients and connections of each.
const SIZES: [(usize, usize); 3] = [(300, 4), (500, 3), (128, 10)];

/// What all connections of a run came to.
#[derive(Debug, Default)]
struct Tally {
    answered: usize,
    /// Told that there is no room (503), or sent away before they could be told.
    refused: usize,
}

/// One request over one connection, as often as it takes until there is room for it.
fn ask(address: SocketAddr, request: &[u8], status: u16, tally: &mut Tally) {
    let start = Instant::now();
    loop {
        match exchange(address, request) {
            Ok(response) if response.status == status => {
                assert_eq!(response.closes(), status == 400, "{}", response.head);
                return tally.answered += 1;
            }
            Ok(response) => assert_eq!(response.status, 503, "{}\n{}", response.head, response.text()),
            Err(error) => {
                let kinds = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe, ErrorKind::UnexpectedEof];
                assert!(kinds.contains(&error.kind()), "{error}");
            }
        }
        tally.refused += 1;
        assert!(start.elapsed() < 2 * PATIENCE, "a client is not answered");
    }
}

fn exchange(address: SocketAddr, request: &[u8]) -> Result<Response, Error> {
    let mut client = Client::connect(address)?;
    client.send(request)?;
    client.response()
}

fn storm(address: SocketAddr, (clients, connections): (usize, usize), request: &[u8], status: u16) -> Tally {
    let mut total = Tally::default();
    std::thread::scope(|scope| {
        let client = || {
            let mut tally = Tally::default();
            (0..connections).for_each(|_| ask(address, request, status, &mut tally));
            tally
        };
        let threads: Vec<_> = (0..clients).map(|_| scope.spawn(client)).collect();
        for thread in threads {
            let Tally { answered, refused } = thread.join().expect("each client is answered as it must be");
            total.answered += answered;
            total.refused += refused;
        }
    });
    total
}

fn withstands(limits: &[&str]) {
    raise_own_descriptor_limit();
    let fixture = Fixture::start(&[&["prlimit"], limits].concat(), &[]);
    fixture.site.write("html/index.html", "<!DOCTYPE html>\n");
    let (before, worker) = (fixture.footprint(), fixture.worker());
    let address = fixture.server.address();
    for size in SIZES {
        for (request, status) in [(CLASSIC, 400), (PROPER, 200)] {
            let tally = fixture.without_zombies(|| storm(address, size, request, status));
            println!("{limits:?} {} clients x {} connections, {status}: {tally:?}", size.0, size.1);
            assert_eq!(tally.answered, size.0 * size.1);
            fixture.assert_as_before(before);
            // Nobody is sent away any more.
            let calm = storm(address, (8, 8), request, status);
            assert_eq!((calm.answered, calm.refused), (64, 0));
        }
    }
    assert_eq!(fixture.worker(), worker, "the worker has lived on");
    let first = fixture.server.get("/");
    assert_eq!((first.status, first.text()), (200, "<!DOCTYPE html>\n"));
}

#[test]
fn the_classic_client_at_256_descriptors_is_told_400_and_brings_nothing_down() {
    withstands(&["--nofile=256"]);
}

#[test]
fn the_classic_client_at_400_processes_and_500_descriptors_is_told_400_and_brings_nothing_down() {
    withstands(&["--nproc=400", "--nofile=500"]);
}
