//! What constants hold, by how they are stored.

use mlconv_mil::{
    ir::{Function, OpId, Use, Value},
    ops::Const,
};
use mlconv_tensor::{DType, Tensor};
use serde::Serialize;
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

/// The constants that ops read. What several of them share counts once.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Weights {
    /// Elements of floats with at least one axis, as ops see them: compressed ones decoded.
    pub parameters: u64,
    /// The bytes that they and all other constants are stored in.
    pub bytes: u64,
    /// Bits stored for each parameter, on average; `None` where there are none.
    pub bits_per_parameter: Option<f64>,
    /// By how they are stored, the most bytes first.
    pub kinds: Vec<WeightKind>,
}

/// Constants that are stored alike.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WeightKind {
    /// The element type, such as `f16`, or what is stored in its place, such as `palette of 4 bits, f16`.
    pub stored: String,
    /// Whether it is a compressed form.
    pub compressed: bool,
    /// How many constants.
    pub count: usize,
    /// Their elements, as ops see them.
    pub elements: u64,
    /// The bytes that they are stored in, tables and scales included.
    pub bytes: u64,
    /// Bits stored for each element, on average; `None` where there are none.
    pub bits: Option<f64>,
}

impl Weights {
    /// Of functions of one module.
    pub fn of<'f>(functions: impl IntoIterator<Item = &'f Function>) -> Self {
        let (mut seen, mut kinds) = (BTreeSet::new(), BTreeMap::<(String, bool), WeightKind>::new());
        let (mut parameters, mut parameter_bytes) = (0u64, 0u64);
        for f in functions {
            for id in f.all_ops() {
                let Some(weight) = weight(f, id) else { continue };
                let mut bytes = 0u64;
                for t in &weight.parts {
                    if seen.insert((t.blob().storage(), t.dtype(), t.count())) {
                        bytes += t.blob().len() as u64;
                    }
                }
                if bytes == 0 {
                    continue;
                }
                let compressed = weight.form.is_some();
                let dtype = weight.dtype.name();
                let stored = weight.form.map_or_else(|| dtype.to_owned(), |form| format!("{form}, {dtype}"));
                let empty =
                    || WeightKind { stored: stored.clone(), compressed, count: 0, elements: 0, bytes: 0, bits: None };
                let kind = kinds.entry((stored.clone(), compressed)).or_insert_with(empty);
                kind.count += 1;
                kind.elements = kind.elements.saturating_add(weight.elements);
                kind.bytes = kind.bytes.saturating_add(bytes);
                if weight.dtype.is_float() && !weight.scalar {
                    parameters = parameters.saturating_add(weight.elements);
                    parameter_bytes = parameter_bytes.saturating_add(bytes);
                }
            }
        }
        let mut kinds: Vec<WeightKind> = kinds.into_values().collect();
        for kind in &mut kinds {
            kind.bits = per_element(kind.bytes, kind.elements);
        }
        kinds.sort_by_key(|k| Reverse(k.bytes));
        let bytes = kinds.iter().fold(0, |n: u64, k| n.saturating_add(k.bytes));
        Self { parameters, bytes, bits_per_parameter: per_element(parameter_bytes, parameters), kinds }
    }
}

impl Weights {
    /// Of tensors that a file holds; all count, those that share bytes as well.
    pub fn stored<'t>(tensors: impl IntoIterator<Item = &'t Tensor>) -> Self {
        let (mut all, mut parameter_bytes) = (Self::default(), 0u64);
        for t in tensors {
            let (bytes, elements) = (t.blob().len() as u64, t.count() as u64);
            all.bytes = all.bytes.saturating_add(bytes);
            if t.dtype().is_float() && !t.shape().is_empty() {
                all.parameters = all.parameters.saturating_add(elements);
                parameter_bytes = parameter_bytes.saturating_add(bytes);
            }
        }
        Self { bits_per_parameter: per_element(parameter_bytes, all.parameters), ..all }
    }
}

fn per_element(bytes: u64, elements: u64) -> Option<f64> {
    (elements > 0).then(|| bytes as f64 * 8.0 / elements as f64)
}

/// A constant as ops see it.
struct Weight<'f> {
    dtype: DType,
    scalar: bool,
    elements: u64,
    /// What it is decoded from, where it is compressed.
    form: Option<String>,
    /// What is stored.
    parts: Vec<&'f Tensor>,
}

/// The constant that `id` is, or is the last to decode; `None` for what is a part of another one.
fn weight(f: &Function, id: OpId) -> Option<Weight<'_>> {
    let data = f.op_data(id);
    // Of several results, the last one is the elements.
    let v = *data.results.last()?;
    if data.results.iter().any(|v| is_part(f, *v)) {
        return None;
    }
    if let Some(c) = f.op::<Const>(id) {
        let t = &c.val;
        let (elements, scalar) = (t.count() as u64, t.shape().is_empty());
        return Some(Weight { dtype: t.dtype(), scalar, elements, form: None, parts: vec![t] });
    }
    if !data.op.schema().constexpr {
        return None;
    }
    let ty = f.ty(v).tensor()?;
    let elements = ty.shape.known()?.iter().fold(1u64, |n, d| n.saturating_mul(*d as u64));
    let (mut parts, mut forms) = (vec![], vec![]);
    let (mut todo, mut met) = (vec![id], BTreeSet::new());
    while let Some(id) = todo.pop() {
        if !met.insert(id) {
            continue;
        }
        if let Some(c) = f.op::<Const>(id) {
            parts.push(&c.val);
            continue;
        }
        forms.extend(form(f, id));
        f.op_data(id).op.visit_operands(&mut |v| todo.extend(f.def_op(v)));
    }
    Some(Weight { dtype: ty.dtype, scalar: false, elements, form: Some(forms.join(", ")), parts })
}

/// Whether only ops that decode weights read `v`.
fn is_part(f: &Function, v: Value) -> bool {
    let decodes = |u: &Use| matches!(u, Use::Op(id) if f.op_data(*id).op.schema().constexpr);
    !f.uses(v).is_empty() && f.uses(v).iter().all(decodes)
}

/// What an op decodes, by its type and the element type of its codes.
fn form(f: &Function, id: OpId) -> Option<String> {
    let op = &f.op_data(id).op;
    let operand = |names: &[&str]| {
        let of = op.args().into_iter().find(|a| names.contains(&a.name))?;
        of.operands().first().and_then(|v| f.ty(*v).tensor()).cloned()
    };
    let name = op.name();
    Some(match name {
        "constexpr_lut_to_dense" | "constexpr_lut_to_sparse" => {
            let lut = operand(&["lut"])?;
            // The table has its entries along the last axis but one, in the form of iOS 16 along the only one.
            let axis = lut.shape.rank().saturating_sub(2);
            let entries = lut.shape.get(axis).and_then(mlconv_tensor::Dim::as_usize).unwrap_or(1).max(1);
            format!("palette of {} bits", entries.ilog2())
        }
        "constexpr_affine_dequantize" | "constexpr_blockwise_shift_scale" => {
            format!("linear {}", operand(&["quantized_data", "data"])?.dtype.name())
        }
        "constexpr_sparse_blockwise_shift_scale" => format!("linear {}", operand(&["nonzero_data"])?.dtype.name()),
        "constexpr_sparse_to_dense" => "sparse".to_owned(),
        _ => return None,
    })
}
