//! How the changed options are named.

use super::*;
use crate::cli::{Invocation, parse};
use std::ffi::OsString;

fn config(arguments: &[&str]) -> Config {
    let always = ["host", "--html", "none", "--handlers", "."];
    match parse(always.iter().chain(arguments).map(OsString::from), |_| None) {
        Ok(Invocation::Serve(config)) => *config,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_differs_is_named_as_the_option_is() {
    let before = config(&[]);
    assert_eq!(changes(&before, &config(&[])), [""; 0]);
    let all = [
        ["--bind", "1"],
        ["--env", "A=b"],
        ["--limit-body", "1"],
        ["--limit-head", "1K"],
        ["--limit-threads", "1"],
        ["--limit-upload", "1"],
        ["--mount", "/a=a"],
        ["--timeout-idle", "1"],
        ["--workers", "7"],
    ];
    for option in all {
        assert_eq!(changes(&before, &config(&option)), [option[0].trim_start_matches('-')]);
    }
    assert_eq!([option("uploads"), option("upload_token")], ["upload", "upload-token-file"]);
    let switches = changes(&before, &config(&["--no-reload", "--trace", "a:b"]));
    assert_eq!(switches, ["no-reload", "application", "trace"]);
}
