//! Complex numbers as two tensors of real ones: Core ML has no others.
//!
//! A value that the file says is complex becomes two, its parts; each operator on such values becomes operators on these.

use crate::pt2::unused;
use mlconv_source::{Arg, Node, SourceGraph};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// The parts of a number; of a real one there is no imaginary part.
#[derive(Clone, Debug)]
struct Parts {
    re: Arg,
    im: Option<Arg>,
}

/// Operators that do to complex numbers what they do to each part.
const OF_PARTS: &[&str] = &[
    "alias",
    "clone",
    "contiguous",
    "detach",
    "detach_",
    "lift_fresh_copy",
    "lift_fresh",
    "neg",
    "reshape",
    "view",
    "_unsafe_view",
    "view_as",
    "reshape_as",
    "transpose",
    "permute",
    "t",
    "mT",
    "numpy_T",
    "movedim",
    "swapaxes",
    "slice",
    "select",
    "narrow",
    "unsqueeze",
    "squeeze",
    "flatten",
    "unflatten",
    "expand",
    "expand_as",
    "broadcast_to",
    "repeat",
    "tile",
    "cat",
    "concat",
    "stack",
    "hstack",
    "vstack",
    "chunk",
    "split",
    "split_with_sizes",
    "unbind",
    "flip",
    "roll",
    "index",
    "index_select",
    "gather",
    "take_along_dim",
    "repeat_interleave",
    "unfold",
    "as_strided",
    "sum",
    "mean",
    "cumsum",
    "diff",
    "where",
    "tril",
    "triu",
    "diagonal",
    "resolve_conj",
    "resolve_neg",
    "zeros_like",
    "slice_scatter",
    "select_scatter",
    "index_put",
    "index_add",
    "scatter",
    "fft_fftshift",
    "fft_ifftshift",
    "constant_pad_nd",
    "rot90",
    "diag_embed",
];

/// Arguments of these that are data, of which each part takes a part.
const DATA: &[&str] = &["tensors", "self", "src", "source", "other", "value", "values", "prepend", "append"];

/// The graph without complex numbers; `complex` are the names of values that are such.
pub(crate) fn in_parts(mut graph: SourceGraph, complex: &HashSet<Arc<str>>) -> Result<SourceGraph, String> {
    if complex.is_empty() && !graph.nodes.iter().any(|n| transformation(n).is_some()) {
        return Ok(graph);
    }
    if let Some(input) = graph.inputs.iter().find(|i| complex.contains(&i.name)) {
        let what = "give the model the parts, and put them together with `torch.view_as_complex`";
        return Err(format!("input `{}` is complex, which Core ML has no inputs for: {what}", input.name));
    }
    let mut used: HashSet<Arc<str>> = graph.nodes.iter().flat_map(|n| n.outputs.iter().cloned()).collect();
    used.extend(graph.inputs.iter().map(|i| i.name.clone()).chain(graph.constants.keys().cloned()));
    let mut pass = Pass { complex: complex.clone(), used, ..Pass::default() };
    let constants: Vec<Arc<str>> = graph.constants.keys().filter(|n| complex.contains(*n)).cloned().collect();
    for name in constants {
        // The file's reader gives these another axis, of two parts.
        let node = Node { domain: "aten".into(), name: name.clone(), ..Node::default() };
        pass.split(&node, &Arg::Value(name.clone()), &name);
    }
    for node in std::mem::take(&mut graph.nodes) {
        pass.node(node)?;
    }
    if let Some(output) = graph.outputs.iter().find(|o| complex.contains(&o.name)) {
        return Err(no_output(&output.name));
    }
    graph.nodes = pass.out;
    Ok(graph)
}

/// Says that an output is complex.
pub(crate) fn no_output(name: &str) -> String {
    let what = "return its parts, as `torch.view_as_real(x)`";
    format!("output `{name}` is complex, which Core ML has no outputs for: {what}")
}

/// What is known of complex values, and the operators on their parts.
#[derive(Default)]
pub(crate) struct Pass {
    /// Values that are complex.
    complex: HashSet<Arc<str>>,
    parts: HashMap<Arc<str>, (Arc<str>, Arc<str>)>,
    /// What the parts of values are called, those of values to come too.
    named: HashMap<Arc<str>, (Arc<str>, Arc<str>)>,
    /// Names that something has.
    used: HashSet<Arc<str>>,
    out: Vec<Node>,
}

