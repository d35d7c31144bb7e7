//! The way from the smallest model to the one that is as it was, by the upgrades that gain most for their bytes.

use super::Choice;
use crate::{Diagnostic, Failure, codes};
use mlconv_passes::compress::Weight;
use serde::Serialize;

/// A weight whose scheme is searched.
pub(super) struct Slot {
    /// Its place among the weights.
    pub(super) weight: usize,
    /// From the smallest to the one that is as it was, each with less loss than the one before.
    pub(super) hull: Vec<Choice>,
    /// All forms, also those above the hull.
    pub(super) all: Vec<Choice>,
}

impl Slot {
    /// `all` are in the order of bytes.
    pub(super) fn new(weight: usize, all: &[Choice]) -> Self {
        Self { weight, hull: hull(all), all: all.to_vec() }
    }
}

/// A step of the way from the smallest model to the one that is as it was.
#[derive(Clone, Debug, Serialize)]
pub struct Point {
    /// The weight that gets another form; none for the first point.
    pub weight: Option<String>,
    /// The form.
    pub scheme: String,
    /// Bytes of all weights then.
    pub bytes: u64,
    /// Bits that an element takes then.
    pub bits_per_weight: f64,
    /// The loss that is expected then: on samples, squared relative error of the outputs; else, that of the weights,
    /// summed.
    pub expected: f64,
    /// The loss that was measured on the samples, where it was.
    pub measured: Option<f64>,
}

/// The choices on the lower hull of bytes and loss: each gains more for its bytes than the next.
pub(super) fn hull(choices: &[Choice]) -> Vec<Choice> {
    let mut hull: Vec<&Choice> = vec![];
    for c in choices {
        while let Some(last) = hull.last() {
            let gain = |a: &Choice, b: &Choice| (a.expected - b.expected) / (b.bytes.saturating_sub(a.bytes)) as f64;
            let dominated = last.bytes == c.bytes && last.expected >= c.expected;
            let above = hull.len() > 1 && last.bytes < c.bytes && gain(hull[hull.len() - 2], last) < gain(last, c);
            if dominated || above {
                hull.pop();
            } else {
                break;
            }
        }
        if hull.last().is_none_or(|last| c.bytes > last.bytes && c.expected < last.expected) {
            hull.push(c);
        }
    }
    hull.into_iter().cloned().collect()
}

/// All upgrades of all weights, best first, and what the model is after each. An upgrade is the number of its slot.
pub(super) fn walk(weights: &[Weight], slots: &[Slot], rest: u64, elements: u64) -> (Vec<Point>, Vec<usize>) {
    let mut steps: Vec<(f64, usize, usize)> = vec![];
    for (i, slot) in slots.iter().enumerate() {
        for (k, pair) in slot.hull.windows(2).enumerate() {
            let gain = (pair[0].expected - pair[1].expected) / (pair[1].bytes - pair[0].bytes) as f64;
            steps.push((gain, i, k));
        }
    }
    // Gains of one slot fall, so its upgrades stay in their order.
    steps.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    let mut bytes = rest + slots.iter().map(|s| s.hull[0].bytes).sum::<u64>();
    let mut expected: f64 = slots.iter().map(|s| s.hull[0].expected).sum();
    let bits = |bytes: u64| bytes as f64 * 8.0 / elements.max(1) as f64;
    let mut curve = vec![Point {
        weight: None,
        scheme: "each in its smallest form".to_owned(),
        bytes,
        bits_per_weight: bits(bytes),
        expected,
        measured: None,
    }];
    for (_, i, k) in &steps {
        let (from, to) = (&slots[*i].hull[*k], &slots[*i].hull[k + 1]);
        bytes += to.bytes - from.bytes;
        expected = (expected - from.expected + to.expected).max(0.0);
        curve.push(Point {
            weight: Some(weights[slots[*i].weight].name.clone()),
            scheme: to.scheme.clone(),
            bytes,
            bits_per_weight: bits(bytes),
            expected,
            measured: None,
        });
    }
    (curve, steps.into_iter().map(|(_, i, _)| i).collect())
}

/// The form of each slot after some upgrades.
pub(super) fn levels(slots: &[Slot], steps: &[usize]) -> Vec<usize> {
    let mut level = vec![0; slots.len()];
    steps.iter().for_each(|i| level[*i] += 1);
    level
}

