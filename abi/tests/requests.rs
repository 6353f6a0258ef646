//! What a handler in Rust sees of a request and can answer to it.

use abi::{Body, Environ, Error, StartResponse};
use fake_host::{Outcome, Request, serve};
use std::io::{ErrorKind, Read, Seek, Write};

mod fake_host;

fn answer(body: impl Into<Body>) -> Outcome {
    serve(Request::default(), |_: &Environ, start: StartResponse<'_>| start.respond("200 OK", &[("X", "y")], body))
}

/// Runs code with an environ.
fn with(request: Request, examine: impl FnOnce(&Environ)) {
    let outcome = serve(request, |env: &Environ, start: StartResponse<'_>| {
        examine(env);
        start.respond("200 OK", &[], "examined")
    });
    assert_eq!((outcome.text(), outcome.errors.len()), ("examined", 0), "{:?}", outcome.errors);
}

#[test]
fn the_environ_tells_absent_from_empty() {
    let environ: Vec<(_, &[u8])> = vec![
        ("REQUEST_METHOD", b"GET"),
        ("PATH_INFO", b"/caf\xc3\xa9/\xff"),
        ("SCRIPT_NAME", b""),
        ("QUERY_STRING", b"empty=&name=a+b%20%C3%A9&flag&name=second&%6eamed=%ff"),
    ];
    with(Request { environ: environ.clone(), ..Request::default() }, |env| {
        assert_eq!(env.get("SCRIPT_NAME"), Some(&b""[..]));
        assert_eq!(env.get("CONTENT_TYPE"), None);
        assert_eq!((env.method(), env.path_info()), ("GET", &b"/caf\xc3\xa9/\xff"[..]));
        assert_eq!((env.get_str("REQUEST_METHOD"), env.get_str("PATH_INFO")), (Some("GET"), None));

        assert_eq!(env.query("name").as_deref(), Some("a b é"));
        assert_eq!(env.query("named").as_deref(), Some("\u{fffd}"));
        assert_eq!((env.query("empty"), env.query("flag")), (Some(String::new()), Some(String::new())));
        assert_eq!(env.query("absent"), None);

        let pairs: Vec<_> = env.iter().collect();
        assert_eq!(pairs, environ.iter().map(|(key, value)| (key.as_bytes(), *value)).collect::<Vec<_>>());
        assert!(format!("{env:?}").contains(r#""REQUEST_METHOD": "GET""#));

        assert_eq!(env.extension(c"test.unknown/1"), None);
        assert!(env.extension(c"test.known/1").is_some());
    });
    with(Request::default(), |env| assert_eq!((env.method(), env.path_info(), env.query("x")), ("", &b""[..], None)));
}

#[test]
fn the_content_is_read_in_lines_and_in_full() {
    let long = [b"x".repeat(3000), b"\nlast".to_vec()].concat().leak();
    with(Request { content: long, ..Request::default() }, |env| {
        let mut line = b"> ".to_vec();
        assert_eq!(env.input().read_line(&mut line).unwrap(), 3001);
        assert_eq!(line, [b"> ", &long[..3001]].concat());
        let mut rest = String::new();
        assert_eq!(env.input().read_to_string(&mut rest).unwrap(), 4);
        assert_eq!(rest, "last");
        assert_eq!(env.input().read_line(&mut line).unwrap(), 0);
    });
    with(Request { content: b"a\n\nb", ..Request::default() }, |env| {
        let mut input = env.input();
        let mut lines = Vec::new();
        for expected in [2, 1, 1, 0] {
            assert_eq!(input.read_line(&mut lines).unwrap(), expected);
        }
        assert_eq!(lines, b"a\n\nb");
    });
}

#[test]
fn failures_to_read_say_why() {
    for (code, kind, error) in [
        (-1, ErrorKind::ConnectionReset, Error::Gone),
        (-2, ErrorKind::TimedOut, Error::Timeout),
        (-3, ErrorKind::FileTooLarge, Error::TooLarge),
        (-6, ErrorKind::InvalidData, Error::Invalid),
        (-77, ErrorKind::Other, Error::Other(-77)),
    ] {
        with(Request { content: b"ab", read_failure: code, ..Request::default() }, |env| {
            let mut content = Vec::new();
            let failure = env.input().read_to_end(&mut content).unwrap_err();
            assert_eq!((content.as_slice(), failure.kind()), (&b"ab"[..], kind));
            assert_eq!(failure.get_ref().and_then(|inner| inner.downcast_ref()), Some(&error));
        });
    }
}

#[test]
fn a_body_is_bytes_chunks_or_a_file() {
    let outcome = answer("text");
    assert_eq!((outcome.head.as_str(), outcome.text(), outcome.count), ("200 OK\nX: y", "text", Some(1)));
    assert_eq!(answer(String::from("owned")).text(), "owned");
    assert_eq!(answer(vec![b'v']).text(), "v");
    assert_eq!(answer(&b"bytes"[..]).text(), "bytes");
    for empty in [answer(Body::empty()), answer(""), answer(Vec::new())] {
        assert_eq!((empty.head.as_str(), empty.content.len(), empty.count), ("200 OK\nX: y", 0, None));
    }

    let large = vec![7; 1 << 20];
    let outcome = answer(large.clone());
    assert_eq!((outcome.content == large, outcome.count), (true, Some(1)));

    let outcome = answer(Body::chunks(["one ", "", "two"]));
    assert_eq!((outcome.text(), outcome.count, outcome.failure), ("one two", Some(-1), 0));
    assert_eq!(answer(Body::try_chunks([Ok::<_, String>("three")])).text(), "three");

    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"0123456789").unwrap();
    file.rewind().unwrap();
    assert_eq!(answer(Body::file(file.try_clone().unwrap())).text(), "0123456789");
    assert_eq!(answer(Body::file_part(file.try_clone().unwrap(), 2, 3)).text(), "234");
    assert_eq!(answer(Body::file_part(file, 8, 100)).text(), "89");
}

#[test]
fn any_number_of_headers_is_sent_in_order() {
    for count in [0, 1, 16, 17, 100] {
        let names: Vec<String> = (0..count).map(|number| format!("X-{number}")).collect();
        let headers: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "v")).collect();
        let outcome = serve(Request::default(), |_: &Environ, start: StartResponse<'_>| {
            start.respond("204 No Content", &headers, Body::empty())
        });
        let expected: String = names.iter().map(|name| format!("\n{name}: v")).collect();
        assert_eq!(outcome.head, format!("204 No Content{expected}"));
    }
}

