//! Files beneath a folder that is held open, so that nothing outside of it can be reached by any name.
//!
//! The kernel keeps to the folder (openat2(2), `RESOLVE_BENEATH`). Where it cannot, because it is older than 5.6 or a
//! sandbox forbids the call, the path is walked folder by folder, and then no symbolic link is followed at all.

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::LazyLock;

/// How often an openat2 that lost a race with a rename is tried again (openat2(2), EAGAIN).
const RACES_MAX: usize = 8;

/// A folder, held open: it stays the same when the process changes its working directory, or when it is renamed.
#[derive(Debug)]
pub struct Folder {
    descriptor: OwnedFd,
    has_openat2: bool,
}

/// Something that has been opened.
#[derive(Debug)]
pub struct Opened {
    /// It, open for reading. Close-on-exec.
    pub descriptor: OwnedFd,
    /// What it is.
    pub kind: Kind,
    /// Which one it is, and in what state.
    pub identity: Identity,
}

/// A file in one state. After any change of its content, its mode, its owner or its names it has another identity,
/// unless the clock of its file system has not moved on since the change before (inode(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The number of its file system.
    pub device: u64,
    /// Its number in its file system.
    pub inode: u64,
    /// Its size in bytes.
    pub size: u64,
    /// When its content last changed, in nanoseconds since 1970; negative before. Anybody who may write it can set this.
    pub modified_ns: i128,
    /// When anything of it last changed, in nanoseconds since 1970. Only the kernel sets this, to the time of the change.
    pub changed_ns: i128,
}

/// The kinds of things in a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A device, FIFO or socket.
    Other,
}

impl Folder {
    /// Opens a folder.
    pub fn open(path: &Path) -> Result<Folder, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let descriptor = rustix::fs::open(path, flags, Mode::empty())?;
        // ENOSYS on old kernels; EPERM in sandboxes that do not know the call.
        let has_openat2 = match rustix::fs::openat2(&descriptor, ".", flags, Mode::empty(), BENEATH) {
            Ok(_) => true,
            Err(Errno::NOSYS | Errno::PERM) => false,
            Err(error) => return Err(error),
        };
        Ok(Folder { descriptor, has_openat2 })
    }

    /// Opens the file or folder at `path`, relative to this folder, for reading. It never blocks.
    ///
    /// A path that leads out of the folder is an error: `EXDEV`, or `ELOOP` where links are not followed.
    pub fn open_beneath(&self, path: &[u8]) -> Result<Opened, Errno> {
        // O_NONBLOCK: opening a FIFO would wait for a writer. O_NOCTTY: a terminal would become the process's own.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let descriptor = match self.has_openat2 {
            true => self.resolve(path, flags)?,
            false => self.walk(path, flags)?,
        };
        let stat = rustix::fs::fstat(&descriptor)?;
        Ok(Opened { descriptor, kind: kind(&stat), identity: Identity::of(&stat) })
    }

    /// Opens the folder at `path`, relative to this folder, for reading, or as a place (`O_PATH`) if it may not be read. An
    /// empty path is this folder.
    ///
    /// Errors are those of [`open_beneath`](Self::open_beneath).
    pub fn open_folder_beneath(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let open = |flags| {
            let flags = flags | OFlags::DIRECTORY | OFlags::CLOEXEC;
            match path {
                b"" => retry(|| rustix::fs::openat(&self.descriptor, ".", flags, Mode::empty())),
                path if self.has_openat2 => self.resolve(path, flags),
                path => self.walk(path, flags),
            }
        };
        match open(OFlags::RDONLY) {
            Err(Errno::ACCESS) => open(OFlags::PATH),
            result => result,
        }
    }

    /// The identity of what is at `path`, relative to this folder, by one system call.
    ///
    /// Links are followed, and they may lead out of the folder: what this returns is only fit to be compared with
    /// the identity of something that [`open_beneath`](Self::open_beneath) has opened.
    pub fn identify(&self, path: &CStr) -> Result<Identity, Errno> {
        retry(|| rustix::fs::statat(&self.descriptor, path, AtFlags::empty())).map(|stat| Identity::of(&stat))
    }

    fn resolve(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let mut races = 0;
        loop {
            match rustix::fs::openat2(&self.descriptor, path, flags, Mode::empty(), BENEATH) {
                Err(Errno::AGAIN) if races < RACES_MAX => races += 1,
                Err(Errno::INTR) => {}
                result => return result,
            }
        }
    }

    fn walk(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let mut parent: Option<OwnedFd> = None;
        let mut rest = path;
        loop {
            let slash = memchr::memchr(b'/', rest);
            let name = &rest[..slash.unwrap_or(rest.len())];
            // An empty name is what an absolute path begins with; a dot or two would undo the walk.
            if matches!(name, b"" | b"." | b"..") {
                return Err(Errno::XDEV);
            }
            let flags = match slash {
                Some(_) => OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                None => flags,
            };
            let folder = parent.as_ref().unwrap_or(&self.descriptor);
            let next = retry(|| rustix::fs::openat(folder, name, flags | OFlags::NOFOLLOW, Mode::empty()))?;
            let Some(slash) = slash else { return Ok(next) };
            parent = Some(next);
            rest = &rest[slash + 1..];
        }
    }
}

