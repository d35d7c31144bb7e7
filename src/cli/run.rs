//! `mlconv run`

use super::{
    CommandResult, Outcome,
    args::{BackendName, EmulateName, Import, is_array, seed, target_unapplied},
    files::Pictures,
    interface::Asked,
    terminal::Terminal,
    write::check_file,
};
use crate::{
    Diagnostic, arrays,
    arrays::Arrays,
    codes, feed,
    interface::probabilities,
    made_up, model,
    names::listed,
    parity,
    report::{self, number, table},
};
use mlconv_mil::{
    ir::{Function, Module, Value},
    text::print_op,
    verify::verify,
};
use mlconv_runner::{Observer, Session, States};
use mlconv_tensor::Tensor;
use serde_json::json;
use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The model: an .mlpackage, or anything that can be imported
    model: PathBuf,
    /// Inputs: `FILE.npz`, `NAME=FILE.npy` or `FILE.npy`, which is called FILE, or a picture, PNG or JPEG, in the place of the
    /// .npy file, which `--input` takes as well; matched by name, or in order where no name matches; random ones of the
    /// declared types where there are none
    #[arg(long, value_name = "FILE")]
    inputs: Option<String>,
    #[command(flatten)]
    pictures: Pictures,
    #[command(flatten)]
    import: Import,
    #[command(flatten)]
    interface: Asked,
    /// Where to write the outputs; a .npz file that exists is replaced, any other file is not
    #[arg(long, value_name = "FILE.npz")]
    outputs: Option<PathBuf>,
    /// What runs the model
    #[arg(long, value_enum, default_value_t = BackendName::Cpu)]
    backend: BackendName,
    /// Arithmetic to imitate
    #[arg(long, value_enum)]
    emulate: Option<EmulateName>,
    /// The function to run, of a package that has several
    #[arg(long, value_name = "NAME")]
    function: Option<String>,
    /// Contents of states before the run
    #[arg(long, value_name = "FILE.npz")]
    state_in: Option<PathBuf>,
    /// Where to write the contents of states after the run
    #[arg(long, value_name = "FILE.npz")]
    state_out: Option<PathBuf>,
    /// Seed of random inputs
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true, value_parser = seed)]
    seed: u64,
}

pub(crate) fn run(args: &Args, terminal: &Terminal) -> CommandResult {
    // `--input NAME=FILE.npy` gives an array, `--input NAME=SHAPE` a shape.
    let (files, shapes): (Vec<String>, Vec<String>) = args.import.input.iter().cloned().partition(|i| is_array(i));
    for target in args.outputs.iter().chain(&args.state_out) {
        check_target(args, target, &files).map_err(|d| vec![d])?;
        check_file(target)?;
    }
    let request = Import { input: shapes, ..args.import.clone() }.request()?;
    let interface = args.interface.interface()?;
    let (given, notes) = args.pictures.read(&args.inputs.iter().cloned().chain(files).collect::<Vec<_>>())?;
    terminal.warn(&notes);
    let is_given = !given.is_empty() || args.inputs.is_some();
    let mut read = {
        let _step = terminal.step("importing");
        model::read_sized(&args.model, &request, &interface.shaped(&given, None))?
    };
    terminal.warn(&read.warnings);
    terminal.warn(&interface.apply(&mut read.module)?.notes);
    let unapplied = target_unapplied(&args.import, &read);
    let module = verify(read.module)?;
    let f = model::function(&module, args.function.as_deref()).map_err(|d| vec![d])?;
    let named = |d: Diagnostic| vec![model::in_function(&module, f, d)];
    let inputs = if is_given {
        let given = feed::given_inputs(f, &given).map_err(named)?;
        terminal.warn(&given.notes);
        given.inputs
    } else {
        made_up::random_inputs(&module, f, args.seed).map_err(named)?
    };
    let mut states = read_states(args, f).map_err(|all| all.into_iter().flat_map(named).collect::<Vec<_>>())?;
    let arithmetic = args.backend.arithmetic(args.emulate);
    let options = arithmetic.options(&module);
    let mut watch = NonFinite::default();
    let outputs = {
        let _step = terminal.step("running");
        let session = Session::new(&module, f, args.backend.backend()?, options);
        let mut observe = |v: Value, t: &Tensor| watch.see(f, v, t);
        let observe: Option<Observer<'_>> = if args.emulate.is_some() { Some(&mut observe) } else { None };
        session.run_observed(&inputs, &mut states, observe).map_err(|e| named(parity::run_error(&e)))?
    };
    terminal.warn(watch.diagnostic(&module, f).as_slice());
    let named: Arrays = f.sig.outputs.iter().map(|p| p.name.to_string()).zip(outputs).collect();
    if let Some(path) = &args.outputs {
        arrays::write_npz(path, &named).map_err(|d| vec![d])?;
    }
    if let Some(path) = &args.state_out {
        let states: Arrays = states.iter().map(|(n, t)| (n.to_string(), t.clone())).collect();
        arrays::write_npz(path, &states).map_err(|d| vec![d])?;
    }
    show(args, f, &named, terminal);
    terminal.insist(unapplied.as_slice());
    Ok(if unapplied.is_none() { Outcome::Done } else { Outcome::Differs })
}

