//! What must never replace a good build, and what is said about it.

use crate::stage::{Stage, eventually, module};
use host::supervisor::builds::Notice;
use std::fs;
use std::time::Duration;

/// Why a module compiled from this C is refused.
fn reason_for(source: &str, arguments: &[&str]) -> String {
    reason_within(Duration::from_secs(10), source, arguments)
}

fn reason_within(check_timeout: Duration, source: &str, arguments: &[&str]) -> String {
    let mut stage = Stage::new();
    stage.options.check_timeout = check_timeout;
    stage.cc(&stage.handler("bad.so"), source, arguments);
    first_reason(&mut stage)
}

/// Why a file with these bytes is refused.
fn reason_for_bytes(bytes: &[u8]) -> String {
    let mut stage = Stage::new();
    fs::write(stage.handler("bad.so"), bytes).unwrap();
    first_reason(&mut stage)
}

fn first_reason(stage: &mut Stage) -> String {
    let notices = stage.start();
    assert_eq!(fs::read_dir(&stage.options.runtime).unwrap().count(), 0, "a refused build leaves its copy behind");
    match &notices[0] {
        Notice::Refused { module, reason, .. } if module == "bad" => reason.clone(),
        other => panic!("{other:?}"),
    }
}

fn sound_library() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("good.so");
    crate::stage::compile("cc", "c", &path, &module("1"), &[]);
    fs::read(path).unwrap()
}

fn starts_with(reason: &str, expected: &str) {
    assert!(reason.starts_with(expected), "{reason:?} does not start with {expected:?}");
}

#[test]
fn files_that_are_no_library_are_called_what_they_are() {
    starts_with(&reason_for_bytes(b""), "is empty");
    let script = reason_for_bytes(b"#!/bin/sh\necho hello\n");
    starts_with(&script, "is not an ELF shared library; it begins with \"#!/bin/sh\"");
    starts_with(&reason_for_bytes(b"INPUT(libreal.so)\n"), "is a linker script");
    starts_with(&reason_for_bytes(b"!<arch>\n"), "is a static archive");
    starts_with(&reason_for_bytes(&[0; 4096]), "begins with zeros");
    starts_with(&reason_for("int main(void) { return 0; }", &["-pie"]), "is a program, not a library");
    starts_with(&reason_for("int x;", &["-c"]), "is an object file, not a library");
}

#[test]
fn a_library_for_another_machine_names_both() {
    let mut bytes = sound_library();
    // e_machine of the ELF header: S/390, which no test machine is.
    bytes[18..20].copy_from_slice(&22u16.to_ne_bytes());
    let reason = reason_for_bytes(&bytes);
    starts_with(&reason, "is built for S/390 (64-bit, little-endian), this machine is ");
    let mut bytes = sound_library();
    bytes[4] = 1;
    assert!(reason_for_bytes(&bytes).contains("32-bit"));
}

#[test]
fn a_truncated_library_is_refused_even_where_it_would_load() {
    let bytes = sound_library();
    for missing in [1, 64, bytes.len() / 4, bytes.len() / 2, bytes.len() - 100, bytes.len() - 10] {
        let reason = reason_for_bytes(&bytes[..bytes.len() - missing]);
        assert!(reason.starts_with("is truncated") || reason.starts_with("is damaged"), "{missing}: {reason}");
    }
}

