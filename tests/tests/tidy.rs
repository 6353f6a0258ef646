//! The rules that keep the repository readable, checked by reading it.
//!
//! Each rule is a function from files to breaches, `path:line: what is wrong`. It is applied to the repository, and
//! also to files made up to break it, so that a rule cannot silently stop working.

use tests::source::{Source, Word, files, words};

/// A rule: what breaks it in these files.
type Rule = fn(&[Source]) -> Vec<String>;

/// All rules, by the names under which ARCHITECTURE.md calls on them.
const RULES: [(&str, Rule); 13] = [
    ("layers", layers),
    ("supervisor_loads_nothing", supervisor_loads_nothing),
    ("pure_http", pure_http),
    ("confined_crates", confined_crates),
    ("absent_crates", absent_crates),
    ("abi_stands_alone", abi_stands_alone),
    ("one_lock", one_lock),
    ("no_sleep", no_sleep),
    ("unsafe_rooms", unsafe_rooms),
    ("sizes", |files| sizes(files, &LONG_FILES)),
    ("names", names),
    ("first_sentences", first_sentences),
    ("machine_paths", machine_paths),
];

/// The layers of `host/src`, by module: a module may use those of its own number or lower.
///
/// `config` and `exit` are values that everybody reads, so they are at the bottom although the command line makes
/// them; `serial` is a door that knows nothing of who passes it, and `pace` a count that knows nothing of what is called.
const LAYERS: [(&str, u8); 20] = [
    ("main", 6),
    ("cli", 6),
    ("supervisor", 5),
    ("worker", 5),
    ("dev", 5),
    ("control", 5),
    ("server", 4),
    ("route", 3),
    ("site", 2),
    ("handler", 2),
    ("response", 1),
    ("request", 1),
    ("http", 1),
    ("log", 1),
    ("metrics", 1),
    ("sys", 0),
    ("config", 0),
    ("exit", 0),
    ("serial", 0),
    ("pace", 0),
];

/// Modules that must not know each other although their layers would allow it: what serves files never meets what runs
/// code, and what moves bytes meets neither. It sees a route and a response.
const STRANGERS: [(&str, &str); 4] =
    [("site", "handler"), ("handler", "site"), ("server", "site"), ("server", "handler")];

/// What the supervisor may use of `handler`: what a check has found, what a file says of itself, and what a worker is told
/// to load. Nothing that loads.
const WITHOUT_LOADING: [&str; 4] = ["check", "elf", "needed", "Loadable"];

/// What `http` does without: it takes bytes and gives values.
const OUTSIDE_WORLD: [&str; 9] = ["env", "fs", "libc", "process", "rustix", "tempfile", "thread", "tracing", "Instant"];

/// A loop of our own calls handlers inline, which these do not; what they bring along would be there twice.
const ABSENT_CRATES: [&str; 6] = ["async-std", "futures", "hyper", "mio", "smol", "tokio"];

/// The one file that takes a lock. What is shared otherwise is exchanged as a whole or sent as a message.
const LOCK_ROOM: &str = "host/src/serial.rs";

/// Crates that only one file may name, so that they can be exchanged or audited there.
const CONFINED: [(&str, &str); 2] =
    [("libloading", "host/src/handler/library.rs"), ("notify", "host/src/supervisor/builds/watcher.rs")];

/// Where `unsafe` may stand.
const UNSAFE_ROOMS: [&str; 4] = ["host/src/sys/", "host/src/handler/", "host/src/main.rs", "abi/"];

const LINES_MAX: usize = 500;

/// Files over [`LINES_MAX`], each with the reason why it is not better in parts.
const LONG_FILES: [(&str, &str); 3] = [
    ("host/src/handler/exchange.rs", "one allocation, one argument why it is sound: apart, neither half would be"),
    ("host/src/http/head.rs", "the greater half is tests"),
    ("host/src/supervisor/crew.rs", "a worker's life from hiring to end, in the order of living"),
];

