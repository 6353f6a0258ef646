//! The command line: arguments, environment and file become one checked [`Config`], or a refusal that says what to do.
//!
//! 1. The arguments are parsed as they stand: help, `check` and `generate` need no more, and they name the file.
//! 2. The file's and then the environment's settings become the options' default values (`cli::sources`).
//! 3. The arguments are parsed again over those defaults, so that clap decides what wins.
//! 4. What needs more than one value, or the file system, is checked (`Cli::config`).

mod commands;
mod sources;

use crate::config::token::Token;
use crate::config::{
    ApplicationName, Bind, CacheControl, Config, EnvPair, Files, Limits, LogFormat, Mount, Timeouts, values,
};
use crate::exit::Exit;
use crate::log;
use crate::supervisor::console;
use anyhow::{Context, Result, ensure};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// What was asked for.
#[derive(Debug)]
pub enum Invocation {
    /// `host [OPTIONS] [MODULE[:APP]]`
    Serve(Box<Config>),
    /// `host check FILE…`
    Check(Vec<PathBuf>),
    /// `host status`, `host rollback`, `host replay`
    Console(console::Command),
    /// `host generate …`
    Generate(Generate),
}

/// Why nothing is done: help was asked for, or something is wrong.
#[derive(Debug)]
pub enum Refusal {
    /// From the arguments; clap explains, and prints help and version too.
    Arguments(clap::Error),
    /// From the environment, the file, or the values together.
    Settings(anyhow::Error),
}

/// Reads the arguments (the first is the program's name), the environment and the file.
///
/// # Errors
/// Help, version, or the first thing that is wrong.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<Invocation, Refusal> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let bare = Cli::from_arg_matches(&Cli::command().try_get_matches_from(&arguments)?)?;
    match bare.command {
        Some(Command::Check { files }) => return Ok(Invocation::Check(files)),
        Some(Command::Server(command)) => return Ok(Invocation::Console(command.checked(&environment)?)),
        Some(Command::Generate { what }) => return Ok(Invocation::Generate(what)),
        None => {}
    }
    let mut settings = match bare.running.config.or_else(|| environment("HOST_CONFIG").map(PathBuf::from)) {
        Some(file) => sources::file(&file)?,
        None => Vec::new(),
    };
    settings.extend(sources::environment(&environment)?);
    let command = sources::install(Cli::command(), settings)?;
    log::level(environment(log::LEVEL_VARIABLE).as_deref().and_then(OsStr::to_str))?;
    let cli = Cli::from_arg_matches(&command.try_get_matches_from(&arguments)?)?;
    Ok(Invocation::Serve(Box::new(cli.config()?)))
}

/// Reads the arguments, the environment and the file of this process once more: the file may be another.
///
/// # Errors
/// The first thing that is wrong, in one line.
pub fn reread() -> Result<Config> {
    match parse(std::env::args_os(), |name| std::env::var_os(name)) {
        Ok(Invocation::Serve(config)) => Ok(*config),
        Ok(_) => anyhow::bail!("the arguments do not say that anything is to be served"),
        Err(Refusal::Settings(error)) => Err(error),
        Err(Refusal::Arguments(error)) => {
            let text = error.to_string();
            anyhow::bail!("{}", text.lines().next().unwrap_or_default().trim_start_matches("error: "))
        }
    }
}

impl Refusal {
    /// Prints it where it belongs, and says how to exit.
    pub fn report(&self) -> ExitCode {
        match self {
            Self::Arguments(error) => {
                // A closed standard output or error leaves nobody to tell.
                let _ = error.print();
                if error.use_stderr() { Exit::Usage.into() } else { Exit::Success.into() }
            }
            Self::Settings(error) => {
                let _ = writeln!(std::io::stderr(), "error: {error:#}");
                Exit::Usage.into()
            }
        }
    }
}

impl From<clap::Error> for Refusal {
    fn from(error: clap::Error) -> Self {
        Self::Arguments(error)
    }
}

impl From<anyhow::Error> for Refusal {
    fn from(error: anyhow::Error) -> Self {
        Self::Settings(error)
    }
}

/// The classic uses, before anything else.
const EXAMPLES: &str = "
  host                     ./html and ./handlers on http://127.0.0.1:7788
  host framework:app       and the function app of framework.so for the rest
  host --html none app     no pages: the module app answers everything";

const AFTER_HELP: &str = "\
* may be repeated.
Each option is also a variable (HOST_LIMIT_HEAD=64K; HOST_APPLICATION; lists
with commas or spaces) and a key of the --config file (limit-head = \"64K\";
application; lists as arrays). The command line wins, then the variables.
HOST_LOG=error, warn, info or debug sets how much is logged.";

