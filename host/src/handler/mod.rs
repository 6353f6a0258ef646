//! Handlers: loading the shared libraries that have them, and calling them.

mod arena;
mod body;
mod call;
pub mod check;
pub mod elf;
mod environ;
mod exchange;
mod foreign;
mod generation;
pub mod library;
pub mod needed;
mod registry;

pub use call::{Answer, NoTicket, Ticket, answer};
pub use exchange::excerpt;
pub use generation::{Generation, Loadable, Retired, retire};
pub use registry::{Place, Registry};
