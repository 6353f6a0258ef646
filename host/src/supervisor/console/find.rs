//! Which running server is meant, and a question to it.

use super::status::Identity;
use super::{Answer, Request, SOCKET};
use crate::supervisor::runtime;
use crate::sys::socket;
use anyhow::{Context, Result, bail};
use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What is said of the server that is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Its process id.
    pub pid: Option<u32>,
    /// Its folder of handlers.
    pub handlers: Option<PathBuf>,
    /// The folder under which it keeps private copies; else those are searched that servers choose.
    pub runtime: Option<PathBuf>,
}

/// A running server.
pub(super) struct Found {
    /// Its folder of private copies.
    pub(super) folder: PathBuf,
    pub(super) identity: Identity,
}

/// The server that is meant: the only one that fits, or, if there are several, the only one that was started in the folder
/// of now.
///
/// # Errors
/// There is none, or there are several; then they are listed.
pub(super) fn find(wanted: &Wanted) -> Result<Found> {
    let bases = wanted.runtime.as_ref().map_or_else(|| runtime::bases().to_vec(), |base| vec![base.clone()]);
    let running = running(&bases)?;
    let handlers = wanted.handlers.as_deref().map(real);
    let fits = |found: &Found| {
        wanted.pid.is_none_or(|pid| pid == found.identity.pid)
            && handlers.as_deref().is_none_or(|handlers| handlers == real(&found.identity.handlers))
    };
    let (mut fitting, others): (Vec<_>, Vec<_>) = running.into_iter().partition(fits);
    if fitting.len() > 1 {
        let here = std::env::current_dir().unwrap_or_default();
        let is_here = |found: &&Found| found.identity.folder == here;
        if fitting.iter().filter(is_here).count() == 1 {
            fitting.retain(|found| is_here(&found));
        }
    }
    match fitting.len() {
        1 => Ok(fitting.remove(0)),
        0 if others.is_empty() => {
            let bases: Vec<_> = bases.iter().map(|base| base.display().to_string()).collect();
            bail!(
                "no running server keeps its folder in {}; one that was started with --runtime DIR is found with it",
                bases.join(" or ")
            )
        }
        0 => bail!("no running server fits; there are:{}", list(&others)),
        _ => bail!("several servers are running; name one with --pid:{}", list(&fitting)),
    }
}

/// The servers that answer, of all that have a folder in one of these.
fn running(bases: &[PathBuf]) -> Result<Vec<Found>> {
    let mut running = Vec::new();
    for base in bases {
        let folders = match runtime::servers(base) {
            Ok(folders) => folders,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| format!("cannot look into {}", base.display())),
        };
        for folder in folders {
            // A dead server leaves its folder until the next one starts.
            let answer = ask(&folder, &Request::Identity, IDENTITY_PATIENCE);
            if let Ok(Answer::Identity(identity)) = answer {
                running.push(Found { folder, identity });
            } else if let Ok(Answer::Error(reason)) = answer {
                bail!("{}: {reason}", folder.display());
            }
        }
    }
    running.sort_by_key(|found| found.identity.pid);
    Ok(running)
}

fn list(servers: &[Found]) -> String {
    let mut text = String::new();
    for Found { identity: Identity { pid, folder, listeners, .. }, .. } in servers {
        // Writing to a String cannot fail.
        _ = write!(text, "\n  --pid {pid}  {}  in {}", listeners.join(", "), folder.display());
    }
    text
}

/// Asks the server whose folder this is.
///
/// # Errors
/// Nobody listens there, or answers.
pub(super) fn ask(folder: &Path, request: &Request, patience: Duration) -> Result<Answer> {
    let owner = std::fs::symlink_metadata(folder)?.uid();
    let folder = socket::Folder::open(folder)?;
    let mut server = UnixStream::connect(folder.path_of(SOCKET)).context("the server does not listen")?;
    let (user, own) = (socket::peer_user(server.as_fd())?, rustix::process::geteuid().as_raw());
    // SECURITY: the folders that are searched lie in folders of everybody. What another user has laid there is no server,
    // nor is it the folder of one.
    if user != own && own != 0 || user != owner {
        bail!("it is a server of user {user}, in a folder of user {owner}");
    }
    server.set_read_timeout(Some(patience))?;
    server.set_write_timeout(Some(patience))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    server.write_all(&line).context("the server does not take the request")?;
    let mut answer = Vec::new();
    server.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).context("the server does not answer")?;
    serde_json::from_slice(&answer).context("the server's answer makes no sense; is it another version of host?")
}

/// With links resolved, if it exists.
fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// A server that says nothing for so long is not counted.
const IDENTITY_PATIENCE: Duration = Duration::from_secs(5);

/// Thousands of modules and a hundred incidents fit.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
