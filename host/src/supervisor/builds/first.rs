//! The first look: what was found, and which of it has not had its notice yet.

use super::Found;
use super::lookup::Candidate;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The state of the first look until each of its modules has had its notice.
pub struct FirstLook {
    /// Modules without a notice.
    pub awaited: BTreeSet<String>,
    /// Everything that was found.
    pub found: Vec<Found>,
    /// Refused files without an application, which may turn out to be libraries of other modules.
    pub doubtful: Vec<Refusal>,
    /// When files that are being written are no longer waited for.
    pub deadline: Instant,
}

/// A refused build.
pub struct Refusal {
    /// The module.
    pub module: String,
    /// The user's file.
    pub file: PathBuf,
    /// Why, in words that follow the file's name.
    pub reason: String,
}

/// How long the first look waits for files that are being written.
const PATIENCE: Duration = Duration::from_secs(2);

impl FirstLook {
    /// Begins with what was found.
    pub fn new(candidates: &BTreeMap<String, Candidate>) -> FirstLook {
        let found = candidates.iter().map(|(module, candidate)| {
            let (file, note) = match candidate {
                Candidate::File { path, note } => (Some(path.clone()), note.clone()),
                Candidate::NotBuilt { .. } => (None, String::new()),
            };
            Found { module: module.clone(), file, note }
        });
        FirstLook {
            awaited: candidates.keys().cloned().collect(),
            found: found.collect(),
            doubtful: Vec::new(),
            deadline: Instant::now() + PATIENCE,
        }
    }

    /// Defers a refusal until it is known whether the file is a module at all.
    pub fn defer(&mut self, refusal: Refusal) {
        self.awaited.remove(&refusal.module);
        self.doubtful.push(refusal);
    }
}
