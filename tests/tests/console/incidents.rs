//! The requests of incidents: what is kept of them and what not, and `host replay`.

use crate::{build, complains, host, says, server_folder, status};
use std::os::unix::fs::PermissionsExt;
use tests::{Client, PATIENCE, Server, Site, eventually};

/// Crashes as its path says, in the application, in `next` (the first one or a later one) or in `close`; else it sends
/// the content back.
const CRASHING: &str = r#"#include "host.h"
    #include <stdlib.h>
    #include <string.h>
    #ifndef FLAGS
    #define FLAGS 0
    #endif
    HOST_EXPORT const host_module_info host_module = {
        .magic = HOST_MODULE_MAGIC, .size = sizeof(host_module_info), .abi = HOST_ABI, .flags = FLAGS,
    };
    static void crash(void) { *(volatile int *)16 = 1; }
    static int32_t next(host_body *body, host_str *chunk) {
        (void)body, (void)chunk;
        crash();
        return 0;
    }
    static int32_t next_later(host_body *body, host_str *chunk) {
        static int chunks;
        if (chunks++ > 0) crash();
        (void)body;
        *chunk = HOST_STR("some");
        return 1;
    }
    static int32_t end(host_body *body, host_str *chunk) { return (void)body, (void)chunk, 0; }
    static void crash_in_close(host_body *body) { (void)body, crash(); }
    HOST_EXPORT host_body *application(host_env *env, host_start_response *start_response) {
        host_str path = env->get(env, HOST_STR("PATH_INFO"));
        static char content[1 << 20];
        size_t length = 0;
        for (int64_t got; (got = env->read(env, content + length, sizeof content - length)) > 0;) length += (size_t)got;
        if (FIXED == 0 && strcmp(path.ptr, "/application") == 0) crash();
        start_response->call(start_response, HOST_STR("200 OK"), NULL, 0, NULL);
        static host_body bodies[3] = {
            {.size = sizeof(host_body), .count = -1, .next = next, .close = crash_in_close},
            {.size = sizeof(host_body), .count = -1, .next = end, .close = crash_in_close},
            {.size = sizeof(host_body), .count = -1, .next = next_later, .close = crash_in_close},
        };
        if (FIXED == 0 && strcmp(path.ptr, "/next") == 0) return &bodies[0];
        if (FIXED == 0 && strcmp(path.ptr, "/close") == 0) return &bodies[1];
        if (FIXED == 0 && strcmp(path.ptr, "/later") == 0) return &bodies[2];
        return env->bytes(env, (host_str){content, length});
    }"#;

struct Fixture {
    site: Site,
    server: Server,
}

impl Fixture {
    fn start(flags: &[&str]) -> Fixture {
        let site = Site::new();
        build(&site, "module", CRASHING, &[&["-DFIXED=0"], flags].concat());
        let server = site.start(&["--threads", "1"]);
        Fixture { site, server }
    }

    /// Sends a request that crashes the handler, and gives the incident's number as the log tells it. Good ones go before
    /// it, so that the build stays in service.
    fn crash(&self, request: &[u8]) -> u64 {
        for _ in 0..3 {
            assert_eq!(self.server.get("/module.so").status, 200);
        }
        let mark = self.server.mark();
        let mut client: Client = self.server.connect();
        client.send(request).expect("the connection is open");
        _ = client.response();
        let line = self.server.wait_for_log_since(mark, "module generation 1 crashed: ", PATIENCE);
        let number = line.rsplit_once(", incident ").and_then(|(_, rest)| rest.trim_end_matches(')').parse().ok());
        number.unwrap_or_else(|| panic!("no number in {line:?}"))
    }