/// Whether an operator makes complex numbers of real ones.
fn makes_complex(node: &Node) -> bool {
    match node.op.split('.').next().unwrap_or_default() {
        "view_as_complex" | "complex" | "polar" | "_fft_r2c" | "_fft_c2c" => true,
        "fft_fft" | "fft_fft2" | "fft_fftn" | "fft_ifft" | "fft_ifft2" | "fft_ifftn" | "fft_rfft" | "fft_rfft2"
        | "fft_rfftn" => true,
        "stft" => matches!(node.attrs.get("return_complex"), Some(Arg::Bool(true) | Arg::Int(1))),
        _ => false,
    }
}

impl Pass {
    /// The nodes in whose place one stands, where it has to do with complex numbers.
    pub(crate) fn replaced(&mut self, node: &Node) -> Result<Option<Vec<Node>>, String> {
        let makes = &*node.domain == "aten" && makes_complex(node);
        if !makes && !self.reads_complex(node) && transformation(node).is_none() {
            return Ok(None);
        }
        if makes {
            self.complex.extend(node.outputs.first().cloned());
        }
        self.node(node.clone())?;
        Ok(Some(std::mem::take(&mut self.out)))
    }

    /// The real part of a value; of one that is not complex, itself.
    pub(crate) fn real_of<'a>(&'a self, name: &'a Arc<str>) -> &'a Arc<str> {
        self.parts.get(name).map_or(name, |(re, _)| re)
    }

    pub(crate) fn is_complex(&self, name: &Arc<str>) -> bool {
        self.complex.contains(name) || self.parts.contains_key(name)
    }

    /// The names of the parts of `z`.
    fn names(&mut self, z: &Arc<str>) -> (Arc<str>, Arc<str>) {
        if let Some(named) = self.named.get(z) {
            return named.clone();
        }
        let [re, im] = ["re", "im"].map(|part| unused(&mut self.used, &format!("{z}_{part}")));
        self.named.insert(z.clone(), (re.clone(), im.clone()));
        (re, im)
    }

    fn reads_complex(&self, node: &Node) -> bool {
        let literal = |a: &Arg| matches!(a, Arg::Complex(..));
        node.reads().any(|n| self.is_complex(n)) || node.attrs.values().any(literal)
    }

    /// Adds an operator in the place of `like`; its result.
    fn emit(&mut self, like: &Node, op: &str, args: &[(&str, Arg)], result: Option<&Arc<str>>) -> Arg {
        let result = match result {
            Some(result) => result.clone(),
            None => unused(&mut self.used, &format!("{}_part{}", like.name, self.out.len())),
        };
        let (domain, op) = op.split_once("::").unwrap_or(("aten", op));
        self.out.push(Node {
            domain: domain.into(),
            op: op.into(),
            inputs: vec![],
            attrs: args.iter().map(|(name, a)| (Arc::from(*name), a.clone())).collect(),
            outputs: vec![result.clone()],
            ..like.clone()
        });
        Arg::Value(result)
    }

    fn pair(&mut self, like: &Node, op: &str, x: &Arg, y: &Arg, result: Option<&Arc<str>>) -> Arg {
        let second = if op == "bmm" || op == "mm" { "mat2" } else { "other" };
        self.emit(like, op, &[("self", x.clone()), (second, y.clone())], result)
    }

    fn one(&mut self, like: &Node, op: &str, x: &Arg, result: Option<&Arc<str>>) -> Arg {
        self.emit(like, op, &[("self", x.clone())], result)
    }

    /// The parts of `z` from the last axis of a tensor.
    fn split(&mut self, like: &Node, x: &Arg, z: &Arc<str>) {
        let (re, im) = self.names(z);
        for (i, name) in [&re, &im].into_iter().enumerate() {
            let args = [("self", x.clone()), ("dim", Arg::Int(-1)), ("index", Arg::Int(i as i64))];
            self.emit(like, "select.int", &args, Some(name));
        }
        self.parts.insert(z.clone(), (re, im));
    }

