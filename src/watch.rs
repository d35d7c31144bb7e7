//! Looking on while passes rewrite a program.

use crate::{
    compare::{self, Tolerance},
    made_up, report,
};
use indexmap::IndexMap;
use mlconv_mil::{
    ir::Module,
    text::{Elide, print},
    verify::{Verified, verify},
};
use mlconv_passes::{PassError, Pattern, Step};
use mlconv_runner::{Options as RunOptions, Session, States, cpu::Cpu};
use mlconv_tensor::Tensor;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// What a user wants to see of passes.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    /// Passes behind which the program is printed, if they changed it.
    pub print_after: Vec<Pattern>,
    /// Whether the program must verify behind each pass.
    pub verify_each: bool,
    /// Whether outputs must be the same before and behind each pass.
    pub check_each: bool,
    /// Whether to say how long each pass took.
    pub time: bool,
    /// Edits after which passes stop.
    pub max_edits: Option<usize>,
    /// What there is to read, also where a pass fails.
    pub log: Log,
}

/// Text that is handed over as far as it came.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Mutex<String>>);

impl Log {
    fn add(&self, text: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_str(text);
    }

    /// Everything so far.
    pub fn take(&self) -> String {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A watch over one pipeline.
pub(crate) struct Observer<'a> {
    watch: &'a Watch,
    /// When the pass at work began.
    began: Instant,
    passes: IndexMap<&'static str, Times>,
    /// What the functions gave before the pass at work.
    outputs: Option<Outputs>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Times {
    runs: usize,
    edits: usize,
    taken: Duration,
}

/// The outputs of each function, by name; none of one that cannot run on made-up inputs.
type Outputs = Vec<Option<Vec<(String, Tensor)>>>;

impl<'a> Observer<'a> {
    pub(crate) fn new(watch: &'a Watch, module: &Verified) -> Self {
        let outputs = watch.check_each.then(|| run(module));
        Self { watch, began: Instant::now(), passes: IndexMap::new(), outputs }
    }

    /// What comes behind a pass.
    pub(crate) fn see(&mut self, step: &Step<'_>) -> Result<(), PassError> {
        let name = step.pass.name;
        let times = self.passes.entry(name).or_default();
        times.taken += self.began.elapsed();
        times.runs += 1;
        times.edits += step.applied;
        if step.applied > 0 {
            if self.watch.print_after.iter().any(|p| p.matches_text(name)) {
                self.watch.log.add(&format!("// after {name}\n{}", print(step.module, Elide::Above(16))));
            }
            self.check(step)?;
        }
        self.began = Instant::now();
        Ok(())
    }

    fn check(&mut self, step: &Step<'_>) -> Result<(), PassError> {
        if !self.watch.verify_each && self.outputs.is_none() {
            return Ok(());
        }
        let fail = |why: &str| PassError::new(step.pass.name, &why);
        let module = verify(Module::clone(step.module)).map_err(|bad| {
            let bad: Vec<String> = bad.iter().map(ToString::to_string).collect();
            fail(&format!("what it made is not sound: {}", bad.join("; ")))
        })?;
        let Some(before) = &self.outputs else { return Ok(()) };
        let now = run(&module);
        // Passes that change the precision do not keep the numbers, and are held to what half precision gives.
        let tolerance = if step.pass.changes_precision { Tolerance::F16 } else { Tolerance::F32 };
        for (want, got) in before.iter().zip(&now) {
            let Some(want) = want else { continue };
            let Some(got) = got else { return Err(fail("what it made does not run")) };
            for ((name, want), (_, got)) in want.iter().zip(got) {
                let d = compare::output(name, want, got, tolerance);
                if !d.pass {
                    let snr = d.snr_db.map_or_else(|| "no".to_owned(), |db| format!("{db:.1} dB of"));
                    return Err(fail(&format!("output `{name}` is another: off by {:.3e}, {snr} SNR", d.max_abs)));
                }
            }
        }
        self.outputs = Some(now);
        Ok(())
    }

    /// Says how long passes took, the slowest first.
    pub(crate) fn finish(self) {
        if !self.watch.time {
            return;
        }
        let mut passes: Vec<_> = self.passes.into_iter().collect();
        passes.sort_by_key(|(_, t)| std::cmp::Reverse(t.taken));
        let total: Duration = passes.iter().map(|(_, t)| t.taken).sum();
        let ms = |t: Duration| format!("{:.2} ms", t.as_secs_f64() * 1e3);
        let mut rows = vec![["pass", "time", "runs", "edits"].map(str::to_owned).to_vec()];
        let row =
            |(name, t): &(&str, Times)| vec![(*name).to_owned(), ms(t.taken), t.runs.to_string(), t.edits.to_string()];
        rows.extend(passes.iter().map(row));
        rows.push(vec!["all".to_owned(), ms(total), String::new(), String::new()]);
        self.watch.log.add(&report::table(&rows));
    }
}

/// Runs every function on the same made-up inputs.
fn run(module: &Verified) -> Outputs {
    let one = |f| {
        let inputs = made_up::random_inputs(module, f, 0).ok()?;
        let outputs = Session::new(module, f, &Cpu, RunOptions::default()).run(&inputs, &mut States::new()).ok()?;
        Some(f.sig.outputs.iter().map(|p| p.name.to_string()).zip(outputs).collect())
    };
    module.functions.iter().map(one).collect()
}
