//! A `host` that belongs to one test: its folders, its process, its log.

mod upgrade;

use crate::client::{self, Client, Response};
use crate::{PATIENCE, Wait, compile, eventually, process};
use rustix::process::{Pid, Signal};
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use upgrade::{number, reaped};

/// Names another `host` to test than the one of this build.
pub const BINARY_VARIABLE: &str = "HOST_TEST_BINARY";

/// What the names of sites' folders begin with.
const PREFIX: &str = "host-test-";

/// A folder with `html/`, `handlers/` and `runtime/`, removed at the end.
#[derive(Debug)]
pub struct Site {
    folder: tempfile::TempDir,
}

impl Site {
    /// An empty site.
    ///
    /// # Panics
    /// The folders cannot be made.
    #[expect(clippy::new_without_default, reason = "it makes folders, which no default should")]
    pub fn new() -> Self {
        let site = Self { folder: tempfile::Builder::new().prefix(PREFIX).tempdir().expect("a temporary folder") };
        for (name, mode) in [("html", 0o755), ("handlers", 0o755), ("runtime", 0o700)] {
            let folder = site.path(name);
            fs::create_dir(&folder).expect("a new folder");
            // Whatever the umask of the test's caller is: a folder that others may write to is refused.
            fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).expect("our own folder");
        }
        site
    }

    /// A path in the site's folder: `html/a.txt`, `handlers/a.so`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes the file `name` of the site's folder, such as `html/a.txt`, with the folders it needs.
    ///
    /// # Panics
    /// It cannot be written.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a name in the folder")).expect("the file's folder");
        fs::write(&path, content).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
        path
    }

    /// Compiles C source into `handlers/NAME.so`, in place.
    ///
    /// # Panics
    /// It does not compile.
    pub fn compile(&self, module: &str, source: &str) -> PathBuf {
        let source = self.write(&format!("sources/{module}.c"), source);
        let out = self.path(&format!("handlers/{module}.so"));
        fs::create_dir_all(out.parent().expect("the folder of handlers")).expect("the module's folder");
        compile::cc(&source, &out, &[]);
        out
    }

    /// `host` with these arguments, in the site's folder, so that `./html` and `./handlers` are the site's. No
    /// `HOST_…` variable of the test's caller reaches it.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.command_by(binary(), arguments)
    }

    /// As [`Site::command`], by another path to the program.
    pub fn command_by(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.folder.path()).args(arguments).stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("HOST_") {
                command.env_remove(name);
            }
        }
        command
    }

    /// Runs `host` with these arguments to its end, which must come by itself.
    ///
    /// # Panics
    /// It does not end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        finish(self.command(arguments))
    }

    /// Starts `host` with these arguments on port 0 and waits until it listens.
    ///
    /// # Panics
    /// It ends, or does not listen, with its log.
    pub fn start(&self, arguments: &[&str]) -> Server {
        let mut command = self.command(&["--bind", "127.0.0.1:0", "--runtime", "runtime"]);
        command.args(arguments);
        Server::start(command)
    }
}

/// Runs `command` to its end, which must come by itself.
///
/// # Panics
/// It cannot be started, or does not end.
pub fn finish(mut command: Command) -> Output {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the command starts");
    // Read while it runs: a full pipe would keep it from ending.
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let stdout = std::thread::spawn(move || read_all(stdout));
    let stderr = std::thread::spawn(move || read_all(stderr));
    let Some(status) = wait(&mut child, PATIENCE) else {
        let _ = child.kill();
        let _ = child.wait();
        panic!("{command:?} does not end");
    };
    let read = |thread: std::thread::JoinHandle<Vec<u8>>| thread.join().expect("the reader of a pipe");
    Output { status, stdout: read(stdout), stderr: read(stderr) }
}

/// A running `host`. Dropped, it is told to stop, and killed if it does not.
#[derive(Debug)]
pub struct Server {
    /// The process that was started.
    child: Child,
    /// The supervisor of now: another process after an upgrade.
    supervisor: u32,
    /// Supervisors before it, besides the first, that have not been seen to end.
    former: Vec<u32>,
    /// An upgrade was asked for: there may be processes that nobody has named.
    has_heirs: bool,
    /// The folder of its site.
    folder: Option<PathBuf>,
    address: SocketAddr,
    log: Arc<Log>,
}

