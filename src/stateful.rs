//! Pairs of an input and an output that become states: what a call returns, the next one finds.

use crate::{Diagnostic, Failure, codes, feed::means_port, interface::own_text, names::listed};
use mlconv_mil::{
    ir::{Function, InsertError, Module, Place, Port, Value},
    ops,
    schema::Opset,
};
use mlconv_source::Request;
use mlconv_tensor::{DType, TensorType, Type};

/// The key of a package's metadata under which stand the pairs that were made states, as a JSON array of pairs of names.
pub(crate) const KEY: &str = "com.github.mlconv.states";

/// The pairs that were made states when a package was written.
pub(crate) fn pairs(package: &Module) -> Vec<(String, String)> {
    let text = package.functions.first().and_then(|f| own_text(package, f, KEY));
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// Whether any function keeps anything from call to call.
pub(crate) fn has_states(module: &Module) -> bool {
    module.functions.iter().any(remembers)
}

/// Whether the function keeps anything from call to call.
pub(crate) fn remembers(f: &Function) -> bool {
    f.inputs().iter().any(|v| matches!(f.ty(*v), Type::State(_)))
}

/// Makes the pairs that `request` names states of every function.
pub(crate) fn hold(module: &mut Module, request: &Request) -> Result<Vec<Diagnostic>, Failure> {
    if request.states.is_empty() {
        return Ok(vec![]);
    }
    let refused = |d: Diagnostic| vec![d];
    if request.no_state {
        let d = Diagnostic::error(&codes::L0001, "`--state` and `--no-state` contradict each other");
        return Err(refused(d.help("leave one of them out")));
    }
    let (mut failures, mut notes) = (vec![], vec![]);
    for f in &mut module.functions {
        if f.opset < Opset::Ios18 {
            let d = Diagnostic::error(&codes::L0001, format!("`--state`: there are no states in {}", f.opset));
            return Err(refused(d.help("convert with `--target ios18` or a newer one")));
        }
        for (input, output) in &request.states {
            match pair(f, input, output) {
                Ok(Found { input, output, ty, wanted }) => {
                    if wanted.dtype != DType::F16 {
                        notes.push(f.sig.inputs[input].name.to_string());
                    }
                    made(f, input, output, &ty)
                        .map_err(|e| refused(Diagnostic::error(&codes::P0001, e.to_string())))?;
                }
                Err(d) => failures.push(d),
            }
        }
    }
    if !failures.is_empty() {
        return Err(failures);
    }
    if let Ok(text) = serde_json::to_string(&request.states) {
        module.meta.user.insert(KEY.to_owned(), text);
    }
    Ok(mlconv_source::rounded_states(&notes).into_iter().collect())
}

/// A pair, by positions.
struct Found {
    input: usize,
    output: usize,
    /// The type of the state.
    ty: TensorType,
    /// The type of the input.
    wanted: TensorType,
}

fn pair(f: &Function, input: &str, output: &str) -> Result<Found, Diagnostic> {
    let text = format!("`--state {input}={output}`");
    let refused = |why: String| Diagnostic::error(&codes::L0001, format!("{text}: {why}"));
    let position = |ports: &[Port], name: &str, what: &str| {
        ports.iter().position(|p| means_port(name, p)).ok_or_else(|| {
            let d = refused(format!("the model has no {what} `{name}`"));
            d.help(format!("its {what}s are {}", listed(ports.iter().map(|p| &*p.name))))
        })
    };
    let at = position(&f.sig.inputs, input, "input")?;
    let to = position(&f.sig.outputs, output, "output")?;
    let Some(wanted) = f.ty(f.inputs()[at]).tensor().cloned() else {
        return Err(refused(format!("`{input}` is a state already")));
    };
    let made = f.ty(f.outputs()[to]).tensor().cloned();
    let made =
        made.filter(|made| made.dtype.is_float() == wanted.dtype.is_float() && made.shape.may_equal(&wanted.shape));
    if made.is_none() {
        let d = refused(format!("the input is {wanted}, the output {}", f.ty(f.outputs()[to])));
        return Err(d.help("what becomes of a state is of its own type and shape"));
    }
    if !wanted.dtype.is_float() {
        return Err(refused(format!("the input is {wanted}, and Core ML's states hold floats")));
    }
    if wanted.shape.known().is_none() {
        let d = refused(format!("the input is {wanted}, and states have fixed sizes"));
        return Err(d.help(format!("fix them with `--input {input}=…`")));
    }
    if wanted.shape.rank() == 0 {
        return Err(refused("Core ML has no states without axes".to_owned()));
    }
    Ok(Found { input: at, output: to, ty: TensorType::new(DType::F16, wanted.shape.clone()), wanted })
}

fn made(f: &mut Function, input: usize, output: usize, ty: &TensorType) -> Result<(), InsertError> {
    let body = f.body();
    let old = f.inputs()[input];
    let wanted = f.ty(old).tensor().map_or(DType::F32, |t| t.dtype);
    let port = Port { shapes: vec![], default: None, ..f.sig.inputs[input].clone() };
    let state = f.add_input(port, Type::State(ty.clone()));
    let first = f.ops_in(body).next();
    let begin = first.map_or(Place::End(body), Place::Before);
    let mut now = one(f, begin, Box::new(ops::ReadState { input: state }))?;
    if wanted != DType::F16 {
        now = one(f, begin, Box::new(ops::Cast { x: now, dtype: wanted }))?;
    }
    f.replace_uses(old, now);
    f.remove_input(old);
    let mut outputs: Vec<(Port, Value)> = f.sig.outputs.iter().cloned().zip(f.outputs().iter().copied()).collect();
    let (_, mut data) = outputs.remove(output);
    f.set_outputs(outputs);
    if f.ty(data).tensor().is_some_and(|t| t.dtype != DType::F16) {
        data = one(f, Place::End(body), Box::new(ops::Cast { x: data, dtype: DType::F16 }))?;
    }
    f.insert(Place::End(body), &[], Box::new(ops::WriteState { input: state, data }), None)?;
    Ok(())
}

fn one(f: &mut Function, at: Place, op: Box<dyn mlconv_mil::schema::Op>) -> Result<Value, InsertError> {
    let results = f.insert(at, &["state"], op, None)?;
    Ok(results[0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlconv_mil::{text::parse, verify::verify};

    const SUM: &str = "func @main(%x: f32[2], %s: f32[2], %n: i32[1], %w: f32[w]) ios18 {\n  %t = add(x=%x, y=%s)\n  \
                       %u = relu(x=%w)\n  return %t, %n, %u\n}\n";

    fn held(states: &[(&str, &str)], change: impl Fn(&mut Request)) -> Result<(Module, Vec<Diagnostic>), String> {
        let mut module = parse(SUM).unwrap_or_else(|e| panic!("{e}"));
        let states = states.iter().map(|(i, o)| ((*i).to_owned(), (*o).to_owned())).collect();
        let mut request = Request { states, ..Request::default() };
        change(&mut request);
        let notes = hold(&mut module, &request).map_err(|all| all[0].title.clone())?;
        verify(module.clone()).unwrap_or_else(|e| panic!("{e:?}"));
        Ok((module, notes))
    }

    #[test]
    fn a_pair_becomes_a_state() {
        let (module, notes) = held(&[("s", "t")], |_| {}).expect("a pair");
        let f = &module.functions[0];
        let names = |ports: &[Port]| ports.iter().map(|p| p.name.to_string()).collect::<Vec<_>>();
        assert_eq!(
            (names(&f.sig.inputs), names(&f.sig.outputs)),
            (vec!["x".into(), "n".into(), "w".into(), "s".into()], vec!["n".into(), "u".into()])
        );
        assert!(has_states(&module) && notes.len() == 1);
        assert_eq!(pairs(&module), [("s".to_owned(), "t".to_owned())]);
    }

    #[test]
    fn what_is_no_pair_is_refused() {
        for (pair, why) in [
            (("q", "t"), "the model has no input `q`"),
            (("s", "q"), "the model has no output `q`"),
            (("n", "n"), "Core ML's states hold floats"),
            (("s", "n"), "the output i32[1]"),
            (("w", "u"), "states have fixed sizes"),
        ] {
            let said = held(&[pair], |_| {}).expect_err("no pair");
            assert!(said.contains(why), "{said}");
        }
        assert!(held(&[("s", "t"), ("s", "t")], |_| {}).is_err(), "one output for two");
        assert!(held(&[("s", "t")], |r| r.no_state = true).expect_err("both").contains("contradict"));
    }
}
