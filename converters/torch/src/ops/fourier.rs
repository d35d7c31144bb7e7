//! Fourier transforms of complex numbers, which come as their parts.

use mlconv_mil::{ir::Value, ops};
use mlconv_source::{Entry, Lower, LowerError, Lowered, Size, Transform};
use mlconv_tensor::{DType, Tensor};

aten! {
    "complex::fft(Tensor real, Tensor? imag=None, int[1]? n=None, int[1]? dim=None, int[1]? s=None, str? norm=None, int? normalization=None) -> (Tensor, Tensor)" => |n| transform(n, false, Ends::Both);
    "complex::ifft(Tensor real, Tensor? imag=None, int[1]? n=None, int[1]? dim=None, int[1]? s=None, str? norm=None, int? normalization=None) -> (Tensor, Tensor)" => |n| transform(n, true, Ends::Both);
    "complex::rfft(Tensor real, int[1]? n=None, int[1]? dim=None, int[1]? s=None, str? norm=None, int? normalization=None) -> (Tensor, Tensor)" => |n| transform(n, false, Ends::Real);
    "complex::irfft(Tensor real, Tensor? imag=None, int[1]? n=None, int[1]? dim=None, int[1]? s=None, str? norm=None, int? normalization=None, SymInt? last_dim_size=None) -> Tensor" => |n| transform(n, true, Ends::Real);
    "complex::stft(Tensor real, int n_fft, int? hop_length=None, int? win_length=None, Tensor? window=None, bool normalized=False, bool? onesided=None, bool? return_complex=None, bool? align_to_window=None) -> (Tensor, Tensor)" => stft;
    "complex::istft(Tensor real, Tensor? imag=None, int n_fft, int? hop_length=None, int? win_length=None, Tensor? window=None, bool center=True, bool normalized=False, bool? onesided=None, int? length=None, bool return_complex=False) -> Tensor" => istft;
    "fft_fft(Tensor self, SymInt? n=None, int dim=-1, str? norm=None) -> Tensor", "fft_ifft(Tensor self, SymInt? n=None, int dim=-1, str? norm=None) -> Tensor",
    "fft_rfft(Tensor self, SymInt? n=None, int dim=-1, str? norm=None) -> Tensor", "fft_irfft(Tensor self, SymInt? n=None, int dim=-1, str? norm=None) -> Tensor",
    "fft_fft2(Tensor self, SymInt[1]? s=None, int[1] dim=[-2,-1], str? norm=None) -> Tensor", "fft_ifft2(Tensor self, SymInt[1]? s=None, int[1] dim=[-2,-1], str? norm=None) -> Tensor",
    "fft_rfft2(Tensor self, SymInt[1]? s=None, int[1] dim=[-2,-1], str? norm=None) -> Tensor", "fft_irfft2(Tensor self, SymInt[1]? s=None, int[1] dim=[-2,-1], str? norm=None) -> Tensor",
    "fft_fftn(Tensor self, SymInt[1]? s=None, int[1]? dim=None, str? norm=None) -> Tensor", "fft_ifftn(Tensor self, SymInt[1]? s=None, int[1]? dim=None, str? norm=None) -> Tensor",
    "fft_rfftn(Tensor self, SymInt[1]? s=None, int[1]? dim=None, str? norm=None) -> Tensor", "fft_irfftn(Tensor self, SymInt[1]? s=None, int[1]? dim=None, str? norm=None) -> Tensor",
    "_fft_r2c(Tensor self, int[] dim, int normalization, bool onesided) -> Tensor", "_fft_c2c(Tensor self, SymInt[] dim, int normalization, bool forward) -> Tensor",
    "_fft_c2r(Tensor self, int[] dim, int normalization, SymInt last_dim_size) -> Tensor",
    "stft(Tensor self, int n_fft, int? hop_length=None, int? win_length=None, Tensor? window=None, bool normalized=False, bool? onesided=None, bool? return_complex=None, bool? align_to_window=None) -> Tensor",
    "istft(Tensor self, int n_fft, int? hop_length=None, int? win_length=None, Tensor? window=None, bool center=True, bool normalized=False, bool? onesided=None, int? length=None, bool return_complex=False) -> Tensor",
    "complex(Tensor real, Tensor imag) -> Tensor", "polar(Tensor abs, Tensor angle) -> Tensor", "view_as_complex(Tensor(a) self) -> Tensor(a)", "view_as_real(Tensor(a) self) -> Tensor(a)",
    "imag(Tensor(a) self) -> Tensor(a)" => |_| Err(LowerError::form("complex numbers in a nested graph, or what has none,"));
    "real(Tensor(a) self) -> Tensor(a)", "conj(Tensor(a) self) -> Tensor(a)", "_conj(Tensor(a) self) -> Tensor(a)", "conj_physical(Tensor self) -> Tensor" => |n| { let x = n.value("self")?; n.done(x) };
    "angle(Tensor self) -> Tensor" => |n| {
        // Of a real number: half a turn where it is negative. NaN stays.
        let x = n.value("self")?;
        let x = n.as_float(x)?;
        let (zero, half) = (n.scalar_like(x, 0.0)?, n.scalar_like(x, std::f64::consts::PI)?);
        let below = n.less(x, zero)?;
        let y = n.select(below, half, zero)?;
        let nan = n.op(ops::NotEqual { x, y: x })?;
        n.emit(ops::Select { cond: nan, a: x, b: y })
    };
    "fft_fftshift(Tensor self, int[1]? dim=None) -> Tensor" => |n| shift(n, false);
    "fft_ifftshift(Tensor self, int[1]? dim=None) -> Tensor" => |n| shift(n, true);
}

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// Whether the side of time has real numbers, of which half of the frequencies say everything.
#[derive(Clone, Copy, PartialEq)]
enum Ends {
    Real,
    Both,
}

