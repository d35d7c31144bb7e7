//! Normalizations.

use crate::{
    ir::Value,
    schema::{EvalCx, Facts, InferCx, Ints, OpError, Semantics, Tensors},
};
use mlconv_derive::Op;
use mlconv_tensor::{Dim, Shape, strides};
use smallvec::smallvec;

/// `gamma * (x - mean) / sqrt(variance + epsilon) + beta`, for each channel, which is axis 1.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "batch_norm", since = Ios15)]
#[domain(T: Ios15 = F16 | F32)]
#[domain(U: Ios15 = T, Ios17 = F16 | F32)]
pub struct BatchNorm {
    /// `T[n, c, *d]`, 1 to 3 spatial dimensions.
    #[operand(T)]
    pub x: Value,
    /// `U[c]`.
    #[operand(U, constant)]
    pub mean: Value,
    /// `U[c]`.
    #[operand(U, constant)]
    pub variance: Value,
    /// `U[c]`; one when absent.
    #[operand(U, constant)]
    pub gamma: Option<Value>,
    /// `U[c]`; zero when absent.
    #[operand(U, constant)]
    pub beta: Option<Value>,
    /// Keeps the root from being zero.
    #[attr(U, default = 1e-5)]
    pub epsilon: f32,
}

impl Semantics for BatchNorm {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let x = cx.ranked("x", self.x, 3..=5)?;
        let c = &x.shape[1..2];
        check_shape(cx, "mean", Some(self.mean), c)?;
        check_shape(cx, "variance", Some(self.variance), c)?;
        check_shape(cx, "gamma", self.gamma, c)?;
        check_shape(cx, "beta", self.beta, c)?;
        cx.result(x.dtype, x.shape.clone())
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let mut x = cx.f64(self.x);
        let (mean, variance) = (cx.f64(self.mean), cx.f64(self.variance));
        let (gamma, beta) = (self.gamma.map(|v| cx.f64(v)), self.beta.map(|v| cx.f64(v)));
        let shape = cx.shape(self.x);
        for (i, plane) in planes(&mut x, shape, 2).enumerate() {
            let c = i % shape[1];
            let scale = gamma.as_ref().map_or(1.0, |g| g[c]) / (variance[c] + f64::from(self.epsilon)).sqrt();
            let shift = beta.as_ref().map_or(0.0, |b| b[c]);
            for x in plane {
                *x = (*x - mean[c]) * scale + shift;
            }
        }
        Ok(smallvec![cx.out(0).of(&x)])
    }
}

/// `gamma * (x - mean) / sqrt(variance + epsilon) + beta`, mean and variance being those of each channel of each image.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "instance_norm", since = Ios15)]
#[domain(T: Ios15 = F16 | F32)]
#[domain(U: Ios15 = T, Ios17 = F16 | F32)]
pub struct InstanceNorm {
    /// `T[n, c, *d]`; Core ML documents 1 and 2 spatial dimensions.
    #[operand(T)]
    pub x: Value,
    /// `U[c]`; one when absent.
    #[operand(U, constant)]
    pub gamma: Option<Value>,
    /// `U[c]`; zero when absent.
    #[operand(U, constant)]
    pub beta: Option<Value>,
    /// Keeps the root from being zero.
    #[attr(U, default = 1e-5)]
    pub epsilon: f32,
}

impl Semantics for InstanceNorm {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let x = cx.ranked("x", self.x, 3..=5)?;
        check_shape(cx, "gamma", self.gamma, &x.shape[1..2])?;
        check_shape(cx, "beta", self.beta, &x.shape[1..2])?;
        cx.result(x.dtype, x.shape.clone())
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let mut x = cx.f64(self.x);
        let (gamma, beta) = (self.gamma.map(|v| cx.f64(v)), self.beta.map(|v| cx.f64(v)));
        let shape = cx.shape(self.x);
        for (i, plane) in planes(&mut x, shape, 2).enumerate() {
            let c = i % shape[1];
            let Moments { mean, variance } = Moments::of(plane.iter().copied());
            let scale = gamma.as_ref().map_or(1.0, |g| g[c]) / (variance + f64::from(self.epsilon)).sqrt();
            let shift = beta.as_ref().map_or(0.0, |b| b[c]);
            for x in plane {
                *x = (*x - mean) * scale + shift;
            }
        }
        Ok(smallvec![cx.out(0).of(&x)])
    }
}

