//! What has to be built before anything is measured: the handlers, by cargo, for the profile of this program.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds `bench/examples/hello.rs` and says where it is.
///
/// # Errors
/// It does not build.
pub fn rust_hello(bench: &Path) -> io::Result<PathBuf> {
    cargo(bench, &["--package", "bench", "--example", "hello"])?;
    Ok(profile(bench).join("examples/libhello.so"))
}

/// Builds the repository's example handlers.
///
/// # Errors
/// They do not build.
pub fn example_handlers(bench: &Path) -> io::Result<()> {
    let names = ["counter", "ctime", "echo", "framework", "sayhello"];
    cargo(bench, &names.map(|name| ["--package", name]).concat())
}

/// Where cargo has put this program, and puts what it builds beside it.
fn profile(bench: &Path) -> &Path {
    bench.parent().expect("a program is in a folder")
}

/// Builds with cargo, if it was cargo that started this program; else things must be there already.
fn cargo(bench: &Path, arguments: &[&str]) -> io::Result<()> {
    let Some(cargo) = std::env::var_os("CARGO") else { return Ok(()) };
    let profile = profile(bench);
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--locked"]).args(arguments).current_dir(tests::repository());
    if let Some(target) = profile.parent() {
        command.arg("--target-dir").arg(target);
    }
    if profile.ends_with("release") {
        command.arg("--release");
    }
    match command.status()?.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!("it does not build: {command:?}"))),
    }
}
