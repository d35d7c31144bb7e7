//! Holds the CPU backend to the reference kernels: random shapes and attributes from fixed seeds, in single and half
//! precision, small enough to be quick and large enough to be cut into tasks.

use mlconv_mil::{
    schema::{EvalCx, Op, OpError, Tensors},
    text, verify,
};
use mlconv_runner::{Backend, Options, Reference, Session, States, cpu::Cpu};
use mlconv_tensor::{DType, Tensor, Type};
use std::{
    fmt::Write,
    sync::atomic::{AtomicUsize, Ordering},
};

/// Numbers that look random: Marsaglia's xorshift.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    /// One of `range`, its end included.
    fn int(&mut self, range: std::ops::RangeInclusive<usize>) -> usize {
        range.start() + self.next() as usize % (range.end() - range.start() + 1)
    }
    fn ints(&mut self, n: usize, range: std::ops::RangeInclusive<usize>) -> Vec<usize> {
        (0..n).map(|_| self.int(range.clone())).collect()
    }
    fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.int(0..=of.len() - 1)]
    }
    fn bool(&mut self) -> bool {
        self.next() & 1024 == 0
    }
    fn float(&mut self) -> f64 {
        (self.next() % (1 << 20)) as f64 / f64::from(1 << 18) - 2.0
    }
}

/// What the elements of an operand are.
#[derive(Clone, Copy, PartialEq)]
enum Fill {
    /// From -2 to 2.
    Any,
    /// Greater than 0.
    Positive,
    /// With infinities and NaN among them.
    Special,
    /// Integers from 0 on, of a type of their own.
    Below(DType, usize),
    /// Integers from the negative of this on.
    Around(i64),
}

/// An operand: a shape, its elements, and whether it is a constant of the program.
type Operand = (Vec<usize>, Fill, bool);

fn input(shape: &[usize]) -> Operand {
    (shape.to_vec(), Fill::Any, false)
}

fn constant(shape: &[usize]) -> Operand {
    (shape.to_vec(), Fill::Any, true)
}

/// A program of one op. Operands are `%a`, `%b`, …; `sum` is how many terms an element of the result has.
struct Case {
    op: String,
    operands: Vec<Operand>,
    sum: usize,
}

fn case(op: impl Into<String>, operands: Vec<Operand>, sum: usize) -> Case {
    Case { op: op.into(), operands, sum }
}

/// The CPU backend, and how many ops it left to the reference although they had something to compute.
#[derive(Default)]
struct Counting(AtomicUsize);

