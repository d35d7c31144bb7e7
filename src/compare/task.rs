//! What a difference means for what a model is for: classes, boxes and masks.

use super::{
    kind::Kind,
    numbers::{BLOCK, Numbers, greatest, in_parts},
};
use serde::Serialize;

/// The least logarithm of a probability: that of the least normal `f64`. What is less probable still would make a
/// divergence infinite.
const LEAST_LOG: f64 = -708.396_418_532_264_1;

/// What an output means, over all samples; what does not apply is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Task {
    /// The Kullback-Leibler divergence of the package's probabilities from the source's in nats, the mean over all rows.
    pub kl: Option<f64>,
    /// That of the worst row.
    pub kl_max: Option<f64>,
    /// The part of the rows whose greatest element is at the same place.
    pub top1: Option<f64>,
    /// The part of the rows whose greatest element in the source is among the five greatest in the package; of rows with
    /// more than five.
    pub top5: Option<f64>,
    /// The part of the samples for which the same class is predicted, where a sample is one row.
    pub argmax: Option<f64>,
    /// Of boxes, the mean of their intersections over unions; of masks, the intersection over the union of all samples.
    pub iou_mean: Option<f64>,
    /// That of the worst box, or of the sample with the worst mask.
    pub iou_min: Option<f64>,
}

impl Task {
    /// What applies, for a person.
    pub fn text(&self) -> Vec<String> {
        let part = |what: &str, x: Option<f64>| x.map(|x| format!("{what} {:.2} %", 100.0 * x));
        let kl = self.kl.map(|kl| format!("a divergence of {kl:.2e} nats"));
        let top5 = self.top5.filter(|_| self.top1.is_some_and(|t| t < 1.0));
        let iou = self.iou_mean.map(|iou| format!("a mean intersection over union of {iou:.4}"));
        [part("top-1 agreement", self.top1), part("top-5 agreement", top5), kl, iou].into_iter().flatten().collect()
    }
}

/// The counts and sums that [`Task`] is made of: those of several samples are added.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    rows: u64,
    same: u64,
    /// Rows with more than five elements.
    wide: u64,
    among_five: u64,
    /// Samples of one row.
    single: u64,
    single_same: u64,
    /// Rows that have a divergence.
    diverging: u64,
    kl: f64,
    kl_max: f64,
    boxes: u64,
    iou: f64,
    iou_min: Option<f64>,
    masks: u64,
    inside: u64,
    union: u64,
}

impl Counts {
    /// Those of one sample; both have `shape`.
    pub(super) fn of(kind: Kind, shape: &[usize], want: &Numbers<'_>, got: &Numbers<'_>) -> Self {
        let (mut out, count) = (Self::default(), shape.iter().product());
        let last = shape.last().copied().unwrap_or(0);
        match kind {
            Kind::Logits | Kind::Probabilities if last > 0 => {
                in_parts([want, got], count, last, |_, w, g| out.row(kind, w, g));
                if matches!(shape, [1, _] | [_]) {
                    (out.single, out.single_same) = (out.rows, out.same);
                }
            }
            Kind::Boxes if last == 4 => {
                let form = Form::of(want, got, count);
                in_parts([want, got], count, 4, |_, w, g| {
                    let iou = iou(form, w, g);
                    out.boxes += 1;
                    out.iou += iou;
                    out.iou_min = Some(out.iou_min.map_or(iou, |least| least.min(iou)));
                });
            }
            Kind::Mask(threshold) => {
                in_parts([want, got], count, BLOCK, |_, w, g| {
                    for (w, g) in w.iter().zip(g) {
                        out.inside += u64::from(*w > threshold && *g > threshold);
                        out.union += u64::from(*w > threshold || *g > threshold);
                    }
                });
                out.masks = 1;
                out.iou_min = Some(part(out.inside, out.union).unwrap_or(1.0));
            }
            Kind::Logits | Kind::Probabilities | Kind::Boxes | Kind::Values | Kind::Integers | Kind::Text => {}
        }
        out
    }

    fn row(&mut self, kind: Kind, want: &[f64], got: &[f64]) {
        let (best, other) = (greatest(want), greatest(got));
        let same = best == other;
        self.rows += 1;
        self.same += u64::from(same);
        if want.len() > 5 {
            self.wide += 1;
            self.among_five += u64::from(match (best, other) {
                (Some(best), Some(_)) => rank(got, best) < 5,
                _ => same,
            });
        }
        let kl = if kind == Kind::Logits { divergence_of_logits(want, got) } else { divergence(want, got) };
        if let Some(kl) = kl {
            self.diverging += 1;
            self.kl += kl;
            self.kl_max = if self.diverging == 1 { kl } else { self.kl_max.max(kl) };
        }
    }

