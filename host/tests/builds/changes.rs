//! Every way in which a file comes to be, changes and goes.

use crate::stage::{Stage, module};
use host::supervisor::builds::{Found, Notice, discard};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::time::Duration;

#[test]
fn the_first_look_tells_of_everything_and_then_that_it_is_complete() {
    let mut stage = Stage::new();
    stage.cc(&stage.handler("good.so"), &module("1"), &[]);
    fs::write(stage.handler("bad.so"), "no library").unwrap();
    fs::create_dir_all(stage.handler("admin/unbuilt")).unwrap();
    let manifest = "[package]\nname = \"say-hello\"\n[lib]\ncrate-type = [\"cdylib\"]\n[workspace]\n";
    fs::write(stage.handler("admin/unbuilt/Cargo.toml"), manifest).unwrap();
    let notices = stage.start();
    assert_eq!(notices.len(), 4);
    let told: BTreeSet<String> = notices
        .iter()
        .map(|notice| match notice {
            Notice::Sound(build) => format!("sound {} {}", build.module, build.generation),
            Notice::Refused { module, .. } => format!("refused {module}"),
            Notice::NotBuilt { module, hint } => format!("not built {module}: {hint}"),
            Notice::Gone { module } => format!("gone {module}"),
            Notice::Scanned { .. } => "scanned".into(),
        })
        .collect();
    let expected = ["not built admin/unbuilt: cargo build -p say-hello", "refused bad", "scanned", "sound good 1"];
    assert_eq!(told, expected.map(String::from).into());
    let Some(Notice::Scanned { modules }) = notices.last() else { panic!("{notices:?}") };
    let found = |module: &str, file: Option<&str>| Found {
        module: module.into(),
        file: file.map(|file| stage.handler(file)),
        note: String::new(),
    };
    assert_eq!(*modules, [found("admin/unbuilt", None), found("bad", Some("bad.so")), found("good", Some("good.so"))]);
}

#[test]
fn every_overwrite_in_place_becomes_a_generation() {
    let mut stage = Stage::new();
    stage.start();
    let path = stage.handler("x.so");
    let mut copies = BTreeSet::new();
    for round in 1..=10u64 {
        stage.cc(&path, &module(&round.to_string()), &[]);
        let build = stage.version("x", &round.to_string());
        assert!(build.generation >= round);
        assert!(copies.insert(build.copy.clone()), "a path that was used before gives the old code");
        assert_eq!(build.copy.file_name().unwrap(), "x.so");
        assert_eq!(build.source, path);
        discard(&build);
        assert!(!build.folder.exists());
    }
}

#[test]
fn a_rename_and_a_delete_with_hard_link_are_changes() {
    let mut stage = Stage::new();
    stage.start();
    fs::create_dir(stage.path("out")).unwrap();
    let (path, built) = (stage.handler("libx.so"), stage.path("out/x"));
    for round in 0..6 {
        let version = round.to_string();
        stage.cc(&built, &module(&version), &[]);
        if round % 2 == 0 {
            fs::rename(&built, &path).unwrap();
        } else {
            // As cargo does.
            fs::remove_file(&path).unwrap();
            fs::hard_link(&built, &path).unwrap();
            fs::remove_file(&built).unwrap();
        }
        assert_eq!(stage.version("x", &version).generation, round + 1);
    }
}

#[test]
fn a_build_that_is_being_written_is_not_taken_before_its_writer_is_done() {
    let mut stage = Stage::new();
    stage.start();
    stage.cc(&stage.path("built"), &module("1"), &[]);
    let bytes = fs::read(stage.path("built")).unwrap();
    let mut writer = File::create(stage.handler("slow.so")).unwrap();
    writer.write_all(&bytes[..bytes.len() / 2]).unwrap();
    // Others are not held up, and by the time that this one was taken, the slow one would have been, too.
    for round in 1..=3u32 {
        stage.cc(&stage.handler("other.so"), &module(&round.to_string()), &[]);
        stage.version("other", &round.to_string());
    }
    writer.write_all(&bytes[bytes.len() / 2..]).unwrap();
    drop(writer);
    stage.version("slow", "1");
}

