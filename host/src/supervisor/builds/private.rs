//! The private folder of one build: its copy, copies of the private libraries that it needs, and links to everything
//! that lay beside them, so that `$ORIGIN` leads to the same names.
//!
//! Steps: copy the module, read what it needs, copy that too (and what that needs), find the folder above all of them,
//! and lay out from there what the originals' folders look like.

use super::take::{self, NotTaken, Stamp};
use crate::handler::{elf, needed};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

/// The states of all files that a build is made of, and of those that would change it if they appeared.
pub type Inputs = BTreeMap<PathBuf, Option<Stamp>>;

/// A build that was copied.
#[derive(Debug)]
pub struct Taken {
    /// The copy of the module.
    pub copy: PathBuf,
    /// What it was made of: the module, its private libraries, and paths that would be one if they existed.
    pub inputs: Inputs,
}

/// Copies the module at `source`, and what it needs, into `folder`, which must not exist yet. `inputs`: what
/// is known to go into it; becomes what was looked at, also when it fails.
///
/// # Errors
/// Why not; then there is no `folder`.
pub fn take(source: &Path, folder: &Path, inputs: &mut Inputs) -> Result<Taken, NotTaken> {
    let created = std::fs::DirBuilder::new().mode(0o700).create(folder);
    created.map_err(|error| NotTaken::Failed(format!("cannot be copied to {}: {error}", folder.display())))?;
    let taken = copy_all(source, folder, inputs);
    if taken.is_err() {
        remove(folder);
    }
    taken
}

/// Copies a build's folder to `to`, which must not exist yet.
///
/// # Errors
/// Why not; then there is no `to`.
pub fn copy_again(from: &Path, to: &Path) -> std::io::Result<()> {
    let copied = copy_folder(from, to);
    if copied.as_ref().is_err_and(|error| error.kind() != std::io::ErrorKind::AlreadyExists) {
        remove(to);
    }
    copied
}

fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().mode(0o700).create(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (original, place) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_symlink() {
            symlink(std::fs::read_link(original)?, place)?;
        } else if kind.is_dir() {
            copy_folder(&original, &place)?;
        } else {
            // A file of its own: the loader knows a library again by its inode, too.
            std::fs::copy(original, place)?;
        }
    }
    Ok(())
}

/// Removes a build's folder. What is left if that fails goes with the folder above it.
pub fn remove(folder: &Path) {
    if let Err(error) = std::fs::remove_dir_all(folder) {
        tracing::debug!("cannot remove {}: {error}", folder.display());
    }
}

/// Private libraries that are copied for one module at most.
const LIBRARIES_MAX: usize = 256;

/// Links to siblings that are made in one folder at most. A module that needs more has its data elsewhere.
const SIBLINGS_MAX: usize = 4096;

fn copy_all(source: &Path, folder: &Path, inputs: &mut Inputs) -> Result<Taken, NotTaken> {
    // The loader takes $ORIGIN from the path that it was given, with the links in its folders resolved by the kernel.
    let origin = source.parent().and_then(|parent| parent.canonicalize().ok()).ok_or(NotTaken::Missing)?;
    let Some(name) = source.file_name() else { return Err(NotTaken::Missing) };
    let module = origin.join(name);

    let mut staged: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
    let mut waiting = vec![(module.clone(), Vec::new())];
    let expected = std::mem::take(inputs);
    while let Some((original, inherited)) = waiting.pop() {
        if staged.contains_key(&original) {
            continue;
        }
        if staged.len() > LIBRARIES_MAX {
            return Err(NotTaken::Failed(format!("needs more than {LIBRARIES_MAX} private libraries")));
        }
        let stage = folder.join(format!(".{}", staged.len()));
        let from = if original == module { source } else { &original };
        inputs.insert(from.to_owned(), Stamp::of(from));
        let stamp = take::copy(from, &stage)?;
        inputs.insert(from.to_owned(), Some(stamp));
        let elf = elf::read(&stage).map_err(|error| match original == module {
            true => NotTaken::Failed(error),
            false => NotTaken::Failed(format!("needs {}, which {error}", original.display())),
        })?;
        let beside = original.parent().unwrap_or(&origin);
        let found = needed::find(&elf, beside, &inherited);
        let passed = needed::inherit(&elf, beside, &inherited);
        for path in found.absent {
            // One that was there a moment ago is being built anew.
            if expected.get(&path).is_some_and(Option::is_some) {
                return Err(NotTaken::Later(take::AGE_MIN));
            }
            inputs.insert(path, None);
        }
        for path in found.fixed.into_iter().chain(found.beside.iter().cloned()) {
            // What was copied already keeps the stamp of its copy.
            inputs.entry(path).or_insert_with_key(|path| Stamp::of(path));
        }
        waiting.extend(found.beside.into_iter().map(|library| (library, passed.clone())));
        staged.insert(original, stage);
    }

    let above = above_all(staged.keys());
    for (original, stage) in &staged {
        let place = folder.join(original.strip_prefix(&above).unwrap_or(original));
        let moved =
            place.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::rename(stage, &place));
        moved.map_err(|error| NotTaken::Failed(format!("cannot be copied to {}: {error}", place.display())))?;
    }
    link_siblings(&staged, inputs, &above, folder);
    // A library that has come since it was looked for would have been copied.
    if inputs.iter().any(|(path, stamp)| stamp.is_none() && Stamp::of(path).is_some()) {
        return Err(NotTaken::Later(take::AGE_MIN));
    }
    let copy = folder.join(module.strip_prefix(&above).unwrap_or(&module));
    Ok(Taken { copy, inputs: inputs.clone() })
}

