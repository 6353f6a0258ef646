//! Which messages are taken, which are refused, with which status and in which words.

use crate::{assert_closed, last_response, pages};
use std::io::ErrorKind;
use tests::client::Framing;

#[test]
fn a_response_has_a_date_a_server_and_its_length() {
    let site = pages();
    let server = site.start(&[]);
    let response = server.connect().get("/a.txt").unwrap();
    assert_eq!((response.status, response.reason.as_str(), response.text()), (200, "OK", "a"));
    assert_eq!(response.framing, Framing::Length);
    assert_eq!(response.field("Server"), Some("host"));
    assert_eq!(response.field("Connection"), None, "HTTP/1.1 persists without saying so");
    // IMF-fixdate (RFC 9110 §5.6.7): Sun, 06 Nov 1994 08:49:37 GMT.
    let date = response.field("Date").expect("an origin server with a clock sends Date (RFC 9110 §6.6.1)");
    let parts: Vec<&str> = date.split(' ').collect();
    assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [4, 2, 3, 4, 8, 3], "{date}");
    assert!(parts[0].ends_with(',') && parts[5] == "GMT", "{date}");
}

#[test]
fn the_server_field_is_what_the_command_line_says() {
    let site = pages();
    let server = site.start(&["--server-header", "my server/2"]);
    assert_eq!(server.get("/a.txt").field("Server"), Some("my server/2"));
    // A refusal too: it comes from another place.
    assert_eq!(last_response(&server, b"GET\r\n\r\n").field("Server"), Some("my server/2"));
    drop(server);
    let server = site.start(&["--server-header", ""]);
    assert_eq!(server.get("/a.txt").field("Server"), None);
}

