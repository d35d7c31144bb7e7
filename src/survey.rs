//! Everything that stands in the way of a conversion, found without the model's weights.

use crate::{
    Diagnostic, Failure, codes,
    convert::{self, Job},
    model::{self, Format},
    names::listed,
    report::bytes,
};
use mlconv_mil::diagnostic::Severity;
use mlconv_passes::Note;
use mlconv_source::ModelFiles;

/// What a conversion would come to.
#[derive(Debug, Default)]
pub struct Survey {
    /// What stands in the way, all of it.
    pub blockers: Vec<Diagnostic>,
    /// What would be adapted, and what could not be judged.
    pub notes: Vec<Diagnostic>,
    /// What was asked for and would not be applied.
    pub unapplied: Vec<Diagnostic>,
    /// Every op that would compute in 32 bits although half precision is asked for.
    pub kept: Vec<Note>,
    /// Nodes of the source, those of nested graphs included; `None` for a package.
    pub nodes: Option<usize>,
    /// Nodes that were not judged, as what they read is not known.
    pub unjudged: usize,
}

impl Survey {
    /// Nodes that something stands in the way of.
    pub fn blocked(&self) -> usize {
        self.blockers.iter().filter_map(|d| d.nodes.as_ref()).map(|n| n.count).sum()
    }
}

/// Surveys a model; fails where the file cannot be read, or the request does not fit it.
pub fn survey(job: &Job) -> Result<Survey, Failure> {
    let mut out = Survey::default();
    let mut unread = false;
    let model = match model::format(&job.model).map_err(|d| vec![d])? {
        Format::Package => model::read(&job.model, &job.request)?,
        Format::TorchScript => match model::read_sized(&job.model, &job.request, &job.samples) {
            Ok(model) => model,
            Err(failure) => return out.with(failure),
        },
        format @ (Format::Onnx | Format::Pt2) => {
            let files = ModelFiles::beside(&job.model);
            // Without a folder for files of no name, all of the model's files must be there.
            let files = match tempfile::tempfile() {
                Ok(scratch) => files.or_zeros(scratch),
                Err(_) => files,
            };
            let graph = model::read_source_with(&job.model, format, &files).map_err(|d| vec![d])?;
            let weights = graph.constants.values().fold(0u64, |n, t| n.saturating_add(t.blob().len() as u64));
            let many = weights > MOST && job.half && files.missing().is_empty();
            unread = many || !files.missing().is_empty();
            let mut lowered = model::lower_source(&graph, &job.model, format, &job.request);
            let mut nodes = 0;
            graph.visit_nodes(&mut |_| nodes += 1);
            (out.nodes, out.unjudged) = (Some(nodes), lowered.unjudged.len());
            let notes = missing(&files, &lowered.unjudged).into_iter().chain(many.then(|| unread_weights(weights)));
            out.notes.extend(notes.map(|d| d.within(job.model.display().to_string())));
            if lowered.diagnostics.iter().any(|d| d.severity == Severity::Error) {
                return out.with(lowered.diagnostics);
            }
            if !lowered.unjudged.is_empty() {
                out.notes.append(&mut lowered.diagnostics);
                return Ok(out);
            }
            model::lowered_model(&graph, format, lowered)
        }
    };
    // What half precision holds is seen by reading all weights: of so many that takes long, and of data that are made up
    // it says nothing.
    let job = Job { half: job.half && !unread, ..job.clone() };
    match convert::prepare_model(model, &job, &|_| {}) {
        Ok(prepared) => {
            out.kept = prepared.kept;
            out.notes.extend(prepared.warnings);
            out.unapplied = prepared.unapplied;
            Ok(out)
        }
        Err(failure) => out.with(failure),
    }
}

impl Survey {
    /// With what else was found.
    fn with(mut self, found: Vec<Diagnostic>) -> Result<Self, Failure> {
        // A request that does not fit is none that the model stands in the way of.
        if found.iter().any(|d| d.severity == Severity::Error && d.code.id.starts_with(['R', 'L'])) {
            return Err(found);
        }
        let (errors, notes) = found.into_iter().partition::<Vec<_>, _>(|d| d.severity == Severity::Error);
        self.blockers.extend(errors);
        self.notes.extend(notes);
        Ok(self)
    }
}

/// Bytes of weights beyond which they are not read.
const MOST: u64 = 1 << 30;

/// Says that weights are not read, as they are so many.
fn unread_weights(weights: u64) -> Diagnostic {
    let size = bytes(weights);
    let title = format!("{size} of weights are not read: what half precision cannot hold of them is not judged");
    Diagnostic::warning(&codes::F0110, title).help("`convert` names the ops that stay in single precision")
}

/// Says that data of constants are not there, and which nodes were not judged for that.
fn missing<N: AsRef<str>>(files: &ModelFiles, unjudged: &[N]) -> Option<Diagnostic> {
    let missing = files.missing();
    if missing.is_empty() {
        return None;
    }
    let constants = missing.iter().fold(0usize, |n, (_, count)| n.saturating_add(*count));
    let what = if constants == 1 { "1 constant".to_owned() } else { format!("{constants} constants") };
    let in_files = listed(missing.iter().map(|(file, _)| file));
    let title = format!("the data of {what} are not there, in {in_files}: the model is judged without them");
    let d = Diagnostic::warning(&codes::F0110, title);
    let d = unjudged.iter().take(3).fold(d, |d, name| d.at(format!("not judged: node `{}`", name.as_ref())));
    let more = unjudged.len().saturating_sub(3);
    let d = if more > 0 { d.at(format!("and {more} more")) } else { d };
    Some(d.help("a conversion needs them beside the model; which ops stay in single precision depends on them"))
}
