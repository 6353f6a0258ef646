//! Every system call that `host` makes itself, behind safe functions.

pub mod channel;
pub mod epoll;
pub mod exec;
pub mod files;
pub mod inbox;
pub mod lease;
pub mod process;
pub mod socket;
pub mod token;
