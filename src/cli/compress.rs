//! `mlconv compress`, and the options that `convert` shares with it.

use super::{
    CommandResult, Outcome,
    args::{Import, Inputs, Rewrite},
    files::Pictures,
    interface::Asked,
    recipe::RecipeFile,
    terminal::Terminal,
    write::{Write, check_file, check_target, summary},
};
use crate::{
    Diagnostic, Failure,
    arrays::Arrays,
    codes,
    compare::Tolerance,
    compress::{Config, DEFAULT_MEMORY, DEFAULT_THRESHOLD, Goal, PRESETS, Plan, Request, Rule, activations, preset},
    convert::{self, Job, Weights},
    model::{self, Format},
    report::compression_text,
    witness::Chosen,
};
use clap::ValueEnum;
use mlconv_passes::{
    Pattern,
    compress::{
        Scheme,
        activations::{Form, Method},
    },
};
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The model: an .mlpackage, or a model that can be imported
    model: PathBuf,
    /// Where to write the package
    #[arg(short, value_name = "OUT.mlpackage", required_unless_present = "dry_run")]
    out: Option<PathBuf>,
    #[command(flatten)]
    recipe: RecipeFile,
    #[command(flatten)]
    import: Import,
    #[command(flatten)]
    rewrite: Rewrite,
    #[command(flatten)]
    interface: Asked,
    #[command(flatten)]
    compression: Compression,
    /// Decode compressed weights instead
    #[arg(long, conflicts_with_all = ["Compression", "dry_run"])]
    decompress: bool,
    /// Measure only: sizes, bits per weight and the error of each weight; nothing is written
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    inputs: Inputs,
    /// Skip the run of the package that otherwise follows
    #[arg(long, conflicts_with = "labels")]
    no_verify: bool,
    /// Replace the output if it exists
    #[arg(long)]
    force: bool,
}

const HOW: &str = "say how to compress with `--preset`, such as `--preset int8`, with `--tensor REGEX=SCHEME`, \
                   `--target-bpw 4.5`, `--activations int8`, `--config` or `--recipe`";

/// Options that ask for a compression of all weights, one of them at most.
pub(super) const GOALS: &[&str] = &["preset", "target_size", "target_bpw", "max_drop"];

/// Options that ask for a compression.
pub(super) const ASKS: &[&str] =
    &["preset", "target_size", "target_bpw", "max_drop", "config", "tensor", "activations"];

