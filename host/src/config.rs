//! The checked configuration: what the command line, the environment and the file say, made true once.
//!
//! This is data that every layer may read; how it is written by people is in [`values`], and how it is gathered is
//! in [`crate::cli`]. The supervisor sends it to its workers as JSON.

mod cache_control;
pub mod token;
pub mod values;

pub use cache_control::{CacheControl, Files};

use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;
use token::Token;

/// Everything that the supervisor and its workers need to know. Paths are absolute and UTF-8.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Where to listen, at least one.
    pub bind: Vec<Bind>,
    /// The site's folder, or none.
    pub html: Option<PathBuf>,
    /// The folder of handlers.
    pub handlers: PathBuf,
    /// The folder under which this server makes its private copies of builds; none lets it choose.
    pub runtime: Option<PathBuf>,
    /// The root application, if any.
    pub root: Option<ApplicationName>,
    /// `--mount`, longest prefix first.
    pub mounts: Vec<Mount>,
    /// `--upload`: the decoded paths of the folders under which the site takes files. Each begins with a slash and ends
    /// without one; the empty one is the whole site.
    pub uploads: Vec<String>,
    /// `--upload-token-file`.
    pub upload_token_file: Option<PathBuf>,
    /// What was in it: who does not know this may not upload. None lets everybody.
    pub upload_token: Option<Token>,
    /// `--env`.
    pub env: Vec<EnvPair>,
    /// `--cache-control`, in the order in which they are tried: those of a pattern, then that of all files.
    pub cache_control: Vec<CacheControl>,
    /// Worker processes, at least 1.
    pub workers: usize,
    /// Event loops in each worker, at least 1.
    pub threads: usize,
    /// Bounds on what clients and modules may take.
    pub limits: Limits,
    /// Bounds on how long things may take.
    pub timeouts: Timeouts,
    /// Whether changed builds are loaded.
    pub reload: bool,
    /// The value of the `Server` field; empty sends none.
    pub server_header: String,
    /// Whether connections, requests and responses are traced on standard error.
    pub trace: bool,
    /// How log lines look.
    pub log_format: LogFormat,
}

/// One listening address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Bind {
    /// A TCP address; port 0 lets the system choose.
    Tcp(std::net::SocketAddr),
    /// A Unix stream socket at this path.
    Unix(PathBuf),
    /// A listening socket inherited under this descriptor number.
    Inherited(i32),
}

/// `module:symbol`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ApplicationName {
    /// The module's name, such as `ctime` or `admin/ctime`: segments of `[A-Za-z0-9_-]+`.
    pub module: String,
    /// The exported function, a C identifier, `application` unless said.
    pub symbol: String,
}

/// `--mount /prefix=module:symbol`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// The decoded path prefix: starts with a slash, ends without one, has no empty or dot segment; matches whole
    /// segments.
    pub prefix: String,
    /// What answers there.
    pub application: ApplicationName,
}

/// `--env [MODULE:]KEY=VALUE`: one more environ key, for one module or for all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvPair {
    /// The module that sees it; none is all.
    pub module: Option<String>,
    /// The key; never one that a request sets.
    pub key: String,
    /// The value.
    pub value: String,
}

/// `--limit-*`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of a request head, request line and fields together.
    pub head_bytes_max: usize,
    /// Bytes of a request's content.
    pub body_bytes_max: u64,
    /// Bytes of the content of an upload.
    pub upload_bytes_max: u64,
    /// Connections of one worker.
    pub connections_max: usize,
    /// Bytes of memory of one worker; none is no limit.
    pub memory_bytes_max: Option<u64>,
    /// Retired generations that a worker keeps mapped before it is replaced.
    pub generations_max: usize,
    /// Handlers that may run at the same time.
    pub threads_max: usize,
}

/// The limits of a server that was told nothing.
impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes_max: 32 << 10,
            body_bytes_max: 16 << 20,
            upload_bytes_max: 1 << 30,
            connections_max: 10_000,
            memory_bytes_max: None,
            generations_max: 32,
            threads_max: 512,
        }
    }
}

/// `--timeout-*`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeouts {
    /// From a request's first byte to the end of its head.
    pub head: Duration,
    /// Without a byte of a request's content.
    pub body: Duration,
    /// Between requests of a kept-alive connection.
    pub idle: Duration,
    /// Without the client taking a byte of a response.
    pub write: Duration,
    /// Of a handler's call without progress.
    pub handler: Duration,
    /// The same, on a processor.
    pub cpu: Duration,
    /// For requests in flight when the server or a worker stops.
    pub stop: Duration,
}

/// The time-outs of a server that was told nothing.
impl Default for Timeouts {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            body: Duration::from_secs(20),
            idle: Duration::from_secs(60),
            write: Duration::from_secs(30),
            handler: Duration::from_secs(300),
            cpu: Duration::from_secs(30),
            stop: Duration::from_secs(30),
        }
    }
}

/// `--log-format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum LogFormat {
    /// One line of text.
    Text,
    /// One JSON object a line.
    Json,
}

impl Config {
    /// The applications that are named: the root's and those of mounts.
    pub fn applications(&self) -> impl Iterator<Item = &ApplicationName> {
        self.root.iter().chain(self.mounts.iter().map(|mount| &mount.application))
    }

    /// The application symbols that are asked of a module: those of the root and of mounts, and the default.
    pub fn symbols_of(&self, module: &str) -> Vec<String> {
        let mut symbols = vec![values::DEFAULT_SYMBOL.to_owned()];
        for application in self.applications().filter(|application| application.module == module) {
            if !symbols.contains(&application.symbol) {
                symbols.push(application.symbol.clone());
            }
        }
        symbols
    }
}
