//! What is in a folder, some at a time, so that a folder of any size can be read beside other work (getdents(2)).

use super::files::{self, Kind};
use rustix::fs::{AtFlags, Mode, RawDir, SeekFrom};
use rustix::io::Errno;
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

/// An open folder that is being read.
#[derive(Debug)]
pub struct Entries {
    folder: OwnedFd,
}

/// What an entry is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its kind; a link is not followed.
    pub kind: Kind,
    /// Its size in bytes.
    pub size: u64,
    /// When its content last changed, in nanoseconds since 1970; negative before.
    pub modified_ns: i128,
    /// Whether its mode lets everybody read it; an access control list or a file system may know better.
    pub is_public: bool,
}

impl Entries {
    /// The entries of a folder that is open for reading.
    ///
    /// # Errors
    /// `EACCES` if names in it cannot be looked up; what the file system says else.
    pub fn new(folder: OwnedFd) -> Result<Entries, Errno> {
        // To look even the dot up takes the right to search (path_resolution(7)).
        rustix::fs::statat(&folder, c".", AtFlags::empty())?;
        Ok(Entries { folder })
    }

    /// Reads some more names, in no order, and without the two that are dots. False when there are no more.
    ///
    /// A name that comes or goes meanwhile may be among them or not; all others are once (readdir(3)).
    pub fn read(&self, mut each: impl FnMut(&CStr)) -> Result<bool, Errno> {
        let mut buffer = [MaybeUninit::uninit(); NAMES_BYTES];
        let mut names = RawDir::new(&self.folder, &mut buffer);
        loop {
            match names.next() {
                None => return Ok(false),
                Some(Ok(entry)) if matches!(entry.file_name().to_bytes(), b"." | b"..") => {}
                Some(Ok(entry)) => each(entry.file_name()),
                Some(Err(Errno::INTR)) => {}
                // It has been removed while it was read.
                Some(Err(Errno::NOENT)) => return Ok(false),
                Some(Err(error)) => return Err(error),
            }
            if names.is_buffer_empty() {
                return Ok(true);
            }
        }
    }

    /// Reads from the beginning again.
    pub fn rewind(&self) -> Result<(), Errno> {
        rustix::fs::seek(&self.folder, SeekFrom::Start(0)).map(|_| ())
    }

    /// What has this name now.
    pub fn look_at(&self, name: &CStr) -> Result<Entry, Errno> {
        let stat = rustix::fs::statat(&self.folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = files::kind(&stat);
        let public = if kind == Kind::Folder { Mode::ROTH | Mode::XOTH } else { Mode::ROTH };
        Ok(Entry {
            kind,
            size: stat.st_size as u64,
            modified_ns: files::nanoseconds(stat.st_mtime, stat.st_mtime_nsec.into()),
            is_public: Mode::from_raw_mode(stat.st_mode).contains(public),
        })
    }
}

/// What one read takes: some hundred names.
const NAMES_BYTES: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::files::Folder;
    use std::collections::BTreeSet;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn entries(path: &std::path::Path) -> Entries {
        Entries::new(Folder::open(path).unwrap().open_beneath(b"").unwrap().descriptor).unwrap()
    }

    #[test]
    fn all_names_are_read_in_some_steps_and_again() {
        let base = tempfile::tempdir().unwrap();
        let expected: BTreeSet<String> = (0..3000).map(|number| format!("entry number {number:032}")).collect();
        expected.iter().for_each(|name| fs::write(base.path().join(name), "").unwrap());
        let entries = entries(base.path());
        for _ in 0..2 {
            let (mut names, mut steps) = (Vec::new(), 0);
            while entries.read(|name| names.push(name.to_str().unwrap().to_owned())).unwrap() {
                steps += 1;
            }
            assert!(steps > 1, "3000 names are more than one read takes");
            assert_eq!(names.len(), 3000, "each comes once");
            assert_eq!(names.into_iter().collect::<BTreeSet<_>>(), expected);
            entries.rewind().unwrap();
        }
    }

    #[test]
    fn entries_are_told_apart_and_links_are_not_followed() {
        let base = tempfile::tempdir().unwrap();
        fs::write(base.path().join("file"), "hello").unwrap();
        fs::set_permissions(base.path().join("file"), fs::Permissions::from_mode(0o640)).unwrap();
        fs::create_dir(base.path().join("folder")).unwrap();
        fs::set_permissions(base.path().join("folder"), fs::Permissions::from_mode(0o755)).unwrap();
        symlink("nowhere", base.path().join("link")).unwrap();
        let entries = entries(base.path());
        let file = entries.look_at(c"file").unwrap();
        assert_eq!((file.kind, file.size, file.is_public), (Kind::File, 5, false));
        assert_eq!(entries.look_at(c"folder").map(|entry| (entry.kind, entry.is_public)), Ok((Kind::Folder, true)));
        assert_eq!(entries.look_at(c"link").map(|entry| entry.kind), Ok(Kind::Link));
        assert_eq!(entries.look_at(c"nothing"), Err(Errno::NOENT));
    }

    #[test]
    fn a_folder_that_is_removed_has_no_more_names() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("folder");
        fs::create_dir(&folder).unwrap();
        let entries = entries(&folder);
        fs::remove_dir(&folder).unwrap();
        assert_eq!(entries.read(|name| panic!("{name:?}")), Ok(false));
    }
}