/// What has this name in a folder, links not followed.
pub(super) fn look(folder: impl AsFd, name: &str) -> Result<Option<(Kind, Identity)>, Errno> {
    match retry(|| rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)) {
        Ok(stat) => Ok(Some((kind(&stat), Identity::of(&stat)))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The first `length` bytes of a file, or all of it if it has become shorter. Its file position stays.
pub fn read_start(file: impl AsFd, length: usize) -> Result<Vec<u8>, Errno> {
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        let offset = bytes.len() as u64;
        let count = retry(|| rustix::io::pread(&file, rustix::buffer::spare_capacity(&mut bytes), offset))?;
        if count == 0 {
            break;
        }
    }
    // The capacity may be more than what was asked for.
    bytes.truncate(length);
    Ok(bytes)
}

/// The identity of an open file.
pub fn identify(file: impl AsFd) -> Result<Identity, Errno> {
    rustix::fs::fstat(file).map(|stat| Identity::of(&stat))
}

/// Whether this machine's kernel knows of every change of the file when it happens, so that its identity can be relied on.
///
/// It does not where others change files behind its back (NFS, SMB, FUSE, 9p: attributes are old copies for a time), nor where
/// content is made on reading (proc, sysfs). Therefore a file system counts if it is known to, and not otherwise.
pub fn is_changed_here_alone(file: impl AsFd) -> bool {
    rustix::fs::fstatfs(file).is_ok_and(|stat| LOCAL_FILE_SYSTEMS.contains(&(stat.f_type as u64 & 0xffff_ffff)))
}

/// Whether every change of the file from now on gives it another identity than this, however soon it comes after the last one.
///
/// Since Linux 6.13 some file systems give a time of change again only if nobody has asked for it since
/// (Documentation/filesystems/multigrain-ts.rst), and who has an identity has asked.
pub fn tells_every_change(file: impl AsFd, identity: &Identity) -> bool {
    static HAS_FINE_TIMES: LazyLock<bool> = LazyLock::new(|| {
        std::fs::read_to_string("/proc/sys/kernel/osrelease").is_ok_and(|release| is_from_6_13(&release))
    });
    // Inodes that keep whole seconds cannot tell anything finer, whatever the kernel does.
    *HAS_FINE_TIMES
        && identity.changed_ns % 1_000_000_000 != 0
        && rustix::fs::fstatfs(file).is_ok_and(|stat| FINE_FILE_SYSTEMS.contains(&(stat.f_type as u64 & 0xffff_ffff)))
}

/// Whether a release of the kernel, such as `6.18.44-generic`, is 6.13 or later.
fn is_from_6_13(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|digits| digits.parse().unwrap_or(0u32));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 13)
}

/// The `f_type` of file systems with such times.
const FINE_FILE_SYSTEMS: [u64; 4] = [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994];

