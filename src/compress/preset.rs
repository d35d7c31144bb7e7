//! Schemes by name.

use super::{Rule, Selector};
use crate::{Diagnostic, codes};
use mlconv_passes::compress::Scheme;

/// A scheme for all weights that has a name.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// The name.
    pub name: &'static str,
    /// The scheme, as text.
    pub scheme: &'static str,
    /// What it is for.
    pub doc: &'static str,
}

/// The preset that holds activations in 8 bits as well.
pub const W8A8: &str = "w8a8";

/// All presets.
pub const PRESETS: &[Preset] = &[
    Preset { name: "int8", scheme: "int8", doc: "8-bit integers, a scale per output channel: nearly no loss" },
    Preset { name: W8A8, scheme: "int8", doc: "int8, and activations as 8-bit integers, from samples" },
    Preset { name: "int8-mse", scheme: "int8-mse", doc: "int8 with scales of least squared error" },
    Preset { name: "int4-b32", scheme: "int4-b32", doc: "4-bit integers, a scale per 32 input channels" },
    Preset { name: "int4-b32-mse", scheme: "int4-b32-mse", doc: "int4-b32 with scales of least squared error" },
    Preset { name: "uint4-b32", scheme: "uint4-b32", doc: "4-bit integers with offsets, per 32 input channels" },
    Preset { name: "pal8", scheme: "pal8", doc: "tables of 256 entries" },
    Preset { name: "pal6", scheme: "pal6", doc: "tables of 64 entries" },
    Preset { name: "pal4", scheme: "pal4", doc: "tables of 16 entries" },
    Preset { name: "pal4-g16", scheme: "pal4-g16", doc: "tables of 16 entries, one per 16 output channels" },
    Preset { name: "pal6-g16", scheme: "pal6-g16", doc: "tables of 64 entries, one per 16 output channels" },
    Preset { name: "pal3-g16", scheme: "pal3-g16", doc: "tables of 8 entries, one per 16 output channels" },
    Preset { name: "pal2-g8", scheme: "pal2-g8", doc: "tables of 4 entries, one per 8 output channels" },
    Preset { name: "pal4-v2", scheme: "pal4-v2", doc: "tables of 16 pairs: 2 bits a weight" },
    Preset { name: "prune50", scheme: "prune50", doc: "the smaller half of the weights dropped" },
    Preset { name: "prune75", scheme: "prune75", doc: "the smallest three quarters of the weights dropped" },
    Preset { name: "prune50-int8", scheme: "prune50+int8", doc: "half dropped, the rest 8-bit integers" },
    Preset { name: "prune50-pal4", scheme: "prune50+pal4", doc: "half dropped, the rest from tables of 16 entries" },
];

/// The bits per weight that a preset such as `mixed-4.5bpw` names.
pub fn mixed(text: &str) -> Option<f64> {
    let bits = text.strip_prefix("mixed-")?.strip_suffix("bpw")?;
    bits.parse().ok().filter(|b: &f64| b.is_finite() && *b > 0.0)
}

/// The rules of the preset, or of the scheme, that `text` names.
pub fn rules(text: &str) -> Result<Vec<Rule>, Diagnostic> {
    let scheme = PRESETS.iter().find(|p| p.name == text).map_or(text, |p| p.scheme);
    let scheme = Scheme::parse(scheme).map_err(|e| {
        let names: Vec<&str> = PRESETS.iter().map(|p| p.name).collect();
        Diagnostic::error(&codes::L0001, format!("--preset {e}"))
            .help(format!("presets are {}, and mixed-4.5bpw with any number", names.join(", ")))
    })?;
    Ok(vec![Rule { selector: Selector::All, scheme, text: format!("--preset {text}") }])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_schemes() {
        for p in PRESETS {
            assert!(Scheme::parse(p.scheme).is_ok(), "{}", p.name);
        }
    }
}
