//! What the lines say.

use super::{lines, lines_of, site, start_in_order};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::io::Read;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tests::{Client, PATIENCE, Server, Site, eventually};

/// Waits until the log has so many objects, and gives the last of them without what is different each time.
#[track_caller]
fn last_object(site: &Site, count: usize) -> Value {
    let file = site.path("access.log");
    let lines = eventually(&format!("{count} lines"), PATIENCE, || {
        let lines = lines_of(&file);
        (lines.len() >= count).then_some(lines)
    });
    assert_eq!(lines.len(), count, "{lines:#?}");
    let mut object: Value =
        serde_json::from_str(&lines[count - 1]).unwrap_or_else(|error| panic!("{error}: {lines:#?}"));
    let members = object.as_object_mut().expect("an object");
    assert!(members.remove("duration_us").is_some_and(|duration| duration.is_u64()), "{lines:#?}");
    let time = members.remove("time").expect("a time");
    let time = time.as_str().expect("text");
    assert!(time.len() == 24 && time.ends_with('Z') && time.starts_with("20"), "{time}");
    object
}

#[track_caller]
fn ask(server: &Server, request: &str) -> Vec<u8> {
    tests::client::exchange(server.address(), request.as_bytes()).expect("an answer, and the end")
}

#[test]
fn a_line_is_as_apache_would_write_it() {
    let site = site();
    for (format, fields) in [("common", ""), ("combined", " \"http://there/\" \"probe/1.0\"")] {
        let server = start_in_order(&site, format, &[]);
        let close = "Host: a\r\nReferer: http://there/\r\nuser-agent: probe/1.0\r\nConnection: close\r\n";
        for request in [
            format!("GET /a.txt?x=%20 HTTP/1.1\r\n{close}\r\n"),
            format!("HEAD /a.txt HTTP/1.1\r\n{close}\r\n"),
            format!("GET /a.txt HTTP/1.1\r\nIf-None-Match: *\r\n{close}\r\n"),
            format!("GET http://a/nothing HTTP/1.0\r\n{close}\r\n"),
            format!("POST /module.so/x HTTP/1.1\r\nContent-Length: 3\r\n{close}\r\nabc"),
            format!("GET /module.so/chunks HTTP/1.1\r\n{close}\r\n"),
            format!("GET /module.so/chunks HTTP/1.0\r\n{close}\r\n"),
            format!("HEAD /module.so/chunks HTTP/1.1\r\n{close}\r\n"),
            format!("GET /module.so/written HTTP/1.1\r\n{close}\r\n"),
            format!("OPTIONS * HTTP/1.1\r\n{close}\r\n"),
            format!("GET /../x HTTP/1.1\r\n{close}\r\n"),
            format!("POST /module.so HTTP/1.1\r\nContent-Length: 99999999999\r\n{close}\r\n"),
        ] {
            ask(&server, &request);
        }
        let not_found = "404 Not Found: not found\n".len();
        let end = |line: &str| format!("127.0.0.1 - - [time] {line}{fields}");
        let lines = lines(&site, 12);
        for (line, expected) in lines.iter().zip([
            "\"GET /a.txt?x=%20 HTTP/1.1\" 200 5",
            "\"HEAD /a.txt HTTP/1.1\" 200 -",
            "\"GET /a.txt HTTP/1.1\" 304 -",
            &format!("\"GET http://a/nothing HTTP/1.0\" 404 {not_found}"),
            "\"POST /module.so/x HTTP/1.1\" 200 6",
            // What is counted is content, and not its framing.
            "\"GET /module.so/chunks HTTP/1.1\" 200 8",
            "\"GET /module.so/chunks HTTP/1.0\" 200 8",
            "\"HEAD /module.so/chunks HTTP/1.1\" 200 -",
            "\"GET /module.so/written HTTP/1.1\" 200 21",
            "\"OPTIONS * HTTP/1.1\" 204 -",
            "\"GET /../x HTTP/1.1\" 400 ",
            "\"POST /module.so HTTP/1.1\" 413 ",
        ]) {
            // How long the words of a refusal are is nobody's business here.
            let (expected, given) = match expected.strip_suffix(' ') {
                Some(refusal) => (end(refusal), {
                    let (before, after) = line.split_once(refusal).unwrap_or_else(|| panic!("{line}"));
                    let after = after.trim_start().trim_start_matches(|c: char| c.is_ascii_digit());
                    format!("{before}{refusal}{after}")
                }),
                None => (end(expected), line.clone()),
            };
            assert_eq!(given, expected);
        }
        assert!(server.stop().success());
        std::fs::remove_file(site.path("access.log")).expect("it is there");
    }
}

