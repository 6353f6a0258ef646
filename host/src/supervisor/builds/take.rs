//! Taking a build: a copy of a file that nobody is writing, made without ever mapping the original.
//!
//! A file is whole when no writer has it open (a read lease says so; where there are none, 50 ms of quiet), its last
//! change is at least 10 ms old, and it is the same file with the same size and time after the copy as before.

use crate::sys::lease::{ReadLease, Refused};
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

/// Which state of which file: two equal stamps are the same content, unless a write was younger than the clock of the
/// file system can tell, which [`AGE_MIN`] rules out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    /// Bytes.
    pub size: u64,
    /// Seconds and nanoseconds since 1970 of the last change of content.
    pub modified: (i64, i64),
}

/// Why there is no copy.
#[derive(Debug)]
pub enum NotTaken {
    /// Somebody is at it still; try again after this time.
    Later(Duration),
    /// There is no such file now.
    Missing,
    /// It cannot be copied, in words that follow the file's name.
    Failed(String),
}

/// A file whose last change is younger may be changed again without a new time: the kernel's clock for files ticks
/// every 1 to 10 ms.
pub const AGE_MIN: Duration = Duration::from_millis(10);

/// Where leases say nothing, a file that did not change for this long counts as written.
pub const QUIET_MIN: Duration = Duration::from_millis(50);

impl Stamp {
    /// The stamp of the regular file at `path`, symbolic links followed.
    pub fn of(path: &Path) -> Option<Stamp> {
        std::fs::metadata(path).ok().filter(Metadata::is_file).as_ref().map(Stamp::from)
    }
}

impl From<&Metadata> for Stamp {
    fn from(file: &Metadata) -> Stamp {
        Stamp { device: file.dev(), inode: file.ino(), size: file.size(), modified: (file.mtime(), file.mtime_nsec()) }
    }
}

/// Whether `path`, whose present state was first seen at `seen`, can be copied now.
///
/// # Errors
/// Why not.
pub fn ready(path: &Path, seen: Instant) -> Result<(), NotTaken> {
    let (file, stamp) = open(path)?;
    lease(&file, &stamp, Some(seen)).map(drop)
}

/// Copies the file at `path` to `to`, which must not exist yet, and tells which state of it that is.
///
/// # Errors
/// Why not; then there is no `to`.
pub fn copy(path: &Path, to: &Path) -> Result<Stamp, NotTaken> {
    let (file, before) = open(path)?;
    let lease = lease(&file, &before, None)?;
    let copied = copy_bytes(&file, to);
    let after = file.metadata().map(|file| Stamp::from(&file));
    // A writer that came meanwhile has been waiting for this.
    drop(lease);
    let result = match copied {
        Ok(bytes) if bytes == before.size && after.is_ok_and(|after| after == before) => match Stamp::of(path) {
            Some(now) if now == before => return Ok(before),
            Some(_) => NotTaken::Later(AGE_MIN),
            None => NotTaken::Missing,
        },
        Ok(_) => NotTaken::Later(AGE_MIN),
        Err(error) => NotTaken::Failed(cannot_copy(&error, to)),
    };
    let _ = std::fs::remove_file(to);
    Err(result)
}

fn open(path: &Path) -> Result<(File, Stamp), NotTaken> {
    // O_NONBLOCK: opening a pipe of this name must not wait for its other end.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(|error| match error
        .kind()
    {
        io::ErrorKind::NotFound => NotTaken::Missing,
        _ => NotTaken::Failed(format!("cannot be read: {error}")),
    })?;
    let metadata = file.metadata().map_err(|error| NotTaken::Failed(format!("cannot be read: {error}")))?;
    if !metadata.is_file() {
        return Err(NotTaken::Failed("is not a regular file".into()));
    }
    let stamp = Stamp::from(&metadata);
    Ok((file, stamp))
}

