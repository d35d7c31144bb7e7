//! Poolings.

use super::convolution::{per_dimension, with_images, without_images};
use mlconv_mil::{
    ir::Value,
    ops::{self, ScatterMode},
};
use mlconv_source::{
    Entry, Lower, LowerError, Lowered,
    layers::{
        convolution::{Padding, Window, spatial_sizes},
        pooling::{Mean, greatest, greatest_with_places, mean},
        resize::along,
        space::put_back,
    },
};
use mlconv_tensor::{DType, Tensor};

aten! {
    "avg_pool1d(Tensor self, int[1] kernel_size, int[1] stride=[], int[1] padding=0, bool ceil_mode=False, bool count_include_pad=True) -> Tensor" => |n| avg_pool(n, 1);
    "avg_pool2d(Tensor self, int[2] kernel_size, int[2] stride=[], int[2] padding=0, bool ceil_mode=False, bool count_include_pad=True, int? divisor_override=None) -> Tensor" => |n| avg_pool(n, 2);
    "avg_pool3d(Tensor self, int[3] kernel_size, int[3] stride=[], int[3] padding=0, bool ceil_mode=False, bool count_include_pad=True, int? divisor_override=None) -> Tensor" => |n| avg_pool(n, 3);
    "max_pool1d(Tensor self, int[1] kernel_size, int[1] stride=[], int[1] padding=0, int[1] dilation=1, bool ceil_mode=False) -> Tensor" => |n| max_pool(n, 1, false);
    "max_pool2d(Tensor self, int[2] kernel_size, int[2] stride=[], int[2] padding=0, int[2] dilation=1, bool ceil_mode=False) -> Tensor" => |n| max_pool(n, 2, false);
    "max_pool3d(Tensor self, int[3] kernel_size, int[3] stride=[], int[3] padding=0, int[3] dilation=1, bool ceil_mode=False) -> Tensor" => |n| max_pool(n, 3, false);
    "max_pool1d_with_indices(Tensor self, int[1] kernel_size, int[1] stride=[], int[1] padding=0, int[1] dilation=1, bool ceil_mode=False) -> (Tensor, Tensor)" => |n| max_pool(n, 1, true);
    "max_pool2d_with_indices(Tensor self, int[2] kernel_size, int[2] stride=[], int[2] padding=0, int[2] dilation=1, bool ceil_mode=False) -> (Tensor, Tensor)" => |n| max_pool(n, 2, true);
    "max_pool3d_with_indices(Tensor self, int[3] kernel_size, int[3] stride=[], int[3] padding=0, int[3] dilation=1, bool ceil_mode=False) -> (Tensor, Tensor)" => |n| max_pool(n, 3, true);
    "adaptive_avg_pool1d(Tensor self, int[1] output_size) -> Tensor" => |n| adaptive_mean(n, 1);
    "adaptive_avg_pool2d(Tensor self, SymInt[2] output_size) -> Tensor", "_adaptive_avg_pool2d(Tensor self, SymInt[2] output_size) -> Tensor" => |n| adaptive_mean(n, 2);
    "adaptive_avg_pool3d(Tensor self, SymInt[3] output_size) -> Tensor", "_adaptive_avg_pool3d(Tensor self, SymInt[3] output_size) -> Tensor" => |n| adaptive_mean(n, 3);
    "adaptive_max_pool1d(Tensor self, int[1] output_size) -> (Tensor, Tensor)" => |n| adaptive_greatest(n, 1);
    "adaptive_max_pool2d(Tensor self, int[2] output_size) -> (Tensor, Tensor)" => |n| adaptive_greatest(n, 2);
    "adaptive_max_pool3d(Tensor self, int[3] output_size) -> (Tensor, Tensor)" => |n| adaptive_greatest(n, 3);
    "max_pool2d_with_indices_backward(Tensor grad_output, Tensor self, int[2] kernel_size, int[2] stride, int[2] padding, int[2] dilation, bool ceil_mode, Tensor indices) -> Tensor" => |n| slopes_put_back(n, 2);
    "max_pool3d_with_indices_backward(Tensor grad_output, Tensor self, int[3] kernel_size, int[3] stride, int[3] padding, int[3] dilation, bool ceil_mode, Tensor indices) -> Tensor" => |n| slopes_put_back(n, 3);
    "max_unpool2d(Tensor self, Tensor indices, SymInt[2] output_size) -> Tensor" => |n| max_unpool(n, 2);
    "max_unpool3d(Tensor self, Tensor indices, SymInt[3] output_size, int[3] stride, int[3] padding) -> Tensor" => |n| {
        // They say how the sizes came about.
        n.ignore("stride");
        n.ignore("padding");
        max_unpool(n, 3)
    };
}

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// The windows of a pooling; without strides, they lie side by side.
fn window(n: &Lower<'_>, spatial: usize) -> Result<Window> {
    let kernel = per_dimension(n, "kernel_size", 1, (spatial, 1))?;
    let strides = match n.ints("stride")?.filter(|s| !s.is_empty()) {
        Some(_) => per_dimension(n, "stride", 1, (spatial, 1))?,
        None => kernel.clone(),
    };
    let dilations = per_dimension(n, "dilation", 1, (spatial, 1))?;
    let pads = per_dimension(n, "padding", 0, (spatial, 0))?.into_iter().map(|p| (p, p)).collect();
    Ok(Window { kernel, strides, dilations, padding: Padding::Explicit(pads) })
}