/// Everything that may lie at the top.
const TOP: [&str; 24] = [
    ".cargo",
    ".ci",
    ".gitignore",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "SECURITY.md",
    "abi",
    "bench",
    "clippy.toml",
    "deny.toml",
    "docs",
    "handlers",
    "host",
    "html",
    "packaging",
    "rust-toolchain.toml",
    "rustfmt.toml",
    "tests",
];

/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 4] = ["util", "utils", "helpers", "common"];

/// Folders of somebody's machine. Written so that this file does not break its own rule.
const MACHINE_PATHS: [&str; 3] = [concat!("/ro", "ot/"), concat!("/wo", "rk/"), concat!("/ho", "me/")];

fn layers(files: &[Source]) -> Vec<String> {
    let rank = |module: &str| LAYERS.iter().find(|(name, _)| *name == module).map(|(_, rank)| *rank);
    let mut breaches = Vec::new();
    for file in files {
        let Some(inner) = file.path.strip_prefix("host/src/").and_then(|path| path.strip_suffix(".rs")) else {
            continue;
        };
        let mut path: Vec<&str> = inner.split('/').filter(|part| *part != "mod").collect();
        if path.ends_with(&["tests"]) {
            // A layer is tried with whatever stands above and below it.
            continue;
        }
        if path == ["lib"] {
            // The root of the tree lists the modules and is above them all.
            continue;
        }
        let module = path.remove(0);
        let Some(own) = rank(module) else {
            breaches.push(format!("{}:1: the module {module} has no layer; give it one in LAYERS", file.path));
            continue;
        };
        for (used, line) in uses(&file.code(), 1 + path.len()) {
            let strange = STRANGERS.contains(&(module, used.as_str()));
            if strange || rank(&used).is_some_and(|rank| rank > own) {
                breaches.push(format!("{}:{line}: {module} uses {used}, which it must not know", file.path));
            }
        }
    }
    breaches
}

/// The top-level modules that `code` names by paths from `crate`, or by `super` from a module `depth` levels down.
fn uses(code: &str, depth: usize) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    let mut supers = 0;
    for word in words(code) {
        let Some(rest) = word.rest.strip_prefix("::") else {
            supers = 0;
            continue;
        };
        supers = if word.text == "super" { supers + 1 } else { 0 };
        // `$crate` of a macro is somebody else's root only outside this crate.
        if word.text == "crate" || supers == depth {
            found.extend(first_segments(rest).into_iter().map(|name| (name, word.line)));
        }
    }
    found
}

/// `a` of `a::b`; `a` and `c` of `{a::{b}, c}`.
fn first_segments(rest: &str) -> Vec<String> {
    let name = |text: &str| words(text).next().map(|word: Word<'_>| word.text.to_owned());
    let Some(group) = rest.strip_prefix('{') else { return name(rest).into_iter().collect() };
    let mut depth = 0;
    let mut segments = vec![String::new()];
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => segments.push(String::new()),
            _ => {}
        }
        if depth == 0
            && let Some(last) = segments.last_mut()
        {
            last.push(c);
        }
    }
    segments.iter().filter_map(|segment| name(segment)).collect()
}

fn supervisor_loads_nothing(files: &[Source]) -> Vec<String> {
    let mut breaches = Vec::new();
    for file in below(files, "host/src/supervisor/") {
        let code = file.code();
        for word in words(&code).filter(|word| word.text == "handler") {
            let Some(rest) = word.rest.strip_prefix("::") else { continue };
            for used in first_segments(rest).iter().filter(|used| !WITHOUT_LOADING.contains(&used.as_str())) {
                let why = "the supervisor never loads a module, nor knows how";
                breaches.push(format!("{}:{}: handler::{used}: {why}", file.path, word.line));
            }
        }
    }
    breaches
}

fn pure_http(files: &[Source]) -> Vec<String> {
    let mut breaches = Vec::new();
    for file in below(files, "host/src/http/") {
        let code = file.code();
        for word in words(&code) {
            let names_it = OUTSIDE_WORLD.contains(&word.text) && word.rest.starts_with("::");
            if names_it || (word.text == "now" && word.rest.starts_with('(')) {
                breaches.push(format!("{}:{}: {}: http has no I/O and no clock", file.path, word.line, word.text));
            }
        }
    }
    breaches
}

