//! From starting `host` with the example handlers to its first answer.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tests::repository;
use tests::server::Server;

/// Starts `binary` in the repository's root, waits until it says where it listens, and asks `/ctime.so`.
///
/// # Panics
/// It does not answer: the example handlers are not built.
pub fn to_first_answer(binary: &Path) -> Duration {
    let mut command = Command::new(binary);
    command.current_dir(repository()).args(["--bind", "127.0.0.1:0", "framework:app"]);
    let started = Instant::now();
    let server = Server::start(command);
    assert_eq!(server.get("/ctime.so").status, 200, "the example handlers are built");
    let took = started.elapsed();
    server.stop();
    took
}
