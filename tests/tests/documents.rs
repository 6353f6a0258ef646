//! The documents tell the truth, as far as a program can see: they exist, their links lead somewhere, their commands and
//! sources are the repository's, their invariants are checked, and every dependency and variable is explained.
//!
//! Each rule is a function from files to breaches, `path:line: what is wrong`. It is applied to the repository, and
//! also to files made up to break it, so that a rule cannot silently stop working.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use tests::source::{Source, files, words};

const README_LINES_MAX: usize = 150;

/// What the README promises to work in a fresh clone, each on a line of its own.
const README_COMMANDS: [&str; 2] = [
    "cargo build --release && cc -shared -fPIC -I abi/include handlers/hello.c -o handlers/hello.so && \
     target/release/host --handlers ./handlers framework:app",
    "tests/run",
];

/// What begins a statement of ARCHITECTURE.md that must hold, and how it says that no program checks it.
const INVARIANT: &str = "**Architecture invariant:**";
const BY_REVIEW: &str = "(checked by review)";

/// What a visitor looks for.
const DOCUMENTS: [&str; 10] = [
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "README.md",
    "SECURITY.md",
    "docs/abi.md",
    "docs/configuration.md",
    "docs/operations.md",
    "docs/performance.md",
    "docs/reload.md",
];

fn documents(files: &[Source]) -> Vec<String> {
    let missing = DOCUMENTS.iter().filter(|document| find(files, document).is_none());
    missing.map(|document| format!("{document}:1: it does not exist")).collect()
}

fn readme(files: &[Source]) -> Vec<String> {
    let Some(readme) = find(files, "README.md") else { return Vec::new() };
    let mut breaches = Vec::new();
    if readme.text.lines().count() >= README_LINES_MAX {
        breaches.push(format!("README.md:{README_LINES_MAX}: it must stay under {README_LINES_MAX} lines"));
    }
    for command in README_COMMANDS.iter().filter(|command| !readme.text.lines().any(|line| line == **command)) {
        breaches.push(format!("README.md:1: this command is missing: {command}"));
    }
    let hello = find(files, "handlers/hello.c").map_or("", |hello| &hello.text);
    if hello.is_empty() || !readme.text.contains(&format!("```c\n{hello}```\n")) {
        breaches.push("README.md:1: its hello in C is not handlers/hello.c".to_owned());
    }
    breaches
}

/// Each invariant names the rule of tidy.rs or the test that checks it, or says that people do.
fn invariants(files: &[Source]) -> Vec<String> {
    let Some(architecture) = find(files, "ARCHITECTURE.md") else { return Vec::new() };
    let tidy = find(files, "tests/tests/tidy.rs").map_or("", |tidy| &tidy.text);
    let mut breaches = Vec::new();
    let mut count = 0;
    let paragraphs = architecture.text.split("\n\n").scan(1, |line, paragraph| {
        let start = *line;
        *line += paragraph.matches('\n').count() + 2;
        Some((start, paragraph.trim()))
    });
    for (line, paragraph) in paragraphs.filter(|(_, paragraph)| paragraph.starts_with(INVARIANT)) {
        count += 1;
        let rule = paragraph.rsplit_once("(checked by `").and_then(|(_, rule)| rule.strip_suffix("`)"));
        match rule {
            Some(rule) if tidy.contains(&format!("(\"{rule}\",")) || find(files, rule).is_some() => {}
            Some(rule) => breaches.push(format!("ARCHITECTURE.md:{line}: there is no rule or test {rule}")),
            None if paragraph.ends_with(BY_REVIEW) => {}
            None => breaches
                .push(format!("ARCHITECTURE.md:{line}: it must end with (checked by `RULE OR TEST`) or {BY_REVIEW}")),
        }
    }
    if count == 0 {
        breaches.push(format!("ARCHITECTURE.md:1: it states no invariant: {INVARIANT}"));
    }
    breaches
}

/// The code map names each folder of `host/src`, however deep, and each file beside them. Files within a folder come and
/// go; the folder's own first lines say what they are.
fn code_map(files: &[Source]) -> Vec<String> {
    let Some(architecture) = find(files, "ARCHITECTURE.md") else { return Vec::new() };
    let mut places = BTreeSet::new();
    for file in files {
        let Some(inner) = file.path.strip_prefix("host/src/").filter(|inner| !inner.ends_with("/tests.rs")) else {
            continue;
        };
        let (folders, name) = inner.rsplit_once('/').map_or((None, inner), |(folders, _)| (Some(folders), ""));
        places.extend(folders.map(|folders| format!("{folders}/")));
        places.extend((!name.is_empty() && name != "lib.rs").then(|| name.to_owned()));
    }
    let missing = places.iter().filter(|place| !architecture.text.contains(&format!("`{place}`")));
    missing.map(|place| format!("ARCHITECTURE.md:1: its code map does not name `{place}`")).collect()
}

