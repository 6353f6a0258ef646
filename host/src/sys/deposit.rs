//! Putting files into a folder so that each is there whole or not at all, whenever the process is killed.
//!
//! A file is made without a name (open(2), `O_TMPFILE`) and linked into its folder when it is complete: the kernel drops what
//! has no name. Where a file system cannot do that, the file has a hidden name until then; and one that takes the place of
//! another has one for a moment, since only names can be exchanged. Whoever works on such a file holds its lock (flock(2)),
//! which ends with the process: a hidden file that nobody has locked was left behind, and is swept away.

use super::files::{self, Identity};
use rustix::fs::{AtFlags, CWD, Dir, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// A folder that files are put into.
#[derive(Debug)]
pub struct Destination {
    folder: OwnedFd,
    /// It is open for reading, and not only as a place.
    is_readable: bool,
}

/// A file that is not in its folder yet, for all that others can see.
#[derive(Debug)]
pub struct Temporary {
    file: File,
    /// The name that it has until then, if it has one.
    hidden: Option<String>,
}

/// What has a name in a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    /// What it is; a symbolic link is [`files::Kind::Other`].
    pub kind: files::Kind,
    /// Which one, and in what state.
    pub identity: Identity,
}

impl Destination {
    /// The folder that is open, for reading or as a place (`O_PATH`) if it may not be read.
    pub fn new(folder: OwnedFd) -> Destination {
        let flags = rustix::fs::fcntl_getfl(&folder);
        Destination { folder, is_readable: flags.is_ok_and(|flags| !flags.contains(OFlags::PATH)) }
    }

    /// What has this name, links not followed.
    pub fn look(&self, name: &str) -> Result<Option<Named>, Errno> {
        files::look(&self.folder, name).map(|found| found.map(|(kind, identity)| Named { kind, identity }))
    }

    /// Whether files can be made in it now, by its permissions.
    pub fn is_writable(&self) -> bool {
        let wanted = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
        rustix::fs::accessat(&self.folder, ".", wanted, AtFlags::EACCESS).is_ok()
    }

    /// Makes an empty file for it.
    pub fn create(&self) -> Result<Temporary, Errno> {
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.folder, ".", flags, MODE) {
            Ok(file) => Ok(Temporary { file: file.into(), hidden: None }),
            // EISDIR: a kernel that does not know the flag at all.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOSYS) => self.create_hidden(),
            Err(error) => Err(error),
        }
    }

    fn create_hidden(&self) -> Result<Temporary, Errno> {
        let mut tries = 0;
        loop {
            let hidden = hidden_name();
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
            let error = match rustix::fs::openat(&self.folder, &*hidden, flags, MODE) {
                Ok(file) if lock(&file) => return Ok(Temporary { file: file.into(), hidden: Some(hidden) }),
                // Somebody sweeps, and has seen it before it was locked.
                Ok(_) => Errno::AGAIN,
                Err(error) => error,
            };
            tries += 1;
            if !matches!(error, Errno::AGAIN | Errno::EXIST) || tries == TRIES_MAX {
                return Err(error);
            }
        }
    }

    /// Gives a file this name, which nothing may have: `EEXIST`.
    pub fn publish(&self, temporary: &mut Temporary, name: &str) -> Result<(), Errno> {
        let Some(hidden) = &temporary.hidden else { return self.link(&temporary.file, name) };
        match rustix::fs::renameat_with(&self.folder, &**hidden, &self.folder, name, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            // A file system that cannot see to it that nothing is replaced has links, for which the kernel does.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                rustix::fs::linkat(&self.folder, &**hidden, &self.folder, name, AtFlags::empty())?;
                self.remove(hidden);
            }
            Err(error) => return Err(error),
        }
        temporary.hidden = None;
        Ok(())
    }

    /// Gives a file this name, in the place of what has it. No moment is without one or the other.
    pub fn replace(&self, temporary: &mut Temporary, name: &str) -> Result<(), Errno> {
        let mut tries = 0;
        while temporary.hidden.is_none() {
            // Before it has a name, so that nobody sweeps it away.
            lock(&temporary.file);
            let hidden = hidden_name();
            match self.link(&temporary.file, &hidden) {
                Ok(()) => temporary.hidden = Some(hidden),
                Err(Errno::EXIST) if tries < TRIES_MAX => tries += 1,
                Err(error) => return Err(error),
            }
        }
        let hidden = temporary.hidden.as_deref().unwrap_or_default();
        rustix::fs::renameat(&self.folder, hidden, &self.folder, name)?;
        temporary.hidden = None;
        Ok(())
    }

    /// Links a file that has no name.
    fn link(&self, file: &File, name: &str) -> Result<(), Errno> {
        match rustix::fs::linkat(file, "", &self.folder, name, AtFlags::EMPTY_PATH) {
            // Linux before 6.10 lets only the privileged (CAP_DAC_READ_SEARCH) do that; by this path everybody may.
            Err(Errno::NOENT | Errno::PERM | Errno::ACCESS) => {
                let path = format!("/proc/self/fd/{}", file.as_raw_fd());
                rustix::fs::linkat(CWD, &*path, &self.folder, name, AtFlags::SYMLINK_FOLLOW)
            }
            result => result,
        }
    }

    /// Takes back what has been published, if it still is what has the name.
    pub fn take_back(&self, temporary: &Temporary, name: &str) {
        let own = temporary.identity().map(|identity| (identity.device, identity.inode));
        if let (Ok(own), Ok(Some(found))) = (own, self.look(name))
            && own == (found.identity.device, found.identity.inode)
        {
            self.remove(name);
        }
    }

    /// Forgets a file that has not been published.
    pub fn discard(&self, temporary: Temporary) {
        if let Some(hidden) = &temporary.hidden {
            self.remove(hidden);
        }
    }

    fn remove(&self, name: &str) {
        // A hidden file that stays is swept away some other time.
        _ = rustix::fs::unlinkat(&self.folder, name, AtFlags::empty());
    }

    /// Returns when the names of now are on the disk.
    pub fn sync(&self) -> Result<(), Errno> {
        match self.is_readable.then(|| rustix::fs::fsync(&self.folder)) {
            // Some file systems do not know that of folders.
            None | Some(Ok(()) | Err(Errno::INVAL | Errno::BADF)) => Ok(()),
            Some(Err(error)) => Err(error),
        }
    }

    /// Removes the hidden files that others have left behind when they were killed.
    pub fn sweep(&self) {
        let Ok(folder) = Dir::read_from(&self.folder) else { return };
        for entry in folder.flatten() {
            let name = entry.file_name();
            if !name.to_bytes().starts_with(HIDDEN_PREFIX.as_bytes()) {
                continue;
            }
            // O_NONBLOCK: it may be a FIFO, with a name that somebody else has given.
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let Ok(file) = rustix::fs::openat(&self.folder, name, flags, Mode::empty()) else { continue };
            let is_file = rustix::fs::fstat(&file).is_ok_and(|stat| files::kind(&stat) == files::Kind::File);
            if is_file && lock(&file) {
                _ = rustix::fs::unlinkat(&self.folder, name, AtFlags::empty());
            }
        }
    }
}

