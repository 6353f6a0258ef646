//! Control groups (cgroups(7), version 2): a bound on the memory of a child process and of all that it starts.
//!
//! A group that has groups with a memory limit beneath it has no processes of its own (the kernel's "no internal processes"
//! rule). So this process moves into a leaf group, beside those of its children and without any limit of its own: what
//! bounds the group that it was started in still bounds all of them. At the end it moves back, and nothing is left.

use anyhow::{Context, bail, ensure};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// The right to make groups.
#[derive(Debug)]
pub struct Groups {
    /// The group that this process was started in.
    base: PathBuf,
    /// It was moved to the leaf.
    moved: bool,
}

/// A group for one child. Dropping it ends what is still in it, and removes it.
#[derive(Debug)]
pub struct Group(PathBuf);

impl Groups {
    /// Prepares the group of this process, which must have no children yet.
    ///
    /// # Errors
    /// Why no groups can be made. Everything is as it was before, then.
    pub fn open() -> anyhow::Result<Groups> {
        let own = own_group()?;
        let has = |group: &Path, file: &str| {
            words(&group.join(file)).is_ok_and(|mut controllers| controllers.any(|name| name == MEMORY))
        };
        let groups = match own.parent().filter(|_| own.ends_with(LEAF)) {
            // One like this was here before: it has started this one, or was killed.
            Some(base) if has(base, "cgroup.subtree_control") => Groups { base: base.to_owned(), moved: true },
            _ => {
                ensure!(has(&own, "cgroup.controllers"), "{} has no memory controller", own.display());
                ensure!(is_delegated(&own), "{} is systemd's, and not delegated (Delegate=memory)", own.display());
                match has(&own, "cgroup.subtree_control") {
                    true => Groups { base: own, moved: false },
                    false => Groups::divide(own)?,
                }
            }
        };
        groups.remove_abandoned();
        Ok(groups)
    }

    /// Lets groups beneath this one have memory limits.
    fn divide(base: PathBuf) -> anyhow::Result<Groups> {
        // The root of all groups is the one that may have processes all the same, and has no type.
        if !base.join("cgroup.type").exists() {
            fs::write(base.join("cgroup.subtree_control"), "+memory").with_context(|| format!("{}", base.display()))?;
            return Ok(Groups { base, moved: false });
        }
        let this = std::process::id().to_string();
        let others = words(&base.join("cgroup.procs"))?.filter(|process| *process != this).count();
        ensure!(others == 0, "{} has {others} processes beside this one", base.display());
        let leaf = base.join(LEAF);
        create(&leaf).with_context(|| format!("cannot make {}", leaf.display()))?;
        // From here on dropping it undoes what has been done.
        let groups = Groups { base, moved: true };
        fs::write(leaf.join("cgroup.procs"), "0").with_context(|| format!("cannot move to {}", leaf.display()))?;
        fs::write(groups.base.join("cgroup.subtree_control"), "+memory")
            .with_context(|| format!("cannot limit memory beneath {}", groups.base.display()))?;
        Ok(groups)
    }

    /// A group that may have so many bytes of memory, and no swap space.
    ///
    /// # Errors
    /// The system refuses. No group is left.
    pub fn group(&self, number: u64, memory_bytes_max: u64) -> io::Result<Group> {
        let path = self.base.join(format!("{CHILD}{}-{number}", std::process::id()));
        fs::create_dir(&path)?;
        let group = Group(path);
        fs::write(group.0.join("memory.max"), memory_bytes_max.to_string())?;
        // Without swap space there is no such file.
        _ = fs::write(group.0.join("memory.swap.max"), "0");
        Ok(group)
    }

    /// Where they are made.
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// Removes what one left behind that was killed, unless there are processes in it.
    fn remove_abandoned(&self) {
        for (path, owner) in self.children() {
            // Another one may be about to move a worker there.
            if !Path::new("/proc").join(&owner).exists() {
                has_gone(&path);
            }
        }
    }

    /// Groups of children, with the process ids of those who made them.
    fn children(&self) -> Vec<(PathBuf, String)> {
        let entries = fs::read_dir(&self.base).into_iter().flatten().filter_map(Result::ok);
        let owned = entries.filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let (owner, _) = name.strip_prefix(CHILD)?.split_once('-')?;
            Some((entry.path(), owner.to_owned()))
        });
        owned.collect()
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        // What is being removed needs a moment yet, and this process ends.
        let own = std::process::id().to_string();
        self.children().into_iter().filter(|(_, owner)| *owner == own).for_each(|(path, _)| remove(&path));
        let leaf = self.base.join(LEAF);
        let is_alone = || words(&leaf.join("cgroup.procs")).is_ok_and(|processes| processes.count() <= 1);
        // Who was started by this process may go on here.
        if self.moved && is_alone() && self.children().is_empty() {
            // Each step needs the one before; what fails leaves a group that the next one finds.
            _ = fs::write(self.base.join("cgroup.subtree_control"), "-memory")
                .and_then(|()| fs::write(self.base.join("cgroup.procs"), "0"))
                .and_then(|()| fs::remove_dir(&leaf));
        }
    }
}

