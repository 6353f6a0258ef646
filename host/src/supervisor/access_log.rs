//! The access log's file: opened here, where a mistake can still be refused, and given to the workers, so that all of them
//! go over to another at once (USR1), and need no right to open it.

use super::Supervisor;
use super::admission;
use crate::config::{Config, LogFile};
use crate::sys::sink;
use anyhow::{Context, anyhow};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Opens what the configuration names, if it names any.
///
/// # Errors
/// It cannot be opened, or everybody could read it; and what to do.
pub(super) fn open(config: &Config) -> anyhow::Result<Option<OwnedFd>> {
    let Some(file) = &config.access_log else { return Ok(None) };
    let opened = match file {
        LogFile::Output => std::io::stdout().as_fd().try_clone_to_owned().context("cannot use the standard output")?,
        LogFile::Path(path) => {
            admission::not_served(path, config.html.as_deref(), &config.handlers)?;
            open_path(path)?
        }
    };
    Ok(Some(opened))
}

fn open_path(path: &Path) -> anyhow::Result<OwnedFd> {
    sink::open(path).map_err(|error| {
        let file = path.display();
        match error {
            Errno::NOENT => anyhow!("--access-log: no folder for {file}; create it"),
            Errno::NOTDIR => anyhow!("--access-log: {file} would be in something that is no folder; name another file"),
            Errno::ISDIR => anyhow!("--access-log: {file} is a folder; name a file in it"),
            Errno::ACCESS | Errno::PERM | Errno::ROFS => {
                anyhow!("--access-log: {file} may not be written ({error}); name another file, or allow it")
            }
            Errno::NXIO => anyhow!("--access-log: {file} is a socket, or a FIFO that nobody reads; name a file"),
            error => anyhow!("--access-log: cannot open {file}: {error}; name another file"),
        }
    })
}

impl Supervisor {
    /// USR1.
    pub(super) fn reopen_access_log(&mut self) {
        if let Some(heir) = &mut self.heir {
            heir.reopen_access_log();
        }
        let name = match &self.config.access_log {
            Some(LogFile::Path(path)) => path.display(),
            Some(LogFile::Output) => {
                return tracing::info!("the access log goes to the standard output; nothing to open");
            }
            None => return tracing::info!("there is no access log to open anew (--access-log)"),
        };
        match open(&self.config).and_then(|opened| self.crew.change_access_log(opened)) {
            Ok(()) => tracing::info!("opened the access log anew: {name}"),
            Err(error) => tracing::error!("{error:#}; going on with the access log that was open"),
        }
    }
}