fn avg_pool(n: &mut Lower<'_>, spatial: usize) -> Lowered {
    let source = n.value("self")?;
    // Of integers, the mean is cut off.
    let x = n.as_float(source)?;
    let window = window(n, spatial)?;
    let divisor = n.int("divisor_override")?;
    if divisor == Some(0) {
        return n.bad_attr("divisor_override", "a number other than 0");
    }
    let how = Mean { ceil: n.flag("ceil_mode", false)?, padded: n.flag("count_include_pad", true)?, divisor };
    let (x, single) = with_images(n, x, spatial)?;
    let y = mean(n, x, window, how)?;
    let y = without_images(n, y, single)?;
    let y = n.cast(y, n.dtype(source)?)?;
    n.done(y)
}

fn max_pool(n: &mut Lower<'_>, spatial: usize, with_places: bool) -> Lowered {
    let x = n.value("self")?;
    let window = window(n, spatial)?;
    let ceil = n.flag("ceil_mode", false)?;
    let (x, single) = with_images(n, x, spatial)?;
    // Often nothing asks for the places: then they need not be known.
    let places = if with_places { greatest_with_places(n, x, &window, (ceil, false)).ok() } else { None };
    let y = greatest(n, x, window, ceil)?;
    let y = without_images(n, y, single)?;
    let mut out = n.done(y)?;
    if with_places {
        out.push(match places {
            Some([_, at]) => Entry::Value(without_images(n, at, single)?),
            None => Entry::Nothing,
        });
    }
    Ok(out)
}

/// Where the cells of an axis of `size` elements begin and end.
fn cells(size: i64, count: i64) -> Vec<(i64, i64)> {
    (0..count).map(|i| (i * size / count, ((i + 1) * size + count - 1) / count)).collect()
}

/// Cells beyond which an axis is refused.
const MAX_CELLS: i64 = 1 << 16;

/// The number of cells along each dimension; -1 for as many as there are elements.
fn counts(n: &Lower<'_>, x: Value, spatial: usize) -> Result<Vec<i64>> {
    let asked = n.ints("output_size")?.unwrap_or_default();
    let asked = if asked.len() == 1 { vec![asked[0]; spatial] } else { asked };
    if asked.len() != spatial || asked.iter().any(|c| !(-1..=MAX_CELLS).contains(c) || *c == 0) {
        return n.bad_attr("output_size", format!("{spatial} sizes of at least 1"));
    }
    let shape = n.shape(x)?;
    if shape.iter().skip(2).any(|d| d.is(0)) {
        return Err(LowerError::form(format!("cells of {}", n.ty(x)?)));
    }
    let count = |(i, c): (usize, i64)| match c {
        -1 => shape[i + 2].as_known().ok_or_else(|| LowerError::NotFixed { what: "the number of cells".into() }),
        c => Ok(c),
    };
    asked.into_iter().enumerate().map(count).collect()
}

