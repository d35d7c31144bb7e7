//! Runs every `fixtures/ops/*.mil` on every backend, as its comments say:
//!
//! - `// run: @main([1.0, -2.0], f16[1] [2.0]) == [3.0]` calls a function and compares its outputs. A bare list takes
//!   the type of the input or output; a typed literal gives a shape where the program has a symbol. States are carried
//!   from line to line.
//! - `// fails: @main([0]): text` expects a run to fail with an error that contains the text.

use libtest_mimic::{Arguments, Failed, Trial};
use mlconv_mil::{text, verify};
use mlconv_runner::{Backend, Options, Reference, Session, States, cpu::Cpu};
use mlconv_tensor::{DType, Tensor, Type};
use std::{fs, path::Path, sync::Arc};

fn main() {
    let args = Arguments::from_args();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/ops");
    let mut trials = vec![];
    let mut files: Vec<_> = fs::read_dir(&folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    files.sort();
    for path in files.into_iter().filter(|p| p.extension().is_some_and(|e| e == "mil")) {
        let text: Arc<str> = fs::read_to_string(&path).expect("a readable fixture").into();
        let name = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
        for (backend, run) in [("reference", &Reference as &'static dyn Backend), ("cpu", &Cpu)] {
            let text = text.clone();
            trials.push(Trial::test(format!("{name}::{backend}"), move || check(&text, run)));
        }
    }
    libtest_mimic::run(&args, trials).exit();
}

fn check(source: &str, backend: &'static dyn Backend) -> Result<(), Failed> {
    let module = text::parse(source).map_err(|e| {
        let line = source[..e.at.start.min(source.len())].matches('\n').count() + 1;
        format!("line {line}: {e}")
    })?;
    // What is printed must read back to what was read.
    let printed = text::print(&module, text::Elide::Never);
    let again = text::parse(&printed).map_err(|e| format!("printed text does not parse: {e}\n{printed}"))?;
    let twice = text::print(&again, text::Elide::Never);
    if printed != twice {
        return Err(format!("printing is not stable:\n{printed}\n{twice}").into());
    }
    let module =
        verify::verify(module).map_err(|bad| bad.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
    let (mut states, mut lines) = (States::new(), 0);
    for line in source.lines() {
        if let Some(case) = line.trim().strip_prefix("// run: ") {
            lines += 1;
            let (call, want) = case.split_once(" == ").ok_or("wanted `==`")?;
            let (outputs, got) = call_function(&module, call, backend, &mut states)?;
            let got = got.map_err(|e| format!("{case}\n{e}"))?;
            let want = literals(want);
            if want.len() != got.len() {
                return Err(format!("{case}\n{} outputs, wanted {}", got.len(), want.len()).into());
            }
            for ((want, got), name) in want.iter().zip(&got).zip(outputs) {
                let shape: Vec<String> = got.shape().iter().map(ToString::to_string).collect();
                let want = typed(want, &format!("{}[{}]", got.dtype(), shape.join(", ")))?;
                compare(&want, got)
                    .map_err(|why| format!("{case}\noutput `{name}`: {why}\n got {got:?}\nwant {want:?}"))?;
            }
        } else if let Some(case) = line.trim().strip_prefix("// fails: ") {
            lines += 1;
            let (call, want) = case.split_once("): ").ok_or("wanted `):`")?;
            let (_, got) = call_function(&module, &format!("{call})"), backend, &mut states)?;
            match got {
                Ok(_) => return Err(format!("{case}\nit did not fail").into()),
                Err(e) if e.contains(want) => {}
                Err(e) => return Err(format!("{case}\nit failed with: {e}").into()),
            }
        }
    }
    if lines == 0 { Err("no `// run:` line".into()) } else { Ok(()) }
}

type Called = (Vec<String>, Result<Vec<Tensor>, String>);

fn call_function(
    module: &verify::Verified,
    call: &str,
    backend: &dyn Backend,
    states: &mut States,
) -> Result<Called, Failed> {
    let (name, args) = call.split_once('(').ok_or("wanted `@name(...)`")?;
    let f = module.function(name.trim_start_matches('@')).ok_or_else(|| format!("no function {name}"))?;
    let args = literals(args.strip_suffix(')').ok_or("wanted `)`")?);
    let tensors = f.inputs().iter().filter(|v| matches!(f.ty(**v), Type::Tensor(_)));
    let inputs: Vec<Option<Tensor>> =
        args.iter().zip(tensors).map(|(a, v)| typed(a, &f.ty(*v).to_string()).map(Some)).collect::<Result<_, _>>()?;
    let session = Session::new(module, f, backend, Options::default());
    let got = session.run(&inputs, states).map_err(|e| e.to_string());
    Ok((f.sig.outputs.iter().map(|p| p.name.to_string()).collect(), got))
}

/// Splits at the commas outside of brackets.
fn literals(text: &str) -> Vec<String> {
    let (mut out, mut depth) = (vec![String::new()], 0);
    for c in text.chars() {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            ',' if depth == 0 => {
                out.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(last) = out.last_mut() {
            last.push(c);
        }
    }
    out.retain(|s| !s.trim().is_empty());
    out
}

fn typed(literal: &str, ty: &str) -> Result<Tensor, Failed> {
    let literal = literal.trim();
    let has_type = literal.starts_with(|c: char| c.is_ascii_alphabetic())
        && !["inf", "NaN", "true", "false"].iter().any(|w| literal.starts_with(w));
    let full = if has_type { literal.to_owned() } else { format!("{ty} {literal}") };
    text::parse_tensor(&full).map_err(|e| format!("{full}: {e}").into())
}

/// Integers must be equal; floats to the precision of their type, with some room for a reduction's order.
fn compare(want: &Tensor, got: &Tensor) -> Result<(), String> {
    if want.dtype() != got.dtype() || want.shape() != got.shape() {
        return Err("type or shape differs".into());
    }
    if want.to_text() != got.to_text() {
        return Err("the text differs".into());
    }
    let relative = match got.dtype() {
        DType::F16 | DType::Bf16 => 2e-3,
        DType::F32 | DType::F64 => 2e-6,
        _ => 0.0,
    };
    let scale = want.to_f64().iter().filter(|v| v.is_finite()).fold(0f64, |m, v| m.max(v.abs()));
    for (i, (w, g)) in want.to_f64().into_iter().zip(got.to_f64()).enumerate() {
        let same = w == g || (w.is_nan() && g.is_nan());
        let near = (w - g).abs() <= relative * w.abs().max(scale * 0.1);
        if !same && !near {
            return Err(format!("element {i} is {g}, wanted {w}"));
        }
    }
    Ok(())
}
