//! The command line seen from outside: what is printed where, and with which code the process ends.

use std::process::Output;
use tests::{Site, compile, repository};

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).expect("UTF-8")
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).expect("UTF-8")
}

/// Runs `host`, which must refuse with the code for usage and say `expected`, on standard error alone.
fn assert_usage_error(site: &Site, arguments: &[&str], variables: &[(&str, &str)], expected: &str) {
    let mut command = site.command(arguments);
    command.envs(variables.iter().copied());
    let output = tests::server::finish(command);
    assert!(stderr(&output).contains(expected), "{arguments:?} {variables:?}: {}", stderr(&output));
    assert!(stderr(&output).starts_with("error: "), "{}", stderr(&output));
    assert_eq!((output.status.code(), stdout(&output)), (Some(2), ""), "{arguments:?}");
}

#[test]
fn help_and_version_are_no_errors() {
    let site = Site::new();
    let help = site.run(&["--help"]);
    assert_eq!((help.status.code(), stderr(&help)), (Some(0), ""));
    assert!(stdout(&help).contains("host framework:app"));
    let version = site.run(&["--version"]);
    assert_eq!((version.status.code(), stdout(&version)), (Some(0), concat!("host ", env!("CARGO_PKG_VERSION"), "\n")));
}

#[test]
fn usage_errors_end_with_2_and_name_the_remedy() {
    let site = Site::new();
    site.write("bad.toml", "workers = 1\nlimit-heads = 1\n");
    for (arguments, expected) in [
        (&["--bnid", "80"][..], "'--bind'"),
        (&["--bind", "example.org:80"], "say a port (8080), an IP address and a port"),
        (&["--limit-head", "1KB"], "say bytes (4096), or 32K"),
        (&["--timeout-idle", "0"], "every wait has an end"),
        (&["--workers", "0"], "must be at least 1"),
        (&["--mount", "api=m"], "must start with a slash"),
        (&["--env", "HTTP_HOST=x"], "comes from the request"),
        (&["handlers/libctime.so"], "name the module, such as ctime"),
        (&["framework:my-app"], "is no function's name"),
        (&["--html", "nowhere"], "no folder nowhere; create it, or say --html none"),
        (&["--handlers", "nowhere"], "no folder nowhere; create it, or name another with --handlers DIR"),
        (&["--config", "bad.toml"], "bad.toml:2: unknown key \"limit-heads\"; did you mean \"limit-head\"?"),
        (&["--config", "none.toml"], "cannot read the configuration none.toml"),
        (&["check"], "<FILE>"),
        (&["generate", "header", "extra"], "'extra'"),
    ] {
        assert_usage_error(&site, arguments, &[], expected);
    }
    assert_usage_error(&site, &[], &[("HOST_THREADS", "many")], "HOST_THREADS: threads: \"many\": not a number");
    assert_usage_error(&site, &[], &[("HOST_LOG", "loud")], "say error, warn, info or debug");
    assert_usage_error(&site, &[], &[("HOST_CONFIG", "bad.toml")], "bad.toml:2: ");
}

#[test]
fn a_missing_default_folder_names_itself() {
    let site = Site::new();
    std::fs::remove_dir(site.path("html")).expect("an empty folder");
    assert_usage_error(&site, &[], &[], "error: no folder ./html; create it, or say --html none\n");
}

#[test]
fn the_generated_header_is_the_contract() {
    let site = Site::new();
    let header = site.run(&["generate", "header"]);
    let contract = std::fs::read(compile::include().join("host.h")).expect("the contract");
    assert_eq!((header.status.code(), header.stdout == contract), (Some(0), true));
}

#[test]
fn the_manual_and_completions_know_every_option() {
    let site = Site::new();
    let help = site.run(&["--help"]);
    let options: Vec<&str> = stdout(&help)
        .split_whitespace()
        .map(|word| word.trim_end_matches(','))
        .filter(|word| word.starts_with("--") && !word.contains('='))
        .collect();
    assert!(options.len() > 20, "{options:?}");
    let manual = site.run(&["generate", "man"]);
    let completions = site.run(&["generate", "completions", "bash"]);
    let document = std::fs::read_to_string(repository().join("docs/configuration.md")).expect("the document");
    for option in options {
        // roff writes a hyphen that is not to be broken as `\-`.
        assert!(stdout(&manual).contains(&option.replace('-', "\\-")), "no {option} in the manual");
        assert!(stdout(&completions).contains(option), "no {option} in the completions");
        let known_to_all = matches!(option, "--help" | "--version");
        assert!(known_to_all || document.contains(&format!("`{option}`")), "no {option} in docs/configuration.md");
    }
}
