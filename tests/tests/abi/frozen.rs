//! Modules that were compiled when ABI 1.0 was frozen, and never again.
#![cfg(all(target_arch = "x86_64", target_env = "gnu"))]

use std::fs;
use tests::{PATIENCE, Server, Site, repository};

fn start() -> (Site, Server) {
    let site = Site::new();
    for name in ["described", "hello", "ticks", "upper"] {
        let compiled = repository().join(format!("tests/tests/abi/frozen/1.0/{name}.so"));
        fs::copy(compiled, site.path(&format!("handlers/{name}.so"))).expect("the module that was compiled once");
    }
    let server = site.start(&["--threads", "1"]);
    (site, server)
}

#[test]
fn the_examples_of_1_0_answer_as_they_did() {
    let (_site, server) = start();
    assert_eq!(server.get("/hello.so").text(), "Hello, World!\n");
    assert_eq!(server.get("/ticks.so?n=3").text(), "3\n2\n1\n");
    let upper = server.connect().request("POST", "/upper.so", &[], b"shout").expect("an answer");
    assert_eq!(upper.text(), "SHOUT");
}

#[test]
fn every_struct_of_1_0_means_what_it_meant() {
    let (_site, server) = start();
    let response = server.connect().request("POST", "/described.so/path", &[], b"one\ntwo").expect("an answer");
    assert_eq!((response.status, response.text()), (200, "one\ntwo then /path"));
    assert_eq!(response.field("x-generation"), Some("1"));
    server.wait_for_log("replaced, as it was not sent", PATIENCE);
}
