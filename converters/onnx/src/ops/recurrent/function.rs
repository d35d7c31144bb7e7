//! The functions of gates, by name.

use super::Result;
use mlconv_source::{Lower, layers::recurrent::Function};

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
