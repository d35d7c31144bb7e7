//! Multiply-accumulates: products that are added up.

use super::Sizes;
use mlconv_mil::{
    ir::{Function, Module, OpId},
    schema::InferCx,
};
use mlconv_tensor::{Dim, Shape};
use serde::Serialize;
use std::{cmp::Reverse, collections::BTreeMap};

/// How many of the ops with the most products are listed.
const TOP: usize = 10;

/// The products that ops of a function add up. Each op counts once: the body of a loop as one turn, and all branches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Macs {
    /// Of all ops; at most 2^64 - 1.
    pub total: u64,
    /// Ops that add up products of which it is not known how many there are, as sizes depend on data.
    pub uncounted: usize,
    /// By type of op, the most first.
    pub by_op: Vec<OpMacs>,
    /// The ops with the most.
    pub top: Vec<Busy>,
}

/// The products of ops of one type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OpMacs {
    /// The type of op.
    pub op: String,
    /// How many ops.
    pub count: usize,
    /// Their products.
    pub macs: u64,
}

/// An op with many products.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Busy {
    /// The name of its first result.
    pub name: String,
    /// Its type.
    pub op: String,
    /// The type of its first result.
    #[serde(rename = "type")]
    pub ty: String,
    /// Nodes of the source that it comes from.
    pub place: Vec<String>,
    /// Its products.
    pub macs: u64,
}

/// The products that an op adds up, over the sizes of the function; `None` for an op that is no sum of products.
pub fn macs(f: &Function, id: OpId) -> Option<Dim> {
    let data = f.op_data(id);
    let scalar = Shape::scalar();
    let result = data.results.first().and_then(|v| f.ty(*v).tensor()).map_or(&scalar, |t| &t.shape);
    data.op.macs(&InferCx::new(f, f.opset, id.index()), result)
}

/// The same at default sizes; `None` as well where they depend on data, or there are no products.
pub fn macs_by_default(module: &Module, f: &Function, id: OpId) -> Option<u64> {
    let sizes = Sizes { symbols: &module.symbols };
    macs(f, id).and_then(|n| sizes.size(&n)).filter(|n| *n > 0)
}

impl Macs {
    pub(super) fn of(module: &Module, f: &Function, sizes: &Sizes<'_>) -> Self {
        let (mut uncounted, mut kinds, mut all) = (0, BTreeMap::<&str, (usize, u64)>::new(), vec![]);
        let mut total = 0u64;
        for id in f.all_ops() {
            let Some(count) = macs(f, id) else { continue };
            let Some(count) = sizes.size(&count) else {
                uncounted += 1;
                continue;
            };
            let entry = kinds.entry(f.op_data(id).op.name()).or_default();
            *entry = (entry.0 + 1, entry.1.saturating_add(count));
            total = total.saturating_add(count);
            all.push((count, id));
        }
        // The sort is stable: equal ones stay in program order.
        all.sort_by_key(|(count, _)| Reverse(*count));
        let top = all.into_iter().take(TOP).map(|(macs, id)| busy(module, f, id, macs)).collect();
        let kind = |(op, (count, macs)): (&str, (usize, u64))| OpMacs { op: op.to_owned(), count, macs };
        let mut by_op: Vec<OpMacs> = kinds.into_iter().map(kind).collect();
        by_op.sort_by_key(|o| Reverse(o.macs));
        Self { total, uncounted, by_op, top }
    }
}

fn busy(module: &Module, f: &Function, id: OpId, macs: u64) -> Busy {
    let data = f.op_data(id);
    let first = data.results.first();
    Busy {
        name: first.map_or_else(String::new, |v| f.value(*v).hint.to_string()),
        op: data.op.name().to_owned(),
        ty: first.map_or_else(String::new, |v| f.ty(*v).to_string()),
        place: data.origin.into_iter().flat_map(|o| module.origins.sources(o)).map(|s| s.node.to_string()).collect(),
        macs,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::Costs;

    /// The products of each op of a function that has these inputs and this body, in program order.
    fn counts(inputs: &str, body: &str) -> Vec<Option<u64>> {
        let text = format!("func @main({inputs}) ios18 {{\n{body}\n  return %y\n}}\n");
        let module = mlconv_mil::text::parse(&text).unwrap_or_else(|e| panic!("{e}"));
        let f = &module.functions[0];
        let sizes = Sizes { symbols: &module.symbols };
        f.all_ops().into_iter().filter_map(|id| Some(sizes.size(&macs(f, id)?))).collect()
    }

    #[test]
    fn products_are_those_of_the_definitions() {
        let one = |inputs: &str, body: &str| counts(inputs, body)[0];
        let conv = "%x: f32[2, 4, 5, 6], %w: f32[8, 2, 3, 3]";
        let pad = "pad_type=\"same\", groups=2";
        assert_eq!(one(conv, &format!("  %y = conv(x=%x, weight=%w, {pad})")), Some(2 * 8 * 5 * 6 * (2 * 3 * 3)));
        let spread = "%x: f32[1, 4, 5], %w: f32[4, 3, 2]";
        assert_eq!(one(spread, "  %y = conv_transpose(x=%x, weight=%w)"), Some(4 * 5 * (3 * 2)));
        let matrices = "%a: f32[3, 2, 4], %b: f32[5, 4]";
        assert_eq!(one(matrices, "  %y = matmul(x=%a, y=%b, transpose_y=true)"), Some(3 * 2 * 5 * 4));
        let vectors = "%a: f32[4], %b: f32[4]";
        assert_eq!(one(vectors, "  %y = matmul(x=%a, y=%b)"), Some(4));
        let sums = "%a: f32[2, 3, 4, 5], %b: f32[2, 5, 4, 7]";
        let equation = "  %y = einsum(values=(%a, %b), equation=\"nchw,nwhu->nchu\")";
        assert_eq!(one(sums, equation), Some(2 * 3 * 4 * 5 * 7));
        let attention = "%q: f32[2, 3, 4], %k: f32[2, 5, 4], %v: f32[2, 5, 6]";
        let y = "  %y = scaled_dot_product_attention(query=%q, key=%k, value=%v)";
        assert_eq!(one(attention, y), Some(2 * 3 * 5 * (4 + 6)));
        assert_eq!(counts("%x: f32[3]", "  %y = relu(x=%x)"), []);
    }

    #[test]
    fn sizes_that_depend_on_data_are_not_guessed() {
        let body = "  %i = non_zero(x=%x)\n  %c = cast(x=%i, dtype=\"fp32\")\n  %y = matmul(x=%c, y=%w)";
        let inputs = "%x: f32[4], %w: f32[1, 3]";
        assert_eq!(counts(inputs, body), [None]);
        let text = format!("func @main({inputs}) ios18 {{\n{body}\n  return %y\n}}\n");
        let module = mlconv_mil::text::parse(&text).unwrap_or_else(|e| panic!("{e}"));
        let costs = Costs::of(&module, &module.functions[0]);
        assert_eq!((costs.macs.total, costs.macs.uncounted), (0, 1));
        assert!(costs.memory.unknown > 0, "{costs:?}");
    }
}
