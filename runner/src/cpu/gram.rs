//! What the inputs of a weight are like: the products of each two of them, summed over all runs.

use super::{
    conv::Patches,
    data::load,
    gemm::{Columns, Matrix, Onto, product_of},
};
use mlconv_mil::{
    ir::{Function, OpId, Value},
    ops::{Conv, Linear, Matmul},
};
use mlconv_tensor::Tensor;
use rayon::prelude::*;

/// `Xᵀ X` over the inputs that a weight was multiplied with, where each of its rows is a sum over `d` inputs.
#[derive(Clone, Debug, PartialEq)]
pub struct Gram {
    /// How many groups the rows of the weight belong to, each with inputs of its own.
    pub groups: usize,
    /// The inputs of a row.
    pub d: usize,
    /// `f64[groups, d, d]`.
    pub data: Vec<f64>,
    /// How many inputs were seen, for each group.
    pub rows: u64,
}

/// How an op multiplies a weight with another operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Product {
    /// The operand.
    pub x: Value,
    form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Form {
    /// Sums over the last axis of the operand.
    Last,
    /// Sums over the last axis but one.
    LastButOne,
    /// Sums over the windows of a convolution.
    Windows(OpId),
}

impl Product {
    /// How `op` multiplies `weight`; `None` where it does not, or not by rows of a matrix or a kernel.
    pub fn of(f: &Function, op: OpId, weight: Value) -> Option<Self> {
        let rank = f.ty(weight).tensor()?.shape.rank();
        if let Some(conv) = f.op::<Conv>(op) {
            return (conv.weight == weight).then_some(Self { x: conv.x, form: Form::Windows(op) });
        }
        if rank != 2 {
            return None;
        }
        if let Some(linear) = f.op::<Linear>(op) {
            return (linear.weight == weight).then_some(Self { x: linear.x, form: Form::Last });
        }
        let matmul = f.op::<Matmul>(op)?;
        let (x, last) = match (matmul.x == weight, matmul.y == weight) {
            (false, true) => (matmul.x, !matmul.transpose_x),
            (true, false) => (matmul.y, matmul.transpose_y),
            _ => return None,
        };
        let rank = f.ty(x).tensor()?.shape.rank();
        (rank >= 2).then_some(Self { x, form: if last { Form::Last } else { Form::LastButOne } })
    }

    /// The groups and the inputs of a row of a weight of this shape, of which `input` is the axis of input channels.
    pub fn size(&self, f: &Function, weight: &[usize], input: usize) -> Option<[usize; 2]> {
        match self.form {
            Form::Windows(op) => {
                let groups = usize::try_from(f.op::<Conv>(op)?.groups).ok()?;
                Some([groups, weight.get(1..)?.iter().product()])
            }
            Form::Last | Form::LastButOne => Some([1, *weight.get(input)?]),
        }
    }

    /// Whether both see the same inputs in the same order.
    pub fn same_inputs(&self, other: &Self, f: &Function, weights: [&[usize]; 2]) -> bool {
        match (self.form, other.form) {
            (Form::Windows(a), Form::Windows(b)) => {
                let (Some(a), Some(b)) = (f.op::<Conv>(a), f.op::<Conv>(b)) else { return false };
                let geometry =
                    |c: &Conv| (c.x, c.groups, c.strides.clone(), c.pad_type, c.pad.clone(), c.dilations.clone());
                geometry(a) == geometry(b) && weights[0][1..] == weights[1][1..]
            }
            (a, b) => a == b && self.x == other.x,
        }
    }
}

impl Gram {
    /// Nothing seen so far.
    pub fn new([groups, d]: [usize; 2]) -> Self {
        Self { groups, d, data: vec![0.0; groups * d * d], rows: 0 }
    }

