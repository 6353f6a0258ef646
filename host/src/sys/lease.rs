//! A read lease: the kernel's word that nobody has a file open for writing (fcntl(2), "Leases").

use rustix::io::Errno;
use std::fs::File;
use std::os::fd::AsRawFd;

/// A file of which, while this lives, no writer exists: one that opens or truncates it waits until this is dropped.
/// Keep it short. The kernel takes it back by force after `/proc/sys/fs/lease-break-time` (45 s).
#[derive(Debug)]
pub struct ReadLease<'file> {
    file: &'file File,
}

/// Why there is no lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Somebody has the file open for writing.
    Writer,
    /// The file system or our rights do not allow leases, so this says nothing about writers.
    Unsupported,
}

impl<'file> ReadLease<'file> {
    /// Takes the lease without waiting. `file` must be a regular file opened for reading only.
    pub fn take(file: &'file File) -> Result<ReadLease<'file>, Refused> {
        // A waiting writer makes the kernel send SIGIO, whose default action ends the process. SIGURG's is to do
        // nothing, so no disposition of the whole process has to be changed for this.
        fcntl(file, F_SETSIG, libc::SIGURG).map_err(|_| Refused::Unsupported)?;
        match fcntl(file, libc::F_SETLEASE, libc::F_RDLCK) {
            Ok(()) => Ok(ReadLease { file }),
            Err(Errno::AGAIN) if !is_remote(file) => Err(Refused::Writer),
            Err(_) => Err(Refused::Unsupported),
        }
    }
}

impl Drop for ReadLease<'_> {
    fn drop(&mut self) {
        // It can only fail if the kernel has already taken the lease back.
        let _ = fcntl(self.file, libc::F_SETLEASE, libc::F_UNLCK);
    }
}

/// `F_SETSIG` of Linux' `fcntl.h`, which libc lacks for most targets; the number is the same on all.
const F_SETSIG: i32 = 10;

/// NFS and SMB answer EAGAIN when the server granted no delegation or oplock, whether or not there is a writer.
fn is_remote(file: &File) -> bool {
    const NFS: i64 = 0x6969;
    const CIFS: i64 = 0xff53_4d42;
    const SMB2: i64 = 0xfe53_4d42;
    rustix::fs::fstatfs(file).is_ok_and(|system| matches!(system.f_type & 0xffff_ffff, NFS | CIFS | SMB2))
}

fn fcntl(file: &File, command: i32, argument: i32) -> Result<(), Errno> {
    // SAFETY: the descriptor is open for as long as `file` is borrowed, and these commands take an integer and
    // touch no memory of ours.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), command, argument) };
    if result < 0 {
        return Err(std::io::Error::last_os_error().raw_os_error().map_or(Errno::INVAL, Errno::from_raw_os_error));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_writer_prevents_a_lease_and_its_end_allows_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut writer = File::create(&path).unwrap();
        let reader = File::open(&path).unwrap();
        assert_eq!(ReadLease::take(&reader).unwrap_err(), Refused::Writer);
        writer.write_all(b"done").unwrap();
        drop(writer);
        ReadLease::take(&reader).unwrap();
    }

    #[test]
    fn a_writer_waits_for_the_lease_and_its_signal_does_not_end_us() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, b"old").unwrap();
        let reader = File::open(&path).unwrap();
        let lease = ReadLease::take(&reader).unwrap();
        let writer = std::thread::spawn({
            let path = path.clone();
            move || std::fs::write(path, b"new").unwrap()
        });
        // The writer is waiting once its lease break shows: F_GETLEASE then names the type we are asked to fall to.
        while fcntl_lease(&reader) != libc::F_UNLCK {
            std::thread::yield_now();
        }
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        drop(lease);
        writer.join().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
    }

    fn fcntl_lease(file: &File) -> i32 {
        // SAFETY: F_GETLEASE takes no argument and touches no memory of ours.
        unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETLEASE) }
    }
}
