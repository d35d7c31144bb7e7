//! Moving elements between space, channels and batches.

use crate::{
    ir::Value,
    schema::{Attr, AttrField, EvalCx, Facts, InferCx, Ints, OpError, Semantics, Tensors},
};
use mlconv_derive::Op;
use mlconv_tensor::{DType, Dim, Tensor, strides};
use smallvec::smallvec;

/// Declares an op that cuts `T[n, c, h, w]` into square blocks, or puts it together from them.
macro_rules! blocks {
    ($($(#[$doc:meta])* $ty:ident = $name:literal, $since:ident, $dir:ident, $order:ident,
       $(#[$field_attr:meta])* $field:ident;)*) => { $(
        $(#[$doc])*
        #[derive(Op, Clone, Debug, PartialEq)]
        #[op(name = $name, since = $since)]
        #[domain(T: Ios15 = F16 | F32)]
        pub struct $ty {
            /// `T[n, c, h, w]`.
            #[operand(T)]
            pub x: Value,
            /// The side of a block, at least 1.
            $(#[$field_attr])*
            pub $field: i64,
        }

        impl Semantics for $ty {
            fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
                let side = self.$field;
                if !(1..1 << 16).contains(&side) {
                    return Err(OpError::value(stringify!($field), side, "at least 1"));
                }
                let x = cx.ranked("x", self.x, 4..=4)?;
                let square = side * side;
                let [n, c, h, w] = [0, 1, 2, 3].map(|i| x.shape[i].clone());
                let shape = match Way::$dir {
                    Way::ToSpace => [n, divided(cx, self.x, &c, square)?, h * side, w * side],
                    Way::ToDepth => [n, c * square, divided(cx, self.x, &h, side)?, divided(cx, self.x, &w, side)?],
                };
                cx.result(x.dtype, shape)
            }

            fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
                let (x, side) = (cx.tensor(self.x), self.$field as usize);
                let steps = strides(x.shape());
                let depth = match Way::$dir {
                    Way::ToSpace => cx.out(0).shape[1],
                    Way::ToDepth => x.shape()[1],
                };
                let y = cx.out(0).gathered(x, |index| {
                    let [n, c, h, w] = [index[0], index[1], index[2], index[3]];
                    // The place in a block, `(row, column)`, and the channel of the block.
                    let (c, h, w) = match Way::$dir {
                        Way::ToSpace => (Order::$order.join(c, (h % side, w % side), depth, side), h / side, w / side),
                        Way::ToDepth => {
                            let (c, (row, column)) = Order::$order.split(c, depth, side);
                            (c, h * side + row, w * side + column)
                        }
                    };
                    n * steps[0] + c * steps[1] + h * steps[2] + w * steps[3]
                });
                Ok(smallvec![y])
            }
        }
    )* };
}

/// Where the elements of a block go.
enum Way {
    ToSpace,
    ToDepth,
}

/// The order of the channels that a block is made of.
enum Order {
    /// All channels of the first place of a block, then those of the next.
    PlaceFirst,
    /// All places of the first channel, then those of the next.
    ChannelFirst,
}

impl Order {
    fn join(self, c: usize, (row, column): (usize, usize), depth: usize, side: usize) -> usize {
        let place = row * side + column;
        match self {
            Self::PlaceFirst => place * depth + c,
            Self::ChannelFirst => c * side * side + place,
        }
    }

    fn split(self, c: usize, depth: usize, side: usize) -> (usize, (usize, usize)) {
        let (c, place) = match self {
            Self::PlaceFirst => (c % depth, c / depth),
            Self::ChannelFirst => (c / (side * side), c % (side * side)),
        };
        (c, (place / side, place % side))
    }
}

blocks! {
    /// Spreads channels over space: `y[n, c, h*b + i, w*b + j] = x[n, (i*b + j)*C + c, h, w]` of `C` channels.
    ///
    /// Result: `T[n, c/b^2, h*b, w*b]`.
    DepthToSpace = "depth_to_space", Ios15, ToSpace, PlaceFirst, #[attr] block_size;
    /// Collects space in channels: the inverse of [`DepthToSpace`].
    ///
    /// Result: `T[n, c*b^2, h/b, w/b]`.
    SpaceToDepth = "space_to_depth", Ios15, ToDepth, PlaceFirst, #[attr] block_size;
    /// Spreads channels over space: `y[n, c, h*f + i, w*f + j] = x[n, c*f^2 + i*f + j, h, w]`.
    ///
    /// Result: `T[n, c/f^2, h*f, w*f]`.
    PixelShuffle = "pixel_shuffle", Ios15, ToSpace, ChannelFirst, #[attr] upscale_factor;
    /// Collects space in channels: the inverse of [`PixelShuffle`].
    ///
    /// Result: `T[n, c*f^2, h/f, w/f]`.
    PixelUnshuffle = "pixel_unshuffle", Ios16, ToDepth, ChannelFirst, #[attr(dtype = U32)] downscale_factor;
}

/// `size / by`, where it is whole.
fn divided(cx: &InferCx<'_>, x: Value, size: &Dim, by: i64) -> Result<Dim, OpError> {
    match size.as_known() {
        Some(n) if n % by != 0 => Err(cx.operand("x", x, format!("a size that {by} divides, where {n} is"))),
        Some(_) | None => Ok(size.div_floor(&by.into())),
    }
}

/// Amounts at the beginning and end of two axes: `i32[2, 2]` in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Margins(pub [[i64; 2]; 2]);

impl AttrField for Margins {
    fn to_attr(&self) -> Option<Attr> {
        Some(Attr::Tensor(Tensor::from_i64(DType::I32, &[2, 2], self.0.as_flattened())))
    }
    fn from_attr(attr: Attr) -> Option<Self> {
        let Attr::Tensor(t) = attr else { return None };
        match t.to_i64()[..] {
            [a, b, c, d] if t.shape() == [2, 2] && t.dtype().is_int() => Some(Self([[a, b], [c, d]])),
            _ => None,
        }
    }
}

/// Cuts each image into blocks and collects equal places of all blocks: one image per place.
///
/// Image `(i*b1 + j)*n + k` of the result consists of the elements `[h*b0 + i, w*b1 + j]` of image `k` of `x`, which is
/// padded with zeros first. Result: `T[n*b0*b1, c, (h + before + after)/b0, (w + before + after)/b1]`.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "space_to_batch", since = Ios15)]
#[domain(T: Ios15 = F16 | F32)]
pub struct SpaceToBatch {
    /// `T[n, c, h, w]`.
    #[operand(T)]
    pub x: Value,
    /// The height and width of a block, at least 1.
    #[attr]
    pub block_shape: Ints,
    /// What is added before and after, of height and width.
    #[attr]
    pub paddings: Margins,
}

impl Semantics for SpaceToBatch {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let x = cx.ranked("x", self.x, 4..=4)?;
        let [b0, b1] = block(&self.block_shape)?;
        let padding = margins("paddings", self.paddings)?;
        let size = |i: usize, by: i64| divided(cx, self.x, &(&x.shape[i + 2] + (padding[i][0] + padding[i][1])), by);
        let shape = [&x.shape[0] * (b0 * b1), x.shape[1].clone(), size(0, b0)?, size(1, b1)?];
        cx.result(x.dtype, shape)
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let (out, shape, x) = (cx.out(0), cx.shape(self.x), cx.f64(self.x));
        let (steps, [b0, b1]) = (strides(shape), block(&self.block_shape)?.map(|b| b as usize));
        let [[top, _], [left, _]] = self.paddings.0.map(|m| m.map(|n| n as usize));
        let mut y = Vec::with_capacity(out.count());
        out.each_index(|index| {
            let (place, image) = (index[0] / shape[0], index[0] % shape[0]);
            let h = (index[2] * b0 + place / b1).checked_sub(top).filter(|h| *h < shape[2]);
            let w = (index[3] * b1 + place % b1).checked_sub(left).filter(|w| *w < shape[3]);
            y.push(match (h, w) {
                (Some(h), Some(w)) => x[image * steps[0] + index[1] * steps[1] + h * steps[2] + w * steps[3]],
                _ => 0.0,
            });
        });
        Ok(smallvec![out.of(&y)])
    }
}

/// Puts images together from blocks, one place of all blocks per image: the inverse of [`SpaceToBatch`].
///
/// Result: `T[n/(b0*b1), c, h*b0 - before - after, w*b1 - before - after]`.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "batch_to_space", since = Ios15)]
#[domain(T: Ios15 = F16 | F32)]
pub struct BatchToSpace {
    /// `T[n, c, h, w]`.
    #[operand(T)]
    pub x: Value,
    /// The height and width of a block, at least 1.
    #[attr]
    pub block_shape: Ints,
    /// What is cut off before and after, of height and width.
    #[attr]
    pub crops: Margins,
}

impl Semantics for BatchToSpace {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let x = cx.ranked("x", self.x, 4..=4)?;
        let [b0, b1] = block(&self.block_shape)?;
        let [rows, columns] = margins("crops", self.crops)?;
        let batch = divided(cx, self.x, &x.shape[0], b0 * b1)?;
        let (h, w) = (&x.shape[2] * b0 - (rows[0] + rows[1]), &x.shape[3] * b1 - (columns[0] + columns[1]));
        cx.result(x.dtype, [batch, x.shape[1].clone(), h, w])
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let (out, x) = (cx.out(0), cx.tensor(self.x));
        let (steps, [b0, b1]) = (strides(x.shape()), block(&self.block_shape)?.map(|b| b as usize));
        let [[top, _], [left, _]] = self.crops.0.map(|m| m.map(|n| n as usize));
        let y = out.gathered(x, |index| {
            let (h, w) = (index[2] + top, index[3] + left);
            let image = (h % b0 * b1 + w % b1) * out.shape[0] + index[0];
            image * steps[0] + index[1] * steps[1] + h / b0 * steps[2] + w / b1 * steps[3]
        });
        Ok(smallvec![y])
    }
}