/// The `f_type` of file systems on a disk of this machine, or in its memory (statfs(2), linux/magic.h).
const LOCAL_FILE_SYSTEMS: [u64; 11] = [
    0xef53,      // ext2, ext3, ext4
    0x5846_5342, // XFS
    0x9123_683e, // btrfs
    0x0102_1994, // tmpfs
    0x8584_58f6, // ramfs
    0x794c_7630, // overlayfs
    0xf2f5_2010, // F2FS
    0x2fc1_2fc1, // ZFS
    0xca45_1a4e, // bcachefs
    0x7371_7368, // SquashFS
    0xe0f5_e1e2, // EROFS
];

impl Identity {
    fn of(stat: &Stat) -> Identity {
        let ns = |seconds: i64, ns: i128| i128::from(seconds) * 1_000_000_000 + ns;
        Identity {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: stat.st_size as u64,
            modified_ns: ns(stat.st_mtime, stat.st_mtime_nsec.into()),
            changed_ns: ns(stat.st_ctime, stat.st_ctime_nsec.into()),
        }
    }
}

const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);

pub(super) fn kind(stat: &Stat) -> Kind {
    match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
        rustix::fs::FileType::RegularFile => Kind::File,
        rustix::fs::FileType::Directory => Kind::Folder,
        _ => Kind::Other,
    }
}

