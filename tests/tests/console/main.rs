//! The commands for a running server: `host status`, `host rollback`, `host replay`, and the socket that they speak to.

mod incidents;
mod rollback;
mod socket;
mod status;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Output;
use tests::{Server, Site, cc, children};

/// Runs a command for the server of this site.
fn host(site: &Site, arguments: &[&str]) -> Output {
    site.run(&[arguments, &["--runtime", "runtime"]].concat())
}

/// What a command that succeeds prints.
#[track_caller]
fn says(site: &Site, arguments: &[&str]) -> String {
    let output = host(site, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("it is text")
}

/// What a command that fails complains of.
#[track_caller]
fn complains(site: &Site, arguments: &[&str]) -> String {
    let output = host(site, arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
    String::from_utf8(output.stderr).expect("it is text")
}

/// `host status --json`.
fn status(site: &Site) -> serde_json::Value {
    serde_json::from_str(&says(site, &["status", "--json"])).expect("it is JSON")
}

/// A module in C, built elsewhere and moved to its place, so that there is one change to be seen.
fn build(site: &Site, module: &str, source: &str, flags: &[&str]) {
    let source = site.write(&format!("sources/{module}.c"), source);
    let built = site.path(&format!("{module}.new"));
    cc(&source, &built, flags);
    std::fs::rename(built, site.path(&format!("handlers/{module}.so"))).expect("it is on the same file system");
}

/// The folder of the site's only server.
fn server_folder(site: &Site) -> PathBuf {
    let folders = std::fs::read_dir(site.path("runtime")).expect("the runtime folder");
    let mut folders = folders.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_dir());
    folders.next().expect("the server's folder")
}

fn workers(server: &Server) -> BTreeSet<u32> {
    let workers = children(server.id()).into_iter().filter(|child| child.command == "host: worker");
    workers.map(|worker| worker.id).collect()
}
