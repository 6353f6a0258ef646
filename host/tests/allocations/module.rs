//! The module whose handlers are called, and what a server must know to call them.

use host::config::{ApplicationName, Config, Limits, LogFormat, Mount, Timeouts};
use host::handler::{Loadable, Registry, Retired};
use host::route::Router;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, LazyLock, mpsc};

/// Handlers that allocate nothing.
pub const FRUGAL: [&str; 4] = ["hello", "nothing", "variables", "restart"];

/// What `wrk` sends, and what a browser sends.
pub const FIELDS: [&str; 2] = [
    "Host: 127.0.0.1:8080\r\n",
    "Host: 127.0.0.1:8080\r\n\
     User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
     Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
     Accept-Language: en-US,en;q=0.5\r\n\
     Accept-Encoding: gzip, deflate, br, zstd\r\n\
     Referer: http://127.0.0.1:8080/\r\n\
     Connection: keep-alive\r\n\
     Cookie: a=b\r\n\
     Upgrade-Insecure-Requests: 1\r\n\
     Sec-Fetch-Dest: document\r\n\
     Sec-Fetch-Mode: navigate\r\n\
     Priority: u=0, i\r\n",
];

/// A request to the handler of this name.
pub fn request_text(symbol: &str, fields: &str) -> String {
    format!("GET /{symbol}/some/path?a=b HTTP/1.1\r\n{fields}\r\n")
}

/// Requests to it for a client that takes turns: the second is the first again, and the third is another.
pub fn request_texts(symbol: &str, fields: &str) -> [String; 4] {
    let text = request_text(symbol, fields);
    let other = text.replacen("a=b", "a=c", 1);
    [text.clone(), text, other.clone(), other]
}

/// The module, compiled once.
static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O1", "-I"]).arg(here.join("../abi/include"));
    compiler.arg("-o").arg(folder.path().join("handlers.so")).arg(here.join("tests/allocations/handlers.c"));
    let done = compiler.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    folder
});

/// A configuration in which `/hello` is the application `hello`, and so on.
pub fn config() -> Config {
    let mount = |symbol: &str| Mount {
        prefix: format!("/{symbol}"),
        application: ApplicationName { module: "handlers".to_owned(), symbol: symbol.to_owned() },
    };
    Config {
        bind: Vec::new(),
        html: None,
        handlers: FOLDER.path().to_owned(),
        runtime: None,
        root: None,
        mounts: FRUGAL.into_iter().chain(["vandal", "wasteful", "large"]).map(mount).collect(),
        uploads: Vec::new(),
        upload_token_file: None,
        upload_token: None,
        env: Vec::new(),
        cache_control: Vec::new(),
        workers: 1,
        threads: 1,
        limits: Limits::default(),
        timeouts: Timeouts::default(),
        reload: false,
        server_header: "host".to_owned(),
        trace: false,
        log_format: LogFormat::Text,
    }
}

/// A router to the module, and where it says which generations have ended.
pub fn router(config: Arc<Config>) -> (Router, mpsc::Receiver<Retired>) {
    let (retired, to_retire) = mpsc::channel();
    let (errands, _) = mpsc::channel();
    let registry = Arc::new(Registry::new(Arc::clone(&config), retired, errands));
    let build = Loadable {
        module: "handlers".to_owned(),
        generation: 1,
        copy: FOLDER.path().join("handlers.so"),
        applications: config.mounts.iter().map(|mount| mount.application.symbol.clone()).collect(),
        described: false,
    };
    registry.load(&build).unwrap();
    (Router::new(&config, None, registry), to_retire)
}
