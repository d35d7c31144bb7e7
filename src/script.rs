//! TorchScript files, which do not say the shapes of their inputs: those of samples stand in.

use crate::{
    Diagnostic, Failure,
    arrays::Arrays,
    codes,
    feed::{self, means_port},
    model::{Format, Model, read, script_parameters},
};
use mlconv_source::{DimSpec, InputSpec, Request};
use mlconv_tensor::{DType, Tensor};
use std::path::Path;

/// Reads a TorchScript file with the shapes of samples. Where it does not take these, their first axis is one of rows.
pub(crate) fn read_sized(path: &Path, request: &Request, samples: &Arrays) -> Result<Model, Failure> {
    let whole = request_of(path, request, samples).map_err(|d| vec![d])?;
    let failure = match read(path, &whole) {
        Err(failure) if whole.inputs.len() > request.inputs.len() => failure,
        read => return read,
    };
    let with = |shape: &dyn Fn(&InputSpec) -> InputSpec| {
        let (asked, sized) = whole.inputs.split_at(request.inputs.len());
        let inputs: Vec<InputSpec> = asked.iter().cloned().chain(sized.iter().map(shape)).collect();
        let other = inputs != whole.inputs;
        other.then(|| read(path, &Request { inputs, ..whole.clone() }).ok()).flatten()
    };
    let rows = whole.inputs[request.inputs.len()..].iter().find_map(|s| s.dims.first());
    let row = |s: &InputSpec| {
        let has_rows = s.dims.len() > 1 && s.dims.first() == rows;
        InputSpec { dims: s.dims[usize::from(has_rows)..].to_vec(), ..s.clone() }
    };
    if let Some(model) = with(&row) {
        return Ok(model);
    }
    let pixels = |s: &InputSpec| pixels_of(s).unwrap_or_else(|| s.clone());
    let picture = whole.inputs.iter().find(|s| pixels_of(s).is_some()).and_then(|s| s.name.as_deref());
    let Some(name) = picture.filter(|_| with(&pixels).is_some()) else { return Err(failure) };
    let title = format!("input `{name}` is given a picture, and the model does not take bytes in the order of pixels");
    let channels = whole.inputs.iter().find_map(|s| pixels_of(s).map(|p| p.dims[1].clone()));
    let layout = if channels == Some(DimSpec::Known(1)) { "gray" } else { "rgb" };
    let d = Diagnostic::error(&codes::L0001, title).at(path.display().to_string());
    Err(vec![d.help(format!("say what the model does with pixels: `--image {name}={layout},scale=1/255`"))])
}

/// The shape that a picture has as a model takes it, where a sample is one by its shape and type.
fn pixels_of(spec: &InputSpec) -> Option<InputSpec> {
    let (height, width, channels) = match &spec.dims[..] {
        [height, width] => (height, width, &DimSpec::Known(1)),
        [height, width, channels] | [_, height, width, channels] => (height, width, channels),
        _ => return None,
    };
    let is_one = spec.dtype == Some(DType::U8) && [1, 3].map(DimSpec::Known).contains(channels);
    let dims = [DimSpec::Known(1), channels.clone(), height.clone(), width.clone()].to_vec();
    is_one.then(|| InputSpec { dims, dtype: Some(DType::F32), ..spec.clone() })
}

/// Says that a model has the first sizes of samples, which may as well count them.
pub(crate) fn fixed_by_samples(model: &Model, request: &Request, samples: &Arrays) -> Vec<Diagnostic> {
    let Some(f) = model.module.functions.first().filter(|_| model.format == Format::TorchScript) else { return vec![] };
    let said = |port| request.inputs.iter().any(|s| s.name.as_deref().is_none_or(|n| means_port(n, port)));
    let fixed = feed::tensor_inputs(f).zip(feed::assigned(f, samples)).filter_map(|((port, ty), at)| {
        let (_, sample) = samples.get_index(at?)?;
        let (first, rest) = sample.shape().split_first().filter(|(first, _)| **first != 1 && !said(port))?;
        let shape = |first: usize| [&[first], rest].concat().iter().map(usize::to_string).collect::<Vec<_>>().join("x");
        let (one, all) = (shape(1), shape(*first));
        let title = format!("input `{}` is fixed to the shape of its sample, {all}", port.name);
        let help = format!(
            "if these are {first} samples, say `--input {0}={one}`; if it is one, `--input {0}={all}`",
            port.name
        );
        let is_so = ty.shape.known().as_deref() == Some(sample.shape());
        is_so.then(|| Diagnostic::warning(&codes::F0107, title).help(help))
    });
    fixed.collect()
}

/// The numbers among samples, for parameters of a TorchScript file that are no tensors, by name.
pub(crate) fn numbers(path: &Path, samples: &Arrays) -> Result<Vec<(String, Tensor)>, Diagnostic> {
    Ok(request_of(path, &Request::default(), samples)?.numbers)
}

/// What is asked of a TorchScript file, with the shapes of samples for inputs of which nothing is said, and their numbers
/// for what is no tensor: by name, or in order where no sample bears the name of a parameter.
fn request_of(path: &Path, request: &Request, samples: &Arrays) -> Result<Request, Diagnostic> {
    let mut request = request.clone();
    let params = script_parameters(path)?;
    let by_name = params.iter().any(|p| samples.iter().any(|(name, _)| feed::means(name, &p.name)));
    for (i, p) in params.iter().enumerate() {
        if request.inputs.iter().any(|s| s.name.as_deref().is_none_or(|n| n == p.name)) {
            continue;
        }
        let named = || samples.iter().find(|(name, _)| feed::means(name, &p.name));
        let Some((_, t)) = (if by_name { named() } else { samples.iter().nth(i) }) else { continue };
        if p.is_tensor {
            let dims = t.shape().iter().map(|n| DimSpec::Known(*n as i64)).collect();
            request.inputs.push(InputSpec { name: Some(p.name.clone()), dims, dtype: Some(t.dtype()) });
        } else {
            request.numbers.push((p.name.clone(), t.clone()));
        }
    }
    Ok(request)
}
