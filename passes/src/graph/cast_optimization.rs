//! Removes casts that others make useless.

use crate::{Fit, Matcher, Miss, Pass, Run, rules};
use mlconv_mil::ops::Cast;
use mlconv_tensor::{DType, Type};

pub(crate) static PASS: Pass = Pass {
    name: "cast_optimization",
    doc: "Joins a cast with the cast before it, where the first one loses nothing.",
    changes_precision: false,
    after: &[],
    run: Run::Rules(rules![after_cast]),
};

fn after_cast(cast: &Cast, m: &Matcher<'_>) -> Fit {
    let before = m.def::<Cast>(cast.x)?;
    let Type::Tensor(source) = m.ty(before.x) else { return Err(Miss::No) };
    m.require(lossless(source.dtype, before.dtype), "the cast before it loses values")?;
    if source.dtype == cast.dtype {
        return Ok(m.alias(before.x));
    }
    Ok(m.replace(Cast { x: before.x, ..cast.clone() }))
}

/// Whether every value of `from` is one of `to`.
fn lossless(from: DType, to: DType) -> bool {
    match (from.int_range(), to.int_range()) {
        (Some((lo, hi)), Some((l, h))) => l <= lo && hi <= h && to != DType::Bool,
        (Some((lo, hi)), None) => {
            // Integers up to two to the power of the mantissa are exact.
            let exact: i128 = match to {
                DType::F64 => 1 << 53,
                DType::F32 => 1 << 24,
                DType::F16 => 1 << 11,
                _ => return false,
            };
            -exact <= lo && hi <= exact
        }
        (None, None) => match (from, to) {
            (a, b) if a == b => true,
            (DType::F16 | DType::Bf16, DType::F32 | DType::F64) | (DType::F32, DType::F64) => true,
            _ => false,
        },
        (None, Some(_)) => false,
    }
}
