//! Compiling handlers as their authors do.

use crate::repository;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder of `host.h`.
pub fn include() -> PathBuf {
    repository().join("abi/include")
}

/// Compiles the C or C++ file `source` (by its extension) into the shared library `out`, in place: `out` is written
/// by the linker itself, as by hand.
///
/// # Panics
/// With the compiler's words if it fails, or is not installed.
pub fn cc(source: &Path, out: &Path, extra_flags: &[&str]) {
    if let Err(words) = try_cc(source, out, extra_flags) {
        panic!("{} does not compile:\n{words}", source.display());
    }
}

/// As [`cc`], for source that may be wrong.
///
/// # Errors
/// What the compiler said.
///
/// # Panics
/// The compiler is not installed.
pub fn try_cc(source: &Path, out: &Path, extra_flags: &[&str]) -> Result<(), String> {
    let compiler = match source.extension().and_then(|extension| extension.to_str()) {
        Some("cc" | "cpp" | "cxx") => "c++",
        _ => "cc",
    };
    let output = Command::new(compiler)
        .args(["-shared", "-fPIC", "-I"])
        .arg(include())
        .arg("-o")
        .arg(out)
        .arg(source)
        .args(extra_flags)
        .output()
        .unwrap_or_else(|error| panic!("cannot run {compiler} ({error}); tests/run installs it"));
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_comes_out_and_a_mistake_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let (source, out) = (folder.path().join("a.c"), folder.path().join("a.so"));
        std::fs::write(&source, "#include <host.h>\nint answer(void) { return ANSWER; }\n").unwrap();
        cc(&source, &out, &["-DANSWER=42"]);
        assert!(std::fs::read(&out).unwrap().starts_with(b"\x7fELF"));
        assert!(try_cc(&source, &out, &[]).unwrap_err().contains("ANSWER"));
    }
}