/// A web server for native plugins.
#[derive(Debug, Parser)]
#[command(
    name = "host",
    version,
    max_term_width = 100,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    about = format!("A web server for native plugins\n{EXAMPLES}"),
    help_template = "{about}\n\n{usage-heading} {usage}\n\n{all-args}{after-help}\n",
    after_help = AFTER_HELP
)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Application for what nothing else answers
    #[arg(value_name = "MODULE[:APP]")]
    application: Option<ApplicationName>,
    #[command(flatten)]
    service: ServiceOptions,
    #[command(flatten)]
    running: RunningOptions,
    #[command(flatten)]
    limit: LimitOptions,
    #[command(flatten)]
    timeout: TimeoutOptions,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Load libraries in a process of their own and say what they are
    Check {
        /// Shared libraries to look at
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
    },
    #[command(flatten)]
    Server(commands::ServerCommand),
    /// Print the C header, the manual page or shell completions
    Generate {
        #[command(subcommand)]
        what: Generate,
    },
}

/// `host generate …`
#[derive(Debug, Subcommand)]
pub enum Generate {
    /// host.h, which is all that a handler in C needs
    Header,
    /// The manual page, in roff
    Man,
    /// Completions, to be sourced by the shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
#[command(next_help_heading = "What is served, and where")]
struct ServiceOptions {
    /// Where: PORT, IP:PORT, unix:PATH, fd:N *
    #[arg(short, long, value_name = "ADDR", default_value = "127.0.0.1:7788", hide_default_value = true)]
    bind: Vec<Bind>,
    /// Folder of pages, or none
    #[arg(long, value_name = "DIR", default_value = "./html")]
    html: PathBuf,
    /// Folder of handlers
    #[arg(long, value_name = "DIR", default_value = "./handlers")]
    handlers: PathBuf,
    /// Application for all paths under /PREFIX *
    #[arg(long, value_name = "/PREFIX=APP")]
    mount: Vec<Mount>,
    /// Folder of the site, by its path, under which files can be uploaded *
    #[arg(long, value_name = "/PREFIX", value_parser = values::upload_prefix)]
    upload: Vec<String>,
    /// Token that uploads need [default: none]
    #[arg(long, value_name = "FILE")]
    upload_token_file: Option<PathBuf>,
    /// Environ key, or MODULE:KEY=VALUE for one module *
    #[arg(long, value_name = "KEY=VALUE")]
    env: Vec<EnvPair>,
    /// Cache-Control of files, or *.css=VALUE *
    #[arg(long, value_name = "RULE")]
    cache_control: Vec<CacheControl>,
    /// Server header field [default: host]
    #[arg(long, value_name = "TEXT", default_value = "host", hide_default_value = true, value_parser = values::field_value)]
    server_header: String,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "How it runs")]
struct RunningOptions {
    /// Worker processes
    #[arg(short, long, value_name = "N", default_value = "1", value_parser = values::small_count)]
    workers: usize,
    /// Event loops in each worker [default: one per core]
    #[arg(long, value_name = "N", value_parser = values::small_count)]
    threads: Option<usize>,
    /// Keep to the builds found at start
    #[arg(long)]
    no_reload: bool,
    /// Private copies of builds [default: in /var/tmp]
    #[arg(long, value_name = "DIR")]
    runtime: Option<PathBuf>,
    /// Options in TOML
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// text or json
    #[arg(long, value_name = "FORMAT", default_value = "text", value_enum, hide_possible_values = true)]
    log_format: LogFormat,
    /// Show connections, requests and responses
    #[arg(long)]
    trace: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Limits (4096, 32K, 16M, 1G)")]
struct LimitOptions {
    /// Request line and header fields
    #[arg(long, value_name = "SIZE", default_value = "32K", value_parser = values::head_bytes)]
    limit_head: usize,
    /// Content of a request
    #[arg(long, value_name = "SIZE", default_value = "16M", value_parser = values::bytes)]
    limit_body: u64,
    /// Content of an upload
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = values::bytes)]
    limit_upload: u64,
    /// Connections of a worker
    #[arg(long, value_name = "N", default_value = "10000", value_parser = values::count)]
    limit_connections: usize,
    /// Memory of a worker [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = values::memory_bytes)]
    limit_memory: Option<u64>,
    /// Old builds in a worker
    #[arg(long, value_name = "N", default_value = "32", value_parser = values::count)]
    limit_generations: usize,
    /// Calls of handlers at a time
    #[arg(long, value_name = "N", default_value = "512", value_parser = values::count)]
    limit_threads: usize,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Time-outs (10, 500ms, 10s, 5m)")]
