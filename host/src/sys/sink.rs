//! Where lines are appended by one process or several: a file, or a pipe, a terminal, a socket. Lines stay whole, and
//! nobody waits for a reader who does not read.

use super::epoll::Alarm;
use super::process::exit_now;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// The most that a line may have, with its end: as much as a pipe takes as a whole, among several writers (pipe(7),
/// `PIPE_BUF`).
pub const LINE_BYTES_MAX: usize = 4096;

/// One such place.
#[derive(Debug)]
pub struct Sink {
    descriptor: OwnedFd,
    /// A regular file: it takes any number of bytes at once, and never has to be waited for.
    is_file: bool,
}

/// Opens the file at `path` for appending, and makes it if it is not there, for its owner to read and write and for its
/// group to read. It never waits.
///
/// # Errors
/// Those of open(2). A folder is `EISDIR`.
pub fn open(path: &Path) -> Result<OwnedFd, Errno> {
    // Every write goes to the end of the file, whoever else has written to it (open(2), O_APPEND). O_NOCTTY: a terminal
    // would become the process's own.
    let flags = OFlags::APPEND | OFlags::CREATE | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP;
    let opened = retry(|| rustix::fs::open(path, flags | OFlags::WRONLY, mode));
    let is_fifo = match &opened {
        // Of a FIFO: nobody reads it now (fifo(7)).
        Err(Errno::NXIO) => true,
        Err(_) => false,
        Ok(file) => kind(file)? == FileType::Fifo,
    };
    if is_fifo {
        // Whoever could read it, too, need not have a reader, and the lines wait in it for the next one (fifo(7)).
        let both_ways = retry(|| rustix::fs::open(path, flags.difference(OFlags::CREATE) | OFlags::RDWR, mode));
        return both_ways.or(opened);
    }
    opened
}

impl Sink {
    /// The place that is open under this descriptor.
    ///
    /// # Errors
    /// Those of fstat(2).
    pub fn new(descriptor: OwnedFd) -> Result<Sink, Errno> {
        let is_file = kind(&descriptor)? == FileType::RegularFile;
        Ok(Sink { descriptor, is_file })
    }

    /// Appends lines, as many as one write(2) may take, and says how many bytes that were. A full disk may take a part of a line.
    ///
    /// # Errors
    /// `EAGAIN`: a reader has to read first. Else those of write(2).
    pub fn append(&self, lines: &[u8]) -> Result<usize, Errno> {
        let piece = if self.is_file { lines } else { whole_lines(lines) };
        if !self.is_file && !self.is_ready() {
            return Err(Errno::AGAIN);
        }
        match retry(|| rustix::io::write(&self.descriptor, piece)) {
            Err(Errno::BADF) => end_of_descriptors(),
            done => done,
        }
    }

    /// Whether it takes a line now. The descriptor may be shared with programs that would not understand `O_NONBLOCK`.
    fn is_ready(&self) -> bool {
        let mut asked = [PollFd::new(&self.descriptor, PollFlags::OUT)];
        retry(|| poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))).is_ok_and(|ready| ready > 0)
    }
}

/// Waits until the alarm is rung, or `sink` may take more, or the time is over.
pub fn wait(alarm: &Alarm, sink: Option<&Sink>, patience: Option<Duration>) {
    let patience = patience.map(|time| Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() });
    // Interrupted is as good as woken: the caller looks.
    let rung = PollFd::new(alarm, PollFlags::IN);
    _ = match sink {
        Some(sink) => poll(&mut [rung, PollFd::new(&sink.descriptor, PollFlags::OUT)], patience.as_ref()),
        None => poll(&mut [rung], patience.as_ref()),
    };
    // It is most often silent when the sink is ready, or the time is over.
    if alarm.silence() == Err(Errno::BADF) {
        end_of_descriptors();
    }
}

/// Nothing can be relied on any more: under the numbers of the server's own there may be anybody's files soon.
fn end_of_descriptors() -> ! {
    tracing::error!("a module has closed descriptors of the server's; the worker ends");
    exit_now(1)
}

/// The first lines, as many as a pipe takes as a whole.
fn whole_lines(lines: &[u8]) -> &[u8] {
    let window = &lines[..lines.len().min(LINE_BYTES_MAX)];
    &window[..memchr::memrchr(b'\n', window).map_or(window.len(), |end| end + 1)]
}

fn kind(file: impl AsFd) -> Result<FileType, Errno> {
    rustix::fs::fstat(file).map(|stat| FileType::from_raw_mode(stat.st_mode))
}

fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Read;

    fn fifo(folder: &tempfile::TempDir) -> std::path::PathBuf {
        let path = folder.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        path
    }

    #[test]
    fn two_sinks_of_one_file_write_behind_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let sinks = [(); 2].map(|()| Sink::new(open(&path).unwrap()).unwrap());
        for (sink, line) in [(0, "a\n"), (1, "b\n"), (0, "c\n")] {
            assert_eq!(sinks[sink].append(line.as_bytes()), Ok(2));
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "a\nb\nc\n");
        assert_eq!(open(folder.path()).unwrap_err(), Errno::ISDIR);
        assert_eq!(open(&folder.path().join("none/log")).unwrap_err(), Errno::NOENT);
    }

    #[test]
    fn a_fifo_takes_whole_lines_until_it_is_full_and_needs_no_reader() {
        let folder = tempfile::tempdir().unwrap();
        let path = fifo(&folder);
        let sink = Sink::new(open(&path).unwrap()).unwrap();
        let lines = "0123456789abcdef-\n".repeat(1000);
        let mut rest = lines.as_bytes();
        let mut filled = 0;
        loop {
            match sink.append(rest) {
                Ok(count) => {
                    assert!(count <= LINE_BYTES_MAX && rest[..count].ends_with(b"\n"), "{count}");
                    filled += count;
                    rest = if count == rest.len() { lines.as_bytes() } else { &rest[count..] };
                }
                Err(Errno::AGAIN) => break,
                Err(error) => panic!("{error}"),
            }
        }
        assert!(filled > LINE_BYTES_MAX);
        let mut reader = fs::File::open(&path).unwrap();
        reader.read_exact(&mut vec![0; filled]).unwrap();
        assert!(sink.append(b"more\n").is_ok());
    }

    #[test]
    fn a_wait_ends_when_somebody_rings() {
        let alarm = Alarm::new().unwrap();
        alarm.ring();
        wait(&alarm, None, None);
        // It is silent again.
        wait(&alarm, None, Some(Duration::from_millis(1)));
        alarm.ring();
        wait(&alarm, None, None);
    }

    #[test]
    fn a_piece_ends_with_a_line() {
        assert_eq!(whole_lines(b"a\nb"), b"a\n");
        assert_eq!(whole_lines(b"ab"), b"ab");
        let long = [vec![b'x'; LINE_BYTES_MAX - 1], b"\ny\n".to_vec()].concat();
        assert_eq!(whole_lines(&long).len(), LINE_BYTES_MAX);
    }
}
