//! What caches are told of the site's files: `--cache-control`.

use super::values;
use anyhow::{Context, Error, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// `[FILES=]VALUE`: `no-cache`, `*.css=max-age=31536000, immutable`, `/assets/=max-age=3600`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheControl {
    /// Of which files.
    pub files: Files,
    /// The value of their `Cache-Control` field.
    pub value: String,
}

/// Some files of the site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Files {
    /// All that no other rule is for.
    All,
    /// `*.EXTENSION`: those whose name ends in a dot and this, in any case.
    Extension(String),
    /// `/FOLDER/`: those in this folder, however deep. It is a path from the site's root, ends with a slash and begins with none.
    Folder(String),
}

/// Directives of responses that have a number of seconds, and those that have not (RFC 9111 §5.2.2, RFC 5861, RFC 8246).
const WITH_SECONDS: [&str; 4] = ["max-age", "s-maxage", "stale-if-error", "stale-while-revalidate"];
const ALONE: [&str; 9] = [
    "immutable",
    "must-revalidate",
    "must-understand",
    "no-cache",
    "no-store",
    "no-transform",
    "private",
    "proxy-revalidate",
    "public",
];

impl Files {
    /// Whether the file at this path from the site's root is one of them.
    pub fn have(&self, relative: &[u8]) -> bool {
        match self {
            Files::All => true,
            Files::Folder(folder) => relative.starts_with(folder.as_bytes()),
            Files::Extension(extension) => {
                let dot = relative.len().checked_sub(extension.len() + 1);
                let end = dot.and_then(|dot| relative[dot..].strip_prefix(b"."));
                end.is_some_and(|end| end.eq_ignore_ascii_case(extension.as_bytes()))
            }
        }
    }
}

impl FromStr for CacheControl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        // No directive begins with these.
        let (files, value) = if text.starts_with(['*', '/']) {
            let (files, value) = text
                .split_once('=')
                .context("no value in it; say *.EXTENSION=VALUE or /FOLDER/=VALUE, such as *.css=max-age=3600")?;
            (files.parse()?, value)
        } else {
            (Files::All, text)
        };
        let value = values::field_value(value)?;
        value.split(',').try_for_each(|directive| check(directive.trim()))?;
        Ok(Self { files, value })
    }
}

impl FromStr for Files {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(extension) = text.strip_prefix("*.") {
            ensure!(
                !extension.is_empty() && !extension.contains(['/', '*']),
                "{text:?} names no files; say *.EXTENSION, such as *.css"
            );
            return Ok(Self::Extension(extension.to_owned()));
        }
        let Some(folder) = text.strip_prefix('/') else {
            bail!("{text:?} names no files; say *.EXTENSION or /FOLDER/")
        };
        let folder = folder.trim_end_matches('/');
        ensure!(!folder.is_empty(), "/ is all files: say the value alone");
        for segment in folder.split('/') {
            ensure!(
                !matches!(segment, "" | "." | "..") && !segment.contains('*'),
                "the folder {text:?} has the segment {segment:?}, which no file's path has; wildcards are for *.EXTENSION alone"
            );
        }
        Ok(Self::Folder(format!("{folder}/")))
    }
}

/// Whether that is a directive: a misspelt one would be ignored by all caches, and nobody would notice.
fn check(directive: &str) -> Result<()> {
    let (name, argument) = match directive.split_once('=') {
        Some((name, argument)) => (name, Some(argument)),
        None => (directive, None),
    };
    let is_in = |names: &[&str]| names.iter().any(|known| known.eq_ignore_ascii_case(name));
    match argument {
        Some(seconds) if is_in(&WITH_SECONDS) => ensure!(
            !seconds.is_empty() && seconds.bytes().all(|byte| byte.is_ascii_digit()),
            "{directive:?}: {name} needs a number of seconds, such as {name}=3600"
        ),
        None if is_in(&WITH_SECONDS) => bail!("{name} needs a number of seconds, such as {name}=3600"),
        Some(_) if is_in(&ALONE) => bail!("{directive:?}: {name} stands alone"),
        None if is_in(&ALONE) => {}
        _ => bail!(
            "{name:?} is no directive of Cache-Control; there are {}, {}",
            WITH_SECONDS.join(", "),
            ALONE.join(", ")
        ),
    }
    Ok(())
}

/// As it is written on the command line.
impl fmt::Display for Files {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => write!(out, "for all files"),
            Self::Extension(extension) => write!(out, "*.{extension}"),
            Self::Folder(folder) => write!(out, "/{folder}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_for_all_files_for_an_extension_or_for_a_folder() {
        for (text, files, value) in [
            ("no-cache", Files::All, "no-cache"),
            ("max-age=60", Files::All, "max-age=60"),
            (" public , MAX-AGE=60 ", Files::All, "public , MAX-AGE=60"),
            ("*.css=max-age=31536000, immutable", Files::Extension("css".into()), "max-age=31536000, immutable"),
            ("*.tar.gz=no-store", Files::Extension("tar.gz".into()), "no-store"),
            ("/assets/=s-maxage=1", Files::Folder("assets/".into()), "s-maxage=1"),
            ("/a/b=private", Files::Folder("a/b/".into()), "private"),
        ] {
            assert_eq!(text.parse::<CacheControl>().unwrap(), CacheControl { files, value: value.to_owned() });
        }
        for (text, reason) in [
            ("", "is no directive"),
            ("max-agee=60", "\"max-agee\" is no directive"),
            ("max-age", "needs a number of seconds"),
            ("max-age=", "needs a number of seconds"),
            ("max-age=1h", "needs a number of seconds"),
            ("max-age=\"60\"", "needs a number of seconds"),
            ("no-store=1", "stands alone"),
            ("no-cache,", "is no directive"),
            ("no-cache; private", "is no directive"),
            ("no-cache\r\nX: y", "control characters"),
            ("*.css", "no value in it"),
            ("*.css=", "is no directive"),
            ("*css=no-cache", "names no files"),
            ("*.=no-cache", "names no files"),
            ("*.a/b=no-cache", "names no files"),
            ("*=no-cache", "names no files"),
            ("/=no-cache", "say the value alone"),
            ("/a//b=no-cache", "which no file's path has"),
            ("/../b=no-cache", "which no file's path has"),
            ("/a/*.css=no-cache", "which no file's path has"),
            ("css=no-cache", "\"css\" is no directive"),
        ] {
            let error = text.parse::<CacheControl>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn files_are_told_by_the_end_or_the_beginning_of_their_path() {
        let css = Files::Extension("css".into());
        let assets = Files::Folder("assets/".into());
        for (path, is_css, is_asset) in [
            ("style.css", true, false),
            ("a/b.CSS", true, false),
            (".css", true, false),
            ("css", false, false),
            ("xcss", false, false),
            ("style.css/x", false, false),
            ("assets/x", false, true),
            ("assets/a/style.css", true, true),
            ("assets", false, false),
            ("assetsx/y", false, false),
            ("a/assets/x", false, false),
        ] {
            assert_eq!((css.have(path.as_bytes()), assets.have(path.as_bytes())), (is_css, is_asset), "{path}");
            assert!(Files::All.have(path.as_bytes()));
        }
    }
}
