//! `/sayhello.so`: the least that a handler does is to answer, and an answer may be no.

use abi::{Body, Environ, StartResponse};

abi::application!(application);

fn application(_env: &Environ, start: StartResponse) -> Body {
    start.respond("404 Not Found", &[("Content-Type", "text/plain")], "file not found")
}
