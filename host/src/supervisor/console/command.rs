//! `host status`, `host rollback` and `host replay`.

use super::find::{self, Wanted};
use super::{Answer, Request, replay};
use crate::config::Bind;
use crate::exit::Exit;
use anyhow::{Result, bail};
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

/// What is to be done, and with which server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `host status`
    Status {
        /// Of which server.
        server: Wanted,
        /// For a program.
        json: bool,
    },
    /// `host rollback MODULE [GENERATION]`
    Rollback {
        /// In which server.
        server: Wanted,
        /// The module's name.
        module: String,
        /// The build that is to answer; none is the one before that of now.
        generation: Option<u64>,
    },
    /// `host replay INCIDENT`
    Replay {
        /// Whose incident.
        server: Wanted,
        /// Its number.
        incident: u64,
        /// Where the request goes; none is the server's first listener.
        to: Option<Bind>,
    },
}

/// Does it, and says how to exit.
pub fn run(command: &Command) -> ExitCode {
    let done = match command {
        Command::Status { server, json } => status(server, *json),
        Command::Rollback { server, module, generation } => rollback(server, module, *generation),
        Command::Replay { server, incident, to } => replay::replay(server, *incident, to.as_ref()),
    };
    match done {
        Ok(exit) => exit.into(),
        Err(error) => {
            // A closed standard error leaves nobody to tell.
            _ = writeln!(io::stderr(), "error: {error:#}");
            Exit::Failure.into()
        }
    }
}

fn status(server: &Wanted, json: bool) -> Result<Exit> {
    let found = find::find(server)?;
    match find::ask(&found.folder, &Request::Status, PATIENCE)? {
        Answer::Status(status) if json => print(&format!("{}\n", serde_json::to_string_pretty(&status)?)),
        Answer::Status(status) => print(&status.table()),
        answer => return unexpected(answer),
    }
    Ok(Exit::Success)
}

fn rollback(server: &Wanted, module: &str, generation: Option<u64>) -> Result<Exit> {
    let found = find::find(server)?;
    let request = Request::Rollback { module: module.to_owned(), generation };
    match find::ask(&found.folder, &request, PATIENCE)? {
        Answer::RolledBack { module, generation, from } => {
            let instead = from.map(|from| format!(", instead of {from}")).unwrap_or_default();
            print(&format!("{module}: generation {generation} answers{instead}\n"));
        }
        answer => return unexpected(answer),
    }
    Ok(Exit::Success)
}

fn unexpected(answer: Answer) -> Result<Exit> {
    match answer {
        Answer::Error(reason) => bail!(reason),
        _ => bail!("the server answers something else; is it another version of host?"),
    }
}

/// For people, or for a program that may have seen enough.
fn print(text: &str) {
    _ = io::stdout().write_all(text.as_bytes());
}

/// Longer than the server waits for its workers.
const PATIENCE: Duration = Duration::from_secs(40);
