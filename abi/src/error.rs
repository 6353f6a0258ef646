//! Why the host could not do what was asked: the negative numbers of `host.h`.

use crate::ffi;
use std::{fmt, io};

/// Why the host could not do what was asked. It travels in [`io::Error`]: see [`io::Error::get_ref`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The client has left.
    Gone,
    /// A time limit passed.
    Timeout,
    /// A size limit passed.
    TooLarge,
    /// Not now: the order of calls is wrong.
    State,
    /// The system failed.
    Io,
    /// An argument, or what the client sent, is wrong.
    Invalid,
    /// A number that a later version of the ABI gave a meaning.
    Other(i32),
}

impl Error {
    pub(crate) fn from_code(code: i64) -> Error {
        match i32::try_from(code).unwrap_or(i32::MIN) {
            ffi::HOST_GONE => Error::Gone,
            ffi::HOST_TIMEOUT => Error::Timeout,
            ffi::HOST_TOO_LARGE => Error::TooLarge,
            ffi::HOST_STATE => Error::State,
            ffi::HOST_IO => Error::Io,
            ffi::HOST_INVALID => Error::Invalid,
            other => Error::Other(other),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Error::Gone => "the client has left",
            Error::Timeout => "a time limit passed",
            Error::TooLarge => "a size limit passed",
            Error::State => "the order of calls is wrong",
            Error::Io => "the system failed",
            Error::Invalid => "an argument, or what the client sent, is wrong",
            Error::Other(code) => return write!(formatter, "the host answered {code}"),
        })
    }
}

impl std::error::Error for Error {}

impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        let kind = match error {
            Error::Gone => io::ErrorKind::ConnectionReset,
            Error::Timeout => io::ErrorKind::TimedOut,
            Error::TooLarge => io::ErrorKind::FileTooLarge,
            Error::Invalid => io::ErrorKind::InvalidData,
            Error::State | Error::Io | Error::Other(_) => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}
