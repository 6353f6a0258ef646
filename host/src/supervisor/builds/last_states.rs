//! What was last saved of the state of each module, for the checkers of new builds to try.

use arc_swap::ArcSwap;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// The states, shared by whoever has a clone of this.
#[derive(Clone, Debug, Default)]
pub struct LastStates(Arc<ArcSwap<BTreeMap<String, Arc<OwnedFd>>>>);

impl LastStates {
    /// Keeps this file as the state of a module. It is replaced by one writer only.
    pub fn keep(&self, module: &str, state: Arc<OwnedFd>) {
        let mut states = BTreeMap::clone(&self.0.load());
        states.insert(module.to_owned(), state);
        self.0.store(Arc::new(states));
    }

    /// There is none of this module that could be used.
    pub fn forget(&self, module: &str) {
        let mut states = BTreeMap::clone(&self.0.load());
        states.remove(module);
        self.0.store(Arc::new(states));
    }

    /// The state of a module.
    pub fn of(&self, module: &str) -> Option<Arc<OwnedFd>> {
        self.0.load().get(module).cloned()
    }
}