impl Backend for Counting {
    fn run(&self, op: &dyn Op, cx: &EvalCx<'_>) -> Option<Result<Tensors, OpError>> {
        let done = Cpu.run(op, cx);
        if done.is_none() && cx.out(0).count() > 0 {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        done
    }
}

fn tensor(r: &mut Random, dtype: DType, (shape, fill, _): &Operand) -> Tensor {
    let count = shape.iter().product();
    let mut value = |i: usize| match fill {
        Fill::Any => r.float(),
        Fill::Positive => r.float().abs() + 0.01,
        Fill::Special => match i % 7 {
            1 => [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0][r.int(0..=4)],
            2 => r.float() * 60.0,
            _ => r.float(),
        },
        Fill::Below(_, n) => r.int(0..=n - 1) as f64,
        Fill::Around(n) => r.int(0..=2 * *n as usize) as f64 - *n as f64,
    };
    let values: Vec<f64> = (0..count).map(&mut value).collect();
    let dtype = match fill {
        Fill::Below(own, _) => *own,
        Fill::Around(_) => DType::I32,
        Fill::Any | Fill::Positive | Fill::Special => dtype,
    };
    Tensor::from_f64(dtype, shape, &values)
}

fn check(seed: u64, dtype: DType, case: &Case) {
    let r = &mut Random((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let names = ["a", "b", "c", "d", "e", "f", "g"];
    let (mut inputs, mut signature, mut body) = (vec![], vec![], String::new());
    for (operand, name) in case.operands.iter().zip(names) {
        let t = tensor(r, dtype, operand);
        let ty = format!("{}{:?}", t.dtype(), t.shape());
        if operand.2 {
            let values = t.to_f64().into_iter().map(|v| format!("{v:?}")).collect::<Vec<_>>().join(", ");
            let values = if t.dtype().is_float() { values } else { values.replace(".0", "") };
            let values = if t.shape().is_empty() { values } else { format!("[{values}]") };
            writeln!(body, "  %{name} = const(val={ty} {values})").expect("memory");
        } else {
            signature.push(format!("%{name}: {ty}"));
            inputs.push(Some(t));
        }
    }
    let (results, _) = case.op.split_once('=').expect("results, and an op");
    let opset = if case.op.contains("affine_dequantize") { "ios16" } else { "ios18" };
    let source =
        format!("func @main({}) {opset} {{\n{body}  {}\n  return {results}\n}}\n", signature.join(", "), case.op);
    let module = text::parse(&source).unwrap_or_else(|e| panic!("{e}\n{source}"));
    let module = verify::verify(module).unwrap_or_else(|e| panic!("{e:?}\n{source}"));
    let f = module.function("main").expect("one function");
    assert!(f.inputs().iter().all(|v| matches!(f.ty(*v), Type::Tensor(_))));
    let run = |backend: &dyn Backend| {
        let session = Session::new(&module, f, backend, Options::default());
        session.run(&inputs, &mut States::default()).unwrap_or_else(|e| panic!("{e}\n{source}"))
    };
    let (want, counting) = (run(&Reference), Counting::default());
    let got = run(&counting);
    assert_eq!(counting.0.into_inner(), 0, "left to the reference:\n{source}");
    for (want, got) in want.iter().zip(&got) {
        assert_eq!((want.dtype(), want.shape()), (got.dtype(), got.shape()), "{source}");
        compare(want, got, case.sum).unwrap_or_else(|e| panic!("{e}\nseed {seed}\n{source}"));
    }
}

/// Results are rounded once or twice to their type; sums may have lost a unit of single precision per term, measured by the
/// largest results.
fn compare(want: &Tensor, got: &Tensor, sum: usize) -> Result<(), String> {
    let (want, got, half) = (want.to_f64(), got.to_f64(), want.dtype() == DType::F16);
    let scale = want.iter().filter(|v| v.is_finite()).fold(0f64, |m, v| m.max(v.abs()));
    let single = f64::from(f32::EPSILON);
    let unit = if half { 2f64.powi(-10) } else { 4.0 * single };
    // The least positive numbers of the type.
    let least = if half { 2f64.powi(-24) } else { f64::from(f32::MIN_POSITIVE) };
    for (i, (w, g)) in want.iter().zip(&got).enumerate() {
        let room = unit * w.abs() + if sum > 0 { single * sum as f64 * scale } else { 0.0 } + least;
        let same = w == g || (w.is_nan() && g.is_nan());
        if !same && ((w - g).abs().is_nan() || (w - g).abs() > room) {
            return Err(format!("element {i} is {g}, wanted {w}, give or take {room}"));
        }
    }
    Ok(())
}

/// Checks some cases of a family in both types.
fn family(count: u64, make: impl Fn(&mut Random) -> Case) {
    for seed in 0..count {
        for dtype in [DType::F32, DType::F16] {
            let r = &mut Random((seed + 1).wrapping_mul(0x2545_f491_4f6c_dd1d));
            r.next();
            check(seed, dtype, &make(r));
        }
    }
}

fn padding(r: &mut Random, spatial: usize) -> String {
    match r.int(0..=3) {
        0 => "pad_type=\"valid\"".to_owned(),
        1 => "pad_type=\"same\"".to_owned(),
        2 => "pad_type=\"same_lower\"".to_owned(),
        _ => format!("pad_type=\"custom\", pad={:?}", r.ints(2 * spatial, 0..=2)),
    }
}

#[test]
fn convolutions() {
    family(60, |r| {
        let spatial = r.int(1..=3);
        let groups = *r.pick(&[&1usize, &1, &2, &3]);
        let (c_in, c_out) = (groups * r.int(1..=5), groups * r.int(1..=6));
        let sizes = r.ints(spatial, if spatial == 3 { 4..=7 } else { 6..=24 });
        let kernel = r.ints(spatial, 1..=3);
        let (strides, dilations) = (r.ints(spatial, 1..=2), r.ints(spatial, 1..=2));
        let pad = padding(r, spatial);
        let shape = [&[r.int(1..=2), c_in][..], &sizes].concat();
        let weight = [&[c_out, c_in / groups][..], &kernel].concat();
        let sum = weight[1..].iter().product();
        let op = format!(
            "%y = conv(x=%a, weight=%b, bias=%c, strides={strides:?}, dilations={dilations:?}, groups={groups}, {pad})"
        );
        case(op, vec![input(&shape), constant(&weight), constant(&[c_out])], sum)
    });
}

#[test]
fn convolutions_in_many_tiles() {
    family(6, |r| {
        let (c_in, c_out, size) = (r.int(17..=40), r.int(120..=140), r.int(20..=30));
        let kernel = *r.pick(&[&1usize, &3]);
        let op = format!("%y = conv(x=%a, weight=%b, strides={:?}, pad_type=\"same\")", [1, r.int(1..=2)]);
        case(op, vec![input(&[1, c_in, size, size]), constant(&[c_out, c_in, kernel, kernel])], c_in * kernel * kernel)
    });
}

#[test]
fn transposed_convolutions() {
    family(40, |r| {
        let spatial = r.int(1..=2);
        let groups = *r.pick(&[&1usize, &2]);
        let (c_in, per_out) = (groups * r.int(1..=9), r.int(1..=20));
        let shape = [&[r.int(1..=2), c_in][..], &r.ints(spatial, 4..=9)].concat();
        let weight = [&[c_in, per_out][..], &r.ints(spatial, 1..=4)].concat();
        let pad = *r.pick(&[&"valid", &"same", &"custom"]);
        let op = format!(
            "%y = conv_transpose(x=%a, weight=%b, bias=%c, strides={:?}, dilations={:?}, groups={groups}, \
             pad_type=\"{pad}\", pad={:?})",
            r.ints(spatial, 1..=3),
            r.ints(spatial, 1..=2),
            r.ints(2 * spatial, 0..=1)
        );
        case(op, vec![input(&shape), constant(&weight), constant(&[per_out * groups])], c_in * 16)
    });
}

#[test]
fn poolings() {
    family(45, |r| {
        let spatial = r.int(1..=2);
        let kernel = r.ints(spatial, 1..=4);
        let name = *r.pick(&[&"max_pool", &"avg_pool", &"l2_pool"]);
        let pad = if r.bool() { padding(r, spatial) } else { "pad_type=\"valid\", ceil_mode=true".to_owned() };
        // Every window must hold something besides padding: nothing but padding has no mean.
        let pad = if pad.contains("custom") { "pad_type=\"same\"".to_owned() } else { pad };
        let exclude =
            if name == "avg_pool" { format!(", exclude_padding_from_average={}", r.bool()) } else { String::new() };
        let strides = r.ints(spatial, 1..=3);
        let op = format!("%y = {name}(x=%a, kernel_sizes={kernel:?}, strides={strides:?}, {pad}{exclude})");
        let shape = [&[r.int(1..=2), r.int(1..=5)][..], &r.ints(spatial, 5..=40)].concat();
        let fill = if name == "max_pool" { Fill::Special } else { Fill::Any };
        case(op, vec![(shape, fill, false)], kernel.iter().product())
    });
}

#[test]
fn products() {
    family(60, |r| {
        let [m, k, n] = [1, 2, 3].map(|_| *r.pick(&[&1usize, &2, &7, &33, &70, &150]));
        let batch = r.ints(2, 1..=3);
        let one = |r: &mut Random| -> Vec<usize> {
            let from = r.int(0..=2);
            batch[from..].iter().map(|d| if r.bool() { *d } else { 1 }).collect()
        };
        let (transpose_x, transpose_y) = (r.bool(), r.bool());
        let (x, y) = (if transpose_x { [k, m] } else { [m, k] }, if transpose_y { [n, k] } else { [k, n] });
        let op = format!("%y = matmul(x=%a, y=%b, transpose_x={transpose_x}, transpose_y={transpose_y})");
        case(op, vec![input(&[&one(r)[..], &x].concat()), input(&[&one(r)[..], &y].concat())], k)
    });
    for (x, y) in [(&[9][..], &[9, 5][..]), (&[4, 9], &[9]), (&[9], &[9]), (&[9], &[2, 3, 9, 5])] {
        family(1, |_| case("%y = matmul(x=%a, y=%b)", vec![input(x), input(y)], 9));
    }
    family(12, |r| {
        let (rows, k, n) = (*r.pick(&[&1usize, &3, &50]), r.int(1..=90), r.int(1..=80));
        let operands = vec![input(&[2, rows, k]), constant(&[n, k]), constant(&[n])];
        case("%y = linear(x=%a, weight=%b, bias=%c)", operands, k)
    });
    let equations: [(&str, &[usize], &[usize]); 5] = [
        ("nchw,nwhu->nchu", &[2, 3, 4, 5], &[2, 5, 4, 6]),
        ("chw,whr->chr", &[3, 4, 5], &[5, 4, 2]),
        ("bhid,bhjd->bhij", &[2, 3, 9, 8], &[2, 3, 7, 8]),
        ("ab,cd->dacb", &[2, 3], &[4, 5]),
        ("abc,bcd->da", &[4, 5, 6], &[5, 6, 7]),
    ];
    for (equation, x, y) in equations {
        family(1, |_| {
            case(format!("%y = einsum(values=(%a, %b), equation=\"{equation}\")"), vec![input(x), input(y)], 30)
        });
    }
}

#[test]
fn attentions() {
    family(20, |r| {
        let (b, h, l, s, e, ev) =
            (r.int(1..=2), r.int(1..=3), r.int(1..=130), r.int(1..=90), r.int(1..=40), r.int(1..=40));
        let mut operands = vec![input(&[b, h, l, e]), input(&[b, h, s, e]), input(&[b, h, s, ev])];
        let mask = match r.int(0..=3) {
            0 => None,
            1 => Some((vec![l, s], Fill::Any, false)),
            2 => Some((vec![b, 1, l, s], Fill::Below(DType::Bool, 2), false)),
            _ => Some((vec![s], Fill::Any, false)),
        };
        let with = if mask.is_some() { ", attn_mask=%d" } else { "" };
        operands.extend(mask);
        case(format!("%y = scaled_dot_product_attention(query=%a, key=%b, value=%c{with})"), operands, e + s)
    });
}

/// Two shapes that are broadcast together.
fn broadcast(r: &mut Random) -> [Vec<usize>; 2] {
    let rank = r.int(0..=4);
    let out = r.ints(rank, 1..=17);
    let mut one = || {
        let from = r.int(0..=rank);
        out[from..].iter().map(|d| if r.int(0..=2) > 0 { *d } else { 1 }).collect()
    };
    [one(), one()]
}

#[test]
fn binary_ops() {
    for name in ["add", "sub", "mul", "real_div", "maximum", "minimum", "mod", "floor_div", "pow"] {
        family(12, |r| {
            let fill = if matches!(name, "mod" | "floor_div" | "pow") { Fill::Positive } else { Fill::Special };
            case(format!("%y = {name}(x=%a, y=%b)"), broadcast(r).map(|s| (s, fill, false)).to_vec(), 0)
        });
    }
    for name in ["equal", "not_equal", "less", "less_equal", "greater", "greater_equal"] {
        family(4, |r| {
            case(format!("%y = {name}(x=%a, y=%b)"), broadcast(r).map(|s| (s, Fill::Special, false)).to_vec(), 0)
        });
        family(2, |r| {
            case(format!("%y = {name}(x=%a, y=%b)"), broadcast(r).map(|s| (s, Fill::Around(3), false)).to_vec(), 0)
        });
    }
    for name in ["add", "sub", "mul", "maximum", "minimum"] {
        let operands = |r: &mut Random| broadcast(r).map(|s| (s, Fill::Around(1 << 30), false)).to_vec();
        family(3, |r| case(format!("%y = {name}(x=%a, y=%b)"), operands(r), 0));
    }
    for name in ["logical_and", "logical_or", "logical_xor"] {
        let operands = |r: &mut Random| broadcast(r).map(|s| (s, Fill::Below(DType::Bool, 2), false)).to_vec();
        family(3, |r| case(format!("%y = {name}(x=%a, y=%b)"), operands(r), 0));
    }
    family(1, |_| case("%y = add(x=%a, y=%b)", vec![input(&[3, 70, 211]), input(&[70, 1])], 0));
    family(20, |r| {
        let [a, b] = broadcast(r);
        let cond = (b.clone(), Fill::Below(DType::Bool, 2), false);
        case("%y = select(cond=%a, a=%b, b=%c)", vec![cond, (a, Fill::Special, false), (b, Fill::Special, false)], 0)
    });
}

#[test]
fn unary_ops() {
    let ops = "relu relu6 sigmoid silu softplus softsign tanh exp exp2 erf square abs sign floor ceil round sin cos \
               clip:alpha=-0.5,beta=0.75 threshold:alpha=0.5 thresholded_relu:alpha=0.5 leaky_relu:alpha=0.25 \
               elu:alpha=1.5 clamped_relu:alpha=0.5,beta=1.0 linear_activation:alpha=1.5,beta=0.5 \
               scaled_tanh:alpha=1.5,beta=0.5 sigmoid_hard:alpha=0.2,beta=0.5 gelu gelu:mode=\"TANH_APPROXIMATION\" \
               gelu:mode=\"SIGMOID_APPROXIMATION\" sqrt rsqrt log inverse cast:dtype=\"fp32\" cast:dtype=\"fp16\"";
    for op in ops.split_whitespace() {
        let (name, attrs) = op.split_once(':').unwrap_or((op, ""));
        let fill = if matches!(name, "sqrt" | "rsqrt" | "log") { Fill::Positive } else { Fill::Special };
        // The angles of sines are reduced, and what is near 0 is measured by the terms of the sum that it is.
        let sum = usize::from(matches!(name, "sin" | "cos" | "linear_activation" | "sigmoid_hard" | "gelu"));
        for shape in [vec![], vec![3, 5], vec![7, 50, 101]] {
            family(1, |_| {
                case(format!("%y = {name}(x=%a, {attrs})").replace(", )", ")"), vec![(shape.clone(), fill, false)], sum)
            });
        }
    }
    family(4, |r| {
        let (c, size) = (r.int(1..=5), r.int(1..=90));
        case("%y = prelu(x=%a, alpha=%b)", vec![input(&[2, c, size, 3]), constant(&[c])], 0)
    });
}

#[test]
fn normalizations() {
    family(20, |r| {
        let rank = r.int(1..=4);
        let axis = r.int(0..=rank - 1) as i64 - if r.bool() { rank as i64 } else { 0 };
        case(format!("%y = softmax(x=%a, axis={axis})"), vec![input(&r.ints(rank, 1..=30))], 0)
    });
    family(20, |r| {
        let shape = r.ints(4, 2..=12);
        let mut axes: Vec<usize> = (0..4).filter(|_| r.bool()).collect();
        axes.push(3);
        axes.dedup();
        if r.int(0..=4) == 0 {
            axes = vec![1];
        }
        let sizes: Vec<usize> = axes.iter().map(|a| shape[*a]).collect();
        let op = format!("%y = layer_norm(x=%a, axes={axes:?}, gamma=%b, beta=%c)");
        case(op, vec![input(&shape), constant(&sizes), constant(&sizes)], 4)
    });
    family(8, |r| {
        let (c, shape) = (r.int(1..=6), [2, 0, r.int(2..=40), r.int(2..=40)]);
        let shape = [shape[0], c, shape[2], shape[3]];
        let operands = vec![input(&shape), constant(&[c]), constant(&[c])];
        case("%y = instance_norm(x=%a, gamma=%b, beta=%c)", operands, 4)
    });
    family(8, |r| {
        let (c, spatial) = (r.int(1..=6), r.int(1..=3));
        let shape = [&[2, c][..], &r.ints(spatial, 1..=30)].concat();
        let positive = (vec![c], Fill::Positive, true);
        let operands = vec![input(&shape), constant(&[c]), positive, constant(&[c]), constant(&[c])];
        case("%y = batch_norm(x=%a, mean=%b, variance=%c, gamma=%d, beta=%e)", operands, 4)
    });
    family(4, |r| case("%y = l2_norm(x=%a)", vec![input(&[&[2][..], &r.ints(3, 1..=15)].concat())], 4));
}

#[test]
fn reductions() {
    let names = "sum mean max min prod sum_square l1_norm l2_norm log_sum log_sum_exp";
    for name in names.split_whitespace() {
        family(12, |r| {
            let shape = r.ints(4, 1..=if name == "prod" { 4 } else { 13 });
            let axes: Vec<usize> = (0..4).filter(|_| r.bool()).collect();
            let axes = if axes.is_empty() { vec![1] } else { axes };
            let sum = axes.iter().map(|a| shape[*a]).product();
            let op = format!("%y = reduce_{name}(x=%a, axes={axes:?}, keep_dims={})", r.bool());
            let fill = match name {
                "max" | "min" => Fill::Special,
                "log_sum" => Fill::Positive,
                _ => Fill::Any,
            };
            case(op, vec![(shape, fill, false)], sum)
        });
    }
    for name in ["argmax", "argmin"] {
        family(6, |r| {
            let op = format!("%y = reduce_{name}(x=%a, axis={}, keep_dims={})", r.int(0..=2), r.bool());
            case(op, vec![(r.ints(3, 1..=20), Fill::Special, false)], 0)
        });
    }
    family(1, |_| case("%y = reduce_sum(x=%a, axes=[0])", vec![input(&[9, 3000])], 9));
    family(1, |_| case("%y = reduce_sum(x=%a, axes=[0])", vec![input(&[3, 40_000])], 3));
    family(1, |_| case("%y = reduce_mean(x=%a, axes=[1])", vec![input(&[3, 9, 7000])], 9));
}

#[test]
fn moves() {
    family(30, |r| {
        let rank = r.int(1..=5);
        let mut perm: Vec<usize> = (0..rank).collect();
        (0..rank).for_each(|i| perm.swap(i, r.int(i..=rank - 1)));
        case(format!("%y = transpose(x=%a, perm={perm:?})"), vec![input(&r.ints(rank, 1..=11))], 0)
    });
    for perm in [[0, 2, 1], [2, 1, 0], [1, 0, 2]] {
        family(1, |_| case(format!("%y = transpose(x=%a, perm={perm:?})"), vec![input(&[3, 130, 170])], 0));
    }
    family(30, |r| {
        let (shape, around) = (r.ints(3, 1..=14), |_| (vec![3], Fill::Around(9), false));
        let stride = [0; 3].map(|_| *r.pick(&[&1i64, &1, &2, &-1, &-3]));
        // Everything taken along one axis, so that the slice is seldom empty.
        let (begin_mask, end_mask) = ([r.bool(), true, r.bool()], [true, r.bool(), r.bool()]);
        let op = format!(
            "%y = slice_by_index(x=%a, begin=%b, end=%c, stride={stride:?}, begin_mask={begin_mask:?}, end_mask={end_mask:?})"
        );
        let shape = if begin_mask == end_mask { shape } else { vec![14; 3] };
        case(op, vec![input(&shape), around(0), around(0)], 0)
    });
    family(6, |r| {
        let (n, rest) = (r.int(1..=6), r.int(1..=40));
        let axis = r.int(0..=2);
        let mut shape = vec![3, rest, 5];
        shape[axis] = 3 * n;
        case(format!("%y, %z, %w = split(x=%a, num_splits=3, axis={axis})"), vec![input(&shape)], 0)
    });
    family(6, |r| {
        let axis = r.int(0..=2);
        let shape = r.ints(3, 2..=30);
        let indices = (r.ints(2, 1..=9), Fill::Below(DType::I32, shape[axis]), false);
        case(format!("%y = gather(x=%a, indices=%b, axis={axis})"), vec![input(&shape), indices], 0)
    });
    family(6, |r| {
        let axes = r.ints(2, 0..=2);
        case(format!("%y = reverse(x=%a, axes={axes:?})"), vec![input(&r.ints(3, 1..=20))], 0)
    });
    family(6, |r| {
        let text = format!("%b = const(val=i32[3] {:?})\n  %y = tile(x=%a, reps=%b)", r.ints(3, 1..=4));
        case(text, vec![input(&r.ints(3, 1..=9))], 0)
    });
    family(20, |r| {
        let shape = r.ints(3, 3..=20);
        let mode = *r.pick(&[&"constant", &"reflect", &"replicate"]);
        let count = r.int(1..=3);
        let text = format!(
            "%b = const(val=i32[{}] {:?})\n  %y = pad(x=%a, pad=%b, mode=\"{mode}\", constant_val=1.5)",
            2 * count,
            r.ints(2 * count, 0..=2)
        );
        case(text, vec![input(&shape)], 0)
    });
    family(2, |r| {
        let (f, c) = (r.int(1..=3), r.int(1..=4));
        case(format!("%y = pixel_shuffle(x=%a, upscale_factor={f})"), vec![input(&[2, c * f * f, 5, 7])], 0)
    });
}

#[test]
fn recurrent_layers() {
    family(24, |r| {
        let (t, b, i, h) = (r.int(1..=7), r.int(1..=3), r.int(1..=40), r.int(1..=33));
        let direction = *r.pick(&[&"forward", &"reverse"]);
        let op = format!(
            "%y, %h, %z = lstm(x=%a, initial_h=%b, initial_c=%c, weight_ih=%d, weight_hh=%e, bias=%f, peephole=%g, \
             direction=\"{direction}\", output_sequence={}, clip=1.0)",
            r.bool()
        );
        let mut operands = vec![input(&[t, b, i]), input(&[b, h]), input(&[b, h]), constant(&[4 * h, i])];
        operands.extend([constant(&[4 * h, h]), constant(&[4 * h]), constant(&[3 * h])]);
        // Errors of a step are fed to the next one.
        case(op, operands, (i + h) * t)
    });
    family(12, |r| {
        let (t, b, i, h) = (r.int(1..=7), r.int(1..=3), r.int(1..=40), r.int(1..=33));
        let op = format!(
            "%y, %h, %z = lstm(x=%a, initial_h=%b, initial_c=%c, weight_ih=%d, weight_hh=%e, weight_ih_back=%f, \
             weight_hh_back=%g, direction=\"bidirectional\", output_sequence={})",
            r.bool()
        );
        let mut operands = vec![input(&[t, b, i]), input(&[b, 2 * h]), input(&[b, 2 * h])];
        operands.extend([i, h, i, h].map(|n| constant(&[4 * h, n])));
        case(op, operands, (i + h) * t)
    });
    family(24, |r| {
        let (t, b, i, h) = (r.int(1..=7), r.int(1..=3), r.int(1..=40), r.int(1..=33));
        let direction = *r.pick(&[&"forward", &"reverse"]);
        let op = format!(
            "%y, %h = gru(x=%a, initial_h=%b, weight_ih=%c, weight_hh=%d, bias=%e, input_bias=%f, \
             direction=\"{direction}\", output_sequence={}, reset_after={})",
            r.bool(),
            r.bool()
        );
        let mut operands = vec![input(&[t, b, i]), input(&[b, h]), constant(&[3 * h, i]), constant(&[3 * h, h])];
        operands.extend([constant(&[3 * h]), constant(&[3 * h])]);
        case(op, operands, (i + h) * t)
    });
}

#[test]
fn compressed_weights() {
    for (dtype, n) in [(DType::U4, 16), (DType::U8, 256), (DType::I8, 128), (DType::I4, 8)] {
        family(6, |r| {
            let blocks = r.ints(2, 1..=4);
            let shape = [blocks[0] * r.int(1..=5), blocks[1] * 2 * r.int(1..=40)];
            let data = |shape: &[usize]| (shape.to_vec(), Fill::Below(dtype, n), true);
            let op = "%y = constexpr_blockwise_shift_scale(data=%a, scale=%b, offset=%c)";
            case(op, vec![data(&shape), constant(&blocks), data(&blocks)], 0)
        });
    }
    for bits in [1u32, 2, 3, 4, 6, 8] {
        family(4, |r| {
            let dtype = DType::from_name(&format!("u{bits}")).expect("a type of so many bits");
            let blocks = r.ints(2, 1..=3);
            let shape = vec![blocks[0] * r.int(1..=30), blocks[1] * r.int(1..=30)];
            let lut = [&blocks[..], &[1 << bits, 1]].concat();
            let op = "%y = constexpr_lut_to_dense(indices=%a, lut=%b)";
            case(op, vec![(shape, Fill::Below(dtype, 1 << bits), true), constant(&lut)], 0)
        });
    }
    family(9, |r| {
        let axis = r.int(0..=1);
        let shape = r.ints(2, 2..=30);
        let (scale, zero) = (r.bool(), r.bool());
        let vector = |many: bool| if many { vec![shape[axis]] } else { vec![] };
        let op = format!("%y = constexpr_affine_dequantize(quantized_data=%a, scale=%b, zero_point=%c, axis={axis})");
        let data = |shape| (shape, Fill::Below(DType::U8, 256), true);
        case(op, vec![data(shape.clone()), constant(&vector(scale)), data(vector(zero))], 0)
    });
}

#[test]
fn the_number_of_threads_changes_no_byte() {
    let programs = [
        ("conv(x=%x, weight=%w, pad_type=\"same\")", "[1, 33, 40, 41]", "[130, 33, 3, 3]"),
        ("matmul(x=%x, y=%w)", "[2, 3, 200, 301]", "[3, 301, 600]"),
        ("matmul(x=%x, y=%w)", "[1, 2000]", "[2000, 300]"),
        ("reduce_mean(x=%x, axes=[1])", "[2, 300, 700]", "[1]"),
        ("softmax(x=%x, axis=1)", "[2, 300, 200]", "[1]"),
    ];
    for (op, x, w) in programs {
        let source = format!("func @main(%x: f32{x}, %w: f32{w}) ios17 {{\n  %y = {op}\n  return %y\n}}\n");
        let module = verify::verify(text::parse(&source).expect("a program")).expect("a valid program");
        let f = module.function("main").expect("one function");
        let shapes = f.inputs().iter().filter_map(|v| f.ty(*v).tensor()?.shape.known());
        let r = &mut Random(7);
        let inputs: Vec<_> = shapes.map(|s| Some(tensor(r, DType::F32, &input(&s)))).collect();
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
            let session = Session::new(&module, f, &Cpu, Options::default());
            pool.install(|| session.run(&inputs, &mut States::default()).expect("a result"))
        };
        let one = run(1);
        assert!(run(3) == one && run(8) == one, "{source}");
    }
}
