//! Activation functions that MIL does not have.

use crate::{Lower, LowerError};
use mlconv_mil::{ir::Value, ops};

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// `max(0, x) + min(0, alpha * (e^(x / alpha) - 1))`, of an `alpha` other than 0.
pub fn celu(n: &mut Lower<'_>, x: Value, alpha: f32) -> Result<Value> {
    let scaled = n.scale(x, 1.0 / f64::from(alpha))?;
    if alpha > 0.0 {
        let y = n.op(ops::Elu { x: scaled, alpha: 1.0 })?;
        let y = n.scale(y, alpha.into())?;
        return Ok(y);
    }
    let grown = n.exp(scaled)?;
    let grown = n.add_number(grown, -1.0)?;
    let grown = n.scale(grown, alpha.into())?;
    let zero = n.scalar_like(x, 0.0)?;
    let (above, below) = (n.maximum(x, zero)?, n.minimum(grown, zero)?);
    n.add(above, below)
}

/// `x` between 0 and itself, as a line from -3 to 3 says.
pub fn hard_swish(n: &mut Lower<'_>, x: Value) -> Result<Value> {
    let gate = n.op(ops::SigmoidHard { x, alpha: 1.0 / 6.0, beta: 0.5 })?;
    n.mul(x, gate)
}

/// `x * tanh(log(1 + e^x))`.
pub fn mish(n: &mut Lower<'_>, x: Value) -> Result<Value> {
    let softplus = n.op(ops::Softplus { x })?;
    let gate = n.op(ops::Tanh { x: softplus })?;
    n.mul(x, gate)
}

/// `x`, and below zero `x * slope`, which is broadcast.
pub fn prelu(n: &mut Lower<'_>, x: Value, slope: Value) -> Result<Value> {
    if let Some(alpha) = channel_slopes(n, x, slope)? {
        return n.op(ops::Prelu { x, alpha });
    }
    let zero = n.scalar_like(x, 0.0)?;
    let (above, below) = (n.maximum(x, zero)?, n.minimum(x, zero)?);
    let below = n.mul(below, slope)?;
    n.add(above, below)
}

/// The slopes as one number for each channel of an image, where they are constant and have that form.
fn channel_slopes(n: &mut Lower<'_>, x: Value, slope: Value) -> Result<Option<Value>, LowerError> {
    let Some(slopes) = n.const_of(slope).cloned() else { return Ok(None) };
    let shape = n.shape(x)?;
    if shape.rank() != 4 || !n.dtype(x)?.is_float() {
        return Ok(None);
    }
    let Some(channels) = shape[1].as_usize() else { return Ok(None) };
    let form: Vec<usize> = slopes.shape().iter().copied().skip_while(|d| *d == 1).collect();
    if form != [channels, 1, 1] {
        return Ok(None);
    }
    n.add_given(slopes.reshape(&[channels])).map(Some)
}

/// `x` less `bias` above `lambd`, and plus `bias` below `-lambd`; between them 0.
pub fn shrink(n: &mut Lower<'_>, x: Value, [bias, lambd]: [f64; 2]) -> Result<Value> {
    let dtype = n.dtype(x)?;
    let x = n.as_float(x)?;
    let (low, high, zero) = (n.scalar_like(x, -lambd)?, n.scalar_like(x, lambd)?, n.scalar_like(x, 0.0)?);
    let (below, above) = (n.less(x, low)?, n.less(high, x)?);
    let (raised, lowered) = (n.add_number(x, bias)?, n.add_number(x, -bias)?);
    let y = n.select(above, lowered, zero)?;
    let y = n.select(below, raised, y)?;
    n.cast(y, dtype)
}
