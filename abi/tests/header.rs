//! `host.h` as its users meet it: every language mode, several files in one library, and the examples with nothing else.

use compiler::{INCLUDE, STRICT, dynamic_symbols, run};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

mod compiler;

const EXAMPLES: [&str; 3] = ["hello.c", "ticks.c", "upper.c"];

/// A module that uses everything a module can: in C, and as far as C++ has designated initialisers also in that.
const MODULE: &str = r#"
#include "host.h"
static const host_header static_header = {HOST_STR_INIT("Content-Type"), HOST_STR_INIT("text/plain")};
static int32_t init(const host_init *init) { return host_init_extension(init, "host.none/1") != NULL; }
static void stop(void) {}
static int32_t save(host_state *state) { return host_state_write(state, HOST_STR("state")); }
static int32_t restore(host_str state) { return state.len != 5; }
HOST_EXPORT const host_module_info host_module = {
    HOST_MODULE_MAGIC, sizeof(host_module_info), HOST_ABI, HOST_NOT_THREAD_SAFE | HOST_BLOCKING, "sample", "1.0", init, stop,
    save, restore,
};
static int32_t visit(void *context, host_str key, host_str value) {
    size_t *total = (size_t *)context;
    *total += key.len + value.len;
    return 0;
}
HOST_EXPORT host_application application;
HOST_EXPORT host_body *application(host_env *env, host_start_response *start_response) {
    char line[64];
    size_t total = 0;
    host_exc_info why = {sizeof(host_exc_info), 0, HOST_STR("no reason")};
    host_writer *out = host_start(start_response, HOST_STR("200 OK"), &static_header, 1, &why);
    host_str path = host_env_get(env, HOST_STR("PATH_INFO"));
    host_env_each(env, visit, &total);
    if (host_env_read(env, line, sizeof line) < 0 || host_env_readline(env, line, sizeof line) < 0) return NULL;
    if (out == NULL || host_writer_write(out, path) < 0) host_env_errors(env, HOST_STR("cannot write"));
    if (host_env_alloc(env, total) == NULL || host_env_extension(env, "host.none/1") != NULL) return NULL;
    return path.len ? host_env_file(env, 0, 0, UINT64_MAX) : host_env_bytes(env, path);
}
"#;

#[test]
fn the_header_compiles_in_every_language_mode_without_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let (c, cpp) = (folder.path().join("module.c"), folder.path().join("module.cc"));
    fs::write(&c, MODULE).unwrap();
    fs::write(&cpp, MODULE).unwrap();
    for (compiler, source, standards) in [
        (C_COMPILERS, &c, &["c99", "c11", "c17", "gnu17"][..]),
        (CPP_COMPILERS, &cpp, &["c++11", "c++17", "c++20"][..]),
    ] {
        for compiler in compiler {
            for standard in standards {
                let library = folder.path().join(format!("{compiler}-{standard}.so"));
                compile(compiler, &[source], &library, &[&format!("-std={standard}"), "-I", INCLUDE]);
                for symbol in ["application", "host_abi_version", "host_module"] {
                    assert_exports(&library, symbol);
                }
            }
        }
    }
}

#[test]
fn several_files_that_include_the_header_link_into_one_library() {
    let folder = tempfile::tempdir().unwrap();
    let mut objects = Vec::new();
    for (compiler, name) in [("cc", "one.c"), ("cc", "two.c"), ("c++", "three.cc"), ("c++", "four.cc")] {
        let (source, object) = (folder.path().join(name), folder.path().join(name).with_extension("o"));
        let function = name.split('.').next().expect("names have a stem");
        let code =
            format!("HOST_EXPORT uint32_t {function}(void);\nuint32_t {function}(void) {{ return host_abi_version; }}");
        fs::write(&source, format!("#include \"host.h\"\n{code}\n")).unwrap();
        run(Command::new(compiler).args(STRICT).args(["-I", INCLUDE, "-fPIC", "-c", "-o"]).arg(&object).arg(&source));
        objects.push(object);
    }
    let library = folder.path().join("several.so");
    let options = ["-shared", "-Wl,--fatal-warnings", "-o"];
    run(Command::new("c++").args(options).arg(&library).args(&objects));
    let mut symbols = dynamic_symbols(&library, "--defined-only");
    symbols.sort();
    assert_eq!(symbols, ["four", "host_abi_version", "one", "three", "two"]);
}

#[test]
fn the_examples_compile_with_no_other_file_than_the_header() {
    let folder = outside();
    fs::copy(Path::new(INCLUDE).join("host.h"), folder.path().join("host.h")).unwrap();
    for example in EXAMPLES {
        let source = folder.path().join(example);
        fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(example), &source).unwrap();
        for compiler in C_COMPILERS {
            for standard in ["-std=c99", "-std=c11"] {
                let library = source.with_extension("so");
                // The command of the README, and once more as a strict project has it.
                run(Command::new(compiler).args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source));
                compile(compiler, &[&source], &library, &[standard]);
                assert_exports(&library, "application");
                assert_exports(&library, "host_abi_version");
                let needed = dynamic_symbols(&library, "--undefined-only");
                assert!(!needed.iter().any(|name| name.starts_with("host")), "{example} needs {needed:?}");
            }
        }
    }
}

#[test]
fn the_hello_handler_is_the_hello_example() {
    let example = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/hello.c")).unwrap();
    let handler = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../handlers/hello.c")).unwrap();
    assert!(example == handler, "abi/examples/hello.c and handlers/hello.c are one text: change both");
}

#[test]
fn a_module_with_a_wrong_signature_does_not_compile() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("wrong.c");
    fs::write(&source, "#include \"host.h\"\nHOST_EXPORT host_application application;\nvoid application(void) {}\n")
        .unwrap();
    let output =
        Command::new("cc").args(["-c", "-I", INCLUDE, "-o"]).arg(folder.path().join("wrong.o")).arg(source).output();
    let output = output.expect("cc is installed");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("conflicting types"));
}

fn compile(compiler: &str, sources: &[&PathBuf], library: &Path, options: &[&str]) {
    let mut command = Command::new(compiler);
    command.args(STRICT).args(options).args(["-shared", "-fPIC", "-Wl,--fatal-warnings", "-o"]).arg(library);
    run(command.args(sources));
}

fn assert_exports(library: &Path, symbol: &str) {
    let symbols = dynamic_symbols(library, "--defined-only");
    assert!(symbols.iter().any(|name| name == symbol), "{} exports {symbols:?}, not {symbol}", library.display());
}

/// Two compilers, because authors use both; `tests/run` installs them.
const C_COMPILERS: [&str; 2] = ["cc", "clang"];
const CPP_COMPILERS: [&str; 2] = ["c++", "clang++"];

/// A folder that is not inside the repository, wherever temporary folders are.
fn outside() -> tempfile::TempDir {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("abi/ is in the repository");
    let folder = tempfile::tempdir().unwrap();
    assert!(!folder.path().starts_with(repository), "TMPDIR is inside the repository");
    folder
}
