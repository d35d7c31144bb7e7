//! What samples say of the inputs of weights.

use crate::{
    Diagnostic, Failure,
    accuracy::{Accuracy, Labels},
    arrays::Arrays,
    codes, feed,
    parity::run_error,
};
use mlconv_mil::{
    ir::{Function, Module, OpId, Use, Value},
    verify::{Verified, verify},
};
use mlconv_passes::compress::{Inputs, Weight, Witness, WitnessError};
use mlconv_runner::{
    Options, Session, States,
    cpu::{Cpu, Gram, Product},
};
use mlconv_tensor::Tensor;
use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
};

/// Bytes that the sums for one weight may take: a row of 16,384 inputs. Beyond, its elements are rounded by themselves.
const MAX_BYTES: u64 = 2 << 30;

/// Samples, and the program that they are run through.
#[derive(Debug)]
pub struct Calibration {
    module: Verified,
    /// Of each function, the inputs of each run.
    runs: Vec<Vec<Vec<Option<Tensor>>>>,
}

/// Diagnostics as an error, to pass through the engine.
#[derive(Debug)]
pub(super) struct Failed(pub(super) Failure);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.first().map_or(Ok(()), |d| f.write_str(&d.title))
    }
}

impl std::error::Error for Failed {}

/// The ops that multiply a weight.
struct Products {
    by: Vec<(OpId, Product)>,
    /// The groups and the inputs of a row.
    size: [usize; 2],
}

/// Sums that are gathered for a weight, and may serve another.
struct Gathered {
    function: usize,
    by: Product,
    weight: Vec<usize>,
    sums: usize,
}

/// A weight at one op that multiplies it.
struct Probe {
    by: Product,
    op: OpId,
    /// The shape of the weight.
    weight: Vec<usize>,
    /// Where the sums are.
    sums: usize,
}

impl Calibration {
    /// Takes the program as it is before weights are compressed. `rows` samples are in arrays that have them.
    pub fn new(module: &Module, samples: &Arrays, rows: Option<usize>) -> Result<Self, Failure> {
        let module = verify(module.clone())?;
        let one = |f: &Function| feed::samples(f, samples, rows).map(|s| s.runs).map_err(|d| vec![d]);
        let runs = module.functions.iter().map(one).collect::<Result<_, _>>()?;
        Ok(Self { module, runs })
    }

    /// How many samples there are, of the function that has most.
    pub fn count(&self) -> usize {
        self.runs.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// Whether labels can be about the samples, as far as one run shows: what compression takes long to come to is said
    /// before.
    pub fn check_labels(&self, labels: &Labels) -> Result<(), Failure> {
        for (i, f) in self.module.functions.iter().enumerate() {
            let runs = self.runs(i);
            labels.check(runs.len()).map_err(|d| vec![d])?;
            let Some(first) = runs.first() else { continue };
            let session = Session::new(&self.module, f, &Cpu, Options::default());
            let got = session.run(first, &mut States::new()).map_err(|e| vec![run_error(&e)])?;
            let named = f.sig.outputs.iter().map(|p| &*p.name).zip(&got);
            let at = Accuracy::choose(named).map_err(|d| vec![d])?;
            labels.check_classes(&got[at]).map_err(|d| vec![d])?;
        }
        Ok(())
    }

    /// The program.
    pub fn module(&self) -> &Verified {
        &self.module
    }

    /// The inputs of each run of a function.
    pub fn runs(&self, function: usize) -> &[Vec<Option<Tensor>>] {
        self.runs.get(function).map(Vec::as_slice).unwrap_or_default()
    }

    /// How the ops that read a weight multiply it; `None` where they do not, or not alike.
    fn products(&self, w: &Weight) -> Option<Products> {
        let f = self.module.functions.get(w.function)?;
        let input = w.role.as_ref().ok()?.input;
        let mut found = vec![];
        let mut size = None;
        for used in f.uses(w.value) {
            let Use::Op(op) = used else { return None };
            let by = Product::of(f, *op, w.value)?;
            let own = by.size(f, w.tensor.shape(), input)?;
            if *size.get_or_insert(own) != own {
                return None;
            }
            found.push((*op, by));
        }
        let size = size.filter(|s| bytes(*s) <= MAX_BYTES)?;
        Some(Products { by: found, size })
    }

    /// Runs the samples of a function, and adds to the sums what `probes` see.
    fn observe(&self, function: usize, probes: &[Probe], sums: &mut [Gram]) -> Result<(), Failure> {
        let f = &self.module.functions[function];
        // Every result of an op is seen after its operands, which are held until then.
        let mut at_result: HashMap<Value, Vec<&Probe>> = HashMap::new();
        let mut wanted: HashMap<Value, usize> = HashMap::new();
        for probe in probes {
            if let Some(result) = f.op_data(probe.op).results.first() {
                at_result.entry(*result).or_default().push(probe);
                *wanted.entry(probe.by.x).or_default() += 1;
            }
        }
        let session = Session::new(&self.module, f, &Cpu, Options::default());
        for inputs in self.runs(function) {
            let mut held: HashMap<Value, (Tensor, usize)> = HashMap::new();
            let mut observer = |v: Value, t: &Tensor| {
                if let Some(n) = wanted.get(&v) {
                    held.insert(v, (t.clone(), *n));
                }
                for probe in at_result.get(&v).into_iter().flatten() {
                    let Some((x, left)) = held.get_mut(&probe.by.x) else { continue };
                    // What does not fit adds nothing, and the weight is taken as one of no samples.
                    let _ = sums[probe.sums].add(f, &probe.by, x, &probe.weight, t.shape());
                    *left -= 1;
                    if *left == 0 {
                        held.remove(&probe.by.x);
                    }
                }
            };
            session.run_observed(inputs, &mut States::new(), Some(&mut observer)).map_err(|e| vec![run_error(&e)])?;
        }
        Ok(())
    }
}

fn bytes([groups, d]: [usize; 2]) -> u64 {
    // The sums, their factor, and single precision of both.
    (groups as u64).saturating_mul(d as u64).saturating_mul(d as u64).saturating_mul(24)
}

impl Witness for Calibration {
    fn cost(&self, weight: &Weight) -> u64 {
        self.products(weight).map_or(0, |p| bytes(p.size))
    }

