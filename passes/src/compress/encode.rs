//! From compressed tensors to the ops that decode them.

use super::{
    Refusal,
    apply::{Coded, Compressed},
    linear::Quantized,
    palette::Palette,
    weights::Weight,
};
use mlconv_mil::{
    ir::{Function, InsertError, OriginId, Place, Value},
    ops::{
        Const, ConstexprAffineDequantize, ConstexprBlockwiseShiftScale, ConstexprLutToDense, ConstexprLutToSparse,
        ConstexprPackedLutToDense, ConstexprPackedSparseToDense, ConstexprSparseBlockwiseShiftScale,
        ConstexprSparseToDense,
    },
    schema::{Op, Opset},
};
use mlconv_tensor::{DType, Tensor, f16};

/// Whether channel scales are part of the tables: a decoder of scales may come behind one of tables from iOS26 on, and never
/// behind one of sparse indices.
pub(super) fn folds_scale(c: &Compressed, opset: Opset) -> bool {
    opset < Opset::Ios26 || c.mask.is_some()
}

/// Whether the ops of `opset` can say what `c` is; an error names the target that can.
pub fn expressible(c: &Compressed, shape: &[usize], opset: Opset) -> Result<(), Refusal> {
    if let Coded::Palette { palette, .. } = &c.coded
        && opset < Opset::Ios26
        && palette.vector_axis.is_some()
        && palette.scale.is_some()
    {
        // A table for each channel would be one for a part of a vector.
        return Err(Refusal::new("a scale beside a table of vectors needs the target ios26"));
    }
    if let Coded::Palette { palette: Palette { scale: Some(scale), .. }, lut: Some(lut) } = &c.coded
        && folds_scale(c, opset)
        && scale.dtype() == DType::F16
    {
        // One number is the scale of the channel and that of the integers.
        let own = lut.scale.to_f64().first().copied().unwrap_or(1.0);
        let least = scale.to_f64().into_iter().map(|s| (s * own).abs()).fold(f64::INFINITY, f64::min);
        if least < f64::from(f16::MIN_POSITIVE) {
            return Err(Refusal::new("a channel is too small for a scale of its table's integers in half precision"));
        }
    }
    if opset >= Opset::Ios18 {
        return Ok(());
    }
    let needs = |what: &str| Err(Refusal::new(format!("{what} needs the target ios18")));
    if opset < Opset::Ios16 {
        return Err(Refusal::new("compressed weights need the target ios16"));
    }
    match (&c.coded, &c.mask) {
        (Coded::Plain(_), _) => Ok(()),
        (_, Some(_)) => needs("a weight that is pruned and coded"),
        (Coded::Linear(q), None) => match (q.data.dtype(), vector_axis_of(q, shape)) {
            (DType::I8 | DType::U8, Some(_)) => Ok(()),
            (DType::I8 | DType::U8, None) => needs("a scale per block"),
            _ => needs("a weight of 4-bit integers"),
        },
        (Coded::Palette { lut: Some(_), .. }, None) => needs("a table of integers"),
        (Coded::Palette { palette, .. }, None) => {
            if palette.vector_axis.is_some() || palette.lut.count() != 1 << palette.indices.dtype().bits() {
                return needs("more than one table, or a table of vectors");
            }
            if palette.scale.is_some() {
                return needs("a scale beside a table");
            }
            if palette.indices.dtype() == DType::U3 { needs("an index of 3 bits") } else { Ok(()) }
        }
    }
}

/// The one axis along which scales differ, or 0 where there is one scale; `None` where they differ along several, or
/// several elements of an axis share one.
fn vector_axis_of(q: &Quantized, shape: &[usize]) -> Option<i64> {
    let mut axes = (0..shape.len()).filter(|i| q.scale.shape()[*i] != 1);
    match (axes.next(), axes.next()) {
        (None, _) => Some(0),
        (Some(i), None) if q.scale.shape()[i] == shape[i] => Some(i as i64),
        _ => None,
    }
}

