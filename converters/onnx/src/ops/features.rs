//! Operators of `ai.onnx.ml` that prepare features, and linear models: what computes on tensors of numbers.

use crate::LATEST;
use mlconv_mil::{ir::Value, ops};
use mlconv_source::{Lower, LowerError, Lowered, Size};
use mlconv_tensor::{DType, Tensor};

rows! {
    #["ai.onnx.ml"] "ArrayFeatureExtractor" 1..=LATEST => array_feature_extractor;
    #["ai.onnx.ml"] "Binarizer" 1..=LATEST => binarizer;
    #["ai.onnx.ml"] "FeatureVectorizer" 1..=LATEST => feature_vectorizer;
    #["ai.onnx.ml"] "Imputer" 1..=LATEST => imputer;
    #["ai.onnx.ml"] "LinearRegressor" 1..=LATEST => linear_regressor;
    #["ai.onnx.ml"] "Normalizer" 1..=LATEST => normalizer;
    #["ai.onnx.ml"] "Scaler" 1..=LATEST => scaler;
}

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// Columns of the last axis; of a vector, as a matrix of one row.
fn array_feature_extractor(n: &mut Lower<'_>) -> Lowered {
    let (x, at) = (n.input(0)?, n.input(1)?);
    let x = if n.rank(x)? == 1 { n.expand_dims(x, &[0])? } else { x };
    let indices = n.reshape_to(at, &[-1])?;
    n.emit(ops::Gather { x, indices, axis: -1, batch_dims: 0, validate_indices: false })
}

fn binarizer(n: &mut Lower<'_>) -> Lowered {
    let (x, threshold) = (n.input(0)?, n.float_or("threshold", 0.0)?);
    let dtype = n.dtype(x)?;
    // A threshold between two integers is none of them.
    let x = n.as_float(x)?;
    let y = n.scalar_like(x, f64::from(threshold))?;
    let above = n.op(ops::Greater { x, y })?;
    let y = n.cast(above, dtype)?;
    n.done(y)
}

/// All inputs as floats, `[n, width]` each, one beside the other.
fn feature_vectorizer(n: &mut Lower<'_>) -> Lowered {
    let inputs = n.inputs_from(0)?;
    let widths = n.ints("inputdimensions")?;
    if widths.as_ref().is_some_and(|w| w.len() != inputs.len()) {
        return n.bad_attr("inputdimensions", format!("{} numbers", inputs.len()));
    }
    let mut parts = vec![];
    for (i, x) in inputs.into_iter().enumerate() {
        let x = n.cast(x, DType::F32)?;
        let x = if n.rank(x)? == 1 { n.expand_dims(x, &[0])? } else { x };
        let last = n.axis(x, -1)?;
        let known = n.shape(x)?.get(last).and_then(mlconv_tensor::Dim::as_known);
        let width = widths.as_ref().and_then(|w| w.get(i).copied());
        if width.zip(known).is_some_and(|(width, known)| width != known) {
            return n
                .bad_attr("inputdimensions", format!("the widths of the inputs, of which input {i} is {}", n.ty(x)?));
        }
        parts.push(x);
    }
    if parts.is_empty() {
        return Err(LowerError::MissingInput { index: 0 });
    }
    let y = n.concat(parts, -1)?;
    n.done(y)
}

/// What is missing, by a number or as NaN, becomes another number, which each column may have of its own.
fn imputer(n: &mut Lower<'_>) -> Lowered {
    let x = n.input(0)?;
    let (floats, ints) = (n.floats("imputed_value_floats")?, n.ints("imputed_value_int64s")?);
    let (missing, missing_int) = (n.float_or("replaced_value_float", 0.0)?, n.int_or("replaced_value_int64", 0)?);
    let of_floats = n.dtype(x)?.is_float();
    let (values, missing) = match (of_floats, floats, ints) {
        (true, Some(v), _) => (v.into_iter().map(f64::from).collect::<Vec<f64>>(), f64::from(missing)),
        (false, _, Some(v)) => {
            let wide = v.iter().chain([&missing_int]).find(|i| i32::try_from(**i).is_err());
            if let Some(i) = wide {
                return n.bad_attr("imputed_value_int64s", format!("numbers of 32 bits, unlike {i}"));
            }
            (v.into_iter().map(|i| i as f64).collect(), missing_int as f64)
        }
        (true, None, _) => return Err(LowerError::MissingAttr { name: "imputed_value_floats" }),
        (false, _, None) => return Err(LowerError::MissingAttr { name: "imputed_value_int64s" }),
    };
    let shape = if values.len() == 1 { vec![] } else { vec![values.len()] };
    let imputed = n.const_like(x, &shape, &values)?;
    let cond = if missing.is_nan() {
        n.op(ops::NotEqual { x, y: x })?
    } else {
        let y = n.scalar_like(x, missing)?;
        n.equal(x, y)?
    };
    n.emit(ops::Select { cond, a: imputed, b: x })
}