impl Group {
    /// Moves a process into it.
    ///
    /// # Errors
    /// The system refuses, or the process has ended.
    pub fn admit(&self, process: u32) -> io::Result<()> {
        fs::write(self.0.join("cgroup.procs"), process.to_string())
    }

    /// Whether the kernel has killed a process of it because the memory of the group was used up.
    pub fn was_used_up(&self) -> bool {
        let events = fs::read_to_string(self.0.join("memory.events")).unwrap_or_default();
        let has_been = |name: &str| {
            events.lines().any(|line| line.split_once(' ').is_some_and(|(its, count)| its == name && count != "0"))
        };
        // Both, since the kernel also kills when the memory of the whole system is used up.
        has_been("oom") && has_been("oom_kill")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !has_gone(&self.0) {
            // What a handler has started, and nobody waits for.
            _ = fs::write(self.0.join("cgroup.kill"), "1");
            let path = std::mem::take(&mut self.0);
            // Without a thread it stays until the server ends.
            _ = thread::Builder::new().name("cgroup".to_owned()).spawn(move || remove(&path));
        }
    }
}

/// Removes a group whose processes were killed. One that stays is left to the next server.
fn remove(path: &Path) {
    for _ in 0..REMOVALS_MAX {
        if has_gone(path) {
            return;
        }
        thread::sleep(REMOVAL_PAUSE);
    }
}

/// Removes a group, if there is nothing in it.
fn has_gone(path: &Path) -> bool {
    fs::remove_dir(path).map_or_else(|error| error.kind() == io::ErrorKind::NotFound, |()| true)
}

fn create(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        done => done,
    }
}

/// The folder of the group that this process is in.
fn own_group() -> anyhow::Result<PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup").context("cannot read /proc/self/cgroup")?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    let Some(path) = groups.lines().find_map(|line| line.strip_prefix("0::")) else {
        bail!("this system has no control groups of version 2");
    };
    folder_of(path, &mounts).with_context(|| format!("no file system shows the control group {path}"))
}

/// The folder of a group, by the lines of proc_pid_mountinfo(5).
fn folder_of(group: &str, mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (mount, system) = line.split_once(" - ")?;
        // ID parent major:minor root mount-point options
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let beneath = Path::new(group).strip_prefix(root).ok()?;
        system.starts_with("cgroup2 ").then(|| Path::new(point).join(beneath).components().collect())
    })
}

/// Whether this group may be divided by those who are in it. Where systemd runs it says so, by an attribute if to root, by the
/// folder's owner if to others, who could not write to it else ("Control Group APIs and Delegation").
fn is_delegated(group: &Path) -> bool {
    let said = |name: &str| {
        let mut value = [0; 1];
        rustix::fs::getxattr(group, name, &mut value).is_ok_and(|length| length == 1 && value == *b"1")
    };
    !rustix::process::geteuid().is_root()
        || !Path::new("/run/systemd/system").exists()
        || said("user.delegate")
        || said("trusted.delegate")
}

fn words(file: &Path) -> io::Result<impl Iterator<Item = String>> {
    let text = fs::read_to_string(file)?;
    Ok(text.split_whitespace().map(str::to_owned).collect::<Vec<_>>().into_iter())
}

const MEMORY: &str = "memory";

/// The group of this process.
const LEAF: &str = "host-supervisor";

/// What the names of children's groups begin with.
const CHILD: &str = "host-worker-";

/// How often, and with which pauses, the removal of a group is tried whose processes were killed.
const REMOVALS_MAX: u32 = 100;
const REMOVAL_PAUSE: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_where_it_is_mounted() {
        let mounts = "31 23 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n\
                      32 31 0:27 /a /sys/fs/cgroup/unified rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(folder_of("/a/b.service", mounts), Some("/sys/fs/cgroup/unified/b.service".into()));
        assert_eq!(folder_of("/a", mounts), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!((folder_of("/b", mounts), folder_of("/a", "")), (None, None));
    }
}
