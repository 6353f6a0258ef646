//! Points at which two threads may meet in an unlucky order. A test holds threads up there, one point after the other;
//! otherwise they are nothing.

/// A point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Point {
    /// The token says that a call is under way, and the monitor has not been looked at.
    CallBegun,
    /// The call is over, and the token has not been taken back.
    CallOver,
    /// The leader has given the loop up, and nobody has been told.
    Released,
    /// A follower has its order, and has not taken the loop.
    Ordered,
    /// It has taken the loop, and done nothing yet.
    Stolen,
    /// The monitor has seen that a call takes long, and has told nobody.
    Seen,
    /// The monitor has found nothing to do, and has not said that it parks.
    Quiet,
    /// A late thread is about to send its connection back.
    Late,
    /// A letter lies in the inbox, and nobody has been woken for it.
    Posted,
}

/// Passes a point.
#[inline(always)]
pub(super) fn at(_point: Point) {
    #[cfg(test)]
    under_test::hold_up(_point);
}

#[cfg(test)]
pub(super) mod under_test {
    use super::Point;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::{Duration, Instant};

    pub(in crate::server) const POINTS: [Point; 9] = [
        Point::CallBegun,
        Point::CallOver,
        Point::Released,
        Point::Ordered,
        Point::Stolen,
        Point::Seen,
        Point::Quiet,
        Point::Late,
        Point::Posted,
    ];

    /// The point at which threads are held up, plus 1; 0 for none.
    static CHOSEN: AtomicU32 = AtomicU32::new(0);
    static PASSED: AtomicU32 = AtomicU32::new(0);

    /// Holds threads up there from now on; says how often one was at the point before.
    pub(in crate::server) fn choose(point: Option<Point>) -> u32 {
        CHOSEN.store(point.map_or(0, |point| point as u32 + 1), Ordering::SeqCst);
        PASSED.swap(0, Ordering::SeqCst)
    }

    pub(super) fn hold_up(point: Point) {
        if CHOSEN.load(Ordering::Relaxed) != point as u32 + 1 {
            return;
        }
        // Every third time for longer than it takes until a loop is taken over, and else for less, so that both orders
        // come about.
        let passed = PASSED.fetch_add(1, Ordering::Relaxed);
        let patience = if passed.is_multiple_of(3) { Duration::from_millis(4) } else { Duration::from_micros(300) };
        let_pass(patience);
    }

    /// Waits for so long, also if somebody unparks this thread.
    pub(in crate::server) fn let_pass(time: Duration) {
        let start = Instant::now();
        while let Some(left) = time.checked_sub(start.elapsed()) {
            std::thread::park_timeout(left);
        }
    }
}