struct TimeoutOptions {
    /// To receive a request's head
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = values::duration)]
    timeout_head: Duration,
    /// Without a byte of its content
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = values::duration)]
    timeout_body: Duration,
    /// Between requests of a connection
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = values::duration)]
    timeout_idle: Duration,
    /// Without a client taking a byte
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = values::duration)]
    timeout_write: Duration,
    /// Of a handler without progress
    #[arg(long, value_name = "TIME", default_value = "300s", value_parser = values::duration)]
    timeout_handler: Duration,
    /// The same, on a processor
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = values::duration)]
    timeout_cpu: Duration,
    /// For requests under way at the end
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = values::duration)]
    timeout_stop: Duration,
}

impl Cli {
    /// The checks that need the file system or several values at once.
    fn config(self) -> Result<Config> {
        let Self { application, service, running, limit, timeout, .. } = self;
        for (index, address) in service.bind.iter().enumerate() {
            let any_port = matches!(address, Bind::Tcp(address) if address.port() == 0);
            ensure!(any_port || !service.bind[..index].contains(address), "--bind {address} is given twice");
        }
        let mut mounts = service.mount;
        // Longest first, as requests are matched.
        mounts.sort_by(|a, b| b.prefix.len().cmp(&a.prefix.len()).then_with(|| a.prefix.cmp(&b.prefix)));
        for pair in mounts.windows(2) {
            ensure!(pair[0].prefix != pair[1].prefix, "--mount {} is given twice", pair[0].prefix);
        }
        for (index, prefix) in service.upload.iter().enumerate() {
            ensure!(!service.upload[..index].contains(prefix), "--upload {prefix}/ is given twice");
        }
        let html = match service.html.to_str() {
            Some("none") => None,
            _ => Some(folder(&service.html, "create it, or say --html none")?),
        };
        ensure!(
            html.is_some() || service.upload.is_empty(),
            "--upload needs a site, whose folders take the files; name one with --html DIR"
        );
        let token_file = service.upload_token_file.as_deref().map(values::absolute).transpose()?;
        let mut cache_control = service.cache_control;
        // In the order in which they were given, but that of all files is for what no other has.
        cache_control.sort_by_key(|rule| rule.files == Files::All);
        for (index, rule) in cache_control.iter().enumerate() {
            let is_new = cache_control[..index].iter().all(|other| other.files != rule.files);
            ensure!(
                is_new,
                "--cache-control {} is given twice; directives of one value are joined by commas",
                rule.files
            );
        }
        Ok(Config {
            bind: service.bind,
            html,
            handlers: folder(&service.handlers, "create it, or name another with --handlers DIR")?,
            runtime: running.runtime.as_deref().map(values::absolute).transpose()?,
            root: application,
            mounts,
            uploads: service.upload,
            upload_token: token_file.as_deref().map(Token::read).transpose()?,
            upload_token_file: token_file,
            env: service.env,
            cache_control,
            workers: running.workers,
            threads: running.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)),
            limits: Limits {
                head_bytes_max: limit.limit_head,
                body_bytes_max: limit.limit_body,
                upload_bytes_max: limit.limit_upload,
                connections_max: limit.limit_connections,
                memory_bytes_max: limit.limit_memory,
                generations_max: limit.limit_generations,
                threads_max: limit.limit_threads,
            },
            timeouts: Timeouts {
                head: timeout.timeout_head,
                body: timeout.timeout_body,
                idle: timeout.timeout_idle,
                write: timeout.timeout_write,
                handler: timeout.timeout_handler,
                cpu: timeout.timeout_cpu,
                stop: timeout.timeout_stop,
            },
            reload: !running.no_reload,
            server_header: service.server_header,
            trace: running.trace,
            log_format: running.log_format,
        })
    }
}

/// The absolute path of a folder that must exist.
fn folder(path: &Path, remedy: &str) -> Result<PathBuf> {
    match std::fs::metadata(path) {
        Ok(metadata) => ensure!(metadata.is_dir(), "{} is not a folder; {remedy}", path.display()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            anyhow::bail!("no folder {}; {remedy}", path.display())
        }
        Err(error) => return Err(error).with_context(|| format!("cannot look at the folder {}", path.display())),
    }
    values::absolute(path)
}

impl Generate {
    /// Writes the text to `out`.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut dyn Write) -> std::io::Result<()> {
        match self {
            Self::Header => out.write_all(include_bytes!("../../abi/include/host.h")),
            Self::Man => clap_mangen::Man::new(Cli::command()).render(out),
            Self::Completions { shell } => {
                // Into memory first: the generator panics when it cannot write, as into a closed pipe.
                let mut text = Vec::new();
                clap_complete::generate(*shell, &mut Cli::command(), "host", &mut text);
                out.write_all(&text)
            }
        }
    }
}

#[cfg(test)]
mod tests;
