//! Other servers, each with the same site and otherwise as it comes: nothing is configured that makes it stricter or laxer.

use super::site;
use crate::eventually;
use rustix::process::{Pid, Signal};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Their names, which are those of Debian's programs.
pub const NAMES: [&str; 5] = ["nginx", "apache2", "lighttpd", "h2o", "caddy"];

/// How long one may take to listen, and to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server of others that runs. Ended when dropped.
#[derive(Debug)]
pub struct Peer {
    /// Where it listens.
    pub address: SocketAddr,
    child: Child,
    // Removed after the process has ended.
    _folder: tempfile::TempDir,
}

impl Peer {
    /// Starts the server of that name, and waits until it listens.
    ///
    /// # Errors
    /// It is not installed, or does not start.
    pub fn start(name: &str) -> io::Result<Peer> {
        let program = installed(name).ok_or_else(|| io::Error::other("not installed"))?;
        let folder = tempfile::Builder::new().prefix("host-conformance-").tempdir()?;
        // A server that gives up root's rights must still reach its files.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        let site = folder.path().join("site");
        site::write(&site)?;
        // Another process may take the port before the server does; then it says so and ends.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let arguments = configure(name, folder.path(), &site, address)?;
        let log = File::create(folder.path().join("log"))?;
        let child = Command::new(program)
            .args(arguments)
            .current_dir(folder.path())
            .env("HOME", folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let mut peer = Peer { address, child, _folder: folder };
        let listens = eventually("the server listens or ends", PATIENCE, || match peer.child.try_wait() {
            Ok(None) => TcpStream::connect(address).is_ok().then_some(true),
            _ => Some(false),
        });
        let words = || fs::read_to_string(peer._folder.path().join("log")).unwrap_or_default();
        if listens { Ok(peer) } else { Err(io::Error::other(format!("it does not start: {}", words().trim()))) }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Until it is waited for, its number is its own. All of them take along what they have started.
        _ = rustix::process::kill_process(Pid::from_child(&self.child), Signal::TERM);
        eventually("the server ends", PATIENCE, || self.child.try_wait().ok().flatten());
    }
}

/// What a server says of its version.
pub fn version(name: &str) -> Option<String> {
    let flag = if name == "caddy" { "version" } else { "-v" };
    let output = Command::new(installed(name)?).arg(flag).output().ok()?;
    let words = [output.stdout, output.stderr].concat();
    let words = String::from_utf8_lossy(&words);
    let is_version = |word: &&str| word.contains('.') && word.starts_with(|c: char| c.is_ascii_digit());
    words.split([' ', '\n', '/']).find(is_version).map(str::to_owned)
}

/// Writes its configuration, and says with which arguments it starts.
fn configure(name: &str, folder: &Path, site: &Path, address: SocketAddr) -> io::Result<Vec<OsString>> {
    let (ip, port) = (address.ip(), address.port());
    let (shown, root) = (folder.display(), site.display());
    let is_root = rustix::process::geteuid().is_root();
    let path = folder.join("configuration");
    let (configuration, arguments): (String, Vec<&str>) = match name {
        "nginx" => (
            format!(
                "{user}daemon off;\nmaster_process off;\npid {shown}/pid;\nerror_log {shown}/error.log;\nevents {{}}\n\
                 http {{\n  types {{ text/html html; text/plain txt; }}\n  access_log off;\n\
                 client_body_temp_path {shown}/body;\n  proxy_temp_path {shown}/proxy;\n\
                 fastcgi_temp_path {shown}/fastcgi;\n  uwsgi_temp_path {shown}/uwsgi;\n  scgi_temp_path {shown}/scgi;\n\
                 server {{ listen {address}; root {root}; }}\n}}\n",
                user = if is_root { "user root;\n" } else { "" },
            ),
            vec!["-c"],
        ),
        "apache2" => {
            let modules = ["mpm_event", "authz_core", "dir", "mime"];
            let load = |name: &str| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n");
            let modules: String = modules.into_iter().map(load).collect();
            (
                format!(
                    "ServerRoot {shown}\nServerName localhost\nListen {address}\nPidFile {shown}/pid\n\
                     ErrorLog {shown}/error.log\n{modules}TypesConfig /dev/null\nAddType text/html html\n\
                     AddType text/plain txt\nMutex file:{shown}\nDocumentRoot {root}\n\
                     <Directory {root}>\n  Require all granted\n</Directory>\n",
                ),
                vec!["-D", "FOREGROUND", "-f"],
            )
        }
        "lighttpd" => (
            format!(
                "server.bind = \"{ip}\"\nserver.port = {port}\nserver.document-root = \"{root}\"\n\
                 server.errorlog = \"{shown}/error.log\"\nserver.upload-dirs = (\"{shown}\")\n\
                 index-file.names = (\"index.html\")\n\
                 mimetype.assign = (\".html\" => \"text/html\", \".txt\" => \"text/plain\")\n",
            ),
            vec!["-D", "-f"],
        ),
        "h2o" => (
            format!(
                "{user}listen:\n  host: {ip}\n  port: {port}\nerror-log: {shown}/error.log\nhosts:\n  default:\n    \
                 paths:\n      /:\n        file.dir: {root}\n",
                user = if is_root { "user: root\n" } else { "" },
            ),
            vec!["-m", "worker", "-c"],
        ),
        "caddy" => (
            format!(
                "{{\n\tadmin off\n\tauto_https off\n\tstorage file_system {shown}/storage\n}}\n\
                 http://:{port} {{\n\tbind {ip}\n\troot * {root}\n\tfile_server\n}}\n",
            ),
            vec!["run", "--adapter", "caddyfile", "--config"],
        ),
        other => return Err(io::Error::other(format!("{other} is none of {}", NAMES.join(", ")))),
    };
    fs::write(&path, configuration)?;
    Ok(arguments.into_iter().map(OsString::from).chain([path.into_os_string()]).collect())
}

/// Where the program is: in `PATH`, or where Debian has servers.
fn installed(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}
