//! For tests: how often memory is allocated.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

/// The system's allocator, counting: the `#[global_allocator]` of tests, and of nothing else.
pub struct Counting;

#[cfg(test)]
#[global_allocator]
static COUNTING: Counting = Counting;

thread_local! {
    /// Without a destructor and without lazy initialization, so that an allocator may use it at any time.
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// What all threads have come to.
static COUNT_OF_ALL: AtomicU64 = AtomicU64::new(0);

/// How often this thread allocates or reallocates while it does `work`, and what that gives.
pub fn during<R>(work: impl FnOnce() -> R) -> (u64, R) {
    let before = COUNT.get();
    let result = work();
    (COUNT.get() - before, result)
}

/// How often all threads have allocated or reallocated so far.
pub fn by_all_threads() -> u64 {
    COUNT_OF_ALL.load(Ordering::SeqCst)
}

fn count() {
    COUNT.set(COUNT.get() + 1);
    COUNT_OF_ALL.fetch_add(1, Ordering::SeqCst);
}

// SAFETY: each function does what the system's allocator does; the count allocates nothing and does not unwind.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps to the same contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps to the same contract, and `pointer` is the system allocator's.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller keeps to the same contract, and `pointer` is the system allocator's.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps to the same contract.
        unsafe { System.alloc_zeroed(layout) }
    }
}