    fn parts_of(&self, node: &Node, name: &str) -> Result<Parts, String> {
        match node.attrs.get(name) {
            Some(Arg::Value(v)) => Ok(match self.parts.get(v) {
                Some((re, im)) => Parts { re: Arg::Value(re.clone()), im: Some(Arg::Value(im.clone())) },
                None => Parts { re: Arg::Value(v.clone()), im: None },
            }),
            Some(Arg::Complex(re, im)) => Ok(Parts { re: Arg::Float(*re), im: Some(Arg::Float(*im)) }),
            Some(other @ (Arg::Int(_) | Arg::Float(_) | Arg::Bool(_))) => Ok(Parts { re: other.clone(), im: None }),
            _ => Err(format!("node `{}` has no argument `{name}`", node.name)),
        }
    }

    fn node(&mut self, node: Node) -> Result<(), String> {
        let makes = node.outputs.iter().any(|o| self.complex.contains(o));
        if !makes && !self.reads_complex(&node) && transformation(&node).is_none() {
            self.out.push(node);
            return Ok(());
        }
        let base = node.op.split('.').next().unwrap_or_default().to_owned();
        let result = node.outputs.first().cloned().unwrap_or_default();
        let (re, im) = self.names(&result);
        if &*node.domain == "aten" && self.transform(&node, &base)? {
            return Ok(());
        }
        match base.as_str() {
            "_assert_tensor_metadata" => return Ok(()),
            "view_as_complex" => {
                let x = self.parts_of(&node, "self")?.re;
                self.split(&node, &x, &result);
                return Ok(());
            }
            "view_as_real" => {
                let z = self.parts_of(&node, "self")?;
                let (Arg::Value(re), Some(Arg::Value(im))) = (z.re, z.im) else { return unsupported(&node) };
                let all = Arg::Values(vec![Some(re), Some(im)]);
                self.emit(&node, "stack", &[("tensors", all), ("dim", Arg::Int(-1))], Some(&result));
                return Ok(());
            }
            "complex" => {
                let (a, b) = (self.parts_of(&node, "real")?.re, self.parts_of(&node, "imag")?.re);
                self.one(&node, "alias", &a, Some(&re));
                self.one(&node, "alias", &b, Some(&im));
            }
            "polar" => {
                let (size, angle) = (self.parts_of(&node, "abs")?.re, self.parts_of(&node, "angle")?.re);
                let (cos, sin) = (self.one(&node, "cos", &angle, None), self.one(&node, "sin", &angle, None));
                self.pair(&node, "mul.Tensor", &size, &cos, Some(&re));
                self.pair(&node, "mul.Tensor", &size, &sin, Some(&im));
            }
            "real" | "imag" => {
                let z = self.parts_of(&node, "self")?;
                let part = if base == "real" { Some(z.re) } else { z.im };
                let Some(part) = part else { return unsupported(&node) };
                self.one(&node, "alias", &part, Some(&result));
                return Ok(());
            }
            "abs" => {
                let z = self.parts_of(&node, "self")?;
                let sum = self.square_of_size(&node, &z)?;
                self.one(&node, "sqrt", &sum, Some(&result));
                return Ok(());
            }
            "angle" => {
                let Parts { re, im: Some(im) } = self.parts_of(&node, "self")? else { return unsupported(&node) };
                self.pair(&node, "atan2", &im, &re, Some(&result));
                return Ok(());
            }
            "conj" | "_conj" | "conj_physical" | "_conj_physical" => {
                let Parts { re: a, im: Some(b) } = self.parts_of(&node, "self")? else { return unsupported(&node) };
                self.one(&node, "alias", &a, Some(&re));
                self.one(&node, "neg", &b, Some(&im));
            }
            "add" | "sub" => self.sum(&node, &base, &re, &im)?,
            "mul" | "matmul" | "bmm" | "mm" => {
                let second = if matches!(base.as_str(), "bmm" | "mm") { "mat2" } else { "other" };
                let (a, b) = (self.parts_of(&node, "self")?, self.parts_of(&node, second)?);
                self.product(&node, &a, &b, &re, &im);
            }
            "square" => {
                let z = self.parts_of(&node, "self")?;
                let like = Node { op: "mul.Tensor".into(), ..node.clone() };
                self.product(&like, &z, &z, &re, &im);
            }
            "pow" if matches!(node.attrs.get("exponent"), Some(Arg::Int(2))) => {
                let z = self.parts_of(&node, "self")?;
                let like = Node { op: "mul.Tensor".into(), ..node.clone() };
                self.product(&like, &z, &z, &re, &im);
            }
            "div" => {
                let (a, b) = (self.parts_of(&node, "self")?, self.parts_of(&node, "other")?);
                self.quotient(&node, &a, &b, &re, &im)?;
            }
            "exp" => {
                let Parts { re: a, im: Some(b) } = self.parts_of(&node, "self")? else { return unsupported(&node) };
                let (size, cos, sin) = (
                    self.one(&node, "exp", &a, None),
                    self.one(&node, "cos", &b, None),
                    self.one(&node, "sin", &b, None),
                );
                self.pair(&node, "mul.Tensor", &size, &cos, Some(&re));
                self.pair(&node, "mul.Tensor", &size, &sin, Some(&im));
            }
            "to" | "_to_copy" if makes => {
                let z = self.parts_of(&node, "self")?;
                self.one(&node, "alias", &z.re, Some(&re));
                match z.im {
                    Some(im_of) => self.one(&node, "alias", &im_of, Some(&im)),
                    None => self.one(&node, "zeros_like", &z.re, Some(&im)),
                };
            }
            name if OF_PARTS.contains(&name) => return self.of_parts(&node),
            _ => return unsupported(&node),
        }
        self.parts.insert(result, (re, im));
        Ok(())
    }

