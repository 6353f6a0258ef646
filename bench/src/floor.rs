//! The floor: a server that does the least a server can do, so that what others cost above it is theirs.
//!
//! One thread, edge-triggered epoll, and for each readable connection one `recv` and one `send` of a constant: the bytes
//! of host's hello, with a date that stands still. It does not parse: it takes whatever one `recv` gives for one
//! request. So it cannot be asked with pipelining, nor for requests that arrive in pieces; the comparison asks for
//! neither.

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags, SocketFlags};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

/// The answer: what host sends for `bench/examples/hello.rs`.
pub const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
    Server: host\r\n\
    Content-Type: text/plain\r\n\
    Content-Length: 14\r\n\r\n\
    Hello, World!\n";

const LISTENER: u64 = u64::MAX;
const BACKLOG: i32 = 4096;
const EVENTS: usize = 256;
/// Longer than any request that it is asked.
const REQUEST_BYTES_MAX: usize = 4096;

/// Serves until the process is ended. With `close`, each connection ends after its answer.
///
/// # Errors
/// It cannot listen, or has no more descriptors.
pub fn serve(address: SocketAddr, close: bool) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    // The standard library's queue is too short for a thousand connections at once; listen(2) may be called again.
    net::listen(&listener, BACKLOG)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let mut slots: Vec<Option<OwnedFd>> = Vec::new();
    let mut free = Vec::new();
    let mut events = [epoll::Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; EVENTS];
    loop {
        let count = match epoll::wait(&epoll, &mut events, None) {
            Err(Errno::INTR) => continue,
            count => count?,
        };
        for event in &events[..count] {
            let key = { event.data }.u64();
            if key != LISTENER {
                let slot = &mut slots[key as usize];
                // A slot is free at most once in a batch, and is taken again only when the listener's turn comes.
                if slot.as_ref().is_some_and(|socket| !answer(socket, close)) {
                    *slot = None;
                    free.push(key as usize);
                }
                continue;
            }
            loop {
                let socket = match net::accept_with(&listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                    Err(Errno::AGAIN) => break,
                    Err(Errno::INTR | Errno::CONNABORTED) => continue,
                    socket => socket?,
                };
                net::sockopt::set_tcp_nodelay(&socket, true)?;
                let index = free.pop().unwrap_or(slots.len());
                epoll::add(&epoll, &socket, EventData::new_u64(index as u64), EventFlags::IN | EventFlags::ET)?;
                match slots.get_mut(index) {
                    Some(slot) => *slot = Some(socket),
                    None => slots.push(Some(socket)),
                }
            }
        }
    }
}

/// Answers what has arrived; whether the connection goes on.
fn answer(socket: &OwnedFd, close: bool) -> bool {
    let mut request = [0; REQUEST_BYTES_MAX];
    match net::recv(socket, &mut request, RecvFlags::empty()) {
        Ok((_, 0)) => false,
        // The answer is short: a socket that has no room for it has a client that does not read.
        Ok(_) => net::send(socket, ANSWER, SendFlags::NOSIGNAL) == Ok(ANSWER.len()) && !close,
        Err(error) => matches!(error, Errno::AGAIN | Errno::INTR),
    }
}
