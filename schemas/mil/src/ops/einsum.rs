//! Sums of products along named axes.

use crate::{
    ir::Value,
    schema::{EvalCx, Facts, InferCx, OpError, Semantics, Tensors},
};
use mlconv_derive::Op;
use mlconv_tensor::{Dim, Shape, strides};
use smallvec::smallvec;

/// The sum of the products of all operands over the axes that the result does not have.
///
/// Result: of the sizes that the operands have along the letters behind the arrow. An axis of size 1 repeats where
/// another operand is larger along that letter. A letter that an operand has twice means its diagonal.
///
/// Core ML documents two operands, and the equations `nchw,nwhu->nchu` and `chw,whr->chr` in any letters.
#[derive(Op, Clone, Debug, PartialEq)]
#[op(name = "einsum", since = Ios15)]
#[domain(T: Ios15 = F16 | F32)]
pub struct Einsum {
    /// The operands.
    #[operand(T)]
    pub values: Vec<Value>,
    /// A letter for each axis: those of the operands, separated by commas, then `->` and those of the result.
    #[attr]
    pub equation: String,
}

impl Semantics for Einsum {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Facts, OpError> {
        let equation = Equation::parse(&self.equation, self.values.len())?;
        let sizes = self.sizes(cx, &equation)?;
        let first = self.values.first().ok_or(OpError::Missing { param: "values" })?;
        let dtype = cx.tensor("values", *first)?.dtype;
        cx.result(dtype, equation.result.iter().filter_map(|letter| sizes[*letter].clone()).collect::<Shape>())
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Tensors, OpError> {
        let equation = Equation::parse(&self.equation, self.values.len())?;
        let out = cx.out(0);
        let values: Vec<Vec<f64>> = self.values.iter().map(|v| cx.f64(*v)).collect();
        let mut y = vec![0.0; out.count()];
        if y.is_empty() || values.iter().any(Vec::is_empty) {
            return Ok(smallvec![out.of(&y)]);
        }
        let mut sizes = vec![1; equation.letters.len()];
        let mut steps = vec![vec![0; sizes.len()]; values.len()];
        for ((v, axes), steps) in self.values.iter().zip(&equation.operands).zip(&mut steps) {
            for ((letter, size), step) in axes.iter().zip(cx.shape(*v)).zip(strides(cx.shape(*v))) {
                sizes[*letter] = sizes[*letter].max(*size);
                if *size != 1 {
                    steps[*letter] += step;
                }
            }
        }
        let mut result_steps = vec![0; sizes.len()];
        for (letter, step) in equation.result.iter().zip(strides(&out.shape)) {
            result_steps[*letter] = step;
        }
        // The last letter of the result is the innermost loop, where neighbours are read and written in a row.
        let inner = equation.result.last().copied();
        let row = inner.map_or(1, |letter| sizes[letter]);
        let outer: Vec<usize> = (0..sizes.len()).filter(|letter| Some(*letter) != inner).collect();
        let mut index = vec![0; sizes.len()];
        loop {
            let at = |steps: &[usize]| index.iter().zip(steps).map(|(i, s)| i * s).sum::<usize>();
            let starts: Vec<usize> = steps.iter().map(|s| at(s)).collect();
            let sums = &mut y[at(&result_steps)..][..row];
            for (i, sum) in sums.iter_mut().enumerate() {
                let factor = |k: usize| values[k][starts[k] + inner.map_or(0, |letter| i * steps[k][letter])];
                *sum += (0..values.len()).map(factor).product::<f64>();
            }
            // Counts up; all letters back at 0 means that all combinations were there.
            let step = outer.iter().rev().find(|letter| {
                index[**letter] = (index[**letter] + 1) % sizes[**letter];
                index[**letter] != 0
            });
            if step.is_none() {
                return Ok(smallvec![out.of(&y)]);
            }
        }
    }

    fn macs(&self, cx: &InferCx<'_>, _: &Shape) -> Option<Dim> {
        let equation = Equation::parse(&self.equation, self.values.len()).ok()?;
        let sizes = self.sizes(cx, &equation).ok()?;
        // Each further operand is one more product.
        let products = Dim::from(self.values.len().saturating_sub(1));
        Some(sizes.iter().flatten().fold(products, |n, d| n * d))
    }
}

impl Einsum {
    /// The size along each letter of the equation.
    fn sizes(&self, cx: &InferCx<'_>, equation: &Equation) -> Result<Vec<Option<Dim>>, OpError> {
        let mut sizes: Vec<Option<Dim>> = vec![None; equation.letters.len()];
        for (v, axes) in self.values.iter().zip(&equation.operands) {
            let ty = cx.ranked("values", *v, axes.len()..=axes.len())?;
            for (letter, size) in axes.iter().zip(ty.shape.iter()) {
                let merged = match &sizes[*letter] {
                    None => size.clone(),
                    // Sizes of one letter meet as they do when shapes are broadcast.
                    Some(known) => Shape::from([known.clone()]).broadcast(&[size.clone()].into())?[0].clone(),
                };
                sizes[*letter] = Some(merged);
            }
        }
        Ok(sizes)
    }
}

/// A parsed equation; letters are numbered in the order they come in.
struct Equation {
    letters: Vec<char>,
    operands: Vec<Vec<usize>>,
    result: Vec<usize>,
}

impl Equation {
    fn parse(text: &str, count: usize) -> Result<Self, OpError> {
        let wrong = |want: &'static str| OpError::value("equation", format!("{text:?}"), want);
        let (operands, result) = text.split_once("->").ok_or_else(|| wrong("`->` before the letters of the result"))?;
        let mut letters = vec![];
        let mut number = |c: char| match letters.iter().position(|l| *l == c) {
            Some(i) => i,
            None => {
                letters.push(c);
                letters.len() - 1
            }
        };
        let letter = |c: char| c.is_ascii_alphabetic();
        if !operands.chars().all(|c| letter(c) || c == ',') || !result.chars().all(letter) {
            return Err(wrong("letters, commas and one `->`"));
        }
        let operands: Vec<Vec<usize>> = operands.split(',').map(|o| o.chars().map(&mut number).collect()).collect();
        if operands.len() != count {
            return Err(wrong("as many groups of letters as there are operands"));
        }
        let mut sorted: Vec<char> = result.chars().collect();
        sorted.sort_unstable();
        if sorted.windows(2).any(|w| w[0] == w[1]) {
            return Err(wrong("no letter twice in the result"));
        }
        let result: Option<Vec<usize>> = result.chars().map(|c| letters.iter().position(|l| *l == c)).collect();
        let result = result.ok_or_else(|| wrong("no letter in the result that no operand has"))?;
        Ok(Self { letters, operands, result })
    }
}
