//! The thread that writes the lines of a worker's loops. It alone waits for a disk or a reader, and what it cannot get rid
//! of is bounded: lines that find no room are dropped, counted, and told of.

use crate::config::{AccessLogFormat, values};
use crate::sys::epoll::Alarm;
use crate::sys::inbox::Inbox;
use crate::sys::sink::{self, Sink};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// A worker's access log.
pub struct AccessLog {
    format: AccessLogFormat,
    inbox: Inbox<Letter>,
    alarm: Alarm,
    /// Bytes of lines that have been given and neither been written nor dropped.
    queued_bytes: AtomicUsize,
    /// Lines that were dropped and have not been told of.
    dropped: AtomicU64,
}

/// The log that is being brought to its end.
pub struct Ending {
    done: mpsc::Receiver<()>,
    deadline: Instant,
}

enum Letter {
    /// Whole lines.
    Lines(Vec<u8>),
    /// What comes from now on goes elsewhere.
    Sink(Sink),
    /// Write what there is, and say so by dropping this.
    End(mpsc::Sender<()>),
}

/// What the writer has still to write.
struct Backlog<'a> {
    log: &'a AccessLog,
    sink: Sink,
    batches: VecDeque<Vec<u8>>,
    /// So much of the first has been written.
    written: usize,
    /// It has been said that lines cannot be written.
    complained: bool,
    /// It has been said that lines are being dropped.
    told_of_drops: bool,
}

/// What writing came to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Everything is written, or never will be.
    Empty,
    /// A reader has to read first.
    Blocked,
    /// The disk is full, say.
    Failed,
}

impl AccessLog {
    /// Starts the writer, which writes to this descriptor.
    ///
    /// # Errors
    /// The system has no more threads or descriptors.
    pub fn start(descriptor: OwnedFd, format: AccessLogFormat) -> io::Result<Arc<AccessLog>> {
        let (inbox, alarm) = (Inbox::new(), Alarm::new()?);
        let (queued_bytes, dropped) = (AtomicUsize::new(0), AtomicU64::new(0));
        let log = Arc::new(AccessLog { format, inbox, alarm, queued_bytes, dropped });
        let (writer, sink) = (Arc::clone(&log), Sink::new(descriptor)?);
        thread::Builder::new().name("access log".to_owned()).spawn(move || writer.write(sink))?;
        Ok(log)
    }

    /// Writes to this descriptor from now on; what has been given before goes to the former one, if that takes it.
    ///
    /// # Errors
    /// It is none that can be looked at (fstat(2)).
    pub fn reopen(&self, descriptor: OwnedFd) -> io::Result<()> {
        self.post(Letter::Sink(Sink::new(descriptor)?));
        Ok(())
    }

    /// Has everything written that has been given so far, and no more after that.
    pub fn end(&self) -> Ending {
        let (sender, done) = mpsc::channel();
        self.post(Letter::End(sender));
        Ending { done, deadline: Instant::now() + END_PATIENCE }
    }

    /// How lines look.
    pub(super) fn format(&self) -> AccessLogFormat {
        self.format
    }

    /// Takes lines, unless there are too many already. It waits for nobody.
    pub(super) fn give(&self, lines: Vec<u8>) {
        let bytes = lines.len();
        if self.queued_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes <= QUEUE_BYTES_MAX {
            return self.post(Letter::Lines(lines));
        }
        self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        if self.dropped.fetch_add(count(&lines), Ordering::Relaxed) == 0 {
            // It tells people.
            self.alarm.ring();
        }
    }

    fn post(&self, letter: Letter) {
        if self.inbox.push(letter) {
            self.alarm.ring();
        }
    }

    /// The writer's life. Without lines it does not wake up.
    fn write(&self, sink: Sink) {
        let (batches, mut letters, mut end) = (VecDeque::new(), VecDeque::new(), None);
        let mut backlog = Backlog { log: self, sink, batches, written: 0, complained: false, told_of_drops: false };
        loop {
            self.inbox.take(&mut letters);
            while let Some(letter) = letters.pop_front() {
                match letter {
                    Letter::Lines(lines) => backlog.batches.push_back(lines),
                    Letter::Sink(sink) => backlog.change(sink),
                    Letter::End(done) => end = Some((done, Instant::now() + WRITE_PATIENCE)),
                }
            }
            let state = backlog.write();
            backlog.tell(state);
            let mut patience = (state == State::Failed).then_some(RETRY);
            if let Some((_, deadline)) = &end {
                let left = deadline.saturating_duration_since(Instant::now());
                if state == State::Empty || left.is_zero() {
                    backlog.give_up();
                    end = None;
                } else {
                    patience = Some(patience.map_or(left, |patience| patience.min(left)));
                }
            }
            sink::wait(&self.alarm, (state == State::Blocked).then_some(&backlog.sink), patience);
        }
    }
}

