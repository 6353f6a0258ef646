//! How often the host allocates for a request to a handler: not at all, if request and response are small.
//!
//! Here the way of a request is gone without sockets, on one thread; `server_allocations` does it with a whole server.

mod module;

use host::http::encode::{self, Context, Length, Signature};
use host::http::{Head, HeadLimits};
use host::request::Request;
use host::response::{Body, Fields, Status, Wire, WireError};
use host::route::{self, Place, Route, Router};
use host::sys::allocations::{self, Counting};
use host::sys::socket::Address;
use module::{FIELDS, FRUGAL, config, request_text, request_texts, router};
use std::borrow::Cow;
use std::sync::{Arc, LazyLock, mpsc};
use std::time::SystemTime;

#[global_allocator]
static COUNTING: Counting = Counting;

/// Enough for every buffer to have found its size.
const WARM_UP: usize = 100;
const REQUESTS: usize = 10_000;

/// Router and requests, as a connection has them.
struct Stage {
    router: Router,
    request: Option<Box<Request>>,
    place: Option<Place>,
    output: Vec<u8>,
    /// Its generations say here that they have ended.
    _retired: mpsc::Receiver<host::handler::Retired>,
}

impl Stage {
    fn new() -> Stage {
        let (router, _retired) = router(Arc::new(config()));
        let address = |port| Address::Tcp(([127, 0, 0, 1], port).into());
        let request = Some(Box::new(Request::new(address(50_000), Arc::new(address(8080)))));
        Stage { router, request, place: None, output: Vec::new(), _retired }
    }

    /// Goes all the way of a request; the response is in `output`.
    fn answer(&mut self, text: &[u8]) {
        self.output.clear();
        let mut request = self.request.take().expect("it comes back each time");
        let length = request.head.parse(text, HeadLimits { head_bytes_max: 32 << 10 });
        assert_eq!(length, Ok(Some(text.len())));
        if !request.head.is_repeated() {
            request.path.parse_into(request.head.path()).unwrap();
            self.place = None;
        }
        request.input.complete = true;
        let Route::Handler(ticket) = self.router.route(&request.head, &request.path, &mut self.place) else {
            panic!("no handler answers {:?}", request.head.target());
        };
        let answer = route::answer(ticket, request, &mut NoWire);
        assert!(answer.unclosed.is_none());
        let mut request = answer.request.expect("no stream needs it");
        let (status, fields) = (answer.response.status, answer.response.fields);
        let mut emptied = Vec::new();
        let head = &request.head;
        match answer.response.body {
            Body::Empty => encode_head(&mut self.output, head, &status, &fields, 0),
            Body::Bytes(Cow::Owned(bytes)) => {
                encode_head(&mut self.output, head, &status, &fields, bytes.len());
                self.output.extend_from_slice(&bytes);
                emptied = bytes;
            }
            other => panic!("{other:?}"),
        }
        request.spare.take_back(fields, emptied);
        request.input.clear();
        self.request = Some(request);
    }

    /// How often so many requests allocate, when everything is warm.
    fn allocations(&mut self, symbol: &str, fields: &str, requests: usize) -> u64 {
        let texts = request_texts(symbol, fields);
        let mut all = texts.iter().cycle();
        let mut answer = |count| all.by_ref().take(count).for_each(|text| self.answer(text.as_bytes()));
        answer(WARM_UP);
        allocations::during(|| answer(requests)).0
    }

    fn output(&self) -> String {
        String::from_utf8_lossy(&self.output).into_owned()
    }
}

fn encode_head(output: &mut Vec<u8>, head: &Head, status: &Status, fields: &Fields, length: usize) {
    let context = Context {
        head_request: head.method() == "HEAD",
        minor: head.minor(),
        keep_alive: head.keep_alive(),
        signature: &SIGNATURE,
    };
    encode::head(output, status, fields, Length::Known(length as u64), &context);
}

static SIGNATURE: LazyLock<Signature> = LazyLock::new(|| Signature::new(SystemTime::UNIX_EPOCH, "host"));

/// These handlers write nothing and read no content.
struct NoWire;

impl Wire for NoWire {
    fn write(&mut self, _status: &Status, _fields: &Fields, _data: &[u8]) -> Result<(), WireError> {
        Err(WireError::Gone)
    }

    fn read(&mut self, _buffer: &mut [u8]) -> Result<usize, WireError> {
        Err(WireError::Gone)
    }
}

#[test]
fn a_small_request_to_a_frugal_handler_allocates_nothing() {
    let mut stage = Stage::new();
    for fields in FIELDS {
        for symbol in FRUGAL {
            assert_eq!(stage.allocations(symbol, fields, REQUESTS), 0, "{symbol} {fields}");
        }
    }
}

#[test]
fn one_allocation_for_each_request_is_noticed() {
    let mut stage = Stage::new();
    assert_eq!(stage.allocations("wasteful", FIELDS[0], REQUESTS), REQUESTS as u64);
}

#[test]
fn a_large_body_takes_one_allocation() {
    let mut stage = Stage::new();
    assert_eq!(stage.allocations("large", FIELDS[0], 100), 100);
    // One that is unusually large is not kept for small ones, which go on without.
    assert!(stage.request.as_ref().unwrap().spare.content.capacity() < 1 << 20);
    assert_eq!(stage.allocations("hello", FIELDS[0], 100), 0);
}

#[test]
fn a_request_finds_nothing_of_the_one_before() {
    let mut stage = Stage::new();
    let variables = |stage: &mut Stage, fields| {
        stage.answer(request_text("variables", fields).as_bytes());
        stage.output()
    };
    let first = variables(&mut stage, FIELDS[0]);
    assert!(first.starts_with("HTTP/1.1 200 OK\r\n"), "{first}");
    let values = "GET/some/patha=b127.0.0.1:8080127.0.0.18080127.0.0.150000/variables/some/path?a=b/variableshttp";
    assert!(first.ends_with(&format!("\r\n\r\n{values}")), "{first}");
    for symbol in ["vandal", "restart", "nothing", "large", "vandal"] {
        stage.answer(request_text(symbol, FIELDS[1]).as_bytes());
        assert!(stage.output().starts_with("HTTP/1.1 20"), "{symbol}");
        assert_eq!(variables(&mut stage, FIELDS[0]), first, "after {symbol}");
    }
}
