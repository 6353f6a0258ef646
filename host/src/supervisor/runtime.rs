//! The folder of this server's private copies of builds.
//!
//! 1. A base folder is chosen: `--runtime DIR`, else `/var/tmp/host-UID`, else `/tmp/host-UID`.
//! 2. It is made if missing, and must be ours, writable by us alone, and on a file system that may execute.
//! 3. Under the base's lock, folders left by servers that are dead are removed, and one of our own is made, whose
//!    lock we hold for life: that is how the next server knows us to be alive.
//! 4. It is removed when the value is dropped.

use crate::sys::exec;
use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// What the names of servers' folders begin with. Nothing else in a base folder is ever touched.
const PREFIX: &str = "server-";
/// The name of the lock in the base folder and in each server's folder.
const LOCK: &str = "lock";
/// A file system in memory: `TMPFS_MAGIC` of statfs(2).
const TMPFS_MAGIC: u64 = 0x0102_1994;
/// Another: `RAMFS_MAGIC` of statfs(2).
const RAMFS_MAGIC: u64 = 0x8584_58f6;

/// A folder that only this process writes to, and that vanishes with the value.
#[derive(Debug)]
pub struct Runtime {
    // Dropped in this order: the folder is gone before its lock is free.
    folder: TempDir,
    _lock: File,
}

impl Runtime {
    /// Makes the folder, mode 0700, under `chosen` or under a base that the server chooses.
    ///
    /// # Errors
    /// Why no base will do, with what to do about it.
    pub fn create(chosen: Option<&Path>) -> Result<Self> {
        if let Some(base) = chosen {
            return prepare(base).and_then(|base| Self::create_in(&base));
        }
        let candidates = bases();
        let mut refusals = Vec::new();
        let mut in_memory = None;
        for candidate in &candidates {
            match prepare(candidate) {
                // The last resort: the kernel cannot drop copies that are only in memory.
                Ok(base) if is_in_memory(&base)? => in_memory = in_memory.or(Some(base)),
                Ok(base) => return Self::create_in(&base),
                Err(error) => refusals.push(format!("{error:#}")),
            }
        }
        match in_memory {
            Some(base) => Self::create_in(&base),
            None => bail!(
                "no folder for private copies of builds; name one with --runtime DIR\n  {}",
                refusals.join("\n  ")
            ),
        }
    }

    /// The folder's absolute path.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    fn create_in(base: &Path) -> Result<Self> {
        if is_in_memory(base)? {
            tracing::warn!(
                "private copies of builds in {} take memory; --runtime DIR names another folder",
                base.display()
            );
        }
        // Held until this function returns, so that no server sees another's folder before it is locked.
        let _base_lock = lock(&base.join(LOCK), FlockOperation::LockExclusive)?;
        remove_stale(base)?;
        let folder = tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in(base)
            .with_context(|| format!("cannot make a folder in {}", base.display()))?;
        let lock = lock(&folder.path().join(LOCK), FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self { folder, _lock: lock })
    }
}

/// The folders under which a server makes its own unless it is told another.
pub fn bases() -> [PathBuf; 2] {
    let user = rustix::process::geteuid().as_raw();
    ["/var/tmp", "/tmp"].map(|parent| Path::new(parent).join(format!("host-{user}")))
}

/// The folders of servers under `base`, of whom some may be dead.
///
/// # Errors
/// The base cannot be read.
pub fn servers(base: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(base)?.flatten();
    let of_server = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(PREFIX);
    Ok(entries.filter(of_server).map(|entry| entry.path()).collect())
}

/// Makes `base` if it is missing and proves that it can be trusted and used. Its real path.
fn prepare(base: &Path) -> Result<PathBuf> {
    let name = base.display();
    match DirBuilder::new().mode(0o700).create(base) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(error).with_context(|| format!("cannot make the folder {name}; make it, or say --runtime DIR"));
        }
        _ => {}
    }
    // SECURITY: the folders above the default bases are everybody's, so a link or a folder of that name may have
    // been laid there by somebody else, who could then exchange what is loaded. O_NOFOLLOW and the owner tell.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = match rustix::fs::open(base, flags, Mode::empty()) {
        Ok(folder) => File::from(folder),
        Err(Errno::LOOP | Errno::NOTDIR) => {
            bail!("{name} is not a folder, or a symbolic link to one; say --runtime DIR with a real folder")
        }
        Err(error) => return Err(error).with_context(|| format!("cannot open the folder {name}")),
    };
    let metadata = folder.metadata().with_context(|| format!("cannot look at {name}"))?;
    let user = rustix::process::geteuid().as_raw();
    ensure!(
        metadata.uid() == user,
        "{name} belongs to user {}, not to {user}, who runs this; say --runtime DIR with a folder of your own",
        metadata.uid()
    );
    ensure!(metadata.mode() & 0o022 == 0, "{name} is writable by others, who could run code here; chmod go-w {name}");
    let base = fs::canonicalize(base).with_context(|| format!("cannot resolve {name}"))?;
    may_execute(&base)?;
    Ok(base)
}

