//! Sockets: listening, accepting, moving bytes.

use super::process::exit_now;
use crate::config::Bind;
use anyhow::{Context, anyhow, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    self, AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, SocketAddrAny, SocketFlags, SocketType,
    sockopt,
};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The other end of a connection, or our own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Address {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A Unix socket; a client's has no path.
    Unix(Option<PathBuf>),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(f),
            Address::Unix(Some(path)) => write!(f, "unix:{}", path.display()),
            Address::Unix(None) => f.write_str("unix:"),
        }
    }
}

impl From<SocketAddrAny> for Address {
    fn from(address: SocketAddrAny) -> Address {
        match SocketAddr::try_from(address.clone()) {
            Ok(address) => Address::Tcp(address),
            Err(_) => {
                let unix = net::SocketAddrUnix::try_from(address).ok();
                let path = unix.and_then(|unix| unix.path().map(|path| path.to_string_lossy().into_owned().into()));
                Address::Unix(path)
            }
        }
    }
}

/// Opens a listening socket, close-on-exec and non-blocking. Inherited ones are taken over, before any other is opened:
/// else one of those might have the number.
///
/// # Errors
/// The address cannot be bound; the message names it and what to do.
pub fn listen(bind: &Bind) -> anyhow::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = match bind {
        Bind::Tcp(address) => {
            let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            let socket = net::socket_with(family, SocketType::STREAM, flags, None).context("cannot open a socket")?;
            sockopt::set_socket_reuseaddr(&socket, true)?;
            if address.is_ipv6() {
                sockopt::set_ipv6_v6only(&socket, true)?;
            }
            // Accepted sockets inherit it: a chunk of a stream leaves at once, and no call per connection is needed.
            sockopt::set_tcp_nodelay(&socket, true)?;
            bound_unsent(socket.as_fd());
            net::bind(&socket, address).map_err(|error| match error {
                Errno::ADDRINUSE => anyhow!("{address} is in use by another process; choose another with --bind"),
                Errno::ACCESS => {
                    anyhow!("{address} needs the right to use ports below 1024; choose another with --bind")
                }
                Errno::ADDRNOTAVAIL => {
                    anyhow!("{address} is not an address of this machine; choose another with --bind")
                }
                error => anyhow!("cannot bind {address}: {error}; choose another with --bind"),
            })?;
            socket
        }
        Bind::Unix(path) => {
            let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            let address = net::SocketAddrUnix::new(path)
                .map_err(|error| anyhow!("unix:{} is not a usable path: {error}", path.display()))?;
            match net::bind(&socket, &address) {
                Err(Errno::ADDRINUSE) => {
                    remove_dead_socket(path, &address)?;
                    net::bind(&socket, &address)
                }
                done => done,
            }
            .with_context(|| format!("cannot bind unix:{}", path.display()))?;
            socket
        }
        Bind::Inherited(number) => {
            // SAFETY: the user says that this descriptor was inherited for us; it is checked below before it is used,
            // and duplicated so that ownership of the number itself does not matter.
            let given = unsafe { BorrowedFd::borrow_raw(*number) };
            let socket = rustix::io::fcntl_dupfd_cloexec(given, 3)
                .map_err(|_| anyhow!("fd:{number} is not open; pass a listening socket under that number"))?;
            if !sockopt::socket_acceptconn(&socket).unwrap_or(false) {
                bail!("fd:{number} is not a listening socket");
            }
            // Children would inherit the number, and the socket would go on listening when we have stopped.
            // SAFETY: under it is a listening socket, and the caller has opened none of those yet, so nobody owns it.
            drop(unsafe { OwnedFd::from_raw_fd(*number) });
            rustix::io::ioctl_fionbio(&socket, true)?;
            bound_unsent(socket.as_fd());
            return Ok(socket);
        }
    };
    // Between two servers that start at once, only this tells who was first.
    net::listen(&socket, BACKLOG)
        .map_err(|error| anyhow!("cannot listen on {bind}: {error}; choose another with --bind"))?;
    Ok(socket)
}

/// Bounds what the kernel takes of us beyond what is on its way to the client, for all sockets that a listener accepts.
///
/// Without it the kernel keeps up to some megabytes for each client who reads slowly, and some thousands of these take all the
/// memory that it has for TCP, so that nobody else can connect. What is on its way is bounded by what the client's window
/// lets through. Kernels that cannot do without.
fn bound_unsent(listener: BorrowedFd<'_>) {
    let bytes = UNSENT_BYTES_MAX;
    // SAFETY: the descriptor is open, and the option takes one int, of which the pointer is valid for the call.
    let _ = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_NOTSENT_LOWAT,
            (&raw const bytes).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
}