/// A link that is no address of elsewhere leads to a file or folder of the repository.
fn links(files: &[Source]) -> Vec<String> {
    let mut breaches = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with(".md")) {
        for (index, line) in file.text.lines().enumerate() {
            for (at, _) in line.match_indices("](") {
                let target = line[at + 2..].split(')').next().unwrap_or_default();
                let path = target.split('#').next().unwrap_or_default();
                if path.is_empty() || path.contains("://") {
                    continue;
                }
                let leads = resolve(&file.path, path);
                if !files.iter().any(|other| Path::new(&other.path).starts_with(&leads)) {
                    breaches.push(format!("{}:{}: {target} leads nowhere", file.path, index + 1));
                }
            }
        }
    }
    breaches
}

/// The path, from the repository's root, that a link of a file means.
fn resolve(file: &str, link: &str) -> PathBuf {
    let mut resolved = Path::new(file).parent().map(Path::to_owned).unwrap_or_default();
    for component in Path::new(link).components() {
        match component {
            Component::ParentDir => drop(resolved.pop()),
            Component::Normal(name) => resolved.push(name),
            _ => {}
        }
    }
    resolved
}

/// Each crate of others has a line, as a table has it or as prose does.
fn dependencies(files: &[Source]) -> Vec<String> {
    let decisions: String = texts(files, |path| path.starts_with("docs/decisions/"));
    let ours = |file: &Source, index: usize, name: &str| {
        name == "abi" || name == "host" || file.text.lines().nth(index).is_some_and(|line| line.contains("path = "))
    };
    let foreign = dependency_lines(files).into_iter().filter(|&(file, index, name)| !ours(file, index, name));
    let silent = foreign.filter(|(_, _, name)| !decisions.contains(&format!("`{name}`")));
    silent
        .map(|(file, index, name)| format!("{}:{}: no line about `{name}` in docs/decisions/", file.path, index + 1))
        .collect()
}

/// A dependency that no file of its package names is one too many.
fn unused_dependencies(files: &[Source]) -> Vec<String> {
    let mut breaches = Vec::new();
    for (manifest, index, name) in dependency_lines(files) {
        let Some(folder) = manifest.path.strip_suffix("Cargo.toml").filter(|folder| !folder.is_empty()) else {
            continue;
        };
        let word = name.replace('-', "_");
        let names = |file: &Source| words(&file.code()).any(|found| found.text == word && found.rest.starts_with("::"));
        let used = rust(files).filter(|file| file.path.starts_with(folder)).any(names);
        if !used {
            breaches.push(format!("{}:{}: nothing in {folder} uses {name}", manifest.path, index + 1));
        }
    }
    breaches
}

/// The manifests' dependencies: manifest, line from 0, name.
fn dependency_lines(files: &[Source]) -> Vec<(&Source, usize, &str)> {
    let mut found = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with("Cargo.toml")) {
        let mut in_dependencies = false;
        for (index, line) in file.text.lines().enumerate() {
            if line.starts_with('[') {
                in_dependencies = line.ends_with("dependencies]");
                continue;
            }
            let name = line.split(['=', '.', ' ']).next().unwrap_or_default();
            if in_dependencies && !name.is_empty() && !name.starts_with('#') {
                found.push((file, index, name));
            }
        }
    }
    found
}

/// A variable is read by its literal name, or by a constant whose name ends in `VARIABLE`.
fn variables(files: &[Source]) -> Vec<String> {
    let documents = texts(files, |path| path.ends_with(".md"));
    let mut breaches = Vec::new();
    for file in rust(files) {
        for (index, line) in file.text.lines().enumerate() {
            for before in ["env::var(\"", "env::var_os(\"", "environment(\"", "VARIABLE: &str = \""] {
                for (at, _) in line.match_indices(before) {
                    let name = line[at + before.len()..].split('"').next().unwrap_or_default();
                    if !documents.contains(&format!("`{name}`")) && !line.trim_start().starts_with("//") {
                        breaches.push(format!("{}:{}: no document explains `{name}`", file.path, index + 1));
                    }
                }
            }
        }
    }
    breaches
}

fn find<'a>(files: &'a [Source], path: &str) -> Option<&'a Source> {
    files.iter().find(|file| file.path == path)
}

fn rust(files: &[Source]) -> impl Iterator<Item = &Source> {
    files.iter().filter(|file| file.path.ends_with(".rs"))
}