impl Server {
    /// Starts `command` and waits for the line `listening on http://ADDRESS`.
    ///
    /// # Panics
    /// It ends, or does not listen, with its log.
    pub fn start(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let log = Log::follow(child.stderr.take().expect("its standard error is a pipe"));
        // The address is not known yet, but from here on the process has an owner that ends it.
        let folder = command.get_current_dir().and_then(|folder| folder.canonicalize().ok());
        let (supervisor, address) = (child.id(), SocketAddr::from(([0, 0, 0, 0], 0)));
        let mut server = Self { child, supervisor, former: Vec::new(), has_heirs: false, folder, address, log };
        let line = server.wait_for_log("listening on http://", PATIENCE);
        // In a JSON log a quote follows.
        let address = line.split("http://").nth(1).and_then(|rest| rest.split([' ', '"']).next());
        server.address = address.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no address in {line:?}"));
        server
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The supervisor's process id.
    pub fn id(&self) -> u32 {
        self.supervisor
    }

    /// A new connection.
    ///
    /// # Panics
    /// There is none to be had.
    pub fn connect(&self) -> Client {
        Client::connect(self.address).expect("the server accepts")
    }

    /// One GET over a connection of its own.
    ///
    /// # Panics
    /// There is no proper answer.
    pub fn get(&self, path: &str) -> Response {
        client::get(self.address, path).unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// The lines of the log so far.
    pub fn log(&self) -> Vec<String> {
        self.log.state().lines.clone()
    }

    /// How many lines the log has: the place from which [`Server::wait_for_log_since`] looks.
    pub fn mark(&self) -> usize {
        self.log.state().lines.len()
    }

    /// The first line of the whole log with `substring` in it, waited for.
    ///
    /// # Panics
    /// It does not come within `deadline`, or the server ended without it; with the log.
    pub fn wait_for_log(&self, substring: &str, deadline: Duration) -> String {
        self.wait_for_log_since(0, substring, deadline)
    }

    /// As [`Server::wait_for_log`], in the lines from `mark` on.
    ///
    /// # Panics
    /// As there.
    pub fn wait_for_log_since(&self, mark: usize, substring: &str, deadline: Duration) -> String {
        self.log.wait_for(mark, substring, deadline)
    }

    /// Sends a signal to the supervisor.
    ///
    /// # Panics
    /// The process is gone.
    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(number(self.supervisor), signal).expect("the server is running");
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// It does not end, with its log.
    pub fn wait(&mut self) -> ExitStatus {
        if self.supervisor != self.child.id() {
            self.wait_for_former();
            let status = eventually("the server ends", PATIENCE, || reaped(self.supervisor));
            return status.expect("its former supervisor has ended, so it is our child");
        }
        wait(&mut self.child, PATIENCE).unwrap_or_else(|| {
            panic!("the server does not end\n{}\n{}", self.log.text(), process::describe(self.supervisor))
        })
    }

    /// Tells it to stop, and waits for its end.
    ///
    /// # Panics
    /// It does not end, with its log.
    pub fn stop(mut self) -> ExitStatus {
        // The status of a process goes to its parent, which is us once its predecessor is gone.
        self.wait_for_former();
        self.signal(Signal::TERM);
        self.wait()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the server's log:\n{}", self.log.text());
        }
        if let Ok(None) = self.child.try_wait() {
            // Not reaped yet, so the number is still this child's.
            let _ = rustix::process::kill_process(pid(&self.child), Signal::TERM);
            if wait(&mut self.child, Duration::from_secs(5)).is_none() {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        }
        if self.has_heirs {
            self.end_strays();
        }
    }
}

/// The `host` under test: `HOST_TEST_BINARY`, or else the one beside this test's executable, which cargo brings up to
/// date first, since testing this crate alone does not build it.
///
/// # Panics
/// There is none, or it cannot be built.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let path = match std::env::var_os(BINARY_VARIABLE) {
            Some(path) => PathBuf::from(path),
            None => build(),
        };
        assert!(path.is_file(), "no {}; build it with: cargo build -p host", path.display());
        path
    })
}