fn confined_crates(files: &[Source]) -> Vec<String> {
    let mut breaches = Vec::new();
    for file in rust(files) {
        let code = file.code();
        for word in words(&code) {
            let confined = CONFINED.iter().find(|(name, room)| *name == word.text && *room != file.path);
            if let Some((name, room)) = confined
                && word.rest.starts_with("::")
            {
                breaches.push(format!("{}:{}: only {room} names {name}", file.path, word.line));
            }
        }
    }
    breaches
}

fn absent_crates(files: &[Source]) -> Vec<String> {
    let mut breaches = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with("Cargo.toml")) {
        for (index, line) in file.text.lines().enumerate() {
            let name = line.split(['=', '.', ' ']).next().unwrap_or_default();
            if ABSENT_CRATES.contains(&name) {
                breaches.push(format!("{}:{}: {name}: there is no other event loop in here", file.path, index + 1));
            }
        }
    }
    breaches.extend(uses_of(
        files,
        "host/src/",
        &["async", "await"],
        "there is no async code: handlers are called inline",
    ));
    breaches
}

/// Neither the SDK nor, through it, a handler drags anything along.
fn abi_stands_alone(files: &[Source]) -> Vec<String> {
    let mut breaches = Vec::new();
    for file in files.iter().filter(|file| file.path == "abi/Cargo.toml") {
        let lines = file.text.lines().zip(1..).skip_while(|(line, _)| *line != "[dependencies]").skip(1);
        let named = lines.take_while(|(line, _)| !line.starts_with('[')).filter(|(line, _)| !line.is_empty());
        breaches.extend(named.map(|(line, at)| format!("{}:{at}: {line}: abi depends on nothing", file.path)));
    }
    breaches.extend(uses_of(files, "abi/src/", &["host"], "abi knows nothing of the server"));
    breaches
}

fn one_lock(files: &[Source]) -> Vec<String> {
    let others: Vec<Source> = files.iter().filter(|file| file.path != LOCK_ROOM).cloned().collect();
    uses_of(&others, "host/src/", &["Condvar", "Mutex", "RwLock"], &format!("only {LOCK_ROOM} takes a lock"))
}

fn no_sleep(files: &[Source]) -> Vec<String> {
    let rooms = ["host/src/server/", "host/src/site/", "host/src/handler/"];
    rooms.iter().flat_map(|room| uses_of(files, room, &["sleep"], "nothing on a request's way sleeps")).collect()
}

/// Every place below `folder` where code has one of these words.
fn uses_of(files: &[Source], folder: &str, unwanted: &[&str], why: &str) -> Vec<String> {
    let mut breaches = Vec::new();
    for file in below(files, folder) {
        let code = file.code();
        let found = words(&code).filter(|word| unwanted.contains(&word.text));
        breaches.extend(found.map(|word| format!("{}:{}: {}: {why}", file.path, word.line, word.text)));
    }
    breaches
}

fn unsafe_rooms(files: &[Source]) -> Vec<String> {
    let mut breaches = Vec::new();
    for file in rust(files).filter(|file| !UNSAFE_ROOMS.iter().any(|room| file.path.starts_with(room))) {
        let code = file.code();
        breaches.extend(
            words(&code)
                .filter(|word| word.text == "unsafe")
                .map(|word| format!("{}:{}: unsafe stands only in {}", file.path, word.line, UNSAFE_ROOMS.join(", "))),
        );
    }
    breaches
}

fn sizes(files: &[Source], long: &[(&str, &str)]) -> Vec<String> {
    let mut breaches = Vec::new();
    let is_written = |file: &&Source| !file.path.ends_with("Cargo.lock") && !file.path.starts_with("LICENSE");
    for file in files.iter().filter(is_written) {
        let lines = file.text.lines().count();
        let listed = long.iter().any(|(path, _)| *path == file.path);
        let max = LINES_MAX;
        if lines > max && !listed {
            breaches.push(format!(
                "{}:{}: more than {max} lines; part it, or list it with its reason",
                file.path,
                max + 1
            ));
        }
        if lines <= max && listed {
            breaches.push(format!("{}:{lines}: it is no longer long; take it off the list", file.path));
        }
    }
    for (path, _) in long.iter().filter(|(path, _)| !files.iter().any(|file| file.path == *path)) {
        breaches.push(format!("{path}:1: it is listed as long but does not exist"));
    }
    breaches
}

