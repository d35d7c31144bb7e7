//! The functions of gates.

use super::Result;
use mlconv_mil::{
    ir::Value,
    ops::{self, Activation},
};
use mlconv_source::{Lower, LowerError};

/// A function with its numbers, `alpha` before `beta`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Function {
    Affine(f32, f32),
    Elu(f32),
    HardSigmoid(f32, f32),
    LeakyRelu(f32),
    Relu,
    ScaledTanh(f32, f32),
    Sigmoid,
    Softplus,
    Softsign,
    Tanh,
    ThresholdedRelu(f32),
}

/// The functions of each of `directions`; `default` are those of one direction where the node names none.
pub(super) fn read(n: &Lower<'_>, default: &[Function], directions: usize) -> Result<Vec<Vec<Function>>> {
    let names = n.strs("activations")?.filter(|names| !names.is_empty());
    let mut numbers = [n.floats("activation_alpha")?, n.floats("activation_beta")?].map(Option::unwrap_or_default);
    let Some(names) = names else { return Ok(vec![default.to_vec(); directions]) };
    // Each function takes the next of the numbers that are left, whatever its place.
    let [alphas, betas] = &mut numbers;
    alphas.reverse();
    betas.reverse();
    let mut functions = vec![];
    for name in &names {
        let Some(function) = function(name, alphas, betas) else {
            return n.bad_attr("activations", "functions that recurrent layers have");
        };
        functions.push(function);
    }
    if functions.len() == default.len() {
        return Ok(vec![functions; directions]);
    }
    if functions.len() != default.len() * directions {
        return n.bad_attr("activations", format!("{} functions per direction", default.len()));
    }
    Ok(functions.chunks(default.len()).map(<[Function]>::to_vec).collect())
}

/// The function called `name`, with these numbers in place of its own.
pub(super) fn named(name: &str, [alpha, beta]: [Option<f32>; 2]) -> Option<Function> {
    function(name, &mut alpha.into_iter().collect(), &mut beta.into_iter().collect())
}

fn function(name: &str, alphas: &mut Vec<f32>, betas: &mut Vec<f32>) -> Option<Function> {
    let mut alpha = |default| alphas.pop().unwrap_or(default);
    let mut beta = |default| betas.pop().unwrap_or(default);
    Some(match name.to_ascii_lowercase().as_str() {
        "affine" => Function::Affine(alpha(1.0), beta(0.0)),
        "elu" => Function::Elu(alpha(1.0)),
        "hardsigmoid" => Function::HardSigmoid(alpha(0.2), beta(0.5)),
        "leakyrelu" => Function::LeakyRelu(alpha(0.01)),
        "relu" => Function::Relu,
        "scaledtanh" => Function::ScaledTanh(alpha(1.0), beta(1.0)),
        "sigmoid" => Function::Sigmoid,
        "softplus" => Function::Softplus,
        "softsign" => Function::Softsign,
        "tanh" => Function::Tanh,
        "thresholdedrelu" => Function::ThresholdedRelu(alpha(1.0)),
        _ => return None,
    })
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

    pub(super) fn apply(self, n: &mut Lower<'_>, x: Value) -> Result<Value, LowerError> {
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