fn may_execute(base: &Path) -> Result<()> {
    let name = base.display();
    let file = tempfile::tempfile_in(base).with_context(|| format!("cannot write to {name}"))?;
    match exec::probe(&file) {
        Ok(()) => Ok(()),
        Err(Errno::PERM | Errno::ACCESS) => {
            bail!("libraries in {name} may not be executed; say --runtime DIR on a file system mounted without noexec")
        }
        Err(error) => Err(error).with_context(|| format!("cannot map a file of {name}")),
    }
}

fn is_in_memory(base: &Path) -> Result<bool> {
    let system =
        rustix::fs::statfs(base).with_context(|| format!("cannot look at the file system of {}", base.display()))?;
    // The field's type and sign differ between architectures.
    #[allow(clippy::unnecessary_cast)]
    let magic = system.f_type as u64 & 0xffff_ffff;
    Ok(matches!(magic, TMPFS_MAGIC | RAMFS_MAGIC))
}

/// Removes the folders of servers that are no more. The caller holds the base's lock.
fn remove_stale(base: &Path) -> Result<()> {
    for entry in fs::read_dir(base).with_context(|| format!("cannot read {}", base.display()))? {
        let entry = entry?;
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if !is_folder || !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        // The lock is made under the base's lock, which we hold: a folder without one lost its server before that.
        let Ok(_lock) = lock(&entry.path().join(LOCK), FlockOperation::NonBlockingLockExclusive) else { continue };
        if let Err(error) = fs::remove_dir_all(entry.path()) {
            tracing::warn!("cannot remove {}, which a dead server left: {error}", entry.path().display());
        }
    }
    Ok(())
}

/// A lock that lasts as long as the file is open; the kernel releases those of the dead (flock(2)).
fn lock(path: &Path, operation: FlockOperation) -> Result<File> {
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits() as i32)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    rustix::fs::flock(&file, operation).with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn the_folder_is_private_and_goes_with_its_server() {
        let parent = tempfile::tempdir().unwrap();
        let base = parent.path().join("base");
        let runtime = Runtime::create(Some(&base)).unwrap();
        assert_eq!((mode(&base), mode(runtime.path())), (0o700, 0o700));
        fs::create_dir(runtime.path().join("generation-1")).unwrap();
        fs::write(runtime.path().join("generation-1/libx.so"), "x").unwrap();
        let path = runtime.path().to_owned();
        drop(runtime);
        assert!(!path.exists());
    }

    #[test]
    fn folders_of_the_dead_are_removed_and_those_of_the_living_stay() {
        let base = tempfile::tempdir().unwrap();
        let living = Runtime::create(Some(base.path())).unwrap();
        let dead = base.path().join("server-dead");
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join(LOCK), "").unwrap();
        let unborn = base.path().join("server-unborn");
        fs::create_dir(&unborn).unwrap();
        let foreign = base.path().join("something-else");
        fs::create_dir(&foreign).unwrap();
        let other = Runtime::create(Some(base.path())).unwrap();
        assert!(living.path().exists() && other.path().exists() && foreign.exists());
        assert!(!dead.exists() && !unborn.exists());
    }

    #[test]
    fn bases_that_cannot_be_trusted_are_refused() {
        let parent = tempfile::tempdir().unwrap();
        let real = parent.path().join("real");
        fs::create_dir(&real).unwrap();
        let refusal = |base: &Path| format!("{:#}", Runtime::create(Some(base)).unwrap_err());
        let link = parent.path().join("link");
        symlink(&real, &link).unwrap();
        assert!(refusal(&link).contains("a real folder"), "{}", refusal(&link));
        fs::set_permissions(&real, fs::Permissions::from_mode(0o770)).unwrap();
        assert!(refusal(&real).ends_with(&format!("chmod go-w {}", real.display())), "{}", refusal(&real));
        assert!(refusal(&parent.path().join("no/such")).contains("cannot make the folder"));
        // Everybody can read the root folder; who owns it runs this test only as root.
        if !rustix::process::geteuid().is_root() {
            assert!(refusal(Path::new("/")).contains("belongs to user 0"));
        }
    }

    #[test]
    fn tmpfs_is_known() {
        assert!(!is_in_memory(Path::new("/proc")).unwrap());
        // Linux mounts tmpfs here for POSIX shared memory (shm_overview(7)).
        assert!(is_in_memory(Path::new("/dev/shm")).unwrap());
    }
}
