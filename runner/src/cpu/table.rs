//! Which kernel runs which op: a line each.

use super::{
    attention::attention,
    constexpr::{affine_dequantize, blockwise_shift_scale, lut_to_dense, packed_lut_to_dense},
    conv::{conv, conv_transpose},
    elementwise::{binary, cast, compare, logical, map, prelu, select},
    math::{self, maximum, minimum},
    matmul::{einsum, linear, matmul},
    movement::{gather, pad, pixel_shuffle, reverse, slice_by_index, slice_by_size, split, tile, transpose},
    norm::{batch_norm, instance_norm, l2_norm, layer_norm, softmax},
    pool::{avg_pool, l2_pool, max_pool},
    recurrent::{gru, lstm},
    reduce::{Fold, argmax, argmin, log_sum_exp, reduce},
};
use mlconv_mil::{
    ops::*,
    schema::{EvalCx, Op, Tensors},
};
use mlconv_tensor::{DType, Tensor};
use std::{
    any::{Any, TypeId},
    collections::HashMap,
    sync::LazyLock,
};

/// A kernel of any op; `None` where it does not cover the form of the op, and the reference runs.
type Kernel = Box<dyn Fn(&dyn Any, &EvalCx<'_>) -> Option<Tensors> + Send + Sync>;

/// Every kernel, by the type of its op.
pub(super) static KERNELS: LazyLock<HashMap<TypeId, Kernel>> = LazyLock::new(|| {
    HashMap::from([
        kernel::<Conv>(conv),
        kernel::<ConvTranspose>(conv_transpose),
        kernel::<MaxPool>(max_pool),
        kernel::<AvgPool>(avg_pool),
        kernel::<L2Pool>(l2_pool),
        kernel::<Linear>(linear),
        kernel::<Matmul>(matmul),
        kernel::<Einsum>(einsum),
        kernel::<ScaledDotProductAttention>(attention),
        kernel::<Lstm>(lstm),
        kernel::<Gru>(gru),
        kernel::<Softmax>(softmax),
        kernel::<BatchNorm>(batch_norm),
        kernel::<InstanceNorm>(instance_norm),
        kernel::<LayerNorm>(layer_norm),
        kernel::<L2Norm>(l2_norm),
        kernel::<Transpose>(transpose),
        kernel::<SliceByIndex>(slice_by_index),
        kernel::<SliceBySize>(slice_by_size),
        kernel::<Split>(split),
        kernel::<Tile>(tile),
        kernel::<Reverse>(reverse),
        kernel::<PixelShuffle>(pixel_shuffle),
        kernel::<Gather>(gather),
        kernel::<Pad>(pad),
        kernel::<Select>(select),
        kernel::<Cast>(cast),
        kernel::<Prelu>(prelu),
        kernel::<ConstexprBlockwiseShiftScale>(blockwise_shift_scale),
        kernel::<ConstexprAffineDequantize>(affine_dequantize),
        kernel::<ConstexprLutToDense>(lut_to_dense),
        kernel::<ConstexprPackedLutToDense>(packed_lut_to_dense),
        kernel::<Add>(|op, cx| binary(cx, [op.x, op.y], |x, y| x + y, Some(i32::wrapping_add))),
        kernel::<Sub>(|op, cx| binary(cx, [op.x, op.y], |x, y| x - y, Some(i32::wrapping_sub))),
        kernel::<Mul>(|op, cx| binary(cx, [op.x, op.y], |x, y| x * y, Some(i32::wrapping_mul))),
        kernel::<RealDiv>(|op, cx| binary(cx, [op.x, op.y], |x, y| x / y, None)),
        kernel::<FloorDiv>(|op, cx| binary(cx, [op.x, op.y], math::floor_div, None)),
        kernel::<Mod>(|op, cx| binary(cx, [op.x, op.y], math::modulo, None)),
        kernel::<Pow>(|op, cx| binary(cx, [op.x, op.y], f32::powf, None)),
        kernel::<Maximum>(|op, cx| binary(cx, [op.x, op.y], maximum, Some(i32::max))),
        kernel::<Minimum>(|op, cx| binary(cx, [op.x, op.y], minimum, Some(i32::min))),
        kernel::<Equal>(|op, cx| compare(cx, [op.x, op.y], |x, y| x == y, |x, y| x == y)),
        kernel::<NotEqual>(|op, cx| compare(cx, [op.x, op.y], |x, y| x != y, |x, y| x != y)),
        kernel::<Greater>(|op, cx| compare(cx, [op.x, op.y], |x, y| x > y, |x, y| x > y)),
        kernel::<GreaterEqual>(|op, cx| compare(cx, [op.x, op.y], |x, y| x >= y, |x, y| x >= y)),
        kernel::<Less>(|op, cx| compare(cx, [op.x, op.y], |x, y| x < y, |x, y| x < y)),
        kernel::<LessEqual>(|op, cx| compare(cx, [op.x, op.y], |x, y| x <= y, |x, y| x <= y)),
        kernel::<LogicalAnd>(|op, cx| logical(cx, [op.x, op.y], |x, y| x & y)),
        kernel::<LogicalOr>(|op, cx| logical(cx, [op.x, op.y], |x, y| x | y)),
        kernel::<LogicalXor>(|op, cx| logical(cx, [op.x, op.y], |x, y| x ^ y)),
        kernel::<Relu>(|op, cx| map(cx, op.x, |x| maximum(x, 0.0))),
        kernel::<Relu6>(|op, cx| map(cx, op.x, |x| minimum(maximum(x, 0.0), 6.0))),
        kernel::<Sigmoid>(|op, cx| map(cx, op.x, math::sigmoid)),
        kernel::<Silu>(|op, cx| map(cx, op.x, |x| x * math::sigmoid(x))),
        kernel::<Softplus>(|op, cx| map(cx, op.x, math::softplus)),
        kernel::<Softsign>(|op, cx| map(cx, op.x, |x| x / (1.0 + x.abs()))),
        kernel::<Tanh>(|op, cx| map(cx, op.x, math::tanh)),
        kernel::<Exp>(|op, cx| map(cx, op.x, math::exp)),
        kernel::<Exp2>(|op, cx| map(cx, op.x, f32::exp2)),
        kernel::<Erf>(|op, cx| map(cx, op.x, libm::erff)),
        kernel::<Sqrt>(|op, cx| map(cx, op.x, f32::sqrt)),
        kernel::<Square>(|op, cx| map(cx, op.x, |x| x * x)),
        kernel::<Abs>(|op, cx| map(cx, op.x, f32::abs)),
        kernel::<Sign>(|op, cx| map(cx, op.x, |x| if x == 0.0 || x.is_nan() { x } else { x.signum() })),
        kernel::<Floor>(|op, cx| map(cx, op.x, f32::floor)),
        kernel::<Ceil>(|op, cx| map(cx, op.x, f32::ceil)),
        kernel::<Round>(|op, cx| map(cx, op.x, f32::round_ties_even)),
        kernel::<Sin>(|op, cx| map(cx, op.x, f32::sin)),
        kernel::<Cos>(|op, cx| map(cx, op.x, f32::cos)),
        kernel::<Rsqrt>(|op, cx| {
            let epsilon = rounded(op.epsilon, cx);
            map(cx, op.x, |x| (f64::from(x) + f64::from(epsilon)).sqrt().recip() as f32)
        }),
        kernel::<Inverse>(|op, cx| {
            let epsilon = rounded(op.epsilon, cx);
            map(cx, op.x, |x| (f64::from(x) + f64::from(epsilon)).recip() as f32)
        }),
        kernel::<Log>(|op, cx| {
            let epsilon = rounded(op.epsilon, cx);
            map(cx, op.x, |x| (f64::from(x) + f64::from(epsilon)).ln() as f32)
        }),
        kernel::<Clip>(|op, cx| map(cx, op.x, |x| minimum(maximum(x, op.alpha), op.beta))),
        kernel::<Threshold>(|op, cx| map(cx, op.x, |x| maximum(x, op.alpha))),
        kernel::<ThresholdedRelu>(|op, cx| map(cx, op.x, |x| if x < op.alpha { 0.0 } else { x })),
        kernel::<LeakyRelu>(|op, cx| map(cx, op.x, |x| if x >= 0.0 { x } else { op.alpha * x })),
        kernel::<Elu>(|op, cx| map(cx, op.x, |x| if x > 0.0 { x } else { op.alpha * x.exp_m1() })),
        kernel::<ClampedRelu>(|op, cx| map(cx, op.x, |x| minimum(if x >= 0.0 { x } else { op.alpha * x }, op.beta))),
        kernel::<LinearActivation>(|op, cx| {
            let (alpha, beta) = (f64::from(op.alpha), f64::from(op.beta));
            map(cx, op.x, |x| (alpha * f64::from(x) + beta) as f32)
        }),
        kernel::<ScaledTanh>(|op, cx| map(cx, op.x, |x| op.alpha * math::tanh(op.beta * x))),
        kernel::<SigmoidHard>(|op, cx| map(cx, op.x, |x| minimum(maximum(op.alpha * x + op.beta, 0.0), 1.0))),
        kernel::<Gelu>(|op, cx| match op.mode {
            GeluMode::Exact => map(cx, op.x, math::gelu),
            GeluMode::Tanh => map(cx, op.x, math::gelu_tanh),
            GeluMode::Sigmoid => map(cx, op.x, |x| x * math::sigmoid(1.702 * x)),
        }),
        kernel::<ReduceSum>(|op, cx| reduce(cx, op.x, op.axes.as_deref(), sum(|x| x, |x, _| x))),
        kernel::<ReduceMean>(|op, cx| reduce(cx, op.x, op.axes.as_deref(), sum(|x| x, |x, n| x / n as f64))),
        kernel::<ReduceSumSquare>(|op, cx| reduce(cx, op.x, op.axes.as_deref(), sum(|x| x * x, |x, _| x))),
        kernel::<ReduceL1Norm>(|op, cx| reduce(cx, op.x, op.axes.as_deref(), sum(f64::abs, |x, _| x))),
        kernel::<ReduceL2Norm>(|op, cx| reduce(cx, op.x, op.axes.as_deref(), sum(|x| x * x, |x, _| x.sqrt()))),
        kernel::<ReduceLogSum>(|op, cx| reduce(cx, op.x, op.axes.as_deref(), sum(|x| x, |x, _| x.ln()))),
        kernel::<ReduceProd>(|op, cx| {
            let product = Fold { start: 1.0, take: |x| x, join: |x, y| x * y, end: |x, _| x };
            reduce(cx, op.x, op.axes.as_deref(), product)
        }),
        kernel::<ReduceMax>(|op, cx| {
            let join = |x: f64, y: f64| if x.is_nan() || x > y { x } else { y };
            let greatest = Fold { start: f64::NEG_INFINITY, take: |x| x, join, end: |x, _| x };
            reduce(cx, op.x, op.axes.as_deref(), greatest)
        }),
        kernel::<ReduceMin>(|op, cx| {
            let join = |x: f64, y: f64| if x.is_nan() || x < y { x } else { y };
            let least = Fold { start: f64::INFINITY, take: |x| x, join, end: |x, _| x };
            reduce(cx, op.x, op.axes.as_deref(), least)
        }),
        kernel::<ReduceLogSumExp>(|op, cx| log_sum_exp(cx, op.x, op.axes.as_deref())),
        kernel::<ReduceArgmax>(argmax),
        kernel::<ReduceArgmin>(argmin),
    ])
});

/// The row of an op.
fn kernel<T: Op>(run: fn(&T, &EvalCx<'_>) -> Option<Tensors>) -> (TypeId, Kernel) {
    (TypeId::of::<T>(), Box::new(move |op, cx| run(op.downcast_ref()?, cx)))
}

/// A number as an element of the result holds it.
fn rounded(value: f32, cx: &EvalCx<'_>) -> f32 {
    let half = cx.out(0).dtype == DType::F16;
    let held = half.then(|| Tensor::scalar(value).cast(DType::F16).to_f32().first().copied());
    held.flatten().unwrap_or(value)
}

/// A sum of `take` of the elements.
fn sum<T, E>(take: T, end: E) -> Fold<T, impl Fn(f64, f64) -> f64 + Sync, E>
where
    T: Fn(f64) -> f64 + Sync,
    E: Fn(f64, usize) -> f64 + Sync,
{
    Fold { start: 0.0, take, join: |x, y| x + y, end }
}
