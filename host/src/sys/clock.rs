//! clock_gettime(2): clocks that cost a few nanoseconds; and getrusage(2): what a thread has done.

use std::mem::MaybeUninit;
use std::time::Duration;

/// Milliseconds of a clock that never goes back, from some start. Coarse: it moves on every few milliseconds.
pub fn coarse_ms() -> u64 {
    read(libc::CLOCK_MONOTONIC_COARSE).as_millis() as u64
}

/// The time since 1970, coarse likewise.
pub fn coarse_time() -> Duration {
    read(libc::CLOCK_REALTIME_COARSE)
}

/// Microseconds of a clock that never goes back, from the same start as [`coarse_ms`].
pub fn precise_us() -> u64 {
    read(libc::CLOCK_MONOTONIC).as_micros() as u64
}

/// What the calling thread has done so far.
#[derive(Clone, Copy, Debug)]
pub struct ThreadUse {
    /// Time on a processor.
    processor: Duration,
    /// How often it has waited for something.
    waits: i64,
}

impl ThreadUse {
    /// Until now.
    pub fn now() -> ThreadUse {
        // SAFETY: rusage is a C struct for which zeroes are a value.
        let mut usage: libc::rusage = unsafe { MaybeUninit::zeroed().assume_init() };
        // SAFETY: there is room for one. It cannot fail for the calling thread.
        unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
        let duration = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
        ThreadUse { processor: duration(usage.ru_utime) + duration(usage.ru_stime), waits: usage.ru_nvcsw }
    }

    /// For how much of the last `wall` it wanted a processor. One that has waited for nothing wanted one all the time,
    /// also if others had it.
    pub fn busy_since(self, before: ThreadUse, wall: Duration) -> Duration {
        if self.waits == before.waits { wall } else { self.processor.saturating_sub(before.processor) }
    }
}

/// How much of a processor a thread of this process has used (gettid(2)); `None` if it has ended.
pub fn used_by(thread: i32) -> Option<Duration> {
    // What pthread_getcpuclockid(3) makes of a thread that lives: the kernel's number of its clock, which the kernel
    // refuses if there is no such thread.
    let clock = !thread << 3 | CPUCLOCK_PERTHREAD | CPUCLOCK_SCHED;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: there is room for one timespec.
    let result = unsafe { libc::clock_gettime(clock, &raw mut time) };
    (result == 0).then(|| Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), time.tv_nsec as u32))
}

/// Of a thread, and not of a process: bits of a clock's number (the kernel's include/linux/posix-timers.h).
const CPUCLOCK_PERTHREAD: libc::clockid_t = 4;
/// Time on a processor.
const CPUCLOCK_SCHED: libc::clockid_t = 2;

/// The C library's function asks the kernel's page (vdso(7)), and also works where there is none.
fn read(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: there is room for one timespec. It fails only for clocks that the system does not have, and leaves zero.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_thread_that_sleeps_was_not_busy_and_one_that_computes_was() {
        const SPAN: Duration = Duration::from_millis(50);
        let busy = |work: &dyn Fn()| {
            let (start, before) = (Instant::now(), ThreadUse::now());
            work();
            let wall = start.elapsed();
            (ThreadUse::now().busy_since(before, wall), wall)
        };
        let (slept, wall) = busy(&|| std::thread::sleep(SPAN));
        assert!(slept * 2 < wall, "{slept:?} of {wall:?}");
        let (computed, wall) = busy(&|| {
            let start = Instant::now();
            while start.elapsed() < SPAN {
                std::hint::spin_loop();
            }
        });
        assert_eq!(computed, wall, "however many others wanted the processor");
    }
}