fn transform(n: &mut Lower<'_>, inverse: bool, ends: Ends) -> Lowered {
    let (re, im) = (n.value("real")?, n.maybe("imag")?);
    let re = n.as_float(re)?;
    let given = if n.has("s") { n.ints("s")? } else { n.ints("n")? };
    let dims = match n.ints("dim")? {
        Some(dims) => dims,
        // Sizes without axes are those of the last ones.
        None => {
            let (rank, count) = (n.rank(re)?, given.as_ref().map_or(n.rank(re)?, Vec::len));
            (rank.saturating_sub(count)..rank).map(|i| i as i64).collect()
        }
    };
    let mut axes = vec![];
    for d in dims {
        axes.push(n.axis(re, d)?);
    }
    let last = n.int("last_dim_size")?;
    let shape = n.shape(re)?;
    let mut lengths = vec![];
    for (i, axis) in axes.iter().enumerate() {
        let own = shape[*axis].as_known();
        let end = i + 1 == axes.len() && inverse && ends == Ends::Real;
        let natural = own.map(|own| if end { last.unwrap_or(own.saturating_sub(1).saturating_mul(2)) } else { own });
        let length = given.as_ref().and_then(|g| g.get(i).copied()).filter(|l| *l > 0).or(natural);
        lengths.push(length.ok_or_else(|| LowerError::NotFixed { what: "the transform".to_owned() })?);
    }
    let all: f64 = lengths.iter().map(|l| *l as f64).product();
    // Transforms back are divided by the number of samples already.
    let factor = match (n.str("norm")?, n.int("normalization")?) {
        (Some("ortho"), _) | (None, Some(1)) => {
            if inverse {
                all.sqrt()
            } else {
                1.0 / all.sqrt()
            }
        }
        (Some("forward"), _) => {
            if inverse {
                all
            } else {
                1.0 / all
            }
        }
        (None, Some(0)) => {
            if inverse {
                all
            } else {
                1.0
            }
        }
        (None, Some(2)) => {
            if inverse {
                1.0
            } else {
                1.0 / all
            }
        }
        (None | Some("backward"), None) => 1.0,
        _ => return n.bad_attr("norm", "`backward`, `ortho` or `forward`"),
    };
    let mut now = (re, im);
    let steps: Vec<(usize, i64)> = axes.into_iter().zip(lengths).collect();
    let Some((end, before)) = steps.split_last() else { return Err(LowerError::form("a transform along no axis")) };
    let whole = |length: i64| Transform { inverse, onesided: false, length };
    let half = Transform { inverse, onesided: ends == Ends::Real, length: end.1 };
    if inverse {
        for (axis, length) in before {
            now = n.transformed(now.0, now.1, *axis, whole(*length))?;
        }
        now = n.transformed(now.0, now.1, end.0, half)?;
    } else {
        now = n.transformed(now.0, now.1, end.0, half)?;
        for (axis, length) in before.iter().rev() {
            now = n.transformed(now.0, now.1, *axis, whole(*length))?;
        }
    }
    let mut out = vec![];
    for part in [Some(now.0), now.1].into_iter().flatten() {
        out.push(Entry::Value(n.scale(part, factor)?));
    }
    Ok(out)
}