/// The value of an option, if it is given.
type Given<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Options that only say more about others, and whether those are given.
type Details = (&'static [&'static str], fn(Given<'_>) -> bool);

pub(super) const DETAILS: &[Details] = &[
    (&["candidates", "search_log"], |given| match given("preset") {
        Some(preset) => preset::mixed(&preset).is_some(),
        None => GOALS.iter().any(|goal| given(goal).is_some()),
    }),
    (&["activation_range", "keep_activations"], |given| match given("activations") {
        Some(form) => form != "none",
        None => given("preset").is_some_and(|preset| preset == preset::W8A8),
    }),
];

/// How weights are compressed.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Compression {
    /// Compress the weights: a preset or a scheme, such as `int8`, `int4-b32`, `pal4-g16` or `prune50+pal4`; see
    /// docs/compression.md
    #[arg(long, value_name = "SCHEME")]
    preset: Option<String>,
    /// Compress the weights as a configuration file of coremltools says; see docs/recipes.md
    #[arg(long, value_name = "FILE.yaml", conflicts_with = "preset")]
    config: Option<PathBuf>,
    /// Another scheme for weights whose name, or whose node's or module's name, matches; `none` leaves them alone; the last
    /// that matches counts; repeatable
    #[arg(long, value_name = "REGEX=SCHEME")]
    tensor: Vec<String>,
    /// Choose a scheme for each weight, so that the package is no larger than this, such as `20MB`, and loses least
    #[arg(long, value_name = "SIZE", value_parser = parse_size, conflicts_with_all = ["preset", "target_bpw", "max_drop"])]
    target_size: Option<u64>,
    /// Choose a scheme for each weight, so that weights take so many bits on average, such as `4.5`, and lose least
    #[arg(long, value_name = "BITS", conflicts_with_all = ["preset", "max_drop"])]
    target_bpw: Option<f64>,
    /// Choose a scheme for each weight, so that the package is small and loses no more than this on the samples: `top1=0.5`
    /// in points, `cosine=0.001` or `rms=0.02`
    #[arg(long, value_name = "METRIC=VALUE", conflicts_with = "preset")]
    max_drop: Option<Goal>,
    /// The schemes that a search chooses from, such as `int8,pal4-g16`
    #[arg(long, value_name = "SCHEME,…", value_delimiter = ',')]
    candidates: Vec<String>,
    /// Keep what a search measures in this file, and go on from there if it exists
    #[arg(long, value_name = "FILE")]
    search_log: Option<PathBuf>,
    /// Samples to compress by, as with `--sample`; where there are none, those of `--sample` serve; repeatable
    #[arg(long, value_name = "FILE")]
    calibrate: Vec<String>,
    /// How samples are used: `gptq` minds the inputs that a weight meets, `nearest` takes weights alone [default: gptq
    /// where there are samples]
    #[arg(long, value_enum)]
    rounding: Option<Rounding>,
    /// Hold activations in 8 bits, with ranges from the rows of `--sample`: `int8`, `int8-asym`, `uint8` or `none`; see
    /// docs/activations.md [default: int8 with `--preset w8a8`, else none]
    #[arg(long, value_name = "FORM", value_parser = parse_form)]
    activations: Option<Activations>,
    /// How the range of an activation is found: `min-max`, `percentile`, `percentile=99.9`, `mse` or `entropy` [default:
    /// min-max]
    #[arg(long, value_name = "METHOD", value_parser = parse_method)]
    activation_range: Option<Method>,
    /// Leave the activations of ops alone, by name, type or module path, with `*` for any text; repeatable
    #[arg(long, value_name = "PATTERN")]
    keep_activations: Vec<String>,
    /// Leave weights of at most so many elements alone, where `--config` states no other number [default: 2048; 0 where
    /// activations are held in 8 bits]
    #[arg(long, value_name = "N")]
    weight_threshold: Option<usize>,
    /// It is fine if a weight cannot be compressed as asked
    #[arg(long)]
    allow_skip: bool,
    /// Memory that weights in the works may take, such as `512MB`
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    max_memory: Option<u64>,
}

/// How codes are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Rounding {
    /// The nearest to each element
    Nearest,
    /// Those that change the outputs on the samples least
    Gptq,
}

/// The integers of activations; `None` leaves them as they are.
#[derive(Clone, Copy, Debug)]
struct Activations(Option<Form>);

fn parse_form(text: &str) -> Result<Activations, String> {
    match Form::parse(text) {
        None if text == "none" => Ok(Activations(None)),
        None => Err("wanted `int8`, `int8-asym`, `uint8` or `none`".to_owned()),
        form => Ok(Activations(form)),
    }
}

fn parse_method(text: &str) -> Result<Method, String> {
    let wanted = "wanted `min-max`, `percentile`, `percentile=P` with P in 50 to 100, `mse` or `entropy`";
    Method::parse(text).ok_or_else(|| wanted.to_owned())
}

/// Bytes from a number with a unit: `20MB`, `1.5GiB`, `4096`.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 10] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("kB", 1000),
        ("KB", 1000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("B", 1),
    ];
    let (number, unit) =
        UNITS.iter().find_map(|(name, size)| Some((text.strip_suffix(name)?, *size))).unwrap_or((text, 1));
    let number: f64 = number.trim().parse().map_err(|_| format!("`{text}` is no size such as 20MB"))?;
    if !number.is_finite() || number <= 0.0 {
        return Err(format!("`{text}` is no size such as 20MB"));
    }
    Ok((number * unit as f64) as u64)
}

