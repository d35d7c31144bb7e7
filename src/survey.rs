//! Everything that stands in the way of a conversion, found without the model's weights.

use crate::{
    Diagnostic, Failure, codes,
    convert::{self, Job},
    model::{self, Format},
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
    let mut made_up = false;
    let model = match model::format(&job.model).map_err(|d| vec![d])? {
        Format::Package => model::read(&job.model, &job.request)?,
        Format::Onnx => {
            let files = ModelFiles::beside(&job.model);
            // Without a folder for files of no name, all of the model's files must be there.
            let files = match tempfile::tempfile() {
                Ok(scratch) => files.or_zeros(scratch),
                Err(_) => files,
            };
            let graph = model::read_onnx_with(&job.model, &files).map_err(|d| vec![d])?;
            made_up = !files.missing().is_empty();
            let mut lowered = model::lower_onnx(&graph, &job.model, &job.request);
            let mut nodes = 0;
            graph.visit_nodes(&mut |_| nodes += 1);
            (out.nodes, out.unjudged) = (Some(nodes), lowered.unjudged.len());
            out.notes.extend(missing(&files, &lowered.unjudged).map(|d| d.within(job.model.display().to_string())));
            if lowered.diagnostics.iter().any(|d| d.severity == Severity::Error) {
                return out.with(lowered.diagnostics);
            }
            if !lowered.unjudged.is_empty() {
                out.notes.append(&mut lowered.diagnostics);
                return Ok(out);
            }
            model::lowered_model(&graph, lowered)
        }
    };
    // What half precision holds of data that are made up says nothing, and takes as long as if they were there.
    let job = Job { half: job.half && !made_up, ..job.clone() };
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

/// Says that data of constants are not there, and which nodes were not judged for that.
fn missing<N: AsRef<str>>(files: &ModelFiles, unjudged: &[N]) -> Option<Diagnostic> {
    let missing = files.missing();
    let said: Vec<String> =
        missing.iter().map(|(file, n)| format!("`{file}`, with the data of {n} constants,")).collect();
    let all = match said.as_slice() {
        [] => return None,
        [one] => format!("{one} is not there"),
        several => format!("{} are not there", several.join(" and ")),
    };
    let d = Diagnostic::warning(&codes::F0109, format!("{all} and was judged without"));
    let d = unjudged.iter().take(3).fold(d, |d, name| d.at(format!("not judged: node `{}`", name.as_ref())));
    let more = unjudged.len().saturating_sub(3);
    let d = if more > 0 { d.at(format!("and {more} more")) } else { d };
    Some(d.help("a conversion needs it beside the model; what depends on its values can differ then"))
}
