//! Epsilons of normalisations that half precision does not hold.

use super::half;
use mlconv_mil::{
    ops::{BatchNorm, InstanceNorm, L2Norm, LayerNorm},
    schema::Op,
};
use std::any::Any;

/// The least number above zero that half precision holds.
pub(super) const LEAST: f32 = half::LEAST as f32;

/// A normalisation whose epsilon would become zero, with the least epsilon there is instead, and the epsilon it had.
///
/// It keeps a deviation of zero from being divided by, which any positive number does as well. Where deviations are so
/// small that the epsilons make a difference, half precision has hardly any digits of them.
pub(super) fn raised(op: &dyn Op) -> Option<(Box<dyn Op>, f32)> {
    raised_of(op, |op: &mut BatchNorm| &mut op.epsilon)
        .or_else(|| raised_of(op, |op: &mut InstanceNorm| &mut op.epsilon))
        .or_else(|| raised_of(op, |op: &mut L2Norm| &mut op.epsilon))
        .or_else(|| raised_of(op, |op: &mut LayerNorm| &mut op.epsilon))
}

fn raised_of<T: Op + Clone>(op: &dyn Op, epsilon: impl Fn(&mut T) -> &mut f32) -> Option<(Box<dyn Op>, f32)> {
    let mut op = (op as &dyn Any).downcast_ref::<T>()?.clone();
    let had = *epsilon(&mut op);
    if had <= 0.0 || had >= LEAST {
        return None;
    }
    *epsilon(&mut op) = LEAST;
    Some((Box::new(op), had))
}
