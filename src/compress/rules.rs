//! Which weight gets which scheme.

use super::Config;
use crate::{Diagnostic, codes};
use mlconv_passes::compress::{Scheme, Weight};
use regex::Regex;

/// Weights that are meant, and what is to become of them.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Which weights.
    pub selector: Selector,
    /// What becomes of them; [`Scheme::is_none`] leaves them alone.
    pub scheme: Scheme,
    /// As the user wrote it, for messages.
    pub text: String,
}

/// Which weights a rule is about.
#[derive(Clone, Debug)]
pub enum Selector {
    /// All of them.
    All,
    /// Those that ops of this type read.
    OpType(String),
    /// The one of this name, or those that the op or source node of this name reads.
    Name(String),
    /// Those whose name, or the name of a source node or module that reads them, matches.
    Pattern(Regex),
}

/// What is to become of a weight.
#[derive(Clone, Debug)]
pub struct Assigned {
    /// The scheme.
    pub scheme: Scheme,
    /// The rule that says so.
    pub rule: String,
    /// Whether the rule means this weight, and not all of a kind.
    pub named: bool,
    /// Why the rule leaves this weight alone after all.
    pub left: Option<String>,
    /// Whether a configuration file says so, which has thresholds of its own.
    pub by_config: bool,
}

impl Selector {
    /// Whether a weight is meant.
    pub fn matches(&self, w: &Weight) -> bool {
        match self {
            Self::All => true,
            Self::OpType(t) => w.readers.iter().any(|r| r.op == t),
            Self::Name(name) => {
                w.name == *name || w.sources.contains(name) || w.readers.iter().any(|r| r.names.contains(name))
            }
            Self::Pattern(p) => p.is_match(&w.name) || w.sources.iter().any(|s| p.is_match(s)),
        }
    }

    fn is_named(&self) -> bool {
        matches!(self, Self::Name(_) | Self::Pattern(_))
    }
}

impl Rule {
    /// From `REGEX=SCHEME`.
    pub fn parse(text: &str) -> Result<Self, Diagnostic> {
        let bad = |why: String| Diagnostic::error(&codes::L0001, format!("--tensor {text}: {why}"));
        // A pattern may hold `=` itself, a scheme may not.
        let (pattern, scheme) =
            text.rsplit_once('=').ok_or_else(|| bad("wanted REGEX=SCHEME, such as `lm_head=int8`".to_owned()))?;
        Self::new(pattern, scheme).map_err(bad)
    }

    /// Of a regular expression and a scheme; an error says in words which of them is none.
    pub fn new(pattern: &str, scheme: &str) -> Result<Self, String> {
        let regex = Regex::new(pattern).map_err(|e| {
            let line = e.to_string();
            format!(
                "`{pattern}` is no regular expression: {}",
                line.lines().last().unwrap_or_default().trim().trim_start_matches("error: ")
            )
        })?;
        let parsed = Scheme::parse(scheme).map_err(|e| e.to_string())?;
        Ok(Self { selector: Selector::Pattern(regex), scheme: parsed, text: format!("{pattern}={scheme}") })
    }
}

/// What becomes of each of `weights`: the last rule that matches counts, and where there is none, `config`. A rule by name
/// or pattern that matches nothing is an error.
pub fn assign(
    weights: &[Weight],
    config: Option<&Config>,
    rules: &[Rule],
) -> Result<Vec<Option<Assigned>>, Diagnostic> {
    for rule in rules.iter().filter(|r| r.selector.is_named()) {
        if !weights.iter().any(|w| rule.selector.matches(w)) {
            let names: Vec<&str> = weights.iter().filter(|w| w.role.is_ok()).map(|w| w.name.as_str()).take(8).collect();
            let d = Diagnostic::error(&codes::C0001, format!("`{}` matches no weight", rule.text));
            let known = if names.is_empty() {
                "the model has none".to_owned()
            } else {
                format!("weights are {}", names.join(", "))
            };
            return Err(d.help(known));
        }
    }
    let one = |w: &Weight| {
        let Some(rule) = rules.iter().rev().find(|r| r.selector.matches(w)) else {
            return config.map_or(Ok(None), |c| c.assign(w));
        };
        let (scheme, rule, named) = (rule.scheme.clone(), rule.text.clone(), rule.selector.is_named());
        Ok(Some(Assigned { scheme, rule, named, left: None, by_config: false }))
    };
    weights.iter().map(one).collect()
}
