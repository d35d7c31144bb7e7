//! Every op. One line here, one file there; nothing else to touch.

use crate::schema::{OpInfo, OpMeta, Opset};
use std::{collections::HashMap, sync::LazyLock};

/// The catalogue: each line declares a module, exports its ops, and lists them in [`OPS`].
macro_rules! catalogue {
    ($($file:ident: [$($op:ident),* $(,)?];)*) => {
        $(mod $file; pub use $file::{$($op),*};)*
        /// All ops; several may share a name, each for other op sets.
        pub static OPS: &[OpInfo] = &[$($(OpInfo::of::<$op>()),*),*];
    };
}

catalogue! {
    activation: [
        ClampedRelu, Elu, Gelu, LeakyRelu, LinearActivation, Prelu, Relu, Relu6, ScaledTanh, Sigmoid, SigmoidHard,
        Silu, Softmax, Softplus, SoftplusParametric, Softsign, ThresholdedRelu,
    ];
    attention: [ScaledDotProductAttention];
    binary: [
        Add, Equal, FloorDiv, Greater, GreaterEqual, Less, LessEqual, LogicalAnd, LogicalOr, LogicalXor, Maximum,
        Minimum, Mod, Mul, NotEqual, Pow, RealDiv, Sub,
    ];
    classify: [Classify];
    constant: [Const, Identity];
    constexpr: [
        ConstexprBlockwiseShiftScale, ConstexprCast, ConstexprLutToDense, ConstexprLutToSparse,
        ConstexprSparseBlockwiseShiftScale, ConstexprSparseToDense,
    ];
    constexpr_ios16: [
        ConstexprAffineDequantize, ConstexprCastIos16, ConstexprPackedLutToDense, ConstexprPackedSparseToDense,
    ];
    control_flow: [Cond, WhileLoop];
    convolution: [Conv, ConvTranspose];
    einsum: [Einsum];
    gather: [Gather, GatherAlongAxis, GatherNd];
    generator: [Fill, FillLike, OneHot, Range1d];
    inspection: [NonZero, ShapeOf];
    joining: [Concat, Split, Stack];
    linear: [Linear, Matmul];
    list: [ListGather, ListLength, ListRead, ListScatter, ListWrite, MakeList];
    normalization: [BatchNorm, InstanceNorm, L2Norm, LayerNorm, LocalResponseNorm];
    pooling: [AvgPool, L2Pool, MaxPool];
    quantization: [Dequantize, Quantize];
    random: [RandomBernoulli, RandomCategorical, RandomNormal, RandomUniform];
    recurrent: [Gru, Lstm, Rnn];
    reduction: [
        ReduceArgmax, ReduceArgmin, ReduceL1Norm, ReduceL2Norm, ReduceLogSum, ReduceLogSumExp, ReduceMax, ReduceMean,
        ReduceMin, ReduceProd, ReduceSum, ReduceSumSquare,
    ];
    repeating: [Pad, Reverse, ReverseSequence, Tile];
    resize: [
        Affine, Crop, CropResize, CropResizeRoi, Resample, Resize, ResizeBilinear, ResizeNearestNeighbor,
        UpsampleBilinear, UpsampleNearestNeighbor,
    ];
    scan: [Cumsum];
    scatter: [Scatter, ScatterAlongAxis, ScatterNd];
    select: [BandPart, Select];
    shaping: [ExpandDims, Flatten2d, Reshape, ReshapeLike, Squeeze, Transpose];
    slicing: [SliceByIndex, SliceBySize, SliceUpdate];
    sort: [Argsort, Topk];
    space: [BatchToSpace, DepthToSpace, PixelShuffle, PixelUnshuffle, SlidingWindows, SpaceToBatch, SpaceToDepth];
    state: [ReadState, WriteState];
    suppression: [NonMaximumSuppression, NonMaximumSuppressionIos15];
    unary: [
        Abs, Acos, Asin, Atan, Atanh, Cast, Ceil, Clip, Cos, Cosh, Erf, Exp, Exp2, Floor, Inverse, Log, LogicalNot,
        Round, Rsqrt, Sign, Sin, Sinh, Sqrt, Square, Tan, Tanh, Threshold,
    ];
}

mod compressed;
mod unknown;
pub use activation::GeluMode;
pub use convolution::{PadType, Places as WindowPlaces, Run as WindowRun};
pub use random::CategoricalMode;
pub use recurrent::{Activation, Direction, LstmDirection};
pub use repeating::PadMode;
pub use resize::{BoxMode, CoordinatesMode, InterpolationMode, PaddingMode, ResampleMode, SamplingMode};
pub use scatter::ScatterMode;
pub use slicing::Places as SlicePlaces;
pub use space::Margins;
pub use unknown::{Unknown, UnknownArg};

/// The op called `name` in `opset`; where `opset` has none, a form of it from another op set.
pub fn by_name(name: &str, opset: Opset) -> Option<&'static OpInfo> {
    static INDEX: LazyLock<HashMap<&'static str, Vec<&'static OpInfo>>> = LazyLock::new(|| {
        let mut index: HashMap<_, Vec<_>> = HashMap::new();
        for info in OPS {
            index.entry(info.schema.name).or_default().push(info);
        }
        index
    });
    let forms = INDEX.get(name)?;
    forms.iter().find(|o| o.schema.exists_in(opset)).or_else(|| forms.first()).copied()
}

/// The declaration of `T`.
pub fn schema<T: OpMeta>() -> &'static crate::schema::Schema {
    T::SCHEMA
}
