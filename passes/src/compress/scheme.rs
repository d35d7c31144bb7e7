//! What is to become of a weight, and the short text that says it: `int4-b32`, `pal4-g16`, `prune50+int8`.

use mlconv_tensor::DType;
use std::fmt;

/// How a weight is stored: pruned, coded in fewer bits, or both.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scheme {
    /// Which elements are dropped.
    pub prune: Option<Prune>,
    /// How those that stay are coded.
    pub code: Option<Code>,
}

/// Which elements of a weight are dropped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Prune {
    /// The smallest, in magnitude: this part of all, in `0..1`.
    Sparsity(f64),
    /// Those of at most this magnitude.
    Threshold(f64),
    /// All but the `n` greatest of every `m` channels.
    NofM {
        /// How many stay.
        n: usize,
        /// Of how many.
        m: usize,
        /// Which channels; most often the input's.
        along: Along,
    },
    /// The weakest blocks of `size` channels: this part of all, in `0..1`.
    Block {
        /// The part.
        sparsity: f64,
        /// Channels in a block.
        size: usize,
        /// Which channels; most often the output's.
        along: Along,
    },
}

/// Channels of one of the two kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Along {
    /// Those of the result.
    Output,
    /// Those that a product sums over.
    Input,
}

/// How elements are coded.
#[derive(Clone, Debug, PartialEq)]
pub enum Code {
    /// As integers on a scale.
    Linear(Linear),
    /// As entries of a table.
    Palette(Palette),
}

/// Integers on a scale.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    /// `I8`, `U8`, `I4` or `U4`.
    pub dtype: DType,
    /// Whether zero is coded as the middle, without an offset.
    pub symmetric: bool,
    /// What shares a scale.
    pub share: Share,
    /// How the range is found.
    pub range: Range,
}

/// What shares a scale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Share {
    /// The whole tensor.
    Tensor,
    /// An output channel.
    Channel,
    /// So many input channels of an output channel.
    Block(usize),
    /// Blocks of these sizes along every axis; 0 is all of the axis.
    Blocks(Vec<usize>),
}

/// How the range of a scale is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// From the least to the greatest element.
    MinMax,
    /// Where the squared error is least.
    Mse,
}

/// A table of entries.
#[derive(Clone, Debug, PartialEq)]
pub struct Palette {
    /// 1, 2, 3, 4, 6 or 8; `None` takes as many as the distinct elements need.
    pub bits: Option<u8>,
    /// Where the entries come from.
    pub entries: Entries,
    /// Channels that share a table; `None` is the whole tensor.
    pub group: Option<usize>,
    /// Whether groups lie along the input channels.
    pub input_groups: bool,
    /// The axis along which groups and vectors lie, where it is not that of the channels.
    pub channel_axis: Option<usize>,
    /// Elements of an entry, which lie along the output channels.
    pub vector: usize,
    /// Whether each output channel has a scale of its own beside the table.
    pub channel_scale: bool,
    /// `I8` or `U8`: entries are stored so, on a scale.
    pub lut_dtype: Option<DType>,
}

/// Where the entries of a table come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Entries {
    /// Those of the least squared error.
    KMeans,
    /// Evenly spaced between the least and the greatest element.
    Uniform,
    /// The distinct elements themselves.
    Unique,
    /// These.
    Custom(Vec<f32>),
}

impl Default for Palette {
    fn default() -> Self {
        Self {
            bits: Some(4),
            entries: Entries::KMeans,
            group: None,
            input_groups: false,
            channel_axis: None,
            vector: 1,
            channel_scale: false,
            lut_dtype: None,
        }
    }
}

impl Default for Linear {
    fn default() -> Self {
        Self { dtype: DType::I8, symmetric: true, share: Share::Channel, range: Range::MinMax }
    }
}

/// Numbers of bits that an index may have.
pub const PALETTE_BITS: [u8; 6] = [1, 2, 3, 4, 6, 8];

/// Why a text is no scheme.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no scheme: {why}")]
pub struct SchemeError {
    /// The text.
    pub text: String,
    /// What is wrong with it, and what would be right.
    pub why: String,
}

