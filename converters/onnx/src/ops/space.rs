//! Moves between space and channels.

mod open;

use crate::LATEST;
use mlconv_mil::{ir::Value, ops, schema::Opset};
use mlconv_source::{Lower, LowerError, Lowered};
use mlconv_tensor::Tensor;

rows! {
    "DepthToSpace" 1..=LATEST => depth_to_space;
    "SpaceToDepth" 1..=LATEST => space_to_depth;
    "Col2Im" 18..=LATEST => col_to_im;
}

fn block_size(n: &Lower<'_>) -> Result<i64, LowerError> {
    match n.int("blocksize")? {
        Some(side) if side > 0 => Ok(side),
        Some(_) => n.bad_attr("blocksize", "at least 1"),
        None => Err(LowerError::MissingAttr { name: "blocksize" }),
    }
}

fn depth_to_space(n: &mut Lower<'_>) -> Lowered {
    let (side, mode) = (block_size(n)?, n.str_or("mode", "DCR")?);
    let x = n.input(0)?;
    let y = match mode {
        "DCR" => n.in_float(x, |n, x| n.op(ops::DepthToSpace { x, block_size: side }))?,
        "CRD" => n.in_float(x, |n, x| n.op(ops::PixelShuffle { x, upscale_factor: side }))?,
        _ => return n.bad_attr("mode", "`DCR` or `CRD`"),
    };
    n.done(y)
}

fn space_to_depth(n: &mut Lower<'_>) -> Lowered {
    let (side, mode) = (block_size(n)?, n.str_or("mode", "DCR")?);
    let x = n.input(0)?;
    let y = match mode {
        "DCR" => n.in_float(x, |n, x| n.op(ops::SpaceToDepth { x, block_size: side }))?,
        "CRD" if n.opset() < Opset::Ios16 => pixel_unshuffled(n, x, side)?,
        "CRD" => n.in_float(x, |n, x| n.op(ops::PixelUnshuffle { x, downscale_factor: side }))?,
        _ => return n.bad_attr("mode", "`DCR` or `CRD`"),
    };
    n.done(y)
}

/// What `pixel_unshuffle` does, where there is no such op.
fn pixel_unshuffled(n: &mut Lower<'_>, x: Value, side: i64) -> Result<Value, LowerError> {
    let shape = n.fixed_shape(x, "the blocks")?;
    let [_, c, h, w] = shape[..] else { return Err(LowerError::form(format!("{}, which is no image,", n.ty(x)?))) };
    let cut = n.reshape_to(x, &[-1, h / side, side, w / side, side])?;
    let gathered = n.transpose(cut, &[0, 2, 4, 1, 3])?;
    n.reshape_to(gathered, &[-1, c.saturating_mul(side.saturating_mul(side)), h / side, w / side])
}

/// Sums up overlapping blocks: a transposed convolution whose weights put each channel of a block in its place.
fn col_to_im(n: &mut Lower<'_>) -> Lowered {
    let (image, block) = match (n.ints_input(1), n.ints_input(2)) {
        (Err(LowerError::NotConstant { .. }), _) | (_, Err(LowerError::NotConstant { .. })) => {
            return open::col_to_im(n);
        }
        (image, block) => (image?, block?),
    };
    let image = image.ok_or(LowerError::MissingInput { index: 1 })?;
    let block = block.ok_or(LowerError::MissingInput { index: 2 })?;
    let x = n.input(0)?;
    let dims = image.len();
    let strides = n.ints_or("strides", 1, dims)?;
    let dilations = n.ints_or("dilations", 1, dims)?;
    let pads = n.ints_or("pads", 0, 2 * dims)?;
    let fits = block.len() == dims && (1..=3).contains(&dims) && n.rank(x)? == 3;
    let positive = strides.iter().chain(&dilations).chain(&block).chain(&image).all(|v| (1..1 << 24).contains(v));
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
            strides: strides.clone(),
            dilations: dilations.clone(),
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
    let y = if flat.iter().all(|p| *p == 0) { y } else { n.in_float(y, |n, y| n.pad(y, &flat, 0.0))? };
    n.done(y)
}
