//! clock_gettime(2): clocks that cost a few nanoseconds, and what a thread has used of a processor.

use std::time::Duration;

/// Milliseconds of a clock that never goes back, from some start. Coarse: it moves on every few milliseconds.
pub fn coarse_ms() -> u64 {
    read(libc::CLOCK_MONOTONIC_COARSE).as_millis() as u64
}

/// Seconds since 1970, coarse likewise.
pub fn coarse_second() -> u64 {
    read(libc::CLOCK_REALTIME_COARSE).as_secs()
}

/// How much of a processor the calling thread has used.
pub fn thread_time() -> Duration {
    read(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// The C library's function asks the kernel's page (vdso(7)), and also works where there is none.
fn read(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: there is room for one timespec. It fails only for clocks that the system does not have, and leaves zero.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}
