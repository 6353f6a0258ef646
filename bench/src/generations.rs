//! What each retired generation leaves in the memory of a worker that keeps it.

use crate::accounting;
use crate::process::go_on;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use tests::server::Server;
use tests::{PATIENCE, Site};

/// Replaces a module so often under a running `binary`, asking each build once, and says what each of the retired ones adds
/// to the memory of the server's processes, in KiB. `build` makes the numbered build in the file it is given.
///
/// # Errors
/// A build cannot be made; `Interrupted`.
///
/// # Panics
/// The server does not serve a build.
pub fn kib_each(binary: &Path, builds: u32, build: impl Fn(u32, &Path) -> io::Result<()>) -> io::Result<f64> {
    let site = Site::new();
    let module = site.path("handlers/hello.so");
    build(0, &module)?;
    let mut command = Command::new(binary);
    command.current_dir(site.path("")).stdin(Stdio::null());
    // More than are kept without being told, so that no worker is replaced meanwhile.
    let kept = (builds + 1).to_string();
    command.args(["--bind", "127.0.0.1:0", "--runtime", "runtime", "--threads", "1", "--limit-generations", &kept]);
    let server = Server::start(command);
    assert_eq!(server.get("/hello.so").status, 200, "the first build answers");
    let kib = || accounting::memory(&accounting::tree(server.id())).proportional_kib as f64;
    let before = kib();
    for number in 1..=builds {
        go_on()?;
        let mark = server.mark();
        build(number, &module)?;
        server.wait_for_log_since(mark, "reloaded hello", PATIENCE);
        assert_eq!(server.get("/hello.so").status, 200, "build {number} answers");
    }
    Ok((kib() - before) / f64::from(builds))
}
