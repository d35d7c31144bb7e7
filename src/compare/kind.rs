//! What the numbers of an output mean: which measures say something about them.

use crate::{Diagnostic, codes, feed::means_port, names::listed};
use mlconv_mil::{
    ir::{Feature, Function, OpId, Port, Value},
    ops::{Add, Cast, Classify, Conv, Linear, Matmul, Reshape, Sigmoid, SigmoidHard, Softmax, Squeeze},
};
use mlconv_tensor::{DType, TensorType, Type};
use serde::{Serialize, Serializer};

/// What an output holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Scores of classes along the last axis, of which a softmax makes probabilities.
    Logits,
    /// Probabilities of classes along the last axis.
    Probabilities,
    /// Boxes, four numbers each along the last axis.
    Boxes,
    /// What belongs to something: elements above this number.
    Mask(f64),
    /// Floats of which nothing more is known.
    Values,
    /// Integers or booleans, which are equal or not.
    Integers,
    /// Text.
    Text,
}

impl Kind {
    /// What an output may be said to hold.
    pub const SAID: [&'static str; 5] = ["logits", "probabilities", "boxes", "mask", "values"];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Logits => "logits",
            Self::Probabilities => "probabilities",
            Self::Boxes => "boxes",
            Self::Mask(_) => "mask",
            Self::Values => "values",
            Self::Integers => "integers",
            Self::Text => "text",
        }
    }

    /// That of a tensor of which only the element type is known.
    pub fn of_type(dtype: DType) -> Self {
        match dtype {
            DType::Str => Self::Text,
            _ if dtype.is_float() => Self::Values,
            _ => Self::Integers,
        }
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }
}

/// What a user says of an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The output.
    pub name: String,
    /// One of [`Kind::SAID`].
    kind: &'static str,
}

impl Said {
    /// Reads `NAME=KIND`; names may hold `=`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let want = || format!("wanted the name of an output, `=`, and one of {}", Kind::SAID.join(", "));
        let (name, kind) = text.rsplit_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(want)?;
        let kind = Kind::SAID.into_iter().find(|k| *k == kind).ok_or_else(want)?;
        Ok(Self { name: name.to_owned(), kind })
    }
}

/// Refuses what is said of no output of these functions, or of one that cannot hold it.
pub fn check_said(functions: &[Function], said: &[Said]) -> Result<(), Diagnostic> {
    for s in said {
        let refused = |why: String| Diagnostic::error(&codes::L0001, format!("`--kind {}={}`: {why}", s.name, s.kind));
        let ports = || functions.iter().flat_map(|f| f.sig.outputs.iter().zip(f.outputs()).map(move |o| (f, o)));
        let mut named = ports().filter(|(_, (port, _))| means_port(&s.name, port)).peekable();
        if named.peek().is_none() {
            let names = listed(ports().map(|(_, (port, _))| &*port.name));
            return Err(refused("no output has the name".to_owned()).help(format!("the outputs are {names}")));
        }
        if let Some(want) = named.find_map(|(f, (_, v))| unlike(f.ty(*v), s.kind)) {
            return Err(refused(want));
        }
    }
    Ok(())
}

/// Why a value of this type is not of a kind.
fn unlike(ty: &Type, kind: &str) -> Option<String> {
    let Some(t) = ty.tensor() else {
        // What a classifier returns beside its label.
        return (!["probabilities", "values"].contains(&kind))
            .then(|| "the output is a probability for each label".to_owned());
    };
    let last = t.shape.rank().checked_sub(1).and_then(|at| t.shape.get(at));
    let size = last.map(|d| d.as_usize());
    let want = match kind {
        "logits" | "probabilities" => {
            let fits = t.dtype.is_float() && size.is_some_and(|n| n.is_none_or(|n| n > 1));
            (!fits).then_some("floats with two or more classes along the last axis")
        }
        "boxes" => {
            let is_number = t.dtype.is_float() || t.dtype.is_int();
            let fits = is_number && size.is_some_and(|n| n.is_none_or(|n| n == 4));
            (!fits).then_some("numbers with four of each box along the last axis")
        }
        "mask" => (t.dtype == DType::Str).then_some("numbers or booleans"),
        _ => None,
    };
    want.map(|want| format!("the output is {t}, wanted {want}"))
}