const FORMS: &str = "schemes are int8, uint8, int4 or uint4 (with -tensor, -bN, -asym, -mse), pal1 to pal8 (with -gN, -in, \
     -axisN, -vN, -scale, -lut8, -uniform, -unique), pruneN, pruneN:M or prune-tX, joined by `+`, and `none`";

impl Scheme {
    /// Nothing is done.
    pub fn is_none(&self) -> bool {
        self.prune.is_none() && self.code.is_none()
    }

    /// Reads a scheme: parts joined by `+`, each with options behind dashes.
    pub fn parse(text: &str) -> Result<Self, SchemeError> {
        let fail = |why: String| SchemeError { text: text.to_owned(), why };
        let mut scheme = Self::default();
        if text == "none" {
            return Ok(scheme);
        }
        for part in text.split('+') {
            let mut words = part.split('-');
            let head = words.next().unwrap_or_default();
            let rest: Vec<&str> = words.collect();
            if let Some(amount) = head.strip_prefix("prune") {
                let prune = parse_prune(amount, &rest).map_err(fail)?;
                if scheme.prune.replace(prune).is_some() || scheme.code.is_some() {
                    return Err(fail("pruning comes once, and first".to_owned()));
                }
                continue;
            }
            let code = match head {
                _ if head.starts_with("pal") => Code::Palette(parse_palette(&head[3..], &rest).map_err(fail)?),
                "int8" | "uint8" | "int4" | "uint4" => Code::Linear(parse_linear(head, &rest).map_err(fail)?),
                _ => return Err(fail(FORMS.to_owned())),
            };
            if scheme.code.replace(code).is_some() {
                return Err(fail("a weight is coded once".to_owned()));
            }
        }
        if scheme.prune.is_some() && matches!(&scheme.code, Some(Code::Palette(p)) if p.vector > 1) {
            let why = "a mask is one of elements, so a pruned weight has no vectors; leave out the pruning or -vN";
            return Err(fail(why.to_owned()));
        }
        Ok(scheme)
    }
}

/// Refuses two options that say the same thing.
fn once(what: &str, options: &[&str], says: impl Fn(&str) -> bool) -> Result<(), String> {
    let said: Vec<String> = options.iter().filter(|o| says(o)).map(|o| format!("`-{o}`")).collect();
    if said.len() > 1 { Err(format!("{} each say {what}; leave one", said.join(" and "))) } else { Ok(()) }
}

/// Whether an option is a letter and a number.
fn numbered(option: &str, letter: char) -> bool {
    option.strip_prefix(letter).is_some_and(|n| number::<usize>(n).is_some())
}

fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

fn parse_prune(amount: &str, rest: &[&str]) -> Result<Prune, String> {
    let wrong = || {
        "pruning is a part in percent (prune50), in blocks (prune50-b4), a pattern (prune2:4) or a magnitude (prune-t0.01); \
         -in and -out choose the channels of blocks and patterns"
            .to_owned()
    };
    let (rest, along) = match rest {
        [rest @ .., "in"] => (rest, Some(Along::Input)),
        [rest @ .., "out"] => (rest, Some(Along::Output)),
        rest => (rest, None),
    };
    if let Some((n, m)) = amount.split_once(':') {
        let (n, m) = number(n).zip(number(m)).filter(|(n, m)| 0 < *n && n < m && rest.is_empty()).ok_or_else(wrong)?;
        return Ok(Prune::NofM { n, m, along: along.unwrap_or(Along::Input) });
    }
    if amount.is_empty() {
        // An exponent has a dash of its own.
        let threshold = rest.join("-").strip_prefix('t').and_then(number::<f64>);
        return threshold
            .filter(|t| t.is_finite() && *t >= 0.0 && along.is_none())
            .map(Prune::Threshold)
            .ok_or_else(wrong);
    }
    let percent: f64 = number(amount).filter(|p| *p > 0.0 && *p < 100.0).ok_or_else(wrong)?;
    match rest {
        [] if along.is_none() => Ok(Prune::Sparsity(percent / 100.0)),
        [size] => match size.strip_prefix('b').and_then(number).filter(|b| *b > 1) {
            Some(size) => Ok(Prune::Block { sparsity: percent / 100.0, size, along: along.unwrap_or(Along::Output) }),
            None => Err(wrong()),
        },
        _ => Err(wrong()),
    }
}

