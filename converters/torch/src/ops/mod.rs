//! The table: one row per meaning of an ATen operator, keyed by the signatures of the overloads that share it.
//!
//! A file holds a family: its rows on top, and below them the functions that are longer than a line. A row reads its
//! arguments by the names that the signature gives them.

use crate::{functional, schema::Signature};
use mlconv_source::{Arg, Lower, Lowered, Node, Row, Table};
use std::{collections::HashMap, sync::LazyLock};

/// Rows of a family: `"signature", "another", … => lowering;`.
macro_rules! aten {
    ($($($signature:literal),+ => $lower:expr;)*) => {
        pub(crate) static ROWS: &[crate::ops::Aten] = &[$(crate::ops::Aten { signatures: &[$($signature),+], lower: $lower }),*];
    };
}

/// A row of a family.
pub(crate) struct Aten {
    /// What it is for, as `domain::name.overload(…)`; the domain `aten` is left out.
    pub(crate) signatures: &'static [&'static str],
    pub(crate) lower: fn(&mut Lower<'_>) -> Lowered,
}

/// The families; a line here declares the module and adds its rows.
macro_rules! families {
    ($($family:ident),* $(,)?) => {
        $(mod $family;)*
        static FAMILIES: &[&[Aten]] = &[$($family::ROWS),*];
    };
}

families! {
    activation,
    attention,
    bits,
    control,
    convolution,
    creation,
    diagonal,
    distinct,
    embedding,
    fourier,
    functions,
    index,
    join,
    linear,
    loss,
    movement,
    normalization,
    norms,
    order,
    padding,
    pointwise,
    pooling,
    quantized,
    random,
    recurrent,
    reduction,
    resampling,
    scatter,
    special,
    statistics,
    symbolic,
    systems,
    transformer,
    types,
    vision,
}

mod promote;

/// A signature with its domain, and how its operator is lowered.
type Signed = (&'static str, Signature, fn(&mut Lower<'_>) -> Lowered);

/// Every signature with its domain.
static SIGNATURES: LazyLock<Vec<Signed>> = LazyLock::new(|| {
    let rows = FAMILIES.iter().copied().flatten();
    let all = rows.flat_map(|row| row.signatures.iter().map(|text| (*text, row.lower)));
    all.filter_map(|(text, lower)| {
        let name = &text[..text.find('(').unwrap_or(text.len())];
        let (domain, rest) =
            name.split_once("::").map_or(("aten", text), |(domain, _)| (domain, &text[domain.len() + 2..]));
        Some((domain, Signature::parse(rest)?, lower))
    })
    .collect()
});

static INDEX: LazyLock<HashMap<(&'static str, &'static str), usize>> =
    LazyLock::new(|| SIGNATURES.iter().enumerate().map(|(i, (domain, s, _))| ((*domain, s.name), i)).collect());

static ROWS: LazyLock<Vec<Row>> = LazyLock::new(|| {
    let row = |(domain, s, lower): &Signed| Row {
        domain,
        op: s.name,
        versions: 0..=0,
        lower: *lower,
        defaults: s.params.iter().filter_map(|p| Some((p.name, p.default.clone()?))).collect(),
    };
    SIGNATURES.iter().map(row).collect()
});

/// Every row, by operator.
pub fn table() -> &'static Table {
    static TABLE: LazyLock<Table> = LazyLock::new(|| Table::new(ROWS.iter(), &[], &[]));
    &TABLE
}

/// Every signature with its domain, by family.
pub fn signatures() -> impl Iterator<Item = (&'static str, &'static Signature)> {
    SIGNATURES.iter().map(|(domain, s, _)| (*domain, s))
}

/// The signatures of the overloads of `op`, or the one overload that it names; of what writes its argument, those of its
/// twins.
pub(crate) fn overloads(domain: &str, op: &str) -> impl Iterator<Item = &'static Signature> {
    let (base, overload) = op.split_once('.').map_or((op, None), |(base, o)| (base, Some(o.to_owned())));
    let plain = twin(domain, base).unwrap_or_else(|| base.to_owned());
    let (base, domain) = (base.to_owned(), domain.to_owned());
    SIGNATURES.iter().filter(move |(d, ..)| *d == domain).map(|(_, s, _)| s).filter(move |s| {
        let (name, own) = s.name.split_once('.').map_or((s.name, None), |(n, o)| (n, Some(o)));
        (name == base || name == plain) && overload.as_deref().is_none_or(|o| own == Some(o))
    })
}

