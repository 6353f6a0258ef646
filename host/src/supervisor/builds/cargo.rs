//! Where cargo puts the shared library of a crate.
//!
//! Steps: read the crate's manifest, find its workspace and configuration by walking up, list the profile folders of its
//! target folder (The Cargo Book: "Build Cache", "Workspaces", "Configuration").

use super::take::Stamp;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use toml::{Table, Value};

/// A crate that builds a shared library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crate {
    /// The package's name, as `cargo build -p` wants it.
    pub package: String,
    /// The file's name in each profile folder, such as `libsay_hello.so`.
    pub file: String,
    /// The target folder, which need not exist.
    pub target: PathBuf,
}

/// One profile folder of a target folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Its path below the target folder, such as `debug` or `x86_64-unknown-linux-gnu/release`.
    pub name: String,
    /// The whole path.
    pub folder: PathBuf,
}

/// Reads manifests and configuration files, each again only when it has changed.
pub struct Manifests {
    files: HashMap<PathBuf, (Stamp, Option<Arc<Table>>)>,
    target_by_environment: Option<PathBuf>,
    cargo_home: Option<PathBuf>,
}

impl Manifests {
    /// `CARGO_TARGET_DIR` and `CARGO_HOME` count as they are now. A relative one is taken from the current folder, as
    /// cargo does when it is run here.
    pub fn new() -> Manifests {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let target = variable("CARGO_TARGET_DIR").or_else(|| variable("CARGO_BUILD_TARGET_DIR"));
        let cargo_home = variable("CARGO_HOME").or_else(|| variable("HOME").map(|home| home.join(".cargo")));
        Manifests {
            files: HashMap::new(),
            target_by_environment: target.and_then(|target| std::path::absolute(target).ok()),
            cargo_home,
        }
    }

    /// The crate in `folder`, an absolute path, if it has a manifest that builds a shared library.
    pub fn library(&mut self, folder: &Path) -> Option<Crate> {
        let manifest = self.table(&folder.join("Cargo.toml"))?;
        let package = manifest.get("package")?.as_table()?;
        let name = package.get("name")?.as_str()?;
        let library = manifest.get("lib")?.as_table()?;
        let kinds = library.get("crate-type").or_else(|| library.get("crate_type"))?.as_array()?;
        if !kinds.iter().any(|kind| matches!(kind.as_str(), Some("cdylib" | "dylib"))) {
            return None;
        }
        let stem = library.get("name").and_then(Value::as_str).unwrap_or(name).replace('-', "_");
        let root = self.workspace(folder, &manifest, package);
        Some(Crate { package: name.to_owned(), file: format!("lib{stem}.so"), target: self.target(folder, &root) })
    }

    /// The folder whose `target` the crate uses: of its workspace, or its own.
    fn workspace(&mut self, folder: &Path, manifest: &Table, package: &Table) -> PathBuf {
        if manifest.contains_key("workspace") {
            return folder.to_owned();
        }
        if let Some(named) = package.get("workspace").and_then(Value::as_str) {
            let named = folder.join(named);
            return named.canonicalize().unwrap_or(named);
        }
        for above in folder.ancestors().skip(1) {
            let Some(manifest) = self.table(&above.join("Cargo.toml")) else { continue };
            let Some(workspace) = manifest.get("workspace") else { continue };
            let excluded = workspace.get("exclude").and_then(Value::as_array).into_iter().flatten();
            let is_excluded =
                excluded.filter_map(Value::as_str).any(|excluded| folder.starts_with(above.join(excluded)));
            return if is_excluded { folder.to_owned() } else { above.to_owned() };
        }
        folder.to_owned()
    }

    fn target(&mut self, folder: &Path, root: &Path) -> PathBuf {
        if let Some(target) = &self.target_by_environment {
            return target.clone();
        }
        let home = self.cargo_home.clone();
        let above = folder.ancestors().map(|above| above.join(".cargo"));
        for configuration in above.chain(home) {
            // A relative path counts from the folder that holds `.cargo`.
            let base = configuration.parent().unwrap_or(folder).to_owned();
            for file in ["config", "config.toml"] {
                let Some(table) = self.table(&configuration.join(file)) else { continue };
                let target = table.get("build").and_then(|build| build.get("target-dir")).and_then(Value::as_str);
                if let Some(target) = target {
                    return base.join(target);
                }
            }
        }
        root.join("target")
    }

    fn table(&mut self, path: &Path) -> Option<Arc<Table>> {
        let stamp = Stamp::of(path)?;
        if let Some((known, table)) = self.files.get(path)
            && *known == stamp
        {
            return table.clone();
        }
        let text = std::fs::read_to_string(path).ok()?;
        // A manifest that is being written, or wrong, is cargo's to complain about.
        let table = text.parse::<Table>().ok().map(Arc::new);
        self.files.insert(path.to_owned(), (stamp, table.clone()));
        table
    }
}

