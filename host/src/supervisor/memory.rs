//! The limit on each worker's memory (`--limit-memory`): by a control group for each where this process may make some, else
//! by the worker itself.

use crate::config::values;
use crate::sys::cgroup::{Group, Groups};
use anyhow::Context;

/// The limit.
pub(super) struct MemoryLimit {
    bytes_max: Option<u64>,
    groups: Option<Groups>,
}

/// What one worker has of it.
pub(super) struct Share {
    bytes_max: u64,
    group: Option<Group>,
}

impl MemoryLimit {
    /// Finds out what can enforce it. No child process may have been started yet.
    pub(super) fn new(bytes_max: Option<u64>) -> MemoryLimit {
        let Some(bytes) = bytes_max else { return MemoryLimit { bytes_max, groups: None } };
        let size = values::size(bytes);
        let groups = match Groups::open() {
            Ok(groups) => {
                tracing::debug!("a control group in {} limits each worker to {size}", groups.base().display());
                Some(groups)
            }
            Err(error) => {
                tracing::debug!("RLIMIT_DATA limits the memory of each worker's modules to {size}: {error:#}");
                None
            }
        };
        MemoryLimit { bytes_max, groups }
    }

    /// Limits a process that has been told nothing yet. `number` is never used again.
    ///
    /// # Errors
    /// Its control group cannot be made.
    pub(super) fn share(&self, number: u64, process: u32) -> anyhow::Result<Share> {
        let bytes_max = self.bytes_max.unwrap_or_default();
        let Some(groups) = &self.groups else { return Ok(Share { bytes_max, group: None }) };
        let group = groups.group(number, bytes_max).and_then(|group| group.admit(process).map(|()| group));
        let group = group.with_context(|| format!("cannot make a control group in {}", groups.base().display()))?;
        Ok(Share { bytes_max, group: Some(group) })
    }

    /// To how much a worker has to limit itself.
    pub(super) fn of_worker_itself(&self) -> Option<u64> {
        self.bytes_max.filter(|_| self.groups.is_none())
    }
}

impl Share {
    /// What is told of a worker that was killed because its share was used up.
    pub(super) fn was_used_up(&self) -> Option<String> {
        let used_up = self.group.as_ref().is_some_and(Group::was_used_up);
        used_up.then(|| format!("used up its memory (--limit-memory {}) and was killed", values::size(self.bytes_max)))
    }
}
