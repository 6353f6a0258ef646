//! Which file is module `NAME`: `NAME.so`, then `libNAME.so`, then the newest build of the crate `NAME/`, in the folder of
//! handlers or one below it.
//!
//! Steps: walk the folders, note what each file or crate would be called, let the first kind win, and list every folder
//! in which a change could alter the answer.

use super::cargo::{self, Manifests};
use super::take::Stamp;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Looks modules up, again and again, and says each warning once.
pub struct Lookup {
    handlers: PathBuf,
    manifests: Manifests,
    warned: HashSet<String>,
}

/// What one look found.
#[derive(Debug, Default)]
pub struct Look {
    /// By module.
    pub modules: BTreeMap<String, Candidate>,
    /// Folders whose entries decide; all exist.
    pub folders: BTreeSet<PathBuf>,
}

/// What answers to a module's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Candidate {
    /// This file.
    File {
        /// Where it is.
        path: PathBuf,
        /// What else there was, such as `newer than release`; often empty.
        note: String,
    },
    /// A crate that was not built yet.
    NotBuilt {
        /// The command that builds it.
        hint: String,
    },
}

impl Lookup {
    /// Looks in `handlers`, an absolute path.
    pub fn new(handlers: PathBuf) -> Lookup {
        Lookup { handlers, manifests: Manifests::new(), warned: HashSet::new() }
    }

    /// Looks now.
    pub fn look(&mut self) -> Look {
        let mut walk = Walk::default();
        let handlers = self.handlers.clone();
        walk.visited.extend(handlers.metadata().ok().map(|folder| (folder.dev(), folder.ino())));
        self.walk(&handlers, "", 0, &mut walk);
        let mut look = Look { folders: walk.folders, ..Look::default() };
        for (module, claims) in walk.claims {
            let candidate = self.decide(&module, claims);
            look.modules.insert(module, candidate);
        }
        look.folders = look.folders.iter().filter_map(|folder| existing(folder)).collect();
        look
    }

    fn walk(&mut self, folder: &Path, prefix: &str, depth: usize, walk: &mut Walk) {
        walk.folders.insert(folder.to_owned());
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
            Err(error) => return self.warn(format!("cannot look into {}: {error}", folder.display())),
        };
        let mut entries: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        entries.sort_unstable();
        for path in entries {
            if walk.entries == ENTRIES_MAX {
                return self.warn(format!(
                    "{} holds more than {ENTRIES_MAX} files; those after {} are not looked at",
                    self.handlers.display(),
                    path.display()
                ));
            }
            walk.entries += 1;
            let Some(name) = path.file_name().map(|name| name.to_string_lossy().into_owned()) else { continue };
            if name.starts_with('.') {
                continue;
            }
            let Ok(metadata) = path.metadata() else { continue };
            if metadata.is_dir() {
                // A folder that was reached before is not entered again: links may lead in circles.
                if name != "target" && walk.visited.insert((metadata.dev(), metadata.ino())) {
                    self.enter(&path, prefix, &name, depth, walk);
                }
            } else if let Some(stem) = name.strip_suffix(".so").filter(|_| metadata.is_file()) {
                let (order, segment) = match stem.strip_prefix("lib") {
                    Some(rest) if !rest.is_empty() => (Order::LibFile, rest),
                    _ => (Order::File, stem),
                };
                if !is_segment(segment) {
                    self.warn(format!("{} is ignored: a module's name is made of A-Z a-z 0-9 _ -", path.display()));
                    continue;
                }
                if let Some(real) = path.canonicalize().ok().as_deref().and_then(Path::parent) {
                    walk.folders.insert(real.to_owned());
                }
                walk.claim(
                    prefix,
                    segment,
                    Claim { order, path: Some(path), note: String::new(), hint: String::new() },
                );
            }
        }
    }

    fn enter(&mut self, folder: &Path, prefix: &str, name: &str, depth: usize, walk: &mut Walk) {
        let is_crate = folder.join("Cargo.toml").is_file();
        if !is_segment(name) {
            if is_crate {
                self.warn(format!("{} is ignored: a module's name is made of A-Z a-z 0-9 _ -", folder.display()));
            }
            return;
        }
        if is_crate && let Some(claim) = self.claim_of_crate(folder, walk) {
            walk.claim(prefix, name, claim);
        }
        let in_crate = folder.parent().is_some_and(|parent| parent.join("Cargo.toml").is_file());
        if depth == DEPTH_MAX || (in_crate && name == "src") {
            return;
        }
        self.walk(folder, &format!("{prefix}{name}/"), depth + 1, walk);
    }

    fn claim_of_crate(&mut self, folder: &Path, walk: &mut Walk) -> Option<Claim> {
        let library = self.manifests.library(folder)?;
        let hint = format!("cargo build -p {}", library.package);
        let profiles = cargo::profiles(&library.target, &mut walk.folders);
        let mut builds: Vec<(Stamp, PathBuf, String)> = Vec::new();
        for profile in profiles {
            let path = profile.folder.join(&library.file);
            builds.extend(Stamp::of(&path).map(|stamp| (stamp, path, profile.name)));
        }
        // Newest first; between equals, the order of names.
        builds.sort_by_key(|(stamp, _, _)| Reverse(stamp.modified));
        let note = builds.get(1).map(|(_, _, profile)| format!("newer than {profile}")).unwrap_or_default();
        let path = builds.into_iter().next().map(|(_, path, _)| path);
        Some(Claim { order: Order::Crate, path, note, hint })
    }

    fn decide(&mut self, module: &str, mut claims: Vec<Claim>) -> Candidate {
        claims.sort_by_key(|claim| claim.order);
        let hint = claims.last().map(|claim| claim.hint.clone()).unwrap_or_default();
        let mut built = claims.into_iter().filter_map(|claim| Some((claim.path?, claim.note)));
        let Some((path, note)) = built.next() else { return Candidate::NotBuilt { hint } };
        for (loser, _) in built {
            self.warn(format!("module {module} is {}; {} is not used", path.display(), loser.display()));
        }
        Candidate::File { path, note }
    }

    fn warn(&mut self, text: String) {
        if !self.warned.contains(&text) {
            tracing::warn!("{text}");
            self.warned.insert(text);
        }
    }
}