impl AsFd for Destination {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }
}

impl Temporary {
    /// Adds to its end.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        self.file.write_all(bytes).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }

    /// Returns when all of it is on the disk.
    pub fn sync(&self) -> Result<(), Errno> {
        rustix::fs::fsync(&self.file)
    }

    /// Which file it is, and in what state.
    pub fn identity(&self) -> Result<Identity, Errno> {
        files::identify(&self.file)
    }

    /// The file, and the name that it has so far, to be put together again elsewhere.
    pub fn into_parts(self) -> (OwnedFd, Option<String>) {
        (self.file.into(), self.hidden)
    }

    /// From what [`into_parts`](Self::into_parts) gave. Content goes on where it ended: that is the file's, not the process's.
    pub fn from_parts(file: OwnedFd, hidden: Option<String>) -> Temporary {
        Temporary { file: file.into(), hidden }
    }
}

/// Has those who change one thing do so one after the other, in whatever process they are, by a file that they lock.
#[derive(Debug)]
pub struct Turns(OwnedFd);

impl Turns {
    /// By the file at `path`, which is made if need be.
    pub fn by(path: &Path) -> Result<Turns, Errno> {
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR).map(Turns)
    }

    /// Does `what` while nobody else does. It waits for those before.
    pub fn take<T>(&self, what: impl FnOnce() -> T) -> T {
        while rustix::fs::flock(&self.0, FlockOperation::LockExclusive) == Err(Errno::INTR) {}
        let result = what();
        _ = rustix::fs::flock(&self.0, FlockOperation::Unlock);
        result
    }
}

/// Takes the lock of a file; false if somebody has it.
fn lock(file: impl AsFd) -> bool {
    rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive).is_ok()
}

/// A name that nobody else has thought of. The standard library takes the numbers from the system's random ones.
fn hidden_name() -> String {
    format!("{HIDDEN_PREFIX}{:016x}", RandomState::new().hash_one(0))
}

/// What hidden names begin with. A site shows no file whose name begins with a dot.
const HIDDEN_PREFIX: &str = ".host-upload-";

/// Never executable, whatever is in it. The process's mask applies (umask(2)).
const MODE: Mode = Mode::RUSR.union(Mode::WUSR).union(Mode::RGRP).union(Mode::ROTH);