impl Compression {
    /// The first option that was given and only says how something is compressed, not what.
    fn idle(&self) -> Option<&'static str> {
        let given = [
            ("--calibrate", !self.calibrate.is_empty()),
            ("--rounding", self.rounding.is_some()),
            ("--weight-threshold", self.weight_threshold.is_some()),
            ("--allow-skip", self.allow_skip),
            ("--max-memory", self.max_memory.is_some()),
        ];
        given.into_iter().find(|(_, given)| *given).map(|(option, _)| option)
    }

    /// What is asked for; `None` where nothing is.
    pub(super) fn request(&self, out: &Path, samples: bool) -> Result<Option<Request>, Failure> {
        if self.rounding == Some(Rounding::Gptq) && !samples && self.calibrate.is_empty() {
            let d = Diagnostic::error(&codes::L0001, "`--rounding gptq` is by samples, and there are none");
            return Err(vec![d.help("give some with `--calibrate` or `--sample`")]);
        }
        let activations = self.activations()?;
        // An op computes in 8 bits where both of its operands are in 8 bits, however small the weight.
        let default = if activations.is_some() { 0 } else { DEFAULT_THRESHOLD };
        let threshold = self.weight_threshold.unwrap_or(default);
        let mut rules: Vec<Rule> = vec![];
        let mixed = self.preset.as_deref().and_then(preset::mixed);
        if let Some(text) = self.preset.as_ref().filter(|_| mixed.is_none()) {
            rules.extend(preset::rules(text).map_err(|d| vec![d])?);
        }
        let plan = self.plan(mixed).map_err(|d| vec![d])?;
        for text in &self.tensor {
            rules.push(Rule::parse(text).map_err(|d| vec![d])?);
        }
        let config = self.config.as_ref().map(|path| Config::read(path, threshold)).transpose().map_err(|d| vec![d])?;
        if rules.is_empty() && config.is_none() && plan.is_none() && activations.is_none() {
            let Some(option) = self.idle() else { return Ok(None) };
            let d = Diagnostic::error(&codes::L0001, format!("`{option}` is for compression, and none is asked for"));
            return Err(vec![d.help(HOW)]);
        }
        let scratch = match out.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_path_buf(),
            _ => PathBuf::from("."),
        };
        Ok(Some(Request {
            rules,
            plan,
            aware: self.rounding != Some(Rounding::Nearest),
            config: config.map(Box::new),
            activations,
            threshold,
            max_memory: self.max_memory.unwrap_or(DEFAULT_MEMORY),
            dry_run: false,
            allow_skip: self.allow_skip,
            scratch,
        }))
    }

    /// The samples to compress by.
    pub(super) fn calibration(&self, pictures: &Pictures, terminal: &Terminal) -> Result<Arrays, Failure> {
        let (arrays, notes) = pictures.read(&self.calibrate)?;
        terminal.warn(&notes);
        if arrays.is_empty() && !self.calibrate.is_empty() {
            let d = Diagnostic::error(&codes::N0003, "`--calibrate` is given no array");
            return Err(vec![d.at(self.calibrate.join(", "))]);
        }
        Ok(arrays)
    }

    /// What is searched for, if anything is.
    fn plan(&self, mixed: Option<f64>) -> Result<Option<Plan>, Diagnostic> {
        let bits = self.target_bpw.or(mixed);
        if let Some(bits) = bits.filter(|b| !(b.is_finite() && *b > 0.0)) {
            return Err(Diagnostic::error(&codes::L0001, format!("--target-bpw {bits}: wanted a number above 0")));
        }
        let goal = self.target_size.map(Goal::Bytes).or(bits.map(Goal::BitsPerWeight)).or(self.max_drop);
        let Some(goal) = goal else {
            let unused = [("--candidates", !self.candidates.is_empty()), ("--search-log", self.search_log.is_some())];
            return match unused.into_iter().find(|(_, given)| *given) {
                Some((option, _)) => {
                    let d =
                        Diagnostic::error(&codes::L0001, format!("`{option}` is for a search, and none is asked for"));
                    Err(d.help(
                        "ask for one with `--target-size`, `--target-bpw`, `--max-drop` or `--preset mixed-4.5bpw`",
                    ))
                }
                None => Ok(None),
            };
        };
        let scheme = |text: &String| {
            let text = PRESETS.iter().find(|p| p.name == text).map_or(text.as_str(), |p| p.scheme);
            Scheme::parse(text).map_err(|e| Diagnostic::error(&codes::L0001, format!("--candidates {e}")))
        };
        let candidates = self.candidates.iter().map(scheme).collect::<Result<Vec<_>, _>>()?;
        Ok(Some(Plan { goal, candidates, log: self.search_log.clone(), overhead: 0, known: None }))
    }

    /// What is asked of activations.
    fn activations(&self) -> Result<Option<activations::Request>, Failure> {
        let form = match self.activations {
            Some(Activations(form)) => form,
            None => (self.preset.as_deref() == Some(preset::W8A8)).then(Form::default),
        };
        if let Some(form) = form {
            let keep = self.keep_activations.iter().map(Pattern::new).collect();
            return Ok(Some(activations::Request { form, method: self.activation_range.unwrap_or_default(), keep }));
        }
        if self.activation_range.is_none() && self.keep_activations.is_empty() {
            return Ok(None);
        }
        let d = Diagnostic::error(&codes::L0001, "nothing asks for activations in 8 bits");
        Err(vec![d.help("ask for them with `--preset w8a8` or `--activations int8`")])
    }
}

