//! What the server refuses to start with, because it would give away the right to run code.
//!
//! SECURITY: whoever can write to the folder of handlers, or to the folder of their private copies, runs code in
//! the server. So neither may be writable by others, and no page folder may overlap with them: what is put among
//! the pages by an upload or a deployment must never be loaded, and no handler must be sent as a page.

use crate::config::Config;
use crate::sys::files::Folder;
use crate::sys::mounts::Whereabouts;
use anyhow::{Context, Result, bail, ensure};
use rustix::io::Errno;
use std::fs::{self, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Refuses folders that are unsafe together. `runtime` is where private copies of builds go; it exists, as the others do.
///
/// # Errors
/// Names the folder and the command that helps.
pub fn check(config: &Config, runtime: &Path) -> Result<()> {
    folders(config.html.as_deref(), &config.handlers, runtime)?;
    for prefix in &config.uploads {
        let Some(html) = &config.html else { bail!("--upload needs a site; name one with --html DIR") };
        uploads(html, prefix, &config.handlers, runtime)?;
    }
    Ok(())
}

fn folders(html: Option<&Path>, handlers: &Path, runtime: &Path) -> Result<()> {
    not_writable_by_others(handlers)?;
    not_writable_by_others(runtime)?;
    if let Some(html) = html {
        apart("--html", html, "--handlers", handlers)?;
        apart("--handlers", handlers, "--html", html)?;
        apart("--runtime", runtime, "--html", html)?;
    }
    // The other way round is harmless: only the server's own, locked folder below --runtime is ever used.
    apart("--runtime", runtime, "--handlers", handlers)
}

/// Refuses a folder for uploads that is none, or whose files would be code by whatever name.
///
/// They may be different folders by all their names, and have nothing above them in common, when one is mounted into the other
/// (mount(8), --bind). What lies where in the file system tells.
fn uploads(html: &Path, prefix: &str, handlers: &Path, runtime: &Path) -> Result<()> {
    let folder = upload_folder(html, prefix)?;
    let place = Whereabouts::of(&folder).with_context(|| format!("--upload {prefix}/ needs /proc to be mounted"))?;
    for (option, code) in [("--handlers", handlers), ("--runtime", runtime)] {
        let code_place = Whereabouts::at(code).with_context(|| format!("cannot look at {}", code.display()))?;
        ensure!(
            !place.is_within(&code_place) && !code_place.is_within(&place),
            "the folder of --upload {prefix}/ and {option} {} are the same folder, or one is in the other; who uploads could run \
             code here: give each its own",
            code.display()
        );
    }
    Ok(())
}

/// The folder of `html` that has this path, as the site finds it.
pub(super) fn upload_folder(html: &Path, prefix: &str) -> Result<OwnedFd> {
    let relative = prefix.trim_start_matches('/');
    let opened = Folder::open(html).and_then(|site| site.open_folder_beneath(relative.as_bytes()));
    opened.map_err(|error| {
        let path: PathBuf = html.join(relative);
        let path = path.display();
        match error {
            Errno::NOENT => anyhow::anyhow!("--upload {prefix}/: there is no folder {path}; mkdir {path}"),
            Errno::NOTDIR => anyhow::anyhow!("--upload {prefix}/: {path} is not a folder; name one"),
            Errno::XDEV | Errno::LOOP => anyhow::anyhow!(
                "--upload {prefix}/: {path} leads out of the site by a symbolic link, which the site does not follow; have a folder \
                 there, or mount one"
            ),
            error => anyhow::anyhow!("--upload {prefix}/: cannot open {path}: {}", io::Error::from(error)),
        }
    })
}

fn not_writable_by_others(folder: &Path) -> Result<()> {
    let mode = metadata(folder)?.mode();
    ensure!(mode & 0o002 == 0, "{0} is writable by others, who could run code here; chmod o-w {0}", folder.display());
    Ok(())
}

/// Refuses `inner` at or below `outer`. Files are compared, not names: links and bind mounts have many.
fn apart(inner_option: &str, inner: &Path, outer_option: &str, outer: &Path) -> Result<()> {
    let outer_file = identity(&metadata(outer)?);
    let real = fs::canonicalize(inner).with_context(|| format!("cannot resolve {}", inner.display()))?;
    for ancestor in real.ancestors() {
        if identity(&metadata(ancestor)?) != outer_file {
            continue;
        }
        ensure!(
            ancestor != real,
            "{inner_option} {} and {outer_option} {} are the same folder; give each its own",
            inner.display(),
            outer.display()
        );
        anyhow::bail!(
            "{inner_option} {} is inside {outer_option} {}; move one out of the other",
            inner.display(),
            outer.display()
        );
    }
    Ok(())
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

fn metadata(path: &Path) -> Result<Metadata> {
    fs::metadata(path).with_context(|| format!("cannot look at {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::PathBuf;

    struct Folders(tempfile::TempDir);

    impl Folders {
        fn new() -> Self {
            let folders = Self(tempfile::tempdir().unwrap());
            for name in ["html", "handlers", "runtime"] {
                folders.make(name);
            }
            folders
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn make(&self, name: &str) -> PathBuf {
            fs::create_dir(self.path(name)).unwrap();
            self.set_mode(name, 0o755);
            self.path(name)
        }

        fn set_mode(&self, name: &str, mode: u32) {
            fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
        }

        fn refusal(&self, html: &str, handlers: &str, runtime: &str) -> String {
            let html = self.path(html);
            super::folders(Some(&html), &self.path(handlers), &self.path(runtime)).unwrap_err().to_string()
        }
    }

    #[test]
    fn three_folders_of_their_own_are_admitted() {
        let folders = Folders::new();
        let [html, handlers, runtime] = ["html", "handlers", "runtime"].map(|name| folders.path(name));
        super::folders(Some(&html), &handlers, &runtime).unwrap();
        super::folders(None, &handlers, &runtime).unwrap();
        // A name that only begins alike is no parent.
        let alike = folders.make("html-handlers");
        super::folders(Some(&html), &alike, &runtime).unwrap();
    }

    #[test]
    fn folders_that_others_may_write_are_refused() {
        for name in ["handlers", "runtime"] {
            let folders = Folders::new();
            folders.set_mode(name, 0o757);
            let refusal = folders.refusal("html", "handlers", "runtime");
            assert!(refusal.ends_with(&format!("chmod o-w {}", folders.path(name).display())), "{refusal}");
        }
    }

    #[test]
    fn folders_for_uploads_are_folders_of_the_site_and_not_of_code() {
        let folders = Folders::new();
        folders.make("html/in");
        folders.make("handlers/sub");
        folders.make("outside");
        fs::write(folders.path("html/file"), "").unwrap();
        symlink("../outside", folders.path("html/out")).unwrap();
        symlink("in", folders.path("html/link")).unwrap();
        let check = |html: &str, prefix: &str| {
            let paths = [html, "handlers", "runtime"].map(|name| folders.path(name));
            uploads(&paths[0], prefix, &paths[1], &paths[2]).map_err(|error| error.to_string())
        };
        for prefix in ["", "/in", "/link"] {
            check("html", prefix).unwrap();
        }
        for (html, prefix, expected) in [
            ("html", "/none", "there is no folder"),
            ("html", "/file", "is not a folder"),
            ("html", "/out", "leads out of the site"),
            ("handlers", "", "--handlers"),
            ("handlers", "/sub", "--handlers"),
            ("runtime", "", "--runtime"),
            // Above both of them.
            (".", "", "--handlers"),
        ] {
            let refusal = check(html, prefix).unwrap_err();
            assert!(refusal.contains(expected), "{html} {prefix}: {refusal}");
        }
    }

    #[test]
    fn folders_inside_each_other_are_refused_under_any_name() {
        let folders = Folders::new();
        folders.make("html/handlers");
        folders.make("handlers/html");
        folders.make("html/runtime");
        folders.make("handlers/runtime");
        symlink(folders.path("html/handlers"), folders.path("alias")).unwrap();
        for (html, handlers, runtime, expected) in [
            ("html", "html/handlers", "runtime", "is inside --html"),
            ("html", "alias", "runtime", "is inside --html"),
            ("html", "html/../html/handlers", "runtime", "is inside --html"),
            ("handlers/html", "handlers", "runtime", "is inside --handlers"),
            ("html", "html", "runtime", "are the same folder"),
            ("html", "handlers", "html/runtime", "is inside --html"),
            ("html", "handlers", "handlers/runtime", "is inside --handlers"),
        ] {
            let refusal = folders.refusal(html, handlers, runtime);
            assert!(refusal.contains(expected), "{html} {handlers} {runtime}: {refusal}");
        }
    }
}