#[test]
fn what_is_taken_is_always_one_whole_build() {
    let mut stage = Stage::new();
    let builds = ["1", "2"].map(|version| {
        stage.cc(&stage.path(version), &module(version), &[]);
        fs::read(stage.path(version)).unwrap()
    });
    stage.start();
    let path = stage.handler("x.so");
    for round in 0..300 {
        let bytes = &builds[round % 2];
        if round % 3 == 0 {
            fs::write(stage.path("next"), bytes).unwrap();
            fs::rename(stage.path("next"), &path).unwrap();
        } else {
            fs::write(&path, bytes).unwrap();
        }
        std::thread::sleep(Duration::from_micros(137 * round as u64));
    }
    stage.cc(&path, &module("3"), &[]);
    loop {
        let build = stage.sound("x");
        let copy = fs::read(&build.copy).unwrap();
        match build.report.version.as_deref() {
            Some("1") => assert!(copy == builds[0]),
            Some("2") => assert!(copy == builds[1]),
            _ => break,
        }
    }
}

#[test]
fn a_broken_build_is_refused_and_the_next_good_one_taken() {
    let mut stage = Stage::new();
    stage.cc(&stage.handler("x.so"), &module("1"), &[]);
    stage.start();
    for round in 2..5u32 {
        let bytes = fs::read(stage.handler("x.so")).unwrap();
        fs::write(stage.handler("x.so"), &bytes[..bytes.len() / 2]).unwrap();
        assert!(stage.refused("x").starts_with("is truncated"));
        stage.cc(&stage.handler("x.so"), &module(&round.to_string()), &[]);
        assert_eq!(
            stage.version("x", &round.to_string()).generation,
            u64::from(round),
            "refused builds take no number"
        );
    }
}

#[test]
fn a_newer_build_does_not_wait_for_one_that_hangs() {
    let mut stage = Stage::new();
    stage.options.check_timeout = Duration::from_secs(3600);
    stage.start();
    let hanging = "#include <unistd.h>\nEXPORT void application(void) {}\
                   __attribute__((constructor)) void run(void) { for (;;) pause(); }";
    stage.cc(&stage.handler("x.so"), hanging, &[]);
    stage.cc(&stage.handler("y.so"), &module("1"), &[]);
    stage.version("y", "1");
    stage.cc(&stage.handler("x.so"), &module("2"), &[]);
    assert_eq!(stage.sound("x").generation, 1);
    // Neither does the end.
    stage.cc(&stage.handler("x.so"), hanging, &[]);
    stage.cc(&stage.handler("y.so"), &module("2"), &[]);
    let y = stage.version("y", "2");
    stage.stop();
    assert!(y.copy.exists(), "sound builds belong to their owner");
}

#[test]
fn a_module_is_gone_after_a_while_and_keeps_its_numbers_if_it_returns() {
    let mut stage = Stage::new();
    stage.cc(&stage.handler("x.so"), &module("1"), &[]);
    stage.start();
    // Away for a moment is not gone: the next notice is the new build.
    stage.cc(&stage.path("next"), &module("2"), &[]);
    fs::remove_file(stage.handler("x.so")).unwrap();
    fs::rename(stage.path("next"), stage.handler("x.so")).unwrap();
    assert_eq!(stage.sound("x").generation, 2);
    fs::remove_file(stage.handler("x.so")).unwrap();
    assert!(matches!(stage.next(), Notice::Gone { module } if module == "x"));
    stage.cc(&stage.handler("x.so"), &module("3"), &[]);
    assert_eq!(stage.sound("x").generation, 3);
}

