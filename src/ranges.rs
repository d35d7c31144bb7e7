//! How great values are: as users say, and as runs show.

use crate::{Diagnostic, arrays::Arrays, codes, feed, made_up, names::listed};
use mlconv_mil::{
    ir::{Function, Module, Range, Value},
    verify::{Verified, verify},
};
use mlconv_passes::Seen;
use mlconv_runner::{Options, Session, States, cpu::Cpu};
use mlconv_tensor::Tensor;

/// What a user says of an input.
#[derive(Clone, Debug, PartialEq)]
pub struct Declared {
    /// The input.
    pub name: String,
    /// The numbers that it holds.
    pub range: Range,
}

impl Declared {
    /// Reads `NAME=LOW:HIGH`. Names may hold `=` and `:`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let want = || {
            "wanted the name of an input, `=`, and two numbers, the least and the greatest, as in `x=0:255`".to_owned()
        };
        let (name, range) = text.rsplit_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(want)?;
        let (low, high) = range.split_once(':').ok_or_else(want)?;
        let number =
            |text: &str| text.trim().parse::<f64>().ok().filter(|x| x.is_finite() && x.abs() <= f32::MAX.into());
        let (low, high) = number(low).zip(number(high)).ok_or_else(want)?;
        if low > high {
            return Err(format!("{low} is greater than {high}; {}", want()));
        }
        Ok(Self { name: name.to_owned(), range: Range { low, high } })
    }
}

/// Notes what is said of inputs with them, in every function that has such inputs.
pub fn declare(module: &mut Module, all: &[Declared]) -> Result<(), Diagnostic> {
    for said in all {
        let mut found = false;
        for f in &mut module.functions {
            for port in f.sig.inputs.iter_mut().filter(|p| feed::means_port(&said.name, p)) {
                port.range = Some(said.range);
                found = true;
            }
        }
        if !found {
            let title = format!("--range {}: the model has no such input", said.name);
            let names: Vec<String> =
                module.functions.iter().flat_map(|f| &f.sig.inputs).map(|p| p.name.to_string()).collect();
            return Err(Diagnostic::error(&codes::L0001, title).help(format!("its inputs are {}", listed(names))));
        }
    }
    Ok(())
}

/// Samples of which values are looked at: more show little more.
const MAX_RUNS: usize = 32;

/// How great the values of each function are on samples, or on made-up inputs where there are none. Of a function that
/// does not run on them nothing is known.
pub(crate) fn seen(module: &Module, samples: &Arrays, rows: Option<usize>, seed: u64) -> Vec<Seen> {
    let Ok(module) = verify(module.clone()) else { return vec![] };
    let one = |f: &Function| {
        if samples.is_empty() {
            return looked(&module, f, seed).map(|(_, seen)| seen).unwrap_or_default();
        }
        let mut seen = Seen::default();
        let runs = feed::samples(f, samples, rows).map(|s| s.runs);
        for inputs in runs.into_iter().flatten().take(MAX_RUNS) {
            // What was seen before an op that fails is seen all the same; that it fails is said where outputs are compared.
            look(&module, f, &inputs, &mut seen);
        }
        seen
    };
    module.functions.iter().map(one).collect()
}

/// Made-up inputs on which a function runs, of open sizes above 1 where it does on these, and what is seen on them.
pub(crate) fn looked(module: &Verified, f: &Function, seed: u64) -> Option<(Vec<Option<Tensor>>, Seen)> {
    let open = made_up::open_shapes(module, f);
    open.into_iter().chain([made_up::default_shapes(module, f)]).find_map(|shapes| {
        let (inputs, mut seen) = (made_up::of_shapes(f, seed, &shapes).ok()?, Seen::default());
        look(module, f, &inputs, &mut seen).then_some((inputs, seen))
    })
}

/// Whether the function runs on the inputs, which is looked at.
fn look(module: &Verified, f: &Function, inputs: &[Option<Tensor>], seen: &mut Seen) -> bool {
    let values = f.inputs().iter().filter(|v| f.ty(**v).tensor().is_some());
    for (v, t) in values.zip(inputs) {
        t.iter().for_each(|t| seen.add(*v, t));
    }
    let mut add = |v: Value, t: &Tensor| seen.add(v, t);
    let session = Session::new(module, f, &Cpu, Options::default());
    session.run_observed(inputs, &mut States::new(), Some(&mut add)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_two_numbers_in_order() {
        let fine = Declared::parse("a=b=-1.5:2e3").expect("a range");
        assert_eq!(fine, Declared { name: "a=b".into(), range: Range { low: -1.5, high: 2e3 } });
        for bad in ["", "x", "x=", "x=1", "=0:1", "x=2:1", "x=nan:1", "x=0:inf", "x=0:1e39", "x=a:b"] {
            assert!(Declared::parse(bad).is_err(), "{bad}");
        }
    }
}