/// `gamma * (x - mean) / sqrt(variance + epsilon) + beta`, mean and variance being taken over some axes.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "layer_norm", since = Ios15)]
#[domain(T: Ios15 = F16 | F32)]
#[domain(U: Ios15 = T, Ios17 = F16 | F32)]
pub struct LayerNorm {
    /// `T[*d]`.
    #[operand(T)]
    pub x: Value,
    /// The axes to take mean and variance over, in `-rank..rank` and any order; all when absent.
    #[attr(default_with = |cx| (0..cx.rank("x") as i64).collect())]
    pub axes: Ints,
    /// `U`, of the sizes of `x` along `axes`, in the order of `x`; one when absent.
    #[operand(U, constant)]
    pub gamma: Option<Value>,
    /// Of the shape of `gamma`; zero when absent.
    #[operand(U, constant)]
    pub beta: Option<Value>,
    /// Keeps the root from being zero.
    #[attr(U, default = 1e-5)]
    pub epsilon: f32,
}

impl LayerNorm {
    /// For each axis of `x`, whether it is one of `axes`.
    fn normalized(&self, shape: &Shape) -> Result<Vec<bool>, OpError> {
        let axes = shape.axes(&self.axes)?;
        Ok((0..shape.rank()).map(|i| axes.iter().any(|a| a.index() == i)).collect())
    }
}

impl Semantics for LayerNorm {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let x = cx.tensor("x", self.x)?;
        let normalized = self.normalized(&x.shape)?;
        let dims: Vec<Dim> = x.shape.iter().zip(normalized).filter(|(_, n)| *n).map(|(d, _)| d.clone()).collect();
        check_shape(cx, "gamma", self.gamma, &dims)?;
        check_shape(cx, "beta", self.beta, &dims)?;
        cx.result(x.dtype, x.shape.clone())
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let (mut x, shape) = (cx.f64(self.x), cx.shape(self.x));
        if x.is_empty() {
            return Ok(smallvec![cx.out(0).of(&x)]);
        }
        let normalized = self.normalized(&shape.into())?;
        let (gamma, beta) = (self.gamma.map(|v| cx.f64(v)), self.beta.map(|v| cx.f64(v)));
        // Places of the normalized axes, relative to each start: an element per combination of the other axes.
        let within = offsets(shape, &normalized);
        let starts = offsets(shape, &normalized.iter().map(|n| !n).collect::<Vec<_>>());
        for start in starts {
            let Moments { mean, variance } = Moments::of(within.iter().map(|k| x[start + k]));
            let root = (variance + f64::from(self.epsilon)).sqrt();
            for (i, k) in within.iter().enumerate() {
                let scale = gamma.as_ref().map_or(1.0, |g| g[i]);
                let shift = beta.as_ref().map_or(0.0, |b| b[i]);
                x[start + k] = (x[start + k] - mean) / root * scale + shift;
            }
        }
        Ok(smallvec![cx.out(0).of(&x)])
    }
}

/// `x / sqrt(sum(x * x) + epsilon)`, the sum being that over the last three axes.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "l2_norm", since = Ios15)]
#[domain(T: Ios15 = F16 | F32)]
#[domain(U: Ios15 = T, Ios17 = F16 | F32)]
pub struct L2Norm {
    /// `T[*b, c, h, w]`.
    #[operand(T)]
    pub x: Value,
    /// Keeps the root from being zero.
    #[attr(U, default = 1e-6)]
    pub epsilon: f32,
}

impl Semantics for L2Norm {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let x = cx.ranked("x", self.x, 3..)?;
        cx.result(x.dtype, x.shape.clone())
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let (mut x, shape) = (cx.f64(self.x), cx.shape(self.x));
        for image in planes(&mut x, shape, shape.len() - 3) {
            let root = (image.iter().map(|x| x * x).sum::<f64>() + f64::from(self.epsilon)).sqrt();
            for x in image {
                *x /= root;
            }
        }
        Ok(smallvec![cx.out(0).of(&x)])
    }
}

