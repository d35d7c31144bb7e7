//! Unique, legal names from hints.

use std::collections::{HashMap, HashSet};

/// Hands out names of letters, digits and underscores, each once.
#[derive(Debug, Default)]
pub struct Namer {
    used: HashSet<String>,
    next: HashMap<String, u32>,
}

impl Namer {
    /// A namer that never returns one of `reserved`.
    pub fn reserving<S: Into<String>>(reserved: impl IntoIterator<Item = S>) -> Self {
        Self { used: reserved.into_iter().map(Into::into).collect(), next: HashMap::new() }
    }

    /// `hint` made legal; it may be taken.
    pub fn legal(hint: &str) -> String {
        let mut name: String =
            hint.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect();
        if !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            name.insert(0, 'v');
        }
        name
    }

    /// A name like `hint` that has not been handed out.
    pub fn unique(&mut self, hint: &str) -> String {
        let base = Self::legal(if hint.is_empty() { "v" } else { hint });
        if self.used.insert(base.clone()) {
            return base;
        }
        let next = self.next.entry(base.clone()).or_insert(0);
        loop {
            let name = format!("{base}_{next}");
            *next += 1;
            if self.used.insert(name.clone()) {
                return name;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_legal_and_unique() {
        let mut n = Namer::reserving(["a"]);
        let got: Vec<_> = ["a", "a", "/l.0/x", "1", "", "a_0"].map(|h| n.unique(h)).into();
        assert_eq!(got, ["a_0", "a_1", "_l_0_x", "v1", "v", "a_0_0"]);
    }
}