/// Puts the ops that decode `c` in the place of the weight.
pub(crate) fn encode(
    f: &mut Function,
    w: &Weight,
    c: &Compressed,
    origin: Option<OriginId>,
) -> Result<(), InsertError> {
    let hint = f.value(w.value).hint.to_string();
    let mut e = Encoder { place: Place::Before(w.op), hint, origin, f };
    let old = e.f.opset < Opset::Ios18;
    let shape = w.tensor.shape();
    let decoded = match (&c.coded, &c.mask) {
        (Coded::Plain(t), None) => e.constant("", t)?,
        (Coded::Plain(t), Some(mask)) if old => e.packed_sparse(t, mask)?,
        (Coded::Plain(t), Some(mask)) => {
            let (nonzero_data, mask) = (e.constant("nonzero", t)?, e.constant("mask", mask)?);
            e.op("", ConstexprSparseToDense { nonzero_data, mask })?[0]
        }
        (Coded::Linear(q), None) if old => e.affine(q, shape)?,
        (Coded::Linear(q), None) => e.blockwise(q)?,
        (Coded::Linear(q), Some(mask)) => {
            let (data_mask, nonzero_data) = (e.constant("mask", mask)?, e.constant("nonzero", &q.data)?);
            let (scale, offset) = e.scales(q)?;
            let sparse =
                e.op("values", ConstexprSparseBlockwiseShiftScale { data_mask, nonzero_data, scale, offset })?;
            e.op("", ConstexprSparseToDense { nonzero_data: sparse[1], mask: sparse[0] })?[0]
        }
        (Coded::Palette { palette, .. }, None) if old => e.packed_palette(palette, shape)?,
        (Coded::Palette { palette, lut }, None) => e.palette(palette, lut.as_ref())?,
        (Coded::Palette { palette, lut }, Some(mask)) => {
            let (indices_mask, indices_nonzero_data) =
                (e.constant("mask", mask)?, e.constant("indices", &palette.indices)?);
            let (lut, vector_axis) =
                (e.table(palette, lut.as_ref(), palette.scale.as_ref())?, palette.vector_axis.map(|a| a as i64));
            let sparse =
                e.op("values", ConstexprLutToSparse { indices_mask, indices_nonzero_data, lut, vector_axis })?;
            e.op("", ConstexprSparseToDense { nonzero_data: sparse[1], mask: sparse[0] })?[0]
        }
    };
    e.f.replace_uses(w.value, decoded);
    f.remove(w.op);
    Ok(())
}

struct Encoder<'a> {
    f: &'a mut Function,
    place: Place,
    hint: String,
    origin: Option<OriginId>,
}