fn block(shape: &[i64]) -> Result<[i64; 2], OpError> {
    match *shape {
        [a, b] if (1..1 << 16).contains(&a) && (1..1 << 16).contains(&b) => Ok([a, b]),
        _ => Err(OpError::value("block_shape", format!("{shape:?}"), "2 integers of at least 1")),
    }
}

fn margins(param: &'static str, m: Margins) -> Result<[[i64; 2]; 2], OpError> {
    if m.0.as_flattened().iter().all(|n| (0..1 << 31).contains(n)) {
        return Ok(m.0);
    }
    Err(OpError::value(param, format!("{:?}", m.0), "integers of at least 0"))
}

/// All windows of `size` neighbours along one axis, `stride` apart.
///
/// Result: `T[*d0, floor((d - size) / stride) + 1, size, *d1]`, of one more axis than `x`.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "sliding_windows", since = Ios15)]
#[domain(T: Ios15 = F16 | F32 | I32, Ios17 = I8 | I16 | U8 | U16 | Bool)]
pub struct SlidingWindows {
    /// `T[*d0, d, *d1]`.
    #[operand(T)]
    pub x: Value,
    /// The axis, in `-rank..rank`.
    #[attr]
    pub axis: i64,
    /// The length of a window, at least 1.
    #[attr]
    pub size: i64,
    /// The distance of windows, at least 1.
    #[attr(default = 1)]
    pub stride: i64,
}

impl Semantics for SlidingWindows {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let x = cx.tensor("x", self.x)?;
        let axis = x.shape.axis(self.axis)?;
        for (param, n) in [("size", self.size), ("stride", self.stride)] {
            if !(1..1 << 31).contains(&n) {
                return Err(OpError::value(param, n, "at least 1"));
            }
        }
        let windows = (&x.shape[axis.index()] - self.size).div_floor(&self.stride.into()) + 1;
        let mut shape = x.shape.with(axis, windows);
        shape.dims_mut().insert(axis.index() + 1, self.size.into());
        cx.result(x.dtype, shape)
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let x = cx.tensor(self.x);
        let axis = mlconv_tensor::Shape::from(x.shape()).axis(self.axis)?.index();
        let steps = strides(x.shape());
        let y = cx.out(0).gathered(x, |index| {
            let at = |i: usize| match i.cmp(&axis) {
                std::cmp::Ordering::Less => index[i],
                std::cmp::Ordering::Equal => index[i] * self.stride as usize + index[i + 1],
                std::cmp::Ordering::Greater => index[i + 1],
            };
            steps.iter().enumerate().map(|(i, step)| at(i) * step).sum()
        });
        Ok(smallvec![y])
    }
}
