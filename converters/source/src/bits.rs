//! The bits of integers, by arithmetic: Core ML has no ops for them.

use crate::{Lower, LowerError};
use mlconv_mil::{ir::Value, ops};
use mlconv_tensor::DType;

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// The greatest power of two that 32 bits hold beside a sign.
const MOST: i64 = 30;

impl Lower<'_> {
    /// Integers wrapped into a smaller type; as they are where they are known to fit.
    pub fn wrapped(&mut self, y: Value, to: DType) -> Result<Value> {
        let (bits, signed) = (to.bits(), matches!(to, DType::I8 | DType::I16));
        let range = 1i64 << bits;
        let low = if signed { -(range / 2) } else { 0 };
        if self.known_ints(y).is_some_and(|v| v.iter().all(|i| (low..low + range).contains(i))) {
            return Ok(y);
        }
        let modulus = self.const_int(range)?;
        let y = if signed { self.add_number(y, -low as f64)? } else { y };
        let y = self.op(ops::Mod { x: y, y: modulus })?;
        if signed { self.add_number(y, low as f64) } else { Ok(y) }
    }

    /// `x` shifted. By a negative number of bits, or by as many as the source's integers have, `bits`, everything is
    /// shifted out. Where the result is of a smaller type, it is to be wrapped into that.
    pub fn shifted(&mut self, x: Value, by: Value, left: bool, bits: i64) -> Result<Value> {
        let two = self.const_int(2)?;
        let steps = if self.known_ints(by).is_some_and(|by| by.iter().all(|b| (0..=MOST).contains(b))) {
            vec![by]
        } else {
            // A shift by any number of bits, in two steps that 32 bits hold.
            let (zero, last, most) = (self.const_int(0)?, self.const_int(bits - 1)?, self.const_int(MOST)?);
            let (negative, beyond) = (self.less(by, zero)?, self.less(last, by)?);
            let out = self.op(ops::LogicalOr { x: negative, y: beyond })?;
            let all = self.const_int(2 * MOST)?;
            let by = self.select(out, all, by)?;
            let first = self.minimum(by, most)?;
            let second = self.sub(by, first)?;
            vec![first, self.minimum(second, most)?]
        };
        let mut y = x;
        for by in steps {
            let factor = self.op(ops::Pow { x: two, y: by })?;
            y = if left { self.mul(y, factor)? } else { self.op(ops::FloorDiv { x: y, y: factor })? };
        }
        Ok(y)
    }

    /// The bits that are set in both, of integers of so many bits and perhaps a sign.
    pub fn common_bits(&mut self, x: Value, y: Value, bits: u32, signed: bool) -> Result<Value> {
        let n = self;
        let (least, zero) = (n.const_int(-(1i64 << bits))?, n.const_int(0)?);
        let powers: Vec<i64> = (0..bits).map(|i| 1i64 << i).collect();
        let (powers, two) = (n.const_ints(&powers)?, n.const_int(2)?);
        let digits = |n: &mut Lower<'_>, v: Value| -> Result<(Value, Value)> {
            let negative = n.less(v, zero)?;
            let sign = n.select(negative, least, zero)?;
            let number = if signed { n.sub(v, sign)? } else { v };
            // The bits take an axis of their own.
            let number = n.expand_dims(number, &[-1])?;
            let shifted = n.op(ops::FloorDiv { x: number, y: powers })?;
            Ok((n.op(ops::Mod { x: shifted, y: two })?, negative))
        };
        let ((x_bits, x_negative), (y_bits, y_negative)) = (digits(n, x)?, digits(n, y)?);
        let bits = n.mul(x_bits, y_bits)?;
        let values = n.mul(bits, powers)?;
        let mut both = n.op(ops::ReduceSum { x: values, axes: Some(vec![-1]), keep_dims: false })?;
        if signed {
            let negative = n.and(x_negative, y_negative)?;
            let sign = n.select(negative, least, zero)?;
            both = n.add(both, sign)?;
        }
        Ok(both)
    }
}
