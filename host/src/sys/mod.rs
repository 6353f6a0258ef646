//! Every system call that `host` makes itself, behind safe functions.

pub mod allocations;
pub mod attendant;
pub mod channel;
pub mod clock;
pub mod crash;
pub mod epoll;
pub mod exec;
pub mod files;
pub mod inbox;
pub mod lease;
pub mod process;
pub mod roster;
pub mod sleeper;
pub mod socket;
pub mod sync;
pub mod token;