#[test]
fn a_line_is_one_json_object() {
    let site = site();
    let server = start_in_order(&site, "json", &["--limit-connections", "1"]);
    let before = SystemTime::now();
    let answer = server.get("/a.txt?x=\u{7e}");
    let mut expected = json!({
        "client": "127.0.0.1", "method": "GET", "target": "/a.txt?x=~", "protocol": "HTTP/1.1", "referer": null,
        "user_agent": null, "status": 200, "bytes": 5, "head_bytes": answer.head.len(), "complete": true,
        "module": null, "generation": null,
    });
    assert_eq!(last_object(&site, 1), expected);
    // Not the time of the line, which comes later, nor that of another zone.
    let time = lines_of(&site.path("access.log"))[0].split('"').nth(3).expect("a time").to_owned();
    let date = |time: SystemTime| {
        let seconds = time.duration_since(UNIX_EPOCH).expect("later").as_secs();
        let date = Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%S", "-d", &format!("@{seconds}")]).output();
        String::from_utf8(date.expect("date is everywhere").stdout).expect("ASCII").trim().to_owned()
    };
    // The loop's clock is a coarse one, and may be a second behind.
    assert!(
        (date(before - Duration::from_secs(1))..=date(SystemTime::now())).contains(&time[..19].to_owned()),
        "{time}"
    );

    let mut client = server.connect();
    let answer = client.request("GET", "/module.so/chunks", &[("Referer", "a\"b"), ("User-Agent", "")], b"").unwrap();
    for (name, value) in [
        ("target", json!("/module.so/chunks")),
        ("referer", json!("a\"b")),
        ("user_agent", json!("")),
        ("bytes", json!(8)),
        ("head_bytes", json!(answer.head.len())),
        ("module", json!("module")),
        ("generation", json!(1)),
    ] {
        expected[name] = value;
    }
    assert_eq!(last_object(&site, 2), expected);

    // One more than there may be.
    let refused = server.connect().response().expect("it is sent away");
    let object = last_object(&site, 3);
    assert_eq!((&object["status"], &object["method"], &object["complete"]), (&json!(503), &json!(null), &json!(true)));
    let lengths = (json!(refused.body.len()), json!(refused.head.len()));
    assert_eq!((&object["bytes"], &object["head_bytes"]), (&lengths.0, &lengths.1));
}

#[test]
fn what_is_no_request_has_a_line_with_what_came() {
    let site = site();
    let server = start_in_order(&site, "combined", &["--timeout-head", "300ms"]);
    for (sent, expected) in [
        ("\x16\x03\x01\x02\0\r\n\r\n", "\"\\x16\\x03\\x01\\x02\\x00\" 400 "),
        ("GET / HTTP/1.1\r\nno colon\r\n\r\n", "\"GET / HTTP/1.1\" 400 "),
        ("\r\nGET /\u{e9} HTTP/1.1\r\nHost: a\r\nUser-Agent: b\r\n\r\n", "\"GET /\\xc3\\xa9 HTTP/1.1\" 400 "),
        ("GET /never ending", "\"GET /never ending\" 408 "),
    ] {
        std::fs::write(site.path("access.log"), "").expect("it is there");
        let answer = ask(&server, sent);
        let content = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
        let expected = format!("127.0.0.1 - - [time] {expected}{} \"-\" \"-\"", answer.len() - content);
        assert_eq!(lines(&site, 1), [expected]);
    }
}