/// Folders below the folder of handlers that are entered, at most.
const DEPTH_MAX: usize = 8;

/// Names that one look reads, at most.
const ENTRIES_MAX: usize = 10_000;

#[derive(Default)]
struct Walk {
    claims: BTreeMap<String, Vec<Claim>>,
    folders: BTreeSet<PathBuf>,
    visited: HashSet<(u64, u64)>,
    entries: usize,
}

impl Walk {
    fn claim(&mut self, prefix: &str, segment: &str, claim: Claim) {
        self.claims.entry(format!("{prefix}{segment}")).or_default().push(claim);
    }
}

struct Claim {
    order: Order,
    path: Option<PathBuf>,
    note: String,
    hint: String,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Order {
    File,
    LibFile,
    Crate,
}

/// Whether this may be one segment of a module's name, as it appears in URLs.
fn is_segment(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// The folder itself, or the nearest one above it that exists: what is to appear appears there first.
fn existing(folder: &Path) -> Option<PathBuf> {
    folder.ancestors().find(|folder| folder.is_dir()).map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{create_dir_all, write};
    use std::os::unix::fs::symlink;
    use std::time::{Duration, SystemTime};

    fn file(path: &Path, age_seconds: u64) {
        create_dir_all(path.parent().unwrap()).unwrap();
        let file = std::fs::File::create(path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(age_seconds)).unwrap();
    }

    fn path_of<'look>(look: &'look Look, module: &str) -> &'look Path {
        match &look.modules[module] {
            Candidate::File { path, .. } => path,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_plain_name_wins_over_lib_and_lib_over_the_crate() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let handlers = root.join("handlers");
        file(&handlers.join("x.so"), 9);
        file(&handlers.join("libx.so"), 5);
        let manifest = "[package]\nname = \"x\"\n[lib]\ncrate-type = [\"cdylib\"]\n[workspace]\n";
        create_dir_all(handlers.join("x")).unwrap();
        write(handlers.join("x/Cargo.toml"), manifest).unwrap();
        let mut lookup = Lookup::new(handlers.clone());
        lookup.manifests = Manifests::new();
        assert_eq!(path_of(&lookup.look(), "x"), handlers.join("x.so"));
        std::fs::remove_file(handlers.join("x.so")).unwrap();
        assert_eq!(path_of(&lookup.look(), "x"), handlers.join("libx.so"));
        std::fs::remove_file(handlers.join("libx.so")).unwrap();
        let look = lookup.look();
        assert_eq!(look.modules["x"], Candidate::NotBuilt { hint: "cargo build -p x".into() });
        assert!(look.folders.contains(&handlers.join("x")), "the target folder will appear there");

        let target = handlers.join("x/target");
        file(&target.join("release/libx.so"), 3);
        file(&target.join("debug/libx.so"), 1);
        let look = lookup.look();
        let expected = Candidate::File { path: target.join("debug/libx.so"), note: "newer than release".into() };
        assert_eq!(look.modules["x"], expected);
        assert!(look.folders.contains(&target.join("debug")));
        assert!(!look.modules.keys().any(|module| module.contains("target")), "{:?}", look.modules);
    }

    #[test]
    fn names_are_checked_folders_give_prefixes_and_links_are_followed_once() {
        let root = tempfile::tempdir().unwrap();
        let handlers = root.path().join("handlers");
        file(&handlers.join("admin/ctime.so"), 0);
        file(&handlers.join("bad name.so"), 0);
        file(&handlers.join(".hidden.so"), 0);
        file(&handlers.join("libversioned.so.1"), 0);
        file(&handlers.join("bad.folder/x.so"), 0);
        file(&root.path().join("out/real.so"), 0);
        symlink("../out/real.so", handlers.join("linked.so")).unwrap();
        symlink("nowhere.so", handlers.join("dangling.so")).unwrap();
        symlink("..", handlers.join("admin/up")).unwrap();
        let look = Lookup::new(handlers.clone()).look();
        let modules: Vec<&str> = look.modules.keys().map(String::as_str).collect();
        assert_eq!(modules, ["admin/ctime", "linked"]);
        assert!(look.folders.contains(&root.path().join("out").canonicalize().unwrap()));
    }

    #[test]
    fn a_folder_that_does_not_exist_is_awaited_in_the_nearest_one_above() {
        let root = tempfile::tempdir().unwrap();
        let look = Lookup::new(root.path().join("not/yet")).look();
        assert_eq!(look.folders, BTreeSet::from([root.path().to_owned()]));
    }
}
