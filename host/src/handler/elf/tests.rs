//! A real library, and thousands that are almost one.

use super::*;
use std::io::Cursor;
use std::process::Command;
use std::sync::LazyLock;

/// A library with most of what is looked at: exports, a version, needs, thread-locals.
static LIBRARY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    compile(
        "#include <stdio.h>
         #define EXPORT __attribute__((visibility(\"default\")))
         EXPORT const unsigned host_abi_version = 0x10000;
         EXPORT struct { unsigned magic[12]; } host_module = {{1}};
         EXPORT int object;
         __attribute__((visibility(\"hidden\"))) void hidden(void) {}
         EXPORT void application(void) { puts(\"hello\"); hidden(); }
         EXPORT __attribute__((weak)) void app(void) {}",
        &["-Wl,--enable-new-dtags,-rpath,$ORIGIN:/opt/lib"],
    )
});

fn compile(source: &str, arguments: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let (file, output) = (folder.path().join("x.c"), folder.path().join("x.so"));
    std::fs::write(&file, source).unwrap();
    let mut command = Command::new("cc");
    command.args(["-shared", "-fPIC", "-o"]).arg(&output).arg(&file).args(arguments);
    assert!(command.status().unwrap().success());
    std::fs::read(output).unwrap()
}

fn read_bytes(bytes: &[u8]) -> Result<Elf, String> {
    parse(Cursor::new(bytes))
}

#[test]
fn a_library_tells_what_it_exports_and_needs() {
    let elf = read_bytes(&LIBRARY).unwrap();
    for function in ["app", "application"] {
        assert!(elf.functions.iter().any(|name| name == function), "{function} is missing in {:?}", elf.functions);
    }
    for other in ["hidden", "puts", "object", "host_module"] {
        assert!(!elf.functions.iter().any(|name| name == other), "{other} is no exported function");
    }
    assert_eq!(elf.abi, Some(0x10000));
    assert_eq!(elf.module_info_bytes, Some(48));
    assert_eq!(elf.runpath.as_deref(), Some(&["$ORIGIN".to_owned(), "/opt/lib".to_owned()][..]));
    assert!(elf.needed.iter().any(|name| name.starts_with("libc.")), "{:?}", elf.needed);
    assert!(!elf.go && !elf.static_tls && elf.unique.is_empty());
}

#[test]
fn a_stripped_library_is_as_good() {
    let stripped = compile("__attribute__((visibility(\"default\"))) void application(void) {}", &["-s"]);
    assert!(read_bytes(&stripped).unwrap().functions.contains(&"application".to_owned()));
}

#[test]
fn a_library_that_lost_its_end_is_refused_wherever_it_was_cut() {
    for len in 0..LIBRARY.len() {
        assert!(read_bytes(&LIBRARY[..len]).is_err(), "{len} of {} bytes", LIBRARY.len());
    }
}

#[test]
fn a_newer_glibc_is_named_with_ours() {
    let Some((major, minor)) = glibc() else { return };
    let mut bytes = LIBRARY.clone();
    let at = memchr::memmem::find(&bytes, b"GLIBC_2.").unwrap();
    bytes[at + 6] = b'9';
    let error = read_bytes(&bytes).unwrap_err();
    assert!(error.starts_with("needs glibc 9."), "{error}");
    assert!(error.contains(&format!("this machine has {major}.{minor}")), "{error}");
}

#[test]
fn garbage_is_an_error_and_never_a_panic() {
    // Bytes of the tables that are read, and then of anything, become something else; xorshift64 says which and what.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let header_table = u64::from_ne_bytes(LIBRARY[40..48].try_into().unwrap()) as usize;
    let mut survivors = 0;
    for round in 0..20_000 {
        let mut bytes = LIBRARY.clone();
        for _ in 0..=random(4) {
            let at = match round % 4 {
                0 => random(64),
                1 => 64 + random(56 * 12),
                2 => header_table + random(bytes.len() - header_table),
                _ => random(bytes.len()),
            };
            bytes[at] = if random(2) == 0 { bytes[at] ^ (1 << random(8)) } else { [0, 0x7f, 0x80, 0xff][random(4)] };
        }
        survivors += u32::from(read_bytes(&bytes).is_ok());
    }
    // Changes of code and data are none of our business; without any the test would have read nothing but headers.
    assert!(survivors > 0);
}

#[test]
fn endless_tables_end() {
    // e_shnum 0 means that the first section's size is the number: 2^64 - 1 of them here.
    let mut bytes = LIBRARY.clone();
    let table = u64::from_ne_bytes(bytes[40..48].try_into().unwrap()) as usize;
    bytes[60..62].fill(0);
    bytes[table + 32..table + 40].fill(0xff);
    assert!(read_bytes(&bytes).is_err());
}
