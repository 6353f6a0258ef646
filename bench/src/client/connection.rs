//! One connection of the client: its socket, and what is due on it.

use super::answer::Answers;
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// A connection to the server.
pub struct Connection {
    /// None while it is to be made again.
    pub socket: Option<OwnedFd>,
    /// Its group's number.
    pub group: usize,
    /// How often it was made: events of a socket before this one carry another number.
    pub made: u32,
    /// Whether it is known to be established.
    pub established: bool,
    /// Whether it was frozen at some time.
    pub frozen: bool,
    /// When each request that is under way was sent, or its connection begun, oldest first.
    pub under_way: VecDeque<Instant>,
    /// When last a byte was received, or sent while nothing was due.
    pub progress: Instant,
    /// What has arrived.
    pub answers: Answers,
    /// Whether the one answer of a connection without keep-alive has arrived.
    pub complete: bool,
    /// Bytes of the requests under way that the socket has not yet taken.
    unsent: usize,
}

/// Content of which so much is still to come is not copied.
const DROPPED_BYTES_MIN: usize = 16 << 10;

/// What a turn of receiving has given.
pub enum Received {
    /// So many bytes, and whether they are in the buffer or were content, which nobody needs.
    Bytes {
        /// How many.
        count: usize,
        /// Whether they are in the buffer.
        kept: bool,
        /// Whether they are all that was there.
        all: bool,
    },
    /// Nothing now.
    Nothing,
    /// The server has closed.
    End,
    /// It is broken.
    Failed(Errno),
}

impl Connection {
    /// A connection that has not been made.
    pub fn new(group: usize, now: Instant) -> Connection {
        Connection {
            socket: None,
            group,
            made: 0,
            established: false,
            frozen: false,
            under_way: VecDeque::new(),
            progress: now,
            answers: Answers::default(),
            complete: false,
            unsent: 0,
        }
    }

    /// Begins to connect. What was under way is forgotten.
    pub fn connect(&mut self, address: SocketAddr, now: Instant) -> Result<(), Errno> {
        self.socket = None;
        self.made = self.made.wrapping_add(1);
        self.established = false;
        self.under_way.clear();
        self.progress = now;
        self.answers = Answers::default();
        self.complete = false;
        self.unsent = 0;
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = net::socket_with(family, SocketType::STREAM, flags, None)?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        match net::connect(&socket, &address) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error),
        }
        self.socket = Some(socket);
        Ok(())
    }

    /// Asks `count` times; `requests` is the group's request, repeated for as many as may be under way.
    pub fn ask(&mut self, requests: &[u8], request_length: usize, count: usize, now: Instant) -> Result<(), Errno> {
        if self.under_way.is_empty() {
            self.progress = now;
        }
        self.under_way.extend(std::iter::repeat_n(now, count));
        self.unsent += request_length * count;
        self.send(requests)
    }

    /// Sends what is still unsent, as far as the socket takes it.
    pub fn send(&mut self, requests: &[u8]) -> Result<(), Errno> {
        while let Some(socket) = &self.socket
            && self.unsent > 0
        {
            // The requests are all the same, so the unsent ones are the end of the repetition.
            match net::send(socket, &requests[requests.len() - self.unsent..], SendFlags::NOSIGNAL) {
                Ok(sent) => self.unsent -= sent,
                // Either it is not connected yet or its buffer is full: an event follows.
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Receives once.
    pub fn receive(&mut self, buffer: &mut [u8]) -> Received {
        let Some(socket) = &self.socket else { return Received::Nothing };
        let content = usize::try_from(self.answers.content_left()).unwrap_or(usize::MAX).min(buffer.len());
        // tcp(7): with MSG_TRUNC the kernel drops the bytes and copies nothing, so that large answers do not keep the
        // client busy.
        let (wanted, flags, kept) = match content >= DROPPED_BYTES_MIN {
            true => (content, RecvFlags::TRUNC, false),
            false => (buffer.len(), RecvFlags::empty(), true),
        };
        match net::recv(socket, &mut buffer[..wanted], flags) {
            Ok((_, 0)) => Received::End,
            // A short read has emptied the socket (epoll(7), question 9).
            Ok((_, count)) => Received::Bytes { count, kept, all: count < wanted },
            Err(Errno::AGAIN | Errno::INTR) => Received::Nothing,
            Err(error) => Received::Failed(error),
        }
    }

    /// How long an answer has been due without a byte; none if nothing is due.
    pub fn waiting(&self, now: Instant) -> Option<Duration> {
        (!self.under_way.is_empty()).then(|| now.saturating_duration_since(self.progress))
    }
}
