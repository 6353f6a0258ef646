//! What a handler in Rust does wrong stays in its request: neither panic nor error crosses the C ABI.

use abi::ffi::HOST_IO;
use abi::{Body, Environ, Refused, StartResponse};
use fake_host::{Outcome, Request, serve, serve_exported};
use std::io::{self, Write};

mod fake_host;

const INTERNAL_SERVER_ERROR: &str = "500 Internal Server Error\nContent-Type: text/plain";

fn answers_500(outcome: &Outcome, logged: &str) {
    assert_eq!((outcome.head.as_str(), outcome.text()), (INTERNAL_SERVER_ERROR, "Internal Server Error\n"));
    assert_eq!(outcome.errors, [logged]);
    assert!(!outcome.aborted);
}

#[test]
fn a_panic_before_the_start_is_a_500() {
    let outcome = serve(Request::default(), |_: &Environ, _: StartResponse<'_>| -> Body { panic!("too bad") });
    answers_500(&outcome, "panicked: too bad");
}

#[test]
fn a_panic_replaces_a_response_that_is_not_sent() {
    let outcome = serve(Request::default(), |_: &Environ, start: StartResponse<'_>| -> Body {
        start.start("200 OK", &[("X-First", "1")]).expect("started");
        panic!("{} bad", "too")
    });
    answers_500(&outcome, "panicked: too bad");
}

#[test]
fn a_panic_after_content_aborts_the_connection() {
    let outcome = serve(Request::default(), |_: &Environ, start: StartResponse<'_>| -> Body {
        let mut writer = start.start("200 OK", &[]).expect("started");
        writer.write_all(b"half of").expect("written");
        panic!("too late")
    });
    assert_eq!((outcome.head.as_str(), outcome.text()), ("200 OK", "half of"));
    assert_eq!((outcome.aborted, outcome.count), (true, None));
    assert_eq!(outcome.errors, ["panicked: too late"]);
}

#[test]
fn an_error_is_a_500_as_a_panic_is() {
    let outcome = serve(Request::default(), |_: &Environ, start: StartResponse<'_>| -> io::Result<Body> {
        start.start("200 OK", &[]).expect("started");
        Err(io::Error::other("no database"))
    });
    answers_500(&outcome, "no database");

    let outcome = serve(Request::default(), |_: &Environ, start: StartResponse<'_>| -> Result<Body, Refused> {
        start.start("200 OK", &[("X", "a\r\nb")])?;
        Ok("unreachable".into())
    });
    answers_500(&outcome, &Refused.to_string());
}

#[test]
fn a_panic_in_a_visitor_of_the_environ_passes_through_the_host() {
    let request = Request { environ: vec![("A", b"1"), ("B", b"2")], ..Request::default() };
    let mut seen = 0;
    let outcome = serve(request, |env: &Environ, _: StartResponse<'_>| -> Body {
        env.each(|_, _| {
            seen += 1;
            panic!("at the first")
        });
        unreachable!("each goes on panicking")
    });
    answers_500(&outcome, "panicked: at the first");
    assert_eq!(seen, 1);
}

#[test]
fn an_error_whose_message_panics_is_a_500() {
    struct Rude;
    impl std::fmt::Display for Rude {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            panic!("no comment")
        }
    }
    let outcome = serve(Request::default(), |_: &Environ, _: StartResponse<'_>| -> Result<Body, Rude> { Err(Rude) });
    answers_500(&outcome, "panicked: no comment");
}

#[test]
fn a_panic_payload_that_panics_when_dropped_is_a_500() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("once more")
        }
    }
    let application = |_: &Environ, _: StartResponse<'_>| -> Body { std::panic::panic_any(Bomb) };
    answers_500(&serve(Request::default(), application), "panicked with a value that is no text");
}

#[test]
fn a_panic_in_a_body_fails_it_and_it_is_still_closed() {
    let (closed, is_closed) = std::sync::mpsc::channel::<()>();
    let outcome = serve(Request::default(), |_: &Environ, start: StartResponse<'_>| {
        start.respond(
            "200 OK",
            &[],
            Body::chunks((0..).map(move |number| {
                let _held = &closed;
                assert!(number < 2, "no third");
                format!("{number}\n")
            })),
        )
    });
    assert_eq!((outcome.text(), outcome.failure, outcome.count), ("0\n1\n", HOST_IO, Some(-1)));
    assert_eq!(outcome.errors, ["the body failed: panicked: no third"]);
    assert!(is_closed.try_recv().is_err_and(|error| error == std::sync::mpsc::TryRecvError::Disconnected));
}

#[test]
fn an_error_in_a_body_fails_it() {
    let outcome = serve(Request::default(), |_: &Environ, start: StartResponse<'_>| {
        start.respond("200 OK", &[], Body::try_chunks(["a", ""].map(|it| if it == "a" { Ok(it) } else { Err("no b") })))
    });
    assert_eq!((outcome.text(), outcome.failure), ("a", HOST_IO));
    assert_eq!(outcome.errors, ["the body failed: no b"]);
}

#[test]
fn a_panic_while_a_body_is_closed_is_logged() {
    struct Rude;
    impl Iterator for Rude {
        type Item = String;
        fn next(&mut self) -> Option<String> {
            None
        }
    }
    impl Drop for Rude {
        fn drop(&mut self) {
            panic!("not yet")
        }
    }
    let outcome = serve(Request::default(), |_: &Environ, start: StartResponse<'_>| {
        start.respond("200 OK", &[], Body::chunks(Rude))
    });
    assert_eq!(outcome.failure, 0);
    assert_eq!(outcome.errors, ["the body failed while it was closed: panicked: not yet"]);
}

mod exported {
    use abi::{Body, Environ, StartResponse};

    abi::application!(panics);
    abi::application!(panics as panics_too);

    fn panics(_env: &Environ, _start: StartResponse<'_>) -> Body {
        panic!("at once")
    }

    pub mod symbols {
        use abi::ffi::*;

        // SAFETY: the macros above define them with this type.
        unsafe extern "C" {
            pub safe static host_abi_version: u32;
            pub fn panics(env: *mut host_env, start: *mut host_start_response) -> *mut host_body;
            pub fn panics_too(env: *mut host_env, start: *mut host_start_response) -> *mut host_body;
        }
    }
}

#[test]
fn exported_functions_catch_panics() {
    use exported::symbols;
    for symbol in [symbols::panics as abi::ffi::host_application, symbols::panics_too] {
        // SAFETY: called once, with the arguments of a call.
        let outcome = serve_exported(Request::default(), |env, start| unsafe { symbol(env, start) });
        answers_500(&outcome, "panicked: at once");
    }
    assert_eq!(symbols::host_abi_version, abi::ffi::HOST_ABI);
}