#[test]
fn a_newer_abi_is_refused_and_none_is_taken_for_the_first() {
    let with = |version: &str| {
        format!("EXPORT void application(void) {{}} EXPORT const uint32_t host_abi_version = {version};")
    };
    starts_with(&reason_for(&with("0x20000u"), &[]), "is built for ABI 2.0, this host speaks 1.0");
    starts_with(&reason_for(&with("0x10003u"), &[]), "needs ABI 1.3, this host has 1.0");
    // It is refused before any of its code runs.
    let with_constructor = format!("{} __attribute__((constructor)) void run(void) {{ __builtin_trap(); }}", with("0"));
    starts_with(&reason_for(&with_constructor, &[]), "is built for ABI 0.0");

    let mut stage = Stage::new();
    stage.cc(&stage.handler("old.so"), "EXPORT void application(void) {}", &[]);
    match &stage.start()[0] {
        Notice::Sound(build) => assert_eq!(build.report.abi, None),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_missing_application_is_answered_with_what_there_is() {
    starts_with(
        &reason_for("EXPORT void aplication(void) {}", &[]),
        r#"exports no "application"; did you mean "aplication"?"#,
    );
    starts_with(&reason_for("static int x;", &[]), r#"exports no "application", nor any other function"#);
    starts_with(&reason_for("EXPORT int application;", &[]), r#"exports no "application""#);

    let mut stage = Stage::new();
    stage.options.symbols.insert("bad".into(), vec!["ap".into()]);
    stage.cc(&stage.handler("bad.so"), "EXPORT void app(void) {}", &[]);
    assert_eq!(first_reason(&mut stage), r#"exports no "ap"; did you mean "app"?"#);

    // dlsym would find this one in libc.
    let mut stage = Stage::new();
    stage.options.symbols.insert("bad".into(), vec!["read".into()]);
    stage.cc(&stage.handler("bad.so"), "EXPORT void app(void) {}", &[]);
    starts_with(&first_reason(&mut stage), r#"exports no "read""#);
}

#[test]
fn what_the_loader_cannot_resolve_is_said_before_the_first_call() {
    let missing = "void nowhere(void); EXPORT void application(void) { nowhere(); }";
    starts_with(&reason_for(missing, &[]), r#"needs the symbol "nowhere", which nothing defines"#);

    let mut stage = Stage::new();
    let helper = stage.path("libhelper.so");
    stage.cc(&helper, "EXPORT void help(void) {}", &[]);
    let source = "void help(void); EXPORT void application(void) { help(); }";
    let folder = format!("-L{}", helper.parent().unwrap().display());
    stage.cc(&stage.handler("bad.so"), source, &[&folder, "-lhelper"]);
    starts_with(&first_reason(&mut stage), "needs libhelper.so, which is not found");
}

#[test]
fn a_host_module_must_be_what_the_header_says() {
    let with = |fields: &str| {
        format!("EXPORT void application(void) {{}} EXPORT host_module_info host_module = {{ {fields} }};")
    };
    starts_with(&reason_for(&with("0"), &[]), "has a host_module whose magic is 0x0");
    starts_with(&reason_for(&with("0x54534f48u, 8, 0x10000u, 0"), &[]), "has a host_module whose size is 8");
    // It would be read past its end.
    starts_with(&reason_for(&with("0x54534f48u, 4000, 0x10000u, 0"), &[]), "has a host_module whose size is 4000");
    let flags = with("0x54534f48u, sizeof(host_module_info), 0x10000u, 0x81");
    starts_with(&reason_for(&flags, &[]), "has unknown flags 0x80");
    let abi = with("0x54534f48u, sizeof(host_module_info), 0x30000u, 0");
    starts_with(&reason_for(&abi, &[]), "is built for ABI 3.0");
    let short = "EXPORT void application(void) {} EXPORT uint32_t host_module = 0x54534f48u;";
    starts_with(&reason_for(short, &[]), "has a host_module of 4 bytes");
    let wild = with("0x54534f48u, sizeof(host_module_info), 0x10000u, 0, (const char *)1");
    starts_with(&reason_for(&wild, &[]), "crashed with SIGSEGV in reading its host_module");
}

const APPLICATION: &str = "#include <signal.h>\n#include <stdio.h>\n#include <stdlib.h>\n#include <unistd.h>\nEXPORT void application(void) {}\n";

#[test]
fn a_build_that_dies_is_refused_with_the_place_of_its_death() {
    let constructor = |code: &str| format!("{APPLICATION} __attribute__((constructor)) void run(void) {{ {code} }}");
    starts_with(&reason_for(&constructor("*(volatile int *)8 = 1;"), &[]), "crashed with SIGSEGV in its constructor");
    starts_with(&reason_for(&constructor("abort();"), &[]), "crashed with SIGABRT in its constructor");
    starts_with(&reason_for(&constructor("exit(3);"), &[]), "ended the process with status 3 in its constructor");
    starts_with(&reason_for(&constructor("_exit(0);"), &[]), "ended the process with status 0 in its constructor");
    starts_with(&reason_for(&constructor("kill(getpid(), SIGKILL);"), &[]), "was killed by SIGKILL");

    let init =
        |code: &str| format!("{APPLICATION} static int32_t init(const void *x) {{ {code} }} MODULE(.init = init);");
    starts_with(&reason_for(&init("return *(volatile int *)8;"), &[]), "crashed with SIGSEGV in its init");
    starts_with(&reason_for(&init("exit(4);"), &[]), "ended the process with status 4 in its init");
    assert_eq!(reason_for(&init("return -3;"), &[]), "refuses to start: its init returned -3");
}

#[test]
fn a_build_that_hangs_is_refused_after_the_time_limit() {
    let limit = Duration::from_millis(300);
    let constructor = format!("{APPLICATION} __attribute__((constructor)) void run(void) {{ for (;;) pause(); }}");
    assert_eq!(reason_within(limit, &constructor, &[]), "hangs: its constructor did not finish in 0.3 s");
    let init = format!("{APPLICATION} static int32_t init(const void *x) {{ for (;;) ; }} MODULE(.init = init);");
    assert_eq!(reason_within(limit, &init, &[]), "hangs: its init did not finish in 0.3 s");
}

/// A module that puts a signal handler of its own in the place of the host's.
fn with_handler(signal: &str, body: &str) -> String {
    format!(
        "{APPLICATION}
         static struct sigaction before;
         static void handle(int number, siginfo_t *info, void *context) {{ {body} }}
         __attribute__((constructor)) void run(void) {{
             struct sigaction action = {{.sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_ONSTACK}};
             sigaction({signal}, &action, &before);
         }}"
    )
}

#[test]
fn a_build_that_takes_faults_over_is_refused_unless_it_passes_them_on() {
    let lost = |name: &str| format!("takes {name} over and does not pass on what is not its own");
    let parks = "for (;;) pause();";
    starts_with(&reason_for(&with_handler("SIGSEGV", parks), &[]), &lost("SIGSEGV"));
    starts_with(&reason_for(&with_handler("SIGBUS", parks), &[]), &lost("SIGBUS"));
    let dies = reason_for(&with_handler("SIGSEGV", "_exit(5);"), &[]);
    starts_with(&dies, "ended the process with status 5 in its signal handler, which was given a fault");
    let default = "signal(number, SIG_DFL);";
    starts_with(&reason_for(&with_handler("SIGBUS", default), &[]), "crashed with SIGBUS in its signal handler");
    let mut stage = Stage::new();
    let forwards = with_handler("SIGSEGV", "before.sa_sigaction(number, info, context);");
    stage.cc(&stage.handler("good.so"), &forwards, &[]);
    assert!(matches!(&stage.start()[0], Notice::Sound(_)));
}

#[test]
fn init_is_told_that_this_is_a_check() {
    let source = format!(
        "{APPLICATION} typedef struct {{ uint32_t size, reason; uint64_t generation; const void *(*extension)(const char *); }} host_init;
         static int32_t init(const void *raw) {{
             const host_init *self = raw;
             return self->size == sizeof *self && self->reason == 1 && self->generation == 0 && !self->extension(\"host.x/1\") ? 0 : 9;
         }}
         MODULE(.init = init);"
    );
    let mut stage = Stage::new();
    stage.cc(&stage.handler("good.so"), &source, &[]);
    assert!(matches!(&stage.start()[0], Notice::Sound(_)));
}

#[test]
fn a_module_that_prints_and_forks_does_not_disturb_its_report() {
    let mut stage = Stage::new();
    let pid_file = stage.path("pid");
    // The child keeps the descriptors that it inherited, and would outlive the check.
    let source = format!(
        "{APPLICATION} __attribute__((constructor)) void run(void) {{
             printf(\"R\\x04\\0\\0\\0null\\n\"); fflush(stdout);
             if (fork() == 0) {{
                 FILE *file = fopen(\"{}\", \"w\"); fprintf(file, \"%d\", (int)getpid()); fclose(file);
                 for (;;) pause();
             }}
             while (access(\"{0}\", R_OK) != 0) usleep(1000);
         }} MODULE(.version = \"1\");",
        pid_file.display()
    );
    stage.cc(&stage.handler("noisy.so"), &source, &[]);
    assert!(matches!(&stage.start()[0], Notice::Sound(build) if build.report.version.as_deref() == Some("1")));
    // The child was killed before the notice; init reaps it in its own time.
    let child = fs::read_to_string(&pid_file).unwrap();
    let state = || fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
    eventually(|| state().is_empty() || state().contains(") Z "));
}

#[test]
fn a_copy_that_cannot_be_made_is_said_once() {
    let mut stage = Stage::new();
    stage.start();
    fs::remove_dir(&stage.options.runtime).unwrap();
    stage.cc(&stage.handler("bad.so"), &module("1"), &[]);
    starts_with(&stage.refused("bad"), "cannot be copied to ");
    // The refusal stands until the file changes, however often somebody looks.
    fs::create_dir(&stage.options.runtime).unwrap();
    stage.builds().rescan(false);
    stage.cc(&stage.handler("other.so"), &module("1"), &[]);
    stage.sound("other");
    stage.builds().rescan(true);
    let mut again = [stage.next(), stage.next()].map(|notice| match notice {
        Notice::Sound(build) => (build.module, build.generation),
        other => panic!("{other:?}"),
    });
    again.sort_unstable();
    assert_eq!(again, [("bad".into(), 1), ("other".into(), 2)]);
}
