//! Clients that connect, and send nothing or half of what they begin.

use crate::{Fixture, raise_own_descriptor_limit};
use std::io::{Read, Write};
use std::net::TcpStream;
use tests::PATIENCE;

/// As many as are tried, if there are descriptors for them.
const CLIENTS: usize = 10_000;

/// What they send, and what they get when their time is over.
const KINDS: [(&[u8], &str); 3] = [
    (b"", ""),
    (b"GET /page.txt HTT", "HTTP/1.1 408 "),
    (b"GET /page.txt HTTP/1.1\r\nHost: a\r\nX: ", "HTTP/1.1 408 "),
];

#[test]
fn ten_thousand_half_open_clients_keep_nobody_from_being_served_and_all_time_out() {
    let possible = usize::try_from(raise_own_descriptor_limit()).unwrap_or(usize::MAX);
    // A quarter of a worker's descriptors is not for connections; this process has others open, too.
    let count = CLIENTS.min(possible / 4 * 3 - 300);
    println!("{count} half-open clients");
    // The innocents may be idle for longer, however busy this machine is.
    let fixture = Fixture::start(&[], &["--timeout-head", "3s", "--limit-connections", "10300"]);
    let (before, worker) = (fixture.footprint(), fixture.worker());
    let load = fixture.innocents(8);
    load.flow(100);
    let clients: Vec<_> = (0..count)
        .map(|at| {
            let mut client = TcpStream::connect(fixture.server.address()).expect("the server accepts");
            let (sent, expected) = KINDS[at % KINDS.len()];
            client.write_all(sent).expect("the kernel takes it");
            client.set_read_timeout(Some(PATIENCE)).expect("a time that is not zero");
            (client, expected)
        })
        .collect();
    load.flow(100);
    for (mut client, expected) in clients {
        let mut got = String::new();
        client.read_to_string(&mut got).expect("the server closes in good order");
        assert!(got.starts_with(expected) && got.is_empty() == expected.is_empty(), "{got:?}");
    }
    load.flow(100);
    load.finish().assert_nothing_lost();
    assert_eq!(fixture.worker(), worker);
    fixture.assert_as_before(before);
}