impl Encoder<'_> {
    fn op(&mut self, what: &str, op: impl Op) -> Result<Vec<Value>, InsertError> {
        let hint = if what.is_empty() { self.hint.clone() } else { format!("{}_{what}", self.hint) };
        Ok(self.f.insert(self.place, &[&hint], Box::new(op), self.origin)?.to_vec())
    }

    fn constant(&mut self, what: &str, t: &Tensor) -> Result<Value, InsertError> {
        Ok(self.op(what, Const { val: t.clone() })?[0])
    }

    fn scales(&mut self, q: &Quantized) -> Result<(Value, Option<Value>), InsertError> {
        let scale = self.constant("scale", &q.scale)?;
        let offset = q.offset.as_ref().map(|o| self.constant("offset", o)).transpose()?;
        Ok((scale, offset))
    }

    fn blockwise(&mut self, q: &Quantized) -> Result<Value, InsertError> {
        let data = self.constant("data", &q.data)?;
        let (scale, offset) = self.scales(q)?;
        Ok(self.op("", ConstexprBlockwiseShiftScale { data, scale, offset })?[0])
    }

    fn affine(&mut self, q: &Quantized, shape: &[usize]) -> Result<Value, InsertError> {
        let axis = vector_axis_of(q, shape).unwrap_or(0);
        let form: &[usize] = if q.scale.count() == 1 { &[] } else { &[q.scale.count()] };
        let zero = || Tensor::from_i64(q.data.dtype(), form, &vec![0; q.scale.count()]);
        let zero_point = q.offset.as_ref().map_or_else(zero, |o| o.reshape(form));
        let op = ConstexprAffineDequantize {
            quantized_data: self.constant("quantized", &q.data)?,
            zero_point: self.constant("zero_point", &zero_point)?,
            scale: self.constant("scale", &q.scale.reshape(form))?,
            axis,
        };
        Ok(self.op("", op)?[0])
    }

    fn shape(&mut self, shape: &[usize]) -> Result<Value, InsertError> {
        let sizes: Vec<i64> = shape.iter().map(|n| *n as i64).collect();
        self.constant("shape", &Tensor::from_i64(DType::U32, &[sizes.len()], &sizes))
    }

    fn packed_palette(&mut self, p: &Palette, shape: &[usize]) -> Result<Value, InsertError> {
        let op = ConstexprPackedLutToDense {
            indices: self.constant("indices", &bytes_of(&p.indices))?,
            lut: self.constant("lut", &p.lut.reshape(&[p.lut.count()]))?,
            shape: self.shape(shape)?,
        };
        Ok(self.op("", op)?[0])
    }

    fn packed_sparse(&mut self, nonzero: &Tensor, mask: &Tensor) -> Result<Value, InsertError> {
        let op = ConstexprPackedSparseToDense {
            nonzero_data: self.constant("nonzero", nonzero)?,
            mask: self.constant("mask", &bytes_of(mask))?,
            shape: self.shape(mask.shape())?,
        };
        Ok(self.op("", op)?[0])
    }

    fn palette(&mut self, p: &Palette, lut: Option<&Quantized>) -> Result<Value, InsertError> {
        let indices = self.constant("indices", &p.indices)?;
        let vector_axis = p.vector_axis.map(|a| a as i64);
        match &p.scale {
            // Before iOS26 the runtime takes scales only where they apply to tables: each channel then has its own.
            Some(scale) if self.f.opset >= Opset::Ios26 => {
                let lut = self.table(p, lut, None)?;
                let data = self.op("unscaled", ConstexprLutToDense { indices, lut, vector_axis })?[0];
                let scale = self.constant("channel_scale", scale)?;
                Ok(self.op("", ConstexprBlockwiseShiftScale { data, scale, offset: None })?[0])
            }
            scale => {
                let lut = self.table(p, lut, scale.as_ref())?;
                Ok(self.op("", ConstexprLutToDense { indices, lut, vector_axis })?[0])
            }
        }
    }

    /// The table, decoded where it is of integers, and repeated for each channel where these have scales.
    fn table(&mut self, p: &Palette, lut: Option<&Quantized>, scale: Option<&Tensor>) -> Result<Value, InsertError> {
        let Some(scale) = scale else {
            let Some(q) = lut else { return self.constant("lut", &p.lut) };
            let data = self.constant("lut_data", &q.data)?;
            let (scale, offset) = self.scales(q)?;
            return Ok(self.op("lut", ConstexprBlockwiseShiftScale { data, scale, offset })?[0]);
        };
        let data = lut.map_or(&p.lut, |q| &q.data);
        let repeated = repeat(data, scale.shape());
        let mut sizes = scale.shape().to_vec();
        sizes.extend([1, 1]);
        let own = lut.map_or(1.0, |q| q.scale.to_f64().first().copied().unwrap_or(1.0));
        let scales: Vec<f64> = scale.to_f64().iter().map(|s| s * own).collect();
        let op = ConstexprBlockwiseShiftScale {
            data: self.constant("lut_data", &repeated)?,
            scale: self.constant("lut_scale", &Tensor::from_f64(scale.dtype(), &sizes, &scales))?,
            offset: match lut.and_then(|q| q.offset.as_ref()) {
                Some(o) => {
                    let every = vec![o.to_i64().first().copied().unwrap_or(0); scales.len()];
                    Some(self.constant("lut_offset", &Tensor::from_i64(o.dtype(), &sizes, &every))?)
                }
                None => None,
            },
        };
        Ok(self.op("lut", op)?[0])
    }
}

/// The bytes of a packed tensor, as a vector of bytes.
fn bytes_of(t: &Tensor) -> Tensor {
    let bytes = t.blob().read().into_owned();
    Tensor::from_vec(&[bytes.len()], bytes)
}

/// Tables repeated so that there are as many along each axis as `counts` says; the last two axes are of the table itself.
fn repeat(lut: &Tensor, counts: &[usize]) -> Tensor {
    let inner: usize = lut.shape().iter().rev().take(2).product();
    let size = lut.dtype().bits() as usize / 8 * inner;
    let bytes = lut.blob().read();
    let have = &lut.shape()[..counts.len()];
    let total: Vec<usize> = have.iter().zip(counts).map(|(a, b)| *a.max(b)).collect();
    let mut out = Vec::with_capacity(total.iter().product::<usize>() * size);
    for flat in 0..total.iter().product() {
        let (mut rest, mut at, mut step) = (flat, 0, 1);
        for (axis, n) in total.iter().enumerate().rev() {
            let i = rest % n;
            rest /= n;
            at += i * have[axis] / n * step;
            step *= have[axis];
        }
        out.extend_from_slice(&bytes[at * size..(at + 1) * size]);
    }
    let mut shape = total;
    shape.extend(&lut.shape()[counts.len()..]);
    Tensor::new(lut.dtype(), &shape, mlconv_tensor::Blob::from(mlconv_tensor::Bytes::from(out)))
        .unwrap_or_else(|_| lut.clone())
}