    pub(super) fn absorb(&mut self, other: Self) {
        self.kl_max = match (self.diverging, other.diverging) {
            (0, _) => other.kl_max,
            (_, 0) => self.kl_max,
            _ => self.kl_max.max(other.kl_max),
        };
        self.rows += other.rows;
        self.same += other.same;
        self.wide += other.wide;
        self.among_five += other.among_five;
        self.single += other.single;
        self.single_same += other.single_same;
        self.diverging += other.diverging;
        self.kl += other.kl;
        self.boxes += other.boxes;
        self.iou += other.iou;
        self.iou_min = self.iou_min.into_iter().chain(other.iou_min).reduce(f64::min);
        self.masks += other.masks;
        self.inside += other.inside;
        self.union += other.union;
    }

    pub(super) fn task(&self) -> Option<Task> {
        let any = self.rows + self.boxes + self.masks > 0;
        let mean = |sum: f64, n: u64| (n > 0).then(|| sum / n as f64);
        let of_masks = || (self.masks > 0).then(|| part(self.inside, self.union).unwrap_or(1.0));
        any.then(|| Task {
            kl: mean(self.kl, self.diverging),
            kl_max: (self.diverging > 0).then_some(self.kl_max),
            top1: part(self.same, self.rows),
            top5: part(self.among_five, self.wide),
            argmax: part(self.single_same, self.single),
            iou_mean: mean(self.iou, self.boxes).or_else(of_masks),
            iou_min: self.iou_min,
        })
    }
}

fn part(some: u64, all: u64) -> Option<f64> {
    (all > 0).then(|| some as f64 / all as f64)
}

/// How many elements go before the one at `at`: those that are greater, and equal ones at smaller places.
fn rank(row: &[f64], at: usize) -> usize {
    let of = row.get(at).copied().unwrap_or(f64::NAN);
    row.iter().enumerate().filter(|(i, x)| **x > of || (**x == of && *i < at)).count()
}

/// A term of a divergence, `p ln(p / q) - p + q`: of rows whose sums are the same, the last two cancel. It is never negative, and
/// 0 only where both are the same; `off` is `ln(p / q)`.
fn term(p: f64, q: f64, off: f64) -> f64 {
    // exp(-x) - 1 + x, of which nothing is left near 0 unless the first two are computed as one. Where p is too small for that,
    // so is all of the term but q.
    if p > 0.0 && off > LEAST_LOG { p * ((-off).exp_m1() + off).max(0.0) } else { q }
}

/// Where both are probabilities as they are; what is negative is none, and counts as 0.
fn divergence(want: &[f64], got: &[f64]) -> Option<f64> {
    let term = |(p, q): (&f64, &f64)| {
        let (p, q) = (p.max(0.0), q.max(0.0));
        let log = |x: f64| if x > 0.0 { x.ln().max(LEAST_LOG) } else { LEAST_LOG };
        let off = if q > 0.0 && (p - q).abs() < q { ((p - q) / q).ln_1p() } else { log(p) - log(q) };
        term(p, q, off)
    };
    let finite = want.iter().chain(got).all(|x| x.is_finite());
    finite.then(|| want.iter().zip(got).map(term).sum())
}

/// Where a softmax of both are probabilities; a score of minus infinity is a probability of 0.
fn divergence_of_logits(want: &[f64], got: &[f64]) -> Option<f64> {
    let total = |row: &[f64]| {
        let most = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let whole = most.is_finite() && !row.iter().any(|x| x.is_nan());
        whole.then(|| most + row.iter().map(|x| (x - most).exp()).sum::<f64>().ln())
    };
    let (w_total, g_total) = (total(want)?, total(got)?);
    let term = |(w, g): (&f64, &f64)| {
        let (p_log, q_log) = (w - w_total, (g - g_total).max(LEAST_LOG));
        term(p_log.exp(), (g - g_total).exp(), p_log - q_log)
    };
    Some(want.iter().zip(got).map(term).sum())
}

/// What the four numbers of a box are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Two corners: left, top, right, bottom.
    Corners,
    /// The centre, the width and the height.
    Centre,
}

impl Form {
    /// Corners where no box of the source has the second one left of or above the first.
    fn of(want: &Numbers<'_>, got: &Numbers<'_>, count: usize) -> Self {
        let mut corners = true;
        in_parts([want, got], count, 4, |_, w, _| {
            if let [left, top, right, bottom] = w {
                corners &= !(right < left || bottom < top);
            }
        });
        if corners { Self::Corners } else { Self::Centre }
    }

    fn corners(self, b: &[f64]) -> Option<[f64; 4]> {
        let [a, b, c, d] = *b else { return None };
        let corners = match self {
            Self::Corners => [a, b, c, d],
            Self::Centre => [a - c / 2.0, b - d / 2.0, a + c / 2.0, b + d / 2.0],
        };
        corners.iter().all(|x| x.is_finite()).then_some(corners)
    }
}

