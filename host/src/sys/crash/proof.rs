//! Whether crashes would still be contained: a module may have taken the signals of faults over, as language runtimes do.

use super::{Fault, Handler, Heir, Suspect, on_signal, watched};
use crate::sys::recorder::Occupied;
use std::ffi::{c_char, c_int};
use std::mem::MaybeUninit;
use std::path::PathBuf;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The signals whose handler is not that of [`contain`](super::contain) any more, of those that can be tried.
pub fn taken_over() -> Vec<c_int> {
    let is_taken = |signal: &c_int| {
        // SAFETY: sigaction is a C struct for which zeroes are a value.
        let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        // SAFETY: with a null pointer nothing is changed; there is room for the answer.
        unsafe { libc::sigaction(*signal, ptr::null(), &raw mut action) };
        action.sa_sigaction != on_signal as Handler as usize
    };
    [libc::SIGSEGV, libc::SIGBUS].into_iter().filter(is_taken).collect()
}

/// Brings about such a fault, on a thread of its own, and says whether it is contained. That thread stays parked.
///
/// Whoever has taken the signal over may end the process instead, or never come to an end.
pub fn is_contained(signal: c_int) -> bool {
    static CONTAINED: AtomicBool = AtomicBool::new(false);
    struct Witness;
    impl Heir<()> for Witness {
        fn inherit(&self, (): (), _: Fault) {
            CONTAINED.store(true, Ordering::SeqCst);
        }
    }
    CONTAINED.store(false, Ordering::SeqCst);
    let fault = move || {
        let slot = Occupied::new(0).get();
        watched(Suspect::new("", 0, PathBuf::new()), slot, &Witness, (), |()| match signal {
            libc::SIGBUS => read(past_the_end()),
            _ => read(ptr::without_provenance(UNMAPPED)),
        });
    };
    if thread::Builder::new().spawn(fault).is_err() {
        return false;
    }
    let deadline = Instant::now() + PATIENCE;
    while !CONTAINED.load(Ordering::SeqCst) && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(1));
    }
    CONTAINED.load(Ordering::SeqCst)
}

/// A page of a file that has none (mmap(2), SIGBUS); null if the system does not give one.
fn past_the_end() -> *const c_char {
    let Ok(file) = rustix::fs::memfd_create("host-proof", rustix::fs::MemfdFlags::CLOEXEC) else { return ptr::null() };
    let descriptor = std::os::fd::AsRawFd::as_raw_fd(&file);
    let length = rustix::param::page_size();
    // SAFETY: a new mapping touches no other. It is never undone.
    unsafe { libc::mmap(ptr::null_mut(), length, libc::PROT_READ, libc::MAP_SHARED, descriptor, 0) }.cast()
}

/// Reads there, by a function of the C library: what the compiler knows to be forbidden it may leave out.
fn read(address: *const c_char) {
    // SAFETY: none: this is to fault. The thread that does so never runs on.
    _ = unsafe { libc::strnlen(address, 1) };
}

/// An address at which nothing is ever mapped (mmap_min_addr, proc(5)).
const UNMAPPED: usize = 16;

/// A fault that is contained is so at once.
const PATIENCE: Duration = Duration::from_secs(2);
