//! Moves between space and channels.

mod open;

use crate::LATEST;
use mlconv_mil::{ops, schema::Opset};
use mlconv_source::{
    Lower, LowerError, Lowered,
    layers::space::{Blocks, pixel_unshuffled, put_together},
};

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
    let how = Blocks { image: &image, block: &block, strides: &strides, dilations: &dilations, pads: &pads };
    let y = put_together(n, x, &how)?;
    n.done(y)
}