    /// The same operator on each part.
    fn of_parts(&mut self, node: &Node) -> Result<(), String> {
        // A part of a product is not the product of parts.
        if node.attrs.contains_key("reduce") {
            return unsupported(node);
        }
        let outputs: Vec<(Arc<str>, Arc<str>)> = node.outputs.iter().map(|o| self.names(o)).collect();
        let mut twins = [node.clone(), node.clone()];
        for (i, twin) in twins.iter_mut().enumerate() {
            let part = |name: &Arc<str>| {
                self.parts
                    .get(name)
                    .map_or_else(|| name.clone(), |(re, im)| if i == 0 { re.clone() } else { im.clone() })
            };
            for (name, arg) in &mut twin.attrs {
                match arg {
                    // Of a number that is written, the imaginary part is zero, if it has no other.
                    Arg::Complex(re, im) => *arg = Arg::Float(if i == 0 { *re } else { *im }),
                    Arg::Int(_) | Arg::Float(_) | Arg::Bool(_) if i == 1 && DATA.contains(&&**name) => {
                        *arg = Arg::Float(0.0);
                    }
                    Arg::Value(name) => *name = part(name),
                    Arg::Values(names) => names.iter_mut().flatten().for_each(|name| *name = part(name)),
                    _ => {}
                }
            }
            let own = outputs.iter().map(|(re, im)| if i == 0 { re } else { im });
            twin.outputs = own.cloned().collect();
        }
        // A real operand beside complex ones has no imaginary part, but would be taken for it.
        let mixed = DATA.iter().any(|name| match node.attrs.get(*name) {
            Some(Arg::Value(v)) => !self.is_complex(v),
            Some(Arg::Values(all)) => all.iter().flatten().any(|v| !self.is_complex(v)),
            _ => false,
        });
        let shape_only = matches!(node.op.split('.').next(), Some("view_as" | "reshape_as" | "expand_as"));
        if mixed && !shape_only {
            return unsupported(node);
        }
        self.parts.extend(node.outputs.iter().cloned().zip(outputs));
        self.out.extend(twins);
        Ok(())
    }

    fn square_of_size(&mut self, node: &Node, z: &Parts) -> Result<Arg, String> {
        let Some(im) = &z.im else { return unsupported(node) };
        let (a, b) = (self.pair(node, "mul.Tensor", &z.re, &z.re, None), self.pair(node, "mul.Tensor", im, im, None));
        Ok(self.pair(node, "add.Tensor", &a, &b, None))
    }