/// Refuses to write over what is no file of arrays, or what is read.
fn check_target(args: &Args, target: &Path, files: &[String]) -> Result<(), Diagnostic> {
    let place = target.display().to_string();
    if target.extension().is_some_and(|e| e.eq_ignore_ascii_case("npy")) {
        let d = Diagnostic::error(&codes::L0001, "a .npy file holds one array, and an archive of arrays is written");
        return Err(d.at(place).help(format!("write to `{}`", target.with_extension("npz").display())));
    }
    let Ok(real) = target.canonicalize() else { return Ok(()) };
    let paths = args.inputs.iter().chain(files).map(|f| Path::new(f.rsplit_once('=').map_or(f.as_str(), |(_, p)| p)));
    // A state may be carried on in its own file.
    let state = args.state_in.as_deref().filter(|_| args.state_out.as_deref() != Some(target));
    let mut read = paths.chain([args.model.as_path()]).chain(state);
    if read.any(|p| p.canonicalize().is_ok_and(|p| p == real)) {
        return Err(Diagnostic::error(&codes::L0001, "the file to write is one that is read").at(place));
    }
    let is_npz = |p: &Path| p.extension().is_some_and(|e| e == "npz");
    if real.is_file() && !is_npz(target) && !is_npz(&real) {
        let d = Diagnostic::error(&codes::X0002, "the file exists, and only a .npz file is replaced").at(place);
        return Err(d.help("remove it, or write to a file that ends in `.npz`"));
    }
    Ok(())
}

/// Finds the first op that gives what is not finite.
#[derive(Default)]
struct NonFinite {
    /// Values that are not finite, and all that follows from them.
    odd: HashSet<Value>,
    first: Option<Value>,
}

impl NonFinite {
    fn see(&mut self, f: &Function, v: Value, t: &Tensor) {
        if !t.dtype().is_float() || t.to_f64().iter().all(|x| x.is_finite()) {
            return;
        }
        let mut inherited = false;
        if let Some(id) = f.def_op(v) {
            // An infinity that the program states is no surprise; one that rounding makes of a number is.
            inherited = f.constant(v).is_some_and(|c| c.to_f64().iter().any(|x| !x.is_finite()));
            f.op_data(id).op.visit_operands(&mut |o| inherited |= self.odd.contains(&o));
        }
        self.odd.insert(v);
        if !inherited && self.first.is_none() {
            self.first = Some(v);
        }
    }

    fn diagnostic(&self, module: &Module, f: &Function) -> Option<Diagnostic> {
        let v = self.first?;
        let Some(id) = f.def_op(v) else {
            let title = format!("`{}` is not finite in half precision before any op is run", f.value(v).hint);
            return Some(Diagnostic::warning(&codes::N0005, title));
        };
        let data = f.op_data(id);
        let title = format!("`{}` is the first op that gives what is not finite", data.op.name());
        let line = print_op(f, id);
        let mut d = Diagnostic::warning(&codes::N0005, title).snippet(line.clone(), 0..line.len());
        d.place.extend(data.origin.and_then(|o| module.origins.sources(o).first().map(ToString::to_string)));
        Some(d.help(format!("convert with `--keep-fp32 {}`, or with `--precision fp32`", data.op.name())))
    }
}

