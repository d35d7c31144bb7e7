//! The convolution that goes before linear attention.

use super::Result;
use mlconv_mil::{ir::Value, ops};
use mlconv_source::{Entry, Lower, LowerError, Lowered, Size};

pub(super) fn causal_conv(n: &mut Lower<'_>) -> Lowered {
    let (x, weight, bias, past) = (n.input(0)?, n.input(1)?, n.optional(2)?, n.optional(3)?);
    let (groups, kernel) = match n.fixed_shape(weight, "the kernel")?.as_slice() {
        [channels, 1, kernel] if *channels > 0 && *kernel > 0 => (*channels, *kernel),
        _ => return Err(LowerError::form("a weight that is not one kernel per channel")),
    };
    if n.rank(x)? != 3 {
        return Err(LowerError::form("an input that is not of rank 3"));
    }
    let silu = match n.str_or("activation", "none")? {
        "none" | "" => false,
        "silu" | "swish" => true,
        _ => return n.bad_attr("activation", "`none`, `silu` or `swish`"),
    };
    let padded = padded(n, x, past, kernel - 1)?;
    let fused = bias.filter(|b| n.const_of(*b).is_some());
    let mut y = n.op(ops::Conv {
        x: padded,
        weight,
        bias: fused,
        strides: vec![1],
        pad_type: ops::PadType::Valid,
        pad: vec![0, 0],
        dilations: vec![1],
        groups,
    })?;
    if let Some(bias) = bias.filter(|b| fused != Some(*b)) {
        let bias = n.reshape_to(bias, &[1, -1, 1])?;
        y = n.add(y, bias)?;
    }
    if silu {
        y = n.op(ops::Silu { x: y })?;
    }
    let mut results = vec![Entry::Value(y)];
    if n.wants(1) {
        if kernel == 1 {
            return Err(LowerError::core_ml("a state of no elements"));
        }
        results.push(Entry::Value(n.slice(padded, 2, 1 - kernel, None)?));
    }
    Ok(results)
}

/// `x` after the `before` elements of `past`, or as many zeros.
fn padded(n: &mut Lower<'_>, x: Value, past: Option<Value>, before: i64) -> Result<Value> {
    match past {
        _ if before == 0 => Ok(x),
        Some(past) => n.concat(vec![past, x], 2),
        None => {
            let zeros = n.zeros(x, &[Size::Of(x, 0), Size::Of(x, 1), Size::Known(before)])?;
            n.concat(vec![zeros, x], 2)
        }
    }
}
