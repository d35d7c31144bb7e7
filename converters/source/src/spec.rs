//! What a user asks of a conversion: shapes and types of inputs, and which outputs to keep.

use mlconv_mil::schema::Opset;
use mlconv_tensor::{DType, Tensor};
use std::fmt;

/// A request to a frontend.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The op set to write in; `None` is the default one.
    pub opset: Option<Opset>,
    /// What is said of inputs.
    pub inputs: Vec<InputSpec>,
    /// The outputs to keep, in this order; empty is all.
    pub outputs: Vec<String>,
    /// Numbers for parameters that are no tensors, by name.
    pub numbers: Vec<(String, Tensor)>,
    /// Whether buffers that outlive a call are inputs and outputs, and not states.
    pub no_state: bool,
    /// Inputs that are states, each with the output that it becomes.
    pub states: Vec<(String, String)>,
}

/// What a user says of one input: `NAME=SHAPE[:DTYPE]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputSpec {
    /// The input; `None` where there is only one.
    pub name: Option<String>,
    /// Its shape.
    pub dims: Vec<DimSpec>,
    /// Its element type, where it is not the source's.
    pub dtype: Option<DType>,
}

/// One dimension of a requested shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DimSpec {
    /// A size, as in `224`.
    Known(i64),
    /// A range, as in `[1..512]`; `[1..512:128]` adds a default.
    Range {
        /// The least size.
        min: i64,
        /// The greatest size.
        max: i64,
        /// The size to assume; the least one where it is not said.
        default: Option<i64>,
    },
    /// A choice, as in `{128,256}`; the first is the default.
    OneOf(Vec<i64>),
    /// A symbol that other inputs may share, as in `s0`.
    Symbol(String),
}

/// Why a shape could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// A dimension is none of the forms.
    #[error("`{0}` is no dimension, wanted a size such as `224`, a range `[1..512]`, a choice `{{128,256}}` or a name")]
    Dim(String),
    /// A range is empty or not positive.
    #[error("range `{0}` is empty, or its default lies outside of it")]
    Range(String),
    /// Choices that are no others.
    #[error("the choices of `{0}` give one shape twice")]
    Twice(String),
    /// An unknown element type.
    #[error("`{0}` is no element type, wanted `f32`, `f16`, `i32` or `bool`")]
    DType(String),
}

impl fmt::Display for DimSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(n) => write!(f, "{n}"),
            Self::Range { min, max, default: None } => write!(f, "[{min}..{max}]"),
            Self::Range { min, max, default: Some(default) } => write!(f, "[{min}..{max}:{default}]"),
            Self::OneOf(sizes) => {
                let sizes: Vec<String> = sizes.iter().map(ToString::to_string).collect();
                write!(f, "{{{}}}", sizes.join(","))
            }
            Self::Symbol(name) => write!(f, "{name}"),
        }
    }
}

/// As [`InputSpec::parse`] reads it.
impl fmt::Display for InputSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.name {
            write!(f, "{name}=")?;
        }
        let dims: Vec<String> = self.dims.iter().map(ToString::to_string).collect();
        write!(f, "{}", dims.join("x"))?;
        self.dtype.map_or(Ok(()), |dtype| write!(f, ":{dtype}"))
    }
}

