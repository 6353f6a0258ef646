//! A handler crate of somebody else, outside of this repository, needs one dependency line and no network.

use std::fs;
use std::path::Path;
use std::process::Command;

#[allow(dead_code, reason = "each test binary uses a part")]
mod compiler;

const HANDLER: &str = r#"
use abi::{Body, Environ, StartResponse};

fn application(_env: &Environ, start: StartResponse) -> Body {
    start.respond("200 OK", &[("Content-Type", "text/plain")], "Hello, World!\n")
}

abi::application!(application);
abi::application!(application as app);
abi::module! { name: "elsewhere" }
"#;

#[test]
fn a_crate_outside_the_repository_builds_with_one_dependency_line() {
    let folder = tempfile::tempdir().unwrap();
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("abi/ is in the repository");
    assert!(!folder.path().starts_with(repository), "TMPDIR is inside the repository");
    let manifest = format!(
        "[package]\nname = \"elsewhere\"\nedition = \"2024\"\n\n[lib]\ncrate-type = [\"cdylib\"]\n\n[dependencies]\nabi = {{ path = {:?} }}\n",
        env!("CARGO_MANIFEST_DIR")
    );
    fs::write(folder.path().join("Cargo.toml"), manifest).unwrap();
    fs::create_dir(folder.path().join("src")).unwrap();
    fs::write(folder.path().join("src/lib.rs"), HANDLER).unwrap();

    // The linker takes the symbols of a release build apart more thoroughly, so both are looked at.
    for profile in ["dev", "release"] {
        let output = Command::new(env!("CARGO"))
            .args(["build", "--offline", "--profile", profile, "--target-dir", "target"])
            .env("RUSTFLAGS", "-D warnings")
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

        let built = folder.path().join("target").join(if profile == "dev" { "debug" } else { profile });
        let exported = compiler::dynamic_symbols(&built.join("libelsewhere.so"), "--defined-only");
        for symbol in ["app", "application", "host_abi_version", "host_module"] {
            assert!(exported.iter().any(|name| name == symbol), "{profile}: {symbol} is not in {exported:?}");
        }
    }
}
