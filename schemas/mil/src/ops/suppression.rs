//! Suppression of boxes that overlap better ones.
//!
//! A box is `(x, y, width, height)`, its centre first. Its score is the greatest of its class scores. Boxes are taken in
//! descending order of score, of equal scores the first; one is kept unless its intersection with a kept box is more than
//! `iou_threshold` of their union. Results end in zeros, and indices in -1, where fewer boxes are kept than they have
//! places for. Source: the description of the layer of the same name in Core ML's `NeuralNetwork.proto`.

use crate::{
    ir::Value,
    schema::{EvalCx, Facts, InferCx, OpError, Semantics, Tensors},
};
use mlconv_derive::Op;
use mlconv_tensor::{DType, Dim, Shape};
use smallvec::smallvec;

/// The boxes that are best, in descending order of score, without those that overlap a better one.
///
/// Results: boxes `T[n, max_boxes, 4]`, scores `T[n, max_boxes, k]`, indices `i32[n, max_boxes]`, and how many boxes were
/// kept `i32[n]`: at least one, the best, even where its score is below the threshold.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "non_maximum_suppression", since = Ios15, until = Ios17)]
#[domain(T: Ios15 = F16 | F32)]
pub struct NonMaximumSuppressionIos15 {
    /// `T[n, b, 4]`.
    #[operand(T)]
    pub boxes: Value,
    /// `T[n, b, k]`, one per class.
    #[operand(T)]
    pub scores: Value,
    /// The overlap above which the lesser box is dropped.
    #[attr(T)]
    pub iou_threshold: f32,
    /// The score below which a box is dropped.
    #[attr(T)]
    pub score_threshold: f32,
    /// How many boxes are kept at most.
    #[attr]
    pub max_boxes: i64,
    /// Whether only boxes whose best classes are the same suppress each other.
    #[attr(default = false)]
    pub per_class_suppression: bool,
}

impl Semantics for NonMaximumSuppressionIos15 {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let boxes = cx.ranked("boxes", self.boxes, 3..=3)?;
        let scores = cx.ranked("scores", self.scores, 3..=3)?;
        let (n, k) = (&scores.shape[0], &scores.shape[2]);
        check(cx, self.boxes, &[n.clone(), scores.shape[1].clone(), Dim::from(4)].into(), self.max_boxes)?;
        let max = Dim::from(self.max_boxes);
        Ok(smallvec![
            cx.fact_of(boxes.dtype, [n.clone(), max.clone(), Dim::from(4)])?,
            cx.fact_of(scores.dtype, [n.clone(), max.clone(), k.clone()])?,
            cx.fact_of(DType::I32, [n.clone(), max])?,
            cx.fact_of(DType::I32, [n.clone()])?,
        ])
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let [n, count, k] = *cx.shape(self.scores) else { return Err(OpError::NoKernel) };
        let rule = Rule {
            iou: f64::from(self.iou_threshold),
            score: f64::from(self.score_threshold),
            most: cx.out(2).shape[1],
            per_class: self.per_class_suppression,
        };
        let (boxes, scores) = (cx.f64(self.boxes), cx.f64(self.scores));
        let kept: Vec<Vec<usize>> = (0..n)
            .map(|i| {
                let coordinate = |b: usize, c: usize| boxes[(i * count + b) * 4 + c];
                rule.keep(count, k, coordinate, |b, class| scores[(i * count + b) * k + class])
            })
            .collect();
        let pick = |values: &[f64], width: usize, at: usize| {
            let (i, place, c) = (at / width / rule.most, at / width % rule.most, at % width);
            kept[i].get(place).map_or(0.0, |b| values[(i * count + b) * width + c])
        };
        Ok(smallvec![
            cx.out(0).fill_each(|at| pick(&boxes, 4, at)),
            cx.out(1).fill_each(|at| pick(&scores, k, at)),
            cx.out(2).fill_each(|at| kept[at / rule.most].get(at % rule.most).map_or(-1.0, |b| *b as f64)),
            cx.out(3).fill_each(|i| kept[i].len() as f64),
        ])
    }
}

/// The boxes that are best, in descending order of score, without those that overlap a better one.
///
/// Results: boxes `T[n, 4, max_boxes]`, scores `T[n, k, max_boxes]` and indices `i32[n, max_boxes]`.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "non_maximum_suppression", since = Ios17)]
#[domain(T: Ios17 = F16 | F32)]
pub struct NonMaximumSuppression {
    /// `T[n, 4, b]`.
    #[operand(T)]
    pub boxes: Value,
    /// `T[n, k, b]`, one per class.
    #[operand(T)]
    pub scores: Value,
    /// The overlap above which the lesser box is dropped.
    #[attr(T)]
    pub iou_threshold: f32,
    /// How many boxes are kept at most.
    #[attr]
    pub max_boxes: i64,
    /// Whether only boxes whose best classes are the same suppress each other.
    #[attr(default = false)]
    pub per_class_suppression: bool,
}

