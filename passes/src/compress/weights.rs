//! The weights of a module: which constants are parameters, what reads them, and how their axes are called.

use mlconv_mil::{
    ir::{Function, Module, OpId, Use, Value},
    ops::{Const, Conv, ConvTranspose, Einsum, Gather, Gru, Linear, Lstm, Matmul, Rnn},
};
use mlconv_tensor::{Tensor, Type};

/// A constant of a module that is large enough to be worth a word.
#[derive(Clone, Debug)]
pub struct Weight {
    /// The function, by its place in the module.
    pub function: usize,
    /// The `const` op.
    pub op: OpId,
    /// Its value.
    pub value: Value,
    /// The name that it has in the program; with several functions, behind the function's.
    pub name: String,
    /// Names of source nodes that read it, and modules that they belong to.
    pub sources: Vec<String>,
    /// The ops that read it.
    pub readers: Vec<Reader>,
    /// The elements.
    pub tensor: Tensor,
    /// The axes of channels, or why the constant is left alone.
    pub role: Result<Role, Left>,
}

/// An op that reads a weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reader {
    /// Its type.
    pub op: &'static str,
    /// What it is called: by the names of its results, and of the source nodes that it comes from.
    pub names: Vec<String>,
}

/// Which axes of a weight are which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Role {
    /// The axis of output channels.
    pub output: usize,
    /// The axis of input channels: what a product sums over.
    pub input: usize,
}

/// Why a constant is left as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Left {
    /// An op reads it that does not take it for a parameter: a mask, a table of positions.
    #[error("`{0}` reads it, and not as a parameter")]
    Reader(&'static str),
    /// It has one axis, as biases have.
    #[error("it has one axis")]
    Vector,
    /// Its axes are those of output channels to one op and of input channels to another.
    #[error("ops that read it disagree on its axes")]
    Axes,
    /// It leaves the function as it is.
    #[error("it is an output")]
    Output,
    /// It has few elements.
    #[error("it has {0} elements or fewer")]
    Small(usize),
}

/// Every float constant of more than one element that some op reads, in program order. Those of at most `threshold`
/// elements are left alone.
pub fn weights(module: &Module, threshold: usize) -> Vec<Weight> {
    let mut all = vec![];
    for (function, f) in module.functions.iter().enumerate() {
        for op in f.all_ops() {
            let Some(tensor) = f.op::<Const>(op).map(|c| &c.val) else { continue };
            let Some(value) = f.op_data(op).results.first().copied() else { continue };
            if !matches!(f.ty(value), Type::Tensor(t) if t.dtype.is_float())
                || tensor.count() < 2
                || feeds_constexpr(f, value)
            {
                continue;
            }
            let readers = readers(f, value);
            let hint = &f.value(value).hint;
            let name = if module.functions.len() > 1 { format!("{}.{hint}", f.name) } else { hint.to_string() };
            let mut sources = vec![];
            for id in std::iter::once(op).chain(readers.iter().copied()) {
                for s in f.op_data(id).origin.map(|o| module.origins.sources(o)).unwrap_or_default() {
                    sources.extend([s.node.to_string(), s.module.to_string()]);
                }
            }
            sources.retain(|s| !s.is_empty());
            sources.dedup();
            let readers_named = readers.iter().map(|id| reader(module, f, *id)).collect();
            let role = role(f, value, &readers, tensor, threshold);
            all.push(Weight {
                function,
                op,
                value,
                name,
                sources,
                readers: readers_named,
                tensor: tensor.clone(),
                role,
            });
        }
    }
    all
}

/// Whether only ops that decode weights read `v`: then it is a part of a compressed weight.
fn feeds_constexpr(f: &Function, v: Value) -> bool {
    f.uses(v).iter().any(|u| matches!(u, Use::Op(id) if f.op_data(*id).op.schema().constexpr))
}

fn reader(module: &Module, f: &Function, id: OpId) -> Reader {
    let data = f.op_data(id);
    let hints = || data.results.iter().map(|v| f.value(*v).hint.to_string());
    let mut names: Vec<String> = hints().collect();
    if names.len() > 1 {
        // Several results are called by the op's name and a number.
        names.extend(hints().filter_map(|h| Some(h.rsplit_once('_')?.0.to_owned())));
    }
    names.extend(data.origin.into_iter().flat_map(|o| module.origins.sources(o)).map(|s| s.node.to_string()));
    names.retain(|n| !n.is_empty());
    names.dedup();
    Reader { op: data.op.schema().name, names }
}

fn readers(f: &Function, v: Value) -> Vec<OpId> {
    let mut ids: Vec<OpId> = vec![];
    for u in f.uses(v) {
        if let Use::Op(id) = u
            && !ids.contains(id)
        {
            ids.push(*id);
        }
    }
    ids
}

fn role(f: &Function, v: Value, readers: &[OpId], t: &Tensor, threshold: usize) -> Result<Role, Left> {
    if f.uses(v).iter().any(|u| matches!(u, Use::Yield(_))) {
        return Err(Left::Output);
    }
    let mut found = None;
    for id in readers {
        let role = parameter(f, *id, v, t.shape().len()).ok_or(Left::Reader(f.op_data(*id).op.schema().name))?;
        if *found.get_or_insert(role) != role {
            return Err(Left::Axes);
        }
    }
    if t.shape().len() < 2 {
        return Err(Left::Vector);
    }
    if t.count() <= threshold {
        return Err(Left::Small(threshold));
    }
    found.ok_or(Left::Reader("nothing"))
}

/// The role of `v`, of rank `rank`, as a parameter of `id`; `None` where it is none.
fn parameter(f: &Function, id: OpId, v: Value, rank: usize) -> Option<Role> {
    let rows = Role { output: 0, input: 1 };
    let columns = Role { output: 1, input: 0 };
    if let Some(op) = f.op::<Conv>(id) {
        return (op.weight == v).then_some(rows);
    }
    if let Some(op) = f.op::<ConvTranspose>(id) {
        return (op.weight == v).then_some(columns);
    }
    if let Some(op) = f.op::<Linear>(id) {
        return (op.weight == v).then_some(rows);
    }
    if let Some(op) = f.op::<Gather>(id) {
        return (op.x == v && rank >= 2).then_some(rows);
    }
    if let Some(op) = f.op::<Lstm>(id) {
        let weights = [Some(op.weight_ih), Some(op.weight_hh), op.weight_ih_back, op.weight_hh_back];
        return weights.contains(&Some(v)).then_some(rows);
    }
    if let Some(op) = f.op::<Gru>(id) {
        return [op.weight_ih, op.weight_hh].contains(&v).then_some(rows);
    }
    if let Some(op) = f.op::<Rnn>(id) {
        return [op.weight_ih, op.weight_hh].contains(&v).then_some(rows);
    }
    let last = |transposed: bool| {
        let (a, b) = (rank.checked_sub(2)?, rank.checked_sub(1)?);
        Some(if transposed { Role { output: a, input: b } } else { Role { output: b, input: a } })
    };
    if let Some(op) = f.op::<Matmul>(id) {
        return match (op.x == v, op.y == v) {
            (false, true) => last(op.transpose_y),
            // The rows of `x` are the outputs.
            (true, false) => last(!op.transpose_x),
            _ => None,
        };
    }
    f.op::<Einsum>(id).and_then(|_| last(false))
}
