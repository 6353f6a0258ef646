//! A bound on the memory that this process may take, which it sets itself for want of a control group.
//!
//! RLIMIT_DATA (getrlimit(2)) counts private writable mappings, written to or not: what malloc(3) gets from the kernel, the
//! data of libraries, and the stacks of threads. RLIMIT_AS would count what is merely reserved too, of which a C library
//! takes 64 MiB for each thread. What this process has already, its own allocator's reserve above all, and the
//! stacks of its own threads come on top of the bound: they are memory only as far as they are used, and have limits of their
//! own. So it is foreign code that finds no more memory, and this process does.

use rustix::process::{Resource, Rlimit};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

/// What may be mapped beside the stacks in [`STACKS`]; 0 if there is no bound.
static BOUND: AtomicU64 = AtomicU64::new(0);

/// Bytes of the stacks that have [`StackRoom`].
static STACKS: AtomicU64 = AtomicU64::new(0);

/// Lets this process map as much as `bytes` from now on, beside stacks that have [`StackRoom`].
///
/// # Errors
/// /proc is not mounted, or the limit cannot be set.
pub fn bound(bytes: u64) -> io::Result<()> {
    let has = mapped()?;
    BOUND.store(has.saturating_add(STACKS_KEPT_BYTES).saturating_add(bytes), Ordering::SeqCst);
    apply()
}

/// Room for the stack of a thread, beside the bound. It is to live as long as the thread.
#[derive(Debug)]
pub struct StackRoom(u64);

impl StackRoom {
    /// For a stack of so many bytes.
    pub fn new(bytes: usize) -> StackRoom {
        let room = StackRoom(bytes as u64);
        STACKS.fetch_add(room.0, Ordering::SeqCst);
        // It was set before, so that it can be set; if not, the stack counts as the modules' memory.
        _ = apply();
        room
    }
}

impl Drop for StackRoom {
    fn drop(&mut self) {
        STACKS.fetch_sub(self.0, Ordering::SeqCst);
        // As above: what stays is a bound that is too wide.
        _ = apply();
    }
}

fn apply() -> io::Result<()> {
    let bound = BOUND.load(Ordering::SeqCst);
    if bound == 0 {
        return Ok(());
    }
    loop {
        let stacks = STACKS.load(Ordering::SeqCst);
        let maximum = rustix::process::getrlimit(Resource::Data).maximum;
        let current = bound.saturating_add(stacks).min(maximum.unwrap_or(u64::MAX));
        rustix::process::setrlimit(Resource::Data, Rlimit { current: Some(current), maximum })?;
        // Another thread may have had it changed meanwhile, and set it before this one did.
        if STACKS.load(Ordering::SeqCst) == stacks {
            return Ok(());
        }
    }
}

/// How many bytes this process has mapped so far, as RLIMIT_DATA counts them (proc_pid_status(5)).
fn mapped() -> io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmData:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|number| number.parse::<u64>().ok());
    kibibytes.map(|number| number << 10).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The C library keeps the stacks of threads that have ended for the next ones, up to so many bytes
/// (`glibc.pthread.stack_cache_size` in its manual).
const STACKS_KEPT_BYTES: u64 = 40 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mapped_is_counted_before_it_is_used() {
        let before = mapped().unwrap();
        assert!(before > 0);
        let large = Vec::<u8>::with_capacity(256 << 20);
        assert!(mapped().unwrap() >= before + (200 << 20));
        drop(large);
    }
}
