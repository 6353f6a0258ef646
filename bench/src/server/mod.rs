//! The servers that are compared: how each is started so that it does its best with one worker on one core, and which of
//! its paths has which page.

mod apache;
mod floor;
mod h2o;
mod host;
mod kore;
mod lighttpd;
mod nginx;
mod uwsgi;

pub use floor::Floor;
pub use host::{HELLO_IN_C, Hello, Host};

use crate::client::{self, Expected, Group, Plan};
use crate::launch;
use crate::network::Network;
use crate::process::{Running, go_on};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What is asked for. Every server has the same bytes of content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// A constant of 14 bytes, from code where the server runs code.
    Hello,
    /// The same after a sleep of [`SLOW`], in a handler that blocks.
    Slow,
    /// A file of 1 KiB.
    Kib1,
    /// A file of 100 KiB.
    Kib100,
    /// A file of 10 MiB.
    Mib10,
}

/// How long the slow handler sleeps.
pub const SLOW: Duration = Duration::from_millis(100);

/// The constant.
pub const HELLO: &str = "Hello, World!\n";

/// The files of a site, by name and size.
const FILES: [(&str, usize); 3] = [("1k.txt", 1 << 10), ("100k.bin", 100 << 10), ("10m.bin", 10 << 20)];
const HELLO_FILE: &str = "hello.txt";

impl Page {
    /// What must come.
    pub fn expected(self) -> Expected {
        let length = self.file().map_or(HELLO.len(), |(_, length)| length);
        Expected { status: 200, length: length as u64 }
    }

    fn file(self) -> Option<(&'static str, usize)> {
        match self {
            Page::Hello | Page::Slow => None,
            Page::Kib1 => Some(FILES[0]),
            Page::Kib100 => Some(FILES[1]),
            Page::Mib10 => Some(FILES[2]),
        }
    }
}

/// Where a server has a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Its path.
    pub path: &'static str,
    /// What has to be known about it to read the figures.
    pub remark: Option<&'static str>,
}

/// A program to execute.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// The file.
    pub program: PathBuf,
    /// What it is told.
    pub arguments: Vec<OsString>,
}

/// What a server is started with.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    /// A folder for its configuration and state, empty and its own.
    pub folder: &'a Path,
    /// The folder with the files of the site.
    pub site: &'a Path,
    /// Where it has to listen.
    pub address: SocketAddr,
    /// Whether each request will have a connection of its own: for servers that must be set up for it, or do not read what
    /// they are told.
    pub close: bool,
}

/// How a server is started.
pub trait Recipe {
    /// Its name in the tables.
    fn name(&self) -> &str;

    /// The name under which it and its likes are chosen: one server may have several rows.
    fn family(&self) -> &str {
        self.name()
    }

    /// What it says of its version; none for those that are built here, and for what is not installed.
    fn version(&self) -> Option<String> {
        None
    }

    /// Makes what it needs once, such as its module, in `folder`.
    ///
    /// # Errors
    /// Why it cannot take part.
    fn build(&mut self, folder: &Path) -> Result<(), String>;

    /// Its path for a page.
    ///
    /// # Errors
    /// Why it has none.
    fn offer(&self, page: Page) -> Result<Offer, &'static str>;

    /// Its executable, if it is host.
    fn host_binary(&self) -> Option<&Path> {
        None
    }

    /// Whether it reads what it is asked, so that requests may come together.
    fn parses(&self) -> bool {
        true
    }

    /// Whether it serves one kept-alive connection at a time.
    fn holds_to_one(&self) -> bool {
        false
    }

    /// Writes its configuration and says how it is started.
    ///
    /// # Errors
    /// Files cannot be written.
    fn prepare(&self, setting: Setting<'_>) -> io::Result<Invocation>;
}

/// The servers of others, each in its only row.
pub fn peers() -> Vec<Box<dyn Recipe>> {
    vec![
        Box::new(nginx::Nginx),
        Box::new(h2o::H2o),
        Box::new(lighttpd::Lighttpd),
        Box::new(kore::Kore::default()),
        Box::new(uwsgi::Uwsgi::default()),
        Box::new(apache::Apache),
    ]
}

/// A server that answers.
#[derive(Debug)]
pub struct Server {
    /// Its processes.
    pub running: Running,
    /// Where it listens.
    pub address: SocketAddr,
    /// How many of its threads had chosen another core.
    pub strayed: usize,
    // Removed after the process has ended.
    _folder: tempfile::TempDir,
}

/// What starting a server needs of the measurement.
#[derive(Clone, Copy, Debug)]
pub struct Ground<'a> {
    /// This program.
    pub bench: &'a Path,
    /// The folder with the files of the site.
    pub site: &'a Path,
    /// The server's core.
    pub core: usize,
    /// The server's network.
    pub network: &'a Network,
}

