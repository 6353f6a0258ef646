//! Sends a case to a server, over a connection of its own, and says what was wrong with the answer.

use super::corpus::{Case, Fate};
use super::expectation::{Expectation, excerpt};
use super::text::{self, Facts};
use super::{rules, site};
use crate::{Client, Response, Wait};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

/// A server with the [site].
#[derive(Clone, Debug)]
pub struct Subject {
    /// Where it listens.
    pub address: SocketAddr,
    /// The path of what answers with the content of the request, if there is such a thing.
    pub echo: Option<String>,
    /// How long it may take to answer, or to close.
    pub patience: Duration,
    /// Whether each response must keep to all [rules], and not only to what its case asks for.
    pub audited: bool,
}

/// Between two writes: so that they arrive apart, as a rule. A case's outcome must not depend on it.
const PAUSE: Duration = Duration::from_millis(20);

/// Longer than the tick of any file system's clock.
const SETTLING: Duration = Duration::from_secs(5);

/// More interim responses than this are a mistake.
const INTERIM_MAX: usize = 10;

impl Subject {
    /// Sends the case, and checks what comes.
    ///
    /// # Errors
    /// What was wrong.
    pub fn run(&self, case: &Case) -> Result<(), String> {
        let mut exchange = Exchange::begin(self, case).map_err(|error| error.to_string())?;
        let mut last = None;
        for (index, expectation) in case.expectations().iter().enumerate() {
            // Without a handler, what shows is whether the request was understood, and where it ended.
            let elsewhere = (case.echoes() && self.echo.is_none()).then(|| expectation.without_handler());
            if elsewhere.is_some() && last.as_ref().is_some_and(Response::closes) {
                break;
            }
            match exchange.answer(index, elsewhere.as_ref().unwrap_or(expectation))? {
                Some(response) => last = Some(response),
                None => return Ok(()),
            }
        }
        let last = last.ok_or("it expects nothing")?;
        exchange.end(&last)
    }

    /// Waits until the server is sure of its site's tags: on some file systems, a tag is weak for a moment after a change. Some
    /// servers have no strong ones; they are not waited for long.
    pub fn settle(&self) {
        let mut wait = Wait::new(SETTLING);
        while self.field("ETag", "/a.txt").is_ok_and(|tag| tag.starts_with("W/")) && !wait.left().is_zero() {
            std::thread::sleep(PAUSE);
        }
    }

    fn connect(&self) -> io::Result<Client> {
        let client = Client::connect(self.address)?;
        client.stream().set_read_timeout(Some(self.patience))?;
        client.stream().set_write_timeout(Some(self.patience))?;
        Ok(client.tolerant())
    }
}

impl Facts for Subject {
    fn field(&self, name: &str, path: &str) -> Result<String, String> {
        let response = self.connect().and_then(|mut client| client.get(path)).map_err(|error| error.to_string())?;
        response.field(name).map(str::to_owned).ok_or_else(|| format!("{path} has no {name}"))
    }

    fn echo(&self) -> &str {
        self.echo.as_deref().unwrap_or("/a.txt")
    }
}

/// A case under way.
struct Exchange<'a> {
    subject: &'a Subject,
    case: &'a Case,
    client: Client,
    /// Whether the answers are to HEAD.
    is_head: bool,
    /// Whether the probe has been sent behind the case's bytes.
    probed: bool,
    /// What follows a `100 Continue`, until it is sent.
    on_continue: Option<Vec<u8>>,
}

