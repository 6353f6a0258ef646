//! Which folders take files: those of the site, and never those of code.

use super::{Form, names, site};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use tests::{PATIENCE, Server, Site};

/// Runs the server in a mount namespace of its own, after this script.
fn command(site: &Site, script: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", &format!("{script} && exec \"$@\""), "sh"]);
    command.arg(tests::server::binary()).args(["--bind", "127.0.0.1:0", "--runtime", "runtime"]).args(arguments);
    command.current_dir(site.path(""));
    command
}

#[track_caller]
fn assert_refused(command: Command, expected: &str) {
    let output = tests::server::finish(command);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), text.contains(expected)), (Some(2), true), "{text}");
}

#[test]
fn prefixes_that_are_no_folders_of_the_site_are_refused_with_what_to_do() {
    let site = site();
    site.write("html/file", "");
    fs::create_dir(site.path("outside")).unwrap();
    symlink("../outside", site.path("html/out")).unwrap();
    for (arguments, expected) in [
        (&["--upload", "/none"][..], "there is no folder"),
        (&["--upload", "/none"], "; mkdir "),
        (&["--upload", "/file"], "is not a folder"),
        (&["--upload", "/out"], "leads out of the site by a symbolic link"),
        (&["--upload", "/in", "--html", "none"], "name one with --html DIR"),
        (&["--upload", "in"], "must start with a slash"),
        (&["--upload", "/in", "--upload-token-file", "none"], "cannot read the token"),
    ] {
        assert_refused(
            site.command(&[&["--bind", "127.0.0.1:0", "--runtime", "runtime"], arguments].concat()),
            expected,
        );
    }
}

#[test]
fn folders_of_code_are_refused_at_the_start_by_whatever_name() {
    let site = site();
    for folder in ["handlers/sub", "html/in/sub"] {
        fs::create_dir(site.path(folder)).unwrap();
    }
    for (script, arguments, expected) in [
        ("true", &["--upload", "/in", "--handlers", "html/in"][..], "is inside --html"),
        ("mount --bind handlers html/in", &["--upload", "/in"], "--handlers"),
        ("mount --bind handlers/sub html/in", &["--upload", "/in"], "--handlers"),
        ("mount --bind html/in handlers/sub", &["--upload", "/in", "--handlers", "handlers/sub"], "--handlers"),
        ("mount --bind html/in/sub handlers", &["--upload", "/in"], "--handlers"),
        ("mount --bind html/in/sub handlers", &["--upload", "/"], "--handlers"),
    ] {
        assert_refused(command(&site, script, arguments), expected);
    }
    // Another file system there is what many have.
    let server = Server::start(command(&site, "mount -t tmpfs tmpfs html/in", &["--upload", "/in"]));
    assert_eq!(Form::new().file("a", "x").post(&server, "/in/").status, 201);
    assert_eq!(server.get("/in/a").text(), "x");
}

#[test]
fn a_folder_of_code_that_comes_later_is_refused_at_the_upload() {
    let site = site();
    fs::create_dir_all(site.path("html/in/sub")).unwrap();
    fs::create_dir_all(site.path("handlers/deep")).unwrap();
    // What a prefix has beneath it is looked at when it is used.
    for inner in ["handlers", "handlers/deep"] {
        let server = Server::start(command(&site, &format!("mount --bind {inner} html/in/sub"), &["--upload", "/in"]));
        for refused in [
            Form::new().file("evil.txt", "x").post(&server, "/in/sub/"),
            server.connect().request("PUT", "/in/sub/evil.txt", &[], b"x").expect("an answer"),
        ] {
            assert_eq!((refused.status, refused.text().contains("handlers")), (403, true), "{}", refused.text());
        }
        assert_eq!(Form::new().file("good.txt", "x").post(&server, "/in/").status, 201);
        assert!(!Path::new(&site.path(inner)).join("evil.txt").exists());
    }
}

#[test]
fn links_within_the_site_are_followed_and_those_that_lead_out_are_not() {
    let site = site();
    fs::create_dir_all(site.path("html/in/real")).unwrap();
    fs::create_dir(site.path("outside")).unwrap();
    symlink("real", site.path("html/in/link")).unwrap();
    symlink("../../outside", site.path("html/in/out")).unwrap();
    let server = super::start(&site, &[]);
    assert_eq!(Form::new().file("a", "x").post(&server, "/in/link/").status, 201);
    assert_eq!(names(&site, "html/in/real"), ["a"]);
    assert_eq!(Form::new().file("a", "x").post(&server, "/in/out/").status, 404);
    assert_eq!(server.connect().request("PUT", "/in/out/a", &[], b"x").expect("an answer").status, 409);
    assert_eq!(names(&site, "outside"), [""; 0]);
    server.wait_for_log("uploaded path=/in/link/a", PATIENCE);
}