/// `x / (k + alpha / size * sum(x * x)) ^ beta`, the sum being that over `size` neighbouring channels.
///
/// Channels are the third axis from the end, where `x` is of rank 3 too: Core ML documents axis 1, but coremltools holds
/// it to numbers that only this gives.
///
/// The neighbours of channel `i` are `i - floor(size / 2)..i - floor(size / 2) + size`, as far as they exist; the
/// divisor is `size` at the borders too.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "local_response_norm", since = Ios15)]
#[domain(T: Ios15 = F16 | F32)]
#[domain(U: Ios15 = T, Ios17 = F16 | F32)]
pub struct LocalResponseNorm {
    /// `T[*b, c, h, w]`; Core ML documents ranks 3 and 4.
    #[operand(T)]
    pub x: Value,
    /// How many channels count as neighbours, at least 1.
    #[attr]
    pub size: i64,
    /// Factor of the mean square.
    #[attr(U, default = 1e-4)]
    pub alpha: f32,
    /// Exponent.
    #[attr(U, default = 0.75)]
    pub beta: f32,
    /// What is added to the mean square.
    #[attr(U, default = 1.0)]
    pub k: f32,
}

impl Semantics for LocalResponseNorm {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let x = cx.ranked("x", self.x, 3..=5)?;
        if !(1..1 << 31).contains(&self.size) {
            return Err(OpError::value("size", self.size, "at least 1"));
        }
        cx.result(x.dtype, x.shape.clone())
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let (x, shape) = (cx.f64(self.x), cx.shape(self.x));
        if x.is_empty() {
            return Ok(smallvec![cx.out(0).of(&x)]);
        }
        let axis = shape.len() - 3;
        let (channels, plane) = (shape[axis], shape[axis + 1] * shape[axis + 2]);
        let size = self.size as usize;
        let [alpha, beta, k] = [self.alpha, self.beta, self.k].map(f64::from);
        Ok(smallvec![cx.out(0).fill_each(|i| {
            let c = i / plane % channels;
            let first = i - c * plane;
            let (from, to) = (c.saturating_sub(size / 2), (c + size - size / 2).min(channels));
            let sum: f64 = (from..to).map(|c| x[first + c * plane].powi(2)).sum();
            x[i] / (k + alpha / size as f64 * sum).powf(beta)
        })])
    }
}

/// Mean and variance of some numbers, divided by their count.
struct Moments {
    mean: f64,
    variance: f64,
}

impl Moments {
    fn of(x: impl Iterator<Item = f64> + Clone) -> Self {
        let n = x.clone().count() as f64;
        let mean = x.clone().sum::<f64>() / n;
        Self { mean, variance: x.map(|x| (x - mean).powi(2)).sum::<f64>() / n }
    }
}

/// The parts of `x` that share their indices along the first `lead` axes.
fn planes<'a>(x: &'a mut [f64], shape: &[usize], lead: usize) -> impl Iterator<Item = &'a mut [f64]> {
    // The sizes of an empty tensor may overflow.
    let plane = if x.is_empty() { 1 } else { shape[lead..].iter().product() };
    x.chunks_exact_mut(plane)
}

/// The flat positions of all elements whose index is 0 along the axes that `varies` does not name.
fn offsets(shape: &[usize], varies: &[bool]) -> Vec<usize> {
    let mut out = vec![0];
    for ((size, step), _) in shape.iter().zip(strides(shape)).zip(varies).filter(|(_, v)| **v) {
        out = out.iter().flat_map(|o| (0..*size).map(move |i| o + i * step)).collect();
    }
    out
}

fn check_shape(cx: &InferCx<'_>, param: &'static str, v: Option<Value>, want: &[Dim]) -> Result<(), OpError> {
    let (Some(v), want) = (v, Shape::from(want)) else { return Ok(()) };
    if cx.tensor(param, v)?.shape.may_equal(&want) {
        return Ok(());
    }
    Err(cx.operand(param, v, format!("a tensor of shape {want}")))
}