fn texts(files: &[Source], wanted: impl Fn(&str) -> bool) -> String {
    files.iter().filter(|file| wanted(&file.path)).map(|file| file.text.as_str()).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_documents_keep_their_promises() {
    let files = files();
    let rules = [documents, readme, invariants, code_map, links, dependencies, unused_dependencies, variables];
    let breaches: Vec<String> = rules.iter().flat_map(|rule| rule(&files)).collect();
    assert!(breaches.is_empty(), "{} breaches:\n{}", breaches.len(), breaches.join("\n"));
}

/// The breaches of `rule` by made-up files.
fn broken(rule: impl Fn(&[Source]) -> Vec<String>, files: &[(&str, &str)]) -> Vec<String> {
    let source = |(path, text): &(&str, &str)| Source { path: (*path).to_owned(), text: (*text).to_owned() };
    rule(&files.iter().map(source).collect::<Vec<_>>())
}

#[test]
fn a_readme_that_is_long_or_has_another_hello_is_found() {
    let commands = README_COMMANDS.join("\n");
    let good = format!("{commands}\n```c\nint hello;\n```\n");
    let hello = ("handlers/hello.c", "int hello;\n");
    assert!(broken(readme, &[("README.md", &good), hello]).is_empty());
    for bad in [
        good.replace("tests/run", "make test"),
        good.replace("int hello", "int hallo"),
        format!("{good}{}", "\n".repeat(README_LINES_MAX)),
    ] {
        assert_eq!(broken(readme, &[("README.md", &bad), hello]).len(), 1, "{bad}");
    }
    assert_eq!(broken(documents, &[hello]).len(), DOCUMENTS.len());
}

#[test]
fn an_invariant_that_nobody_checks_is_found() {
    let tidy = ("tests/tests/tidy.rs", "(\"layers\", layers),");
    let state = |end: &str| format!("# A\n\n{INVARIANT} b\nc. {end}\n\nd\n");
    for good in ["(checked by `layers`)", "(checked by `tests/tests/tidy.rs`)", BY_REVIEW] {
        assert!(broken(invariants, &[("ARCHITECTURE.md", &state(good)), tidy]).is_empty(), "{good}");
    }
    for bad in ["(checked by `lawyers`)", "", "(checked)"] {
        let breaches = broken(invariants, &[("ARCHITECTURE.md", &state(bad)), tidy]);
        assert!(matches!(&breaches[..], [breach] if breach.starts_with("ARCHITECTURE.md:3: ")), "{bad} {breaches:?}");
    }
    assert_eq!(broken(invariants, &[("ARCHITECTURE.md", "# A\n"), tidy]).len(), 1);
    let map =
        [("ARCHITECTURE.md", "`a.rs` `b/`"), ("host/src/a.rs", ""), ("host/src/b/c.rs", ""), ("host/src/d/e.rs", "")];
    assert_eq!(broken(code_map, &map), ["ARCHITECTURE.md:1: its code map does not name `d/`"]);
}

#[test]
fn links_that_lead_nowhere_are_found() {
    let text = "[a](../README.md#x) [b](https://example.org/) [c](#here) [d](decisions) [e](none.md)\n";
    let files = [("docs/a.md", text), ("README.md", ""), ("docs/decisions/0001-a.md", "")];
    assert_eq!(broken(links, &files), ["docs/a.md:1: none.md leads nowhere"]);
}

#[test]
fn unexplained_dependencies_and_variables_are_found() {
    let manifest = "[package]\nname = \"a\"\n[dependencies]\nabi.workspace = true\n# Why.\nserde = \"1\"\n[dev-dependencies]\ninsta = \"1\"\n[lints]\nx = 1\n";
    assert_eq!(
        broken(dependencies, &[("host/Cargo.toml", manifest)]),
        [
            "host/Cargo.toml:6: no line about `serde` in docs/decisions/",
            "host/Cargo.toml:8: no line about `insta` in docs/decisions/"
        ]
    );
    let decisions = ("docs/decisions/0001.md", "`serde` `insta`");
    assert!(broken(dependencies, &[("host/Cargo.toml", manifest), decisions]).is_empty());
    let code = concat!("let a = std::env::v", "ar(\"A_B\");\nconst X_VAR", "IABLE: &str = \"C_D\";\n");
    assert_eq!(broken(variables, &[("host/src/a.rs", code)]).len(), 2);
    assert!(broken(variables, &[("host/src/a.rs", code), ("docs/a.md", "`A_B` `C_D`")]).is_empty());
}

#[test]
fn unused_dependencies_are_found() {
    let manifest = ("host/Cargo.toml", "[dependencies]\narc-swap = \"1\"\nserde = \"1\"\n");
    let code = ("host/src/a.rs", "use arc_swap::ArcSwap; // serde::Serialize\n");
    assert_eq!(broken(unused_dependencies, &[manifest, code]), ["host/Cargo.toml:3: nothing in host/ uses serde"]);
}