/// What the server refuses: the bytes, the status, and words of the reason in the response.
const REFUSED: &[(&str, u16, &str)] = &[
    // Line ends (RFC 9112 §2.2).
    ("GET / HTTP/1.1\nHost: a\n\n", 400, "lines must end in CRLF"),
    ("GET / HTTP/1.1\r\nHost: a\n\r\n", 400, "lines must end in CRLF"),
    ("GET / HTTP/1.1\r\nHost: a\r\n\n", 400, "lines must end in CRLF"),
    ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "lines must end in CRLF"),
    ("GET / HTTP/1.1\rHost: a\r\n\r\n", 400, "CR"),
    ("GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", 400, "a CR must be followed by an LF"),
    ("GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", 400, "a CR must be followed by an LF"),
    // The request line (§3).
    ("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "must have the form: GET /path HTTP/1.1"),
    ("GET\r\n\r\n", 400, "GET /path HTTP/1.1"),
    ("GET /\r\n\r\n", 400, "must end in HTTP/1.1"),
    ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "request line"),
    ("GET /  HTTP/1.1\r\nHost: a\r\n\r\n", 400, "%20"),
    ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "a space in the target must be sent as %20"),
    ("GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "method"),
    (" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "the request must begin with a method"),
    ("G@T / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "method"),
    ("{\"json\": 1}\r\n\r\n", 400, "method"),
    ("\x16\x03\x01\x02", 400, "method"),
    ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400, "HTTP/1.1"),
    ("GET / http/1.1\r\nHost: a\r\n\r\n", 400, "HTTP/1.1"),
    ("GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400, "HTTP/1.1"),
    ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505, "HTTP/1.1"),
    ("GET / HTTP/1.2\r\n\r\n", 400, "HTTP/1.1 needs a Host header"),
    ("GET / HTTP/0.9\r\n\r\n", 505, "HTTP/1.1"),
    ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "HTTP/1.1"),
    ("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 501, "proxy"),
    ("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGHIJKLMNOPQRSTUVWXYZ / HTTP/1.1\r\nHost: a\r\n\r\n", 501, "method"),
    // The target (§3.2, RFC 3986).
    ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400, "OPTIONS"),
    ("GET index.html HTTP/1.1\r\nHost: a\r\n\r\n", 400, "slash"),
    ("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "fragment"),
    ("GET /\u{fc} HTTP/1.1\r\nHost: a\r\n\r\n", 400, "ASCII"),
    ("GET /a\0b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "control character"),
    ("GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400, "two hex digits"),
    ("GET /a%2Fb HTTP/1.1\r\nHost: a\r\n\r\n", 400, "slash"),
    ("GET /a%00b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "NUL"),
    ("GET /../x HTTP/1.1\r\nHost: a\r\n\r\n", 400, "above the root"),
    ("GET /%2e%2E/x HTTP/1.1\r\nHost: a\r\n\r\n", 400, "above the root"),
    ("GET http://u:p@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "host"),
    ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "slash"),
    ("GET https://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 421, "not secured"),
    // Fields (§5).
    ("GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n", 400, "no space between a header's name and its colon"),
    ("GET / HTTP/1.1\r\nHost: a\r\nX\t: b\r\n\r\n", 400, "no space"),
    ("GET / HTTP/1.1\r\nHost: a\r\n X: b\r\n\r\n", 400, "obs-fold"),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", 400, "obs-fold"),
    ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400, "obs-fold"),
    ("GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", 400, "Name: value"),
    ("GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", 400, "empty"),
    ("GET / HTTP/1.1\r\nHost: a\r\nX(: b\r\n\r\n", 400, "not allowed"),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n", 400, "control character"),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: a\x7f\r\n\r\n", 400, "control character"),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: test\x07\r\n\r\n", 400, "control character"),
    // Host (§3.2).
    ("GET / HTTP/1.1\r\n\r\n", 400, "HTTP/1.1 needs a Host header"),
    ("GET http://a/ HTTP/1.1\r\n\r\n", 400, "HTTP/1.1 needs a Host header"),
    ("GET / HTTP/1.1\r\nHost:\r\n\r\n", 400, "valid host"),
    ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, "one Host header"),
    ("GET / HTTP/1.0\r\nHost: a\r\nhost: b\r\n\r\n", 400, "one Host header"),
    ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, "valid host"),
    ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400, "valid host"),
    ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400, "valid host"),
    ("GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n", 400, "valid host"),
    // Lengths and codings (§6): whatever two readers could understand differently.
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx", 400, "once"),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", 400, "once"),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\nx", 400, "decimal"),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx", 400, "decimal"),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\nx", 400, "decimal"),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\nx", 400, "decimal"),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 1\r\n\r\nx", 400, "decimal"),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nx", 400, "decimal"),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\nx", 413, "larger"),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "Content-Length and Transfer-Encoding",
    ),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 400, "must be chunked"),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", 400, "must be chunked"),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", 400, "chunked must be the last"),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", 400, "chunked must be the last"),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n",
        400,
        "chunked must be the last",
    ),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n", 400, "control character"),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n", 400, "no space"),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501, "chunked is the only"),
    ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "HTTP/1.0"),
    // Chunks (§7.1).
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", 400, "hex digits"),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", 400, "hex digits"),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\nx\r\n", 400, "hex digits"),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\nx\r\n", 400, "lines must end in CRLF"),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n", 400, "longer than its size"),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;\nx\r\nx\r\n", 400, "lines must end in CRLF"),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n00000000000000001\r\n", 400, "too many digits"),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n", 413, "larger"),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX : y\r\n\r\n", 400, "trailer"),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\n", 400, "lines must end in CRLF"),
];

/// What a smuggler hopes for: that what follows a request that was refused is taken for another.
const SMUGGLED: &[u8] = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn what_is_refused_is_refused_with_its_reason_and_nothing_after_it_is_interpreted() {
    let site = pages();
    let server = site.start(&["--threads", "1"]);
    // The second time it comes, its bytes are known.
    for (text, status, reason) in REFUSED.iter().flat_map(|case| [case, case]) {
        let bytes = [text.as_bytes(), SMUGGLED, SMUGGLED].concat();
        let response = last_response(&server, &bytes);
        assert_eq!(response.status, *status, "{text:?}: {}", response.text());
        assert!(response.text().contains(reason), "{text:?}: {}", response.text());
        assert_eq!(response.field("Content-Type"), Some("text/plain; charset=utf-8"), "{text:?}");
    }
}