    /// The file of an incident: what it says in JSON, and the request.
    fn file(&self, number: u64) -> (serde_json::Value, Vec<u8>) {
        let path = server_folder(&self.site).join(format!("incidents/{number}"));
        let mode = std::fs::metadata(&path).expect("the file is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mut bytes = std::fs::read(&path).expect("it can be read");
        let end = bytes.iter().position(|byte| *byte == b'\n').expect("a first line");
        let request = bytes.split_off(end + 1);
        (serde_json::from_slice(&bytes).expect("it is JSON"), request)
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("it is text")
}

#[test]
fn the_request_is_kept_without_its_secrets() {
    let fixture = Fixture::start(&[]);
    let number = fixture.crash(
        b"POST /module.so/application?q=1&access_token=sesame HTTP/1.1\r\nHost: a\r\nAuthorization: Basic sesame\r\n\
          Proxy-Authorization: sesame\r\ncookie: id=sesame\r\nX-API-Key: sesame\r\nX-Trace: seen\r\n\
          Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    );
    let (record, request) = fixture.file(number);
    assert_eq!(
        text(&request),
        "POST /module.so/application?q=1&access_token=redacted HTTP/1.1\r\nHost: a\r\nAuthorization: redacted\r\n\
         Proxy-Authorization: redacted\r\ncookie: redacted\r\nX-API-Key: redacted\r\nX-Trace: seen\r\n\
         Content-Length: 5\r\n\r\nhello"
    );
    assert_eq!(
        (&record["number"], &record["module"], &record["generation"]),
        (&number.into(), &"module".into(), &1.into())
    );
    assert_eq!(
        record["request"]["redacted"],
        serde_json::json!(["Authorization", "Proxy-Authorization", "X-API-Key", "access_token", "cookie"])
    );
    assert!(!fixture.server.log().iter().any(|line| line.contains("sesame")), "{:?}", fixture.server.log());
    assert!(!status(&fixture.site).to_string().contains("sesame"));
}

#[test]
fn a_request_is_known_wherever_its_call_crashes() {
    let fixture = Fixture::start(&[]);
    for path in ["/application", "/next", "/later", "/close"] {
        let number = fixture.crash(format!("GET /module.so{path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        let (record, request) = fixture.file(number);
        assert_eq!(text(&request), format!("GET /module.so{path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let told = record["text"].as_str().expect("text");
        assert!(told.ends_with(&format!("(GET /module.so{path})")), "{told}");
    }
}

#[test]
fn of_large_content_the_beginning_is_kept() {
    let fixture = Fixture::start(&[]);
    let large: Vec<u8> = (0..200_000).map(|at| b'a' + (at % 23) as u8).collect();
    let head = format!("POST /module.so/application HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", large.len());
    let number = fixture.crash(&[head.as_bytes(), &large].concat());
    let (record, request) = fixture.file(number);
    assert_eq!(record["request"]["content_bytes"], large.len());
    assert!(request == [head.as_bytes(), &large[..64 * 1024]].concat(), "{} bytes", request.len());
    let words = complains(&fixture.site, &["replay", &number.to_string()]);
    assert!(words.contains("only the first 65536 of 200000 bytes of its content were kept"), "{words}");
    assert_eq!(status(&fixture.site)["incidents"].as_array().map(Vec::len), Some(1), "nothing was sent");
}

#[test]
fn content_that_the_module_reads_itself_is_not_kept() {
    let fixture = Fixture::start(&["-DFLAGS=HOST_STREAM_INPUT"]);
    let number = fixture.crash(b"POST /module.so/application HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    let words = complains(&fixture.site, &["replay", &number.to_string()]);
    assert!(words.contains("its content was not kept: the module reads it as it comes"), "{words}");
    // Without content there is nothing to miss.
    let number = fixture.crash(b"GET /module.so/application HTTP/1.1\r\nHost: a\r\n\r\n");
    let output = host(&fixture.site, &["replay", &number.to_string()]);
    assert!(text(&output.stdout).starts_with("HTTP/1.1 500 "), "{output:?}");
}

#[test]
fn a_replay_crashes_again_until_the_mistake_is_mended() {
    let fixture = Fixture::start(&[]);
    let number = fixture.crash(
        b"POST /module.so/application?key=sesame HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello",
    );
    let number = number.to_string();
    let again = host(&fixture.site, &["replay", &number]);
    assert_eq!(again.status.code(), Some(1), "{again:?}");
    assert!(text(&again.stdout).starts_with("HTTP/1.1 500 Internal Server Error\r\n"), "{again:?}");
    assert!(text(&again.stdout).contains("\r\n\r\n500 Internal Server Error: the handler crashed"), "{again:?}");
    assert_eq!(text(&again.stderr), "note: these were not kept, and are sent as \"redacted\": key\n");
    eventually("it is an incident of its own", PATIENCE, || {
        (status(&fixture.site)["incidents"].as_array().map(Vec::len) == Some(2)).then_some(())
    });
    let mark = fixture.server.mark();
    build(&fixture.site, "module", CRASHING, &["-DFIXED=1"]);
    fixture.server.wait_for_log_since(mark, "reloaded module generation 2", PATIENCE);
    let mended = says(&fixture.site, &["replay", &number]);
    assert!(mended.starts_with("HTTP/1.1 200 OK\r\n") && mended.ends_with("\r\n\r\nhello"), "{mended}");
    // The same to another address, which is this one's.
    let to = fixture.server.address().to_string();
    assert!(says(&fixture.site, &["replay", &number, "--to", &to]).ends_with("hello"));
    // And to one where nobody is.
    let words = complains(&fixture.site, &["replay", &number, "--to", "unix:nobody"]);
    assert!(words.contains("cannot connect to unix:"), "{words}");
    assert!(complains(&fixture.site, &["replay", "77"]).contains("no incident 77; there are 1 to 2"));
}

#[test]
fn an_answer_that_breaks_off_is_told() {
    let fixture = Fixture::start(&[]);
    let number = fixture.crash(b"GET /module.so/later HTTP/1.1\r\nHost: a\r\n\r\n").to_string();
    let output = host(&fixture.site, &["replay", &number]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stdout).starts_with("HTTP/1.1 200 OK\r\n"), "{output:?}");
    assert!(text(&output.stderr).contains("the answer was cut"), "{output:?}");
    // Of a crash in `close` the client sees nothing.
    let number = fixture.crash(b"GET /module.so/close HTTP/1.1\r\nHost: a\r\n\r\n").to_string();
    assert!(says(&fixture.site, &["replay", &number]).starts_with("HTTP/1.1 200 OK\r\n"));
}

#[test]
fn incidents_go_with_their_server() {
    let fixture = Fixture::start(&[]);
    assert!(complains(&fixture.site, &["replay", "1"]).contains("no incident 1; there is none"));
    fixture.crash(b"GET /module.so/application HTTP/1.1\r\nHost: a\r\n\r\n");
    let folder = server_folder(&fixture.site);
    assert!(folder.exists());
    assert_eq!(fixture.server.stop().code(), Some(0));
    assert!(!folder.exists());
    assert!(complains(&fixture.site, &["replay", "1"]).contains("no running server"));
}
