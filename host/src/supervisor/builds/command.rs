//! `host check FILE…`: says of each file whether it would be loaded, how, and if not, why.

use super::checker::{self as process, Trial, Verdict};
use super::private::{self, Inputs};
use super::take::NotTaken;
use crate::handler::check::{ReloadClass, Report};
use abi::ffi::{HOST_BLOCKING, HOST_NOT_THREAD_SAFE, HOST_STREAM_INPUT};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// Checks each file as the server would and prints what it found. Exit code 0: all are sound; 1: at least one is not.
pub fn command(files: &[PathBuf]) -> ExitCode {
    let mut all_sound = true;
    for file in files {
        let (is_sound, text) = check_file(Path::new("/proc/self/exe"), file);
        all_sound &= is_sound;
        // A reader that has seen enough is no failure of the check.
        let _ = std::io::stdout().write_all(text.as_bytes());
    }
    if all_sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Checks one file, with the executable that becomes the checker process: whether it is sound, and what to print.
pub fn check_file(checker: &Path, file: &Path) -> (bool, String) {
    match check(checker, file) {
        Ok(report) => (true, describe(file, &report)),
        Err(reason) => (false, format!("{}\n  will not load: it {reason}\n", file.display())),
    }
}

const CHECK_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a file that is being written is waited for.
const WRITER_PATIENCE: Duration = Duration::from_secs(5);

fn check(checker: &Path, file: &Path) -> Result<Report, String> {
    let file = std::path::absolute(file).map_err(|error| format!("cannot be found: {error}"))?;
    let folder = tempfile::tempdir().map_err(|error| format!("cannot be copied to a temporary folder: {error}"))?;
    let deadline = Instant::now() + WRITER_PATIENCE;
    let mut attempt = 0;
    let taken = loop {
        attempt += 1;
        match private::take(&file, &folder.path().join(attempt.to_string()), &mut Inputs::new()) {
            Ok(taken) => break taken,
            Err(NotTaken::Failed(reason)) => return Err(reason),
            Err(NotTaken::Missing) => return Err("does not exist".into()),
            Err(NotTaken::Later(_)) if Instant::now() > deadline => {
                return Err("is still open for writing: close it, then check again".into());
            }
            Err(NotTaken::Later(rest)) => std::thread::sleep(rest.max(Duration::from_millis(5))),
        }
    };
    match process::run(checker, &taken.copy, Trial::default(), CHECK_TIMEOUT, &AtomicBool::new(false)) {
        Verdict::Reported(Report { error: Some(reason), .. }) | Verdict::Failed(reason) => Err(reason),
        Verdict::Reported(report) => Ok(report),
        Verdict::Cancelled => Err("was not checked".into()),
    }
}

fn describe(file: &Path, report: &Report) -> String {
    let mut text = format!("{}\n", file.display());
    let mut line = |label: &str, value: &str| {
        let _ = writeln!(text, "  {label:<8} {value}");
    };
    if let Some(name) = &report.name {
        line("name", &format!("{name} {}", report.version.as_deref().unwrap_or_default()));
    }
    match report.abi {
        Some(abi) => line("ABI", &format!("{}.{}", abi >> 16, abi & 0xffff)),
        None => line("ABI", "1.0 (it does not say)"),
    }
    line("exports", &exports(&report.symbols));
    line("flags", &flags(report.flags));
    if report.keeps_state {
        line("state", "kept, by its save and restore");
    }
    match report.class {
        ReloadClass::Swap => line("reload", "at once, in the running worker"),
        ReloadClass::Replace => line("reload", "by a new worker:"),
    }
    for reason in &report.reasons {
        line("", &format!("- {reason}"));
    }
    text
}

fn exports(symbols: &[String]) -> String {
    const SHOWN: usize = 12;
    // What a compiler exports for itself, such as C++'s mangled names, is nobody's application.
    let symbols: Vec<&str> = symbols.iter().map(String::as_str).filter(|name| !name.starts_with('_')).collect();
    let shown = symbols[..symbols.len().min(SHOWN)].join(", ");
    match symbols.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn flags(flags: u32) -> String {
    let known =
        [(HOST_NOT_THREAD_SAFE, "NOT_THREAD_SAFE"), (HOST_BLOCKING, "BLOCKING"), (HOST_STREAM_INPUT, "STREAM_INPUT")];
    let set: Vec<&str> = known.iter().filter(|(flag, _)| flags & flag != 0).map(|(_, name)| *name).collect();
    if set.is_empty() { "none".into() } else { set.join(", ") }
}
