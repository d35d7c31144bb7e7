//! Padding, and moves between space and channels.

use mlconv_mil::{ir::Value, ops, schema::Opset};
use mlconv_source::{
    Lower, LowerError, Lowered, Size,
    layers::{
        padding::{Fill, is_far, pad, pad_by_places},
        space::pixel_unshuffled,
    },
};

aten! {
    "pad(Tensor self, SymInt[] pad, str mode=\"constant\", float? value=None) -> Tensor" => |n| {
        let value = n.number("value")?.unwrap_or(0.0);
        let fill = match n.str_or("mode", "constant")? {
            "constant" => Fill::Constant(value),
            "reflect" => Fill::Reflect,
            "replicate" => Fill::Edge,
            "circular" => Fill::Wrap,
            _ => return n.bad_attr("mode", "`constant`, `reflect`, `replicate` or `circular`"),
        };
        padded(n, "pad", fill)
    };
    "_pad_enum(Tensor self, SymInt[] pad, int mode, float? value=None) -> Tensor" => |n| {
        let value = n.number("value")?.unwrap_or(0.0);
        let fill = match n.int_or("mode", 0)? {
            0 => Fill::Constant(value),
            1 => Fill::Reflect,
            2 => Fill::Edge,
            3 => Fill::Wrap,
            _ => return n.bad_attr("mode", "0 to 3"),
        };
        padded(n, "pad", fill)
    };
    "constant_pad_nd(Tensor self, SymInt[] pad, Scalar value=0) -> Tensor" => |n| {
        let value = n.number("value")?.unwrap_or(0.0);
        padded(n, "pad", Fill::Constant(value))
    };
    "_pad_circular(Tensor self, SymInt[] pad) -> Tensor" => |n| padded(n, "pad", Fill::Wrap);
    "reflection_pad1d(Tensor self, SymInt[2] padding) -> Tensor", "reflection_pad2d(Tensor self, SymInt[4] padding) -> Tensor",
    "reflection_pad3d(Tensor self, SymInt[6] padding) -> Tensor" => |n| padded(n, "padding", Fill::Reflect);
    "replication_pad1d(Tensor self, SymInt[2] padding) -> Tensor", "replication_pad2d(Tensor self, SymInt[4] padding) -> Tensor",
    "replication_pad3d(Tensor self, SymInt[6] padding) -> Tensor" => |n| padded(n, "padding", Fill::Edge);
    "pixel_shuffle(Tensor self, int upscale_factor) -> Tensor" => |n| {
        let side = side(n, "upscale_factor")?;
        images(n, |n, x| n.in_float(x, |n, x| n.op(ops::PixelShuffle { x, upscale_factor: side })))
    };
    "pixel_unshuffle(Tensor self, int downscale_factor) -> Tensor" => |n| {
        let side = side(n, "downscale_factor")?;
        images(n, |n, x| {
            if n.opset() < Opset::Ios16 {
                return pixel_unshuffled(n, x, side);
            }
            n.in_float(x, |n, x| n.op(ops::PixelUnshuffle { x, downscale_factor: side }))
        })
    };
    "channel_shuffle(Tensor self, SymInt groups) -> Tensor", "native_channel_shuffle(Tensor self, SymInt groups) -> Tensor" => channel_shuffle;
}

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// Pairs of numbers are for the axes from the last one on.
fn padded(n: &mut Lower<'_>, name: &'static str, fill: Fill) -> Lowered {
    let (x, given) = (n.value("self")?, n.ints(name)?.unwrap_or_default());
    let rank = n.rank(x)?;
    if given.len() % 2 != 0 || given.len() / 2 > rank || given.iter().any(|p| is_far(*p)) {
        return n.bad_attr(name, format!("pairs of numbers for at most {rank} axes"));
    }
    let mut pairs = vec![(0, 0); rank];
    for (i, pair) in given.chunks_exact(2).enumerate() {
        pairs[rank - 1 - i] = (pair[0], pair[1]);
    }
    let shape = n.shape(x)?;
    if matches!(fill, Fill::Reflect | Fill::Edge)
        && pairs.iter().any(|p| p.0 < 0 || p.1 < 0)
        && let Some(sizes) = shape.known()
    {
        // What is cut off at one end is still there to fill the other.
        let mut y = x;
        for (axis, (pair, size)) in pairs.iter().zip(sizes).enumerate().filter(|(_, (p, _))| **p != (0, 0)) {
            y = pad_by_places(n, y, axis, size as i64, *pair, fill)?;
        }
        return n.done(y);
    }
    let whole = matches!(fill, Fill::Constant(_)) && !n.dtype(x)?.is_float();
    let y = if whole { n.without_bool(x, |n, x| pad(n, x, &pairs, fill))? } else { pad(n, x, &pairs, fill)? };
    n.done(y)
}

fn side(n: &Lower<'_>, name: &'static str) -> Result<i64> {
    match n.int(name)? {
        Some(side) if (1..1 << 16).contains(&side) => Ok(side),
        _ => n.bad_attr(name, "at least 1"),
    }
}

/// `f` of images with one axis before the channels, whatever there is.
fn images(n: &mut Lower<'_>, f: impl FnOnce(&mut Lower<'_>, Value) -> Result<Value>) -> Lowered {
    let x = n.value("self")?;
    let rank = n.rank(x)?;
    let Some(lead) = rank.checked_sub(3) else { return Err(LowerError::form(format!("images of rank {rank}"))) };
    if lead == 1 {
        let y = f(n, x)?;
        return n.done(y);
    }
    let four = if lead == 0 { n.expand_dims(x, &[0])? } else { n.merge_axes(x, 0, lead)? };
    let y = f(n, four)?;
    let y = if lead == 0 {
        n.squeeze(y, &[0])?
    } else {
        let sizes: Vec<Size> = (0..lead).map(|i| Size::Of(x, i)).chain((1..4).map(|i| Size::Of(y, i))).collect();
        n.reshape(y, &sizes)?
    };
    n.done(y)
}

/// Channels in groups, the first of each group first.
fn channel_shuffle(n: &mut Lower<'_>) -> Lowered {
    let (x, groups) = (n.value("self")?, n.int_or("groups", 1)?);
    let channels = n.shape(x)?.get(1).and_then(|d| d.as_known());
    let Some(channels) = channels else { return Err(LowerError::NotFixed { what: "the channels".into() }) };
    if groups < 1 || channels % groups != 0 || channels > 1 << 20 {
        return n.bad_attr("groups", format!("a divisor of {channels}"));
    }
    let within = channels / groups;
    let order: Vec<i64> = (0..channels).map(|i| (i % groups) * within + i / groups).collect();
    let y = n.gather_at(x, 1, &order)?;
    n.done(y)
}