/// The file of a Unix socket. If it is ours, dropping this removes it, unless another server's has taken its place.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
    ours: bool,
}

impl SocketFile {
    /// The file that a socket is bound to; none if that is a TCP socket, or was inherited. `ours`: whether it goes with
    /// the value.
    pub fn of(bind: &Bind, ours: bool) -> Option<SocketFile> {
        let Bind::Unix(path) = bind else { return None };
        identity(path).map(|identity| SocketFile { path: path.clone(), identity, ours })
    }

    /// Takes the file over from another process, or leaves it to one.
    pub fn set_ours(&mut self, ours: bool) {
        self.ours = ours;
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.ours && identity(&self.path) == Some(self.identity) {
            // It fails if the folder has become read-only; the next server knows a dead socket.
            _ = std::fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

/// Removes the socket file of a server that is gone; that of a living one is an error.
fn remove_dead_socket(path: &Path, address: &net::SocketAddrUnix) -> anyhow::Result<()> {
    // Whoever names a file by mistake keeps it.
    if std::fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.file_type().is_socket()) {
        bail!("{} exists and is no socket; choose another with --bind, or remove it", path.display());
    }
    let probe = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    match net::connect(&probe, address) {
        Err(Errno::CONNREFUSED) => {
            std::fs::remove_file(path).with_context(|| format!("cannot replace the dead socket {}", path.display()))
        }
        Err(Errno::NOENT) => Ok(()),
        _ => bail!("unix:{} is in use by another process; choose another with --bind", path.display()),
    }
}

/// The address that a listener is bound to.
pub fn local_address(socket: BorrowedFd<'_>) -> rustix::io::Result<Address> {
    net::getsockname(socket).map(Address::from)
}

/// Takes the next connection off a listener's queue: close-on-exec and non-blocking.
pub fn accept(listener: BorrowedFd<'_>) -> rustix::io::Result<(OwnedFd, Address)> {
    let (socket, address) = net::acceptfrom_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    Ok((socket, address.map_or(Address::Unix(None), Address::from)))
}

/// Which user the process at the other end of a Unix socket ran as when it connected, or listened (unix(7),
/// `SO_PEERCRED`).
pub fn peer_user(socket: BorrowedFd<'_>) -> rustix::io::Result<u32> {
    sockopt::socket_peercred(socket).map(|peer| peer.uid.as_raw())
}

/// A folder in which there are Unix sockets: their addresses have room for some hundred bytes of a path only, so they are
/// reached from here (proc(5), `/proc/self/fd`).
#[derive(Debug)]
pub struct Folder(OwnedFd);

impl Folder {
    /// Opens it.
    pub fn open(path: &Path) -> rustix::io::Result<Folder> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty()).map(Folder)
    }

    /// A short path, which is good as long as this value lives.
    pub fn path_of(&self, name: &str) -> PathBuf {
        format!("/proc/self/fd/{}/{name}", self.0.as_raw_fd()).into()
    }
}

/// What moving bytes came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// So many bytes; never 0.
    Bytes(usize),
    /// The other side has to act first.
    Blocked,
    /// The end of what can be read, or of the connection.
    End,
}

/// Receives onto the end of `buffer`, at most as much as `room` bytes.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut Vec<u8>, room: usize) -> Moved {
    buffer.reserve(room);
    let start = buffer.len();
    let spare = &mut buffer.spare_capacity_mut()[..room];
    let count = match retry(|| net::recv(socket, &mut *spare, RecvFlags::empty()).map(|((got, _), _)| got.len())) {
        Ok(0) => return Moved::End,
        Ok(count) => count,
        Err(Errno::AGAIN) => return Moved::Blocked,
        Err(error) => return ended(error),
    };
    // SAFETY: the kernel has initialised `count` bytes from `start` on, and the capacity holds them.
    unsafe { buffer.set_len(start + count) };
    Moved::Bytes(count)
}

/// Sends; `more` says that further bytes follow at once, so that they share a packet.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], more: bool) -> Moved {
    let flags = if more { SendFlags::NOSIGNAL | SendFlags::MORE } else { SendFlags::NOSIGNAL };
    match retry(|| net::send(socket, bytes, flags)) {
        Ok(0) => Moved::Blocked,
        Ok(count) => Moved::Bytes(count),
        Err(Errno::AGAIN) => Moved::Blocked,
        Err(error) => ended(error),
    }
}