/// Who does not ask has no line.
#[test]
fn connections_without_a_request_have_no_line() {
    let site = site();
    let server = start_in_order(&site, "common", &["--timeout-idle", "200ms"]);
    drop(server.connect());
    assert_eq!(server.connect().rest().expect("the end"), b"");
    let mut half = server.connect();
    half.send(b"GET / HT").expect("the kernel takes it");
    drop(half);
    server.get("/a.txt");
    assert!(server.stop().success());
    assert_eq!(lines(&site, 1), ["127.0.0.1 - - [time] \"GET /a.txt HTTP/1.1\" 200 5"]);
}

#[test]
fn lines_cannot_be_forged() {
    let site = site();
    let server = start_in_order(&site, "combined", &[]);
    let forged = "x\" 200 5 \"-\" \"-\"\t127.0.0.1 - - [21/Nov/2026:00:00:00 +0000] \"GET /forged HTTP/1.1";
    for value in [forged.as_bytes(), b"\\\" \\x22 \\", b"\xff\xfe\xc2\x9b31m \xe2\x80\xae"] {
        let head = b"GET /a.txt?\"\\'{} HTTP/1.1\r\nHost: a\r\nReferer: ".as_slice();
        let rest = [head, value, b"\r\nUser-Agent: ", value, b"\r\nConnection: close\r\n\r\n"].concat();
        tests::client::exchange(server.address(), &rest).expect("an answer");
    }
    // What would end a line, or steer a terminal, is no field value at all.
    for byte in [b'\n', b'\r', 0x1b, 0x7f, 0] {
        let head = [b"GET /a.txt HTTP/1.1\r\nHost: a\r\nUser-Agent: a", &[byte][..], b"b\r\n\r\n"].concat();
        let answer = tests::client::exchange(server.address(), &head).expect("an answer");
        assert!(answer.starts_with(b"HTTP/1.1 400 "), "{byte}");
    }
    let lines = lines(&site, 8);
    let value = "x\\\" 200 5 \\\"-\\\" \\\"-\\\"\\t127.0.0.1 - - [21/Nov/2026:00:00:00 +0000] \\\"GET /forged HTTP/1.1";
    for (line, value) in lines.iter().zip([value, "\\\\\\\" \\\\x22 \\\\", "\\xff\\xfe\\xc2\\x9b31m \\xe2\\x80\\xae"]) {
        let request = "127.0.0.1 - - [time] \"GET /a.txt?\\\"\\\\'{} HTTP/1.1\" 200 5";
        assert_eq!(*line, format!("{request} \"{value}\" \"{value}\""));
    }
    for line in &lines {
        assert!(line.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{line:?}");
        // Quotes that are not escaped are those of the format.
        let escaped = line.replace("\\\\", "").replace("\\\"", "");
        assert_eq!(escaped.matches('"').count(), 6, "{line}");
    }
}

#[test]
fn json_is_valid_whatever_bytes_come() {
    let site = site();
    let server = start_in_order(&site, "json", &[]);
    let mut lines = 0;
    for byte in (0x20..=0xffu8).chain([b'\t']) {
        let head = [b"GET /a.txt HTTP/1.1\r\nHost: a\r\nConnection: close\r\nUser-Agent: a", &[byte][..], b"b\r\n\r\n"];
        tests::client::exchange(server.address(), &head.concat()).expect("an answer");
        lines += 1;
    }
    let long = [b"GET /a.txt HTTP/1.1\r\nHost: a\r\nConnection: close\r\nUser-Agent: ", &[0xff; 9000][..], b"\r\n\r\n"];
    tests::client::exchange(server.address(), &long.concat()).expect("an answer");
    last_object(&site, lines + 1);
    let all = lines_of(&site.path("access.log"));
    for (line, byte) in all.iter().zip((0x20..=0xffu8).chain([b'\t'])) {
        assert!(line.is_ascii(), "{line}");
        let object: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let agent = match byte {
            // Not a field value.
            0x7f => json!(null),
            0x80.. => json!("a\u{fffd}b"),
            _ => json!(format!("a{}b", char::from(byte))),
        };
        assert_eq!(object["user_agent"], agent, "{byte}");
    }
    assert!(all[lines].contains("\\ufffd\\u2026\""), "{}", all[lines]);
}

#[test]
fn a_line_is_never_longer_than_a_pipe_takes_at_once() {
    let site = site();
    for format in ["combined", "json"] {
        let server = start_in_order(&site, format, &[]);
        let long = |character: char| String::from(character).repeat(9000);
        for character in ['x', '"', '\\'] {
            let long = long(character);
            let fields = [("Referer", &*long), ("User-Agent", &*long)];
            let answer = server.connect().request("GET", &format!("/?{long}"), &fields, b"").expect("an answer");
            assert_eq!(answer.status, 404);
        }
        // A method may be long, too, but not as long as all that.
        let fields = [("Referer", &*long('"')), ("User-Agent", &*long('"')), ("Connection", "close")];
        let target = format!("/module.so?{}", long('"'));
        assert_eq!(server.connect().request(&"M".repeat(32), &target, &fields, b"").expect("an answer").status, 200);
        let long = long('\u{1f600}');
        tests::client::exchange(server.address(), format!("{long}\r\n\r\n").as_bytes()).expect("an answer");
        assert!(server.stop().success());
        let lines = lines_of(&site.path("access.log"));
        assert_eq!(lines.len(), 5);
        for line in lines {
            assert!((1000..4096).contains(&line.len()), "{}", line.len());
            let marks = line.matches("\\...").count() + line.matches("\\u2026").count();
            assert!(marks == 3 || marks == 1 && !line.contains("HTTP/"), "{line}");
        }
        std::fs::remove_file(site.path("access.log")).expect("it is there");
    }
}

#[test]
fn pipelined_requests_have_their_lines_in_order_with_their_own_counts() {
    let site = site();
    site.write("html/large.bin", vec![b'x'; 200_000]);
    let server = start_in_order(&site, "combined", &[]);
    let paths = ["/a.txt", "/nothing", "/module.so/chunks", "/large.bin", "/module.so/slow", "/a.txt", "/module.so"];
    let bytes = [5, 25, 8, 200_000, 6, 5, 6];
    let mut client = server.connect();
    let mut requests = String::new();
    for round in 0..20 {
        paths.iter().for_each(|path| requests += &format!("GET {path}?{round} HTTP/1.1\r\nHost: a\r\n\r\n"));
    }
    client.send(requests.as_bytes()).expect("the kernel takes it");
    for _ in 0..20 * paths.len() {
        client.response().expect("an answer");
    }
    let lines = lines(&site, 20 * paths.len());
    for (number, line) in lines.iter().enumerate() {
        let (path, bytes) = (paths[number % paths.len()], bytes[number % paths.len()]);
        let status = if path == "/nothing" { 404 } else { 200 };
        let request = format!("\"GET {path}?{} HTTP/1.1\" {status} {bytes} ", number / paths.len());
        assert!(line.contains(&request), "{line} is not {request}");
    }
}

/// What the kernel has taken counts: a client who leaves may have got less of it, and never more.
#[test]
fn a_response_that_is_broken_off_tells_how_much_of_it_was_sent() {
    let site = site();
    site.write("html/large.bin", vec![b'x'; 32 << 20]);
    let server = start_in_order(&site, "json", &[]);
    let mut client = server.connect();
    client.send(b"GET /a.txt HTTP/1.1\r\nHost: a\r\n\r\nGET /large.bin HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut received = vec![0; 1 << 20];
    client.stream().read_exact(&mut received).expect("the beginning");
    drop(client);
    let text = String::from_utf8_lossy(&received);
    let heads = text.split("HTTP/1.1 ").skip(1).map(|response| response.find("\r\n\r\n").expect("a head") + 13);
    let heads: Vec<_> = heads.collect();
    let object = last_object(&site, 2);
    let bytes = object["bytes"].as_u64().expect("a number");
    assert!((1 << 20..32 << 20).contains(&(bytes + 1000)), "{object}");
    assert_eq!((&object["status"], &object["complete"]), (&json!(200), &json!(false)));
    assert_eq!(object["head_bytes"], heads[1]);
    let object: Value = serde_json::from_str(&lines_of(&site.path("access.log"))[0]).expect("JSON");
    assert_eq!((&object["complete"], &object["head_bytes"]), (&json!(true), &json!(heads[0])));
}

#[test]
fn responses_that_handlers_break_off_are_not_complete() {
    let site = site();
    let server = start_in_order(&site, "json", &["--timeout-handler", "500ms"]);
    let mut count = 0;
    for (path, status, bytes, is_complete) in [
        ("/fails", 200, Some(8), false),
        // Seen before anything was sent.
        ("/less", 0, Some(0), false),
        ("/nothing", 500, None, true),
        ("/crash", 500, None, true),
        ("/late-crash", 200, Some(5), false),
        ("/hang", 504, None, true),
    ] {
        let answer = server.connect().get(&format!("/module.so{path}"));
        count += 1;
        let object = last_object(&site, count);
        let bytes = bytes.unwrap_or_else(|| answer.as_ref().expect("an answer").body.len());
        assert_eq!(object["target"], format!("/module.so{path}"));
        let status = if status == 0 { json!(null) } else { json!(status) };
        assert_eq!((&object["status"], &object["complete"]), (&status, &json!(is_complete)), "{object}");
        assert_eq!((&object["bytes"], &object["module"]), (&json!(bytes), &json!("module")), "{object}");
    }
}

/// Nothing was answered, so that there is no status to tell, as in Apache's log.
#[test]
fn a_client_who_leaves_before_the_answer_has_a_line_without_a_status() {
    let site = site();
    let server = start_in_order(&site, "combined", &[]);
    let mut client = server.connect();
    client.send(b"POST /module.so HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf").expect("the kernel takes it");
    drop(client);
    assert_eq!(lines(&site, 1), ["127.0.0.1 - - [time] \"POST /module.so HTTP/1.1\" - - \"-\" \"-\""]);
}

#[test]
fn clients_of_other_families_are_named() {
    let site = site();
    site.write("host.toml", "bind = [\"127.0.0.1:0\", \"[::1]:0\", \"unix:socket\"]\n");
    let server =
        start_in_order(&site, "common", &["--config", "host.toml", "--bind", "[::1]:0", "--bind", "unix:socket"]);
    server.get("/a.txt");
    lines(&site, 1);
    let six = server.log().iter().find_map(|line| line.split("listening on http://[::1]:").nth(1)?.parse::<u16>().ok());
    let address = std::net::SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, six.expect("it listens there")));
    Client::connect(address).and_then(|mut client| client.get("/a.txt")).expect("an answer");
    lines(&site, 2);
    Client::connect_unix(&site.path("socket")).and_then(|mut client| client.get("/a.txt")).expect("an answer");
    let lines = lines(&site, 3);
    for (line, client) in lines.iter().zip(["127.0.0.1", "::1", "unix:"]) {
        assert_eq!(*line, format!("{client} - - [time] \"GET /a.txt HTTP/1.1\" 200 5"));
    }
    server.signal(Signal::TERM);
}
