//! A handler in C that shows by which build, process and thread a request was answered, and misbehaves on demand.

use crate::client::Response;
use crate::{Site, compile};
use std::path::PathBuf;

/// Its source, with what it can be asked for.
pub const SOURCE: &str = include_str!("probe.c");

/// Compiles it as version `version` of `module`, in place; `flags` are the compiler's, such as `-DREPLACE`.
///
/// # Panics
/// It does not compile.
pub fn build(site: &Site, module: &str, version: usize, flags: &[&str]) -> PathBuf {
    let source = site.write("sources/probe.c", SOURCE);
    let out = site.path(&format!("handlers/{module}.so"));
    std::fs::create_dir_all(out.parent().expect("the folder of handlers")).expect("the module's folder");
    let version = format!("-DVERSION={version}");
    compile::cc(&source, &out, &[&[version.as_str()], flags].concat());
    out
}

/// The version of the build that answered.
///
/// # Panics
/// The response is none of the probe's.
pub fn version(response: &Response) -> usize {
    number(response, "X-Version")
}

/// The process that answered.
///
/// # Panics
/// As [`version`].
pub fn process(response: &Response) -> u32 {
    number(response, "X-Process")
}

/// The thread that answered.
///
/// # Panics
/// As [`version`].
pub fn thread(response: &Response) -> u32 {
    number(response, "X-Thread")
}

fn number<T: std::str::FromStr>(response: &Response, field: &str) -> T {
    let value = response.field(field).and_then(|value| value.parse().ok());
    value.unwrap_or_else(|| panic!("the probe did not answer this: {response:?}"))
}
