//! How often a whole server allocates for a request to a handler: sockets, event loops, threads. It is a test of its own,
//! because all threads of its process count.

#[path = "allocations/module.rs"]
mod module;

use host::config::{AccessLogFormat, Bind};
use host::server::{AccessLog, Server, Settings};
use host::sys::allocations::{Counting, by_all_threads};
use host::sys::socket::{Address, listen, local_address};
use module::{FIELDS, FRUGAL, config, request_texts, router};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[global_allocator]
static COUNTING: Counting = Counting;

/// Requests that are counted together.
const ROUND: u64 = 1_000;

/// A call that is held up, as happens on a machine that has other things to do, makes the server pass its loop on before
/// the next few hundred, which allocates; and first every buffer has to find its size. So some rounds may allocate, but
/// what allocates for each request does so in all of them.
const ROUNDS_MAX: usize = 100;

/// No test waits longer for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Starts a server in this process, for the rest of it.
fn serve(access_log: Option<AccessLogFormat>) -> SocketAddr {
    let config = Arc::new(config());
    let (router, retired) = router(Arc::clone(&config));
    std::thread::spawn(move || host::handler::retire(&retired));
    let listener = listen(&Bind::Tcp(([127, 0, 0, 1], 0).into())).unwrap();
    let address = local_address(listener.as_fd()).unwrap();
    let Address::Tcp(socket_address) = address else { panic!("{address:?}") };
    let access_log = access_log.map(|format| {
        let nowhere = host::sys::sink::open(Path::new("/dev/null")).unwrap();
        AccessLog::start(nowhere, format).unwrap()
    });
    let spool = std::env::temp_dir();
    let settings = Settings { config, router, spool, access_log, notice: Box::new(|_| {}) };
    // Dropping the server would not end it either: its threads go on.
    Server::start(settings, vec![(listener, Arc::new(Address::Tcp(socket_address)))]).unwrap();
    socket_address
}

/// Sends requests on one connection, round by round. The client allocates nothing.
struct Client {
    connection: TcpStream,
    texts: [String; 4],
}

impl Client {
    fn new(address: SocketAddr, symbol: &str, fields: &str) -> Client {
        let connection = TcpStream::connect(address).unwrap();
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        Client { connection, texts: request_texts(symbol, fields) }
    }

    /// How often all threads together allocate in a round, and how often they may whatever the handler does: the server
    /// writes its date anew each second.
    fn round(&mut self) -> (u64, u64) {
        let (before, begin) = (by_all_threads(), Instant::now());
        for number in 0..ROUND as usize {
            self.ask(number % self.texts.len());
        }
        (by_all_threads() - before, begin.elapsed().as_secs() + 1)
    }

    fn ask(&mut self, which: usize) {
        self.connection.write_all(self.texts[which].as_bytes()).unwrap();
        let mut buffer = [0; 4096];
        let mut length = 0;
        while !is_complete(&buffer[..length]) {
            let received = self.connection.read(&mut buffer[length..]).unwrap();
            assert!(received > 0, "{:?}", String::from_utf8_lossy(&buffer[..length]));
            length += received;
        }
        assert!(buffer.starts_with(b"HTTP/1.1 20"), "{:?}", String::from_utf8_lossy(&buffer[..length]));
    }
}

/// Whether the response is here, which is known by its length alone.
fn is_complete(response: &[u8]) -> bool {
    let text = std::str::from_utf8(response).unwrap();
    let Some((head, content)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    content.len() == length.map_or(0, |length| length.parse().unwrap())
}

#[test]
fn a_server_allocates_nothing_for_small_requests_to_frugal_handlers() {
    let address = serve(None);
    for fields in FIELDS {
        for symbol in FRUGAL {
            let mut client = Client::new(address, symbol, fields);
            let frugal = (0..ROUNDS_MAX).any(|_| {
                let (allocations, allowed) = client.round();
                allocations <= allowed
            });
            assert!(frugal, "{symbol} {fields}");
        }
    }
    // Lines of the access log go to their writer some hundred at a time, and each time that takes two, and more when it
    // comes in the midst of others.
    for format in [AccessLogFormat::Combined, AccessLogFormat::Json] {
        let mut client = Client::new(serve(Some(format)), "hello", FIELDS[1]);
        let frugal = (0..ROUNDS_MAX).any(|_| client.round().0 <= ROUND / 20);
        assert!(frugal, "{format:?}");
    }
    // If there were one for each request, it would be seen.
    let (allocations, allowed) = Client::new(address, "wasteful", FIELDS[0]).round();
    assert!(allocations >= ROUND && allowed < ROUND, "{allocations} of {allowed}");
}
