//! Fast kernels for the CPU, each an override of an op's reference kernel and held to it by the same fixtures.
//!
//! Kernels compute in single precision: tensors of half precision are widened as they are read, and rounded as they are
//! written. Work is cut into tasks by the shapes alone, so that the same bytes come out of any number of threads.

mod attention;
mod broadcast;
mod constexpr;
mod conv;
mod data;
mod elementwise;
mod gemm;
mod gram;
pub(crate) mod half_sums;
mod math;
mod matmul;
mod movement;
mod norm;
mod pool;
mod recurrent;
mod reduce;
mod strided;
mod table;

pub use gram::{Gram, Product};

use crate::Backend;
use mlconv_mil::schema::{EvalCx, Op, OpError, Tensors};
use std::any::Any;

/// The CPU backend: threads, and a GEMM library for products and convolutions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu;

impl Backend for Cpu {
    fn run(&self, op: &dyn Op, cx: &EvalCx<'_>) -> Option<Result<Tensors, OpError>> {
        let any: &dyn Any = op;
        let run = table::KERNELS.get(&any.type_id())?;
        // What is wrong with an op, and what is empty, is for the reference to say.
        let all = (0..cx.out_count()).all(|i| cx.out(i).count() > 0);
        all.then(|| run(any, cx)).flatten().map(Ok)
    }
}
