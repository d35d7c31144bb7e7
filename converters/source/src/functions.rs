//! Functions that MIL does not have, made of those that it has.

use crate::{Lower, LowerError};
use mlconv_mil::{ir::Value, ops};

type Result<T, E = LowerError> = std::result::Result<T, E>;

impl Lower<'_> {
    /// `log(x + sqrt(x^2 - 1))`, the root in two factors, which do not overflow.
    pub fn acosh(&mut self, x: Value) -> Result<Value> {
        let (below, above) = (self.add_number(x, -1.0)?, self.add_number(x, 1.0)?);
        let (below, above) = (self.sqrt(below)?, self.sqrt(above)?);
        let root = self.mul(below, above)?;
        let sum = self.add(x, root)?;
        self.log(sum)
    }

    /// `sign(x) * log(|x| + sqrt(x^2 + 1))`, of which the logarithm loses precision near 0; there
    /// `atanh(x / sqrt(x^2 + 1))`, the same number, does not.
    pub fn asinh(&mut self, x: Value) -> Result<Value> {
        let size = self.abs(x)?;
        let square = self.mul(x, x)?;
        let square = self.add_number(square, 1.0)?;
        let root = self.sqrt(square)?;
        let ratio = self.div(x, root)?;
        let near = self.op(ops::Atanh { x: ratio })?;
        let sum = self.add(size, root)?;
        let far = self.log(sum)?;
        let sign = self.op(ops::Sign { x })?;
        let far = self.mul(far, sign)?;
        let limit = self.scalar_like(x, 0.5)?;
        let small = self.less(size, limit)?;
        self.select(small, near, far)
    }

    /// `log(e^a + e^b)`.
    pub fn log_of_sum(&mut self, a: Value, b: Value) -> Result<Value> {
        let (most, apart) = (self.maximum(a, b)?, self.sub(a, b)?);
        let apart = self.abs(apart)?;
        let less = self.scale(apart, -1.0)?;
        let rest = self.exp(less)?;
        let rest = self.add_number(rest, 1.0)?;
        let rest = self.log(rest)?;
        let sum = self.add(most, rest)?;
        // Infinities have no difference.
        let same = self.equal(a, b)?;
        let twice = self.add_number(a, std::f64::consts::LN_2)?;
        self.select(same, twice, sum)
    }
}
