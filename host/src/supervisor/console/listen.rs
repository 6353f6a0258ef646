//! The socket: who may speak, how long, and how much. Nothing here holds up the supervisor's loop.

use super::{Answer, REQUEST_BYTES_MAX, Reply, Request, SOCKET};
use crate::supervisor::Event;
use crate::sys::socket;
use anyhow::{Context, Result, bail};
use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Listens in this folder. Each request becomes an event.
///
/// # Errors
/// The socket cannot be made.
pub fn start(folder: &Path, events: mpsc::Sender<Event>) -> Result<()> {
    let folder = socket::Folder::open(folder)?;
    let listener = UnixListener::bind(folder.path_of(SOCKET))?;
    // The folder is ours alone; this holds should somebody open it.
    fs::set_permissions(folder.path_of(SOCKET), Permissions::from_mode(0o600))?;
    thread::Builder::new().name("console".to_owned()).spawn(move || accept(&listener, &events))?;
    Ok(())
}

fn accept(listener: &UnixListener, events: &mpsc::Sender<Event>) {
    let (leave, left) = mpsc::channel();
    let mut places = CLIENTS_MAX;
    loop {
        if places == 0 {
            // Each leaves within its time.
            places += usize::from(left.recv().is_ok());
        }
        places += left.try_iter().count();
        let Ok((client, _)) = listener.accept() else {
            // Out of descriptors, most likely.
            thread::sleep(RETRY_AFTER);
            continue;
        };
        places -= 1;
        let (events, leave) = (events.clone(), leave.clone());
        let serve = move || {
            // A client that has left needs no answer.
            _ = serve(&client, &events);
            _ = leave.send(());
        };
        if thread::Builder::new().name("console client".to_owned()).spawn(serve).is_err() {
            places += 1;
        }
    }
}

fn serve(client: &UnixStream, events: &mpsc::Sender<Event>) -> Result<()> {
    let answer = request(client).and_then(|request| ask(request, events));
    let answer = answer.unwrap_or_else(|error| Answer::Error(format!("{error:#}")));
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    send(client, &line)
}

/// The client's request, if it is one, and of somebody who may ask.
fn request(client: &UnixStream) -> Result<Request> {
    let user = socket::peer_user(client.as_fd())?;
    let own = rustix::process::geteuid().as_raw();
    if user != own && user != 0 {
        bail!("this server belongs to user {own}, and takes nothing from user {user}");
    }
    let line = receive_line(client)?;
    let version = env!("CARGO_PKG_VERSION");
    serde_json::from_slice(&line).with_context(|| format!("that is no request that host {version} knows"))
}

fn receive_line(mut client: &UnixStream) -> Result<Vec<u8>> {
    let deadline = Instant::now() + REQUEST_PATIENCE;
    let mut line = Vec::new();
    let mut buffer = [0; REQUEST_BYTES_MAX];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            bail!("the request did not come in {} s", REQUEST_PATIENCE.as_secs());
        }
        client.set_read_timeout(Some(left))?;
        let count = match client.read(&mut buffer) {
            Ok(0) => bail!("the request ended before its line did"),
            Ok(count) => count,
            Err(error) if is_late(&error) => continue,
            Err(error) => return Err(error.into()),
        };
        line.extend_from_slice(&buffer[..count]);
        if let Some(end) = memchr::memchr(b'\n', &line) {
            line.truncate(end);
            return Ok(line);
        }
        if line.len() > REQUEST_BYTES_MAX {
            bail!("a request is one line of at most {REQUEST_BYTES_MAX} bytes");
        }
    }
}

/// Has the loop answer.
fn ask(request: Request, events: &mpsc::Sender<Event>) -> Result<Answer> {
    let (reply, answer): (Reply, _) = mpsc::channel();
    events.send(Event::Asked(request, reply)).ok().context("the server is stopping")?;
    match answer.recv_timeout(ANSWER_PATIENCE) {
        Ok(answer) => Ok(answer),
        Err(mpsc::RecvTimeoutError::Timeout) => {
            bail!("not done after {} s, and still under way; see host status", ANSWER_PATIENCE.as_secs())
        }
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            bail!("something else came first: a newer build, or the end of the server; see host status")
        }
    }
}

fn send(mut client: &UnixStream, mut bytes: &[u8]) -> Result<()> {
    let deadline = Instant::now() + SEND_PATIENCE;
    while !bytes.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            bail!("the client does not read");
        }
        client.set_write_timeout(Some(left))?;
        match client.write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if is_late(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn is_late(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut | std::io::ErrorKind::Interrupted
    )
}

/// Clients at a time; others wait in the socket's queue.
const CLIENTS_MAX: usize = 8;

/// From the connection to the end of the request's line.
const REQUEST_PATIENCE: Duration = Duration::from_secs(2);

/// For a roll-back in all workers.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);

/// For the client to take the answer.
const SEND_PATIENCE: Duration = Duration::from_secs(5);

const RETRY_AFTER: Duration = Duration::from_millis(100);