/// What each output of `f` holds: as is said, else as its type, the op that makes it, and last its name show. `scores` is
/// the output that labels are about, where that is known.
pub fn kinds(f: &Function, said: &[Said], scores: Option<usize>) -> Vec<Kind> {
    let ports = f.sig.outputs.iter().zip(f.outputs()).enumerate();
    let one = |(i, (port, v)): (usize, (&Port, &Value))| {
        let ty = f.ty(*v).tensor();
        match said.iter().rev().find(|s| means_port(&s.name, port)).map(|s| s.kind) {
            Some("logits") => Kind::Logits,
            Some("probabilities") => Kind::Probabilities,
            Some("boxes") => Kind::Boxes,
            Some("mask") => Kind::Mask(threshold(f, *v)),
            Some(_) => ty.map_or(Kind::Values, |ty| Kind::of_type(ty.dtype)),
            None => match ty {
                Some(ty) => inferred(f, port, *v, ty, scores == Some(i)),
                None if f.def_op(*v).is_some_and(|id| f.op::<Classify>(id).is_some()) => Kind::Probabilities,
                None => Kind::Values,
            },
        }
    };
    ports.map(one).collect()
}

/// Names that outputs with scores of classes have, and those of others that look alike.
const OF_SCORES: [&str; 4] = ["logit", "score", "class", "pred"];
const OF_FEATURES: [&str; 5] = ["embed", "feature", "hidden", "pool", "state"];
/// Classes that a model without such a name has at least: fewer numbers are as likely to be something else.
const MANY: usize = 10;

fn inferred(f: &Function, port: &Port, v: Value, ty: &TensorType, scores: bool) -> Kind {
    let name = port.name.to_ascii_lowercase();
    let is_called = |names: &[&str]| names.iter().any(|n| name.contains(n));
    let dims: Vec<Option<usize>> = ty.shape.iter().map(|d| d.as_usize()).collect();
    if !ty.dtype.is_float() {
        let is_picture = matches!(dims[..], [.., Some(h), Some(w)] if h > 1 && w > 1);
        return if ty.dtype == DType::Bool && is_picture { Kind::Mask(0.5) } else { Kind::of_type(ty.dtype) };
    }
    let Some((last, leading)) = dims.split_last() else { return Kind::Values };
    if matches!(port.feature, Feature::Image(_)) {
        return Kind::Values;
    }
    let made = maker(f, v);
    let soft = made.and_then(|id| f.op::<Softmax>(id));
    if soft.is_some_and(|s| s.axis == -1 || usize::try_from(s.axis) == Ok(leading.len())) {
        return Kind::Probabilities;
    }
    if scores {
        return Kind::Logits;
    }
    if *last == Some(4) && !leading.is_empty() && is_called(&["box"]) {
        return Kind::Boxes;
    }
    let rows_of_one = leading.iter().all(|d| *d == Some(1) || d.is_none());
    let is_sum = made
        .is_some_and(|id| f.op::<Linear>(id).is_some() || f.op::<Matmul>(id).is_some() || f.op::<Conv>(id).is_some());
    let alone = f.outputs().iter().filter(|o| f.ty(**o).tensor().is_some_and(|t| t.dtype.is_float())).count() == 1;
    let classes = last.is_some_and(|n| n > 1);
    if is_sum && classes && !is_called(&["box"]) {
        let by_name = is_called(&OF_SCORES);
        let by_form = alone && rows_of_one && leading.len() <= 1 && last.is_some_and(|n| n >= MANY);
        if by_name || (by_form && !is_called(&OF_FEATURES)) {
            return Kind::Logits;
        }
    }
    let squashed = made.is_some_and(|id| f.op::<Sigmoid>(id).is_some() || f.op::<SigmoidHard>(id).is_some());
    if dims.len() >= 3 && is_called(&["mask"]) && (squashed || is_sum) {
        return Kind::Mask(threshold(f, v));
    }
    Kind::Values
}

/// Above what an element belongs to a mask: a half where the numbers are probabilities, else 0, which is a half behind a
/// sigmoid.
fn threshold(f: &Function, v: Value) -> f64 {
    let is_float = f.ty(v).tensor().is_some_and(|t| t.dtype.is_float());
    let made = maker(f, v).map(|id| f.op_data(id).op.name());
    if !is_float || made.is_some_and(|n| ["sigmoid", "sigmoid_hard", "softmax"].contains(&n)) { 0.5 } else { 0.0 }
}

