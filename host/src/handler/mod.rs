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
mod keeper;
mod keeping;
pub mod library;
pub mod needed;
mod registry;
mod state;

pub use call::{Answer, NoTicket, Reservation, Ticket, answer};
pub use exchange::excerpt;
pub use generation::{Generation, Loadable, Retired, retire};
pub use keeper::{Errand, News, NotTaken, What, keep};
pub use registry::{Place, Registry};
pub use state::Saved;