/// `(x - offset) * scale`, each a number for all columns or one for each.
fn scaler(n: &mut Lower<'_>) -> Lowered {
    let x = n.input(0)?;
    let x = n.cast(x, DType::F32)?;
    let constant = |n: &mut Lower<'_>, name: &'static str, default: f32| -> Result<Value> {
        let values: Vec<f64> = n.floats(name)?.unwrap_or_else(|| vec![default]).into_iter().map(f64::from).collect();
        let shape = if values.len() == 1 { vec![] } else { vec![values.len()] };
        n.const_like(x, &shape, &values)
    };
    let (offset, scale) = (constant(n, "offset", 0.0)?, constant(n, "scale", 1.0)?);
    let y = n.sub(x, offset)?;
    n.emit(ops::Mul { x: y, y: scale })
}

fn normalizer(n: &mut Lower<'_>) -> Lowered {
    let x = n.input(0)?;
    let x = n.cast(x, DType::F32)?;
    let axes = Some(vec![-1]);
    let keep_dims = true;
    let norm = match n.str_or("norm", "MAX")? {
        // The greatest number, not the greatest size.
        "MAX" => n.op(ops::ReduceMax { x, axes, keep_dims })?,
        "L1" => n.op(ops::ReduceL1Norm { x, axes, keep_dims })?,
        "L2" => n.op(ops::ReduceL2Norm { x, axes, keep_dims })?,
        _ => return n.bad_attr("norm", "`MAX`, `L1` or `L2`"),
    };
    // Rows of zeros stay as they are.
    let (zero, one) = (n.scalar_like(norm, 0.0)?, n.scalar_like(norm, 1.0)?);
    let nothing = n.equal(norm, zero)?;
    let by = n.select(nothing, one, norm)?;
    n.emit(ops::RealDiv { x, y: by })
}

/// `x * coefficients + intercepts`, `[n, targets]`.
fn linear_regressor(n: &mut Lower<'_>) -> Lowered {
    let x = n.input(0)?;
    let targets = n.int_or("targets", 1)?;
    let coefficients = n.floats("coefficients")?.ok_or(LowerError::MissingAttr { name: "coefficients" })?;
    let intercepts = n.floats("intercepts")?;
    if n.str_or("post_transform", "NONE")? != "NONE" {
        return n.bad_attr("post_transform", "`NONE`");
    }
    let targets = usize::try_from(targets).ok().filter(|t| *t > 0 && coefficients.len().is_multiple_of(*t));
    let Some(targets) = targets else { return n.bad_attr("targets", "a divisor of the number of coefficients") };
    if intercepts.as_ref().is_some_and(|i| i.len() != targets) {
        return n.bad_attr("intercepts", format!("{targets} numbers"));
    }
    let x = n.cast(x, DType::F32)?;
    let width = coefficients.len() / targets;
    let x = if n.rank(x)? == 1 { n.reshape(x, &[Size::Known(1), Size::Rest])? } else { x };
    let weights = n.add_const(Tensor::from_vec(&[targets, width], coefficients))?;
    let y = n.matmul(x, weights, false, true)?;
    match intercepts {
        Some(intercepts) => {
            let b = n.add_const(Tensor::from_vec(&[targets], intercepts))?;
            n.emit(ops::Add { x: y, y: b })
        }
        None => n.done(y),
    }
}
