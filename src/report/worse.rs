//! Which runs are worse than what is judged.

use crate::{
    compare::OutputDiff,
    parity::{Parity, Run},
};

/// By how much a run is worse than what is judged before that is worth a word, in dB.
const WORSE: f64 = 6.0;
/// How far above what is wanted a signal over noise is ample, in dB.
const AMPLE: f64 = 20.0;

/// The worst of the outputs of a run that there is something to say of: those beyond the tolerance, and of a run that is not
/// judged those that are worse there than in all that is judged; `None` where there are none.
pub(super) fn worst<'r>(p: &Parity, run: &'r Run) -> Option<&'r OutputDiff> {
    let bad = |d: &&OutputDiff| if run.judged { !d.pass } else { is_worse(p, d) };
    let key = |d: &OutputDiff| d.snr_db.unwrap_or(f64::NEG_INFINITY);
    run.outputs.iter().filter(bad).min_by(|a, b| key(a).total_cmp(&key(b)))
}

/// Whether an output is worse in a run that is not judged than in what is. What is exact is better than anything else.
fn is_worse(p: &Parity, d: &OutputDiff) -> bool {
    // What half precision does not hold at all says nothing about the package, nor do random numbers.
    if d.drawn || (p.half && d.below_half()) {
        return false;
    }
    let judged = p.outputs.iter().find(|o| o.name == d.name);
    let Some(judged) = judged else { return !d.pass };
    if !d.pass && judged.pass {
        return true;
    }
    let broken = |o: &OutputDiff| o.mismatch.is_some() || o.non_finite > 0 || o.unequal.is_some_and(|n| n > 0);
    if broken(d) || broken(judged) {
        return broken(d) && !broken(judged);
    }
    let Some(db) = d.snr_db else { return false };
    // What is far better than it has to be is not worth a word.
    let wanted = p.tolerance.min_snr_db;
    let ample = d.pass && wanted != f64::NEG_INFINITY && db >= wanted + AMPLE;
    !ample && db < judged.snr_db.unwrap_or(f64::INFINITY) - WORSE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{compare, compare::Tolerance, witness::Witness};
    use mlconv_tensor::Tensor;

    fn output(off: f32, tolerance: Tolerance) -> OutputDiff {
        let [want, got] = [1.0, 1.0 + off].map(|x| Tensor::from_vec(&[1], vec![x]));
        compare::output("y", &want, &got, tolerance)
    }

    #[test]
    fn what_is_worse_is_what_one_would_want_to_know() {
        let tight = Tolerance { max_rel: 0.0, ..Tolerance::F16 };
        let loose = Tolerance { min_snr_db: f64::NEG_INFINITY, ..tight };
        for (judged, other, tolerance, want) in [
            // Beyond the tolerance, where what is judged is not.
            (1e-4, 0.1, tight, true),
            // Exact, and then near the bound; or far better than asked for.
            (0.0, 4e-3, tight, true),
            (0.0, 1e-5, tight, false),
            (0.0, 1e-5, loose, true),
            // Both beyond it: only what is clearly further.
            (0.1, 0.12, tight, false),
            (0.1, 0.02, tight, false),
            (0.1, 0.9, tight, true),
            (0.1, f32::NAN, tight, true),
            (1e-4, 1.5e-4, tight, false),
        ] {
            let p = Parity {
                outputs: vec![output(judged, tolerance)],
                accuracy: vec![],
                inputs: String::new(),
                samples: 1,
                unused: vec![],
                tolerance,
                half: false,
                notes: vec![],
                witness: Witness::Lowering,
                lowering_agrees: None,
                runs: vec![],
                untested: vec![],
            };
            assert_eq!(is_worse(&p, &output(other, tolerance)), want, "{judged} {other}");
        }
    }
}