fn read_states(args: &Args, f: &Function) -> Result<States, Vec<Diagnostic>> {
    let Some(path) = &args.state_in else { return Ok(States::new()) };
    let mut out = States::new();
    for (name, t) in arrays::read_npz(path).map_err(|d| vec![d])? {
        let Some((port, ty)) = feed::states(f).find(|(p, _)| feed::means_port(&name, p)) else {
            let d = Diagnostic::error(&codes::N0003, format!("no state is called `{name}`"));
            let help = match feed::states(f).count() {
                0 => "the function has no states".to_owned(),
                _ => format!("the states are {}", listed(feed::states(f).map(|(p, _)| &*p.name))),
            };
            return Err(vec![d.help(help)]);
        };
        out.insert(port.name.clone(), feed::fit(&port.name, ty, &t).map_err(|d| vec![d])?);
    }
    Ok(out)
}

/// Classes of a classifier's probabilities that are shown to a person.
const BEST: usize = 3;

fn show(args: &Args, f: &Function, outputs: &Arrays, terminal: &Terminal) {
    let classes = |name: &str, t: &Tensor| probabilities(f, name, t);
    let summary = |t: &Tensor| {
        let values = t.to_f64();
        let finite = || values.iter().copied().filter(|v| v.is_finite());
        let (min, max) = (finite().fold(f64::INFINITY, f64::min), finite().fold(f64::NEG_INFINITY, f64::max));
        let mean = finite().sum::<f64>() / finite().count().max(1) as f64;
        (min, max, mean, values.len() - finite().count())
    };
    let ty = |t: &Tensor| {
        let dims: Vec<String> = t.shape().iter().map(ToString::to_string).collect();
        format!("{}[{}]", t.dtype(), dims.join(", "))
    };
    if terminal.is_json() {
        let one = |(name, t): (&String, &Tensor)| {
            let (min, max, mean, not_finite) = summary(t);
            let (text, classes) = (t.to_text(), classes(name, t));
            let classes = classes.map(|all| all.into_iter().map(|(l, p)| json!([l, p])).collect::<Vec<_>>());
            json!({"name": name, "dtype": t.dtype().name(), "shape": t.shape(), "text": text, "classes": classes,
                "min": min.is_finite().then_some(min), "max": max.is_finite().then_some(max), "mean": (not_finite < t.count()).then_some(mean), "not_finite": not_finite})
        };
        terminal.json(&json!({
            "version": report::VERSION,
            "command": "run",
            "outputs": outputs.iter().map(one).collect::<Vec<_>>(),
            "file": args.outputs,
        }));
        return;
    }
    let row = |(name, t): (&String, &Tensor)| {
        let (min, max, mean, not_finite) = summary(t);
        if let Some(classes) = classes(name, t) {
            let best: Vec<String> = classes.iter().take(BEST).map(|(l, p)| format!("{l} {}", number(*p))).collect();
            let more = if classes.len() > BEST { ", …" } else { "" };
            return vec![name.clone(), format!("{} classes", classes.len()), best.join(", ") + more];
        }
        let values = match t.to_text() {
            Some(text) => format!("{text:?}"),
            None if t.shape().is_empty() => number(min),
            None if t.count() == 0 => "empty".to_owned(),
            None if not_finite == t.count() => return vec![name.clone(), ty(t), "no element is finite".to_owned()],
            None => format!("min {} max {} mean {}", number(min), number(max), number(mean)),
        };
        let odd = if not_finite > 0 { format!(", {not_finite} not finite") } else { String::new() };
        vec![name.clone(), ty(t), values + &odd]
    };
    let lines = table(&outputs.iter().map(row).collect::<Vec<_>>());
    match &args.outputs {
        Some(path) => {
            terminal.say(lines.trim_end());
            terminal.result(&path.display().to_string());
        }
        None => terminal.result(&lines),
    }
}