fn adaptive_mean(n: &mut Lower<'_>, spatial: usize) -> Lowered {
    let x = n.value("self")?;
    let (x, single) = with_images(n, x, spatial)?;
    let counts = counts(n, x, spatial)?;
    let y = if counts.iter().all(|c| *c == 1) {
        n.mean_over(x, &(2..spatial as i64 + 2).collect::<Vec<_>>())?
    } else {
        let sizes = spatial_sizes(n, x)?;
        if let Some(window) = even_window(&sizes, &counts) {
            mean(n, x, window, Mean { ceil: false, padded: true, divisor: None })?
        } else {
            uneven_mean(n, x, &sizes, &counts)?
        }
    };
    let y = without_images(n, y, single)?;
    n.done(y)
}

/// The window that goes over axes in as many steps, where all cells are alike.
fn even_window(sizes: &[i64], counts: &[i64]) -> Option<Window> {
    let fits = sizes.iter().zip(counts).all(|(s, c)| *s > 0 && s % c == 0);
    let kernel: Vec<i64> = sizes.iter().zip(counts).map(|(s, c)| s / c).collect();
    let ones = vec![1; sizes.len()];
    let padding = Padding::Explicit(vec![(0, 0); sizes.len()]);
    fits.then(|| Window { strides: kernel.clone(), kernel, dilations: ones, padding })
}

/// Cells of unlike sizes: along each axis, a product with a matrix of shares.
fn uneven_mean(n: &mut Lower<'_>, x: Value, sizes: &[i64], counts: &[i64]) -> Result<Value> {
    let mut y = x;
    for (i, (size, count)) in sizes.iter().zip(counts).enumerate().filter(|(_, (s, c))| s != c) {
        let elements = size.checked_mul(*count).filter(|e| *e < 1 << 26);
        let elements = elements.ok_or_else(|| LowerError::form(format!("{count} cells of {size} elements")))? as usize;
        n.affords(elements)?;
        let mut shares = vec![0.0; elements];
        for (cell, (start, end)) in cells(*size, *count).into_iter().enumerate() {
            for at in start..end {
                shares[cell * *size as usize + at as usize] = 1.0 / (end - start) as f64;
            }
        }
        let matrix = n.const_like(y, &[*count as usize, *size as usize], &shares)?;
        y = along(n, y, i + 2, matrix)?;
    }
    Ok(y)
}

/// Elements of a cell along an axis beyond which it is refused: each is an op.
const MAX_TAPS: i64 = 512;

/// The greatest element of each cell and its place in the image. A cell is a rectangle: the greatest of the greatest along
/// the last axis is found along the axis before, and so on; the first of equal ones is kept.
fn adaptive_greatest(n: &mut Lower<'_>, spatial: usize) -> Lowered {
    let source = n.value("self")?;
    let (x, single) = with_images(n, source, spatial)?;
    let counts = counts(n, x, spatial)?;
    let (dtype, x) = (n.dtype(x)?, n.as_float(x)?);
    if counts.iter().all(|c| *c == 1) && spatial_sizes(n, x).is_err() {
        let axes = Some((2..spatial as i64 + 2).collect());
        let y = n.op(ops::ReduceMax { x, axes, keep_dims: true })?;
        let y = n.cast(y, dtype)?;
        let y = without_images(n, y, single)?;
        return Ok(vec![Entry::Value(y), Entry::Nothing]);
    }
    let sizes = spatial_sizes(n, x)?;
    let (mut best, mut place): (Value, Option<Value>) = (x, None);
    let mut step = 1i64;
    for (i, (size, count)) in sizes.iter().zip(&counts).enumerate().rev() {
        let cells = cells(*size, *count);
        let longest = cells.iter().map(|(start, end)| end - start).max().unwrap_or(1);
        if longest > MAX_TAPS {
            return Err(LowerError::form(format!("cells of more than {MAX_TAPS} elements")));
        }
        let mut found: Option<(Value, Value)> = None;
        for k in 0..longest {
            // A cell that is shorter has its last element again, which is not greater.
            let places: Vec<i64> = cells.iter().map(|(start, end)| (start + k).min(end - 1)).collect();
            let here = n.gather_at(best, i + 2, &places)?;
            let mut shape = vec![1; spatial + 2];
            shape[i + 2] = places.len();
            let own: Vec<i64> = places.iter().map(|p| p.saturating_mul(step)).collect();
            let mut at = n.add_const(Tensor::from_i64(DType::I32, &shape, &own))?;
            if let Some(place) = place {
                let inner = n.gather_at(place, i + 2, &places)?;
                at = n.add(at, inner)?;
            }
            found = Some(match found {
                None => (here, at),
                Some((value, before)) => {
                    let better = n.less(value, here)?;
                    (n.maximum(value, here)?, n.select(better, at, before)?)
                }
            });
        }
        let (value, at) = found.ok_or(LowerError::Poisoned)?;
        // With one element in each cell, no other axis came in.
        (best, place) = (value, Some(n.broadcast_like(at, value)?));
        step = step.saturating_mul(*size);
    }
    let y = match even_window(&sizes, &counts) {
        Some(window) => greatest(n, x, window, false)?,
        None => best,
    };
    let y = n.cast(y, dtype)?;
    let y = without_images(n, y, single)?;
    let place = place.ok_or(LowerError::Poisoned)?;
    let place = without_images(n, place, single)?;
    Ok(vec![Entry::Value(y), Entry::Value(place)])
}