fn parse_linear(head: &str, rest: &[&str]) -> Result<Linear, String> {
    let dtype = match head {
        "int8" => DType::I8,
        "uint8" => DType::U8,
        "int4" => DType::I4,
        _ => DType::U4,
    };
    let mut linear = Linear { dtype, symmetric: matches!(dtype, DType::I8 | DType::I4), ..Linear::default() };
    once("what shares a scale", rest, |w| w == "tensor" || numbered(w, 'b'))?;
    once("where zero lies", rest, |w| matches!(w, "asym" | "sym"))?;
    for word in rest {
        match *word {
            "tensor" => linear.share = Share::Tensor,
            "asym" => linear.symmetric = false,
            "sym" => linear.symmetric = true,
            "mse" => linear.range = Range::Mse,
            _ => match word.strip_prefix('b').and_then(number).filter(|b| *b > 0) {
                Some(block) => linear.share = Share::Block(block),
                None => {
                    return Err(format!(
                        "`-{word}` is no option of {head}: there are -tensor, -bN, -asym, -sym and -mse"
                    ));
                }
            },
        }
    }
    Ok(linear)
}

fn parse_palette(bits: &str, rest: &[&str]) -> Result<Palette, String> {
    let mut palette = Palette::default();
    let mut unique = false;
    once("the size of groups", rest, |w| numbered(w, 'g'))?;
    once("the length of vectors", rest, |w| numbered(w, 'v'))?;
    once("how entries are chosen", rest, |w| matches!(w, "uniform" | "unique"))?;
    once("the type of tables", rest, |w| matches!(w, "lut8" | "ulut8"))?;
    once("the axis of groups", rest, |w| w == "in" || w.starts_with("axis"))?;
    for word in rest {
        match *word {
            "in" => palette.input_groups = true,
            "scale" => palette.channel_scale = true,
            "lut8" => palette.lut_dtype = Some(DType::I8),
            "ulut8" => palette.lut_dtype = Some(DType::U8),
            "uniform" => palette.entries = Entries::Uniform,
            "unique" => (palette.entries, unique) = (Entries::Unique, true),
            _ if word.strip_prefix("axis").and_then(number::<usize>).is_some() => {
                palette.channel_axis = word.strip_prefix("axis").and_then(number);
            }
            _ => match (word.strip_prefix('g').and_then(number), word.strip_prefix('v').and_then(number)) {
                (Some(size), _) if size > 0 => palette.group = Some(size),
                (_, Some(size)) if (2..=8).contains(&size) => palette.vector = size,
                _ => {
                    return Err(format!(
                        "`-{word}` is no option of palettes: there are -gN, -in, -axisN, -vN (2 to 8), -scale, -lut8, \
                         -ulut8, -uniform and -unique"
                    ));
                }
            },
        }
    }
    palette.bits = match number(bits) {
        None if bits.is_empty() && unique => None,
        Some(bits) if PALETTE_BITS.contains(&bits) => Some(bits),
        _ => return Err("an index has 1, 2, 3, 4, 6 or 8 bits".to_owned()),
    };
    Ok(palette)
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.prune, &self.code) {
            (None, None) => f.write_str("none"),
            (Some(p), None) => p.fmt(f),
            (None, Some(c)) => c.fmt(f),
            (Some(p), Some(c)) => write!(f, "{p}+{c}"),
        }
    }
}

impl fmt::Display for Prune {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Percents as they were typed: 0.07 * 100.0 is not quite 7.
        let percent = |p: f64| (p * 1e8).round() / 1e6;
        match self {
            Self::Sparsity(p) => write!(f, "prune{}", percent(*p)),
            Self::Threshold(t) => write!(f, "prune-t{t}"),
            Self::NofM { n, m, along: Along::Input } => write!(f, "prune{n}:{m}"),
            Self::NofM { n, m, along: Along::Output } => write!(f, "prune{n}:{m}-out"),
            Self::Block { sparsity, size, along: Along::Output } => write!(f, "prune{}-b{size}", percent(*sparsity)),
            Self::Block { sparsity, size, along: Along::Input } => write!(f, "prune{}-b{size}-in", percent(*sparsity)),
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linear(l) => l.fmt(f),
            Self::Palette(p) => p.fmt(f),
        }
    }
}

