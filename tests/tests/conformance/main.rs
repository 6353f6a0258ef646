//! HTTP/1.1 from outside, by RFC 9110 and RFC 9112: a real server, a client that sends exact bytes and reads strictly.
//!
//! `corpus`: the cases of `tests/conformance/data`. `messages`: what is taken and what is refused. `content`: the content of requests, and of responses without a known
//! length. `connections`: how long one lives and in which order it answers. `limits`: sizes, numbers and time-outs.
//! `listeners`: where a server listens, how it stops, and what `--trace` shows.

mod connections;
mod content;
mod corpus;
mod limits;
mod listeners;
mod messages;

use std::io::ErrorKind;
use tests::{Client, Response, Server, Site, cc, repository};

/// A site with the page `/` (`home`), `/a.txt` (`a`) and `/b.txt` (`bb`).
fn pages() -> Site {
    let site = Site::new();
    site.write("html/index.html", "home");
    site.write("html/a.txt", "a");
    site.write("html/b.txt", "bb");
    site
}

/// As [`pages`], with `/mirror.so`, which answers with the content of the request.
fn pages_and_mirror() -> Site {
    let site = pages();
    let source = repository().join("tests/tests/conformance/mirror.c");
    cc(&source, &site.path("handlers/mirror.so"), &["-Wall", "-Wextra", "-Werror"]);
    site
}

/// The one response to `bytes`, after which the server closes properly and has sent nothing else.
#[track_caller]
fn last_response(server: &Server, bytes: &[u8]) -> Response {
    let mut client = server.connect();
    client.send(bytes).unwrap();
    let response = client.response().unwrap_or_else(|error| panic!("{}: {error}", bytes.escape_ascii()));
    assert!(response.closes(), "{}\n{}", bytes.escape_ascii(), response.head);
    assert_closed(&mut client);
    response
}

/// The server has closed, without a reset and without another byte.
#[track_caller]
fn assert_closed(client: &mut Client) {
    assert_eq!(client.rest().unwrap().escape_ascii().to_string(), "");
}

/// The connection has been aborted or closed before the response was complete.
#[track_caller]
fn assert_aborted(result: std::io::Result<Response>) {
    let error = result.expect_err("a response that cannot be complete");
    assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof), "{error}");
}