/// The op that makes the numbers of `v`: what only gives them another type or shape, or adds a constant, is passed over.
fn maker(f: &Function, v: Value) -> Option<OpId> {
    let mut v = v;
    // A program without loops ends; the number of its ops bounds it all the same.
    for _ in 0..f.value_slots() {
        let id = f.def_op(v)?;
        let constant = |v: Value| f.constant(v).is_some();
        v = if let Some(op) = f.op::<Cast>(id) {
            op.x
        } else if let Some(op) = f.op::<Reshape>(id) {
            op.x
        } else if let Some(op) = f.op::<Squeeze>(id) {
            op.x
        } else if let Some(op) = f.op::<Add>(id).filter(|op| constant(op.x) != constant(op.y)) {
            if constant(op.x) { op.y } else { op.x }
        } else {
            return Some(id);
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlconv_mil::text::parse;

    fn found(text: &str, said: &[&str]) -> Vec<&'static str> {
        let module = parse(text).unwrap_or_else(|e| panic!("{e}"));
        let said: Vec<Said> = said.iter().map(|s| Said::parse(s).expect("a kind")).collect();
        kinds(&module.functions[0], &said, None).into_iter().map(Kind::name).collect()
    }

    #[test]
    fn what_makes_an_output_says_what_it_holds() {
        let text = "func @main(%x: f32[1, 16], %k: f32[12, 16], %b: bool[4, 4]) ios17 {\n  \
                    %h = matmul(x=%x, y=%k, transpose_y=true)\n  %p = softmax(x=%h, axis=-1)\n  \
                    %s = sigmoid(x=%x)\n  %m = logical_not(x=%b)\n  %n = cast(x=%x, dtype=\"int32\")\n  return ";
        assert_eq!(found(&format!("{text}%h, %n\n}}\n"), &[]), ["logits", "integers"]);
        assert_eq!(found(&format!("{text}%h, %s\n}}\n"), &[]), ["values", "values"]);
        assert_eq!(found(&format!("{text}%p, %m\n}}\n"), &[]), ["probabilities", "mask"]);
        assert_eq!(found(&format!("{text}%h, %s\n}}\n"), &["s=mask", "h=logits"]), ["logits", "mask"]);
        assert_eq!(found(&format!("{text}%h, %m\n}}\n"), &["h=values", "m=values"]), ["values", "integers"]);
    }

    #[test]
    fn what_a_classifier_returns_is_probabilities() {
        let text = "func @main(%x: f32[1, 2]) ios17 {\n  %l, %p = classify(probabilities=%x, classes=[\"a\", \"b\"])\n  \
                    return %l, %p\n}\n";
        assert_eq!(found(text, &[]), ["text", "probabilities"]);
        assert_eq!(found(text, &["p=values"]), ["text", "values"]);
    }

    #[test]
    fn what_an_output_cannot_hold_is_not_said_of_it() {
        let text = "func @main(%x: f32[1, 5], %n: i32[3, 4], %s: f32[]) ios17 {\n  %y = relu(x=%x)\n  \
                    %t = cast(x=%s, dtype=\"int32\")\n  %m = reverse(x=%n, axes=[1])\n  %u = relu(x=%s)\n  return %y, %m, %t, %u\n}\n";
        let module = parse(text).unwrap_or_else(|e| panic!("{e}"));
        let check =
            |said: &str| check_said(&module.functions, &[Said::parse(said).expect("a kind")]).map_err(|d| d.title);
        for good in ["y=logits", "y=mask", "m=boxes", "m=values", "t=values", "u=mask"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in ["y=boxes", "m=logits", "t=boxes", "u=probabilities", "u=logits"] {
            assert!(check(bad).expect_err(bad).contains("wanted"), "{bad}");
        }
        assert_eq!(check("z=values"), Err("`--kind z=values`: no output has the name".to_owned()));
    }

    #[test]
    fn a_kind_is_named_or_refused() {
        assert_eq!(Said::parse("a=b=boxes").map(|s| s.name), Ok("a=b".to_owned()));
        for bad in ["", "x", "x=", "=logits", "x=text"] {
            assert!(Said::parse(bad).is_err(), "{bad}");
        }
    }
}