/// Operators of Python that write their argument, each with the one that does not.
const IN_PLACE: &[(&str, &str)] = &[
    ("__iand__", "__and__"),
    ("__ior__", "__or__"),
    ("__ixor__", "__xor__"),
    ("__ilshift__", "__lshift__"),
    ("__irshift__", "__rshift__"),
];

/// The operator, with its overload, that computes what one that writes its argument puts there; of others nothing.
pub(crate) fn twin(domain: &str, op: &str) -> Option<String> {
    let (name, overload) = op.split_once('.').map_or((op, None), |(n, o)| (n, Some(o)));
    // Python calls `and` and `or` so where they are functions.
    if domain == "_operator" {
        return None;
    }
    let plain = match IN_PLACE.iter().find(|(own, _)| *own == name) {
        Some((_, plain)) => plain,
        None if name.starts_with('_') || name.ends_with("__") => return None,
        None => name.strip_suffix('_')?,
    };
    Some(overload.map_or_else(|| plain.to_owned(), |o| format!("{plain}.{o}")))
}

/// An operator that writes its argument, of the overload of its twin.
pub(crate) fn in_place(op: &str, twin: &str) -> String {
    let base = op.split('.').next().unwrap_or(op);
    twin.split_once('.').map_or_else(|| base.to_owned(), |(_, overload)| format!("{base}.{overload}"))
}

/// The signature of a node's operator; of one that writes its argument, that of its twin.
pub(crate) fn signature(node: &Node) -> Option<&'static Signature> {
    let at = INDEX.get(&(&*node.domain, &*node.op)).copied();
    let twin = || {
        let twin = twin(&node.domain, &node.op)?;
        INDEX.get(&(&*node.domain, twin.as_str())).copied()
    };
    Some(&SIGNATURES[at.or_else(twin)?].1)
}

/// Whether what an operator gives depends on how its argument lies in memory. A node of it has `self_layout` where that is
/// not in order.
pub(crate) fn asks_layout(op: &str) -> bool {
    let base = op.split('.').next().unwrap_or(op);
    matches!(
        base,
        "as_strided" | "as_strided_scatter" | "stride" | "sym_stride" | "sym_storage_offset" | "storage_offset"
    )
}

/// Arguments that say where results lie and how, which is nothing that a program computes.
const ABOUT_MEMORY: &[&str] =
    &["device", "layout", "pin_memory", "non_blocking", "memory_format", "copy", "generator", "dtype_layout"];

/// Whether an argument of this name is about memory.
pub(crate) fn is_about_memory(name: &str) -> bool {
    ABOUT_MEMORY.contains(&name)
}

/// Gives a node its arguments, by name; those without one get the name that their position has in the signature.
/// Arguments that equal their default, and such about memory, are left out.
pub(crate) fn bind(node: &mut Node, args: Vec<(Option<&str>, usize, Arg)>) -> Result<(), String> {
    let signature = signature(node);
    for (name, position, arg) in args {
        let param = match (name, signature) {
            (Some(name), Some(s)) => s.param(name),
            (None, Some(s)) => s.params.get(position),
            (_, None) => None,
        };
        let name = match (name, param) {
            (Some(name), _) => name,
            (None, Some(p)) => p.name,
            // Without a row there is nothing to bind to; the driver says so.
            (None, None) => {
                node.inputs.push(arg);
                continue;
            }
        };
        let is_default = param.and_then(|p| p.default.as_ref()).is_some_and(|d| d.same(&arg));
        if is_default {
            continue;
        }
        if ABOUT_MEMORY.contains(&name) {
            functional::note_copies(node, name, &arg);
            continue;
        }
        if node.attrs.insert(name.into(), arg).is_some() {
            return Err(format!("node `{}` has the argument `{name}` twice", node.name));
        }
    }
    Ok(())
}
