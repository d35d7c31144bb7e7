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
    activation: [Relu, Softmax];
    binary: [Add];
    classify: [Classify];
    constant: [Const, Identity];
    constexpr: [ConstexprBlockwiseShiftScale, ConstexprCast, ConstexprLutToDense, ConstexprLutToSparse,
        ConstexprSparseBlockwiseShiftScale, ConstexprSparseToDense];
    constexpr_ios16: [ConstexprAffineDequantize, ConstexprCastIos16, ConstexprPackedLutToDense,
        ConstexprPackedSparseToDense];
    control_flow: [Cond, WhileLoop];
    convolution: [Conv];
    gather: [Gather, GatherAlongAxis, GatherNd];
    joining: [Concat, Split, Stack];
    repeating: [Pad, Reverse, ReverseSequence, Tile];
    scatter: [Scatter, ScatterAlongAxis, ScatterNd];
    shaping: [ExpandDims, Flatten2d, Reshape, ReshapeLike, Squeeze, Transpose];
    slicing: [SliceByIndex, SliceBySize, SliceUpdate];
    state: [ReadState, WriteState];
    suppression: [NonMaximumSuppression, NonMaximumSuppressionIos15];
}

mod compressed;
mod unknown;
pub use convolution::PadType;
pub use repeating::PadMode;
pub use scatter::ScatterMode;
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
