//! How great values are: as users say, and as runs show.

use crate::{Diagnostic, arrays::Arrays, codes, feed, interface::Interface, made_up, names::listed};
use mlconv_mil::{
    ir::{Function, Module, Range, Value},
    verify::{Verified, verify},
};
use mlconv_passes::Seen;
use mlconv_runner::{Options, Session, States, cpu::Cpu};
use mlconv_tensor::Tensor;
use serde::{Deserialize, Serialize};
use std::{collections::HashSet, fmt};

/// What a user says of an input; as text it is `NAME=LOW:HIGH`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
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

impl fmt::Display for Declared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}:{}", self.name, self.range.low, self.range.high)
    }
}

impl TryFrom<String> for Declared {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<Declared> for String {
    fn from(said: Declared) -> Self {
        said.to_string()
    }
}

/// Notes what is said of inputs with them, in every function that has such inputs; what is said, by the inputs' own names.
pub fn declare(module: &mut Module, all: &[Declared]) -> Result<Vec<Declared>, Diagnostic> {
    let wrong = |said: &Declared, why: &str| Diagnostic::error(&codes::L0001, format!("--range {said}: {why}"));
    let (mut taken, mut out) = (HashSet::new(), vec![]);
    for said in all {
        let mut own = None;
        for (i, f) in module.functions.iter_mut().enumerate() {
            let Some(at) = f.sig.inputs.iter().position(|p| feed::means_port(&said.name, p)) else { continue };
            if !taken.insert((i, at)) {
                return Err(wrong(said, "the range of this input is given twice").help("leave one of them out"));
            }
            let ty = f.ty(f.inputs()[at]).tensor();
            if let Some(ty) = ty.filter(|t| t.dtype.is_int() && said.range.low.ceil() > said.range.high.floor()) {
                return Err(wrong(said, &format!("the input is {ty}, and there is no integer in the range")));
            }
            f.sig.inputs[at].range = Some(said.range);
            own = own.or(Some(f.sig.inputs[at].name.to_string()));
        }
        let Some(name) = own else {
            let names = module.functions.iter().flat_map(|f| &f.sig.inputs).map(|p| p.name.to_string());
            let help = format!("its inputs are {}", listed(names.collect::<Vec<_>>()));
            return Err(wrong(said, "the model has no such input").help(help));
        };
        out.push(Declared { name, range: said.range });
    }
    Ok(out)
}

/// Gives the inputs of a package the ranges that its metadata record; what a stranger wrote there and does not fit is
/// nothing.
pub(crate) fn recall(package: &mut Module) {
    for i in 0..package.functions.len() {
        let said = Interface::recorded_of(package, &package.functions[i]).ranges;
        for port in &mut package.functions[i].sig.inputs {
            port.range = said.iter().find(|s| feed::means_port(&s.name, port)).map(|s| s.range).or(port.range);
        }
    }
}

/// Gives the inputs of a source that have no range those of the package.
pub(crate) fn adopt(source: &mut Module, package: &Module) {
    for g in &package.functions {
        let at = source.functions.iter().position(|f| f.name == g.name).unwrap_or_default();
        let Some(f) = source.functions.get_mut(at) else { continue };
        for port in f.sig.inputs.iter_mut().filter(|p| p.range.is_none()) {
            let theirs = g.sig.inputs.iter().find(|p| feed::means_port(&port.name, p));
            port.range = theirs.and_then(|p| p.range);
        }
    }
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
        assert_eq!(Declared::parse(&fine.to_string()), Ok(fine));
        for bad in ["", "x", "x=", "x=1", "=0:1", "x=2:1", "x=nan:1", "x=0:inf", "x=0:1e39", "x=a:b"] {
            assert!(Declared::parse(bad).is_err(), "{bad}");
        }
    }
    #[test]
    fn ranges_are_declared_once_and_hold_what_inputs_hold() {
        let text = "func @main(%x: f32[2], %i: i32[2]) ios17 {\n  %y = relu(x=%x)\n  return %y\n}\n";
        let module = mlconv_mil::text::parse(text).unwrap_or_else(|e| panic!("{e}"));
        let declared = |all: &[&str]| {
            let all: Vec<_> = all.iter().map(|t| Declared::parse(t).expect("a range")).collect();
            declare(&mut module.clone(), &all).map(|all| all.len()).map_err(|d| d.title)
        };
        assert_eq!(declared(&["x=0.2:0.8", "i=0.2:1.8"]), Ok(2));
        let twice = "--range x=2:3: the range of this input is given twice";
        assert_eq!(declared(&["x=0:1", "x=2:3"]), Err(twice.to_owned()));
        let none = "--range i=0.2:0.8: the input is i32[2], and there is no integer in the range";
        assert_eq!(declared(&["i=0.2:0.8"]), Err(none.to_owned()));
    }
}