/// Who types a request by hand sends it in pieces, and hears of the mistake all the same.
#[test]
fn a_refusal_is_the_same_however_slowly_the_request_comes() {
    let site = pages();
    let server = site.start(&[]);
    for (text, status, reason) in REFUSED {
        let mut client = server.connect();
        for byte in text.as_bytes().chunks(1) {
            match client.send(byte) {
                Ok(()) => {}
                // Nobody has to take what follows a refusal.
                Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => break,
                Err(error) => panic!("{text:?}: {error}"),
            }
        }
        let response = client.response().unwrap_or_else(|error| panic!("{text:?}: {error}"));
        assert_eq!(response.status, *status, "{text:?}: {}", response.text());
        assert!(response.text().contains(reason), "{text:?}: {}", response.text());
        assert_closed(&mut client);
    }
}

#[test]
fn good_requests_before_a_refused_one_are_answered_first() {
    let site = pages();
    let server = site.start(&[]);
    let mut client = server.connect();
    let good = "GET /a.txt HTTP/1.1\r\nHost: a\r\n\r\n";
    client.send(format!("{good}{good}GET / HTTP/1.1\r\n\r\n{good}").as_bytes()).unwrap();
    assert_eq!(client.response().unwrap().text(), "a");
    assert_eq!(client.response().unwrap().text(), "a");
    assert_eq!(client.response().unwrap().status, 400);
    assert_closed(&mut client);
}

/// What looks odd, but is right by the RFCs.
const TAKEN: &[(&str, u16)] = &[
    ("GET /a.txt HTTP/1.1\r\nHost: a\r\n\r\n", 200),
    // RFC 9112 §2.2: one empty line before the request line.
    ("\r\nGET /a.txt HTTP/1.1\r\nHost: a\r\n\r\n", 200),
    // RFC 9110 §5.1: names in any case; §5.5: any whitespace around values, obs-text and nothing within.
    ("GET /a.txt HTTP/1.1\r\nhOST:a\r\nX:\r\nY: \t b\t c \t\r\n\r\n", 200),
    ("GET /a.txt HTTP/1.1\r\nHost: a\r\n!#$%&'*+-.^_`|~09: \u{fc}\r\n\r\n", 200),
    // RFC 9110 §2.5: a higher minor version is processed as HTTP/1.1.
    ("GET /a.txt HTTP/1.2\r\nHost: a\r\n\r\n", 200),
    // RFC 9112 §3.2.2: the absolute-form, whose host counts whatever the field says.
    ("GET http://example.com/a.txt HTTP/1.1\r\nHost:\r\n\r\n", 200),
    ("GET http://example.com/a.txt HTTP/1.1\r\nHost: other\r\n\r\n", 200),
    ("GET HTTP://example.com:80 HTTP/1.1\r\nHost: example.com\r\n\r\n", 200),
    ("GET http://example.com?x HTTP/1.1\r\nHost: example.com\r\n\r\n", 200),
    ("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", 200),
    ("GET /%61.txt?%zz HTTP/1.1\r\nHost: a\r\n\r\n", 200),
    ("GET /x/../a.txt HTTP/1.1\r\nHost: a\r\n\r\n", 200),
    ("GET /./a.txt HTTP/1.1\r\nHost: a\r\n\r\n", 200),
    // RFC 9112 §6.3: content is taken with every method.
    ("GET /a.txt HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nGET", 200),
    ("GET /a.txt HTTP/1.1\r\nHost: a\r\ntransfer-encoding: CHUNKED\r\n\r\n3;a=\"b\"\r\nGET\r\n0\r\nX: y\r\n\r\n", 200),
    ("GET /a.txt HTTP/1.1\r\nHost: a\r\nContent-Length: 00\r\n\r\n", 200),
    // RFC 9110 §9.1: methods are case-sensitive, and an unknown one is none that a file has.
    ("get /a.txt HTTP/1.1\r\nHost: a\r\n\r\n", 501),
    ("BREW /a.txt HTTP/1.1\r\nHost: a\r\n\r\n", 501),
    ("POST /nothing HTTP/1.1\r\nHost: a\r\n\r\n", 404),
];

