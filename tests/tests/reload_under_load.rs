//! Rebuilding while clients keep the server busy, and crashing now and then: nothing is lost, nothing is closed, and what is announced is true.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tests::{Load, PATIENCE, Response, Server, Site, cc, children, repository};

const CONNECTIONS: usize = 32;
const CARGO_BUILDS: usize = 50;
const CC_BUILDS: usize = 950;

/// Right answers between two crashes.
const ANSWERS_EACH: u64 = 2_000;

/// The newest version of each module that has been announced: what a request that begins now must not fall below.
#[derive(Default)]
struct Announced {
    ctime: AtomicUsize,
    in_place: AtomicUsize,
}

impl Announced {
    fn of(&self, path: &str) -> &AtomicUsize {
        if path.starts_with("/ctime.so") { &self.ctime } else { &self.in_place }
    }
}

#[test]
fn a_thousand_rebuilds_with_crashes_under_load_lose_nothing_and_each_line_is_true() {
    let site = Site::new();
    let ctime = CargoHandler::new(&site);
    ctime.build(0);
    overwrite(&site, 0);
    let server = site.start(&["--limit-generations", "32"]);
    let first_worker = worker(&server);
    let announced = Arc::new(Announced::default());
    let (noted, verified) = (Arc::clone(&announced), Arc::clone(&announced));
    let load = Load::start_noting(
        server.address(),
        CONNECTIONS,
        &["/ctime.so?timezone=e8", "/in_place.so"],
        move |path| noted.of(path).load(Ordering::SeqCst),
        move |path, floor, response| {
            let version = version(response).ok_or_else(|| format!("not an answer: {response:?}"))?;
            if version < floor {
                return Err(format!("version {version} answered after version {floor} was announced"));
            }
            // Only what has been built can answer: one beyond the newest that was announced.
            let newest = verified.of(path).load(Ordering::SeqCst) + 1;
            if version > newest { Err(format!("version {version} before {newest} was built")) } else { Ok(()) }
        },
    );
    load.flow(1000);

    let (built, crashes) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut due = load.answered();
            while !built.load(Ordering::SeqCst) {
                if load.answered() < due {
                    std::thread::sleep(Duration::from_millis(2));
                    continue;
                }
                assert_eq!(server.get("/in_place.so?crash").status, 500);
                crashes.fetch_add(1, Ordering::SeqCst);
                due = load.answered() + ANSWERS_EACH;
            }
        });
        scope.spawn(|| {
            for version in 1..=CARGO_BUILDS {
                let mark = server.mark();
                ctime.build(version);
                server.wait_for_log_since(mark, "reloaded ctime generation", PATIENCE);
                announced.ctime.store(version, Ordering::SeqCst);
                if version % 10 == 0 {
                    // A source that does not compile never becomes a build at all.
                    assert!(!ctime.try_build("this is not Rust"));
                }
            }
        });
        // Also when something below panics: else the crashes would go on for ever.
        let _end = End(&built);
        for version in 1..=CC_BUILDS {
            let mark = server.mark();
            overwrite(&site, version);
            server.wait_for_log_since(mark, "reloaded in_place generation", PATIENCE);
            announced.in_place.store(version, Ordering::SeqCst);
            if version % 20 == 0 {
                break_it(&site, &server, version / 20);
                // The sound build comes back as a new file; its answer is the same.
                let mark = server.mark();
                overwrite(&site, version);
                server.wait_for_log_since(mark, "reloaded in_place generation", PATIENCE);
            }
        }
    });

    load.flow(1000);
    let report = load.finish();
    let crashes = crashes.into_inner();
    println!("{} requests were answered meanwhile, and {crashes} crashed", report.answered);
    report.assert_nothing_lost();
    assert!(crashes > 10, "{crashes}");
    assert_ne!(worker(&server), first_worker, "so many generations need more than one worker");
    assert_eq!(server.get("/in_place.so").field("x-version"), Some(CC_BUILDS.to_string().as_str()));
    assert_eq!(server.get("/ctime.so").field("x-version"), Some(CARGO_BUILDS.to_string().as_str()));
}

