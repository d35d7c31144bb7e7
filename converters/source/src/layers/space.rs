//! Moves between space and channels.

use crate::{Lower, LowerError};
use mlconv_mil::{ir::Value, ops};
use mlconv_tensor::Tensor;

/// What `pixel_unshuffle` does, where there is no such op.
pub fn pixel_unshuffled(n: &mut Lower<'_>, x: Value, side: i64) -> Result<Value, LowerError> {
    let shape = n.fixed_shape(x, "the blocks")?;
    let [_, c, h, w] = shape[..] else { return Err(LowerError::form(format!("{}, which is no image,", n.ty(x)?))) };
    let cut = n.reshape_to(x, &[-1, h / side, side, w / side, side])?;
    let gathered = n.transpose(cut, &[0, 2, 4, 1, 3])?;
    n.reshape_to(gathered, &[-1, c.saturating_mul(side.saturating_mul(side)), h / side, w / side])
}

/// An image that blocks are put into.
pub struct Blocks<'a> {
    /// The sizes of the image.
    pub image: &'a [i64],
    /// Those of a block.
    pub block: &'a [i64],
    /// How far apart blocks begin.
    pub strides: &'a [i64],
    /// How far apart the elements of a block lie.
    pub dilations: &'a [i64],
    /// What is cut off before and, behind these, after each dimension.
    pub pads: &'a [i64],
}

/// Sums up overlapping blocks: a transposed convolution whose weights put each channel of a block in its place.
pub fn put_together(n: &mut Lower<'_>, x: Value, how: &Blocks<'_>) -> Result<Value, LowerError> {
    let Blocks { image, block, strides, dilations, pads } = *how;
    let dims = image.len();
    let fits = block.len() == dims && (1..=3).contains(&dims) && n.rank(x)? == 3;
    let positive = strides.iter().chain(dilations).chain(block).chain(image).all(|v| (1..1 << 24).contains(v));
    if !fits || !positive || pads.iter().any(|p| !(0..1 << 24).contains(p)) {
        return Err(LowerError::form(format!("blocks {block:?} of an image {image:?}")));
    }
    let places: i64 = block.iter().try_fold(1i64, |n, k| n.checked_mul(*k)).unwrap_or(i64::MAX);
    let depth = n.shape(x)?[1].as_known().ok_or_else(|| LowerError::NotFixed { what: "the weights".to_owned() })?;
    if depth % places != 0 || depth.saturating_mul(places) > 1 << 24 {
        return Err(LowerError::form(format!("blocks of {places} elements in {depth} channels")));
    }
    let mut grid = vec![];
    let mut crops = vec![];
    for i in 0..dims {
        let reach = dilations[i] * (block[i] - 1) + 1;
        let space = image[i] + pads[i] + pads[i + dims] - reach;
        if space < 0 {
            return Err(LowerError::form(format!("blocks {block:?} of an image {image:?}")));
        }
        let count = space / strides[i] + 1;
        grid.push(count);
        // The blocks may end before the image does.
        let made = (count - 1) * strides[i] + reach;
        crops.push((i + 2, pads[i], image[i], made));
    }
    let sizes: Vec<i64> = [-1, depth].into_iter().chain(grid.iter().copied()).collect();
    let columns = n.reshape_to(x, &sizes)?;
    n.affords((depth * places) as usize)?;
    let mut weight = vec![0f64; (depth * places) as usize];
    for channel in 0..depth {
        weight[(channel * places + channel % places) as usize] = 1.0;
    }
    let shape: Vec<usize> = [depth, 1].into_iter().chain(block.iter().copied()).map(|d| d as usize).collect();
    let y = n.in_float(columns, |n, x| {
        let dtype = n.dtype(x)?;
        let weight = n.add_const(Tensor::from_f64(dtype, &shape, &weight))?;
        n.op(ops::ConvTranspose {
            x,
            weight,
            bias: None,
            pad: vec![0; 2 * dims],
            output_shape: None,
            pad_type: ops::PadType::Valid,
            strides: strides.to_vec(),
            dilations: dilations.to_vec(),
            groups: depth / places,
        })
    })?;
    let mut pad = vec![(0, 0); 2];
    let mut cuts = vec![];
    for (axis, before, size, made) in crops {
        let end = (before + size).min(made);
        if before > 0 || end < made {
            cuts.push((axis, before, Some(end), 1));
        }
        pad.push((0, before + size - end.max(before)));
    }
    let y = if cuts.is_empty() { y } else { n.slice_by(y, &cuts)? };
    let flat: Vec<i64> = pad.iter().flat_map(|p| [p.0, p.1]).collect();
    if flat.iter().all(|p| *p == 0) { Ok(y) } else { n.in_float(y, |n, y| n.pad(y, &flat, 0.0)) }
}

/// `x` put to places in a tensor of zeros of the sizes `made`, which come to `total` elements; places are counted through
/// all of it. What is put to one place takes the place of another there, or is added to it, as `mode` says.
pub fn put_back(
    n: &mut Lower<'_>,
    [x, places]: [Value; 2],
    (made, total): (&[i64], i64),
    mode: ops::ScatterMode,
) -> Result<Value, LowerError> {
    n.in_float(x, |n, x| {
        let (shape, zero) = (n.const_ints(&[total])?, n.scalar_like(x, 0.0)?);
        let data = n.op(ops::Fill { shape, value: Some(zero) })?;
        let (indices, updates) = (n.reshape_to(places, &[-1])?, n.reshape_to(x, &[-1])?);
        let y = n.op(ops::Scatter { data, indices, updates, axis: 0, mode, validate_indices: false })?;
        n.reshape_to(y, made)
    })
}
