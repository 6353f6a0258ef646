//! Memory of one request: `alloc` of the ABI and the strings that `get` gives, freed together when the request ends.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::{self, NonNull};

/// The memory. Nothing in it has a destructor.
#[derive(Default)]
pub(super) struct Arena {
    blocks: Vec<(NonNull<u8>, Layout)>,
    free: usize,
}

// SAFETY: the blocks are plain memory that the arena alone owns.
unsafe impl Send for Arena {}

impl Arena {
    /// `size` bytes, aligned for anything (16 bytes, as malloc(3) gives); `None` when the system has no more memory.
    pub(super) fn allocate(&mut self, size: usize) -> Option<NonNull<u8>> {
        let size = size.max(1).checked_next_multiple_of(ALIGNMENT)?;
        if size > self.free {
            let layout = Layout::from_size_align(size.max(BLOCK_BYTES), ALIGNMENT).ok()?;
            // SECURITY: a module gets it as it is, and what anybody had there before is not the module's business.
            // SAFETY: the layout's size is at least BLOCK_BYTES, not zero.
            let block = NonNull::new(unsafe { alloc_zeroed(layout) })?;
            self.blocks.push((block, layout));
            self.free = layout.size();
        }
        let (block, layout) = self.blocks.last()?;
        let at = layout.size() - self.free;
        self.free -= size;
        // SAFETY: `at` is within the block, because `free` never exceeds the last block's size.
        Some(unsafe { block.add(at) })
    }

    /// Ends the request: what was given is no more. A block of the ordinary size is kept for the next one.
    pub(super) fn clear(&mut self) {
        let Some(&(first, layout)) = self.blocks.first() else { return };
        let kept = usize::from(layout.size() == BLOCK_BYTES);
        let used = if self.blocks.len() > 1 { layout.size() } else { layout.size() - self.free };
        self.free_blocks_from(kept);
        self.free = kept * BLOCK_BYTES;
        if kept > 0 {
            // SECURITY: the next one to have it may be another module, which must not find the strings of this request
            // there.
            // SAFETY: the block has been kept, and `used` is at most its size.
            unsafe { ptr::write_bytes(first.as_ptr(), 0, used) };
        }
    }

    fn free_blocks_from(&mut self, kept: usize) {
        for (block, layout) in self.blocks.drain(kept..) {
            // SAFETY: the block came from `alloc` with this layout.
            unsafe { dealloc(block.as_ptr(), layout) };
        }
        self.blocks.shrink_to(BLOCKS_KEPT);
    }

    /// The parts, one after the other, with a NUL behind; the length is without it.
    pub(super) fn text(&mut self, parts: &[&[u8]]) -> Option<(NonNull<u8>, usize)> {
        let length = parts.iter().map(|part| part.len()).sum::<usize>();
        let start = self.allocate(length.checked_add(1)?)?;
        let mut at = start;
        for part in parts {
            // SAFETY: `allocate` gave room for all parts, which are elsewhere in memory.
            unsafe { ptr::copy_nonoverlapping(part.as_ptr(), at.as_ptr(), part.len()) };
            // SAFETY: as above; at most the position of the NUL.
            at = unsafe { at.add(part.len()) };
        }
        // SAFETY: the byte after the parts was allocated for it.
        unsafe { at.write(0) };
        Some((start, length))
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        self.free_blocks_from(0);
    }
}

const ALIGNMENT: usize = 16;

/// Room for every key and value of a browser's request.
const BLOCK_BYTES: usize = 4096;

/// The list of more blocks than this is not kept.
const BLOCKS_KEPT: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_aligned_and_apart() {
        let mut arena = Arena::default();
        let sizes = [0, 1, 15, 16, 17, 1000, 5000, 3];
        let given: Vec<_> = sizes.iter().map(|&size| (arena.allocate(size).unwrap().as_ptr() as usize, size)).collect();
        for (n, &(start, size)) in given.iter().enumerate() {
            assert_eq!(start % ALIGNMENT, 0);
            assert!(given[n + 1..].iter().all(|&(other, length)| other >= start + size || other + length <= start));
        }
    }

    #[test]
    fn an_arena_used_again_keeps_one_block_and_nothing_in_it() {
        for sizes in [&[][..], &[16], &[100, 200], &[BLOCK_BYTES], &[BLOCK_BYTES, 16], &[BLOCK_BYTES + 1], &[1; 10_000]]
        {
            let mut arena = Arena::default();
            for &size in sizes {
                let at = arena.allocate(size).unwrap();
                // SAFETY: the arena gave `size` bytes, and lives.
                unsafe { ptr::write_bytes(at.as_ptr(), 0xaa, size) };
            }
            arena.clear();
            assert!(arena.blocks.len() <= 1 && arena.blocks.capacity() <= BLOCKS_KEPT, "{sizes:?}");
            let Some(&(block, layout)) = arena.blocks.first() else { continue };
            assert_eq!((layout.size(), arena.free), (BLOCK_BYTES, BLOCK_BYTES), "{sizes:?}");
            assert_eq!(arena.allocate(BLOCK_BYTES), Some(block), "{sizes:?}");
            let used = sizes.iter().sum::<usize>().min(BLOCK_BYTES);
            // SAFETY: so much of the block was written to, by the test and by `clear`.
            let used = unsafe { std::slice::from_raw_parts(block.as_ptr(), used) };
            assert!(used.iter().all(|byte| *byte == 0), "{sizes:?}");
        }
    }

    #[test]
    fn memory_that_others_had_before_is_empty() {
        for size in [300, BLOCK_BYTES, 3 * BLOCK_BYTES] {
            // Whatever the system's allocator gives again has been written to.
            drop((0..64).map(|_| vec![0xaa_u8; size.max(BLOCK_BYTES)]).collect::<Vec<_>>());
            let mut arena = Arena::default();
            let at = arena.allocate(size).unwrap();
            // SAFETY: the arena gave `size` bytes, and lives.
            let given = unsafe { std::slice::from_raw_parts(at.as_ptr(), size) };
            assert!(given.iter().all(|byte| *byte == 0), "{size}");
        }
    }

    #[test]
    fn impossible_sizes_are_refused() {
        assert!(Arena::default().allocate(usize::MAX).is_none());
        assert!(Arena::default().allocate(isize::MAX as usize).is_none());
    }

    #[test]
    fn texts_end_in_nul() {
        let mut arena = Arena::default();
        let (start, length) = arena.text(&[b"GET", b"", b" /"]).unwrap();
        // SAFETY: the arena gave `length` bytes and a NUL, and lives.
        let got = unsafe { std::slice::from_raw_parts(start.as_ptr(), length + 1) };
        assert_eq!(got, b"GET /\0");
    }
}
