//! What stands between an interface and the one that a source has: for whoever runs the source itself.

use super::{Interface, module_of};
use crate::{Diagnostic, Failure, feed, parity::run_error};
use mlconv_mil::{
    ir::{Function, Module, Port},
    verify::{Verified, verify},
};
use mlconv_runner::{Options, Reference, Session, States};
use mlconv_tensor::{Dim, Symbols, Tensor, TensorType, Type};

/// A source as it is by itself, and the ops around it that make its interface another one.
#[derive(Clone, Debug)]
pub struct Outside {
    source: Module,
    /// From the inputs of the interface to those of the source.
    before: Verified,
    /// From the outputs of the source to those of the interface.
    after: Verified,
}

impl Outside {
    /// That of the first function of `source`; `interface` has been applied to it.
    pub(super) fn new(source: &Module, interface: &Interface) -> Result<Self, Failure> {
        let mut interface = interface.clone();
        let failed = |d: Diagnostic| vec![d];
        let Some(f) = source.functions.first() else { return Err(vec![]) };
        let mut before = Function::new(&f.name, f.opset);
        let mut outputs = vec![];
        for (port, ty) in feed::tensor_inputs(f) {
            let v = before.add_input(port.clone(), ty.clone());
            outputs.push((Port::new(port.name.clone()), v));
        }
        before.set_outputs(outputs);
        interface.on_inputs(&mut before).map_err(failed)?;
        let mut after = Function::new(&f.name, f.opset);
        let mut outputs = vec![];
        for (i, (v, port)) in f.outputs().iter().zip(&f.sig.outputs).enumerate() {
            let Type::Tensor(ty) = f.ty(*v) else { continue };
            // What a size is computed of is not known here.
            let open = |(axis, d): (usize, &Dim)| match d.as_known() {
                Some(n) => Dim::from(n),
                None => Dim::symbol(format!("output_{i}_{axis}")),
            };
            let shape = ty.shape.iter().enumerate().map(open).collect();
            let v = after.add_input(Port::new(port.name.clone()), TensorType { dtype: ty.dtype, shape });
            outputs.push((port.clone(), v));
        }
        after.set_outputs(outputs);
        interface.on_outputs(&mut after).map_err(failed)?;
        Ok(Self {
            before: verify(module_of(before, source.symbols.clone()))?,
            after: verify(module_of(after, Symbols::default()))?,
            source: source.clone(),
        })
    }

    /// Outputs of the interface on inputs of it, where `run` is told the source and runs it on inputs of its own.
    pub(crate) fn run(
        &self,
        inputs: &[Option<Tensor>],
        run: impl FnOnce(&Function, &[Option<Tensor>]) -> Result<Vec<Tensor>, Diagnostic>,
    ) -> Result<Vec<Tensor>, Diagnostic> {
        let Some(source) = self.source.functions.first() else { return Ok(vec![]) };
        let inputs: Vec<Option<Tensor>> = whole(&self.before, inputs)?.into_iter().map(Some).collect();
        let outputs: Vec<Option<Tensor>> = run(source, &inputs)?.into_iter().map(Some).collect();
        whole(&self.after, &outputs)
    }
}

fn whole(module: &Verified, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, Diagnostic> {
    let Some(f) = module.functions.first() else { return Ok(vec![]) };
    let session = Session::new(module, f, &Reference, Options::default());
    session.run(inputs, &mut States::new()).map_err(|e| run_error(&e))
}