/// The size of frames, how far apart they begin, and the window in their size.
fn frames(n: &mut Lower<'_>, like: Value) -> Result<(i64, i64, Value)> {
    let size = n.int_or("n_fft", 1)?;
    let step = n.int("hop_length")?.unwrap_or(size / 4);
    let width = n.int("win_length")?.unwrap_or(size);
    let steps = 1..=i64::from(i32::MAX);
    if !(1..=Transform::MAX_LENGTH).contains(&size) || !steps.contains(&step) || !(1..=size).contains(&width) {
        return n.bad_attr("n_fft", "frames of 1 to 8192 samples, a step of at least 1 and a window that fits");
    }
    let dtype = n.dtype(like)?;
    let window = match n.maybe("window")? {
        Some(w) => n.cast(w, dtype)?,
        None => n.add_const(Tensor::splat(dtype, &[width as usize], 1.0))?,
    };
    // A shorter window lies in the middle.
    let before = (size - width) / 2;
    let window = n.pad(window, &[before, size - width - before], 0.0)?;
    Ok((size, step, window))
}

fn stft(n: &mut Lower<'_>) -> Lowered {
    let x = n.value("real")?;
    let (onesided, normalized) = (n.flag("onesided", true)?, n.flag("normalized", false)?);
    let whole = n.flag("return_complex", true)?;
    if n.flag("align_to_window", false)? {
        return n.bad_attr("align_to_window", "false");
    }
    let x = n.as_float(x)?;
    let (size, step, window) = frames(n, x)?;
    let Some(axis) = n.rank(x)?.checked_sub(1) else { return Err(LowerError::form("frames of a scalar")) };
    let samples = n.shape(x)?[axis].as_known();
    let samples = samples.ok_or_else(|| LowerError::NotFixed { what: "the number of frames".to_owned() })?;
    if samples < size {
        return Err(LowerError::form(format!("frames of {size} of {samples} samples")));
    }
    let count = (samples - size) / step + 1;
    n.affords(usize::try_from(count.saturating_mul(size)).unwrap_or(usize::MAX))?;
    let places: Vec<i64> = (0..count).flat_map(|i| (0..size).map(move |k| i * step + k)).collect();
    let places = n.add_const(Tensor::from_i64(DType::I32, &[count as usize, size as usize], &places))?;
    let framed = n.gather(x, places, axis)?;
    let framed = n.mul(framed, window)?;
    let (re, im) = n.transformed(framed, None, axis + 1, Transform { inverse: false, onesided, length: size })?;
    let mut out = vec![];
    for part in [Some(re), im].into_iter().flatten() {
        let part = super::movement::swapped(n, part, -2, -1)?;
        out.push(if normalized { n.scale(part, 1.0 / (size as f64).sqrt())? } else { part });
    }
    if !whole {
        return n.emit(ops::Stack { values: out, axis: -1 });
    }
    Ok(out.into_iter().map(Entry::Value).collect())
}

