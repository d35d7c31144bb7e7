//! Which ops must compute in single precision for outputs to be within the tolerance.

use crate::{
    Failure,
    compare::{self, Tolerance},
    convert::{Job, Prepared, rewritten},
    feed,
    parity::{self, Given, Parity},
    witness::Chosen,
};
use mlconv_mil::{
    ir::{Function, OpId, Value},
    ops::{Cast, Const},
    verify::Verified,
};
use mlconv_passes::Pattern;
use mlconv_runner::{Options, Session, States, cpu::Cpu};
use mlconv_tensor::{DType, Tensor};
use std::collections::{HashMap, HashSet};

/// Times that ops are added before it is given up.
const MAX_ROUNDS: usize = 8;
/// Bytes of the source's values that are held to compare with: values beyond are not looked at.
const MAX_BYTES: usize = 1 << 30;

/// What the source computes, by name; names that several values have are left out.
type Wanted = HashMap<String, Tensor>;

/// Names of ops with which kept in single precision the outputs are within the tolerance of `parity`, which they are not
/// as `prepared` is. `None` where none are found.
pub(crate) fn mend(prepared: &Prepared, job: &Job, given: Given<'_>, parity: &Parity) -> Option<Vec<String>> {
    let at = parity.outputs.iter().find(|o| !o.pass).map_or(0, |o| o.worst_sample);
    let mut wanted: Vec<Option<(Vec<Option<Tensor>>, Wanted)>> = vec![];
    for f in &prepared.source.functions {
        let inputs = inputs(&prepared.source, f, given, at);
        wanted.push(inputs.and_then(|i| Some((i.clone(), computed(&prepared.source, f, &i)?))));
    }
    let (mut names, mut module) = (vec![], prepared.module.clone());
    for _ in 0..MAX_ROUNDS {
        let mut found = vec![];
        for (g, wanted) in module.functions.iter().zip(&wanted) {
            let Some((inputs, wanted)) = wanted else { continue };
            found.extend(first_off(&module, g, inputs, wanted, parity.tolerance));
        }
        found.retain(|name| !names.contains(name));
        if found.is_empty() {
            return None;
        }
        names.extend(found);
        module = kept(prepared, job, &names).ok()?;
        let again =
            parity::parity(&prepared.source, &module, given, parity.tolerance, Chosen::kernels(prepared.format));
        if again.is_ok_and(|p| p.pass()) {
            return Some(names);
        }
    }
    None
}

/// The program to be written, with these ops kept too.
fn kept(prepared: &Prepared, job: &Job, names: &[String]) -> Result<Verified, Failure> {
    let mut job = job.clone();
    job.keep_fp32.extend(names.iter().map(Pattern::new));
    rewritten(&prepared.source, &job)
}

fn inputs(module: &Verified, f: &Function, given: Given<'_>, at: usize) -> Option<Vec<Option<Tensor>>> {
    if given.samples.is_empty() {
        return feed::random_inputs(module, f, given.seed).ok();
    }
    let runs = feed::samples(f, given.samples, None).ok()?.runs;
    runs.get(at).or(runs.first()).cloned()
}

/// The floats that a function computes.
fn computed(module: &Verified, f: &Function, inputs: &[Option<Tensor>]) -> Option<Wanted> {
    let (mut wanted, mut twice, mut left) = (Wanted::new(), HashSet::new(), MAX_BYTES);
    let mut hold = |v: Value, t: &Tensor| {
        let name = f.value(v).hint.to_string();
        if !t.dtype().is_float() || f.constant(v).is_some() || twice.contains(&name) {
            return;
        }
        if wanted.remove(&name).is_some() {
            twice.insert(name);
        } else if let Some(rest) = left.checked_sub(t.blob().len()) {
            left = rest;
            wanted.insert(name, t.clone());
        }
    };
    let session = Session::new(module, f, &Cpu, Options::default());
    session.run_observed(inputs, &mut States::new(), Some(&mut hold)).ok()?;
    Some(wanted)
}

/// The names of the ops that are to blame for the first value that is off: of the op itself, or where it computes in
/// single precision already, of those that give it what they have rounded.
fn first_off(
    module: &Verified,
    g: &Function,
    inputs: &[Option<Tensor>],
    wanted: &Wanted,
    tolerance: Tolerance,
) -> Vec<String> {
    let mut first = None;
    let mut look = |v: Value, t: &Tensor| {
        let is_new = first.is_none() && t.dtype().is_float() && g.constant(v).is_none();
        let Some(want) = wanted.get(&*g.value(v).hint).filter(|_| is_new) else { return };
        if want.shape() == t.shape() && !compare::output("", want, t, tolerance).pass {
            first = Some(v);
        }
    };
    let arrays = feed::as_arrays(g, inputs);
    let Ok(inputs) = feed::match_inputs(g, &arrays) else { return vec![] };
    let session = Session::new(module, g, &Cpu, Options::default());
    if session.run_observed(&inputs, &mut States::new(), Some(&mut look)).is_err() {
        return vec![];
    }
    let (mut todo, mut seen, mut names) = (vec![], HashSet::new(), vec![]);
    todo.extend(first.or(g.outputs().first().copied()).and_then(|v| g.def_op(v)));
    while let Some(id) = todo.pop() {
        let rounds = |v: &Value| g.ty(*v).tensor().is_some_and(|t| t.dtype == DType::F16);
        let data = g.op_data(id);
        let is_own = g.op::<Cast>(id).is_none() && g.op::<Const>(id).is_none();
        if let Some(v) = data.results.iter().find(|v| is_own && rounds(v)) {
            names.push(g.value(*v).hint.to_string());
            continue;
        }
        data.op.visit_operands(&mut |v| {
            let def: Option<OpId> = g.def_op(v).filter(|id| seen.insert(*id));
            todo.extend(def);
        });
    }
    names
}