#[test]
fn what_is_right_is_taken_and_the_connection_goes_on() {
    let site = pages();
    let server = site.start(&[]);
    let mut client = server.connect();
    for (text, status) in TAKEN {
        client.send(text.as_bytes()).unwrap();
        let response = client.response().unwrap_or_else(|error| panic!("{text:?}: {error}"));
        assert_eq!(response.status, *status, "{text:?}: {}", response.text());
        assert!(!response.closes(), "{text:?}");
    }
    // Nothing of any of them has been left over.
    assert_eq!(client.get("/b.txt").unwrap().text(), "bb");
}

#[test]
fn the_whole_server_answers_options() {
    let site = pages();
    let server = site.start(&[]);
    let mut client = server.connect();
    client.send(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let response = client.response().unwrap();
    assert_eq!((response.status, response.framing), (204, Framing::None));
    assert_eq!(response.field("Allow"), Some("GET, HEAD, OPTIONS"));
    // RFC 9110 §8.6: no Content-Length with 204.
    assert_eq!(response.field("Content-Length"), None);
    assert_eq!(client.get("/a.txt").unwrap().text(), "a");
}

#[test]
fn a_file_refuses_other_methods_and_says_which_it_allows() {
    let site = pages();
    let server = site.start(&[]);
    for method in ["POST", "PUT", "DELETE", "PATCH", "TRACE"] {
        let response = server.connect().request(method, "/a.txt", &[], b"").unwrap();
        assert_eq!((response.status, response.field("Allow")), (405, Some("GET, HEAD, OPTIONS")), "{method}");
    }
    for path in ["/", "/a.txt"] {
        let response = server.connect().request("OPTIONS", path, &[], b"").unwrap();
        assert_eq!((response.status, response.field("Allow")), (204, Some("GET, HEAD, OPTIONS")), "{path}");
    }
    assert_eq!(server.connect().request("OPTIONS", "/nothing", &[], b"").unwrap().status, 404);
}

#[test]
fn head_is_answered_as_get_without_content() {
    let site = pages();
    site.write("html/large.bin", vec![7; 100_000]);
    let server = site.start(&[]);
    let mut client = server.connect();
    for path in ["/", "/a.txt", "/large.bin", "/nothing", "/large.bin/"] {
        let get = client.get(path).unwrap();
        let head = client.request("HEAD", path, &[], b"").unwrap();
        assert_eq!(head.status, get.status, "{path}");
        assert_eq!(head.body, b"", "{path}");
        let without_date =
            |fields: &[(String, String)]| fields.iter().filter(|(name, _)| name != "Date").cloned().collect::<Vec<_>>();
        assert_eq!(without_date(&head.fields), without_date(&get.fields), "{path}");
    }
}

/// A client takes whatever follows the head for another response (RFC 9112 §6.3).
#[test]
fn a_refusal_of_head_has_no_content() {
    let site = pages();
    let server = site.start(&["--timeout-head", "200ms"]);
    for text in [
        "HEAD / HTTP/1.1\r\n\r\n",
        "\r\nHEAD / HTTP/2.0\r\nHost: a\r\n\r\n",
        "HEAD /%zz HTTP/1.1\r\nHost: a\r\n\r\n",
        "HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        // It is never completed.
        "HEAD / HTTP/1.1\r\nHost: a\r\n",
    ] {
        let mut client = server.connect();
        client.send(text.as_bytes()).unwrap();
        let response = client.response_to("HEAD").unwrap();
        assert!((400..=505).contains(&response.status) && response.closes(), "{text:?}: {}", response.head);
        assert_closed(&mut client);
    }
}