/// The intersection over the union of two boxes. Of those without an area, and of those that are not finite, it is 1
/// where they are equal and else 0.
fn iou(form: Form, want: &[f64], got: &[f64]) -> f64 {
    let same = want.iter().zip(got).all(|(w, g)| w == g || (w.is_nan() && g.is_nan()));
    let (Some(a), Some(b)) = (form.corners(want), form.corners(got)) else { return f64::from(u8::from(same)) };
    let area = |[left, top, right, bottom]: [f64; 4]| (right - left).max(0.0) * (bottom - top).max(0.0);
    let inside = area([a[0].max(b[0]), a[1].max(b[1]), a[2].min(b[2]), a[3].min(b[3])]);
    let union = area(a) + area(b) - inside;
    if union > 0.0 { inside / union } else { f64::from(u8::from(same)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlconv_tensor::Tensor;

    fn task(kind: Kind, shape: &[usize], want: &[f64], got: &[f64]) -> Task {
        let (want, got) = (Tensor::from_vec(shape, want.to_vec()), Tensor::from_vec(shape, got.to_vec()));
        Counts::of(kind, shape, &Numbers::new(&want), &Numbers::new(&got)).task().expect("a task")
    }

    #[test]
    fn classes_agree_or_not() {
        let t = task(Kind::Logits, &[2, 2], &[0.0, 1.0, 2.0, 1.0], &[0.0, 1.0, 1.0, 2.0]);
        assert_eq!((t.top1, t.top5, t.argmax), (Some(0.5), None, None));
        // Two nats apart, of sigmoid(1): tanh(1/2).
        assert!((t.kl.expect("rows") - 0.5f64.tanh() / 2.0).abs() < 1e-12, "{t:?}");
        let one = task(Kind::Probabilities, &[1, 6], &[0.5, 0.1, 0.1, 0.1, 0.1, 0.1], &[0.1, 0.5, 0.1, 0.1, 0.1, 0.1]);
        assert_eq!((one.top1, one.top5, one.argmax), (Some(0.0), Some(1.0), Some(0.0)));
        let odd = task(Kind::Logits, &[2], &[f64::NAN, 0.0], &[0.0, 1.0]);
        assert_eq!((odd.kl, odd.top1), (None, Some(0.0)));
        let masked = task(Kind::Logits, &[2], &[f64::NEG_INFINITY, 0.0], &[f64::NEG_INFINITY, 3.0]);
        assert_eq!((masked.kl, masked.top1), (Some(0.0), Some(1.0)));
    }

    #[test]
    fn a_divergence_is_0_where_both_are_the_same_and_else_more() {
        let kl = |kind, want: &[f64], got: &[f64]| task(kind, &[want.len()], want, got).kl.expect("a divergence");
        let off = f64::powi(2.0, -24);
        for kind in [Kind::Probabilities, Kind::Logits] {
            for row in [&[0.25, 0.25, 0.5][..], &[0.0, 1.0, 1e-300], &[0.1, 0.7, 0.2]] {
                assert_eq!(kl(kind, row, row), 0.0, "{row:?}");
                for at in 0..row.len() {
                    for factor in [1.0 - off, 1.0 + off] {
                        let mut other = row.to_vec();
                        other[at] = other[at] * factor + if other[at] == 0.0 { off } else { 0.0 };
                        let (to, from) = (kl(kind, row, &other), kl(kind, &other, row));
                        // Nothing is left of a change of 1e-300.
                        assert!(to >= 0.0 && from >= 0.0, "{row:?} {other:?} {to} {from}");
                        assert!((to > 0.0 && from > 0.0) || row[at] < 1e-99 && row[at] > 0.0, "{row:?} {other:?}");
                    }
                }
            }
        }
        // Sums of rows that are not 1 are no way below 0.
        assert!(kl(Kind::Probabilities, &[0.5, 0.5], &[0.6, 0.6]) > 0.0);
        assert!(kl(Kind::Probabilities, &[1.0, 0.0], &[0.0, 1.0]) > 700.0);
    }

    #[test]
    fn boxes_and_masks_overlap() {
        let corners = task(Kind::Boxes, &[2, 4], &[0., 0., 2., 2., 0., 0., 1., 1.], &[1., 0., 3., 2., 0., 0., 1., 1.]);
        assert_eq!(corners.iou_min, Some(1.0 / 3.0));
        assert!((corners.iou_mean.expect("boxes") - 2.0 / 3.0).abs() < 1e-12);
        let centre = task(Kind::Boxes, &[1, 4], &[5., 5., 2., 2.], &[5., 6., 2., 2.]);
        assert_eq!(centre.iou_mean, Some(1.0 / 3.0));
        let mask = task(Kind::Mask(0.0), &[4], &[1., 1., -1., -1.], &[1., -1., 1., -1.]);
        assert_eq!((mask.iou_mean, mask.iou_min), (Some(1.0 / 3.0), Some(1.0 / 3.0)));
        assert_eq!(task(Kind::Mask(0.5), &[1], &[0.0], &[0.1]).iou_mean, Some(1.0));
    }
}
