//! The commands for a running server: `host status`, `host rollback`, `host replay`.

use crate::config::Bind;
use crate::config::values::{self, check_module_name};
use crate::supervisor::console::{Command, Wanted};
use anyhow::Result;
use clap::{Args, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;

/// As they are typed.
#[derive(Debug, Subcommand)]
pub(super) enum ServerCommand {
    /// Show a running server's modules, workers and last incidents
    Status {
        #[command(flatten)]
        server: ServerOptions,
        /// For programs
        #[arg(long)]
        json: bool,
    },
    /// Let an older build of a module answer, until a new one comes
    Rollback {
        #[command(flatten)]
        server: ServerOptions,
        /// The module
        #[arg(value_name = "MODULE", value_parser = module_name)]
        module: String,
        /// Which build [default: the one before]
        #[arg(value_name = "GENERATION")]
        generation: Option<u64>,
    },
    /// Send the request of an incident again
    Replay {
        #[command(flatten)]
        server: ServerOptions,
        /// Its number, from the log or host status
        #[arg(value_name = "INCIDENT")]
        incident: u64,
        /// Where to: PORT, IP:PORT, unix:PATH [default: the server]
        #[arg(long, value_name = "ADDR")]
        to: Option<Bind>,
    },
}

/// Which server is meant.
#[derive(Debug, Args)]
pub(super) struct ServerOptions {
    /// The server with this process id
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// The server of this folder of handlers
    #[arg(long, value_name = "DIR")]
    handlers: Option<PathBuf>,
    /// The folder that it was started with as --runtime
    #[arg(long, value_name = "DIR")]
    runtime: Option<PathBuf>,
}

impl ServerCommand {
    /// What is to be done. `HOST_RUNTIME` is what it is for the server.
    pub(super) fn checked(self, environment: &impl Fn(&str) -> Option<OsString>) -> Result<Command> {
        let wanted = |ServerOptions { pid, handlers, runtime }| -> Result<Wanted> {
            let runtime = runtime.or_else(|| environment("HOST_RUNTIME").map(PathBuf::from));
            let absolute = |path: Option<PathBuf>| path.as_deref().map(values::absolute).transpose();
            Ok(Wanted { pid, handlers: absolute(handlers)?, runtime: absolute(runtime)? })
        };
        Ok(match self {
            ServerCommand::Status { server, json } => Command::Status { server: wanted(server)?, json },
            ServerCommand::Rollback { server, module, generation } => {
                Command::Rollback { server: wanted(server)?, module, generation }
            }
            ServerCommand::Replay { server, incident, to } => Command::Replay { server: wanted(server)?, incident, to },
        })
    }
}

fn module_name(name: &str) -> Result<String> {
    check_module_name(name).map(|()| name.to_owned())
}