impl Semantics for NonMaximumSuppression {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let boxes = cx.ranked("boxes", self.boxes, 3..=3)?;
        let scores = cx.ranked("scores", self.scores, 3..=3)?;
        let (n, k) = (&scores.shape[0], &scores.shape[1]);
        check(cx, self.boxes, &[n.clone(), Dim::from(4), scores.shape[2].clone()].into(), self.max_boxes)?;
        let max = Dim::from(self.max_boxes);
        Ok(smallvec![
            cx.fact_of(boxes.dtype, [n.clone(), Dim::from(4), max.clone()])?,
            cx.fact_of(scores.dtype, [n.clone(), k.clone(), max.clone()])?,
            cx.fact_of(DType::I32, [n.clone(), max])?,
        ])
    }
    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let [n, k, count] = *cx.shape(self.scores) else { return Err(OpError::NoKernel) };
        let rule = Rule {
            iou: f64::from(self.iou_threshold),
            score: f64::NEG_INFINITY,
            most: cx.out(2).shape[1],
            per_class: self.per_class_suppression,
        };
        let (boxes, scores) = (cx.f64(self.boxes), cx.f64(self.scores));
        let kept: Vec<Vec<usize>> = (0..n)
            .map(|i| {
                let coordinate = |b: usize, c: usize| boxes[(i * 4 + c) * count + b];
                rule.keep(count, k, coordinate, |b, class| scores[(i * k + class) * count + b])
            })
            .collect();
        let pick = |values: &[f64], width: usize, at: usize| {
            let (row, place) = (at / rule.most, at % rule.most);
            kept[row / width].get(place).map_or(0.0, |b| values[row * count + b])
        };
        Ok(smallvec![
            cx.out(0).fill_each(|at| pick(&boxes, 4, at)),
            cx.out(1).fill_each(|at| pick(&scores, k, at)),
            cx.out(2).fill_each(|at| kept[at / rule.most].get(at % rule.most).map_or(-1.0, |b| *b as f64)),
        ])
    }
}

fn check(cx: &InferCx<'_>, boxes: Value, want: &Shape, max_boxes: i64) -> Result<(), OpError> {
    if !cx.tensor("boxes", boxes)?.shape.may_equal(want) {
        return Err(cx.operand("boxes", boxes, format!("sizes {want}, by those of `scores`")));
    }
    if max_boxes < 1 {
        return Err(OpError::Value { param: "max_boxes", found: max_boxes.to_string(), want: "at least 1".into() });
    }
    Ok(())
}

/// Which boxes are kept.
struct Rule {
    iou: f64,
    score: f64,
    most: usize,
    per_class: bool,
}

impl Rule {
    /// The numbers of the boxes kept of `count` boxes with `classes` scores each, best first.
    fn keep(
        &self,
        count: usize,
        classes: usize,
        coordinate: impl Fn(usize, usize) -> f64,
        score: impl Fn(usize, usize) -> f64,
    ) -> Vec<usize> {
        let best: Vec<(usize, f64)> = (0..count)
            .map(|b| {
                (0..classes)
                    .map(|c| (c, score(b, c)))
                    .fold((0, f64::NEG_INFINITY), |x, y| if y.1 > x.1 { y } else { x })
            })
            .collect();
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by(|a, b| best[*b].1.total_cmp(&best[*a].1));
        let mut kept: Vec<usize> = vec![];
        for b in &order {
            let rival = |other: &&usize| !self.per_class || best[**other].0 == best[*b].0;
            if kept.len() < self.most
                && best[*b].1 >= self.score
                && kept.iter().filter(rival).all(|other| overlap(&coordinate, *b, *other) <= self.iou)
            {
                kept.push(*b);
            }
        }
        // Core ML avoids results without any box.
        if kept.is_empty() { order.into_iter().take(1).collect() } else { kept }
    }
}

/// The intersection of two boxes over their union; 0 where both are empty.
fn overlap(coordinate: &impl Fn(usize, usize) -> f64, a: usize, b: usize) -> f64 {
    let shared = |c: usize| {
        let end = |k: usize, side: f64| coordinate(k, c) + side * coordinate(k, c + 2) / 2.0;
        (end(a, 1.0).min(end(b, 1.0)) - end(a, -1.0).max(end(b, -1.0))).max(0.0)
    };
    let area = |k: usize| coordinate(k, 2) * coordinate(k, 3);
    let both = shared(0) * shared(1);
    let either = area(a) + area(b) - both;
    if either > 0.0 { both / either } else { 0.0 }
}