/// How long a server may take from its start to its first answer.
const START_PATIENCE: Duration = Duration::from_secs(10);

impl Server {
    /// Starts a server and waits until it answers a page.
    ///
    /// # Errors
    /// It does not, with its words; or `Interrupted`.
    pub fn start(recipe: &dyn Recipe, ground: Ground<'_>, page: Page, close: bool) -> io::Result<Server> {
        let path = recipe.offer(page).map_err(io::Error::other)?.path;
        let folder = tempfile::Builder::new().prefix("host-bench-").tempdir()?;
        // A server that gives up root's rights must still reach its files.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        let address = ground.network.free_address()?;
        let setting = Setting { folder: folder.path(), site: ground.site, address, close };
        let Invocation { program, arguments } = recipe.prepare(setting)?;
        let mut command = launch::command(ground.bench, ground.core, ground.network, &program);
        command.args(arguments).current_dir(folder.path());
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"HOST_")) {
            command.env_remove(name);
        }
        let running = Running::start(command, folder.path().join("log"), false)?;
        let begin = Instant::now();
        let group = Group::new(path, page.expected(), 1);
        let plan = Plan {
            address,
            groups: vec![group],
            warm_up: Duration::ZERO,
            duration: Duration::ZERO,
            frozen_after: START_PATIENCE,
        };
        loop {
            go_on()?;
            let report = ground.network.inside(|| client::hold(&plan, || ()))?;
            let tally = &report.groups[0];
            if tally.answered > 0 {
                break;
            }
            if running.has_ended() {
                return Err(io::Error::other(format!("ended by itself: {}", running.words())));
            }
            if begin.elapsed() > START_PATIENCE {
                let answer = tally.first_failure.as_deref().unwrap_or("nothing");
                return Err(io::Error::other(format!("does not answer: {answer}; {}", running.words())));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let strayed = crate::accounting::hold_to(ground.core, &running.processes())?;
        Ok(Server { running, address, strayed, _folder: folder })
    }
}

/// Writes the files of the site.
///
/// # Errors
/// They cannot be written.
pub fn write_site(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    fs::write(folder.join(HELLO_FILE), HELLO)?;
    for (name, length) in FILES {
        let line = b"0123456789 abcdefghijklmnopqrstuvwxyz 0123456789 ABCDEFGHIJKLMN\n";
        let content: Vec<u8> = line.iter().copied().cycle().take(length).collect();
        fs::write(folder.join(name), content)?;
    }
    Ok(())
}

/// The file's path on a server that serves the site's files at its root.
fn file(page: Page) -> Result<Offer, &'static str> {
    match page {
        Page::Kib1 => Ok(offer("/1k.txt")),
        Page::Kib100 => Ok(offer("/100k.bin")),
        Page::Mib10 => Ok(offer("/10m.bin")),
        Page::Hello => Ok(Offer { path: "/hello.txt", remark: Some("has no constant: a file of these 14 bytes") }),
        Page::Slow => Err("runs no code that blocks"),
    }
}

fn offer(path: &'static str) -> Offer {
    Offer { path, remark: None }
}

/// Where Debian has the program.
fn need(program: &str) -> Result<PathBuf, String> {
    crate::process::installed(program).ok_or_else(|| "not installed".to_owned())
}

/// The version that a program names when it is asked with this flag.
fn version(program: &str, flag: &str) -> Option<String> {
    let output = std::process::Command::new(need(program).ok()?).arg(flag).output().ok()?;
    let words = [output.stdout, output.stderr].concat();
    let words = String::from_utf8_lossy(&words);
    let version = |word: &&str| word.contains('.') && word.contains(|c: char| c.is_ascii_digit());
    Some(words.split([' ', '\n', '/']).find(version)?.to_owned())
}

fn invocation<A: Into<OsString>>(program: impl Into<PathBuf>, arguments: impl IntoIterator<Item = A>) -> Invocation {
    Invocation { program: program.into(), arguments: arguments.into_iter().map(Into::into).collect() }
}

/// Compiles C into a shared library.
///
/// # Errors
/// The compiler's words.
pub fn compile(source: &str, out: &Path, flags: &[&str]) -> Result<(), String> {
    let file = out.with_extension("c");
    fs::write(&file, source).map_err(|error| error.to_string())?;
    let output = std::process::Command::new("cc")
        .args(["-shared", "-fPIC", "-O2", "-I"])
        .arg(tests::compile::include())
        .args(flags)
        .arg("-o")
        .args([out, &file])
        .output()
        .map_err(|error| format!("cc: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}