impl<'a> Exchange<'a> {
    /// Sends all that does not wait for something.
    fn begin(subject: &'a Subject, case: &'a Case) -> io::Result<Exchange<'a>> {
        let bytes = |piece: &String| text::bytes(piece, subject).map_err(io::Error::other);
        let mut pieces = case.pieces().iter().map(bytes).collect::<io::Result<Vec<_>>>()?;
        let on_continue = case.on_continue.as_ref().map(bytes).transpose()?;
        let is_head = pieces[0].trim_ascii_start().starts_with(b"HEAD ");
        let probed = case.connection != Fate::Open && !case.alone && !case.finish && on_continue.is_none();
        if let (true, Some(last)) = (probed, pieces.last_mut()) {
            last.extend(probe());
        }
        let mut client = subject.connect()?;
        for (index, piece) in pieces.iter().enumerate() {
            if index > 0 {
                std::thread::sleep(PAUSE);
            }
            send(&mut client, piece)?;
        }
        if case.finish {
            ignore_end(client.finish())?;
        }
        Ok(Exchange { subject, case, client, is_head, probed, on_continue })
    }

    /// Reads the answer to request `index`. None: the connection has ended instead, which is right.
    fn answer(&mut self, index: usize, expectation: &Expectation) -> Result<Option<Response>, String> {
        let method = match self.case.methods.get(index) {
            Some(method) => method.as_str(),
            None if self.is_head => "HEAD",
            None => "GET",
        };
        for _ in 0..=INTERIM_MAX {
            let response = match self.client.response_to(method) {
                Ok(response) => response,
                Err(error) if is_end(&error) && expectation.allows_end() => return Ok(None),
                Err(error) => return Err(format!("{} was expected: {}", expectation.shown(), told(&error))),
            };
            let shown = || format!("{}, {}", response.head.trim_end().escape_debug(), excerpt(&response.body));
            if self.subject.audited
                && let Some(breach) = rules::breach(&response)
            {
                return Err(format!("{breach}: {}", shown()));
            }
            if response.status / 100 == 1 && response.status != 101 && !expectation.names(response.status) {
                if self.case.no_interim {
                    return Err(format!("there must be no interim response: {}", shown()));
                }
                if response.status == 100
                    && let Some(content) = self.on_continue.take()
                {
                    send(&mut self.client, &content).map_err(|error| error.to_string())?;
                }
                continue;
            }
            return match expectation.check(&response, self.subject) {
                Ok(()) => Ok(Some(response)),
                Err(reason) => Err(format!("{reason}: {}", shown())),
            };
        }
        Err("too many interim responses".to_owned())
    }

    /// Whether the connection's fate is the right one, when the last answer has come.
    fn end(mut self, last: &Response) -> Result<(), String> {
        if !self.case.finish
            && let Some(content) = self.on_continue.take()
        {
            // A client may send the content although it has the answer, so that the server knows where the next request is.
            send(&mut self.client, &content).map_err(|error| error.to_string())?;
        }
        match self.case.connection {
            Fate::Open if last.closes() => Err(format!("the connection must live on: {}", last.head.escape_debug())),
            Fate::Open => {
                send(&mut self.client, &probe()).map_err(|error| error.to_string())?;
                match self.client.response() {
                    Ok(response) => check_probe(&response),
                    Err(error) => Err(format!("the next request was not answered: {}", told(&error))),
                }
            }
            Fate::Closed => self.ended(last),
            Fate::Either if self.case.finish || last.closes() => self.ended(last),
            Fate::Either => {
                if !self.probed {
                    send(&mut self.client, &probe()).map_err(|error| error.to_string())?;
                }
                match self.client.response() {
                    Ok(response) => check_probe(&response),
                    Err(error) if is_end(&error) => Ok(()),
                    Err(error) => Err(format!("neither an end nor the next answer: {}", told(&error))),
                }
            }
        }
    }

    /// The server must have closed, and sent nothing more.
    fn ended(&mut self, last: &Response) -> Result<(), String> {
        match self.client.rest() {
            Ok(rest) if !rest.is_empty() => Err(format!("something follows the last answer: {}", excerpt(&rest))),
            // RFC 9112 §9.6: "The server SHOULD send a "close" connection option in its final response".
            Ok(_) if self.subject.audited && !self.case.finish && !last.closes() => {
                Err(format!("it closes without saying so: {}", last.head.escape_debug()))
            }
            Ok(_) => Ok(()),
            // What was sent and never read may make the kernel reset it.
            Err(error) if is_end(&error) => Ok(()),
            Err(error) => Err(format!("the connection must end: {}", told(&error))),
        }
    }
}

