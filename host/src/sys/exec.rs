//! Whether files of a file system may be executed, which is what loading a library comes to.

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};
use std::fs::File;
use std::ptr;

/// Maps the first page of `file` executable, as the dynamic linker would, and unmaps it. `file` is open for reading.
///
/// # Errors
/// `PERM` on a file system mounted with `noexec` (mmap(2)); `ACCESS` where a security module forbids it.
pub fn probe(file: &File) -> Result<(), Errno> {
    // The kernel rounds it up to a page; that the file may be shorter only matters to those who touch the page.
    let length = 1;
    // SAFETY: with a null address and without MAP_FIXED the kernel chooses an unused range, so no existing mapping
    // is touched; nothing reads, writes or runs what is mapped.
    let address = unsafe {
        rustix::mm::mmap(ptr::null_mut(), length, ProtFlags::READ | ProtFlags::EXEC, MapFlags::PRIVATE, file, 0)
    }?;
    // SAFETY: exactly the range that was just mapped, of which no reference exists.
    unsafe { rustix::mm::munmap(address, length) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_may_be_mapped_and_proc_may_not() {
        assert_eq!(probe(&File::open("/proc/self/exe").unwrap()), Ok(()));
        // procfs cannot be mapped at all, which must not pass for success.
        assert!(probe(&File::open("/proc/self/status").unwrap()).is_err());
    }
}
