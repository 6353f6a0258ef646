//! The hello of `handlers/hello.c`, word for word, by the Rust SDK: the comparison with peers asks both.

use abi::{Body, Environ, StartResponse};

abi::application!(application);

fn application(_env: &Environ, start: StartResponse<'_>) -> Body {
    start.respond("200 OK", &[("Content-Type", "text/plain")], "Hello, World!\n")
}
