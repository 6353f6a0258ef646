//! Measurements of host: what they share, and the comparison with other servers.
//!
//! The comparison ([`comparison`]) starts each server as its [`server`] recipe says, has a client ask ([`load`]), and reads
//! what it has cost from /proc ([`accounting`]). What comes out are [`reading`]s, shown as [`table`]s and held
//! against [`goals`].

pub mod accounting;
pub mod build;
pub mod case;
pub mod client;
pub mod comparison;
pub mod floor;
pub mod generations;
pub mod goals;
pub mod histogram;
pub mod launch;
pub mod load;
pub mod machine;
pub mod network;
pub mod options;
pub mod process;
pub mod reading;
pub mod sample;
pub mod server;
pub mod start;
pub mod table;
pub mod trial;
pub mod vitals;

pub use sample::Sample;
