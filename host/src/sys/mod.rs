//! Every system call of the host, behind functions that are safe to call.

pub mod files;
