//! Convolutions.

use mlconv_mil::ir::Value;
use mlconv_source::{
    Lower, LowerError, Lowered, Size,
    layers::{
        convolution::{MAX_SIZE, Padding, Transposed, Window, convolved, transposed},
        space::{Blocks, put_together},
    },
};
use mlconv_tensor::Tensor;

aten! {
    "conv1d(Tensor input, Tensor weight, Tensor? bias=None, SymInt[1] stride=1, SymInt[1] padding=0, SymInt[1] dilation=1, SymInt groups=1) -> Tensor",
    "conv2d(Tensor input, Tensor weight, Tensor? bias=None, SymInt[2] stride=1, SymInt[2] padding=0, SymInt[2] dilation=1, SymInt groups=1) -> Tensor",
    "conv3d(Tensor input, Tensor weight, Tensor? bias=None, SymInt[3] stride=1, SymInt[3] padding=0, SymInt[3] dilation=1, SymInt groups=1) -> Tensor",
    "conv1d.padding(Tensor input, Tensor weight, Tensor? bias=None, SymInt[1] stride=1, str padding=\"valid\", SymInt[1] dilation=1, SymInt groups=1) -> Tensor",
    "conv2d.padding(Tensor input, Tensor weight, Tensor? bias=None, SymInt[2] stride=1, str padding=\"valid\", SymInt[2] dilation=1, SymInt groups=1) -> Tensor",
    "conv3d.padding(Tensor input, Tensor weight, Tensor? bias=None, SymInt[3] stride=1, str padding=\"valid\", SymInt[3] dilation=1, SymInt groups=1) -> Tensor",
    "_convolution_mode(Tensor input, Tensor weight, Tensor? bias, SymInt[] stride, str padding, SymInt[] dilation, SymInt groups) -> Tensor" => |n| convolution(n, false);
    "conv_transpose1d(Tensor input, Tensor weight, Tensor? bias=None, SymInt[1] stride=1, SymInt[1] padding=0, SymInt[1] output_padding=0, SymInt groups=1, SymInt[1] dilation=1) -> Tensor",
    "conv_transpose2d.input(Tensor input, Tensor weight, Tensor? bias=None, SymInt[2] stride=1, SymInt[2] padding=0, SymInt[2] output_padding=0, SymInt groups=1, SymInt[2] dilation=1) -> Tensor",
    "conv_transpose3d.input(Tensor input, Tensor weight, Tensor? bias=None, SymInt[3] stride=1, SymInt[3] padding=0, SymInt[3] output_padding=0, SymInt groups=1, SymInt[3] dilation=1) -> Tensor" => |n| convolution(n, true);
    "convolution(Tensor input, Tensor weight, Tensor? bias, SymInt[] stride, SymInt[] padding, SymInt[] dilation, bool transposed, SymInt[] output_padding, SymInt groups) -> Tensor",
    "_convolution(Tensor input, Tensor weight, Tensor? bias, SymInt[] stride, SymInt[] padding, SymInt[] dilation, bool transposed, SymInt[] output_padding, SymInt groups, bool benchmark, bool deterministic, bool cudnn_enabled, bool allow_tf32) -> Tensor",
    "_convolution.deprecated(Tensor input, Tensor weight, Tensor? bias, SymInt[] stride, SymInt[] padding, SymInt[] dilation, bool transposed, int[] output_padding, SymInt groups, bool benchmark, bool deterministic, bool cudnn_enabled) -> Tensor" => |n| {
        ["benchmark", "deterministic", "cudnn_enabled", "allow_tf32"].into_iter().for_each(|name| n.ignore(name));
        let back = n.flag("transposed", false)?;
        convolution(n, back)
    };
    "conv_tbc(Tensor self, Tensor weight, Tensor bias, int pad=0) -> Tensor" => conv_tbc;
    "im2col(Tensor self, int[2] kernel_size, int[2] dilation, int[2] padding, int[2] stride) -> Tensor" => im2col;
    "col2im(Tensor self, SymInt[2] output_size, int[2] kernel_size, int[2] dilation, int[2] padding, int[2] stride) -> Tensor" => col2im;
}

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// The numbers of an argument, one for each of `count` dimensions; one number is for all of them.
pub(super) fn per_dimension(
    n: &Lower<'_>,
    name: &'static str,
    default: i64,
    (count, least): (usize, i64),
) -> Result<Vec<i64>> {
    let given = n.ints(name)?.filter(|v| !v.is_empty()).unwrap_or_else(|| vec![default]);
    let all = if given.len() == 1 { vec![given[0]; count] } else { given };
    if all.len() != count || all.iter().any(|v| !(least..MAX_SIZE).contains(v)) {
        return n.bad_attr(name, format!("{count} numbers of at least {least}"));
    }
    Ok(all)
}

/// `x` with an axis of images, and whether it had none.
pub(super) fn with_images(n: &mut Lower<'_>, x: Value, spatial: usize) -> Result<(Value, bool)> {
    match n.rank(x)? {
        rank if rank == spatial + 2 => Ok((x, false)),
        rank if rank == spatial + 1 => Ok((n.expand_dims(x, &[0])?, true)),
        _ => Err(LowerError::form(format!("{} where images of {spatial} dimensions are wanted", n.ty(x)?))),
    }
}

pub(super) fn without_images(n: &mut Lower<'_>, y: Value, single: bool) -> Result<Value> {
    if single { n.squeeze(y, &[0]) } else { Ok(y) }
}

