//! The engine with its threads held up where they may meet: real sockets, a real module, and every answer accounted for.

use super::delay::under_test::{POINTS, choose, let_pass};
use super::*;
use crate::config::{Limits, LogFormat, Timeouts};
use crate::handler::{Loadable, Registry};
use crate::sys::socket;
use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

/// Answers with its query, which begins with how many microseconds it sleeps before. `/stream` gives it twice, in two
/// chunks, and sleeps before each, and in `close`.
const SOURCE: &str = r#"
#include "host.h"
#include <stdlib.h>
#include <string.h>
#include <time.h>
static void rest(long us) { struct timespec time = {us / 1000000, us % 1000000 * 1000}; if (us) nanosleep(&time, NULL); }
typedef struct { host_body base; host_str query; int left; } body;
static int32_t next(host_body *base, host_str *chunk) {
    body *self = (body *)base;
    if (self->left-- == 0) return 0;
    rest(atol(self->query.ptr));
    *chunk = self->query;
    return 1;
}
static void closed(host_body *base) { rest(atol(((body *)base)->query.ptr)); free(base); }
HOST_EXPORT host_body *application(host_env *env, host_start_response *start_response) {
    host_str query = env->get(env, HOST_STR("QUERY_STRING")), path = env->get(env, HOST_STR("PATH_INFO"));
    start_response->call(start_response, HOST_STR("200 OK"), NULL, 0, NULL);
    if (strcmp(path.ptr, "/stream") == 0) {
        body *self = calloc(1, sizeof *self);
        self->base = (host_body){.size = sizeof self->base, .count = -1, .next = next, .close = closed};
        self->query = query;
        self->left = 2;
        return &self->base;
    }
    rest(atol(query.ptr));
    return env->bytes(env, query);
}
"#;

struct Running {
    server: Server,
    address: SocketAddr,
    done: mpsc::Receiver<()>,
    registry: Arc<Registry>,
    build: Loadable,
    _folder: tempfile::TempDir,
}

fn start(threads: usize) -> Running {
    let folder = tempfile::tempdir().unwrap();
    let (source, library) = (folder.path().join("echo.c"), folder.path().join("echo.so"));
    fs::write(&source, SOURCE).unwrap();
    let include = concat!(env!("CARGO_MANIFEST_DIR"), "/../abi/include");
    let compiled =
        Command::new("cc").args(["-shared", "-fPIC", "-I", include, "-o"]).arg(&library).arg(&source).status();
    assert!(compiled.expect("cc is installed by tests/run").success());

    let config = Arc::new(Config {
        bind: Vec::new(),
        html: None,
        handlers: folder.path().to_owned(),
        runtime: None,
        root: None,
        mounts: Vec::new(),
        uploads: Vec::new(),
        upload_token_file: None,
        upload_token: None,
        env: Vec::new(),
        cache_control: Vec::new(),
        workers: 1,
        threads,
        limits: Limits::default(),
        timeouts: Timeouts::default(),
        reload: false,
        server_header: String::new(),
        trace: false,
        log_format: LogFormat::Text,
    });
    let (retired, _) = mpsc::channel();
    let (errands, _) = mpsc::channel();
    let registry = Arc::new(Registry::new(Arc::clone(&config), retired, errands));
    let applications = vec!["application".to_owned()];
    let (module, copy) = ("echo".to_owned(), library);
    let build = Loadable { module, generation: 1, copy, applications, described: false };
    registry.load(&build).unwrap();
    let listener = socket::listen(&crate::config::Bind::Tcp("127.0.0.1:0".parse().unwrap())).unwrap();
    let Ok(Address::Tcp(address)) = socket::local_address(std::os::fd::AsFd::as_fd(&listener)) else { unreachable!() };
    let (sender, done) = mpsc::channel();
    let settings = Settings {
        router: Router::new(&config, None, Arc::clone(&registry)),
        config,
        spool: folder.path().to_owned(),
        notice: Box::new(move |notice| {
            if matches!(notice, Notice::Done) {
                sender.send(()).unwrap();
            }
        }),
    };
    let server = Server::start(settings, vec![(listener, Arc::new(Address::Tcp(address)))]).unwrap();
    Running { server, address, done, registry, build, _folder: folder }
}

/// One client: requests of all kinds, alone and in pipelines, and no answer may be missing, mixed up or doubled.
fn ask(address: SocketAddr, client: usize) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.set_nodelay(true).unwrap();
    for round in 0..25 {
        let pipeline = 1 + (round + client) % 3;
        let mut sent = Vec::new();
        let mut expected = String::new();
        for place in 0..pipeline {
            // Quick ones, ones about as slow as it takes until a loop is taken over, and slow ones.
            let us = [0, 0, 0, 900, 2_000, 3_000][(round * 7 + client * 5 + place * 3) % 6];
            let query = format!("{us}~{client}.{round}.{place}");
            let stream = (round + place).is_multiple_of(4);
            let path = if stream { "/stream" } else { "" };
            sent.extend_from_slice(format!("GET /echo.so{path}?{query} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
            expected += &if stream {
                let length = query.len();
                format!("|{length:x}\r\n{query}\r\n{length:x}\r\n{query}\r\n0\r\n\r\n")
            } else {
                format!("|{query}")
            };
        }
        stream.write_all(&sent).unwrap();
        let mut got = Vec::new();
        let mut buffer = [0; 4096];
        while without_heads(&got).len() < expected.len() {
            let count = stream.read(&mut buffer).unwrap_or_else(|error| {
                panic!("client {client} round {round}: {error}; it has {:?} of {expected:?}", without_heads(&got))
            });
            assert!(count > 0, "client {client} round {round} was left with {:?} of {expected:?}", without_heads(&got));
            got.extend_from_slice(&buffer[..count]);
        }
        assert_eq!(without_heads(&got), expected, "client {client} round {round}");
    }
}

/// The contents of responses, each behind a bar.
fn without_heads(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::new();
    for (number, response) in text.split("HTTP/1.1 200 OK\r\n").enumerate() {
        if number > 0 {
            out.push('|');
            out += response.split_once("\r\n\r\n").map_or("", |(_, content)| content);
        }
    }
    out
}

#[test]
fn threads_that_meet_at_the_worst_moments_lose_no_request() {
    let mut held_up = HashMap::new();
    for point in POINTS {
        let running = start(2);
        choose(Some(point));
        for burst in 0..3 {
            std::thread::scope(|scope| {
                let clients: Vec<_> = (0..8)
                    .map(|client| {
                        let address = running.address;
                        scope.spawn(move || ask(address, burst * 8 + client))
                    })
                    .collect();
                while !clients.iter().all(std::thread::ScopedJoinHandle::is_finished) {
                    // A new build, of which nobody knows that it is slow: its calls are made inline again.
                    running.registry.load(&running.build).unwrap();
                    let_pass(Duration::from_millis(8));
                }
            });
            // The monitor parks.
            let_pass(Duration::from_millis(30));
        }
        held_up.insert(format!("{point:?}"), choose(None));
        running.server.stop();
        running.done.recv_timeout(Duration::from_secs(20)).expect("nothing is left");
        assert_eq!(running.server.connections(), 0, "{point:?}");
    }
    // A point that nobody comes to would test nothing.
    assert!(held_up.values().all(|count| *count > 0), "{held_up:?}");
}