    fn look(&self, weights: &[&Weight]) -> Result<Vec<Option<Arc<Inputs>>>, WitnessError> {
        let mut sums: Vec<Gram> = vec![];
        let mut probes: Vec<(usize, Probe)> = vec![];
        let mut place: Vec<Option<usize>> = vec![];
        // Weights that meet the same inputs, as those of queries, keys and values do, share the sums.
        let mut known: HashMap<Value, Vec<Gathered>> = HashMap::new();
        for w in weights {
            let Some(Products { by: products, size }) = self.products(w) else {
                place.push(None);
                continue;
            };
            let f = &self.module.functions[w.function];
            let shape = w.tensor.shape();
            if let [(_, by)] = products.as_slice() {
                let twins = known.entry(by.x).or_default();
                let alike = |g: &&Gathered| g.function == w.function && by.same_inputs(&g.by, f, [shape, &g.weight]);
                if let Some(gathered) = twins.iter().find(alike) {
                    place.push(Some(gathered.sums));
                    continue;
                }
                twins.push(Gathered { function: w.function, by: *by, weight: shape.to_vec(), sums: sums.len() });
            }
            place.push(Some(sums.len()));
            for (op, by) in products {
                probes.push((w.function, Probe { by, op, weight: shape.to_vec(), sums: sums.len() }));
            }
            sums.push(Gram::new(size));
        }
        let functions: HashSet<usize> = probes.iter().map(|(function, _)| *function).collect();
        let mut functions: Vec<usize> = functions.into_iter().collect();
        functions.sort_unstable();
        for function in functions {
            let (own, rest): (Vec<_>, Vec<_>) = probes.into_iter().partition(|(of, _)| *of == function);
            probes = rest;
            let own: Vec<Probe> = own.into_iter().map(|(_, probe)| probe).collect();
            self.observe(function, &own, &mut sums).map_err(|e| Box::new(Failed(e)))?;
        }
        for (w, at) in weights.iter().zip(&place) {
            if let Some(g) = at.and_then(|at| sums.get(at)).filter(|g| g.data.iter().any(|x| !x.is_finite())) {
                let title = format!("inputs of `{}` are not finite on the samples, {} of them", w.name, g.rows);
                let d = Diagnostic::error(&codes::C0002, title);
                let help = "leave out the samples where they are not, or take weights alone with `--rounding nearest`";
                return Err(Box::new(Failed(vec![d.help(help)])));
            }
        }
        let seen = |g: Gram| Inputs { groups: g.groups, d: g.d, data: g.data, rows: g.rows };
        let sums: Vec<Arc<Inputs>> = sums.into_iter().map(|g| Arc::new(seen(g))).collect();
        Ok(place.into_iter().map(|at| sums.get(at?).filter(|s| s.rows > 0).cloned()).collect())
    }
}
