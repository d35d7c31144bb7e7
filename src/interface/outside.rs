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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interface::{Applied, Classes, Floats, Image, Labels};
    use mlconv_mil::text::parse;

    #[test]
    fn a_source_between_both_sides_is_the_whole() {
        let text = "func @main(%x: f32[1, 2, n, 3], %k: f32[1]) ios17 {\n  %y = mul(x=%x, y=%k)\n  \
                    %s = reduce_sum(x=%y, axes=[1, 2])\n  return %y, %s\n}\n";
        let source = parse(text).unwrap_or_else(|e| panic!("{e}"));
        let labels = Labels::Texts(["a", "b", "c"].map(str::to_owned).to_vec());
        let interface = Interface {
            images: vec![Image::parse("x=bgr,imagenet").expect("an image")],
            classes: Some(Classes { output: Some("s".to_owned()), softmax: true, labels }),
            optional: vec![("k".to_owned(), 0.5)],
            renamed: vec![("y".to_owned(), "scaled".to_owned())],
            floats: Some(Floats::Fp16),
            ..Interface::default()
        };
        let mut module = source.clone();
        let Applied { outside, .. } = interface.apply(&mut module).unwrap_or_else(|e| panic!("{}", e[0]));
        let (outside, module) = (outside.expect("it changes"), verify(module).unwrap_or_else(|e| panic!("{}", e[0])));
        let pixels = (0..12).map(|i| (i * 20) as f32).collect();
        let inputs = [Some(Tensor::from_vec(&[1, 3, 2, 2], pixels)), None];
        let want = whole(&module, &inputs).unwrap_or_else(|e| panic!("{e}"));
        let bare = verify(source).unwrap_or_else(|e| panic!("{}", e[0]));
        let got = outside.run(&inputs, |f, inputs| {
            assert_eq!((&*f.sig.inputs[1].name, &*f.sig.outputs[1].name), ("k", "s"));
            whole(&bare, inputs)
        });
        let got = got.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(want.len(), 3);
        for (want, got) in want.iter().zip(&got) {
            assert_eq!((want.dtype(), want.shape(), want.to_text()), (got.dtype(), got.shape(), got.to_text()));
            assert!(want.to_text().is_some() || want.to_f64() == got.to_f64());
        }
    }

    #[test]
    fn what_was_asked_for_is_found_again() {
        let text = "func @main(%x: f32[1, 3, 2, 2]) ios17 {\n  %y = reduce_mean(x=%x, axes=[2, 3])\n  return %y\n}\n";
        let mut module = parse(text).unwrap_or_else(|e| panic!("{e}"));
        let labels = Labels::Integers(vec![1, -2, 3]);
        let asked = Interface {
            images: vec![Image::parse("rgb,scale=1/255,bias=-0.5").expect("an image")],
            classes: Some(Classes { output: None, softmax: false, labels: labels.clone() }),
            ..Interface::default()
        };
        asked.apply(&mut module).unwrap_or_else(|e| panic!("{}", e[0]));
        let found = Interface::recorded(&module);
        // Names that were left out are known.
        assert_eq!(found.images[0].name.as_deref(), Some("x"));
        assert_eq!(found.classes, Some(Classes { output: Some("y".to_owned()), softmax: false, labels }));
        assert!(found.clone().beyond(&found).is_empty());
        // What a stranger writes there is nothing.
        for text in ["", "[]", "{\"images\": [\"x=rbg\"]}", "{\"classes\": 3}"] {
            module.meta.user.insert("com.github.mlconv.interface".to_owned(), text.to_owned());
            assert!(Interface::recorded(&module).is_empty(), "{text}");
        }
    }
}