/// Frames added where they overlap, divided by what the windows come to there.
fn istft(n: &mut Lower<'_>) -> Lowered {
    let (re, im) = (n.value("real")?, n.maybe("imag")?);
    let (center, normalized) = (n.flag("center", true)?, n.flag("normalized", false)?);
    let length = n.int("length")?;
    if n.flag("return_complex", false)? {
        return n.bad_attr("return_complex", "false");
    }
    let (size, step, window) = frames(n, re)?;
    let rank = n.rank(re)?;
    let sizes = n.fixed_shape(re, "the number of frames")?;
    let [.., bins, count] = sizes[..] else { return Err(LowerError::form(format!("frames of {}", n.ty(re)?))) };
    let total = (count - 1).saturating_mul(step).saturating_add(size);
    if count < 1 || total > i64::from(i32::MAX) {
        return Err(LowerError::form(format!("{count} frames that begin {step} samples apart")));
    }
    let onesided = n.flag("onesided", bins != size)?;
    let turn = |n: &mut Lower<'_>, v: Value| super::movement::swapped(n, v, -2, -1);
    let (re, im) = (turn(n, re)?, im.map(|v| turn(n, v)).transpose()?);
    let (framed, _) = n.transformed(re, im, rank - 1, Transform { inverse: true, onesided, length: size })?;
    let framed = if normalized { n.scale(framed, (size as f64).sqrt())? } else { framed };
    let framed = n.mul(framed, window)?;
    n.affords(usize::try_from(count.saturating_mul(size)).unwrap_or(usize::MAX))?;
    let places: Vec<i64> = (0..count).flat_map(|i| (0..size).map(move |k| i * step + k)).collect();
    let indices = n.const_ints(&places)?;
    let added = |n: &mut Lower<'_>, framed: Value| -> Result<Value> {
        let rank = n.rank(framed)?;
        let flat = n.merge_axes(framed, rank - 2, rank)?;
        let axis = rank - 2;
        let mut sizes = n.own_sizes(flat)?;
        sizes[axis] = Size::Known(total);
        let data = n.zeros(flat, &sizes)?;
        let mode = ops::ScatterMode::Add;
        n.op(ops::Scatter { data, indices, updates: flat, axis: axis as i64, mode, validate_indices: false })
    };
    let signal = added(n, framed)?;
    let square = n.mul(window, window)?;
    let square = n.expand_dims(square, &[0])?;
    let shape = n.const_ints(&[count, size])?;
    let squares = n.broadcast_to(square, shape)?;
    let envelope = added(n, squares)?;
    let axis = n.rank(signal)? - 1;
    let start = if center { size / 2 } else { 0 };
    let end = match length {
        Some(length) => start.saturating_add(length),
        None => total - start,
    };
    let (signal, envelope) =
        (n.slice(signal, axis, start, Some(end.min(total)))?, n.slice(envelope, 0, start, Some(end.min(total)))?);
    let y = n.div(signal, envelope)?;
    let missing = end.saturating_sub(total);
    let mut pad = vec![0; 2 * (axis + 1)];
    pad[2 * axis + 1] = missing.max(0);
    let y = n.pad(y, &pad, 0.0)?;
    n.done(y)
}

/// The zero frequency in the middle, or back at the start.
fn shift(n: &mut Lower<'_>, back: bool) -> Lowered {
    let (mut x, dims) = (n.value("self")?, n.ints("dim")?);
    let dims = dims.unwrap_or((0..n.rank(x)? as i64).collect());
    for d in dims {
        let axis = n.axis(x, d)?;
        let size = n.shape(x)?[axis].as_known();
        let size = size.ok_or_else(|| LowerError::NotFixed { what: "the middle of the frequencies".to_owned() })?;
        let at = if back { size / 2 } else { size - size / 2 };
        if at == 0 || at == size {
            continue;
        }
        let (head, tail) = (n.slice(x, axis, 0, Some(at))?, n.slice(x, axis, at, None)?);
        x = n.concat(vec![tail, head], axis as i64)?;
    }
    n.done(x)
}
