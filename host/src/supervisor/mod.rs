//! The process that owns sockets, signals, the watcher and roll-out. It never loads a module.

pub mod admission;
pub mod runtime;
