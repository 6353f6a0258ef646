//! What passes an event loop between threads, in every order that the memory model allows.
//!
//! The files of `host` are compiled here as they are, with models of atomics, of time and of futex(2) in place of the real
//! ones (`sync.rs`). `checks/` has small scenarios, each of which loom runs in every interleaving, up to a number of
//! preemptions, and with every value that a weak memory may show. `weaken.rs` then shows that the checks see something: it
//! takes away each guarantee that the files ask for, one at a time, and expects some check to fail.

// loom runs its threads one at a time, and shares what the threads of a program could not.
#![allow(clippy::arc_with_non_send_sync)]

// What only the server calls is not called here.
#[allow(dead_code)]
#[path = "../../../../host/src/sys/inbox.rs"]
mod inbox;
#[allow(dead_code)]
#[path = "../../../../host/src/sys/roster.rs"]
mod roster;
#[allow(dead_code)]
#[path = "../../../../host/src/sys/sleeper.rs"]
mod sleeper;
#[allow(dead_code)]
#[path = "../../../../host/src/sys/token.rs"]
mod token;

mod checks;
mod sync;
mod weaken;
