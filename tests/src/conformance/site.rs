//! The site that every server under test serves: a few files of known content and age.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

/// `Sun, 06 Nov 1994 08:49:37 GMT`, when all files but one were modified last.
const MODIFIED: Duration = Duration::from_secs(784_111_777);

/// `Fri, 01 Jan 2100 00:00:00 GMT`, when `future.txt` claims to have been.
const FUTURE: Duration = Duration::from_secs(4_102_444_800);

/// What is asked for to see whether a connection lives on; nothing else has this content.
pub const PROBE: (&str, &[u8]) = ("/probe.txt", b"still here\n");

/// The files, by path, with their content.
fn files() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("index.html", b"<!doctype html><title>home</title>\n".to_vec()),
        ("a.txt", b"abcdefghijklmnopqrstuvwxyz".to_vec()),
        ("b.txt", b"bb".to_vec()),
        ("empty.txt", Vec::new()),
        ("future.txt", b"later\n".to_vec()),
        ("folder/index.html", b"<!doctype html><title>folder</title>\n".to_vec()),
        ("folder/c.txt", b"c".to_vec()),
        ("with space.txt", b"spaced".to_vec()),
        ("tilde~.txt", b"tilde".to_vec()),
        ("\u{fc}.txt", b"umlaut".to_vec()),
        // Long enough to be sent in several parts.
        ("large.bin", (0..100_000).map(|at: u32| b"0123456789"[at as usize % 10]).collect()),
        (&PROBE.0[1..], PROBE.1.to_vec()),
    ]
}

/// Writes the site.
///
/// # Errors
/// It cannot be written.
pub fn write(folder: &Path) -> io::Result<()> {
    for (name, content) in files() {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap_or(folder))?;
        fs::write(&path, content)?;
        let modified = if name == "future.txt" { FUTURE } else { MODIFIED };
        fs::File::options().write(true).open(&path)?.set_modified(UNIX_EPOCH + modified)?;
    }
    Ok(())
}
