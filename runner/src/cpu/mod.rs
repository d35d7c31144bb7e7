//! Fast kernels for the CPU, each an override of an op's reference kernel and held to it by the same fixtures.

use crate::Backend;
use mlconv_mil::schema::{EvalCx, Op, OpError, Tensors};

/// The CPU backend: threads, and a GEMM library for products and convolutions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu;

impl Backend for Cpu {
    fn run(&self, _: &dyn Op, _: &EvalCx<'_>) -> Option<Result<Tensors, OpError>> {
        None
    }
}
