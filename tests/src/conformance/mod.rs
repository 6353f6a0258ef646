//! The conformance corpus: exact requests, and what the RFCs let a server answer, for any server with the same small site.
//!
//! 1. `corpus`: the cases, as `tests/conformance/data/` has them, one file for each topic. `text`: how they write bytes.
//! 2. `site`: the files that every server under test serves.
//! 3. `run`: sends a case, reads strictly, and says what was wrong. `expectation`: whether a response is one of those allowed.
//! 4. `rules`: what holds for each response of an origin server, whatever the request was.
//! 5. `peers`: other servers with that site. `report`: the table.

pub mod corpus;
pub mod expectation;
pub mod peers;
pub mod report;
pub mod rules;
pub mod run;
pub mod site;
pub mod text;

pub use corpus::{Case, Topic};
pub use run::Subject;
