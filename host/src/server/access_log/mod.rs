//! The access log: one line for each request, when its response is over.
//!
//! 1. When a head has been understood, what the line says of the request is put into the connection's [`Records`], in the
//!    form of the log: the request itself goes on to a handler, and may not come back.
//! 2. When the response is over, the loop's leader completes the line, and puts it behind those of other connections
//!    ([`Lines`]). A response that waits to be sent with those of later requests is not over.
//! 3. Twice a second, or when there are many, the lines go to the worker's writer ([`AccessLog`]), which alone waits for
//!    disks and readers.

mod escape;
mod lines;
mod records;
mod writer;

pub(super) use lines::Lines;
pub(super) use records::{Records, sent_away};
pub use writer::{AccessLog, Ending};
