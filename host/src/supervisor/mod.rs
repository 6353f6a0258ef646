//! The process that owns sockets, signals and roll-out. It never loads a module.

pub mod builds;
