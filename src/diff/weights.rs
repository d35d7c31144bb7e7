//! Weights of one model and those of another that they were made of.

use super::{Sides, extract::Part, gap::gap};
use mlconv_mil::{ir::Value, text::Namer, verify::verify};
use mlconv_runner::{Options, Session, States, cpu::Cpu};
use mlconv_tensor::Tensor;
use std::collections::HashMap;

/// The constants of the first model, by name.
#[derive(Debug)]
pub struct Sources<'a> {
    sides: Sides<'a>,
    named: HashMap<String, Value>,
}

impl<'a> Sources<'a> {
    /// Those of two functions.
    pub fn of(sides: Sides<'a>) -> Self {
        let f = sides.f;
        let constants =
            f.ops().flat_map(|id| f.op_data(id).results.iter().copied()).filter(|v| f.constant(*v).is_some());
        Self { sides, named: constants.map(|v| (Namer::legal(&f.value(v).hint), v)).collect() }
    }

    /// The constant of the first model that a constant of the second was made of: that of its name.
    pub fn constant(&self, v: Value) -> Option<&Tensor> {
        let name = Namer::legal(&self.sides.g.value(v).hint);
        let plain = name.strip_suffix("_to_fp16").unwrap_or(&name);
        let source = self.named.get(&name).or(self.named.get(plain))?;
        self.sides.f.constant(*source)
    }

    /// Signal over noise in dB of a weight of the second model, decoded, against the first's of its name; `None` where there is
    /// none, or no noise.
    pub fn snr_db(&self, weight: Value) -> Option<f64> {
        let g = self.sides.g;
        let want = self.constant(weight)?;
        let module = verify(Part::ending_with(g, &super::Walk::default(), weight).program(g, &[], None)?).ok()?;
        let decoded = Session::new(&module, module.functions.first()?, &Cpu, Options::default());
        gap(want, decoded.run(&[], &mut States::new()).ok()?.first()?)?.snr_db()
    }
}