    fn sum(&mut self, node: &Node, base: &str, re: &Arc<str>, im: &Arc<str>) -> Result<(), String> {
        let (a, b) = (self.parts_of(node, "self")?, self.parts_of(node, "other")?);
        let op = format!("{base}.Tensor");
        let alpha = node.attrs.get("alpha").cloned().unwrap_or(Arg::Int(1));
        let with = |x: &Arg, y: &Arg| vec![("self", x.clone()), ("other", y.clone()), ("alpha", alpha.clone())];
        self.emit(node, &op, &with(&a.re, &b.re), Some(re));
        // A real number has an imaginary part of zero, which has its shape.
        let mut zero = |of: &Arg| match of {
            Arg::Value(_) => self.one(node, "zeros_like", of, None),
            _ => Arg::Float(0.0),
        };
        let (x, y) = match (a.im, b.im) {
            (Some(x), Some(y)) => (x, y),
            (Some(x), None) => (x, zero(&b.re)),
            (None, Some(y)) => (zero(&a.re), y),
            (None, None) => return unsupported(node),
        };
        self.emit(node, &op, &with(&x, &y), Some(im));
        Ok(())
    }

    /// `(a + ib)(c + id)`.
    fn product(&mut self, node: &Node, x: &Parts, y: &Parts, re: &Arc<str>, im: &Arc<str>) {
        let op = node.op.to_string();
        match (&x.im, &y.im) {
            (Some(b), Some(d)) => {
                let (ac, bd) = (self.pair(node, &op, &x.re, &y.re, None), self.pair(node, &op, b, d, None));
                self.pair(node, "sub.Tensor", &ac, &bd, Some(re));
                let (ad, bc) = (self.pair(node, &op, &x.re, d, None), self.pair(node, &op, b, &y.re, None));
                self.pair(node, "add.Tensor", &ad, &bc, Some(im));
            }
            (Some(b), None) => {
                self.pair(node, &op, &x.re, &y.re, Some(re));
                self.pair(node, &op, b, &y.re, Some(im));
            }
            (None, Some(d)) => {
                self.pair(node, &op, &x.re, &y.re, Some(re));
                self.pair(node, &op, &x.re, d, Some(im));
            }
            (None, None) => {}
        }
    }

    /// By a complex number: times its conjugate, by the square of its size.
    fn quotient(&mut self, node: &Node, x: &Parts, y: &Parts, re: &Arc<str>, im: &Arc<str>) -> Result<(), String> {
        let Some(d) = &y.im else {
            let Some(b) = &x.im else { return unsupported(node) };
            self.pair(node, "div.Tensor", &x.re, &y.re, Some(re));
            self.pair(node, "div.Tensor", b, &y.re, Some(im));
            return Ok(());
        };
        let size = self.square_of_size(node, y)?;
        let minus = self.one(node, "neg", d, None);
        let conjugate = Parts { re: y.re.clone(), im: Some(minus) };
        let [a, b] = [re, im].map(|part| unused(&mut self.used, &format!("{part}_whole")));
        let like = Node { op: "mul.Tensor".into(), ..node.clone() };
        self.product(&like, x, &conjugate, &a, &b);
        self.pair(node, "div.Tensor", &Arg::Value(a), &size, Some(re));
        self.pair(node, "div.Tensor", &Arg::Value(b), &size, Some(im));
        Ok(())
    }

    /// A Fourier transform, as an operator on parts; whether the operator is one.
    fn transform(&mut self, node: &Node, base: &str) -> Result<bool, String> {
        let Some(op) = transformation(node) else { return Ok(false) };
        let z = self.parts_of(node, "self")?;
        let result = node.outputs.first().cloned().unwrap_or_default();
        let mut twin = node.clone();
        let (domain, name) = op.split_once("::").unwrap_or_default();
        (twin.domain, twin.op) = (domain.into(), name.into());
        twin.attrs.shift_remove("self");
        for name in ["onesided", "forward"] {
            if base.starts_with('_') {
                twin.attrs.shift_remove(name);
            }
        }
        // What belongs to all axes of most of them belongs to the one axis of some.
        if base.ends_with('2') && !base.starts_with('_') && !twin.attrs.contains_key("dim") {
            twin.attrs.insert("dim".into(), Arg::Ints(vec![-2, -1]));
        }
        if !base.ends_with('2') && !base.ends_with('n') && base.starts_with("fft") && !twin.attrs.contains_key("dim") {
            twin.attrs.insert("dim".into(), Arg::Ints(vec![-1]));
        }
        twin.attrs.insert("real".into(), z.re);
        if let Some(im) = z.im {
            twin.attrs.insert("imag".into(), im);
        }
        if self.complex.contains(&result) {
            let (re, im) = self.names(&result);
            twin.outputs = vec![re.clone(), im.clone()];
            self.parts.insert(result, (re, im));
        }
        self.out.push(twin);
        Ok(true)
    }
}