impl Ending {
    /// Waits until everything is written, or the time for that is over.
    pub fn wait(self) {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if self.done.recv_timeout(left) == Err(mpsc::RecvTimeoutError::Timeout) {
            tracing::warn!("the last lines of the access log are not written: it takes nothing");
        }
    }
}

impl Backlog<'_> {
    /// Writes as much as can be written.
    fn write(&mut self) -> State {
        let mut is_taken = false;
        while let Some(batch) = self.batches.front() {
            match self.sink.append(&batch[self.written..]) {
                Ok(count) => {
                    is_taken = true;
                    self.written += count;
                    if self.written == batch.len() {
                        self.next();
                    }
                }
                Err(Errno::AGAIN) => return State::Blocked,
                Err(error) => {
                    let lasts = !matches!(error, Errno::NOSPC | Errno::DQUOT | Errno::FBIG | Errno::IO);
                    if !std::mem::replace(&mut self.complained, true) {
                        let room = values::size(QUEUE_BYTES_MAX as u64);
                        let wait = format!("up to {room} of it wait until that is mended");
                        let what = if lasts { "its lines are dropped" } else { &wait };
                        tracing::error!("cannot write the access log: {error}; {what}");
                    }
                    if !lasts {
                        return State::Failed;
                    }
                    self.drop_all();
                    return State::Empty;
                }
            }
        }
        if is_taken && std::mem::take(&mut self.complained) {
            tracing::info!("the access log is written again");
        }
        State::Empty
    }

    /// Goes over to another sink. What is not written to the former one by now never will be.
    fn change(&mut self, sink: Sink) {
        if self.write() != State::Empty {
            // The rest of a line of which the former sink has the beginning.
            if self.written > 0
                && let Some(batch) = self.batches.front()
                && batch[self.written - 1] != b'\n'
            {
                self.written += memchr::memchr(b'\n', &batch[self.written..]).map_or(0, |end| end + 1);
                self.log.dropped.fetch_add(1, Ordering::Relaxed);
                if self.written == batch.len() {
                    self.next();
                }
            }
        }
        self.sink = sink;
        self.complained = false;
    }

    /// Tells of lines that were dropped: once when it begins, and how many when it is over.
    fn tell(&mut self, state: State) {
        if state == State::Empty && !self.complained {
            let dropped = self.log.dropped.swap(0, Ordering::Relaxed);
            if dropped > 0 {
                tracing::warn!("the access log goes on; {dropped} of its lines were dropped");
            }
            self.told_of_drops = false;
        } else if self.log.dropped.load(Ordering::Relaxed) > 0 && !std::mem::replace(&mut self.told_of_drops, true) {
            tracing::warn!("lines of the access log are dropped: it takes no more");
        }
    }

    /// Nothing more will be written.
    fn give_up(&mut self) {
        self.drop_all();
        let dropped = self.log.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            tracing::warn!("{dropped} lines of the access log were dropped");
        }
    }

    fn drop_all(&mut self) {
        let mut lines = 0;
        while let Some(batch) = self.batches.front() {
            lines += count(&batch[self.written..]);
            self.next();
        }
        self.log.dropped.fetch_add(lines, Ordering::Relaxed);
    }

    fn next(&mut self) {
        self.written = 0;
        if let Some(batch) = self.batches.pop_front() {
            self.log.queued_bytes.fetch_sub(batch.len(), Ordering::Relaxed);
        }
    }
}

fn count(lines: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', lines).count() as u64
}

/// Lines that may wait for a disk or a reader, of all loops of a worker together.
const QUEUE_BYTES_MAX: usize = 4 << 20;

/// When a full disk is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How long the last lines may wait to be written, and how long a process waits for that: it is more, so that the number
/// of those that were dropped is told.
const WRITE_PATIENCE: Duration = Duration::from_millis(900);
const END_PATIENCE: Duration = Duration::from_secs(1);
