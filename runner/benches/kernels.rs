//! Time of single ops, at the shapes that ResNet-50 and a transformer layer have: `cargo bench -p mlconv-runner`.
//!
//! The throughput of products and convolutions is in multiplications with addition, half of what "FLOP" counts.

use criterion::{BenchmarkId, Criterion, Throughput};
use mlconv_mil::{text, verify};
use mlconv_runner::{Backend, Options, Reference, Session, States, cpu::Cpu};
use mlconv_tensor::{DType, Tensor};
use std::time::Duration;

/// An op of operands `%a`, `%b`, …, their shapes, and the operations it takes.
struct Case {
    name: &'static str,
    op: &'static str,
    shapes: &'static [&'static [usize]],
    operations: u64,
}

const CASES: &[Case] = &[
    Case {
        name: "conv 7x7 s2",
        op: "conv(x=%a, weight=%b, strides=[2, 2], pad_type=\"same\")",
        shapes: &[&[1, 3, 224, 224], &[64, 3, 7, 7]],
        operations: 64 * 147 * 112 * 112,
    },
    Case {
        name: "conv 3x3 c64",
        op: "conv(x=%a, weight=%b, pad_type=\"same\")",
        shapes: &[&[1, 64, 56, 56], &[64, 64, 3, 3]],
        operations: 64 * 576 * 56 * 56,
    },
    Case {
        name: "conv 1x1 c256",
        op: "conv(x=%a, weight=%b)",
        shapes: &[&[1, 256, 56, 56], &[64, 256, 1, 1]],
        operations: 64 * 256 * 56 * 56,
    },
    Case {
        name: "conv 3x3 c512",
        op: "conv(x=%a, weight=%b, pad_type=\"same\")",
        shapes: &[&[1, 512, 7, 7], &[512, 512, 3, 3]],
        operations: 512 * 4608 * 49,
    },
    Case {
        name: "conv depthwise",
        op: "conv(x=%a, weight=%b, pad_type=\"same\", groups=144)",
        shapes: &[&[1, 144, 56, 56], &[144, 1, 3, 3]],
        operations: 144 * 9 * 56 * 56,
    },
    Case {
        name: "matmul 128x768x3072",
        op: "matmul(x=%a, y=%b)",
        shapes: &[&[1, 128, 768], &[768, 3072]],
        operations: 128 * 768 * 3072,
    },
    Case {
        name: "matmul 1x4096x4096",
        op: "matmul(x=%a, y=%b, transpose_y=true)",
        shapes: &[&[1, 4096], &[4096, 4096]],
        operations: 4096 * 4096,
    },
    Case {
        name: "attention 12x128x64",
        op: "scaled_dot_product_attention(query=%a, key=%b, value=%c)",
        shapes: &[&[1, 12, 128, 64], &[1, 12, 128, 64], &[1, 12, 128, 64]],
        operations: 2 * 12 * 128 * 128 * 64,
    },
    Case {
        name: "max pool",
        op: "max_pool(x=%a, kernel_sizes=[3, 3], strides=[2, 2], pad_type=\"same\")",
        shapes: &[&[1, 64, 112, 112]],
        operations: 64 * 56 * 56 * 9,
    },
    Case { name: "add", op: "add(x=%a, y=%b)", shapes: &[&[1, 256, 56, 56], &[1, 256, 56, 56]], operations: 802_816 },
    Case { name: "relu", op: "relu(x=%a)", shapes: &[&[1, 256, 56, 56]], operations: 802_816 },
    Case { name: "gelu", op: "gelu(x=%a)", shapes: &[&[1, 128, 3072]], operations: 393_216 },
    Case { name: "softmax", op: "softmax(x=%a)", shapes: &[&[12, 128, 128]], operations: 196_608 },
    Case { name: "layer norm", op: "layer_norm(x=%a, axes=[2])", shapes: &[&[1, 128, 768]], operations: 98_304 },
    Case {
        name: "transpose",
        op: "transpose(x=%a, perm=[0, 2, 3, 1])",
        shapes: &[&[1, 256, 56, 56]],
        operations: 802_816,
    },
];

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    for dtype in [DType::F32, DType::F16] {
        for case in CASES {
            bench(&mut criterion, case, dtype);
        }
    }
    criterion.final_summary();
}

/// Numbers from -2 to 2 that branches cannot foresee; of a short period, they would flatter kernels that branch.
fn numbers(count: usize) -> Vec<f64> {
    let mut state = 1u64;
    let next = |_| {
        // Marsaglia's xorshift.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % 4096) as f64 / 1024.0 - 2.0
    };
    (0..count).map(next).collect()
}

fn bench(criterion: &mut Criterion, case: &Case, dtype: DType) {
    let params: Vec<String> =
        case.shapes.iter().zip('a'..).map(|(shape, name)| format!("%{name}: {dtype}{shape:?}")).collect();
    let source = format!("func @main({}) ios18 {{\n  %y = {}\n  return %y\n}}\n", params.join(", "), case.op);
    let module = verify::verify(text::parse(&source).expect("a program")).expect("a valid program");
    let f = module.function("main").expect("one function");
    let inputs: Vec<Option<Tensor>> = case
        .shapes
        .iter()
        .map(|shape| Some(Tensor::from_f64(dtype, shape, &numbers(shape.iter().product()))))
        .collect();
    let mut group = criterion.benchmark_group(format!("{} {dtype}", case.name));
    group.throughput(Throughput::Elements(case.operations));
    let backends: [(&str, &dyn Backend); 2] = [("cpu", &Cpu), ("reference", &Reference)];
    for (name, backend) in backends {
        if name == "reference" && dtype != DType::F32 {
            continue;
        }
        let session = Session::new(&module, f, backend, Options::default());
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter(|| session.run(&inputs, &mut States::default()).expect("a result"));
        });
    }
    group.finish();
}
