//! State that is handed on: a module counts its calls, and whatever becomes of builds and workers, the count is the number
//! of calls that were answered.
//!
//! `exact`: where nothing may be lost. `worst`: builds that refuse a state, and functions that crash, hang or ask too much;
//! and what is left when nobody could be asked.

mod exact;
mod worst;

use std::fs;
use tests::{Load, PATIENCE, Response, Server, Site, cc, children, eventually, repository};

/// Compiles `counting.c` as this version, in place.
fn build(site: &Site, version: usize, flags: &[&str]) {
    let source = repository().join("tests/tests/state/counting.c");
    let version = format!("-DVERSION={version}");
    cc(&source, &site.path("handlers/counting.so"), &[&["-g", "-Wall", "-Werror", &version], flags].concat());
}

/// A handler that crashes when it is asked to.
fn build_guilty(site: &Site) {
    site.compile(
        "guilty",
        r#"#include "host.h"
        HOST_EXPORT host_body *application(host_env *env, host_start_response *start_response) {
            (void)start_response;
            *(volatile int *)(env->get(env, HOST_STR("PATH_INFO")).len ? 16 : 24) = 1;
            return NULL;
        }"#,
    );
}

/// 16 connections that count.
fn count_without_pause(server: &Server) -> Load {
    Load::start(server.address(), 16, &["/counting.so"], |_, response| {
        number(response).map(|_| ()).ok_or_else(|| format!("{}{}", response.head, response.text()))
    })
}

fn number(response: &Response) -> Option<u64> {
    response.text().parse().ok()
}

/// The count as it is.
fn look(server: &Server) -> u64 {
    let response = server.get("/counting.so/look");
    number(&response).unwrap_or_else(|| panic!("{}{}", response.head, response.text()))
}

/// Counts so many calls, one after the other.
fn count(server: &Server, times: usize) {
    let mut client = server.connect();
    (0..times).for_each(|_| assert_eq!(client.get("/counting.so").expect("an answer").status, 200));
}

/// Ends the load: nothing was lost, and the count is the number of its answers.
#[track_caller]
fn assert_exact(server: &Server, load: Load) {
    let report = load.finish();
    report.assert_nothing_lost();
    assert_eq!(look(server), report.answered);
}

fn workers(server: &Server) -> Vec<u32> {
    let workers = children(server.id()).into_iter().filter(|child| child.command == "host: worker");
    workers.map(|worker| worker.id).collect()
}

/// Waits until none of these is left, and so many others serve.
fn replaced(server: &Server, old: &[u32], count: usize) {
    eventually("the workers are replaced", PATIENCE, || {
        let now = workers(server);
        (now.len() == count && now.iter().all(|worker| !old.contains(worker))).then_some(())
    });
}

/// Waits until this count has been saved by a build that was compiled with `-DKEPT=…` for this file, and the supervisor
/// has it: what is saved after it goes the same way.
fn wait_until_kept(site: &Site, server: &Server, count: u64) {
    let saved = || fs::read_to_string(site.path("kept")).unwrap_or_default();
    let has = |count: u64| saved().lines().any(|line| line == count.to_string());
    eventually("the count is saved", PATIENCE, || has(count).then_some(()));
    // The file is written within save; a state is in a descriptor of the supervisor when it has been told of it.
    eventually("the supervisor has it", PATIENCE, || {
        kept_files(server).contains(&format!("count {count}")).then_some(())
    });
}

/// The states that a supervisor keeps.
fn kept_files(server: &Server) -> Vec<String> {
    let Ok(folder) = fs::read_dir(format!("/proc/{}/fd", server.id())) else { return Vec::new() };
    let in_memory =
        |path: &std::path::Path| fs::read_link(path).is_ok_and(|to| to.starts_with("/memfd:host (deleted)"));
    let files = folder.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| in_memory(path));
    files.filter_map(|path| fs::read_to_string(path).ok()).collect()
}

fn kept_flag(site: &Site) -> String {
    format!("-DKEPT=\"{}\"", site.path("kept").display())
}
