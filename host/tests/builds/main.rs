//! Builds, from the compiler's last write to the notice: real compilers, real files, real checker processes.

mod changes;
mod command;
mod libraries;
mod refusals;
mod stage;