/// Elements beyond which a result is refused.
const MAX_ELEMENTS: i64 = 1 << 30;

/// Puts elements to their places, which are counted in each image.
fn max_unpool(n: &mut Lower<'_>, spatial: usize) -> Lowered {
    let (x, places) = (n.value("self")?, n.value("indices")?);
    let sizes = per_dimension(n, "output_size", 1, (spatial, 1))?;
    let y = placed(n, [x, places], &sizes, ScatterMode::Update)?;
    n.done(y)
}

/// What a pooling's result is worth, to where its elements came from; of one that several windows share, the sum.
fn slopes_put_back(n: &mut Lower<'_>, spatial: usize) -> Lowered {
    // They say how the places came about.
    ["kernel_size", "stride", "padding", "dilation", "ceil_mode"].into_iter().for_each(|name| n.ignore(name));
    let (slopes, x, places) = (n.value("grad_output")?, n.value("self")?, n.value("indices")?);
    let mut shape = n.fixed_shape(x, "where elements came from")?;
    let lead = shape.len().checked_sub(spatial).ok_or_else(|| LowerError::form("a tensor without images"))?;
    let y = placed(n, [slopes, places], &shape.split_off(lead), ScatterMode::Add)?;
    n.done(y)
}

/// Elements at places that are counted through each image, in images of these sizes.
fn placed(n: &mut Lower<'_>, [x, places]: [Value; 2], sizes: &[i64], mode: ScatterMode) -> Result<Value> {
    let spatial = sizes.len();
    let lead = n.rank(x)?.checked_sub(spatial).ok_or_else(|| LowerError::form("a tensor without images"))?;
    let own = n.fixed_shape(x, "where elements come from")?;
    let image = sizes.iter().try_fold(1i64, |n, d| n.checked_mul(*d));
    let images = own[..lead].iter().try_fold(1i64, |n, d| n.checked_mul(*d));
    let total = image.zip(images).and_then(|(a, b)| a.checked_mul(b)).filter(|t| (1..MAX_ELEMENTS).contains(t));
    let (Some(total), Some(image), Some(images)) = (total, image, images) else {
        return Err(LowerError::form(format!("unpooling {own:?} to {sizes:?}")));
    };
    n.affords(usize::try_from(images).unwrap_or(usize::MAX))?;
    let starts: Vec<i64> = (0..images).map(|i| i * image).collect();
    let ones = std::iter::repeat_n(1, spatial);
    let shape: Vec<usize> = own[..lead].iter().map(|d| *d as usize).chain(ones).collect();
    let starts = n.add_const(Tensor::from_i64(DType::I32, &shape, &starts))?;
    let places = n.add(places, starts)?;
    let made: Vec<i64> = own[..lead].iter().chain(sizes).copied().collect();
    put_back(n, [x, places], (&made, total), mode)
}