impl InputSpec {
    /// Reads `NAME=SHAPE[:DTYPE]`, where `NAME=` may be left out. A scalar's shape is empty.
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        // A name may hold anything, `=` included; a shape holds none.
        let (name, rest) = match text.rsplit_once('=') {
            Some((name, rest)) => (Some(name.to_owned()), rest),
            None => (None, text),
        };
        // A `:` inside brackets belongs to a range.
        let (shape, dtype) = match rest.rfind(':').filter(|at| !rest[*at..].contains(']')) {
            Some(at) => (&rest[..at], Some(parse_dtype(&rest[at + 1..])?)),
            None => (rest, None),
        };
        let spec =
            Self { name, dims: split_dims(shape).into_iter().map(DimSpec::parse).collect::<Result<_, _>>()?, dtype };
        let shapes = spec.choices();
        if shapes.iter().enumerate().any(|(i, s)| shapes[..i].contains(s)) {
            return Err(SpecError::Twice(shape.to_owned()));
        }
        Ok(spec)
    }

    /// The shapes that choices give, with the default of what is no choice; none where there is no choice. Choices go
    /// together: the first of one axis with the first of another.
    pub fn choices(&self) -> Vec<Vec<i64>> {
        let counts = self.dims.iter().filter_map(|d| if let DimSpec::OneOf(v) = d { Some(v.len()) } else { None });
        let nth = |k: usize| {
            self.dims.iter().map(move |d| match d {
                DimSpec::Known(n) => *n,
                DimSpec::OneOf(v) => v.get(k).or(v.last()).copied().unwrap_or(1),
                DimSpec::Range { min, default, .. } => default.unwrap_or(*min),
                DimSpec::Symbol(_) => 1,
            })
        };
        (0..counts.max().unwrap_or(0)).map(|k| nth(k).collect()).collect()
    }
}

fn parse_dtype(text: &str) -> Result<DType, SpecError> {
    let name = match text {
        "float32" | "fp32" => "f32",
        "float16" | "fp16" => "f16",
        "int32" => "i32",
        other => other,
    };
    DType::from_name(name).ok_or_else(|| SpecError::DType(text.to_owned()))
}

/// Splits at each `x` outside of brackets that separates dimensions: one that follows a size, a bracket or a name.
fn split_dims(shape: &str) -> Vec<&str> {
    if shape.is_empty() {
        return vec![];
    }
    let (mut out, mut start, mut depth) = (vec![], 0, 0);
    for (i, c) in shape.char_indices() {
        match c {
            '[' | '{' => depth += 1,
            ']' | '}' => depth -= 1,
            'x' | ',' if depth == 0 && i > start => {
                out.push(&shape[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    out.push(&shape[start..]);
    out
}

impl DimSpec {
    fn parse(text: &str) -> Result<Self, SpecError> {
        let bad = || SpecError::Dim(text.to_owned());
        let size = |s: &str| s.trim().parse::<i64>().ok().filter(|n| (0..1 << 31).contains(n)).ok_or_else(bad);
        if let Some(range) = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
            let (range, default) = match range.split_once(':') {
                Some((range, default)) => (range, Some(size(default)?)),
                None => (range, None),
            };
            let (min, max) = range.split_once("..").ok_or_else(bad)?;
            let (min, max) = (size(min)?, size(max)?);
            if min < 1 || min > max || default.is_some_and(|d| !(min..=max).contains(&d)) {
                return Err(SpecError::Range(text.to_owned()));
            }
            return Ok(Self::Range { min, max, default });
        }
        if let Some(sizes) = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')) {
            return Ok(Self::OneOf(sizes.split(',').map(size).collect::<Result<_, _>>()?));
        }
        if text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        {
            return Ok(Self::Symbol(text.to_owned()));
        }
        size(text).map(Self::Known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_read_as_documented() {
        let spec = |text| InputSpec::parse(text).expect("a shape");
        let x = spec("x:0=1x3x[1..512:128]x{64,128}xs0:f16");
        assert_eq!((x.name.as_deref(), x.dtype), (Some("x:0"), Some(DType::F16)));
        assert_eq!(
            x.dims,
            [
                DimSpec::Known(1),
                DimSpec::Known(3),
                DimSpec::Range { min: 1, max: 512, default: Some(128) },
                DimSpec::OneOf(vec![64, 128]),
                DimSpec::Symbol("s0".into()),
            ]
        );
        assert_eq!(spec("2x128").name, None);
        assert_eq!(spec("1x{2,3}x{4,4}").choices(), [[1, 2, 4], [1, 3, 4]]);
        assert!(spec("sr=").dims.is_empty());
        for bad in [
            "x=1x",
            "x=[5..2]",
            "x=[1..9:10]",
            "x=1x-2",
            "x=1x2:f99",
            "x=1x{2,3,2}",
            "x={2,2}x{3}",
            "x={a}",
            "x=99999999999",
        ] {
            assert!(InputSpec::parse(bad).is_err(), "{bad}");
        }
    }
}