fn names(files: &[Source]) -> Vec<String> {
    let mut breaches = Vec::new();
    for file in files {
        let top = file.path.split('/').next().unwrap_or_default();
        if !TOP.contains(&top) {
            breaches.push(format!("{}:1: {top} is not known at the top; list it in TOP with the others", file.path));
        }
        let empty = |part: &str| EMPTY_NAMES.contains(&part.split('.').next().unwrap_or_default());
        if file.path.split('/').any(empty) {
            breaches.push(format!("{}:1: a name that says nothing; name the concern", file.path));
        }
    }
    breaches
}

fn first_sentences(files: &[Source]) -> Vec<String> {
    let silent = rust(files).filter(|file| !file.text.starts_with("//! "));
    silent.map(|file| format!("{}:1: the first line must say what the file is (//! …)", file.path)).collect()
}

fn machine_paths(files: &[Source]) -> Vec<String> {
    let mut breaches = Vec::new();
    for file in files {
        for (index, line) in file.text.lines().enumerate() {
            for path in MACHINE_PATHS {
                // A folder from the root: nothing that a path could go on from stands before it.
                let found = line
                    .match_indices(path)
                    .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || "._-~}>)".contains(c)));
                if found {
                    breaches.push(format!("{}:{}: {path} is a folder of one machine", file.path, index + 1));
                }
            }
        }
    }
    breaches
}

fn rust(files: &[Source]) -> impl Iterator<Item = &Source> {
    files.iter().filter(|file| file.path.ends_with(".rs"))
}

fn below<'a>(files: &'a [Source], folder: &str) -> impl Iterator<Item = &'a Source> {
    rust(files).filter(move |file| file.path.starts_with(folder))
}

#[test]
fn the_repository_keeps_its_rules() {
    let files = files();
    assert!(files.len() > 20, "git lists hardly any files");
    let breaches: Vec<String> = RULES.iter().flat_map(|(_, rule)| rule(&files)).collect();
    assert!(breaches.is_empty(), "{} breaches:\n{}", breaches.len(), breaches.join("\n"));
}

/// The breaches of `rule` by made-up files.
fn broken(rule: impl Fn(&[Source]) -> Vec<String>, files: &[(&str, &str)]) -> Vec<String> {
    let source = |(path, text): &(&str, &str)| Source { path: (*path).to_owned(), text: (*text).to_owned() };
    rule(&files.iter().map(source).collect::<Vec<_>>())
}

#[test]
fn a_layer_that_looks_up_is_found() {
    let site = "use crate::config::Config;\nuse crate::{\n    http::{self, date},\n    handler,\n};\n";
    assert_eq!(
        broken(layers, &[("host/src/site/reply.rs", site)]),
        ["host/src/site/reply.rs:2: site uses handler, which it must not know"]
    );
    for (path, text) in [
        ("host/src/http/mod.rs", "fn f() { crate::server::run() }"),
        ("host/src/http/parse.rs", "use super::super::server;"),
        ("host/src/http/mod.rs", "use super::{server as s};"),
        ("host/src/handler/call.rs", "use crate::site;"),
        ("host/src/sys/exec.rs", "use crate::log;"),
        ("host/src/nowhere.rs", ""),
    ] {
        assert_eq!(broken(layers, &[(path, text)]).len(), 1, "{path} {text}");
    }
    for (path, text) in [
        ("host/src/http/parse.rs", "use super::server;\n//! [`crate::server`]\nconst A: &str = \"crate::server\";"),
        ("host/src/cli.rs", "use crate::supervisor;"),
        ("host/src/supervisor/roll.rs", "use crate::worker; use super::super::sys;"),
        ("host/src/lib.rs", "pub use crate::server;"),
    ] {
        assert!(broken(layers, &[(path, text)]).is_empty(), "{path} {text}");
    }
}

