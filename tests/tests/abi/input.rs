//! `read` and `readline`, on content in memory and in a file.

use crate::compile;
use tests::{PATIENCE, Server, Site};

fn start() -> (Site, Server) {
    let site = Site::new();
    compile(&site, "input", &[]);
    let server = site.start(&[]);
    (site, server)
}

/// What the calls gave: the pieces, of which the last three must be ends.
#[track_caller]
fn pieces(server: &Server, path: &str, content: &[u8]) -> Vec<Vec<u8>> {
    let response = server.connect().request("POST", &format!("/input.so{path}"), &[], content).unwrap();
    assert_eq!(response.status, 200, "{path}");
    let mut rest = response.body.as_slice();
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let colon = rest.iter().position(|byte| *byte == b':').unwrap();
        let length: i64 = std::str::from_utf8(&rest[..colon]).unwrap().parse().unwrap();
        let length = usize::try_from(length).unwrap_or_else(|_| panic!("{path}: a call answered {length}"));
        let (piece, after) = rest[colon + 1..].split_at(length);
        pieces.push(piece.to_vec());
        rest = after;
    }
    let ends = pieces.split_off(pieces.len() - 3);
    assert!(ends.iter().all(Vec::is_empty), "{path}: the end is final");
    pieces
}

/// In memory, at the bound of 64 KiB, and in a file.
const LENGTHS: [usize; 6] = [0, 1, 5000, 64 << 10, (64 << 10) + 1, 3_000_000];

#[test]
fn read_gives_all_content_in_pieces_that_fit() {
    let (_site, server) = start();
    for length in LENGTHS {
        let content: Vec<u8> = (0..length).map(|at| (at / 3 + at % 253) as u8).collect();
        for size in [7777, 1 << 20] {
            let pieces = pieces(&server, &format!("/read/{size}"), &content);
            assert!(pieces.iter().all(|piece| (1..=size).contains(&piece.len())), "{length} by {size}");
            assert!(pieces.concat() == content, "{length} by {size}");
        }
    }
}

#[test]
fn readline_gives_lines_and_parts_of_lines_that_do_not_fit() {
    let (_site, server) = start();
    let text = |pieces: Vec<Vec<u8>>| {
        pieces.iter().map(|piece| String::from_utf8_lossy(piece).into_owned()).collect::<Vec<_>>()
    };
    let content = b"one\n\ntwo and more\r\nlast";
    assert_eq!(text(pieces(&server, "/line/100", content)), ["one\n", "\n", "two and more\r\n", "last"]);
    assert_eq!(text(pieces(&server, "/line/4", content)), ["one\n", "\n", "two ", "and ", "more", "\r\n", "last"]);
    assert_eq!(text(pieces(&server, "/line/3", b"one\n")), ["one", "\n"]);
    assert_eq!(text(pieces(&server, "/line/1", b"a\nb")), ["a", "\n", "b"]);
    assert_eq!(text(pieces(&server, "/line/9", b"")), [""; 0]);
}

#[test]
fn readline_gives_every_line_of_large_content() {
    let (_site, server) = start();
    for length in LENGTHS {
        let content: Vec<u8> = (0..length).map(|at| if at % 1013 == 7 { b'\n' } else { b'x' }).collect();
        let lines: Vec<&[u8]> = content.split_inclusive(|byte| *byte == b'\n').collect();
        assert!(pieces(&server, "/line/2000", &content) == lines, "{length}");
    }
}

#[test]
fn content_may_be_read_when_the_body_is_asked_for_and_not_when_it_is_closed() {
    let (_site, server) = start();
    let content = "0123456789".repeat(50_000);
    let response = server.connect().request("POST", "/input.so/late", &[], content.as_bytes()).unwrap();
    assert!(response.text() == content);
    assert_eq!(server.connect().request("POST", "/input.so/closing", &[], b"x").unwrap().status, 200);
    // HOST_STATE.
    server.wait_for_log("read within close: -4", PATIENCE);
}

#[test]
fn content_that_is_not_read_does_not_disturb_the_next_request() {
    let (_site, server) = start();
    let mut client = server.connect();
    for length in LENGTHS {
        let response = client.request("POST", "/input.so/closing", &[], &vec![b'G'; length]).unwrap();
        assert_eq!((response.status, response.closes()), (200, false), "{length}");
    }
}
