//! Compression of weights: fewer bits an element, or fewer elements; and of activations, to 8 bits.
//!
//! Kernels compress one tensor and know nothing of programs; what they make decodes exactly as Core ML's `constexpr_*` ops
//! say. The engine finds the weights of a module, compresses them in parallel within a budget of memory, and puts the ops
//! that decode them in their place.

pub mod activations;
mod affine;
mod apply;
mod aware;
mod blocks;
mod decode;
mod decompress;
mod encode;
pub mod gptq;
pub mod linear;
mod measure;
pub mod palette;
pub mod prune;
mod scheme;
mod upgrade;
mod weight;
mod weights;

pub use apply::{Coded, Compressed, Knowledge, compress_tensor, working_memory};
pub use aware::Inputs;
pub use decompress::decompress;
pub use encode::expressible;
pub use measure::{Distortion, Sums};
pub use scheme::{Along, Code, Entries, Linear, PALETTE_BITS, Palette, Prune, Range, Scheme, SchemeError, Share};
pub use upgrade::upgrade;
pub use weight::Refusal;
pub use weights::{Left, Reader, Role, Weight, weights};

use mlconv_mil::{
    ir::{InsertError, Module},
    schema::Opset,
};
use mlconv_tensor::{Blob, Bytes, Tensor};
use rayon::prelude::*;
use std::{collections::HashMap, io, sync::Arc};

/// Where compressed bytes stay until they are written.
pub trait Store: Sync {
    /// The same bytes, in memory or elsewhere.
    fn keep(&self, bytes: Bytes) -> io::Result<Bytes>;
}

/// Keeps everything in memory.
#[derive(Clone, Copy, Debug)]
pub struct InMemory;

impl Store for InMemory {
    fn keep(&self, bytes: Bytes) -> io::Result<Bytes> {
        Ok(bytes)
    }
}

/// What knows the inputs of weights.
pub trait Witness: Sync {
    /// Bytes that what is known of a weight's inputs takes; 0 where nothing is.
    fn cost(&self, weight: &Weight) -> u64;
    /// What the inputs of each of `weights` are like.
    fn look(&self, weights: &[&Weight]) -> Result<Vec<Option<Arc<Inputs>>>, WitnessError>;
}

/// Why nothing can be said of inputs, for the witness to say.
pub type WitnessError = Box<dyn std::error::Error + Send + Sync>;

/// A weight that is to be compressed.
#[derive(Clone, Debug)]
pub struct Task<'a> {
    /// The weight.
    pub weight: &'a Weight,
    /// How.
    pub scheme: Scheme,
}

/// What became of a weight.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was done, or why nothing was.
    pub done: Result<Applied, Refusal>,
    /// Bytes before.
    pub bytes_before: u64,
    /// Bytes after: all that stands for the weight.
    pub bytes_after: u64,
}

/// How a weight was compressed.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The scheme that was applied.
    pub scheme: Scheme,
    /// Why it is not the one that was asked for.
    pub adapted: Option<String>,
    /// How far the decoded weight is from what it was.
    pub distortion: Distortion,
    /// The weight that it shares its bytes with, by task.
    pub shared_with: Option<usize>,
    /// How many inputs had a say in its codes.
    pub aware_of: Option<u64>,
}

/// How to go about it.
pub struct Engine<'a> {
    /// The op set that the result is for.
    pub opset: Opset,
    /// Bytes that tensors in the works may take.
    pub max_memory: u64,
    /// Where results stay.
    pub store: &'a dyn Store,
    /// Whether results are dropped once they are measured.
    pub dry_run: bool,
    /// What knows the inputs of weights, so that the error of outputs is small, and not only that of elements.
    pub witness: Option<&'a dyn Witness>,
    /// Told of every task that is done: its number and what became of it.
    pub progress: &'a (dyn Fn(usize, &Outcome) + Sync),
}