/// The request that shows whether a connection lives on.
fn probe() -> Vec<u8> {
    format!("GET {} HTTP/1.1\r\nHost: a\r\n\r\n", site::PROBE.0).into_bytes()
}

fn check_probe(response: &Response) -> Result<(), String> {
    if response.status == 200 && response.body == site::PROBE.1 {
        return Ok(());
    }
    let (head, body) = (response.head.trim_end().escape_debug(), excerpt(&response.body));
    Err(format!("what follows is not the answer to the next request: {head}, {body}"))
}

/// Sends what the server takes: one that has refused a request need not read the rest of it.
fn send(client: &mut Client, bytes: &[u8]) -> io::Result<()> {
    ignore_end(client.send(bytes))
}

fn ignore_end(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if is_end(&error) => Ok(()),
        other => other,
    }
}

/// Whether the connection has ended between two responses.
fn is_end(error: &io::Error) -> bool {
    match error.kind() {
        ErrorKind::UnexpectedEof => error.to_string() == "closed between responses",
        kind => {
            matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::NotConnected)
        }
    }
}

fn told(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => "nothing came in time".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    /// What `run` says of a server that sends `response` to whatever comes, and then closes if it is told to.
    fn run(case: &str, response: &'static str, closes: bool) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let count = stream.read(&mut [0; 4096]).unwrap();
            assert!(count > 0);
            stream.write_all(response.as_bytes()).unwrap();
            if closes {
                stream.shutdown(std::net::Shutdown::Write).unwrap();
            }
            // Until the client has gone.
            while stream.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {}
        });
        let head = "name = \"a\"\nsection = \"9112 §9\"\nrule = \"a rule that is told\"\n";
        let case: Case = toml::from_str(&format!("{head}{case}")).unwrap();
        // What does not come has to be waited for; what comes may take its time.
        let patience = if closes { crate::PATIENCE } else { Duration::from_secs(3) };
        let result = Subject { address, echo: None, patience, audited: true }.run(&case);
        server.join().unwrap();
        result
    }

    const GET: &str = "send = 'GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n'\n";
    const DATE: &str = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";

    #[test]
    fn what_a_server_does_wrong_is_seen() {
        let probe = "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Type: a/b\r\nContent-Length: 11\r\n\r\nstill here\n";
        let bad =
            "HTTP/1.1 400 Bad\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        let both: &'static str = format!("{bad}{probe}").leak();
        let unsaid: &'static str = format!("HTTP/1.1 400 Bad\r\n{DATE}Content-Length: 0\r\n\r\n").leak();
        let dateless = "HTTP/1.1 400 Bad\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        let closed = format!("{GET}answer = \"400\"\nconnection = \"closed\"");
        let either = format!("{GET}answer = \"400\"");
        let end = format!("{GET}answer = \"400|closed\"");
        let head = closed.replace("GET /", "HEAD /");
        let exchanges = [
            (&closed, bad, true, None),
            (&closed, bad, false, Some("must end")),
            (&closed, both, true, Some("something follows")),
            (&closed, unsaid, true, Some("without saying so")),
            (&closed, dateless, true, Some("§6.6.1")),
            (&closed, probe, true, Some("400 was expected")),
            (&closed, "", true, Some("400 was expected")),
            (&closed, "", false, Some("nothing came in time")),
            (&closed, "HTTP/1.1 400 Bad\n\n", true, Some("within a response")),
            (&either, unsaid, false, Some("neither an end")),
            (&end, "", true, None),
            (&end, "", false, Some("nothing came in time")),
            (&head, bad, true, None),
            (
                &head,
                "HTTP/1.1 400 Bad\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx",
                true,
                Some("something follows"),
            ),
        ];
        let check = |(case, response, closes, complaint): (&String, &'static str, bool, Option<&str>)| {
            let result = run(case, response, closes);
            let is_right = match complaint {
                None => result.is_ok(),
                Some(words) => result.as_ref().is_err_and(|error| error.contains(words)),
            };
            assert!(is_right, "{result:?}\n{case}\n{response}");
        };
        std::thread::scope(|scope| {
            for exchange in exchanges {
                scope.spawn(move || check(exchange));
            }
        });
    }
}
