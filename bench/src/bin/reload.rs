//! From the linker's last write to the first answer of the new build, and where the time goes.
//!
//! `cargo run --release -p bench --bin reload [ROUNDS]` builds a C handler in place with `cc` and a Rust handler with
//! `cargo`, ROUNDS times each, while one connection asks without a pause. The start is the file's modification time
//! (ctime for cargo, which links the finished file into place), the end is the arrival of the first answer of that build.

use bench::Sample;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tests::{Server, Site, cc, repository};

fn main() {
    let rounds = std::env::args().nth(1).map_or(50, |rounds| rounds.parse().expect("ROUNDS is a number"));
    println!("from the last write to the first answer, in ms, {rounds} builds each");
    println!("{:<28}  median   least    90 %    most", "");
    measure("C, overwritten by cc", rounds, &CHandler);
    measure("Rust, rebuilt by cargo", rounds, &RustHandler);
}

/// A handler that can be built in numbered versions.
trait Handler {
    /// Makes the module `bench` of that version; the answer is `version N`.
    fn build(&self, site: &Site, version: usize) -> PathBuf;
}

struct CHandler;
struct RustHandler;

impl Handler for CHandler {
    fn build(&self, site: &Site, version: usize) -> PathBuf {
        let source = site.write(
            "bench.c",
            format!(
                r#"#include "host.h"
                HOST_EXPORT host_body *application(host_env *env, host_start_response *start_response) {{
                    start_response->call(start_response, HOST_STR("200 OK"), NULL, 0, NULL);
                    return env->bytes(env, HOST_STR("version {version}"));
                }}"#
            ),
        );
        let out = site.path("handlers/bench.so");
        cc(&source, &out, &[]);
        out
    }
}

impl Handler for RustHandler {
    fn build(&self, site: &Site, version: usize) -> PathBuf {
        let abi = repository().join("abi");
        site.write(
            "handlers/bench/Cargo.toml",
            format!(
                "[package]\nname = \"bench\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[lib]\ncrate-type = [\"cdylib\"]\n\
                 [dependencies]\nabi = {{ path = {abi:?} }}\n[workspace]\n"
            ),
        );
        site.write(
            "handlers/bench/src/lib.rs",
            format!(
                "use abi::{{Body, Environ, StartResponse}};\n\
                 fn application(_: &Environ, start: StartResponse) -> Body {{\n\
                     start.respond(\"200 OK\", &[], \"version {version}\")\n}}\nabi::application!(application);\n"
            ),
        );
        let folder = site.path("handlers/bench");
        let built = Command::new("cargo")
            .args(["build", "--quiet", "--offline"])
            .current_dir(&folder)
            .env_remove("CARGO_TARGET_DIR")
            .status()
            .expect("cargo starts");
        assert!(built.success(), "cargo builds version {version}");
        folder.join("target/debug/libbench.so")
    }
}

fn measure(what: &str, rounds: usize, handler: &dyn Handler) {
    let site = Site::new();
    handler.build(&site, 0);
    let server = site.start(&[]);
    let asker = Asker::start(&server);
    asker.first_answer(0);
    let (mut total, mut explained) = (Sample::default(), Vec::new());
    for version in 1..=rounds {
        let mark = server.mark();
        let file = handler.build(&site, version);
        let answered = asker.first_answer(version);
        total.push((answered - last_write(&file)).as_secs_f64() * 1e3);
        let line = server.wait_for_log_since(mark, "reloaded bench", tests::PATIENCE);
        explained.push(line);
    }
    println!("{what:<28}  {}", total.summary());
    for part in ["wait", "copy", "check", "rollout"] {
        let mut sample = Sample::default();
        explained.iter().filter_map(|line| field(line, part)).for_each(|ms| sample.push(ms));
        println!("  {part:<26}  {}", sample.summary());
    }
    asker.stop();
}

/// When the file last changed, since the epoch: written, or linked into place.
fn last_write(file: &Path) -> Duration {
    let metadata = file.metadata().expect("the build exists");
    Duration::new(metadata.ctime() as u64, metadata.ctime_nsec() as u32)
}

/// `name=1.2` of a log line.
fn field(line: &str, name: &str) -> Option<f64> {
    line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}

/// One connection that asks without a pause and notes when each version answers first.
struct Asker {
    news: Mutex<mpsc::Receiver<(usize, Duration)>>,
    over: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

impl Asker {
    fn start(server: &Server) -> Asker {
        let (sender, news) = mpsc::channel();
        let over = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&over);
        let mut client = server.connect();
        let thread = std::thread::spawn(move || {
            let mut newest = None;
            while !stop.load(Ordering::Relaxed) {
                let answer = client.get("/bench.so").expect("an answer");
                let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock past 1970");
                let version = answer.text().strip_prefix("version ").and_then(|version| version.parse().ok());
                if version != newest
                    && let Some(version) = version
                {
                    newest = Some(version);
                    // The measurement may be over.
                    _ = sender.send((version, now));
                }
            }
        });
        Asker { news: Mutex::new(news), over, thread }
    }

    fn first_answer(&self, version: usize) -> Duration {
        let news = self.news.lock().expect("one thread measures");
        loop {
            let (seen, when) = news.recv_timeout(tests::PATIENCE).expect("the new build answers");
            if seen == version {
                return when;
            }
        }
    }

    fn stop(self) {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().expect("the connection was never closed");
    }
}
