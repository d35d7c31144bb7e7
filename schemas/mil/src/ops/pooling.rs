//! Poolings.

use super::convolution::{PadType, Places, Window};
use crate::{
    ir::Value,
    schema::{EvalCx, Facts, InferCx, Ints, OpError, Semantics, Tensors},
};
use mlconv_derive::Op;
use mlconv_tensor::Dim;
use smallvec::smallvec;

/// Declares a pooling; they differ in the parameters after `x` and in what they compute of a window.
macro_rules! pooling {
    ($(#[$doc:meta])* $ty:ident = $name:literal, $ranks:expr, $eval:expr $(, $(#[$field_doc:meta])* $field:ident)?) => {
        $(#[$doc])*
        #[derive(Op, Clone, Debug, PartialEq)]
        #[op(name = $name, since = Ios15)]
        #[domain(T: Ios15 = F16 | F32)]
        pub struct $ty {
            /// `T[n, c, *d_in]`.
            #[operand(T)]
            pub x: Value,
            /// The size of a window, per spatial dimension.
            #[attr]
            pub kernel_sizes: Ints,
            /// Step per spatial dimension, at least 1.
            #[attr(default_with = |cx| cx.per_spatial_dim(1))]
            pub strides: Ints,
            /// How windows meet the borders.
            #[attr]
            pub pad_type: PadType,
            /// Padding before and after, per spatial dimension; read only where `pad_type` is `custom`.
            #[attr(default_with = |cx| [cx.per_spatial_dim(0), cx.per_spatial_dim(0)].concat())]
            pub pad: Ints,
            /// Whether a last window may reach over the end: the number of windows is rounded up, less a window that
            /// would start behind the image. Padding is then `valid` or symmetric, of at most 2 spatial dimensions.
            #[attr(default = false)]
            pub ceil_mode: bool,
            $(
                $(#[$field_doc])*
                #[attr(default = false)]
                pub $field: bool,
            )?
        }

        impl $ty {
            /// The windows of a run, of the shapes of `x` and the result.
            pub fn places(&self, x: &[usize], result: &[usize]) -> Places {
                let Self { kernel_sizes, strides, pad_type, pad, ceil_mode, .. } = self;
                let dilations = vec![1; kernel_sizes.len()];
                let kernel: Vec<usize> = kernel_sizes.iter().map(|k| *k as usize).collect();
                let window =
                    Window { strides, pad_type: *pad_type, pad, dilations: &dilations, ceil: *ceil_mode };
                window.places(&x[2..], &kernel, &result[2..])
            }
        }

        impl Semantics for $ty {
            fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
                let Self { x, kernel_sizes, strides, pad_type, pad, ceil_mode, .. } = self;
                let x = cx.ranked("x", *x, $ranks)?;
                let dilations = vec![1; x.shape.rank() - 2];
                let window =
                    Window { strides, pad_type: *pad_type, pad, dilations: &dilations, ceil: *ceil_mode };
                window.check(cx.opset, dilations.len())?;
                if kernel_sizes.len() != dilations.len() || kernel_sizes.iter().any(|k| !(1..1 << 31).contains(k)) {
                    let want = format!("{} integers of at least 1", dilations.len());
                    return Err(OpError::value("kernel_sizes", format!("{kernel_sizes:?}"), want));
                }
                let kernel: Vec<Dim> = kernel_sizes.iter().map(|k| Dim::from(*k)).collect();
                let counts = window.counts(&x.shape[2..], &kernel)?;
                cx.result(x.dtype, [&x.shape[..2], counts.as_slice()].concat())
            }

            fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
                let (out, x) = (cx.out(0), self.x);
                if out.count() == 0 {
                    return Ok(smallvec![out.of(&[])]);
                }
                let places = self.places(cx.shape(x), &out.shape);
                let eval: fn(&Self, &Places, &[f64], usize) -> Vec<f64> = $eval;
                Ok(smallvec![out.of(&eval(self, &places, &cx.f64(x), out.count()))])
            }
        }
    };
}

pooling! {
    /// The mean over each window, in 1, 2 or 3 spatial dimensions.
    ///
    /// Result: `T[n, c, *d_out]`, `d_out` as for [`Conv`](super::Conv) without dilation. Padding counts as zeros; what
    /// reaches over the end of the padded image, in `ceil_mode`, does not count.
    AvgPool = "avg_pool", 3..=5, |op, places, x, count| {
        let sizes = places.sizes(!op.exclude_padding_from_average);
        fold(places, x, count, 0.0, |sum, x| sum + x).into_iter().zip(sizes.into_iter().cycle()).map(|(y, n)| y / n).collect()
    },
    /// Whether to divide by the number of elements that are not padding.
    exclude_padding_from_average
}

pooling! {
    /// The greatest element of each window, in 1, 2 or 3 spatial dimensions; NaN where one is NaN.
    ///
    /// Result: `T[n, c, *d_out]`, `d_out` as for [`Conv`](super::Conv) without dilation. Padding never is the greatest.
    MaxPool = "max_pool", 3..=5, |_, places, x, count| {
        fold(places, x, count, f64::NEG_INFINITY, |max, x| if x > max || x.is_nan() { x } else { max })
    }
}

pooling! {
    /// The root of the sum of squares of each window, in 1 or 2 spatial dimensions.
    ///
    /// Result: `T[n, c, *d_out]`, `d_out` as for [`Conv`](super::Conv) without dilation. Padding counts as zeros.
    L2Pool = "l2_pool", 3..=4, |_, places, x, count| {
        fold(places, x, count, 0.0, |sum, x| sum + x * x).into_iter().map(f64::sqrt).collect()
    }
}

/// Folds the elements of each window that lie inside of their image, into `count` results.
fn fold(places: &Places, x: &[f64], count: usize, first: f64, f: fn(f64, f64) -> f64) -> Vec<f64> {
    let mut y = vec![first; count];
    // Of images without pixels, windows see nothing but padding.
    for (y, x) in y.chunks_exact_mut(places.windows()).zip(x.chunks_exact(places.image().max(1))) {
        places.each_run(|run| {
            let read = x[run.image..].iter().step_by(places.step());
            y[run.windows].iter_mut().zip(read).for_each(|(y, x)| *y = f(*y, *x));
        });
    }
    y
}
