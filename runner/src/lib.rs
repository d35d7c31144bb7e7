//! Executes verified modules.
//!
//! A [`Session`] binds inputs to a function, runs its ops in order and frees every value after its last use. What an
//! op computes is decided by a [`Backend`]: a fast kernel where it has one for this op and these types, else the op's
//! own reference kernel. A backend that knows nothing is correct, only slower.
//!
//! This crate knows the IR, and no file format and no pass.

pub mod cpu;
mod exec;
mod session;

pub use exec::{Backend, Observer};
pub use session::{Emulate, Options, RunError, Session, States, Steps, sample_shape};

/// The backend that has no kernels: every op runs as its own definition says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reference;

impl Backend for Reference {
    fn run(
        &self,
        _: &dyn mlconv_mil::schema::Op,
        _: &mlconv_mil::schema::EvalCx<'_>,
    ) -> Option<Result<mlconv_mil::schema::Tensors, mlconv_mil::schema::OpError>> {
        None
    }
}
