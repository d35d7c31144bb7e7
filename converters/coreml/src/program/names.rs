//! Names in a package: legal, unique, and traceable to the source's.

use crate::is_identifier;
use mlconv_mil::text::Namer;
use std::collections::HashSet;

/// Hands out names that Core ML takes, each once.
#[derive(Debug, Default)]
pub(super) struct Names {
    used: HashSet<String>,
    namer: Namer,
}

impl Names {
    /// A name like `hint` that has not been handed out.
    pub(super) fn unique(&mut self, hint: &str) -> String {
        loop {
            let name = self.namer.unique(hint);
            // Reserved words are skipped; the namer then offers the word with a number.
            if is_identifier(&name) && self.used.insert(name.clone()) {
                return name;
            }
        }
    }
}
