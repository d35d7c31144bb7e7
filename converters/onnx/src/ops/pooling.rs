//! Poolings.

use super::convolution::window;
use crate::LATEST;
use mlconv_mil::{ir::Value, ops};
use mlconv_source::{
    Entry, Lower, LowerError, Lowered,
    layers::{
        convolution::{Window, spatial_sizes},
        pooling::{Mean, greatest, greatest_with_places, mean, norm, power, root},
    },
};
use mlconv_tensor::{DType, Tensor};

rows! {
    "AveragePool" 1..=LATEST => |n| { let x = n.input(0)?; let y = averaged(n, x)?; n.done(y) };
    "GlobalAveragePool" 1..=LATEST => |n| {
        let (x, axes) = (n.input(0)?, spatial_axes(n)?);
        n.emit(ops::ReduceMean { x, axes, keep_dims: true })
    };
    "GlobalLpPool" 2..=LATEST => global_lp_pool;
    "GlobalMaxPool" 1..=LATEST => |n| {
        let (x, axes) = (n.input(0)?, spatial_axes(n)?);
        n.emit(ops::ReduceMax { x, axes, keep_dims: true })
    };
    "LpPool" 2..=LATEST => lp_pool;
    "MaxPool" 1..=LATEST => max_pool;
}

type Result<T, E = LowerError> = std::result::Result<T, E>;

fn spatial_axes(n: &mut Lower<'_>) -> Result<Option<Vec<i64>>> {
    let x = n.input(0)?;
    match n.rank(x)? as i64 {
        rank @ 3.. => Ok(Some((2..rank).collect())),
        rank => Err(LowerError::core_ml(format!("a pooling of rank {rank}"))),
    }
}

fn kernel_shape(n: &Lower<'_>) -> Result<Vec<i64>> {
    n.ints("kernel_shape")?.ok_or(LowerError::MissingAttr { name: "kernel_shape" })
}

fn global_lp_pool(n: &mut Lower<'_>) -> Lowered {
    let (x, axes) = (n.input(0)?, spatial_axes(n)?);
    let p = n.int_or("p", 2)?;
    match p {
        1 => n.emit(ops::ReduceL1Norm { x, axes, keep_dims: true }),
        2 => n.emit(ops::ReduceL2Norm { x, axes, keep_dims: true }),
        _ => {
            let powers = power(n, x, p)?;
            let sums = n.op(ops::ReduceSum { x: powers, axes, keep_dims: true })?;
            let y = root(n, sums, p)?;
            n.done(y)
        }
    }
}

fn max_pool(n: &mut Lower<'_>) -> Lowered {
    let x = n.input(0)?;
    let window = window(n, x, kernel_shape(n)?)?;
    let ceil = n.flag("ceil_mode", false)?;
    let by_columns = n.flag("storage_order", false)?;
    if n.wants(1) {
        return max_pool_with_indices(n, x, &window, ceil, by_columns);
    }
    let y = greatest(n, x, window, ceil)?;
    n.done(y)
}

/// Places are counted through all images.
fn max_pool_with_indices(n: &mut Lower<'_>, x: Value, window: &Window, ceil: bool, by_columns: bool) -> Lowered {
    let sizes = spatial_sizes(n, x)?;
    let [value, at] = greatest_with_places(n, x, window, (ceil, by_columns))?;
    let lead = n.fixed_shape(x, "the place of an element")?;
    let image = sizes.iter().fold(1i64, |n, d| n.saturating_mul(*d));
    let Some(count) = lead[0].checked_mul(lead[1]).filter(|n| (0..1 << 24).contains(n)) else {
        return Err(LowerError::form("a pooling of such a size"));
    };
    let images: Vec<i64> = (0..count).map(|i| i.saturating_mul(image)).collect();
    let ones = std::iter::repeat_n(1, sizes.len());
    let shape: Vec<usize> = [lead[0] as usize, lead[1] as usize].into_iter().chain(ones).collect();
    let images = n.add_const(Tensor::from_i64(DType::I64, &shape, &images))?;
    let at = n.add(at, images)?;
    Ok(vec![Entry::Value(value), Entry::Value(at)])
}

/// The mean of each window of `x`, as the node's attributes say.
pub(super) fn averaged(n: &mut Lower<'_>, x: Value) -> Result<Value> {
    let window = window(n, x, kernel_shape(n)?)?;
    let ceil = n.flag("ceil_mode", false)?;
    let padded = n.flag("count_include_pad", false)?;
    mean(n, x, window, Mean { ceil, padded, divisor: None })
}

fn lp_pool(n: &mut Lower<'_>) -> Lowered {
    let x = n.input(0)?;
    let window = window(n, x, kernel_shape(n)?)?;
    let ceil = n.flag("ceil_mode", false)?;
    let p = n.int_or("p", 2)?;
    let y = norm(n, x, window, (ceil, p))?;
    n.done(y)
}