/// The deepest folder that all of these files lie under.
fn above_all<'a>(mut files: impl Iterator<Item = &'a PathBuf>) -> PathBuf {
    let first = files.next().and_then(|file| file.parent()).unwrap_or(Path::new("/"));
    files.fold(first.to_owned(), |above, file| {
        above.ancestors().find(|folder| file.starts_with(folder)).unwrap_or(Path::new("/")).to_owned()
    })
}

/// In each folder that holds a copy, and each above it, links every other name to its original, except to what the
/// loader would map: that is copied or absent.
fn link_siblings(staged: &BTreeMap<PathBuf, PathBuf>, inputs: &Inputs, above: &Path, folder: &Path) {
    let mut real = BTreeSet::new();
    for original in staged.keys() {
        real.extend(original.ancestors().skip(1).take_while(|ancestor| ancestor.starts_with(above)));
    }
    for original in &real {
        let place = folder.join(original.strip_prefix(above).unwrap_or(original));
        let Ok(siblings) = std::fs::read_dir(original) else { continue };
        let of_cargo = original.join(CARGO_MARK).is_dir();
        for sibling in siblings.flatten().take(SIBLINGS_MAX) {
            if of_cargo && is_for_cargo(&sibling.file_name()) {
                continue;
            }
            let path = original.join(sibling.file_name());
            if staged.contains_key(&path) || inputs.contains_key(&path) || real.contains(path.as_path()) {
                continue;
            }
            // A link that cannot be made is a name that will not be found, which the checker will tell.
            let _ = symlink(&path, place.join(sibling.file_name()));
        }
    }
}

/// What a folder that cargo builds into has.
const CARGO_MARK: &str = ".fingerprint";

/// Whether a file in such a folder is only there for cargo and its compilers. They are most of it, and a link to each of
/// them for each build would be most of what a start takes.
fn is_for_cargo(name: &OsStr) -> bool {
    let is_any = |name: &OsStr, of: &[&str]| of.iter().any(|other| name == *other);
    is_any(name, &[CARGO_MARK, ".cargo-lock", "build", "examples", "incremental"])
        || Path::new(name).extension().is_some_and(|extension| is_any(extension, &["d", "rlib", "rmeta"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_copy_has_the_same_names_and_files_of_its_own() {
        use std::os::unix::fs::MetadataExt;
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        std::fs::create_dir_all(from.join("lib")).unwrap();
        std::fs::write(from.join("lib/x.so"), "x").unwrap();
        symlink("../data", from.join("lib/data")).unwrap();
        copy_again(&from, &to).unwrap();
        let inode = |path: PathBuf| std::fs::metadata(path).unwrap().ino();
        assert_ne!(inode(from.join("lib/x.so")), inode(to.join("lib/x.so")));
        assert_eq!(std::fs::read(to.join("lib/x.so")).unwrap(), b"x");
        assert_eq!(std::fs::read_link(to.join("lib/data")).unwrap(), Path::new("../data"));
        assert_eq!(copy_again(&from, &to).unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn what_lies_beside_is_linked_but_not_what_is_for_cargo() {
        let folder = tempfile::tempdir().unwrap();
        let (origin, place) = (folder.path().canonicalize().unwrap().join("release"), folder.path().join("place"));
        std::fs::create_dir_all(origin.join("build")).unwrap();
        std::fs::create_dir(&place).unwrap();
        for name in ["libx.so", "libx.d", "libx.rlib", "data.txt"] {
            std::fs::write(origin.join(name), name).unwrap();
        }
        let staged = BTreeMap::from([(origin.join("libx.so"), PathBuf::new())]);
        let linked = || {
            link_siblings(&staged, &Inputs::new(), &origin, &place);
            let names = std::fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().file_name());
            let names: BTreeSet<_> = names.map(|name| name.into_string().unwrap()).collect();
            names.iter().for_each(|name| std::fs::remove_file(place.join(name)).unwrap());
            names
        };
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(linked(), names(&["build", "data.txt", "libx.d", "libx.rlib"]));
        std::fs::create_dir(origin.join(CARGO_MARK)).unwrap();
        assert_eq!(linked(), names(&["data.txt"]));
    }
}