fn build() -> PathBuf {
    // Tests are target/PROFILE/deps/NAME-0123; other programs, as in bench/, are target/PROFILE/NAME.
    let program = std::env::current_exe().expect("a program knows its own path");
    let folder = program.parent().expect("cargo puts programs into folders");
    let profile =
        if folder.ends_with("deps") { folder.parent().expect("deps is in a profile's folder") } else { folder };
    if let Some(cargo) = std::env::var_os("CARGO") {
        let mut command = Command::new(cargo);
        command.args(["build", "--quiet", "--locked", "--package", "host", "--target-dir"]);
        command.arg(profile.parent().expect("the target folder")).current_dir(crate::repository());
        if profile.ends_with("release") {
            command.arg("--release");
        }
        assert!(command.status().is_ok_and(|status| status.success()), "host does not build: {command:?}");
    }
    profile.join("host")
}

fn pid(child: &Child) -> Pid {
    Pid::from_child(child)
}

fn wait(child: &mut Child, deadline: Duration) -> Option<ExitStatus> {
    let mut wait = Wait::new(deadline);
    loop {
        if let Some(status) = child.try_wait().expect("our own child") {
            return Some(status);
        }
        if wait.left().is_zero() {
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn read_all(pipe: Option<impl std::io::Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        pipe.read_to_end(&mut bytes).expect("a pipe can be read");
    }
    bytes
}

/// What a server has written to its standard error, collected by a thread of its own.
#[derive(Debug, Default)]
struct Log {
    state: Mutex<LogState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct LogState {
    lines: Vec<String>,
    ended: bool,
}

impl Log {
    fn follow(stderr: ChildStderr) -> Arc<Self> {
        let log = Arc::new(Self::default());
        let writer = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).split(b'\n') {
                let Ok(line) = line else { break };
                writer.state().lines.push(String::from_utf8_lossy(&line).into_owned());
                writer.changed.notify_all();
            }
            writer.state().ended = true;
            writer.changed.notify_all();
        });
        log
    }

    fn state(&self) -> std::sync::MutexGuard<'_, LogState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn text(&self) -> String {
        self.state().lines.join("\n")
    }

    fn wait_for(&self, mark: usize, substring: &str, deadline: Duration) -> String {
        let mut wait = Wait::new(deadline);
        let mut state = self.state();
        loop {
            if let Some(line) = state.lines.iter().skip(mark).find(|line| line.contains(substring)) {
                return line.clone();
            }
            let left = wait.left();
            let reason = match state.ended {
                true => "the server ended",
                false => "not in time",
            };
            if state.ended || left.is_zero() {
                // The guard goes first: the server's drop wants the log while this panics.
                let text = state.lines.join("\n");
                drop(state);
                panic!("{reason}, and no {substring:?} in its log:\n{text}");
            }
            state = self.changed.wait_timeout(state, left.min(Wait::STEP)).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(text: &str) -> Command {
        let mut command = Command::new("sh");
        // A pipe that the child keeps open: `cat` has something to wait for.
        command.args(["-c", text]).stdin(Stdio::piped());
        command
    }

    #[test]
    fn a_server_is_followed_and_stopped() {
        let server = Server::start(script(
            "echo before >&2; echo '2026 info listening on http://127.0.0.1:1234' >&2; echo after >&2; exec cat >&2",
        ));
        assert_eq!(server.address(), SocketAddr::from(([127, 0, 0, 1], 1234)));
        server.wait_for_log("after", PATIENCE);
        assert_eq!(server.log()[0], "before");
        let id = server.id();
        drop(server);
        assert_eq!(crate::process::find(id), None);
    }

    #[test]
    #[should_panic(expected = "the server ended, and no \"listening on http://\" in its log:\nwhy")]
    fn a_server_that_ends_says_why() {
        Server::start(script("echo why >&2"));
    }

    #[test]
    fn one_that_ignores_the_signal_is_killed() {
        let server = Server::start(script("trap '' TERM; echo 'listening on http://127.0.0.1:1' >&2; exec cat"));
        let id = server.id();
        drop(server);
        assert_eq!(crate::process::find(id), None);
    }
}