/// How often another hidden name is tried.
const TRIES_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> (Folder, Destination) {
            let folder = tempfile::tempdir().unwrap();
            let destination = Destination::new(File::open(folder.path()).unwrap().into());
            (Folder(folder), destination)
        }

        fn names(&self) -> Vec<String> {
            let mut names: Vec<_> = fs::read_dir(self.0.path())
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        }

        fn read(&self, name: &str) -> String {
            fs::read_to_string(self.0.path().join(name)).unwrap()
        }
    }

    type Way = fn(&Destination) -> Result<Temporary, Errno>;

    /// The two ways to make a file.
    const WAYS: [Way; 2] = [Destination::create, Destination::create_hidden];

    #[test]
    fn a_file_is_there_when_it_is_published_and_not_before() {
        for (is_hidden, create) in WAYS.iter().enumerate() {
            let (folder, destination) = Folder::new();
            let mut file = create(&destination).unwrap();
            assert_eq!(file.hidden.is_some(), is_hidden == 1, "this file system has O_TMPFILE");
            file.write(b"hel").unwrap();
            let (descriptor, hidden) = file.into_parts();
            let mut file = Temporary::from_parts(descriptor, hidden);
            file.write(b"lo").unwrap();
            file.sync().unwrap();
            assert!(folder.names().iter().all(|name| name.starts_with(HIDDEN_PREFIX)));
            destination.publish(&mut file, "a").unwrap();
            destination.sync().unwrap();
            assert_eq!((folder.names(), folder.read("a")), (vec!["a".to_owned()], "hello".to_owned()));
            let metadata = fs::metadata(folder.0.path().join("a")).unwrap();
            assert_eq!((metadata.mode() & 0o133, metadata.nlink()), (0, 1), "{:o}", metadata.mode());

            let mut second = create(&destination).unwrap();
            assert_eq!(destination.publish(&mut second, "a"), Err(Errno::EXIST));
            symlink("nowhere", folder.0.path().join("b")).unwrap();
            assert_eq!(destination.publish(&mut second, "b"), Err(Errno::EXIST), "a link counts, too");
            destination.discard(second);
            assert_eq!((folder.names().len(), folder.read("a")), (2, "hello".to_owned()));
        }
    }

    #[test]
    fn a_file_takes_the_place_of_another() {
        for create in WAYS {
            let (folder, destination) = Folder::new();
            fs::write(folder.0.path().join("a"), "old").unwrap();
            let before = destination.look("a").unwrap().unwrap();
            let mut file = create(&destination).unwrap();
            file.write(b"new").unwrap();
            destination.replace(&mut file, "a").unwrap();
            assert_eq!((folder.names(), folder.read("a")), (vec!["a".to_owned()], "new".to_owned()));
            let after = destination.look("a").unwrap().unwrap();
            assert!(after.identity.inode != before.identity.inode && after.kind == files::Kind::File);
            assert_eq!(file.identity().unwrap().inode, after.identity.inode);
        }
    }

    #[test]
    fn what_was_published_can_be_taken_back_and_nothing_else() {
        let (folder, destination) = Folder::new();
        let mut file = destination.create().unwrap();
        destination.publish(&mut file, "a").unwrap();
        fs::write(folder.0.path().join("b"), "another's").unwrap();
        destination.take_back(&file, "b");
        assert_eq!(folder.names(), ["a", "b"]);
        destination.take_back(&file, "a");
        assert_eq!(folder.names(), ["b"]);
    }

    #[test]
    fn what_was_left_behind_is_swept_away_and_what_is_used_stays() {
        let (folder, destination) = Folder::new();
        let used = destination.create_hidden().unwrap();
        let left = destination.create_hidden().unwrap();
        fs::write(folder.0.path().join(".hidden"), "").unwrap();
        symlink("a", folder.0.path().join(format!("{HIDDEN_PREFIX}link"))).unwrap();
        // Its owner is gone: the lock ends with the descriptor.
        drop(left);
        destination.sweep();
        let mut expected = vec![".hidden".to_owned(), used.hidden.clone().unwrap(), format!("{HIDDEN_PREFIX}link")];
        expected.sort();
        assert_eq!(folder.names(), expected);
        destination.discard(used);
        assert_eq!(folder.names().len(), 2);
    }

    #[test]
    fn a_folder_that_may_not_be_read_takes_files() {
        let (folder, _) = Folder::new();
        let place = rustix::fs::open(folder.0.path(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let destination = Destination::new(place);
        let mut file = destination.create().unwrap();
        destination.publish(&mut file, "a").unwrap();
        destination.sync().unwrap();
        destination.sweep();
        assert_eq!(folder.names(), ["a"]);
    }

    #[test]
    fn turns_are_taken_one_by_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("turns");
        let count = folder.path().join("count");
        fs::write(&count, "0").unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let turns = Turns::by(&path).unwrap();
                    for _ in 0..50 {
                        turns.take(|| {
                            let number: u32 = fs::read_to_string(&count).unwrap().parse().unwrap();
                            fs::write(&count, (number + 1).to_string()).unwrap();
                        });
                    }
                });
            }
        });
        assert_eq!(fs::read_to_string(&count).unwrap(), "200");
    }
}
