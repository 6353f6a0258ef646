//! Where a folder lies in its file system, whatever it is called here: behind symbolic links and bind mounts too.
//!
//! One folder may be reached by many names, and what is above it differs from name to name. Where a mount shows a part of a
//! file system, `/proc/self/mountinfo` says which part (proc_pid_mountinfo(5)), so that two folders can be compared.

use rustix::fs::{Mode, OFlags};
use std::ffi::OsStr;
use std::fs;
use std::io::{Error, ErrorKind, Result};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Where something lies in its file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whereabouts {
    /// The number of the file system, `MAJOR:MINOR`.
    device: Vec<u8>,
    /// The path from the root of the file system.
    path: PathBuf,
}

impl Whereabouts {
    /// Of the file or folder that is open.
    ///
    /// # Errors
    /// There is no `/proc`, or what is open has been deleted or is beyond the process's root.
    pub fn of(descriptor: impl AsFd) -> Result<Whereabouts> {
        let number = descriptor.as_fd().as_raw_fd();
        let here = fs::read_link(format!("/proc/self/fd/{number}"))?;
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{number}"))?;
        let mount = info.lines().find_map(|line| line.strip_prefix("mnt_id:")).map(str::trim);
        let mount = mount.ok_or_else(|| strange("a descriptor's mnt_id"))?;
        Whereabouts::find(&fs::read("/proc/self/mountinfo")?, mount.as_bytes(), &here)
    }

    /// Of what is at `path`, links followed.
    ///
    /// # Errors
    /// As [`of`](Self::of), or there is nothing.
    pub fn at(path: &Path) -> Result<Whereabouts> {
        Whereabouts::of(rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// Whether it is the other one, or lies in it.
    pub fn is_within(&self, other: &Whereabouts) -> bool {
        self.device == other.device && self.path.starts_with(&other.path)
    }

    fn find(mountinfo: &[u8], mount: &[u8], here: &Path) -> Result<Whereabouts> {
        for line in mountinfo.split(|&byte| byte == b'\n') {
            // The number of the mount, that of its parent, the file system, its part that is mounted, where.
            let mut words = line.split(|&byte| byte == b' ');
            if words.next() != Some(mount) {
                continue;
            }
            let (Some(device), Some(part), Some(point)) = (words.nth(1), words.next(), words.next()) else { break };
            let (part, point) = (PathBuf::from(unescape(part)), PathBuf::from(unescape(point)));
            let inside = here.strip_prefix(point).map_err(|_| strange("a path that is not in its mount"))?;
            return Ok(Whereabouts { device: device.to_owned(), path: part.join(inside) });
        }
        Err(strange("a mount that is not in /proc/self/mountinfo"))
    }
}

fn strange(what: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("cannot tell where it lies: {what}"))
}

/// Space, tab, line feed and backslash are `\` and three octal digits there.
fn unescape(text: &[u8]) -> std::ffi::OsString {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|digits| first == b'\\' && digits.iter().all(|d| (b'0'..b'8').contains(d)));
        let value = digits.map(|digits| digits.iter().fold(0u32, |value, digit| value * 8 + u32::from(digit - b'0')));
        match value.and_then(|value| u8::try_from(value).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    OsStr::from_bytes(&bytes).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    const MOUNTS: &[u8] = b"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
        31 22 8:1 /srv/handlers /srv/html/in\\040side rw master:1 - ext4 /dev/sda1 rw\n\
        32 22 0:44 / /srv/html/data rw - tmpfs tmpfs rw\n";

    #[test]
    fn a_bind_mount_is_what_it_shows() {
        let find = |mount: &[u8], here: &str| Whereabouts::find(MOUNTS, mount, Path::new(here)).unwrap();
        let handlers = find(b"22", "/srv/handlers");
        let html = find(b"22", "/srv/html");
        let bound = find(b"31", "/srv/html/in side");
        assert!(bound == handlers && bound.is_within(&handlers) && handlers.is_within(&bound));
        assert!(find(b"31", "/srv/html/in side/a").is_within(&handlers));
        assert!(find(b"22", "/srv/handlers/in/it").is_within(&bound));
        let data = find(b"32", "/srv/html/data");
        assert!(!bound.is_within(&html) && !data.is_within(&html) && !html.is_within(&data));
        assert!(!find(b"22", "/srv/handlers2").is_within(&handlers), "a name that only begins alike");
        assert!(Whereabouts::find(MOUNTS, b"33", Path::new("/")).is_err());
        assert!(Whereabouts::find(MOUNTS, b"32", Path::new("/srv/html/data2")).is_err());
        assert!(Whereabouts::find(MOUNTS, b"2", Path::new("/")).is_err());
    }

    #[test]
    fn names_are_unescaped() {
        for (text, expected) in [("a\\040b", "a b"), ("\\134\\011", "\\\t"), ("a\\04", "a\\04"), ("\\", "\\")] {
            assert_eq!(unescape(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn folders_of_this_machine() {
        let base = tempfile::tempdir().unwrap();
        fs::create_dir_all(base.path().join("a/b")).unwrap();
        symlink("a/b", base.path().join("link")).unwrap();
        let at = |name: &str| Whereabouts::at(&base.path().join(name)).unwrap();
        assert!(at("a/b").is_within(&at("a")) && !at("a").is_within(&at("a/b")));
        assert_eq!(at("link"), at("a/b"));
        assert!(Whereabouts::at(&base.path().join("x")).is_err());
    }
}