impl fmt::Display for Linear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, usually) = match self.dtype {
            DType::I8 => ("int8", true),
            DType::U8 => ("uint8", false),
            DType::I4 => ("int4", true),
            _ => ("uint4", false),
        };
        f.write_str(name)?;
        match &self.share {
            Share::Channel => {}
            Share::Tensor => f.write_str("-tensor")?,
            Share::Block(n) => write!(f, "-b{n}")?,
            Share::Blocks(sizes) => {
                let sizes: Vec<String> = sizes.iter().map(ToString::to_string).collect();
                write!(f, "-b{}", sizes.join("x"))?;
            }
        }
        if self.symmetric != usually {
            f.write_str(if self.symmetric { "-sym" } else { "-asym" })?;
        }
        if self.range == Range::Mse { f.write_str("-mse") } else { Ok(()) }
    }
}

impl fmt::Display for Palette {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("pal")?;
        if let Some(bits) = self.bits {
            write!(f, "{bits}")?;
        }
        if let Some(size) = self.group {
            write!(f, "-g{size}")?;
        }
        if self.input_groups {
            f.write_str("-in")?;
        }
        if let Some(axis) = self.channel_axis {
            write!(f, "-axis{axis}")?;
        }
        if self.vector > 1 {
            write!(f, "-v{}", self.vector)?;
        }
        if self.channel_scale {
            f.write_str("-scale")?;
        }
        match self.lut_dtype {
            Some(DType::U8) => f.write_str("-ulut8")?,
            Some(_) => f.write_str("-lut8")?,
            None => {}
        }
        match self.entries {
            Entries::KMeans => Ok(()),
            Entries::Uniform => f.write_str("-uniform"),
            Entries::Unique => f.write_str("-unique"),
            Entries::Custom(_) => f.write_str("-custom"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_as_they_are_written() {
        for text in [
            "none",
            "int8",
            "uint8",
            "int4-b32",
            "uint4-b64-mse",
            "int8-tensor-asym",
            "uint8-sym",
            "pal4",
            "pal6-g16",
            "pal4-g8-in",
            "pal4-v2",
            "pal8-scale",
            "pal2-lut8",
            "pal3-ulut8-uniform",
            "pal-unique",
            "prune50",
            "prune2:4",
            "prune-t0.01",
            "prune75-b4",
            "prune75-b4-in",
            "prune1:4-out",
            "pal4-g8-axis1",
            "prune7+pal4",
            "prune50+int8",
            "prune30.5+int4-b32",
        ] {
            let scheme = Scheme::parse(text).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(scheme.to_string(), text);
        }
        assert_eq!(Scheme::parse("prune-t1e-3").map(|s| s.prune), Ok(Some(Prune::Threshold(1e-3))));
    }

    #[test]
    fn what_is_wrong_is_said_with_what_would_be_right() {
        for (text, want) in [
            ("pal5", "1, 2, 3, 4, 6 or 8 bits"),
            ("int3", "schemes are"),
            ("int8-b0", "-tensor, -bN"),
            ("prune100", "percent"),
            ("prune4:2", "percent"),
            ("prune50-in", "percent"),
            ("prune-t1-out", "percent"),
            ("pal4-axisx", "-axisN"),
            ("int8+pal4", "coded once"),
            ("int8+prune50", "first"),
            ("pal4-v9", "2 to 8"),
            ("prune50+pal4-v2", "has no vectors"),
            ("int4-tensor-b32", "leave one"),
            ("int8-asym-sym", "leave one"),
            ("pal4-g16-g8", "leave one"),
            ("", "schemes are"),
        ] {
            let why = Scheme::parse(text).expect_err(text).to_string();
            assert!(why.contains(want), "{text}: {why}");
        }
    }
}
