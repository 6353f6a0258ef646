//! Every system call that `host` makes itself, behind safe functions.

pub mod allocations;
pub mod attendant;
pub mod cgroup;
pub mod channel;
pub mod clock;
pub mod crash;
pub mod deposit;
pub mod epoll;
pub mod exec;
pub mod files;
pub mod inbox;
pub mod lease;
pub mod manager;
pub mod memory;
pub mod mounts;
pub mod process;
pub mod program;
pub mod recorder;
pub mod roster;
pub mod sleeper;
pub mod socket;
pub mod sync;
pub mod token;
