//! How long a connection is waited for: one deadline at a time, by what it waits for.

use crate::config::Timeouts;
use crate::sys::socket;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// The first byte of the first request.
    First,
    /// The next request.
    Idle,
    /// The rest of a head.
    Head,
    /// More content.
    Content,
    /// The client to take some output.
    Write,
    /// The client to close.
    Linger,
    /// Another call to end; no limit of the connection's own.
    Turn,
}

/// The wait of one connection.
#[derive(Debug)]
pub(super) struct Patience {
    waiting: Wait,
    /// When it ends, in the loop's milliseconds; 0 for never.
    deadline_ms: u64,
    /// When lingering ends whatever the client does; 0 before it begins.
    linger_end_ms: u64,
    /// What the client had not acknowledged when it was last waited for.
    unacknowledged: u32,
}

impl Patience {
    /// Before anything is waited for, except by name.
    pub(super) fn new(waiting: Wait) -> Patience {
        Patience { waiting, deadline_ms: 0, linger_end_ms: 0, unacknowledged: 0 }
    }

    /// What is waited for, or was last.
    pub(super) fn waiting(&self) -> Wait {
        self.waiting
    }

    /// When it ends, in the loop's milliseconds.
    pub(super) fn deadline_ms(&self) -> Option<u64> {
        (self.deadline_ms != 0).then_some(self.deadline_ms)
    }

    /// What was waited for has come: the next wait is a new one, also for the same thing.
    pub(super) fn renew(&mut self) {
        self.deadline_ms = 0;
    }

    /// A response is complete: the next wait is for another request.
    pub(super) fn rest(&mut self) {
        self.waiting = Wait::Idle;
        self.renew();
    }

    /// Waits for this from now on. A wait that goes on keeps its deadline, unless it is for the client to take output and
    /// it has taken some.
    pub(super) fn wait_for(
        &mut self,
        wait: Wait,
        now_ms: u64,
        timeouts: &Timeouts,
        socket: BorrowedFd<'_>,
        progressed: bool,
    ) {
        let again = std::mem::replace(&mut self.waiting, wait) == wait;
        if again && self.deadline_ms != 0 && !(progressed && wait == Wait::Write) {
            return;
        }
        let after = |patience: Duration| now_ms + patience.as_millis() as u64;
        self.deadline_ms = match wait {
            Wait::First | Wait::Head => after(timeouts.head),
            Wait::Idle => after(timeouts.idle),
            Wait::Content => after(timeouts.body),
            Wait::Write => {
                self.unacknowledged = unacknowledged(socket);
                after(timeouts.write)
            }
            Wait::Linger => {
                if self.linger_end_ms == 0 {
                    self.linger_end_ms = after(LINGER_MAX);
                }
                self.linger_end_ms.min(after(LINGER))
            }
            Wait::Turn => 0,
        };
    }

    /// Whether the client has taken output since it was waited for. There is room for more only when the kernel's buffer
    /// is a third empty, for which a slow client may need longer than one who takes nothing is given.
    pub(super) fn is_slow_but_steady(&self, socket: BorrowedFd<'_>) -> bool {
        unacknowledged(socket) < self.unacknowledged
    }
}

fn unacknowledged(socket: BorrowedFd<'_>) -> u32 {
    u32::try_from(socket::unacknowledged(socket)).unwrap_or(u32::MAX)
}

/// After the last response a client may be silent for so long, and send for so long.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_MAX: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_wait_that_goes_on_keeps_its_deadline_and_a_new_one_has_its_own() {
        let (socket, _other) = UnixStream::pair().unwrap();
        let (socket, timeouts) = (socket.as_fd(), Timeouts::default());
        let (head, idle) = (timeouts.head.as_millis() as u64, timeouts.idle.as_millis() as u64);
        let mut patience = Patience::new(Wait::First);
        assert_eq!(patience.deadline_ms(), None);
        patience.wait_for(Wait::Head, 10, &timeouts, socket, false);
        // One byte of a head after the other buys no time, whatever output has left meanwhile.
        patience.wait_for(Wait::Head, 500, &timeouts, socket, true);
        assert_eq!(patience.deadline_ms(), Some(10 + head));
        patience.rest();
        patience.wait_for(Wait::Idle, 600, &timeouts, socket, false);
        assert_eq!(patience.deadline_ms(), Some(600 + idle));
        patience.rest();
        patience.wait_for(Wait::Idle, 700, &timeouts, socket, false);
        assert_eq!(patience.deadline_ms(), Some(700 + idle));
        patience.wait_for(Wait::Turn, 800, &timeouts, socket, false);
        assert_eq!(patience.deadline_ms(), None);
    }

    #[test]
    fn who_takes_output_is_waited_for_longer() {
        let (socket, _other) = UnixStream::pair().unwrap();
        let (socket, timeouts) = (socket.as_fd(), Timeouts::default());
        let write = timeouts.write.as_millis() as u64;
        let mut patience = Patience::new(Wait::First);
        patience.wait_for(Wait::Write, 10, &timeouts, socket, true);
        patience.wait_for(Wait::Write, 20, &timeouts, socket, false);
        assert_eq!(patience.deadline_ms(), Some(10 + write));
        patience.wait_for(Wait::Write, 30, &timeouts, socket, true);
        assert_eq!(patience.deadline_ms(), Some(30 + write));
    }

    #[test]
    fn lingering_ends_whatever_the_client_does() {
        let (socket, _other) = UnixStream::pair().unwrap();
        let (socket, timeouts) = (socket.as_fd(), Timeouts::default());
        let mut patience = Patience::new(Wait::Idle);
        let mut now_ms = 1;
        while now_ms < 100_000 {
            patience.renew();
            patience.wait_for(Wait::Linger, now_ms, &timeouts, socket, false);
            now_ms += 1_000;
        }
        assert_eq!(patience.deadline_ms(), Some(1 + LINGER_MAX.as_millis() as u64));
    }
}