#[test]
fn what_is_written_comes_before_the_body_and_a_refused_head_starts_nothing() {
    let outcome = serve(Request::default(), |env: &Environ, start: StartResponse<'_>| -> std::io::Result<Body> {
        env.errors("a line");
        let mut writer = start.start("200 OK", &[]).expect("started");
        write!(writer, "written, ")?;
        Ok("returned".into())
    });
    assert_eq!(outcome.text(), "written, returned");
    assert_eq!(outcome.errors, ["a line"]);

    let outcome = serve(Request::default(), |_: &Environ, start: StartResponse<'_>| {
        start.respond("200 OK", &[("X", "a\r\nSet-Cookie: b")], "never sent")
    });
    assert_eq!(outcome, Outcome::default());
}

#[test]
fn a_response_is_replaced_until_content_is_sent() {
    let outcome = serve(Request::default(), |_: &Environ, start: StartResponse<'_>| {
        let writer = start.start("200 OK", &[("X", "first")]).expect("started");
        writer.restart("503 Service Unavailable", &[], "no database").expect("restarted");
        Body::from("later")
    });
    assert_eq!((outcome.head.as_str(), outcome.text()), ("503 Service Unavailable", "later"));

    let outcome = serve(Request::default(), |_: &Environ, start: StartResponse<'_>| {
        let mut writer = start.start("200 OK", &[]).expect("started");
        writer.write_all(b"sent").expect("written");
        assert!(writer.restart("503 Service Unavailable", &[], "too late").is_err());
        Body::empty()
    });
    assert_eq!((outcome.head.as_str(), outcome.text(), outcome.aborted), ("200 OK", "sent", true));
}

#[test]
fn writing_to_a_client_that_has_left_is_an_error() {
    let request = Request { client_has_left: true, ..Request::default() };
    let outcome = serve(request, |_: &Environ, start: StartResponse<'_>| -> std::io::Result<Body> {
        let mut writer = start.start("200 OK", &[]).expect("started");
        assert_eq!(writer.write(b"x").unwrap_err().kind(), ErrorKind::ConnectionReset);
        writer.write_all(b"x")?;
        Ok(Body::empty())
    });
    assert_eq!(outcome.errors, ["the client has left"]);
}
