//! The contract of `host.h` from the side of a module: small modules in C, compiled as their authors would, and what
//! clients and the log see of what they do.
//!
//! `environ`: what `get` and `each` give. `input`: `read` and `readline`. `response`: `start_response`, `write`, bodies and
//! files. `modules`: `init` and `stop`, and what the flags promise. `frozen`: modules compiled long ago.

mod environ;
mod frozen;
mod input;
mod modules;
mod response;

use std::io::ErrorKind;
use tests::{Response, Site, cc, repository};

/// Compiles `NAME.c` of this folder to `handlers/NAME.so`, with the warnings that a careful author turns on.
fn compile(site: &Site, name: &str, flags: &[&str]) {
    let source = repository().join(format!("tests/tests/abi/{name}.c"));
    let flags = [&["-Wall", "-Wextra", "-Werror", "-pthread"], flags].concat();
    cc(&source, &site.path(&format!("handlers/{name}.so")), &flags);
}

/// The connection has been aborted or closed before the response was complete.
#[track_caller]
fn assert_aborted(result: std::io::Result<Response>) {
    let error = result.expect_err("a response that cannot be complete");
    assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof), "{error}");
}
