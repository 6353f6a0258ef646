//! What the process tells its caller when it ends.

use std::process::ExitCode;

/// Exit codes of `host`. Scripts and service managers depend on the numbers: they never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done, or stopped as asked.
    Success = 0,
    /// Something failed at run time.
    Failure = 1,
    /// The command line, the environment or the configuration file is wrong.
    Usage = 2,
    /// A worker cannot start.
    Worker = 3,
    /// The root application cannot be loaded.
    RootApplication = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
