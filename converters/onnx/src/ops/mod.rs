//! The table: one row per *meaning* of an operator, not per release of it.
//!
//! A file holds a family: its rows on top, and below them the functions that are longer than a line. A row reads every
//! argument by name, computes, and emits; what a shape comes to is the business of the ops' own inference.

use mlconv_source::{Row, Table};
use std::sync::LazyLock;

/// Rows of a family: `"Op" versions => lowering;`, where the lowering is a function or a closure over
/// [`Lower`](mlconv_source::Lower).
macro_rules! rows {
    ($($(#[$domain:literal])? $op:literal $versions:expr => $lower:expr;)*) => {
        pub(crate) static ROWS: &[mlconv_source::Row] = &[$(mlconv_source::Row {
            domain: rows!(@domain $($domain)?), op: $op, versions: $versions, lower: $lower, defaults: Vec::new(),
        }),*];
    };
    (@domain) => { "" };
    (@domain $domain:literal) => { $domain };
}

/// The families; a line here declares the module and adds its rows.
macro_rules! families {
    ($($family:ident),* $(,)?) => {
        $(mod $family;)*
        static FAMILIES: &[&[mlconv_source::Row]] = &[$($family::ROWS),*];
    };
}

families! {
    activation,
    attention,
    bitwise,
    blocks,
    constant,
    control,
    convolution,
    deformable,
    determinant,
    distinct,
    dropout,
    elementwise,
    features,
    generator,
    grid,
    index,
    join,
    linear,
    linear_attention,
    loss,
    normalization,
    order,
    pooling,
    q_linear,
    quantize,
    random,
    recurrent,
    reduction,
    resize,
    roi,
    sequence,
    shape,
    signal,
    softmax,
    space,
    suppression,
    text,
    unpooling,
}

mod alike;
mod exact;
mod without;

pub use without::WITHOUT;

/// Every row, by operator.
pub fn table() -> &'static Table {
    static TABLE: LazyLock<Table> = LazyLock::new(|| Table::new(rows(), WITHOUT, alike::ALIKE));
    &TABLE
}

/// Every row, by family.
pub fn rows() -> impl Iterator<Item = &'static Row> {
    FAMILIES.iter().copied().flatten()
}