/// The Fourier transform that a node is, as an operator on parts, which it becomes even of real numbers.
fn transformation(node: &Node) -> Option<&'static str> {
    if &*node.domain != "aten" {
        return None;
    }
    Some(match node.op.split('.').next().unwrap_or_default() {
        "fft_fft" | "fft_fft2" | "fft_fftn" => "complex::fft",
        "fft_ifft" | "fft_ifft2" | "fft_ifftn" => "complex::ifft",
        "fft_rfft" | "fft_rfft2" | "fft_rfftn" => "complex::rfft",
        "fft_irfft" | "fft_irfft2" | "fft_irfftn" => "complex::irfft",
        "_fft_r2c" if matches!(node.attrs.get("onesided"), Some(Arg::Bool(false))) => "complex::fft",
        "_fft_r2c" => "complex::rfft",
        "_fft_c2c" if matches!(node.attrs.get("forward"), Some(Arg::Bool(false))) => "complex::ifft",
        "_fft_c2c" => "complex::fft",
        "_fft_c2r" => "complex::irfft",
        "stft" => "complex::stft",
        "istft" => "complex::istft",
        _ => return None,
    })
}

fn unsupported<T>(node: &Node) -> Result<T, String> {
    Err(format!("node `{}`: `{}` of complex numbers is not supported", node.name, node.operator()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlconv_source::SourceValue;

    fn node(op: &str, attrs: &[(&str, Arg)], output: &str) -> Node {
        let attrs = attrs.iter().map(|(name, arg)| (Arc::from(*name), arg.clone())).collect();
        Node { domain: "aten".into(), op: op.into(), attrs, outputs: vec![output.into()], ..Node::default() }
    }

    fn value(name: &str) -> Arg {
        Arg::Value(name.into())
    }

    /// The nodes that come of these, of which `z` and `y` are complex.
    fn parts(nodes: Vec<Node>) -> Result<Vec<Node>, String> {
        let input = SourceValue { name: "x".into(), ..SourceValue::default() };
        let graph = SourceGraph { inputs: vec![input], nodes, ..SourceGraph::default() };
        let complex = ["z", "y"].map(Arc::from).into_iter().collect();
        in_parts(graph, &complex).map(|graph| graph.nodes)
    }

    #[test]
    fn numbers_are_written_into_the_real_part() {
        let z = node("view_as_complex", &[("self", value("x"))], "z");
        let pad = node("constant_pad_nd", &[("self", value("z")), ("value", Arg::Int(1))], "y");
        let made = parts(vec![z.clone(), pad]).expect("parts");
        let written: Vec<_> = made.iter().filter_map(|n| n.attrs.get("value")).collect();
        assert!(matches!(written[..], [Arg::Int(1), Arg::Float(0.0)]), "{written:?}");
        let chosen = [("condition", value("x")), ("self", value("z")), ("other", Arg::Complex(2.0, 3.0))];
        let made = parts(vec![z.clone(), node("where.ScalarOther", &chosen, "y")]).expect("parts");
        let written: Vec<_> = made.iter().filter_map(|n| n.attrs.get("other")).collect();
        assert!(matches!(written[..], [Arg::Float(2.0), Arg::Float(3.0)]), "{written:?}");
        for name in ["append", "source"] {
            let real = node("diff", &[("self", value("z")), (name, value("x"))], "y");
            assert!(parts(vec![z.clone(), real]).is_err(), "{name}");
        }
    }

    #[test]
    fn parts_have_names_of_their_own() {
        let taken = node("relu", &[("self", value("x"))], "z_re");
        let z = node("view_as_complex", &[("self", value("z_re"))], "z");
        let made = parts(vec![taken, z]).expect("parts");
        let mut names: Vec<_> = made.iter().flat_map(|n| n.outputs.iter()).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "{names:?}");
    }
}
