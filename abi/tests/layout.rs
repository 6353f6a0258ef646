//! The Rust mirror of `host.h` is the header: a C program prints sizes, offsets and values, and each must be Rust's. What
//! stands in the header and not here fails too.

use abi::ffi::*;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::mem::offset_of;
use std::process::Command;

#[allow(dead_code, reason = "each test binary uses a part")]
mod compiler;

/// What is compared: a C expression, and its value in Rust.
type Fact = (String, i128);

macro_rules! structs {
    ($($name:ident { $($field:ident),* })*) => {{
        let mut facts: Vec<Fact> = Vec::new();
        $(
            facts.push((concat!("sizeof(", stringify!($name), ")").into(), size_of::<$name>() as i128));
            facts.push((concat!("ALIGNOF(", stringify!($name), ")").into(), align_of::<$name>() as i128));
            $(
                let (name, field) = (stringify!($name), stringify!($field));
                facts.push((format!("offsetof({name}, {field})"), offset_of!($name, $field) as i128));
                facts.push((format!("sizeof((({name} *)0)->{field})"), size_of_field(|it: &$name| &it.$field) as i128));
            )*
        )*
        facts
    }};
}

macro_rules! constants {
    ($($name:ident)*) => { vec![$((stringify!($name).to_owned(), $name as i128)),*] };
}

fn structs() -> Vec<Fact> {
    structs! {
        host_str { ptr, len }
        host_header { name, value }
        host_exc_info { size, flags, message }
        host_env { size, abi, get, each, read, readline, errors, alloc, bytes, file, extension }
        host_start_response { size, flags, call }
        host_writer { size, flags, write }
        host_body { size, flags, count, next, close }
        host_init { size, reason, generation, extension }
        host_state { size, flags, write }
        host_module_info { magic, size, abi, flags, name, version, init, stop, save, restore }
    }
}

fn constants() -> Vec<Fact> {
    constants! {
        HOST_ABI
        HOST_GONE HOST_TIMEOUT HOST_TOO_LARGE HOST_STATE HOST_IO HOST_INVALID
        HOST_MODULE_MAGIC
        HOST_NOT_THREAD_SAFE HOST_BLOCKING HOST_STREAM_INPUT
        HOST_INIT_CHECK HOST_INIT_SERVE
        HOST_STATE_MAX
    }
}

#[test]
fn sizes_offsets_and_values_are_the_same_in_c_and_in_rust() {
    let facts = [structs(), constants()].concat();
    let mut program = String::from("#include \"host.h\"\n#include <stdio.h>\n#include <stdalign.h>\n");
    program += "#define ALIGNOF(type) alignof(type)\nint main(void) {\n";
    for (expression, _) in &facts {
        writeln!(program, "printf(\"%lld\\n\", (long long)({expression}));").unwrap();
    }
    program += "}\n";

    let folder = tempfile::tempdir().unwrap();
    let (source, executable) = (folder.path().join("layout.c"), folder.path().join("layout"));
    std::fs::write(&source, program).unwrap();
    compiler::run(
        Command::new("cc").args(["-std=c11", "-I", compiler::INCLUDE]).arg(source).arg("-o").arg(&executable),
    );
    let values = compiler::run(&mut Command::new(executable));

    assert_eq!(values.lines().count(), facts.len());
    for ((expression, in_rust), in_c) in facts.iter().zip(values.lines()) {
        assert_eq!(in_c, in_rust.to_string(), "{expression} in C, and in Rust");
    }
}

#[test]
fn every_struct_field_and_number_of_the_header_is_compared() {
    let header = std::fs::read_to_string(format!("{}/host.h", compiler::INCLUDE)).unwrap();
    let code = without_comments(&header);

    let mut in_header = BTreeSet::new();
    let mut inside: Option<String> = None;
    for line in code.lines() {
        let trimmed = line.trim();
        if let Some(definition) = trimmed.strip_prefix("#define HOST_") {
            let (name, value) = definition.split_once(' ').unwrap_or((definition, ""));
            if value.trim_start_matches('(').starts_with(|digit: char| digit == '-' || digit.is_ascii_digit()) {
                in_header.insert(format!("HOST_{name}"));
            }
        } else if let Some(name) = trimmed.trim_start_matches("typedef ").strip_prefix("struct ")
            && let Some(name) = name.strip_suffix(" {")
        {
            in_header.insert(format!("sizeof({name})"));
            inside = Some(name.to_owned());
        } else if line.starts_with('}') {
            inside = None;
        } else if let Some(name) = &inside {
            for field in fields(trimmed) {
                in_header.insert(format!("offsetof({name}, {field})"));
            }
        }
    }

    let compared: BTreeSet<String> =
        [structs(), constants()].concat().into_iter().map(|(expression, _)| expression).collect();
    let missing: Vec<_> = in_header.difference(&compared).collect();
    assert!(missing.is_empty(), "in host.h, and not compared here: {missing:?}");
    let count = |facts: &BTreeSet<String>, kind: &str| facts.iter().filter(|fact| fact.starts_with(kind)).count();
    assert_eq!(count(&in_header, "offsetof("), count(&compared, "offsetof("), "fields: this test misreads the header");
    assert_eq!(count(&in_header, "HOST_"), count(&compared, "HOST_"), "numbers: this test misreads the header");
}

/// The names that a line of a struct declares: `int32_t (*next)(…);`, or `host_str name, value;`.
fn fields(declaration: &str) -> Vec<String> {
    if let Some((_, function)) = declaration.split_once("(*") {
        // The first is the field; others are parameters that are functions.
        return function.split(')').next().map(str::to_owned).into_iter().collect();
    }
    let Some(declaration) = declaration.strip_suffix(';').filter(|text| !text.contains(')')) else {
        return Vec::new();
    };
    declaration.split(',').filter_map(|part| part.rsplit([' ', '*']).next()).map(str::to_owned).collect()
}

fn without_comments(code: &str) -> String {
    let mut left = String::new();
    let mut rest = code;
    while let Some((before, comment)) = rest.split_once("/*") {
        left += before;
        rest = comment.split_once("*/").expect("a comment ends").1;
    }
    left + rest
}

fn size_of_field<S, F>(_field: fn(&S) -> &F) -> usize {
    size_of::<F>()
}
