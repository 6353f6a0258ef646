//! Structs that modules give, read field by field: a module may have been compiled against an older header, so what lies
//! past the size that the struct itself names is not there, and counts as zero.

use abi::ffi::host_module_info;
use std::mem::{MaybeUninit, offset_of, size_of};
use std::ptr;

/// A struct of a module, laid out as `T` as far as it goes.
pub(super) struct Foreign<T> {
    at: *const T,
    size: usize,
}

impl<T> Foreign<T> {
    /// The struct at `at`, which tells its size in a `u32` at `size_offset`.
    ///
    /// # Safety
    /// `at` points to a struct of the ABI that has at least its size field, and as many bytes as that says.
    pub(super) unsafe fn new(at: *const T, size_offset: usize) -> Foreign<T> {
        let size = at.cast::<u8>().wrapping_add(size_offset).cast::<u32>();
        // SAFETY: the caller's promise. Modules in other languages may align less than C does.
        let size = unsafe { size.read_unaligned() };
        Foreign { at, size: size as usize }
    }

    /// How many bytes the module says there are.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// The field at `offset`; `None` if the struct ends before its end.
    ///
    /// # Safety
    /// The field is of type `F`, for which every value that a module can write there is valid; the struct still lives.
    pub(super) unsafe fn field<F: Copy>(&self, offset: usize) -> Option<F> {
        if self.size < offset + size_of::<F>() {
            return None;
        }
        let field = self.at.cast::<u8>().wrapping_add(offset).cast::<F>();
        // SAFETY: the struct reaches past the field, by its own size and the caller's promise.
        Some(unsafe { field.read_unaligned() })
    }
}

/// What a module says of itself. What was compiled against an older header ends earlier; the rest is zero.
///
/// # Safety
/// `at` points to a `host_module_info` that is aligned, and has as many bytes as its size field says, or as this one has.
pub(super) unsafe fn module_info(at: *const host_module_info) -> host_module_info {
    // SAFETY: the caller's promise.
    let size = unsafe { Foreign::new(at, offset_of!(host_module_info, size)) }.size();
    let mut info = MaybeUninit::<host_module_info>::zeroed();
    // SAFETY: the struct has so many bytes, and so has the copy.
    unsafe { ptr::copy_nonoverlapping(at.cast::<u8>(), info.as_mut_ptr().cast(), size.min(size_of_val(&info))) };
    // SAFETY: zeroes are a value of each field, and so is whatever a module can write there.
    unsafe { info.assume_init() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(C)]
    struct Newer {
        size: u32,
        old: u32,
        new: u64,
    }

    #[test]
    fn what_lies_past_the_size_is_not_there() {
        let both = Newer { size: size_of::<Newer>() as u32, old: 7, new: 9 };
        // SAFETY: a whole struct that tells its true size.
        let foreign = unsafe { Foreign::new(&raw const both, 0) };
        // SAFETY: the types are those of the fields.
        let fields = unsafe { foreign.field::<u32>(offset_of!(Newer, old)) };
        assert_eq!(fields, Some(7));
        // SAFETY: as above.
        assert_eq!(unsafe { foreign.field::<u64>(offset_of!(Newer, new)) }, Some(9));
        let older = Newer { size: 8, ..both };
        // SAFETY: a struct that is larger than it says.
        let foreign = unsafe { Foreign::new(&raw const older, 0) };
        // SAFETY: as above.
        assert_eq!(unsafe { foreign.field::<u64>(offset_of!(Newer, new)) }, None);
    }
}
