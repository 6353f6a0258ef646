//! A client that keeps a server busy and forgives nothing: it counts each answer that is wrong or missing and each
//! connection that the server closes, frozen ones included.

use crate::client::{Client, Response};
use crate::{PATIENCE, eventually};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Connections that send one request after another until they are told to stop.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What came of it.
#[derive(Debug, Default)]
#[must_use]
pub struct Report {
    /// Requests with the right answer.
    pub answered: u64,
    /// One line for each request with a wrong answer or none.
    pub failures: Vec<String>,
    /// Connections that the server closed, announced or not.
    pub closed: u64,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    answered: AtomicU64,
    closed: AtomicU64,
    failures: Mutex<Vec<String>>,
}

/// One request on a connection: the answer, and what is wrong with it.
type Exchange = dyn Fn(&mut Client, &str) -> io::Result<(Response, Result<(), String>)> + Send + Sync;

/// How much the clients of a load leave to others: the least there is.
const NICE: i32 = 19;

impl Load {
    /// Starts `connections` kept-alive connections, each of which GETs `paths` in turn; `verify` says what is wrong
    /// with an answer.
    pub fn start(
        address: SocketAddr,
        connections: usize,
        paths: &[&str],
        verify: impl Fn(&str, &Response) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        Self::start_noting(address, connections, paths, |_| (), move |path, (), response| verify(path, response))
    }

    /// As [`Load::start`]; `note` is called before each request is sent, and what it gives goes to `verify`: what was
    /// true when the request began.
    pub fn start_noting<T: 'static>(
        address: SocketAddr,
        connections: usize,
        paths: &[&str],
        note: impl Fn(&str) -> T + Send + Sync + 'static,
        verify: impl Fn(&str, T, &Response) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        assert!(!paths.is_empty(), "a load needs a path");
        let shared = Arc::new(Shared::default());
        let exchange = move |client: &mut Client, path: &str| {
            let noted = note(path);
            let response = client.get(path)?;
            let verdict = verify(path, noted, &response);
            Ok((response, verdict))
        };
        let exchange: Arc<Exchange> = Arc::new(exchange);
        let paths: Arc<[String]> = paths.iter().map(|path| (*path).to_owned()).collect();
        let threads = (0..connections)
            .map(|first| {
                let (shared, exchange, paths) = (Arc::clone(&shared), Arc::clone(&exchange), Arc::clone(&paths));
                std::thread::spawn(move || shared.run(address, &paths, first, &*exchange))
            })
            .collect();
        Self { shared, threads }
    }

    /// Right answers so far.
    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// Waits for `count` more right answers: the load is flowing.
    ///
    /// # Panics
    /// They do not come.
    pub fn flow(&self, count: u64) {
        let goal = self.answered() + count;
        eventually("the load is answered", PATIENCE, || (self.answered() >= goal).then_some(()));
    }

    /// Lets each connection finish its request, and reports.
    pub fn finish(self) -> Report {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            if thread.join().is_err() {
                self.shared.fail("a client thread panicked".to_owned());
            }
        }
        Report {
            answered: self.shared.answered.load(Ordering::Relaxed),
            failures: std::mem::take(&mut self.shared.failures.lock().unwrap_or_else(PoisonError::into_inner)),
            closed: self.shared.closed.load(Ordering::Relaxed),
        }
    }
}

impl Report {
    /// Nothing was lost: every request was answered rightly and the server closed no connection.
    ///
    /// # Panics
    /// With what went wrong, or if there was no load at all.
    pub fn assert_nothing_lost(&self) {
        let shown = self.failures.iter().take(10).cloned().collect::<Vec<_>>().join("\n  ");
        assert!(self.failures.is_empty(), "{} requests failed:\n  {shown}", self.failures.len());
        assert_eq!(self.closed, 0, "connections that the server closed");
        assert!(self.answered > 0, "no request was answered, so nothing was tested");
    }
}

impl Shared {
    fn run(&self, address: SocketAddr, paths: &[String], first: usize, exchange: &Exchange) {
        // A load takes all the processor time that it can get. What is being measured meanwhile, compilers for one,
        // comes first. nice(2) is of the calling thread; it fails where no priority may be changed, and only speed is lost.
        _ = rustix::process::nice(NICE);
        let mut connection = None;
        for path in paths.iter().cycle().skip(first % paths.len()) {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let client = match &mut connection {
                Some(client) => client,
                None => match Client::connect(address) {
                    Ok(client) => connection.insert(client),
                    Err(error) => {
                        self.fail(format!("{path}: cannot connect: {error}"));
                        continue;
                    }
                },
            };
            match exchange(client, path) {
                Ok((response, verdict)) => {
                    match verdict {
                        Ok(()) => _ = self.answered.fetch_add(1, Ordering::Relaxed),
                        Err(reason) => self.fail(format!("{path}: {reason}")),
                    }
                    if response.closes() {
                        self.closed.fetch_add(1, Ordering::Relaxed);
                        connection = None;
                    }
                }
                Err(error) => {
                    self.fail(format!("{path}: {error}"));
                    self.closed.fetch_add(1, Ordering::Relaxed);
                    connection = None;
                }
            }
        }
    }

    fn fail(&self, reason: String) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).push(reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    /// A server that answers each connection's requests with `answers`, then closes it.
    fn server(answers: &'static [&'static str]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                std::thread::spawn(move || {
                    for answer in answers {
                        // One small request arrives in one piece on loopback.
                        let _ = stream.read(&mut [0; 4096]);
                        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{answer}", answer.len());
                    }
                });
            }
        });
        address
    }

    fn expect_good(_: &str, response: &Response) -> Result<(), String> {
        (response.body == b"good").then_some(()).ok_or_else(|| format!("{:?}", response.text()))
    }

    #[test]
    fn wrong_answers_and_closed_connections_are_counted() {
        let load = Load::start(server(&["good", "good", "bad"]), 2, &["/a", "/b"], expect_good);
        load.flow(20);
        let report = load.finish();
        assert!(report.failures.iter().any(|line| line.ends_with("\"bad\"")), "{report:?}");
        assert!(report.failures.iter().any(|line| line.contains("closed between responses")), "{report:?}");
        assert!(report.answered >= 20 && report.closed > 0, "{report:?}");
    }

    #[test]
    #[should_panic(expected = "requests failed")]
    fn a_loss_fails_the_test() {
        let load = Load::start(server(&["good", "bad"]), 1, &["/"], expect_good);
        load.flow(3);
        load.finish().assert_nothing_lost();
    }
}
