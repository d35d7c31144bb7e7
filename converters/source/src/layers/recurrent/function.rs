//! The functions of gates.

use super::Result;
use crate::{Lower, LowerError};
use mlconv_mil::{
    ir::Value,
    ops::{self, Activation},
};

/// A function with its numbers, `alpha` before `beta`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Function {
    /// `alpha * x + beta`.
    Affine(f32, f32),
    /// `x`, and below zero `alpha * (e^x - 1)`.
    Elu(f32),
    /// `alpha * x + beta` between 0 and 1.
    HardSigmoid(f32, f32),
    /// `x`, and below zero `alpha * x`.
    LeakyRelu(f32),
    /// `x`, and below zero 0.
    Relu,
    /// `alpha * tanh(beta * x)`.
    ScaledTanh(f32, f32),
    /// The logistic function.
    Sigmoid,
    /// `log(1 + e^x)`.
    Softplus,
    /// `x / (1 + |x|)`.
    Softsign,
    /// The hyperbolic tangent.
    Tanh,
    /// `x`, and below `alpha` 0.
    ThresholdedRelu(f32),
}

impl Function {
    /// The name by which Core ML's recurrent layers know it.
    pub(super) fn native(self) -> Option<Activation> {
        match self {
            Self::Affine(1.0, 0.0) => Some(Activation::Linear),
            Self::HardSigmoid(0.2, 0.5) => Some(Activation::HardSigmoid),
            Self::Relu => Some(Activation::Relu),
            Self::ScaledTanh(1.0, 1.0) | Self::Tanh => Some(Activation::Tanh),
            Self::Sigmoid => Some(Activation::Sigmoid),
            _ => None,
        }
    }

    /// The function of `x`.
    pub fn apply(self, n: &mut Lower<'_>, x: Value) -> Result<Value, LowerError> {
        match self {
            Self::Affine(alpha, beta) => n.op(ops::LinearActivation { x, alpha, beta }),
            Self::Elu(alpha) => n.op(ops::Elu { x, alpha }),
            Self::HardSigmoid(alpha, beta) => n.op(ops::SigmoidHard { x, alpha, beta }),
            Self::LeakyRelu(alpha) => n.op(ops::LeakyRelu { x, alpha }),
            Self::Relu => n.op(ops::Relu { x }),
            Self::ScaledTanh(alpha, beta) => n.op(ops::ScaledTanh { x, alpha, beta }),
            Self::Sigmoid => n.op(ops::Sigmoid { x }),
            Self::Softplus => n.op(ops::Softplus { x }),
            Self::Softsign => n.op(ops::Softsign { x }),
            Self::Tanh => n.op(ops::Tanh { x }),
            Self::ThresholdedRelu(alpha) => n.op(ops::ThresholdedRelu { x, alpha }),
        }
    }
}
