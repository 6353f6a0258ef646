//! Compilers and `nm` as the tests call them. One that is missing fails the test: the contract is in C.

use std::path::Path;
use std::process::Command;

/// The folder of `host.h`.
pub const INCLUDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/include");

/// What a strict project compiles with.
pub const STRICT: [&str; 6] = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1", "-fvisibility=hidden"];

/// Runs a command that must succeed without a word, except on standard output, which it gives.
pub fn run(command: &mut Command) -> String {
    let shown = format!("{command:?}");
    let output = command.output().unwrap_or_else(|error| panic!("cannot run {shown}: {error}; is it installed?"));
    let (told, complaint) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && complaint.is_empty(), "{shown}: {}\n{complaint}{told}", output.status);
    told.into_owned()
}

/// The dynamic symbols of a library that `nm` shows with this option, such as `--defined-only`.
pub fn dynamic_symbols(library: &Path, option: &str) -> Vec<String> {
    let table = run(Command::new("nm").args(["--dynamic", "--format=just-symbols", option]).arg(library));
    table.lines().map(str::to_owned).collect()
}