fn convolution(n: &mut Lower<'_>, back: bool) -> Lowered {
    let (x, weight, bias) = (n.value("input")?, n.value("weight")?, n.maybe("bias")?);
    let kernel = n.fixed_shape(weight, "the kernel")?.split_off(2.min(n.rank(weight)?));
    let spatial = kernel.len();
    if !(1..=3).contains(&spatial) || kernel.iter().any(|k| !(1..MAX_SIZE).contains(k)) {
        return Err(LowerError::form(format!("a weight {}", n.ty(weight)?)));
    }
    let groups = n.int_or("groups", 1)?;
    // Integers are computed with in floats.
    let source = n.dtype(x)?;
    let (x, weight) = (n.as_float(x)?, n.as_float(weight)?);
    let bias = bias.map(|b| n.as_float(b)).transpose()?;
    let (x, single) = with_images(n, x, spatial)?;
    let strides = per_dimension(n, "stride", 1, (spatial, 1))?;
    let dilations = per_dimension(n, "dilation", 1, (spatial, 1))?;
    // Of a form with named padding, the default is a name too.
    let pads = if n.ints("padding").is_err() {
        let whole = match n.str_or("padding", "valid")? {
            "same" => true,
            "valid" => false,
            _ => return n.bad_attr("padding", "`valid` or `same`"),
        };
        // The odd one lies behind.
        let total = |i: usize| if whole { (kernel[i] - 1).saturating_mul(dilations[i]) } else { 0 };
        (0..spatial).map(|i| (total(i) / 2, total(i) - total(i) / 2)).collect()
    } else {
        per_dimension(n, "padding", 0, (spatial, 0))?.into_iter().map(|p| (p, p)).collect()
    };
    let window = Window { kernel, strides, dilations, padding: Padding::Explicit(pads) };
    let y = if back {
        let extra = per_dimension(n, "output_padding", 0, (spatial, 0))?;
        transposed(n, x, (weight, bias), Transposed { window, groups, extra: &extra, wanted: None })?
    } else {
        n.ignore("output_padding");
        convolved(n, x, (weight, bias), window, groups)?
    };
    let y = without_images(n, y, single)?;
    let y = n.cast(y, source)?;
    n.done(y)
}

/// A convolution over time of `[t, b, c]` with a weight `[k, c, o]`.
fn conv_tbc(n: &mut Lower<'_>) -> Lowered {
    let (x, weight, bias) = (n.value("self")?, n.value("weight")?, n.value("bias")?);
    let (x, weight) = (n.transpose(x, &[1, 2, 0])?, n.transpose(weight, &[2, 1, 0])?);
    let kernel = n.fixed_shape(weight, "the kernel")?.split_off(2);
    let pad = per_dimension(n, "pad", 0, (1, 0))?[0];
    let window = Window { kernel, strides: vec![1], dilations: vec![1], padding: Padding::Explicit(vec![(pad, pad)]) };
    let y = convolved(n, x, (weight, Some(bias)), window, 1)?;
    let y = n.transpose(y, &[2, 0, 1])?;
    n.done(y)
}

/// The numbers of blocks of an image.
fn blocks(n: &Lower<'_>) -> Result<[Vec<i64>; 4]> {
    Ok([
        per_dimension(n, "kernel_size", 1, (2, 1))?,
        per_dimension(n, "dilation", 1, (2, 1))?,
        per_dimension(n, "padding", 0, (2, 0))?,
        per_dimension(n, "stride", 1, (2, 1))?,
    ])
}

/// Each element of a window becomes a channel: a convolution with weights that pick one each.
fn im2col(n: &mut Lower<'_>) -> Lowered {
    let x = n.value("self")?;
    let [kernel, dilations, pads, strides] = blocks(n)?;
    let (x, single) = with_images(n, x, 2)?;
    let channels = n.shape(x)?[1].as_known().ok_or(LowerError::NotFixed { what: "the channels".into() })?;
    let taps = kernel[0].checked_mul(kernel[1]).filter(|t| *t < 1 << 12);
    let Some(taps) = taps.filter(|t| t.saturating_mul(*t).saturating_mul(channels) < 1 << 26) else {
        return Err(LowerError::form(format!("blocks of {kernel:?} elements")));
    };
    let count = (channels * taps * taps) as usize;
    n.affords(count)?;
    let pick = |i: usize| f64::from(u8::from((i / taps as usize) % taps as usize == i % taps as usize));
    let weight: Vec<f64> = (0..count).map(pick).collect();
    let shape = [(channels * taps) as usize, 1, kernel[0] as usize, kernel[1] as usize];
    let padding = Padding::Explicit(pads.iter().map(|p| (*p, *p)).collect());
    let window = Window { kernel, strides, dilations, padding };
    let y = n.in_float(x, |n, x| {
        let weight = n.add_const(Tensor::from_f64(n.dtype(x)?, &shape, &weight))?;
        convolved(n, x, (weight, None), window, channels)
    })?;
    let y = n.reshape(y, &[Size::Of(x, 0), Size::Known(channels * taps), Size::Rest])?;
    let y = without_images(n, y, single)?;
    n.done(y)
}

fn col2im(n: &mut Lower<'_>) -> Lowered {
    let x = n.value("self")?;
    let [block, dilations, pads, strides] = blocks(n)?;
    let image = per_dimension(n, "output_size", 1, (2, 1))?;
    let single = n.rank(x)? == 2;
    let x = if single { n.expand_dims(x, &[0])? } else { x };
    let pads = [pads.clone(), pads].concat();
    let how = Blocks { image: &image, block: &block, strides: &strides, dilations: &dilations, pads: &pads };
    let y = put_together(n, x, &how)?;
    let y = without_images(n, y, single)?;
    n.done(y)
}