/// The last point that is within a budget.
///
/// `refused` are weights that have no smaller form, and why.
pub(super) fn within(curve: &[Point], budget: u64, what: &str, refused: &[(String, String)]) -> Result<usize, Failure> {
    let fitting = curve.iter().rposition(|p| p.bytes <= budget);
    fitting.ok_or_else(|| {
        let (bytes, bits) = curve.first().map(|p| (p.bytes, p.bits_per_weight)).unwrap_or_default();
        let title = format!(
            "{what} cannot be: with every weight in its smallest form it is {bytes} bytes of weights, {bits:.2} bits per weight"
        );
        let d = Diagnostic::error(&codes::C0002, title);
        vec![match refused.first() {
            Some((name, why)) => d.help(format!("{} of them cannot be smaller: `{name}`: {why}", refused.len())),
            None => d.help("give smaller schemes with `--candidates`, or a lower `--weight-threshold`"),
        }]
    })
}

/// Another form of one slot.
#[derive(Clone, Copy)]
struct Move {
    slot: usize,
    to: usize,
    /// Bytes more.
    bytes: i64,
    /// Loss more.
    loss: f64,
}

/// Moves up to two slots at a time to other forms, as long as that loses less within the budget: the hull leaves out forms
/// that fit into what is left of it.
pub(super) fn improve(slots: &[Slot], picks: &mut [Choice], mut left: i64) {
    // Every round loses less, so there is an end; one that comes late is not waited for.
    for _ in 0..10_000 {
        let stay = Move { slot: usize::MAX, to: 0, bytes: 0, loss: 0.0 };
        let mut moves = vec![stay];
        for (slot, (s, pick)) in slots.iter().zip(&*picks).enumerate() {
            for (to, c) in s.all.iter().enumerate() {
                let bytes = (c.bytes as i64).saturating_sub(pick.bytes as i64);
                moves.push(Move { slot, to, bytes, loss: c.expected - pick.expected });
            }
        }
        moves.sort_by_key(|m| (m.bytes, m.slot, m.to));
        // Of all moves up to each: the best one, and the best one of another slot.
        let mut best: Vec<[Option<Move>; 2]> = Vec::with_capacity(moves.len());
        let mut now: [Option<Move>; 2] = [None, None];
        for m in &moves {
            now = match now {
                [None, _] => [Some(*m), None],
                [Some(a), b] if a.slot == m.slot => [Some(if m.loss < a.loss { *m } else { a }), b],
                [Some(a), _] if m.loss < a.loss => [Some(*m), Some(a)],
                [a, Some(b)] => [a, Some(if m.loss < b.loss { *m } else { b })],
                [a, None] => [a, Some(*m)],
            };
            best.push(now);
        }
        let mut found: Option<[Move; 2]> = None;
        for m in &moves {
            let fitting = moves.partition_point(|o| o.bytes <= left.saturating_sub(m.bytes));
            let Some(others) = fitting.checked_sub(1).and_then(|i| best.get(i)) else { continue };
            let Some(other) = others.iter().flatten().find(|o| o.slot != m.slot) else { continue };
            if found.is_none_or(|[a, b]| m.loss + other.loss < a.loss + b.loss) {
                found = Some([*m, *other]);
            }
        }
        let total: f64 = picks.iter().map(|p| p.expected).sum();
        match found {
            Some([a, b]) if a.loss + b.loss < -1e-9 * total => {
                for m in [a, b].into_iter().filter(|m| m.slot != usize::MAX) {
                    picks[m.slot] = slots[m.slot].all[m.to].clone();
                    left = left.saturating_sub(m.bytes);
                }
            }
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlconv_passes::compress::Scheme;

    fn choice(bytes: u64, expected: f64) -> Choice {
        Choice { scheme: bytes.to_string(), parsed: Scheme::default(), bytes, noise: expected, expected }
    }

    #[test]
    fn hulls_hold_what_no_mixture_beats() {
        let all = [choice(10, 8.0), choice(20, 7.0), choice(30, 2.0), choice(40, 2.5), choice(50, 0.0)];
        let kept: Vec<u64> = hull(&all).iter().map(|c| c.bytes).collect();
        assert_eq!(kept, [10, 30, 50]);
        let same = [choice(10, 8.0), choice(10, 4.0), choice(20, 4.0)];
        assert_eq!(hull(&same).iter().map(|c| c.expected).collect::<Vec<_>>(), [4.0]);
    }

    #[test]
    fn two_weights_are_exchanged_where_that_loses_less() {
        let slots = [
            Slot::new(0, &[choice(10, 9.0), choice(20, 2.0), choice(30, 1.0)]),
            Slot::new(1, &[choice(10, 9.0), choice(24, 6.0), choice(30, 0.0)]),
        ];
        let mut picks = vec![choice(30, 1.0), choice(10, 9.0)];
        improve(&slots, &mut picks, 4);
        assert_eq!(picks.iter().map(|p| p.bytes).collect::<Vec<_>>(), [20, 24]);
        improve(&slots, &mut picks, 10);
        assert_eq!(picks.iter().map(|p| p.bytes).collect::<Vec<_>>(), [20, 30]);
    }
}
