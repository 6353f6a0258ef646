//! Clients that ask for much and take nothing of it.

use crate::Fixture;
use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};

const CLIENTS: usize = 64;

/// A named limit of the server (128 KiB), and what the kernel may add to it, which it fills in whole pieces.
const UNSENT_BYTES_MAX: u64 = 256 * 1024;

/// It took up to some megabytes for each: thousands of such clients used up all the memory that it has for TCP.
#[test]
fn the_kernel_keeps_little_for_clients_who_read_slowly() {
    let fixture = Fixture::start(&[], &[]);
    fixture.site.write("html/large.bin", vec![b'x'; 16 << 20]);
    let address = fixture.server.address();
    let clients: Vec<TcpStream> = (0..CLIENTS)
        .map(|_| {
            let mut client = TcpStream::connect(address).expect("the server accepts");
            client.write_all(b"GET /large.bin HTTP/1.1\r\nHost: a\r\n\r\n").expect("the kernel takes it");
            client
        })
        .collect();
    // When somebody else has been served some hundred times, each has what the kernel takes for it.
    let load = fixture.innocents(1);
    load.flow(300);
    let mut last = 0;
    // It grows for a while, step by step.
    loop {
        let now = unsent(address);
        if now <= last {
            break;
        }
        last = now;
        load.flow(300);
    }
    assert!(last > 0, "there is nothing to be bounded");
    assert!(last <= CLIENTS as u64 * UNSENT_BYTES_MAX, "{} KiB for each", last / CLIENTS as u64 / 1024);
    load.finish().assert_nothing_lost();
    drop(clients);
}

/// What waits to be sent or acknowledged at all connections of this listener (proc_net_tcp(5)).
fn unsent(listener: SocketAddr) -> u64 {
    let port = format!(":{:04X}", listener.port());
    let table = fs::read_to_string("/proc/net/tcp").expect("proc is there");
    let queues = table.lines().skip(1).filter_map(|line| {
        let mut columns = line.split_whitespace();
        let local = columns.nth(1)?;
        let queues = columns.nth(2)?;
        let (sending, _) = queues.split_once(':')?;
        local.ends_with(&port).then(|| u64::from_str_radix(sending, 16).unwrap_or(0))
    });
    queues.sum()
}
