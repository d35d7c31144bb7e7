//! Which ops must compute in single precision for outputs to be within the tolerance.

use crate::{
    Failure,
    accuracy::Labels,
    compare::{self, Tolerance},
    convert::{Job, Prepared, rewritten},
    feed,
    parity::{self, Given, Parity},
    ranges,
    watch::Watch,
    witness::Chosen,
};
use mlconv_mil::{
    ir::{Function, OpId, Value},
    ops::{Cast, Const},
    verify::Verified,
};
use mlconv_passes::Pattern;
use mlconv_runner::{Options, Session, States, cpu::Cpu};
use mlconv_tensor::{DType, Tensor, f16};
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
    let wanted = prepared.source.functions.iter().zip(&prepared.module.functions).map(|(f, g)| {
        let inputs = inputs(&prepared.source, (f, g), given, at)?;
        Some((computed(&prepared.source, f, &inputs)?, inputs))
    });
    let wanted: Vec<Option<(Wanted, Vec<Option<Tensor>>)>> = wanted.collect();
    let failed: Vec<&str> = parity.outputs.iter().filter(|o| !o.pass).map(|o| o.name.as_str()).collect();
    // What is asked for already is a part of the line.
    let mut names: Vec<String> = job.keep_fp32.iter().map(|p| p.as_str().to_owned()).collect();
    let mut module = prepared.module.clone();
    for _ in 0..MAX_ROUNDS {
        let mut found = vec![];
        for (g, wanted) in module.functions.iter().zip(&wanted) {
            let Some((wanted, inputs)) = wanted else { continue };
            // Of several functions, outputs bear the name of theirs.
            let is_failed = |name: &str| {
                failed.iter().any(|o| *o == name || o.strip_prefix(&*g.name) == Some(&format!(": {name}")))
            };
            let output = g.sig.outputs.iter().position(|port| is_failed(&port.name));
            let Some(output) = output.and_then(|at| g.outputs().get(at)) else { continue };
            found.extend(blamed(g, first_off(&module, g, inputs, wanted, parity.tolerance).unwrap_or(*output)));
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
    job.watch = Watch::default();
    rewritten(&prepared.source, &job)
}

/// The inputs of the run `at` of a function, of whose twin in the package samples may bear the names.
fn inputs(
    module: &Verified,
    (f, g): (&Function, &Function),
    given: Given<'_>,
    at: usize,
) -> Option<Vec<Option<Tensor>>> {
    if given.samples.is_empty() {
        return ranges::looked(module, f, given.seed).map(|(inputs, _)| inputs);
    }
    let arrays = parity::source_names(f, g, given.samples);
    let runs = feed::samples(f, &arrays, given.labels.map(Labels::len)).ok()?.runs;
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

/// The first value that is off.
fn first_off(
    module: &Verified,
    g: &Function,
    inputs: &[Option<Tensor>],
    wanted: &Wanted,
    tolerance: Tolerance,
) -> Option<Value> {
    let mut first = None;
    let mut look = |v: Value, t: &Tensor| {
        let is_new = first.is_none() && t.dtype().is_float() && g.constant(v).is_none();
        let Some(want) = wanted.get(&*g.value(v).hint).filter(|want| is_new && want.shape() == t.shape()) else {
            return;
        };
        // A mask is what it is in another number as well.
        let is_great = |t: &Tensor| t.to_f32().iter().any(|x| x.abs() > f16::MAX.to_f32());
        let is_mask = is_great(want) && !is_great(t);
        if !is_mask && !compare::output("", want, t, tolerance).pass {
            first = Some(v);
        }
    };
    let inputs = feed::match_inputs(g, &feed::as_arrays(g, inputs)).ok()?;
    let session = Session::new(module, g, &Cpu, Options::default());
    session.run_observed(&inputs, &mut States::new(), Some(&mut look)).ok()?;
    first
}

/// The names of the ops that are to blame for a value: of the op itself, or where it computes in single precision already,
/// of those that give it what they have rounded.
fn blamed(g: &Function, v: Value) -> Vec<String> {
    let (mut seen, mut names) = (HashSet::new(), vec![]);
    let mut todo: Vec<OpId> = g.def_op(v).into_iter().collect();
    while let Some(id) = todo.pop() {
        let rounds = |v: &Value| g.ty(*v).tensor().is_some_and(|t| t.dtype == DType::F16);
        let data = g.op_data(id);
        let is_own = g.op::<Cast>(id).is_none() && g.op::<Const>(id).is_none();
        if let Some(v) = data.results.iter().find(|v| is_own && rounds(v)) {
            names.push(g.value(*v).hint.to_string());
            continue;
        }
        data.op.visit_operands(&mut |v| todo.extend(g.def_op(v).filter(|id| seen.insert(*id))));
    }
    names
}
