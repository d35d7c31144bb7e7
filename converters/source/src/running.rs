//! Running results along an axis, of any operation that may be grouped at will.

use crate::{Lower, LowerError};
use mlconv_mil::ir::Value;

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// What comes of a later part and an earlier one, each of the same tensors.
pub type Combine<'f, 'a> = &'f dyn Fn(&mut Lower<'a>, &[Value], &[Value]) -> Result<Vec<Value>>;

impl<'a> Lower<'a> {
    /// What `combine` makes of all elements up to each one along an axis, or from each one on where `reverse` is set.
    /// Each round doubles the number of elements that a result is of, so the size of the axis must be known.
    pub fn running(
        &mut self,
        values: Vec<Value>,
        axis: usize,
        reverse: bool,
        combine: Combine<'_, 'a>,
    ) -> Result<Vec<Value>> {
        let first = *values.first().ok_or(LowerError::Poisoned)?;
        let size = self.shape(first)?.get(axis).and_then(mlconv_tensor::Dim::as_known);
        let size = size.ok_or_else(|| LowerError::NotFixed { what: "the running result".into() })?;
        let mut now = values;
        let mut by = 1;
        while by < size {
            let (mut far, mut near, mut kept) = (vec![], vec![], vec![]);
            for v in &now {
                let (low, high) = (self.slice(*v, axis, 0, Some(size - by))?, self.slice(*v, axis, by, None)?);
                let (start, end) = if reverse { (size - by, None) } else { (0, Some(by)) };
                kept.push(self.slice(*v, axis, start, end)?);
                let (later, earlier) = if reverse { (low, high) } else { (high, low) };
                far.push(later);
                near.push(earlier);
            }
            let joined = combine(self, &far, &near)?;
            now = vec![];
            for (kept, new) in kept.into_iter().zip(joined) {
                now.push(self.concat(if reverse { vec![new, kept] } else { vec![kept, new] }, axis as i64)?);
            }
            by *= 2;
        }
        Ok(now)
    }
}
