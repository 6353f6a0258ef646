//! `/counter.so`: counts its calls, and goes on counting in the next build: rebuild this file, and see.
//!
//! A static lives as long as the build, in one process. What `save` gives, `restore` is given in whatever comes next.
//! Calls run on several threads at once, hence the atomic. A module that cannot stand that says
//! `flags: abi::NOT_THREAD_SAFE` below, and is called one at a time.

use abi::{Body, Environ, Init, Reason, StartResponse};
use std::convert::Infallible;
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

static COUNT: AtomicU64 = AtomicU64::new(0);
static GENERATION: AtomicU64 = AtomicU64::new(0);

abi::application!(application);
abi::module! {
    name: "counter",
    version: env!("CARGO_PKG_VERSION"),
    init: init,
    save: save,
    restore: restore,
}

fn application(_env: &Environ, start: StartResponse) -> Body {
    let count = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
    let generation = GENERATION.load(Ordering::Relaxed);
    let process = process::id();

    let headers = [("Content-Type", "text/plain"), ("Cache-Control", "no-store")];
    start.respond("200 OK", &headers, format!("call {count}, of generation {generation} in process {process}\n"))
}

/// Runs before the first call: here to serve, and once before that to check whether the build is sound.
fn init(init: &Init) -> Result<(), Infallible> {
    if init.reason() == Reason::Serve {
        GENERATION.store(init.generation(), Ordering::Relaxed);
    }
    Ok(())
}

/// Another build will read this: it begins with a version.
fn save() -> Result<String, Infallible> {
    Ok(format!("counter 1: {}", COUNT.load(Ordering::Relaxed)))
}

/// An error refuses this build, and the one before it goes on counting.
fn restore(state: &[u8]) -> Result<(), String> {
    let text = str::from_utf8(state).ok().and_then(|text| text.strip_prefix("counter 1: "));
    let count = text.and_then(|text| text.parse().ok()).ok_or("this is no state of a counter")?;
    COUNT.store(count, Ordering::Relaxed);
    Ok(())
}
