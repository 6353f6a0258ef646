//! The environ: its keys, their values, and how they are asked for.

use crate::compile;
use std::collections::BTreeMap;
use tests::{Client, Server, Site};

fn start(arguments: &[&str]) -> (Site, Server) {
    let site = Site::new();
    compile(&site, "environ", &[]);
    let server = site.start(arguments);
    (site, server)
}

/// The environ that this request has.
#[track_caller]
fn environ(server: &Server, request: &str) -> BTreeMap<String, String> {
    let mut client = server.connect();
    client.send(request.as_bytes()).unwrap();
    parse(client.response().unwrap().text())
}

#[track_caller]
fn parse(text: &str) -> BTreeMap<String, String> {
    assert!(!text.contains("WRONG"), "each and get disagree: {text}");
    let text = text.strip_suffix("each answered 0").unwrap_or_else(|| panic!("each did not end well: {text}"));
    let mut environ = BTreeMap::new();
    for (key, value) in text.lines().map(|line| line.split_once('=').unwrap()) {
        assert_eq!(environ.insert(key.to_owned(), value.to_owned()), None, "{key} came twice");
    }
    environ
}

#[test]
fn every_key_has_its_value() {
    let (site, server) = start(&["--threads", "1"]);
    let mut client = server.connect();
    client
        .send(
            b"POST /environ.so/a%20b/../c?x=%20y&z HTTP/1.1\r\nHost: example.com:8080\r\nContent-Type: text/plain\r\n\
              Content-Length: 5\r\nAccept: a\r\nX-Empty:\r\n\r\nhello",
        )
        .unwrap();
    let environ = parse(client.response().unwrap().text());
    let peer = client.stream().local_addr().unwrap();
    let html = std::fs::canonicalize(site.path("html")).unwrap();
    let expected = [
        ("REQUEST_METHOD", "POST"),
        ("SCRIPT_NAME", "/environ.so"),
        ("PATH_INFO", "/c"),
        ("QUERY_STRING", "x=%20y&z"),
        ("CONTENT_TYPE", "text/plain"),
        ("CONTENT_LENGTH", "5"),
        ("SERVER_NAME", "example.com"),
        ("SERVER_PORT", "8080"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("SERVER_SOFTWARE", concat!("host/", env!("CARGO_PKG_VERSION"))),
        ("REMOTE_ADDR", "127.0.0.1"),
        ("REMOTE_PORT", &peer.port().to_string()),
        ("REQUEST_URI", "/environ.so/a%20b/../c?x=%20y&z"),
        ("DOCUMENT_ROOT", html.to_str().unwrap()),
        ("HTTP_HOST", "example.com:8080"),
        ("HTTP_ACCEPT", "a"),
        ("HTTP_X_EMPTY", ""),
        ("wsgi.version", "1.0"),
        ("wsgi.url_scheme", "http"),
        ("wsgi.multithread", "0"),
        ("wsgi.multiprocess", "0"),
        ("wsgi.run_once", "0"),
    ];
    let expected: BTreeMap<String, String> =
        expected.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    assert_eq!(environ, expected);
}

#[test]
fn what_a_request_does_not_have_is_absent_and_not_empty() {
    let (_site, server) = start(&["--html", "none"]);
    let environ = environ(&server, "GET /environ.so HTTP/1.0\r\n\r\n");
    for absent in ["CONTENT_TYPE", "CONTENT_LENGTH", "DOCUMENT_ROOT", "HTTP_HOST"] {
        assert_eq!(environ.get(absent), None, "{absent}");
    }
    for empty in ["PATH_INFO", "QUERY_STRING"] {
        assert_eq!(environ[empty], "", "{empty}");
    }
    // Without a Host field, the address that was connected to.
    assert_eq!(environ["SERVER_NAME"], "127.0.0.1");
    assert_eq!(environ["SERVER_PORT"], server.address().port().to_string());
    assert_eq!(environ["SERVER_PROTOCOL"], "HTTP/1.0");
}

#[test]
fn get_tells_absent_from_empty_and_keys_are_exact() {
    let (_site, server) = start(&[]);
    for (key, answer) in [
        ("QUERY_STRING", "value: "),
        ("HTTP_X_EMPTY", "value: "),
        ("HTTP_X_ONE", "value: 1"),
        ("REQUEST_METHOD", "value: GET"),
        ("request_method", "absent"),
        ("REQUEST_METHOD_", "absent"),
        ("HTTP_x_one", "absent"),
        ("HTTP_X-ONE", "absent"),
        ("X_ONE", "absent"),
        ("HTTP_", "absent"),
        ("HTTP_NOTHING", "absent"),
        ("CONTENT_TYPE", "absent"),
        ("PATH", "absent"),
        ("", "absent"),
    ] {
        let fields = [("X-Empty", ""), ("x-ONE", "1")];
        let response = server.connect().request("GET", &format!("/environ.so/get/{key}"), &fields, b"").unwrap();
        assert_eq!(response.text(), answer, "{key}");
    }
}

#[test]
fn fields_of_one_name_are_joined_in_order() {
    let (_site, server) = start(&[]);
    let environ = environ(
        &server,
        "GET /environ.so HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nCookie: a=b\r\nx-a:\r\nX-B: b\r\nX-A: 3, 4\r\ncookie: c=d\r\n\r\n",
    );
    assert_eq!(environ["HTTP_X_A"], "1, , 3, 4");
    assert_eq!(environ["HTTP_COOKIE"], "a=b; c=d");
    assert_eq!(environ["HTTP_X_B"], "b");
}

/// A field with an underscore would pass for another one with a hyphen, which a front proxy may have checked; `Proxy`
/// would become HTTP_PROXY, which HTTP clients believe.
#[test]
fn fields_that_could_pass_for_something_else_are_left_out() {
    let (_site, server) = start(&[]);
    let request =
        "GET /environ.so HTTP/1.1\r\nHost: a\r\nX_User: evil\r\nX-User: good\r\nProxy: evil\r\nA_B: evil\r\n\r\n";
    let environ = environ(&server, request);
    assert_eq!(environ["HTTP_X_USER"], "good");
    assert!(!environ.values().any(|value| value == "evil"), "{environ:?}");
    assert!(!environ.contains_key("HTTP_PROXY"));
    for (key, answer) in [("HTTP_PROXY", "absent"), ("HTTP_X_USER", "absent")] {
        let fields = [("Proxy", "evil"), ("X_User", "evil")];
        let response = server.connect().request("GET", &format!("/environ.so/get/{key}"), &fields, b"").unwrap();
        assert_eq!(response.text(), answer, "{key}");
    }
}

#[test]
fn the_host_is_the_targets_before_that_of_the_field() {
    let (_site, server) = start(&[]);
    for (target, host, name, port) in [
        ("http://b.example:81/environ.so", "a.example", "b.example", "81"),
        ("/environ.so", "a.example", "a.example", ""),
        ("/environ.so", "a.example:", "a.example", ""),
        ("/environ.so", "[::1]:82", "[::1]", "82"),
        ("/environ.so", "[::1]", "[::1]", ""),
    ] {
        let environ = environ(&server, &format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(environ["SERVER_NAME"], name, "{target} {host}");
        let own = server.address().port().to_string();
        assert_eq!(environ["SERVER_PORT"], if port.is_empty() { &own } else { port }, "{target} {host}");
    }
}

#[test]
fn chunked_content_has_a_length_once_it_has_arrived() {
    let (_site, server) = start(&[]);
    let request =
        "POST /environ.so HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    assert_eq!(environ(&server, request)["CONTENT_LENGTH"], "5");
    let request = "POST /environ.so HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(environ(&server, request)["CONTENT_LENGTH"], "0");
}

#[test]
fn each_ends_when_its_visitor_says_so() {
    let (_site, server) = start(&[]);
    let response = server.get("/environ.so/stop/REQUEST_METHOD");
    assert!(response.text().ends_with("REQUEST_METHOD=GET\neach answered 42"), "{}", response.text());
}

#[test]
fn a_unix_socket_has_no_addresses() {
    let (site, _server) = start(&["--bind", "unix:host.sock"]);
    let mut client = Client::connect_unix(&site.path("host.sock")).unwrap();
    let environ = parse(client.get("/environ.so").unwrap().text());
    assert_eq!((environ["REMOTE_ADDR"].as_str(), environ["REMOTE_PORT"].as_str()), ("", ""));
    assert_eq!(environ["SERVER_NAME"], "localhost", "of the Host field");
    client.send(b"GET /environ.so HTTP/1.0\r\n\r\n").unwrap();
    let environ = parse(client.response().unwrap().text());
    assert!(!environ["SERVER_NAME"].is_empty() && !environ["SERVER_PORT"].is_empty());
}

#[test]
fn pairs_of_the_command_line_are_seen_by_all_or_by_one_module() {
    let (site, server) =
        start(&["--env", "A=all", "--env", "environ:A=mine", "--env", "other:B=b", "--env", "C=x=y z", "--env", "D="]);
    let environ = environ(&server, "GET /environ.so HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((environ["A"].as_str(), environ["C"].as_str(), environ["D"].as_str()), ("mine", "x=y z", ""));
    assert_eq!(environ.get("B"), None);
    drop(server);
    // A pair does not replace what a request says.
    let output = site.run(&["--env", "REQUEST_METHOD=PUT"]);
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn bytes_of_any_value_pass_unchanged() {
    let (_site, server) = start(&[]);
    let mut client = server.connect();
    client.send(b"GET /environ.so/get/HTTP_X HTTP/1.1\r\nHost: a\r\nX: \xff\t\xfe\r\n\r\n").unwrap();
    assert_eq!(client.response().unwrap().body, b"value: \xff\t\xfe");
    client.send(b"GET /environ.so/get/%ff HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(client.response().unwrap().body, b"absent");
}

#[test]
fn the_host_of_an_absolute_target_counts_whatever_the_field_says() {
    let (_site, server) = start(&[]);
    let environ = environ(&server, "GET http://example.com:8080/environ.so HTTP/1.1\r\nHost: other.example:1\r\n\r\n");
    for (key, value) in [("HTTP_HOST", "example.com:8080"), ("SERVER_NAME", "example.com"), ("SERVER_PORT", "8080")] {
        assert_eq!(environ.get(key).map(String::as_str), Some(value), "{key}");
    }
}