/// Calls again when a signal interrupted the call.
fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    /// The same folder twice: as the kernel resolves it, and as it is walked where the kernel cannot.
    fn both(path: &Path) -> [Folder; 2] {
        let resolved = Folder::open(path).unwrap();
        assert!(resolved.has_openat2, "these tests need openat2");
        [resolved, Folder { has_openat2: false, ..Folder::open(path).unwrap() }]
    }

    #[test]
    fn files_and_folders_are_opened_with_their_metadata() {
        let base = tempfile::tempdir().unwrap();
        fs::create_dir_all(base.path().join("a/b")).unwrap();
        fs::write(base.path().join("a/b/c"), "hello").unwrap();
        for folder in both(base.path()) {
            let file = folder.open_beneath(b"a/b/c").unwrap();
            assert_eq!((file.kind, file.identity.size), (Kind::File, 5));
            let metadata = fs::metadata(base.path().join("a/b/c")).unwrap();
            let modified = metadata.modified().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
            assert_eq!(file.identity.modified_ns, modified.as_nanos() as i128);
            assert_eq!((file.identity.device, file.identity.inode), (metadata.dev(), metadata.ino()));
            assert_eq!(
                file.identity.changed_ns,
                i128::from(metadata.ctime()) * 1_000_000_000 + i128::from(metadata.ctime_nsec())
            );
            assert_eq!(folder.identify(c"a/b/c"), Ok(file.identity));
            assert_eq!(identify(&file.descriptor), Ok(file.identity));
            assert_eq!(folder.identify(c"a/x"), Err(Errno::NOENT));
            assert_eq!(read_start(&file.descriptor, 5).unwrap(), b"hello");
            let flags = rustix::io::fcntl_getfd(&file.descriptor).unwrap();
            assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));

            assert_eq!(folder.open_beneath(b"a/b").unwrap().kind, Kind::Folder);
            assert_eq!(folder.open_beneath(b"a/x").unwrap_err(), Errno::NOENT);
            assert_eq!(folder.open_beneath(b"a/b/c/d").unwrap_err(), Errno::NOTDIR);
        }
    }

    #[test]
    fn every_change_gives_another_identity() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("a");
        fs::write(&path, "hello").unwrap();
        let folder = Folder::open(base.path()).unwrap();
        let mut identities = vec![folder.identify(c"a").unwrap()];
        let changes: [&dyn Fn(); 4] = [
            &|| fs::write(&path, "HELLO").unwrap(),
            &|| fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap(),
            &|| fs::hard_link(&path, base.path().join("b")).unwrap(),
            &|| fs::write(&path, "longer").unwrap(),
        ];
        for change in changes {
            let before = *identities.last().unwrap();
            // The clock of the file system may not have moved on since the last change.
            let now = std::iter::repeat_with(|| {
                change();
                let _ = fs::remove_file(base.path().join("b"));
                folder.identify(c"a").unwrap()
            });
            identities
                .push(now.take(1_000_000).find(|now| now.changed_ns > before.changed_ns).expect("a clock that moves"));
        }
        for (at, identity) in identities.iter().enumerate() {
            assert!(!identities[..at].contains(identity), "{identities:?}");
        }
    }

    #[test]
    fn releases_of_the_kernel_are_compared_by_number() {
        for (release, is) in [
            ("6.13.0", true),
            ("6.18.44-generic", true),
            ("7.0", true),
            ("10.1", true),
            ("6.12.9", false),
            ("6.1.0-28-amd64", false),
            ("5.15", false),
            ("", false),
            ("x", false),
        ] {
            assert_eq!(is_from_6_13(release), is, "{release}");
        }
    }

    /// Where the kernel is said to tell every change, it does.
    #[test]
    fn changes_that_follow_at_once_are_told_apart_where_they_are_said_to_be() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("a");
        let mut before = None;
        for number in 0..2000 {
            fs::write(&path, format!("{number:04}")).unwrap();
            let file = fs::File::open(&path).unwrap();
            let identity = identify(&file).unwrap();
            if let Some(before) = before {
                assert_ne!(before, identity, "change {number}");
            }
            before = tells_every_change(&file, &identity).then_some(identity);
        }
    }

    #[test]
    fn what_is_made_on_reading_is_not_relied_on() {
        assert!(is_changed_here_alone(crate::sys::channel::memory_file(b"").unwrap()), "memory is tmpfs");
        assert!(!is_changed_here_alone(fs::File::open("/proc/self/stat").unwrap()));
    }

    #[test]
    fn no_name_leads_out_of_the_folder() {
        let base = tempfile::tempdir().unwrap();
        fs::write(base.path().join("secret"), "x").unwrap();
        let inside = base.path().join("inside");
        fs::create_dir_all(inside.join("sub")).unwrap();
        symlink("../secret", inside.join("relative")).unwrap();
        symlink(base.path().join("secret"), inside.join("absolute")).unwrap();
        symlink("..", inside.join("up")).unwrap();
        symlink("/proc/self/root", inside.join("magic")).unwrap();
        symlink("loop", inside.join("loop")).unwrap();
        for folder in both(&inside) {
            for path in [
                "relative",
                "absolute",
                "up/secret",
                "magic/etc/passwd",
                "../secret",
                "sub/../../secret",
                "/etc/passwd",
                "loop",
            ] {
                let error = folder.open_beneath(path.as_bytes()).unwrap_err();
                assert!(matches!(error, Errno::XDEV | Errno::LOOP | Errno::NOTDIR), "{path}: {error}");
            }
        }
    }

    #[test]
    fn links_that_stay_inside_are_followed_where_the_kernel_resolves() {
        let base = tempfile::tempdir().unwrap();
        fs::create_dir(base.path().join("sub")).unwrap();
        fs::write(base.path().join("target"), "hello").unwrap();
        symlink("../target", base.path().join("sub/link")).unwrap();
        let [resolved, walked] = both(base.path());
        assert_eq!(resolved.open_beneath(b"sub/link").unwrap().kind, Kind::File);
        assert_eq!(walked.open_beneath(b"sub/link").unwrap_err(), Errno::LOOP);
    }

    #[test]
    fn a_fifo_does_not_block() {
        let base = tempfile::tempdir().unwrap();
        let fifo = base.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        for folder in both(base.path()) {
            assert_eq!(folder.open_beneath(b"fifo").unwrap().kind, Kind::Other);
        }
    }

    #[test]
    fn a_shorter_file_gives_what_it_has() {
        let base = tempfile::tempdir().unwrap();
        fs::write(base.path().join("a"), "hello").unwrap();
        let file = Folder::open(base.path()).unwrap().open_beneath(b"a").unwrap();
        assert_eq!(read_start(&file.descriptor, 3).unwrap(), b"hel");
        assert_eq!(read_start(&file.descriptor, 100).unwrap(), b"hello");
        assert_eq!(read_start(&file.descriptor, 0).unwrap(), b"");
    }
}
