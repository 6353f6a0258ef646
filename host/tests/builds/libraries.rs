//! Modules with company: private libraries, siblings, and what cannot be loaded twice.

use crate::stage::{Stage, compile, module};
use host::handler::check::ReloadClass;
use host::supervisor::builds::{Build, Notice};
use std::fs;

/// A module whose version is what its private library says.
const OF_HELPER: &str = "const char *help(void);
    EXPORT void *application(void *env, void *start) { return env; }
    MODULE(.name = \"module\");
    __attribute__((constructor)) void run(void) { host_module.version = help(); }";

fn helper(stage: &Stage, name: &str, version: &str) {
    stage.cc(&stage.path(name), &format!("EXPORT const char *help(void) {{ return \"{version}\"; }}"), &[]);
}

/// The first look at one module.
fn first(stage: &mut Stage) -> Build {
    match stage.start().swap_remove(0) {
        Notice::Sound(build) => build,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_private_library_is_copied_and_rebuilding_it_alone_reloads_the_module() {
    for (place, runpath) in [("handlers/libhelper.so", "$ORIGIN"), ("lib/libhelper.so", "$ORIGIN/../lib")] {
        for kind in ["--enable-new-dtags", "--disable-new-dtags"] {
            let mut stage = Stage::new();
            fs::create_dir_all(stage.path("lib")).unwrap();
            helper(&stage, place, "1");
            let library = stage.path(place);
            let folder = format!("-L{}", library.parent().unwrap().display());
            let search = format!("-Wl,{kind},-rpath,{runpath}");
            stage.cc(&stage.handler("x.so"), OF_HELPER, &[&folder, "-lhelper", &search]);
            let notices = stage.start();
            let [Notice::Sound(build), Notice::Scanned { modules }] = &notices[..] else { panic!("{notices:?}") };
            assert_eq!(modules.len(), 1, "a library of modules is no module: {modules:?}");
            assert_eq!(build.report.version.as_deref(), Some("1"));
            assert_eq!(build.report.class, ReloadClass::Replace);
            assert!(build.report.reasons[0].contains("libhelper.so"), "{:?}", build.report.reasons);
            let mapped = build.copy.parent().unwrap().join(runpath.replace("$ORIGIN", ".")).join("libhelper.so");
            assert!(mapped.canonicalize().unwrap().starts_with(stage.options.runtime.canonicalize().unwrap()));

            helper(&stage, place, "2");
            assert_eq!(stage.version("x", "2").generation, 2);
            // The copy of the old build keeps the old library.
            assert_ne!(fs::read(&mapped).unwrap(), fs::read(&library).unwrap());
        }
    }
}

#[test]
fn a_library_of_a_library_is_copied_and_a_missing_one_is_awaited() {
    let mut stage = Stage::new();
    let outer = "const char *deep(void); EXPORT const char *help(void) { return deep(); }";
    let deep = |version: &str| format!("EXPORT const char *deep(void) {{ return \"{version}\"; }}");
    fs::create_dir_all(stage.handler("private")).unwrap();
    stage.cc(&stage.handler("private/libdeep.so"), &deep("1"), &[]);
    let folder = format!("-L{}", stage.handler("private").display());
    stage.cc(&stage.handler("private/libhelper.so"), outer, &[&folder, "-ldeep", "-Wl,-rpath,$ORIGIN"]);
    stage.cc(
        &stage.handler("x.so"),
        OF_HELPER,
        &[&folder, "-lhelper", "-Wl,-rpath,$ORIGIN/private", "-Wl,--allow-shlib-undefined"],
    );
    let build = stage.start().into_iter().find_map(|notice| match notice {
        Notice::Sound(build) => Some(build),
        _ => None,
    });
    assert_eq!(build.unwrap().report.version.as_deref(), Some("1"));
    stage.cc(&stage.handler("private/libdeep.so"), &deep("2"), &[]);
    stage.version("x", "2");

    fs::remove_file(stage.handler("private/libdeep.so")).unwrap();
    assert!(stage.refused("x").starts_with("needs libdeep.so, which is not found"));
    stage.cc(&stage.handler("private/libdeep.so"), &deep("3"), &[]);
    stage.version("x", "3");
}

#[test]
fn a_library_at_a_fixed_place_is_not_copied_but_its_change_reloads() {
    let mut stage = Stage::new();
    fs::create_dir_all(stage.path("lib")).unwrap();
    helper(&stage, "lib/libhelper.so", "1");
    let folder = stage.path("lib");
    let (link, search) = (format!("-L{}", folder.display()), format!("-Wl,-rpath,{}", folder.display()));
    stage.cc(&stage.handler("x.so"), OF_HELPER, &[&link, "-lhelper", &search]);
    let build = first(&mut stage);
    assert_eq!(build.report.class, ReloadClass::Replace);
    assert!(build.report.reasons[0].contains("at that very place"), "{:?}", build.report.reasons);
    helper(&stage, "lib/next", "2");
    fs::rename(stage.path("lib/next"), stage.path("lib/libhelper.so")).unwrap();
    stage.version("x", "2");
}

#[test]
fn a_broken_private_library_is_named() {
    let mut stage = Stage::new();
    helper(&stage, "handlers/libhelper.so", "1");
    let folder = format!("-L{}", stage.options.handlers.display());
    stage.cc(&stage.handler("x.so"), OF_HELPER, &[&folder, "-lhelper", "-Wl,-rpath,$ORIGIN"]);
    first(&mut stage);
    let bytes = fs::read(stage.handler("libhelper.so")).unwrap();
    fs::write(stage.handler("libhelper.so"), &bytes[..bytes.len() - 64]).unwrap();
    let reasons: Vec<String> = (0..2)
        .map(|_| match stage.next() {
            Notice::Refused { reason, .. } => reason,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(
        reasons
            .iter()
            .any(|reason| reason.starts_with("needs ") && reason.contains("libhelper.so, which is truncated")),
        "{reasons:?}"
    );
}

#[test]
fn what_lies_beside_a_module_is_found_beside_its_copy() {
    let mut stage = Stage::new();
    fs::write(stage.handler("words.txt"), "hello").unwrap();
    fs::create_dir(stage.handler("templates")).unwrap();
    fs::write(stage.handler("templates/page"), "page").unwrap();
    stage.cc(&stage.handler("x.so"), &module("1"), &[]);
    let build = first(&mut stage);
    let beside = build.copy.parent().unwrap();
    assert_eq!(fs::read_to_string(beside.join("words.txt")).unwrap(), "hello");
    assert_eq!(fs::read_to_string(beside.join("templates/page")).unwrap(), "page");
    assert_eq!(build.report.class, ReloadClass::Swap);
    host::supervisor::builds::discard(&build);
    assert!(!build.folder.exists() && stage.handler("templates/page").exists());
}

#[test]
fn unique_symbols_and_static_tls_are_reloaded_by_a_new_worker() {
    let mut stage = Stage::new();
    let unique = "inline int &counter() { static int value; return value; }
                  EXPORT void *application(void *env, void *) { return counter()++ ? env : nullptr; }";
    compile("g++", "cc", &stage.handler("x.so"), unique, &["-Wno-attributes"]);
    let build = first(&mut stage);
    assert_eq!(build.report.class, ReloadClass::Replace);
    assert!(build.report.reasons[0].starts_with("its unique symbols (_ZZ"), "{:?}", build.report.reasons);

    let mut stage = Stage::new();
    let tls = "static __thread int value; EXPORT int *application(void) { value++; return &value; }";
    stage.cc(&stage.handler("x.so"), tls, &["-ftls-model=initial-exec"]);
    let build = first(&mut stage);
    assert_eq!(build.report.class, ReloadClass::Replace);
    assert!(build.report.reasons[0].contains("static TLS"), "{:?}", build.report.reasons);
}

/// No Go compiler is needed to say what a Go library looks like: its linker leaves this section in every one, stripped or not.
#[test]
fn a_go_runtime_of_which_a_process_holds_one_is_reloaded_by_a_new_worker() {
    let mut stage = Stage::new();
    let go = "__attribute__((section(\".go.buildinfo\"), used)) static const char info[] = \"\\xff Go buildinf:\";
              EXPORT void *application(void) { return 0; }";
    stage.cc(&stage.handler("x.so"), go, &[]);
    let build = first(&mut stage);
    assert_eq!(build.report.class, ReloadClass::Replace);
    assert!(build.report.reasons[0].contains("Go runtime"), "{:?}", build.report.reasons);
}