/// Why compression as a whole failed.
#[expect(clippy::large_enum_variant, reason = "it ends the run, so there is one")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompressError {
    /// The store could not keep a result.
    #[error("compressed weights cannot be kept: {0}")]
    Store(#[from] io::Error),
    /// What the inputs are like could not be found out.
    #[error("{0}")]
    Witness(WitnessError),
    /// An op that decodes a weight does not fit its place: a fault of the tool.
    #[error(transparent)]
    Insert(#[from] InsertError),
}

impl Engine<'_> {
    /// Compresses the weights of `tasks` in `module`; what became of each.
    ///
    /// Results are the same whatever the number of threads.
    pub fn run(&self, module: &mut Module, tasks: &[Task<'_>]) -> Result<Vec<Outcome>, CompressError> {
        let twins = twins(tasks);
        let mut outcomes: Vec<Option<Outcome>> = vec![None; tasks.len()];
        let mut kept: Vec<Option<Compressed>> = vec![None; tasks.len()];
        let mut next = 0;
        while next < tasks.len() {
            let end = self.batch(tasks, &twins, next);
            let known = self.known(&tasks[next..end])?;
            let one = |i: usize| self.one(i, &tasks[i], known.get(i - next).and_then(Option::as_deref)).map(Some);
            let results: Vec<_> =
                (next..end).into_par_iter().map(|i| if twins[i].is_some() { Ok(None) } else { one(i) }).collect();
            for (i, result) in (next..end).zip(results) {
                let twin = twins[i];
                let (compressed, outcome) = match (result?, twin) {
                    (Some(done), _) => done,
                    (None, twin) => {
                        let from = twin.unwrap_or(0);
                        let mut outcome = outcomes[from].clone().unwrap_or_else(|| Outcome {
                            done: Err(Refusal::new("nothing is known of the weight that it shares its bytes with")),
                            bytes_before: 0,
                            bytes_after: 0,
                        });
                        (outcome.bytes_before, outcome.bytes_after) = (0, 0);
                        if let Ok(applied) = &mut outcome.done {
                            applied.shared_with = Some(from);
                        }
                        (self.progress)(i, &outcome);
                        (kept[from].clone(), outcome)
                    }
                };
                if let Some(c) = &compressed
                    && !self.dry_run
                {
                    let w = tasks[i].weight;
                    let origin = module.functions[w.function].op_data(w.op).origin;
                    let origin = origin.map(|o| module.origins.rewritten("compress", [o]));
                    encode::encode(&mut module.functions[w.function], w, c, origin)?;
                }
                (kept[i], outcomes[i]) = (compressed, Some(outcome));
            }
            next = end;
        }
        Ok(outcomes.into_iter().flatten().collect())
    }

    /// What is known of the inputs of weights that are to be coded.
    fn known(&self, tasks: &[Task<'_>]) -> Result<Vec<Option<Arc<Inputs>>>, CompressError> {
        let Some(witness) = self.witness else { return Ok(vec![]) };
        // Weights that are pruned alone are not coded.
        let coded = |t: &Task<'_>| t.scheme.code.is_some();
        let weights: Vec<&Weight> = tasks.iter().filter(|t| coded(t)).map(|t| t.weight).collect();
        if weights.is_empty() {
            return Ok(vec![]);
        }
        let mut seen = witness.look(&weights).map_err(CompressError::Witness)?.into_iter();
        Ok(tasks.iter().map(|t| if coded(t) { seen.next().flatten() } else { None }).collect())
    }

    /// The end of a run of tasks from `start` that fit into memory together; at least one.
    fn batch(&self, tasks: &[Task<'_>], twins: &[Option<usize>], start: usize) -> usize {
        let mut left = self.max_memory;
        for i in start..tasks.len() {
            let w = tasks[i].weight;
            let inputs = self.witness.filter(|_| tasks[i].scheme.code.is_some()).map_or(0, |known| known.cost(w));
            let need = match &w.role {
                Ok(role) if twins[i].is_none() => {
                    apply::working_memory(&w.tensor, *role, &tasks[i].scheme, inputs > 0).saturating_add(inputs)
                }
                _ => 0,
            };
            match left.checked_sub(need) {
                Some(rest) => left = rest,
                None if i == start => left = 0,
                None => return i,
            }
        }
        tasks.len()
    }

    fn one(
        &self,
        i: usize,
        task: &Task<'_>,
        inputs: Option<&Inputs>,
    ) -> Result<(Option<Compressed>, Outcome), CompressError> {
        let w = task.weight;
        let before = w.tensor.blob().len() as u64;
        let mut outcome = Outcome { done: Err(Refusal::new("")), bytes_before: before, bytes_after: before };
        let mut result = None;
        outcome.done = match &w.role {
            Err(left) => Err(Refusal::new(left.to_string())),
            Ok(role) => compress_tensor(&w.tensor, *role, &task.scheme, Knowledge { inputs }).and_then(|c| {
                encode::expressible(&c, w.tensor.shape(), self.opset)?;
                outcome.bytes_after = c.bytes(self.opset);
                if outcome.bytes_after > before {
                    let why = format!("it would take {} bytes, not {before}", outcome.bytes_after);
                    outcome.bytes_after = before;
                    return Err(Refusal::new(why));
                }
                let applied = c.measured(&w.tensor);
                result = Some(c);
                Ok(applied)
            }),
        };
        w.tensor.blob().release();
        let result = match result {
            Some(c) if self.dry_run => Some(Compressed { coded: Coded::Plain(Tensor::scalar(0f32)), mask: None, ..c }),
            Some(c) => Some(c.kept_in(self.store)?),
            None => None,
        };
        (self.progress)(i, &outcome);
        Ok((result, outcome))
    }
}

/// For each task, the first one before it that compresses the same bytes alike.
fn twins(tasks: &[Task<'_>]) -> Vec<Option<usize>> {
    let mut first: HashMap<_, Vec<usize>> = HashMap::new();
    let mut twin = |i: usize| {
        let t = &tasks[i].weight.tensor;
        // Those that agree in this differ in little, so that few are compared.
        let same = first.entry((t.blob().storage(), t.dtype(), t.shape())).or_default();
        let twin = same.iter().find(|j| alike(&tasks[**j], &tasks[i])).copied();
        if twin.is_none() {
            same.push(i);
        }
        twin
    };
    (0..tasks.len()).map(&mut twin).collect()
}

/// Whether both are the same bytes, to be compressed alike.
fn alike(a: &Task<'_>, b: &Task<'_>) -> bool {
    let (s, t) = (&a.weight.tensor, &b.weight.tensor);
    s.dtype() == t.dtype()
        && s.shape() == t.shape()
        && a.weight.role == b.weight.role
        && a.scheme == b.scheme
        && s.blob().same_storage(t.blob())
}

impl Compressed {
    fn tensors_mut(&mut self) -> Vec<&mut Tensor> {
        let mut all: Vec<&mut Tensor> = self.mask.iter_mut().collect();
        match &mut self.coded {
            Coded::Plain(t) => all.push(t),
            Coded::Linear(q) => all.extend([&mut q.data, &mut q.scale].into_iter().chain(q.offset.as_mut())),
            Coded::Palette { palette, lut } => {
                all.extend([&mut palette.indices, &mut palette.lut].into_iter().chain(palette.scale.as_mut()));
                if let Some(q) = lut {
                    all.extend([&mut q.data, &mut q.scale].into_iter().chain(q.offset.as_mut()));
                }
            }
        }
        all
    }

    /// Moves all bytes to `store`.
    pub fn kept_in(mut self, store: &dyn Store) -> io::Result<Self> {
        for t in self.tensors_mut() {
            if let Ok(moved) = Tensor::new(t.dtype(), t.shape(), Blob::from(store.keep(t.blob().bytes())?)) {
                *t = moved;
            }
        }
        Ok(self)
    }

    /// What was done to `w`, which `decoded` stands for.
    pub fn applied(&self, w: &Tensor, decoded: &[f32]) -> Applied {
        self.account(Distortion::between(&w.to_f32(), decoded))
    }

    /// What was done to `w`, measured piece by piece.
    pub fn measured(&self, w: &Tensor) -> Applied {
        self.account(self.distortion(w))
    }

    fn account(&self, distortion: Distortion) -> Applied {
        Applied {
            scheme: self.scheme.clone(),
            adapted: self.adapted.clone(),
            distortion,
            shared_with: None,
            aware_of: self.aware_of,
        }
    }

    /// Bytes of all that a package for `opset` stores of it.
    pub fn bytes(&self, opset: Opset) -> u64 {
        let size = |t: &Tensor| t.blob().len() as u64;
        let of = |q: &linear::Quantized| size(&q.data) + size(&q.scale) + q.offset.as_ref().map_or(0, size);
        let coded = match &self.coded {
            Coded::Plain(t) => size(t),
            Coded::Linear(q) => of(q),
            Coded::Palette { palette: p, lut } => {
                let folded = p.scale.as_ref().filter(|_| encode::folds_scale(self, opset));
                // Where a table holds the scale as well, each channel has its own.
                let times = folded.map_or(1, |s| {
                    let pairs = p.lut.shape().iter().zip(s.shape());
                    pairs.map(|(have, n)| (have.max(n) / (*have).max(1)) as u64).product()
                });
                let table = lut
                    .as_ref()
                    .map_or_else(|| size(&p.lut) * times, |q| size(&q.data) * times + of(q) - size(&q.data));
                size(&p.indices) + table + p.scale.as_ref().map_or(0, size)
            }
        };
        coded + self.mask.as_ref().map_or(0, size)
    }
}
