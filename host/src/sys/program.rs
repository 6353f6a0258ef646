//! The path by which this program was started, which may lead to another file by the time that it is wanted.

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What the kernel says that runs here (proc(5)). Once the file is replaced, it reads `… (deleted)`.
const OWN: &str = "/proc/self/exe";

/// The absolute path by which this program was started. To be asked early: later the file may be another.
///
/// Links in it are kept, so that whoever turns `current/bin/host` to a new release has that one started. A caller may have
/// passed any `argv[0]`: if it does not lead to this program, the kernel's word is taken.
///
/// # Errors
/// /proc is not there.
pub fn path() -> std::io::Result<PathBuf> {
    let name = std::env::args_os().next().unwrap_or_default();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let own = std::fs::metadata(OWN)?;
    let is_own =
        |path: &PathBuf| std::fs::metadata(path).is_ok_and(|file| (file.dev(), file.ino()) == (own.dev(), own.ino()));
    match resolve(&name, &path).into_iter().find(is_own) {
        Some(path) => Ok(path),
        None => std::fs::read_link(OWN),
    }
}

/// Where a shell would look for a command of this name.
fn resolve(name: &OsStr, path: &OsStr) -> Vec<PathBuf> {
    let found = if name.as_encoded_bytes().contains(&b'/') {
        vec![PathBuf::from(name)]
    } else {
        std::env::split_paths(path).map(|folder| folder.join(name)).collect()
    };
    found.iter().filter_map(|path: &PathBuf| std::path::absolute(Path::new(path)).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_up_as_a_shell_does() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(resolve("/a/host".as_ref(), "/x".as_ref()), [PathBuf::from("/a/host")]);
        assert_eq!(resolve("./host".as_ref(), "/x".as_ref()), [here.join("host")]);
        assert_eq!(resolve("host".as_ref(), "/x:/y".as_ref()), [PathBuf::from("/x/host"), PathBuf::from("/y/host")]);
    }

    #[test]
    fn this_program_is_found() {
        let (found, own) = (path().unwrap().canonicalize().unwrap(), std::fs::read_link(OWN).unwrap());
        assert_eq!(found, own.canonicalize().unwrap());
    }
}
