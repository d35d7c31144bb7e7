//! `mlconv convert`

use super::{
    CommandResult,
    args::{Debugging, Import, Inputs, Rewrite, SourceRuntime},
    compress::Compression,
    interface::Asked,
    recipe::RecipeFile,
    terminal::Terminal,
    write::{Write, check_target},
};
use crate::{
    compare::Tolerance,
    convert::{self, Job, Weights},
    interface::Floats,
    stateful,
    witness::Chosen,
    work,
};
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The model: a .pt2 or .pt file of PyTorch, an .onnx file, or an .mlpackage
    model: PathBuf,
    /// Where to write the package
    #[arg(short, value_name = "OUT.mlpackage")]
    out: PathBuf,
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
    #[command(flatten)]
    source_runtime: SourceRuntime,
    #[command(flatten)]
    inputs: Inputs,
    #[command(flatten)]
    debug: Debugging,
    /// Skip the parity run that otherwise follows
    #[arg(long, conflicts_with_all = ["labels", "source_runtime"])]
    no_verify: bool,
    /// Replace the output if it exists
    #[arg(long)]
    force: bool,
}

pub(crate) fn run(args: Args, terminal: &Terminal) -> CommandResult {
    check_target(&args.out, args.force)?;
    let inputs = args.inputs.read()?;
    let half = args.rewrite.half();
    let request = args.import.request()?;
    let interface = args.rewrite.ranges.within(args.interface.interface()?);
    terminal.warn(&inputs.notes);
    let samples = inputs.samples.clone();
    let weights = args
        .compression
        .request(&args.out, !inputs.samples.is_empty())?
        .map_or(Weights::Keep, |r| Weights::Compress(Box::new(r)));
    let job = Job {
        model: args.model,
        request,
        interface,
        half,
        single: args.rewrite.single(),
        keep_fp32: args.rewrite.patterns(),
        look: (!args.no_verify || !inputs.samples.is_empty()).then_some(inputs.seed()),
        weights,
        labels: inputs.labels(),
        calibration: args.compression.calibration(&args.inputs.pictures, terminal)?,
        samples,
        watch: args.debug.watch(),
        ..Job::default()
    };
    let prepared = {
        let _step = matches!(job.weights, Weights::Keep).then(|| terminal.step("importing and optimising"));
        let progress = terminal.compression();
        convert::prepare(&job, &|event| progress.tell(event))
    };
    // What was to be seen of passes is seen also where one failed.
    let log = job.watch.log.take();
    if !log.is_empty() {
        terminal.insist_text(&log);
    }
    let mut prepared = prepared?;
    // Before anything is written: what was asked for may not be there.
    let witness = if args.no_verify {
        Chosen::kernels(prepared.format)
    } else {
        let has_states = stateful::has_states(&prepared.source);
        args.source_runtime
            .choose(&job.model, prepared.format, &inputs.samples, has_states)?
            .within(prepared.outside.take())
    };
    // Compression is lossy: the loss is reported, and no fault.
    let rounds = half || job.interface.floats == Some(Floats::Fp16);
    let tolerance = match (&prepared.compression, rounds) {
        (Some(_), _) => Tolerance::ANY,
        (None, true) => Tolerance::F16,
        (None, false) => Tolerance::of_sums(work::longest_chain(&prepared.module)),
    };
    let write = Write {
        command: "convert",
        out: &args.out,
        force: args.force,
        verify: (!args.no_verify).then_some(tolerance),
        mend: prepared.compression.is_none().then_some(&job),
    };
    write.run(prepared, witness, &inputs, terminal)
}
