//! The private libraries of a module: what its DT_NEEDED finds beside it rather than in the system (ld.so(8)).

use super::elf::Elf;
use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

/// Where the loader would look for the private libraries of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needed {
    /// Files that it would map through `$ORIGIN`: they move with the object, so they can be copied with it.
    pub beside: Vec<PathBuf>,
    /// Files that it would map through an absolute search path, of its own or of LD_LIBRARY_PATH, outside of the system's
    /// folders: a copy of them would not be found.
    pub fixed: Vec<PathBuf>,
    /// Paths that it would try before those and that do not exist. If one appears, the answer changes.
    pub absent: BTreeSet<PathBuf>,
}

/// Finds the private libraries of the object `elf` that is, or will be, loaded from the folder `origin`.
/// `inherited` are the folders that the objects which need this one pass on, see [`inherit`].
pub fn find(elf: &Elf, origin: &Path, inherited: &[Folder]) -> Needed {
    let mut needed = Needed::default();
    for name in &elf.needed {
        if let Some(path) = name.contains('/').then(|| expand(name, origin)).flatten() {
            needed.add(path, name.starts_with('$'));
            continue;
        }
        // ld.so(8): DT_RPATH of the object and of those that need it, if it has no DT_RUNPATH; LD_LIBRARY_PATH; then
        // DT_RUNPATH. What follows (cache, /lib, /usr/lib) is the system.
        let runpath = elf.runpath.as_deref();
        let own: &[String] = if runpath.is_none() { &elf.rpath } else { &[] };
        let inherited = if runpath.is_none() { inherited } else { &[] };
        let before = own.iter().map(|entry| Folder::of(entry, origin));
        let before = before.chain(inherited.iter().cloned());
        let library_path = std::env::var("LD_LIBRARY_PATH").unwrap_or_default();
        let environment = library_path.split([':', ';']).filter(|folder| !folder.is_empty());
        let environment = environment.map(|folder| Folder::of_environment(folder, origin));
        let after = runpath.unwrap_or_default().iter().map(|entry| Folder::of(entry, origin));
        for folder in before.chain(environment).chain(after) {
            let Some(path) = folder.path.map(|path| path.join(name)) else { continue };
            let exists = path.is_file();
            match folder.kind {
                Kind::System if exists => break,
                Kind::System => {}
                // The environment lists folders for everybody; few of them will ever hold this library.
                Kind::Environment if !exists => {}
                _ if !exists => {
                    needed.absent.insert(path);
                }
                kind => {
                    needed.add(path, kind == Kind::Origin);
                    break;
                }
            }
        }
    }
    needed
}

/// The folders that `elf`'s DT_RPATH passes on to the objects that it needs.
pub fn inherit(elf: &Elf, origin: &Path, inherited: &[Folder]) -> Vec<Folder> {
    if elf.runpath.is_some() {
        return Vec::new();
    }
    let own = elf.rpath.iter().map(|entry| Folder::of(entry, origin));
    own.chain(inherited.iter().cloned()).collect()
}

impl Needed {
    fn add(&mut self, path: PathBuf, beside: bool) {
        let list = if beside { &mut self.beside } else { &mut self.fixed };
        if !list.contains(&path) {
            list.push(path);
        }
    }
}

/// One entry of a search path, with `$ORIGIN` replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    /// None: an entry that only the loader understands.
    path: Option<PathBuf>,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Origin,
    Fixed,
    Environment,
    System,
}

impl Folder {
    fn of_environment(entry: &str, origin: &Path) -> Folder {
        let folder = Folder::of(entry, origin);
        let kind = if folder.kind == Kind::System { Kind::System } else { Kind::Environment };
        Folder { kind, ..folder }
    }

    fn of(entry: &str, origin: &Path) -> Folder {
        let path = expand(entry, origin);
        let kind = match &path {
            _ if entry.starts_with('$') => Kind::Origin,
            Some(path) if SYSTEM.iter().any(|system| path.starts_with(system)) => Kind::System,
            _ => Kind::Fixed,
        };
        Folder { path, kind }
    }
}

/// Folders whose libraries belong to the system or to an immutable store, even if a search path names them.
const SYSTEM: [&str; 6] = ["/lib", "/lib32", "/lib64", "/usr", "/nix/store", "/gnu/store"];

/// Replaces `$ORIGIN` at the start and resolves dots by text. Other variables and relative paths depend on things that
/// are not ours to know; such entries are left to the loader.
fn expand(entry: &str, origin: &Path) -> Option<PathBuf> {
    let rest = entry.strip_prefix("$ORIGIN").or_else(|| entry.strip_prefix("${ORIGIN}"));
    let path = match rest {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => origin.join(rest.trim_start_matches('/')),
        Some(_) => return None,
        None => PathBuf::from(entry),
    };
    if !path.is_absolute() || entry.contains("$LIB") || entry.contains("$PLATFORM") {
        return None;
    }
    let mut resolved = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                resolved.pop();
            }
            other => resolved.push(other),
        }
    }
    Some(resolved)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elf(needed: &str, runpath: Option<&str>, rpath: &str) -> Elf {
        let split = |text: &str| text.split(':').filter(|text| !text.is_empty()).map(str::to_owned).collect();
        Elf { needed: vec![needed.into()], runpath: runpath.map(split), rpath: split(rpath), ..Elf::default() }
    }

    #[test]
    fn a_runpath_through_origin_finds_what_lies_beside_or_above() {
        let folder = tempfile::tempdir().unwrap();
        let handlers = folder.path().join("handlers");
        std::fs::create_dir_all(folder.path().join("lib")).unwrap();
        std::fs::create_dir_all(&handlers).unwrap();
        std::fs::write(folder.path().join("lib/libx.so"), "").unwrap();
        let elf = elf("libx.so", Some("$ORIGIN:${ORIGIN}/../lib"), "");
        let needed = find(&elf, &handlers, &[]);
        assert_eq!(needed.beside, [folder.path().join("lib/libx.so")]);
        assert_eq!(needed.absent, BTreeSet::from([handlers.join("libx.so")]));
    }

    #[test]
    fn an_rpath_is_passed_on_and_a_runpath_is_not() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("liby.so"), "").unwrap();
        let outer = elf("libx.so", None, "$ORIGIN");
        let passed = inherit(&outer, folder.path(), &[]);
        assert_eq!(passed.len(), 1);
        let plain = elf("liby.so", None, "");
        assert_eq!(find(&plain, folder.path(), &passed).beside, [folder.path().join("liby.so")]);
        let with_runpath = elf("liby.so", Some(""), "");
        assert_eq!(find(&with_runpath, folder.path(), &passed), Needed::default());
        assert!(inherit(&elf("libx.so", Some("$ORIGIN"), "$ORIGIN"), folder.path(), &[]).is_empty());
    }

    #[test]
    fn an_absolute_search_path_cannot_be_moved_and_the_systems_is_not_ours() {
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("libx.so");
        std::fs::write(&library, "").unwrap();
        let fixed = elf("libx.so", Some(folder.path().to_str().unwrap()), "");
        assert_eq!(find(&fixed, Path::new("/nowhere"), &[]).fixed, [library]);
        let system = elf("libc.so.6", Some("/usr/lib/x86_64-linux-gnu"), "");
        assert_eq!(find(&system, Path::new("/nowhere"), &[]), Needed::default());
    }
}