/// Proof, or the best there is, that nobody writes the file. `seen`: since when its stamp is known to be this one.
fn lease<'file>(file: &'file File, stamp: &Stamp, seen: Option<Instant>) -> Result<Option<ReadLease<'file>>, NotTaken> {
    let unchanged = seen.map(|seen| seen.elapsed());
    let age = age(stamp, unchanged);
    if let Some(rest) = AGE_MIN.checked_sub(age).filter(|rest| !rest.is_zero()) {
        return Err(NotTaken::Later(rest));
    }
    match ReadLease::take(file) {
        Ok(lease) => Ok(Some(lease)),
        Err(Refused::Writer) => Err(NotTaken::Later(Duration::ZERO)),
        Err(Refused::Unsupported) => {
            // The clock of a remote file system may be behind ours, so our own watch counts where we have one.
            let quiet = unchanged.unwrap_or(age);
            match QUIET_MIN.checked_sub(quiet).filter(|rest| !rest.is_zero()) {
                Some(rest) => Err(NotTaken::Later(rest)),
                None => Ok(None),
            }
        }
    }
}

/// How long ago the file changed. A time in the future says nothing; then it is how long we have seen it unchanged.
fn age(stamp: &Stamp, unchanged: Option<Duration>) -> Duration {
    let (seconds, nanoseconds) = stamp.modified;
    let modified = u64::try_from(seconds).map_or(Duration::ZERO, Duration::from_secs)
        + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    now.checked_sub(modified).unwrap_or(unchanged.unwrap_or(QUIET_MIN))
}

fn copy_bytes(mut from: &File, to: &Path) -> io::Result<u64> {
    let mut to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    // Between files this is copy_file_range(2): no byte passes through this process, and file systems that can share
    // blocks do.
    io::copy(&mut from, &mut to)
}

fn cannot_copy(error: &io::Error, to: &Path) -> String {
    let folder = to.parent().unwrap_or(to).display();
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            format!("cannot be copied to {folder}: the disk is full; free some space, then save it again")
        }
        _ => format!("cannot be copied to {folder}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn taken(path: &Path, to: &Path) -> Stamp {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match copy(path, to) {
                Ok(stamp) => return stamp,
                Err(NotTaken::Later(_)) if Instant::now() < deadline => std::thread::yield_now(),
                Err(other) => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_file_that_is_open_for_writing_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let (path, to) = (folder.path().join("x.so"), folder.path().join("copy"));
        let mut writer = File::create(&path).unwrap();
        writer.write_all(b"half").unwrap();
        writer.set_modified(SystemTime::now() - Duration::from_secs(60)).unwrap();
        assert!(matches!(copy(&path, &to), Err(NotTaken::Later(_))));
        assert!(!to.exists());
        writer.write_all(b" and half").unwrap();
        drop(writer);
        assert_eq!(taken(&path, &to).size, 13);
        assert_eq!(std::fs::read(&to).unwrap(), b"half and half");
    }

    #[test]
    fn a_change_that_is_too_young_waits_and_a_time_in_the_future_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.so");
        std::fs::write(&path, b"x").unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::now() + Duration::from_secs(3600)).unwrap();
        drop(file);
        let stamp = Stamp::of(&path).unwrap();
        assert_eq!(age(&stamp, Some(Duration::from_millis(3))), Duration::from_millis(3));
        let long_ago = Instant::now().checked_sub(AGE_MIN).unwrap();
        ready(&path, long_ago).unwrap();
        assert!(matches!(ready(&path, Instant::now() + AGE_MIN), Err(NotTaken::Later(_))));
    }

    #[test]
    fn what_is_no_regular_file_is_refused_without_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo.so");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let to = folder.path().join("copy");
        assert!(matches!(copy(&fifo, &to), Err(NotTaken::Failed(_))));
        assert!(matches!(copy(&folder.path().join("none.so"), &to), Err(NotTaken::Missing)));
    }
}
