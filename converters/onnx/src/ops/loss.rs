//! Losses.

use crate::LATEST;
use mlconv_mil::ir::Value;
use mlconv_source::{
    Entry, Lower, LowerError,
    layers::loss::{Classes, Reduction, likelihood, log_softmax},
};

rows! {
    "NegativeLogLikelihoodLoss" 12..=LATEST => |n| {
        let x = n.input(0)?;
        let loss = loss(n, x)?;
        n.done(loss)
    };
    "SoftmaxCrossEntropyLoss" 12..=LATEST => |n| {
        let x = n.input(0)?;
        let x = log_softmax(n, x, 1)?;
        let loss = loss(n, x)?;
        Ok(if n.wants(1) { vec![Entry::Value(loss), Entry::Value(x)] } else { vec![Entry::Value(loss)] })
    };
}

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// The negated logarithms of probabilities `x`, `[n, c, *d]`, at the classes that input 1 says, weighted and reduced.
fn loss(n: &mut Lower<'_>, x: Value) -> Result<Value> {
    let (target, weight) = (n.input(1)?, n.optional(2)?);
    let ignored = n.int("ignore_index")?;
    let reduction = match n.str_or("reduction", "mean")? {
        "none" => Reduction::None,
        "sum" => Reduction::Sum,
        "mean" => Reduction::Mean,
        _ => return n.bad_attr("reduction", "`none`, `sum` or `mean`"),
    };
    if ignored.is_some_and(|i| i32::try_from(i).is_err()) {
        return n.bad_attr("ignore_index", "a 32-bit integer");
    }
    Ok(likelihood(n, x, Classes { target, weight, ignored }, reduction)?.0)
}