#[test]
fn a_crate_is_built_rebuilt_and_cleaned() {
    let mut stage = Stage::new();
    fs::create_dir(stage.handler("x")).unwrap();
    let manifest = "[package]\nname = \"x\"\n[lib]\ncrate-type = [\"cdylib\"]\n[workspace]\n";
    fs::write(stage.handler("x/Cargo.toml"), manifest).unwrap();
    stage.start();
    let (debug, release) = (stage.handler("x/target/debug"), stage.handler("x/target/release"));
    fs::create_dir_all(&release).unwrap();
    stage.cc(&release.join("libx.so"), &module("1"), &[]);
    assert_eq!(stage.version("x", "1").note, "");
    fs::create_dir_all(&debug).unwrap();
    stage.cc(&debug.join("libx.so"), &module("2"), &[]);
    let build = stage.version("x", "2");
    assert_eq!((build.source, build.note.as_str()), (debug.join("libx.so"), "newer than release"));
    // While cargo replaces the debug build, the older release build does not answer in its place.
    stage.cc(&stage.path("next"), &module("3"), &[]);
    fs::remove_file(debug.join("libx.so")).unwrap();
    fs::rename(stage.path("next"), debug.join("libx.so")).unwrap();
    assert_eq!(stage.sound("x").report.version.as_deref(), Some("3"));
    // But it does when the debug build is gone for good.
    fs::remove_dir_all(&debug).unwrap();
    assert_eq!(stage.sound("x").report.version.as_deref(), Some("1"));
    fs::remove_dir_all(stage.handler("x/target")).unwrap();
    assert!(matches!(stage.next(), Notice::Gone { .. }));
    assert!(matches!(stage.next(), Notice::NotBuilt { hint, .. } if hint == "cargo build -p x"));
    fs::remove_dir_all(stage.handler("x")).unwrap();
    assert!(matches!(stage.next(), Notice::Gone { .. }));
}

#[test]
fn folders_that_come_later_are_watched_too() {
    let mut stage = Stage::new();
    fs::remove_dir(&stage.options.handlers).unwrap();
    stage.start();
    fs::create_dir_all(stage.handler("admin/deep")).unwrap();
    stage.cc(&stage.handler("admin/deep/x.so"), &module("1"), &[]);
    stage.version("admin/deep/x", "1");
    // The whole folder is replaced by another one.
    fs::create_dir_all(stage.path("next/admin/deep")).unwrap();
    stage.cc(&stage.path("next/admin/deep/x.so"), &module("2"), &[]);
    fs::rename(&stage.options.handlers, stage.path("old")).unwrap();
    fs::rename(stage.path("next"), &stage.options.handlers).unwrap();
    stage.version("admin/deep/x", "2");
    stage.cc(&stage.handler("admin/deep/x.so"), &module("3"), &[]);
    stage.version("admin/deep/x", "3");
}

#[test]
fn a_change_that_gives_no_event_is_found_by_the_poll() {
    let mut stage = Stage::new();
    for folder in ["links", "one", "two"] {
        fs::create_dir(stage.path(folder)).unwrap();
    }
    stage.cc(&stage.path("one/real.so"), &module("1"), &[]);
    stage.cc(&stage.path("two/real.so"), &module("2"), &[]);
    symlink(stage.path("one/real.so"), stage.path("links/x.so")).unwrap();
    symlink(stage.path("links/x.so"), stage.handler("x.so")).unwrap();
    stage.start();
    // Watched are the folder of handlers and the folder of the file at the end; the one between them is not.
    symlink(stage.path("two/real.so"), stage.path("links/next")).unwrap();
    fs::rename(stage.path("links/next"), stage.path("links/x.so")).unwrap();
    stage.version("x", "2");
    // A file behind a link is watched where it is.
    stage.cc(&stage.path("two/real.so"), &module("3"), &[]);
    stage.version("x", "3");
}

#[test]
fn without_reload_only_a_rescan_looks() {
    let mut stage = Stage::new();
    stage.options.reload = false;
    stage.cc(&stage.handler("x.so"), &module("1"), &[]);
    stage.start();
    stage.cc(&stage.handler("x.so"), &module("2"), &[]);
    stage.builds().rescan(false);
    assert_eq!(stage.sound("x").report.version.as_deref(), Some("2"));
    stage.builds().rescan(false);
    stage.builds().rescan(true);
    assert_eq!(stage.sound("x").generation, 3);
    stage.stop();
    assert!(stage.nothing_was_told());
}
