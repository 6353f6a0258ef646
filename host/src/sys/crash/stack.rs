//! The stacks of signal handlers.

use std::cell::Cell;
use std::ffi::c_void;
use std::io;
use std::mem::MaybeUninit;
use std::ptr;

/// A stack for the signal handlers of one thread: without one, a thread that has used up its own could not be told of
/// it. That of the standard library has just room for the registers of a large processor. Dropping it, on the same
/// thread, puts the former one back.
pub struct SignalStack {
    base: *mut c_void,
    bytes: usize,
    former: Cell<libc::stack_t>,
}

impl SignalStack {
    /// Gives the calling thread its own.
    ///
    /// # Errors
    /// There is no memory.
    pub fn new() -> io::Result<SignalStack> {
        // SAFETY: getauxval(3) has no preconditions; what the kernel does not tell is 0.
        let least = unsafe { libc::getauxval(libc::AT_MINSIGSTKSZ) };
        let page = rustix::param::page_size();
        let bytes = (SIGNAL_STACK_BYTES + least as usize).next_multiple_of(page) + page;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK;
        // SAFETY: a new mapping touches no other.
        let base = unsafe { libc::mmap(ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the first page of the new mapping, which nothing uses: a guard.
        unsafe { libc::mprotect(base, page, libc::PROT_NONE) };
        let ours = libc::stack_t { ss_sp: base.wrapping_byte_add(page), ss_flags: 0, ss_size: bytes - page };
        // SAFETY: stack_t is a C struct for which zeroes are a value.
        let mut former: libc::stack_t = unsafe { MaybeUninit::zeroed().assume_init() };
        // SAFETY: the new stack is mapped until it is replaced again; the thread is on its ordinary one.
        let set = unsafe { libc::sigaltstack(&raw const ours, &raw mut former) };
        let stack = SignalStack { base, bytes, former: Cell::new(former) };
        if set == 0 { Ok(stack) } else { Err(io::Error::last_os_error()) }
    }
}

impl Drop for SignalStack {
    fn drop(&mut self) {
        let former = self.former.get();
        // SAFETY: it was this thread's before, or says that there was none.
        unsafe { libc::sigaltstack(&raw const former, ptr::null_mut()) };
        // SAFETY: the mapping is this value's own, and not in use any more.
        unsafe { libc::munmap(self.base, self.bytes) };
    }
}

/// What a handler of ours and the functions that it calls may use, generously.
const SIGNAL_STACK_BYTES: usize = 64 << 10;
