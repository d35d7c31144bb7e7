//! Arithmetic that is done at once with numbers, or written into the program for values.

use crate::{Lower, LowerError};
use mlconv_mil::{ir::Value, ops};
use mlconv_tensor::DType;

type Result<T> = std::result::Result<T, LowerError>;

/// What formulas are written in: vectors, and numbers that go with each of their elements.
pub(super) trait Calc {
    /// A vector or number.
    type V: Clone;
    fn number(&mut self, x: f64) -> Result<Self::V>;
    fn add(&mut self, x: &Self::V, y: &Self::V) -> Result<Self::V>;
    fn sub(&mut self, x: &Self::V, y: &Self::V) -> Result<Self::V>;
    fn mul(&mut self, x: &Self::V, y: &Self::V) -> Result<Self::V>;
    fn div(&mut self, x: &Self::V, y: &Self::V) -> Result<Self::V>;
    fn min(&mut self, x: &Self::V, y: &Self::V) -> Result<Self::V>;
    fn max(&mut self, x: &Self::V, y: &Self::V) -> Result<Self::V>;
    fn floor(&mut self, x: &Self::V) -> Result<Self::V>;
    fn ceil(&mut self, x: &Self::V) -> Result<Self::V>;
    /// `yes` where `x < y`, else `no`.
    fn where_less(&mut self, x: &Self::V, y: &Self::V, yes: &Self::V, no: &Self::V) -> Result<Self::V>;

    fn plus(&mut self, x: &Self::V, number: f64) -> Result<Self::V> {
        let number = self.number(number)?;
        self.add(x, &number)
    }

    fn times(&mut self, x: &Self::V, number: f64) -> Result<Self::V> {
        let number = self.number(number)?;
        self.mul(x, &number)
    }

    fn clamp(&mut self, x: &Self::V, low: &Self::V, high: &Self::V) -> Result<Self::V> {
        let x = self.max(x, low)?;
        self.min(&x, high)
    }
}

/// Numbers, in double precision.
pub(super) struct Plain;

fn zip(x: &[f64], y: &[f64], f: impl Fn(f64, f64) -> f64) -> Result<Vec<f64>> {
    let count = if x.len() == 1 { y.len() } else { x.len() };
    let at = |v: &[f64], i: usize| v.get(if v.len() == 1 { 0 } else { i }).copied().unwrap_or(f64::NAN);
    Ok((0..count).map(|i| f(at(x, i), at(y, i))).collect())
}

impl Calc for Plain {
    type V = Vec<f64>;
    fn number(&mut self, x: f64) -> Result<Vec<f64>> {
        Ok(vec![x])
    }
    fn add(&mut self, x: &Vec<f64>, y: &Vec<f64>) -> Result<Vec<f64>> {
        zip(x, y, |x, y| x + y)
    }
    fn sub(&mut self, x: &Vec<f64>, y: &Vec<f64>) -> Result<Vec<f64>> {
        zip(x, y, |x, y| x - y)
    }
    fn mul(&mut self, x: &Vec<f64>, y: &Vec<f64>) -> Result<Vec<f64>> {
        zip(x, y, |x, y| x * y)
    }
    fn div(&mut self, x: &Vec<f64>, y: &Vec<f64>) -> Result<Vec<f64>> {
        zip(x, y, |x, y| x / y)
    }
    fn min(&mut self, x: &Vec<f64>, y: &Vec<f64>) -> Result<Vec<f64>> {
        zip(x, y, f64::min)
    }
    fn max(&mut self, x: &Vec<f64>, y: &Vec<f64>) -> Result<Vec<f64>> {
        zip(x, y, f64::max)
    }
    fn floor(&mut self, x: &Vec<f64>) -> Result<Vec<f64>> {
        Ok(x.iter().map(|x| x.floor()).collect())
    }
    fn ceil(&mut self, x: &Vec<f64>) -> Result<Vec<f64>> {
        Ok(x.iter().map(|x| x.ceil()).collect())
    }
    fn where_less(&mut self, x: &Vec<f64>, y: &Vec<f64>, yes: &Vec<f64>, no: &Vec<f64>) -> Result<Vec<f64>> {
        let less = zip(x, y, |x, y| f64::from(u8::from(x < y)))?;
        let (yes, no) = (zip(&less, yes, |_, v| v)?, zip(&less, no, |_, v| v)?);
        let count = yes.len().max(no.len());
        let at = |v: &[f64], i: usize| v.get(if v.len() == 1 { 0 } else { i }).copied().unwrap_or(f64::NAN);
        Ok((0..count).map(|i| if at(&less, i) == 1.0 { at(&yes, i) } else { at(&no, i) }).collect())
    }
}

impl Calc for Lower<'_> {
    type V = Value;
    fn number(&mut self, x: f64) -> Result<Value> {
        self.const_scalar(DType::F32, x)
    }
    fn add(&mut self, x: &Value, y: &Value) -> Result<Value> {
        Lower::add(self, *x, *y)
    }
    fn sub(&mut self, x: &Value, y: &Value) -> Result<Value> {
        Lower::sub(self, *x, *y)
    }
    fn mul(&mut self, x: &Value, y: &Value) -> Result<Value> {
        Lower::mul(self, *x, *y)
    }
    fn div(&mut self, x: &Value, y: &Value) -> Result<Value> {
        Lower::div(self, *x, *y)
    }
    fn min(&mut self, x: &Value, y: &Value) -> Result<Value> {
        self.minimum(*x, *y)
    }
    fn max(&mut self, x: &Value, y: &Value) -> Result<Value> {
        self.maximum(*x, *y)
    }
    fn floor(&mut self, x: &Value) -> Result<Value> {
        self.op(ops::Floor { x: *x })
    }
    fn ceil(&mut self, x: &Value) -> Result<Value> {
        self.op(ops::Ceil { x: *x })
    }
    fn where_less(&mut self, x: &Value, y: &Value, yes: &Value, no: &Value) -> Result<Value> {
        let less = self.less(*x, *y)?;
        self.select(less, *yes, *no)
    }
}
