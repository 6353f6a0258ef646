//! The workspaces of one loop that nobody uses now.

use super::connection::{Connection, Line, Workspace};

/// Workspaces, by pointer: they go from connection to connection.
#[derive(Default)]
#[expect(clippy::vec_box)]
pub(super) struct Spaces(Vec<Box<Workspace>>);

impl Spaces {
    /// A connection that rested goes on, with the workspace that was used last: it is warm.
    pub(super) fn wake(&mut self, line: Box<Line>) -> Connection {
        Connection { line, space: self.0.pop().unwrap_or_default() }
    }

    /// Keeps a workspace for another connection.
    pub(super) fn give_back(&mut self, space: Box<Workspace>) {
        if self.0.len() < SPACES_MAX {
            self.0.push(space);
        }
    }
}

/// Workspaces that are kept while nobody uses them.
const SPACES_MAX: usize = 32;