pub(crate) fn run(args: Args, terminal: &Terminal) -> CommandResult {
    let package = model::format(&args.model).map_err(|d| vec![d])? == Format::Package;
    if package && args.rewrite.is_asked() {
        let d = Diagnostic::error(&codes::L0001, "`--precision` and `--keep-fp32` are for models that are imported");
        return Err(vec![d.help("a package computes as it did; convert its source with them")]);
    }
    let out = args.out.clone().filter(|_| !args.dry_run);
    if let Some(out) = &args.out {
        check_target(out, args.force)?;
    }
    if let Some(log) = &args.compression.search_log {
        check_file(log)?;
        let same = |out: &PathBuf| log == out || log.starts_with(out);
        if args.out.as_ref().is_some_and(same) {
            let d = Diagnostic::error(&codes::L0001, "the log of the search is to be where the package is to be");
            return Err(vec![d.at(log.display().to_string()).help("give `--search-log` a file beside the package")]);
        }
    }
    let inputs = args.inputs.read()?;
    let asked = args.compression.request(out.as_deref().unwrap_or(Path::new(".")), !inputs.samples.is_empty())?;
    let weights = match asked {
        _ if args.decompress => Weights::Decompress,
        Some(request) => Weights::Compress(Box::new(Request { dry_run: args.dry_run, ..request })),
        None => {
            let d = Diagnostic::error(&codes::L0001, "nothing says how to compress");
            return Err(vec![d.help(HOW)]);
        }
    };
    // A package computes as it did; other models are converted as `convert` does.
    let (half, keep_fp32) = if package { (false, vec![]) } else { (args.rewrite.half(), args.rewrite.patterns()) };
    let request = args.import.request()?;
    let interface = args.rewrite.ranges.within(args.interface.interface()?);
    terminal.warn(&inputs.notes);
    let job = Job {
        model: args.model,
        request,
        interface,
        half,
        keep_layers: package,
        keep_fp32,
        look: half.then_some(inputs.seed()),
        weights,
        labels: inputs.labels(),
        calibration: args.compression.calibration(&args.inputs.pictures, terminal)?,
        samples: inputs.samples.clone(),
        ..Job::default()
    };
    let prepared = {
        let progress = terminal.compression();
        convert::prepare(&job, &|event| progress.tell(event))?
    };
    let Some(out) = out else {
        terminal.warn(&prepared.warnings);
        terminal.insist(&prepared.unapplied);
        let report = prepared.compression.as_ref();
        if terminal.is_json() {
            terminal.json(&summary("compress", None, &prepared, None, None));
        } else {
            terminal.result(&report.map(compression_text).unwrap_or_default());
        }
        return Ok(if prepared.unapplied.is_empty() { Outcome::Done } else { Outcome::Differs });
    };
    // Compression is lossy: the loss is reported, and no fault.
    let tolerance = if args.decompress { Tolerance::F16 } else { Tolerance::ANY };
    let write = Write {
        command: "compress",
        out: &out,
        force: args.force,
        verify: (!args.no_verify).then_some(tolerance),
        mend: None,
    };
    // What compression loses is measured against what was compressed, in our own kernels.
    let witness = Chosen::kernels(prepared.format);
    write.run(prepared, witness, &inputs, terminal)
}