/// The profile folders below a target folder that builds for this machine may be in. `folders` receives every folder
/// in which another could appear.
pub fn profiles(target: &Path, folders: &mut BTreeSet<PathBuf>) -> Vec<Profile> {
    let mut profiles = Vec::new();
    folders.insert(target.to_owned());
    for name in folders_in(target) {
        let folder = target.join(&name);
        if is_triple(&name) {
            folders.insert(folder.clone());
            for profile in folders_in(&folder) {
                profiles.push(Profile { folder: folder.join(&profile), name: format!("{name}/{profile}") });
            }
        } else if !NOT_A_PROFILE.contains(&name.as_str()) {
            profiles.push(Profile { folder, name });
        }
    }
    folders.extend(profiles.iter().map(|profile| profile.folder.clone()));
    profiles
}

/// Folders of cargo's own that hold no profile.
const NOT_A_PROFILE: [&str; 5] = ["doc", "package", "tmp", "miri", "rust-analyzer"];

/// Whether this is a target triple whose libraries this process could load.
fn is_triple(name: &str) -> bool {
    const ENVIRONMENT: &str = if cfg!(target_env = "musl") { "-linux-musl" } else { "-linux-gnu" };
    name.starts_with(std::env::consts::ARCH) && name.contains(ENVIRONMENT)
}

/// Names of the folders in `folder`, sorted; those for other machines look like triples and hold no library of ours.
fn folders_in(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let folders = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let names = folders.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).take(64).collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crate_in(root: &Path, folder: &str, manifest: &str) -> Option<Crate> {
        let folder = root.join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("Cargo.toml"), manifest).unwrap();
        let mut manifests = Manifests { files: HashMap::new(), target_by_environment: None, cargo_home: None };
        manifests.library(&folder)
    }

    const LIBRARY: &str = "[package]\nname = \"say-hello\"\n[lib]\ncrate-type = [\"cdylib\"]\n";

    #[test]
    fn a_crate_of_its_own_has_its_own_target_and_a_member_that_of_its_workspace() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let alone = crate_in(root, "handlers/hello", LIBRARY).unwrap();
        assert_eq!(alone.package, "say-hello");
        assert_eq!(alone.file, "libsay_hello.so");
        assert_eq!(alone.target, root.join("handlers/hello/target"));
        std::fs::write(root.join("Cargo.toml"), "[workspace]\nexclude = [\"handlers/apart\"]\n").unwrap();
        assert_eq!(crate_in(root, "handlers/hello", LIBRARY).unwrap().target, root.join("target"));
        assert_eq!(crate_in(root, "handlers/apart", LIBRARY).unwrap().target, root.join("handlers/apart/target"));
    }

    #[test]
    fn the_workspace_may_be_named_and_the_target_folder_configured() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("elsewhere")).unwrap();
        let named = LIBRARY.replace("[lib]", "workspace = \"../../elsewhere\"\n[lib]");
        assert_eq!(crate_in(&root, "handlers/hello", &named).unwrap().target, root.join("elsewhere/target"));
        std::fs::create_dir_all(root.join("handlers/.cargo")).unwrap();
        std::fs::write(root.join("handlers/.cargo/config.toml"), "[build]\ntarget-dir = \"out\"\n").unwrap();
        assert_eq!(crate_in(&root, "handlers/hello", &named).unwrap().target, root.join("handlers/out"));
    }

    #[test]
    fn the_library_may_be_named_and_only_shared_ones_count() {
        let root = tempfile::tempdir().unwrap();
        let named = LIBRARY.replace("[lib]", "[lib]\nname = \"hi\"");
        assert_eq!(crate_in(root.path(), "a", &named).unwrap().file, "libhi.so");
        assert_eq!(crate_in(root.path(), "b", &LIBRARY.replace("cdylib", "rlib")), None);
        assert_eq!(crate_in(root.path(), "c", "[package]\nname = \"c\"\n"), None);
        assert_eq!(crate_in(root.path(), "d", "[package"), None);
    }

    #[test]
    fn builds_for_other_machines_are_no_candidates() {
        let target = tempfile::tempdir().unwrap();
        let ours = format!(
            "{}-unknown-linux-{}",
            std::env::consts::ARCH,
            if cfg!(target_env = "musl") { "musl" } else { "gnu" }
        );
        for folder in
            ["debug", "release", "profiling", "doc", "alien-unknown-linux-gnu/debug", &format!("{ours}/release")]
        {
            std::fs::create_dir_all(target.path().join(folder)).unwrap();
        }
        let mut folders = BTreeSet::new();
        let names: Vec<String> =
            profiles(target.path(), &mut folders).into_iter().map(|profile| profile.name).collect();
        assert!(names.contains(&format!("{ours}/release")));
        assert!(names.contains(&"profiling".to_owned()));
        assert!(!names.iter().any(|name| name.starts_with("alien-unknown-linux-gnu/") || name == "doc"));
        assert!(folders.contains(target.path()));
    }
}
