//! `host status`: what it shows, and of which server.

use crate::{build, complains, host, says, status};
use tests::{PATIENCE, Site, eventually, probe};

const CRASHES: &str = r#"#include "host.h"
    HOST_EXPORT host_body *application(host_env *env, host_start_response *start_response) {
        *(volatile int *)16 = 1;
        return 0;
    }"#;

#[test]
fn modules_workers_and_incidents_are_shown_to_people_and_to_programs() {
    let site = Site::new();
    probe::build(&site, "good", 1, &[]);
    build(&site, "crashing", CRASHES, &[]);
    site.write("handlers/empty.so", "");
    site.write(
        "handlers/greet/Cargo.toml",
        "[package]\nname = \"greet\"\n[lib]\ncrate-type = [\"cdylib\"]\n[workspace]\n",
    );
    let server = site.start(&["--workers", "2"]);
    for _ in 0..5 {
        assert_eq!(server.get("/crashing.so").status, 500);
    }
    server.wait_for_log("refused crashing", PATIENCE);
    probe::build(&site, "good", 2, &[]);
    server.wait_for_log("reloaded good generation 2", PATIENCE);
    let told = eventually("five incidents and two workers", PATIENCE, || {
        let status = status(&site);
        let count = |key: &str| status[key].as_array().map_or(0, Vec::len);
        (count("incidents") == 5 && count("workers") == 2).then_some(status)
    });
    assert_eq!(told["pid"], server.id());
    assert_eq!(told["listeners"][0], server.address().to_string());
    let module = |name: &str| {
        let modules = told["modules"].as_array().expect("a list");
        modules.iter().find(|module| module["name"] == name).unwrap_or_else(|| panic!("no {name} in {told}"))
    };
    assert_eq!((&module("good")["state"], &module("good")["generation"]), (&"serving".into(), &2.into()));
    assert_eq!(module("good")["others"], serde_json::json!([1]));
    assert_eq!(module("crashing")["state"], "suspended");
    assert_eq!(module("empty")["state"], "refused");
    assert_eq!(module("greet")["state"], "not_built");
    for worker in told["workers"].as_array().expect("a list") {
        assert_eq!(worker["phase"], "serving");
    }
    let last = &told["incidents"][4];
    assert_eq!((&last["number"], &last["module"], &last["generation"]), (&5.into(), &"crashing".into(), &1.into()));

    let table = says(&site, &["status"]);
    let row = |name: &str| {
        let row = table.lines().find(|line| line.starts_with(&format!("  {name} ")));
        row.unwrap_or_else(|| panic!("no {name} in:\n{table}")).to_owned()
    };
    assert!(row("good").contains("  generation 2 ") && row("good").ends_with("handlers/good.so; kept: 1"), "{table}");
    assert!(row("crashing").contains("  out of service ") && row("crashing").contains("of its last"), "{table}");
    assert!(row("empty").contains("  refused ") && row("empty").contains("handlers/empty.so: is empty"), "{table}");
    assert!(row("greet").contains("  not built ") && row("greet").contains("cargo build"), "{table}");
    assert!(row("5").contains("crashing generation 1 crashed: SIGSEGV in application"), "{table}");
    // As the start-up table, in columns.
    let columns: Vec<_> = ["good", "crashing", "empty"].iter().map(|name| row(name).find("handlers/")).collect();
    assert!(columns.windows(2).all(|pair| pair[0] == pair[1]), "{table}");
}

#[test]
fn the_server_that_is_meant_is_found_or_all_are_named() {
    let site = Site::new();
    assert!(complains(&site, &["status"]).contains("no running server keeps its folder in"));
    let other = Site::new();
    let server = site.start(&[]);
    let here = |site: &Site| complains(site, &["status", "--pid", "1"]);
    assert!(here(&site).contains(&format!("no running server fits; there are:\n  --pid {}", server.id())));
    // Two that keep their folders in the same place, started in different ones.
    let runtime = site.path("runtime").display().to_string();
    let mut command = other.command(&["--bind", "127.0.0.1:0", "--runtime", &runtime]);
    command.env("HOST_LOG", "info");
    let second = tests::Server::start(command);
    let pid = |output: std::process::Output| {
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        status["pid"].as_u64()
    };
    // Each is found from its own folder, and by what it is called.
    assert_eq!(pid(host(&site, &["status", "--json"])), Some(server.id().into()));
    assert_eq!(pid(other.run(&["status", "--json", "--runtime", &runtime])), Some(second.id().into()));
    assert_eq!(pid(host(&site, &["status", "--json", "--pid", &second.id().to_string()])), Some(second.id().into()));
    let handlers = other.path("handlers").display().to_string();
    assert_eq!(pid(host(&site, &["status", "--json", "--handlers", &handlers])), Some(second.id().into()));
    // From elsewhere nobody can know.
    let elsewhere = Site::new();
    let output = elsewhere.run(&["status", "--runtime", &runtime]);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    for server in [&server, &second] {
        let listed = format!("\n  --pid {}  {}  in ", server.id(), server.address());
        assert!(words.contains("several servers are running") && words.contains(&listed), "{words}");
    }
    // What a dead server leaves is no server.
    server.signal(rustix::process::Signal::KILL);
    eventually("only the second is left", PATIENCE, || {
        (pid(elsewhere.run(&["status", "--json", "--runtime", &runtime]))? == u64::from(second.id())).then_some(())
    });
}
