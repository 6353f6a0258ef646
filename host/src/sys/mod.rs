//! Every system call that needs `unsafe`, or more than one line, behind a safe function.

pub mod exec;
