//! Inputs that may be left out, names, and element types.

use super::fault;
use crate::{
    Diagnostic, codes,
    feed::means_port,
    names::{listed, nearest},
};
use mlconv_coreml::is_identifier;
use mlconv_mil::{
    ir::{Feature, Function, Place, Port, Value},
    ops::Cast,
    schema::{Op, Opset},
    text::Namer,
};
use mlconv_tensor::{DType, Tensor, TensorType, Type};
use serde::{Deserialize, Serialize};

/// The element type of inputs and outputs that are arrays of floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Floats {
    /// Half precision.
    Fp16,
    /// Single precision.
    Fp32,
}

/// That what is asked of `option` cannot be.
pub(super) fn refused(option: &str, why: &str) -> Diagnostic {
    Diagnostic::error(&codes::L0001, format!("`{option}`: {why}"))
}

/// Where the input is that a user calls `name`; the only one where it is left out.
pub(super) fn input(f: &Function, option: &str, name: Option<&str>) -> Result<usize, Diagnostic> {
    let (inputs, outputs) = (&f.sig.inputs, &f.sig.outputs);
    position(option, name, ("input", inputs), ("output", outputs))
}

/// Where the output is that a user calls `name`; the only one where it is left out.
pub(super) fn output(f: &Function, option: &str, name: Option<&str>) -> Result<usize, Diagnostic> {
    let (inputs, outputs) = (&f.sig.inputs, &f.sig.outputs);
    position(option, name, ("output", outputs), ("input", inputs))
}

fn position(
    option: &str,
    name: Option<&str>,
    (what, ports): (&str, &[Port]),
    (other, others): (&str, &[Port]),
) -> Result<usize, Diagnostic> {
    let names = || ports.iter().map(|p| &*p.name);
    let Some(name) = name else {
        if ports.len() == 1 {
            return Ok(0);
        }
        let d = refused(option, &format!("the model has {} {what}s, and it is not said which is meant", ports.len()));
        return Err(d.help(format!("its {what}s are {}", listed(names()))));
    };
    if let Some(at) = ports.iter().position(|p| means_port(name, p)) {
        return Ok(at);
    }
    if others.iter().any(|p| means_port(name, p)) {
        let d = refused(option, &format!("`{name}` is an {other} of the model, and an {what} is wanted"));
        return Err(d.help(format!("its {what}s are {}", listed(names()))));
    }
    let d = refused(option, &format!("the model has no {what} `{name}`"));
    Err(match nearest(name, names()) {
        Some(near) => d.help(format!("did you mean `{near}`? its {what}s are {}", listed(names()))),
        None => d.help(format!("its {what}s are {}", listed(names()))),
    })
}

/// Inserts an op; its first result.
pub(super) fn insert(f: &mut Function, at: Place, hint: &str, op: impl Op) -> Result<Value, Diagnostic> {
    f.insert(at, &[hint], Box::new(op), None).map(|v| v[0]).map_err(fault)
}

/// The place before all ops.
pub(super) fn begin(f: &Function) -> Place {
    f.ops().next().map_or(Place::End(f.body()), Place::Before)
}

/// Lets an input be left out: all of its elements are `value` then. Which input it is.
pub(super) fn optional(f: &mut Function, name: &str, value: f64) -> Result<usize, Diagnostic> {
    let option = format!("--optional {name}");
    let at = input(f, &option, Some(name))?;
    let (port, v) = (&f.sig.inputs[at], f.inputs()[at]);
    let Some(ty) = f.ty(v).tensor() else {
        return Err(refused(&option, "it is a state, and a state is never given"));
    };
    if let Feature::Image(_) = port.feature {
        return Err(refused(&option, "it is an image, for which Core ML has no default"));
    }
    if !port.shapes.is_empty() {
        let d = refused(&option, "its sizes are a choice, and Core ML has no defaults for such inputs");
        let size = |axis: usize| {
            let sizes = || port.shapes.iter().filter_map(|s| s.get(axis).copied());
            let (least, most) = (sizes().min().unwrap_or(1), sizes().max().unwrap_or(1));
            if least == most { most.to_string() } else { format!("[{least}..{most}]") }
        };
        let shape: Vec<String> = (0..ty.shape.rank()).map(size).collect();
        return Err(d.help(format!("give a range instead, such as `--input {name}={}`", shape.join("x"))));
    }
    let held = match ty.dtype {
        DType::Bool => value == 0.0 || value == 1.0,
        // 8 and 16 bits are 32 bits at the interface, of which a program takes the lower ones.
        d if d.is_int() => value.fract() == 0.0 && Tensor::splat(d, &[], value).to_f64() == [value],
        d => Tensor::splat(d, &[], value).to_f64().iter().all(|x| x.is_finite()),
    };
    if !held {
        return Err(refused(&option, &format!("{value} is no value of the input, which is {ty}")));
    }
    f.sig.inputs[at].default = Some(value);
    Ok(at)
}

/// Core ML wants one input that must be given.
pub(super) fn check_one_is_needed(f: &Function) -> Result<(), Diagnostic> {
    let mut inputs = f.inputs().iter().zip(&f.sig.inputs).filter(|(v, _)| f.ty(**v).tensor().is_some());
    if inputs.any(|(_, port)| port.default.is_none()) {
        return Ok(());
    }
    let d = refused("--optional", "every input may be left out, and Core ML wants one that must be given");
    Err(d.help("leave the option out for one of them"))
}

