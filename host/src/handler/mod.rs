//! Modules: what a build is made of, how it is loaded, and whether it may be.

pub mod check;
pub mod elf;
pub mod library;
pub mod needed;
