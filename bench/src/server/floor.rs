//! The floor as one of the servers: this program under another command.

use super::{Invocation, Offer, Page, Recipe, Setting, invocation, offer};
use std::io;
use std::path::{Path, PathBuf};

/// What [`crate::floor`] serves.
#[derive(Debug)]
pub struct Floor {
    /// This program.
    pub bench: PathBuf,
}

impl Recipe for Floor {
    fn name(&self) -> &str {
        "floor"
    }

    fn build(&mut self, _: &Path) -> Result<(), String> {
        Ok(())
    }

    fn offer(&self, page: Page) -> Result<Offer, &'static str> {
        match page {
            Page::Hello => Ok(offer("/")),
            _ => Err("has a constant only"),
        }
    }

    fn parses(&self) -> bool {
        false
    }

    fn prepare(&self, setting: Setting<'_>) -> io::Result<Invocation> {
        let address = setting.address.to_string();
        let mut arguments = vec!["floor", "--address", &address];
        if setting.close {
            arguments.push("--close");
        }
        Ok(invocation(&self.bench, arguments))
    }
}