/// Gives inputs and outputs other names in the package, all at once: they may be exchanged.
pub(super) fn rename(f: &mut Function, all: &[(String, String)]) -> Vec<Diagnostic> {
    let found: Vec<_> = all.iter().map(|(old, new)| renamed(f, old, new)).collect();
    let mut bad = vec![];
    let mut taken: Vec<usize> = vec![];
    for ((old, new), at) in all.iter().zip(found) {
        match at {
            Err(d) => bad.push(d),
            Ok(at) if taken.contains(&at) => {
                bad.push(refused(&format!("--rename {old}={new}"), "it is renamed twice"));
            }
            Ok(at) => {
                taken.push(at);
                if let Some(port) = f.sig.inputs.iter_mut().chain(&mut f.sig.outputs).nth(at) {
                    port.packaged = Some(new.as_str().into());
                }
            }
        }
    }
    bad
}

/// Which input, or else output, is to get another name.
fn renamed(f: &Function, old: &str, new: &str) -> Result<usize, Diagnostic> {
    let option = format!("--rename {old}={new}");
    if !is_identifier(new) {
        let d = refused(&option, &format!("Core ML does not take the name `{new}`"));
        let legal = Namer::legal(new);
        return Err(if is_identifier(&legal) { d.help(format!("`{legal}` would do")) } else { d });
    }
    let ports = || f.sig.inputs.iter().chain(&f.sig.outputs);
    let at = ports().position(|p| *p.name == *old).or_else(|| ports().position(|p| means_port(old, p)));
    at.ok_or_else(|| {
        let names = || ports().map(|p| &*p.name);
        let d = refused(&option, &format!("the model has no input or output `{old}`"));
        let all = format!("there are {}", listed(names()));
        match nearest(old, names()) {
            Some(near) => d.help(format!("did you mean `{near}`? {all}")),
            None => d.help(all),
        }
    })
}

/// Another input or output may have the new name already.
pub(super) fn check_renamed(f: &Function, old: &str, new: &str) -> Result<(), Diagnostic> {
    let packaged = |p: &Port| p.packaged.as_deref().map_or_else(|| Namer::legal(&p.name), str::to_owned);
    let called = f.sig.inputs.iter().chain(&f.sig.outputs).filter(|p| packaged(p) == new);
    let names: Vec<&str> = called.map(|p| &*p.name).collect();
    if names.len() < 2 {
        return Ok(());
    }
    let d = refused(&format!("--rename {old}={new}"), &format!("{} would have the same name", listed(names)));
    Err(d.help("choose another name, or rename the other one as well"))
}

impl Floats {
    fn types(self) -> (DType, DType) {
        match self {
            Self::Fp16 => (DType::F32, DType::F16),
            Self::Fp32 => (DType::F16, DType::F32),
        }
    }

    fn check(self, f: &Function) -> Result<(), Diagnostic> {
        if self == Self::Fp32 || f.opset >= Opset::Ios16 {
            return Ok(());
        }
        let d = refused("--io-precision fp16", &format!("{} has no such inputs and outputs", f.opset));
        Err(d.help("convert with `--target ios16` or a newer one"))
    }

    /// Gives inputs the type, and casts them back for whoever reads them.
    pub(super) fn of_inputs(self, f: &mut Function) -> Result<(), Diagnostic> {
        self.check(f)?;
        let (from, to) = self.types();
        for (i, v) in f.inputs().to_vec().into_iter().enumerate() {
            let Type::Tensor(ty) = f.ty(v).clone() else { continue };
            if ty.dtype != from || f.sig.inputs[i].feature != Feature::Tensor {
                continue;
            }
            let hint = f.sig.inputs[i].name.to_string();
            let default = f.sig.inputs[i].default.map(|x| (x, Tensor::splat(to, &[], x).to_f64()[0]));
            if let Some((value, _)) = default.filter(|(_, held)| !held.is_finite()) {
                return Err(refused(
                    "--io-precision",
                    &format!("{value}, the default of `{hint}`, is no value of {to}"),
                ));
            }
            let old = f.retype_input(v, TensorType::new(to, ty.shape));
            let at = begin(f);
            let back = insert(f, at, &hint, Cast { x: v, dtype: from })?;
            f.replace_uses(old, back);
        }
        Ok(())
    }

    /// Casts outputs to the type.
    pub(super) fn of_outputs(self, f: &mut Function) -> Result<(), Diagnostic> {
        let (from, to) = self.types();
        let mut outputs: Vec<(Port, Value)> = f.sig.outputs.iter().cloned().zip(f.outputs().iter().copied()).collect();
        for (port, v) in &mut outputs {
            if port.feature == Feature::Tensor && f.ty(*v).tensor().is_some_and(|t| t.dtype == from) {
                let end = super::classes::before_classify(f);
                *v = insert(f, end, &port.name, Cast { x: *v, dtype: to })?;
            }
        }
        f.set_outputs(outputs);
        Ok(())
    }
}