/// Sends two pieces in one write.
pub fn send_both(socket: BorrowedFd<'_>, first: &[u8], second: &[u8]) -> Moved {
    let pieces = [IoSlice::new(first), IoSlice::new(second)];
    match retry(|| net::sendmsg(socket, &pieces, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL)) {
        Ok(0) => Moved::Blocked,
        Ok(count) => Moved::Bytes(count),
        Err(Errno::AGAIN) => Moved::Blocked,
        Err(error) => ended(error),
    }
}

/// Sends from a file by sendfile(2), and moves `offset` on. [`Moved::End`]: the file has no more, or the client is gone.
pub fn send_file(socket: BorrowedFd<'_>, file: BorrowedFd<'_>, offset: &mut u64, length: usize) -> Moved {
    match retry(|| rustix::fs::sendfile(socket, file, Some(offset), length)) {
        Ok(0) => Moved::End,
        Ok(count) => Moved::Bytes(count),
        Err(Errno::AGAIN) => Moved::Blocked,
        Err(error) => ended(error),
    }
}

/// A connection that is over; and so is the process if it is not even a socket any more. Then a module has closed a
/// descriptor that is not its own, and the number may be anybody's soon.
fn ended(error: Errno) -> Moved {
    if matches!(error, Errno::BADF | Errno::NOTSOCK) {
        tracing::error!("a module has closed a descriptor of the server's ({error}); the worker ends");
        exit_now(1);
    }
    Moved::End
}

/// Tells the client that nothing more will come, while its own bytes can still be read.
pub fn finish_sending(socket: BorrowedFd<'_>) {
    // It fails only when the client has left already.
    _ = net::shutdown(socket, Shutdown::Write);
}

/// Makes the close that follows a reset (RFC 9293 §3.10.4), so that the client can tell an abort from a complete
/// close-delimited response (RFC 9112 §8).
pub fn reset_on_close(socket: BorrowedFd<'_>) {
    // It fails only on a socket without lingering, such as a Unix socket: there a plain close must do.
    _ = sockopt::set_socket_linger(socket, Some(Duration::ZERO));
}

/// How many bytes that were sent the client has not acknowledged; 0 if the system does not tell.
pub fn unacknowledged(socket: BorrowedFd<'_>) -> usize {
    let mut count: libc::c_int = 0;
    // SAFETY: TIOCOUTQ (tcp(7), unix(7)) writes one int, for which there is room.
    let told = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut count) };
    if told == 0 { usize::try_from(count).unwrap_or(0) } else { 0 }
}

/// Which way [`wait`] waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Until reading may go on.
    Read,
    /// Until writing may go on.
    Write,
}

/// Waits for one socket; false when the time is over first.
pub fn wait(socket: BorrowedFd<'_>, direction: Direction, timeout: Duration) -> bool {
    let flags = match direction {
        Direction::Read => PollFlags::IN,
        Direction::Write => PollFlags::OUT,
    };
    let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() };
    // An interrupted wait starts anew: signals are rare here, and a limit that is late by one does no harm.
    retry(|| poll(&mut [PollFd::new(&socket, flags)], Some(&timeout))).is_ok_and(|ready| ready > 0)
}

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            done => return done,
        }
    }
}

/// The queue of connections that nobody has accepted yet; the kernel lowers it to net.core.somaxconn.
const BACKLOG: i32 = 4096;

/// What may wait in the kernel for its turn to be sent, for each connection. Enough for a fast client until the next event.
const UNSENT_BYTES_MAX: libc::c_int = 128 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn bytes_that_nobody_has_taken_are_counted() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        assert_eq!(unacknowledged(ours.as_fd()), 0);
        assert_eq!(send(ours.as_fd(), &[0; 1000], false), Moved::Bytes(1000));
        assert!(unacknowledged(ours.as_fd()) >= 1000);
        assert_eq!(receive(theirs.as_fd(), &mut Vec::new(), 1000), Moved::Bytes(1000));
        assert_eq!(unacknowledged(ours.as_fd()), 0);
    }

    #[test]
    fn only_a_dead_socket_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let bind = Bind::Unix(path.clone());
        drop(UnixListener::bind(&path).unwrap());
        let living = listen(&bind).expect("the socket of nobody is replaced");
        assert!(listen(&bind).unwrap_err().to_string().contains("in use"));
        drop(living);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "precious").unwrap();
        assert!(listen(&bind).unwrap_err().chain().any(|error| error.to_string().contains("is no socket")));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }
}
