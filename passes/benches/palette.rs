//! Time of palettization, of single weights and of all that ResNet-50 has: `cargo bench -p mlconv-passes`.

use criterion::{Criterion, Throughput};
use mlconv_passes::compress::palette::{Groups, PaletteMethod, PaletteOptions, palettize};
use mlconv_tensor::{Tensor, f16};
use rayon::prelude::*;
use std::{hint::black_box, time::Duration};

/// A scheme: its name, bits, channels that share a table (0 for all), and weights to an index.
const SCHEMES: [(&str, u8, usize, usize); 7] = [
    ("4 bits", 4, 0, 1),
    ("6 bits", 6, 0, 1),
    ("8 bits", 8, 0, 1),
    ("4 bits, 16 channels", 4, 16, 1),
    ("6 bits, 16 channels", 6, 16, 1),
    ("4 bits, vectors of 2", 4, 0, 2),
    ("8 bits, vectors of 4", 8, 0, 4),
];

fn main() {
    let mut c = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .sample_size(10)
        .configure_from_args();
    let normal = normals();
    for (name, shape) in [("3x3 c256", vec![256, 256, 3, 3]), ("1x1 c512 c2048", vec![2048, 512, 1, 1])] {
        bench(&mut c, name, &[weight(&shape, &normal)]);
    }
    let all: Vec<Tensor> = resnet50().iter().map(|shape| weight(shape, &normal)).collect();
    bench(&mut c, "resnet50", &all);
    c.final_summary();
}

fn bench(c: &mut Criterion, name: &str, weights: &[Tensor]) {
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Elements(weights.iter().map(|w| w.count() as u64).sum()));
    for (scheme, bits, size, cluster_dim) in SCHEMES {
        let one = |w: &Tensor| {
            let grouped = size > 0 && w.shape()[0].is_multiple_of(size);
            let groups = if grouped { Groups::Channels { axis: 0, size } } else { Groups::Tensor };
            let options = PaletteOptions {
                bits,
                method: PaletteMethod::KMeans,
                groups,
                cluster_dim,
                vector_axis: 0,
                channel_scale: None,
                importance: None,
                keep: None,
            };
            black_box(palettize(w, &options)).ok();
        };
        group.bench_function(scheme, |b| b.iter(|| weights.par_iter().for_each(one)));
    }
    group.finish();
}

/// The shapes of the weights of ResNet-50.
fn resnet50() -> Vec<Vec<usize>> {
    let mut shapes = vec![vec![64, 3, 7, 7], vec![1000, 2048]];
    let mut channels = 64;
    for (width, blocks) in [(64, 3), (128, 4), (256, 6), (512, 3)] {
        shapes.push(vec![width * 4, channels, 1, 1]);
        for _ in 0..blocks {
            shapes.push(vec![width, channels, 1, 1]);
            shapes.push(vec![width, width, 3, 3]);
            shapes.push(vec![width * 4, width, 1, 1]);
            channels = width * 4;
        }
    }
    shapes
}

/// Normal numbers of deviation 0.03, enough for any weight that starts somewhere in them.
fn normals() -> Vec<f16> {
    let mut state = 0u64;
    let mut unit = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((state >> 33) as f64 + 0.5) / (1u64 << 31) as f64
    };
    let mut normal = || 0.03 * (-2.0 * unit().ln()).sqrt() * (std::f64::consts::TAU * unit()).cos();
    (0..1 << 22).map(|_| f16::from_f64(normal())).collect()
}

fn weight(shape: &[usize], normal: &[f16]) -> Tensor {
    let count = shape.iter().product::<usize>();
    let start = count * 7919 % (normal.len() - count);
    Tensor::from_vec(shape, normal[start..start + count].to_vec())
}