#[test]
fn a_crate_out_of_its_file_is_found() {
    for name in ["libloading", "notify"] {
        assert_eq!(broken(confined_crates, &[("host/src/a.rs", &format!("\nuse {name}::A;"))]).len(), 1);
    }
    let rightful =
        [("host/src/handler/library.rs", "use libloading::A;"), ("host/src/a.rs", "condvar.notify(); // notify::A")];
    assert!(broken(confined_crates, &rightful).is_empty());
}

#[test]
fn what_is_absent_stays_absent() {
    let rules: [(Rule, &str, &str, &str); 10] = [
        (supervisor_loads_nothing, "host/src/supervisor/a.rs", "use crate::handler::{check, Registry};", "check"),
        (pure_http, "host/src/http/a.rs", "use std::fs::File;", "fs"),
        (pure_http, "host/src/http/a.rs", "let t = SystemTime::now();", "now"),
        (absent_crates, "host/Cargo.toml", "[dependencies]\ntokio = \"1\"\n", "tokio = "),
        (absent_crates, "host/src/server/a.rs", "async fn f() {}", "async"),
        (abi_stands_alone, "abi/Cargo.toml", "[dependencies]\nserde = \"1\"\n\n[lints]\nx = 1\n", "x"),
        (abi_stands_alone, "abi/src/a.rs", "use host::cli;", "host"),
        (one_lock, "host/src/handler/a.rs", "use std::sync::Mutex;", "Mutex"),
        (no_sleep, "host/src/server/a.rs", "thread::sleep(d);", "sleep"),
        (layers, "host/src/server/a.rs", "use crate::site::Site;", "site"),
    ];
    for (rule, path, text, word) in rules {
        assert_eq!(broken(rule, &[(path, text)]).len(), 1, "{path} {text}");
        assert!(broken(rule, &[(path, &format!("// {word}\n"))]).is_empty(), "{path} {word} in a comment");
    }
    assert!(broken(one_lock, &[(LOCK_ROOM, "use std::sync::Mutex;")]).is_empty());
    assert!(broken(supervisor_loads_nothing, &[("host/src/supervisor/a.rs", "use crate::handler::elf;")]).is_empty());
}

#[test]
fn unsafe_out_of_its_rooms_is_found() {
    let text = "// unsafe\nfn f() { unsafe { g() } }";
    assert_eq!(broken(unsafe_rooms, &[("host/src/server/mod.rs", text)]).len(), 1);
    assert!(broken(unsafe_rooms, &[("host/src/sys/a.rs", text), ("abi/src/a.rs", text)]).is_empty());
}

#[test]
fn long_files_are_found_and_so_are_stale_exceptions() {
    let long = "\n".repeat(LINES_MAX + 1);
    let rule = |files: &[Source]| sizes(files, &[("a.rs", "")]);
    assert!(broken(rule, &[("a.rs", &long)]).is_empty());
    assert_eq!(broken(rule, &[("a.rs", &long), ("b.rs", &long)]).len(), 1);
    assert_eq!(broken(rule, &[("a.rs", "")]).len(), 1);
    assert_eq!(broken(rule, &[]).len(), 1);
}

#[test]
fn names_paths_and_silent_files_are_found() {
    assert_eq!(broken(names, &[("notes.txt", ""), ("host/src/utils.rs", ""), ("host/src/common/a.rs", "")]).len(), 3);
    assert!(broken(names, &[("host/src/http/mod.rs", "")]).is_empty());
    assert_eq!(broken(first_sentences, &[("host/src/a.rs", "use b;")]).len(), 1);
    let path = format!("{}x", MACHINE_PATHS[1]);
    assert_eq!(
        broken(machine_paths, &[("a.md", &format!("see {path}"))]),
        [format!("a.md:1: {} is a folder of one machine", MACHINE_PATHS[1])]
    );
    assert!(broken(machine_paths, &[("a.md", &format!("frame{path}"))]).is_empty());
}
