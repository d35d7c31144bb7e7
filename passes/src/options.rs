//! What a user asks of passes.

use mlconv_mil::{
    ir::{Function, Module, OpId, Value},
    text::Namer,
};
use mlconv_tensor::Tensor;
use std::collections::HashMap;

/// Options of all passes.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Ops that stay in 32-bit precision.
    pub keep_fp32: Vec<Pattern>,
    /// Ops about which to note what rules did with them.
    pub explain: Option<Pattern>,
    /// Edits after which passes stop, to find the one that does harm.
    pub max_edits: Option<usize>,
    /// What a run has shown of the values of the program that the passes are given, by function.
    pub seen: Vec<Seen>,
}

/// The greatest finite magnitude of each value of a function that runs computed in single precision.
#[derive(Clone, Debug, Default)]
pub struct Seen(HashMap<Value, f64>);

impl Seen {
    /// Takes in the elements of `v`, if they are of single precision.
    pub fn add(&mut self, v: Value, t: &Tensor) {
        if let Some(values) = t.view::<f32>() {
            // Magnitudes compare as their bits do.
            let finite = |x: &f32| if x.is_finite() { x.abs().to_bits() } else { 0 };
            let here = f32::from_bits(values.iter().map(finite).fold(0, u32::max));
            let greatest = self.0.entry(v).or_default();
            *greatest = greatest.max(here.into());
        }
    }

    /// The greatest magnitude of `v`; `None` of a value that was not computed.
    pub fn greatest(&self, v: Value) -> Option<f64> {
        self.0.get(&v).copied()
    }
}

/// A pattern over ops: `*` stands for any text, and the rest for itself. It is held against the op's type, the names of
/// its results, as the source or as a package has them, and the names and modules of the source nodes that it comes from.
/// `name=NAME` means the ops whose result or node has just that name, in which `*` is itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// A pattern from its text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The pattern of the ops whose result or node is called `name`.
    pub fn named(name: &str) -> Self {
        Self(format!("{NAMED}{name}"))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `text` is of this form.
    pub fn matches_text(&self, text: &str) -> bool {
        let mut parts = self.0.split('*');
        let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or("")) else { return false };
        let mut parts = parts.peekable();
        if parts.peek().is_none() {
            return rest.is_empty();
        }
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return rest.ends_with(part);
            }
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        true
    }

    /// Whether the op computes something and is meant.
    pub fn means(&self, module: &Module, f: &Function, id: OpId) -> bool {
        f.op_data(id).op.name() != "const" && self.matches(module, f, id)
    }

    /// Whether the op is meant.
    pub fn matches(&self, module: &Module, f: &Function, id: OpId) -> bool {
        let data = f.op_data(id);
        let sources = data.origin.map(|o| module.origins.sources(o)).unwrap_or_default();
        if let Some(name) = self.0.strip_prefix(NAMED) {
            let is = |own: &str| own == name || *Namer::legal(own) == *name;
            return data.results.iter().any(|v| is(&f.value(*v).hint)) || sources.iter().any(|s| is(&s.node));
        }
        let is_name = |own: &str| self.matches_text(own) || self.matches_text(&Namer::legal(own));
        self.matches_text(data.op.name())
            || data.results.iter().any(|v| is_name(&f.value(*v).hint))
            || sources.iter().any(|s| {
                is_name(&s.node) || self.matches_text(&s.op) || (!s.module.is_empty() && self.matches_text(&s.module))
            })
    }
}

/// What a pattern of one name begins with.
const NAMED: &str = "name=";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_text() {
        for (pattern, text, want) in [
            ("softmax", "softmax", true),
            ("softmax", "softmax_1", false),
            ("*norm*", "layer_norm_3", true),
            ("encoder.*.attn", "encoder.3.attn", true),
            ("encoder.*.attn", "encoder.3.mlp", false),
            ("*", "", true),
            ("a*a", "a", false),
        ] {
            assert_eq!(Pattern::new(pattern).matches_text(text), want, "{pattern} {text}");
        }
    }
}