/// Says when it is dropped that all is over.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Overwrites the C handler by something that must not serve, in one of several ways, and waits for the refusal.
fn break_it(site: &Site, server: &Server, way: usize) {
    let file = site.path("handlers/in_place.so");
    let mark = server.mark();
    let reason = match way % 5 {
        0 => {
            fs::write(&file, "this is not ELF").expect("our own file");
            "is not an ELF"
        }
        1 => {
            let whole = fs::read(&file).expect("our own file");
            fs::write(&file, &whole[..whole.len() / 2]).expect("our own file");
            "truncated"
        }
        2 => {
            let crashing = "__attribute__((constructor)) static void crash(void) { __builtin_trap(); }";
            compile(site, &format!("{}\n{crashing}", source(0)));
            "in its constructor"
        }
        3 => {
            compile(site, "int nothing_of_interest;");
            "exports no \"application\""
        }
        _ => {
            let missing =
                source(0).replace("return env->bytes", "extern int missing(void); missing(); return env->bytes");
            compile(site, &missing);
            "missing"
        }
    };
    let line = server.wait_for_log_since(mark, "kept in_place generation", PATIENCE);
    assert!(line.contains(reason), "the refusal says why ({reason}): {line}");
}

fn source(version: usize) -> String {
    format!(
        r#"#include "host.h"
        HOST_EXPORT host_body *application(host_env *env, host_start_response *start_response) {{
            if (env->get(env, HOST_STR("QUERY_STRING")).len == 5) __builtin_trap();
            host_header headers[] = {{{{HOST_STR("X-Version"), HOST_STR("{version}")}}}};
            start_response->call(start_response, HOST_STR("200 OK"), headers, 1, NULL);
            return env->bytes(env, HOST_STR("version {version}\n"));
        }}"#
    )
}

fn overwrite(site: &Site, version: usize) {
    compile(site, &source(version));
}

fn compile(site: &Site, source: &str) {
    let source = site.write("sources/in_place.c", source);
    cc(&source, &site.path("handlers/in_place.so"), &[]);
}

fn version(response: &Response) -> Option<usize> {
    (response.status == 200).then(|| response.field("x-version")?.parse().ok()).flatten()
}

fn worker(server: &Server) -> u32 {
    let workers: Vec<_> = children(server.id()).into_iter().filter(|child| child.command.contains("worker")).collect();
    workers.last().expect("a worker").id
}

/// The repository's own `ctime`, in the site's folder of handlers, where it can be edited.
struct CargoHandler {
    folder: std::path::PathBuf,
    source: String,
}

impl CargoHandler {
    fn new(site: &Site) -> CargoHandler {
        let original = repository().join("handlers/ctime");
        let manifest = fs::read_to_string(original.join("Cargo.toml")).expect("the crate's manifest");
        let abi = repository().join("abi");
        let manifest = manifest.replace("../../abi", abi.to_str().expect("a UTF-8 path"));
        site.write("handlers/ctime/Cargo.toml", format!("{manifest}\n[workspace]\n"));
        for file in ["lib.rs", "clock.rs"] {
            let text = fs::read(original.join("src").join(file)).expect("the crate's source");
            site.write(&format!("handlers/ctime/src/{file}"), text);
        }
        let folder = site.path("handlers/ctime");
        let source = fs::read_to_string(folder.join("src/lib.rs")).expect("the crate's source");
        CargoHandler { folder, source }
    }

    fn build(&self, version: usize) {
        let header = r#"("Cache-Control", "no-store")"#;
        assert!(self.source.contains(header), "ctime has changed: the test edits its headers");
        let edited = self.source.replace(header, &format!(r#"{header}, ("X-Version", "{version}")"#));
        assert!(self.try_build(&edited), "version {version} of ctime compiles");
    }

    fn try_build(&self, source: &str) -> bool {
        let file = self.folder.join("src/lib.rs");
        fs::write(&file, source).expect("our own file");
        cargo_build(&self.folder)
    }
}

fn cargo_build(folder: &Path) -> bool {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--offline"]).current_dir(folder).env_remove("CARGO_TARGET_DIR");
    cargo.stderr(std::process::Stdio::null()).status().expect("cargo starts").success()
}