    /// Adds the inputs in `x`, which an op multiplied with a weight of shape `weight` to a result of shape `result`; `None`
    /// where these do not fit.
    pub fn add(&mut self, f: &Function, by: &Product, x: &Tensor, weight: &[usize], result: &[usize]) -> Option<()> {
        let values = load(x)?;
        let (d, shape) = (self.d, x.shape());
        match by.form {
            Form::Last => {
                let rows = values.len().checked_div(d)?;
                (shape.last() == Some(&d)).then_some(())?;
                let m = Matrix::packed(&values, rows, d)?;
                let mut sums = vec![0.0; d * d];
                product_of(&mut sums, m.transposed(), m, Onto::Nothing);
                self.join(0, &sums, rows);
            }
            Form::LastButOne => {
                let [.., inputs, columns] = shape else { return None };
                (*inputs == d).then_some(())?;
                let mut sums = vec![0.0; d * d];
                for part in values.chunks_exact((d * columns).max(1)) {
                    let m = Matrix::packed(part, d, *columns)?;
                    product_of(&mut sums, m, m.transposed(), Onto::Sum);
                }
                self.join(0, &sums, values.len() / d.max(1));
            }
            Form::Windows(op) => {
                let places = f.op::<Conv>(op)?.places(shape, weight, result);
                let (image, windows, channels) = (places.image(), places.windows(), *weight.get(1)?);
                (channels * places.taps() == d && channels * image > 0).then_some(())?;
                let groups = self.groups;
                (shape.get(1) == Some(&(channels * groups))).then_some(())?;
                let parts = self.data.par_chunks_mut((d * d).max(1)).enumerate();
                parts.try_for_each(|(g, data)| {
                    let (mut sums, mut scratch) = (vec![0.0; d * d], vec![]);
                    for x in values.chunks_exact(channels * image).skip(g).step_by(groups) {
                        let patches = Patches { x, places: &places, channels };
                        let tile = patches.tile();
                        for start in (0..windows).step_by(tile) {
                            let m = patches.columns(start..windows.min(start + tile), &mut scratch);
                            product_of(&mut sums, m, m.transposed(), Onto::Sum);
                        }
                    }
                    data.iter_mut().zip(&sums).for_each(|(to, s)| *to += f64::from(*s));
                    Some(())
                })?;
                self.rows += (shape[0] * windows) as u64;
            }
        }
        Some(())
    }

    fn join(&mut self, group: usize, sums: &[f32], rows: usize) {
        let size = self.d * self.d;
        let part = &mut self.data[group * size..(group + 1) * size];
        part.iter_mut().zip(sums).for_each(|(to, s)| *to += f64::from(*s));
        self.rows += rows as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlconv_mil::text::parse;

    /// The sums of the first op of a kind that reads `w`, of shape `weight`, over one input.
    fn sums(text: &str, op: &str, weight: &[usize], input: usize, x: &Tensor, result: &[usize]) -> Gram {
        let module = parse(text).expect("parses");
        let f = &module.functions[0];
        let id = *f.all_ops().iter().find(|id| f.op_data(**id).op.schema().name == op).expect("is there");
        let mut w = None;
        f.op_data(id).op.visit_operands(&mut |v| {
            if &*f.value(v).hint == "w" {
                w = Some(v);
            }
        });
        let by = Product::of(f, id, w.expect("is read")).expect("a product");
        let mut g = Gram::new(by.size(f, weight, input).expect("a size"));
        g.add(f, &by, x, weight, result).expect("fits");
        g
    }

    #[test]
    fn rows_of_a_linear_are_those_of_its_input() {
        let text = "func @main(%x: f32[2, 2]) ios17 {
  %w = const(val=f32[3, 2] [1, 2, 3, 4, 5, 6])
  %b = const(val=f32[3] [0, 0, 0])
  %y = linear(x=%x, weight=%w, bias=%b)
  return %y
}";
        let x = Tensor::from_vec(&[2, 2], vec![1f32, 2.0, 3.0, 4.0]);
        let g = sums(text, "linear", &[3, 2], 1, &x, &[2, 3]);
        assert_eq!((g.data, g.rows), (vec![10.0, 14.0, 14.0, 20.0], 2));
    }

    #[test]
    fn columns_count_where_the_weight_comes_first() {
        let text = "func @main(%x: f32[2, 1]) ios17 {
  %w = const(val=f32[3, 2] [1, 2, 3, 4, 5, 6])
  %y = matmul(x=%w, y=%x)
  return %y
}";
        let x = Tensor::from_vec(&[2, 1], vec![1f32, 3.0]);
        let g = sums(text, "matmul", &[3, 2], 1, &x, &[3, 1]);
        assert_eq!((g.data, g.rows), (vec![1.0, 3.0, 3.0, 9.0], 1));
    }

    #[test]
    fn windows_and_groups_of_a_convolution_are_apart() {
        let text = "func @main(%x: f32[1, 2, 3]) ios17 {
  %w = const(val=f32[2, 1, 2] [1, 2, 3, 4])
  %y = conv(x=%x, weight=%w, groups=2)
  return %y
}";
        let x = Tensor::from_vec(&[1, 2, 3], vec![1f32, 2.0, 3.0, 0.0, 1.0, 0.0]);
        let g = sums(text, "conv", &[2, 1, 2], 1, &x, &[1, 2, 2]);
        assert_eq!((g.groups, g.d, g.rows), (2, 2, 2));
        assert_eq!(g.data, vec![5.0, 8.0, 8.0, 13.0, 1.0, 0.0, 0.0, 1.0]);
    }
}
