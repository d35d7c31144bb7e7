//! Every key of a recipe. A line here is all that an option needs to be one.

use super::form::{Form, Named, number_value, text_value};
use crate::{
    Diagnostic,
    cli::{args, compress, interface},
    codes,
    compress::{Rule, preset},
    interface::Image,
    ranges::Declared,
};
use mlconv_source::InputSpec;

/// What is wrong with what is typed after an option.
type Check = fn(&str) -> Result<(), Diagnostic>;

/// A key of a recipe, which stands for an option.
#[derive(Clone, Copy)]
pub(super) struct Key {
    pub(super) name: &'static str,
    /// The option's id, which is its field in the arguments of a command.
    pub(super) option: &'static str,
    pub(super) form: Form,
    /// What the command itself only finds wrong later.
    pub(super) check: Option<Check>,
}

impl Key {
    /// A key that is called as its option.
    const fn new(name: &'static str, form: Form) -> Self {
        Self { name, option: name, form, check: None }
    }

    const fn of(self, option: &'static str) -> Self {
        Self { option, ..self }
    }

    const fn check(self, check: Check) -> Self {
        Self { check: Some(check), ..self }
    }
}

pub(super) const CONVERT: &str = "convert";
pub(super) const COMPRESS: &str = "compress";
pub(super) const VERIFY: &str = "verify";

/// The sections with their keys, in the order in which recipes are printed.
pub(super) const SECTIONS: &[(&str, &[Key])] = &[
    // How a model is imported and rewritten.
    (
        CONVERT,
        &[
            Key::new("target", Form::Text),
            Key::new("precision", Form::Text),
            Key::new("keep_fp32", Form::Texts),
            Key::new("ranges", Form::Named(AT_LAST)).of("range").check(range),
            Key::new("inputs", Form::Named(AT_LAST)).of("input").check(input),
            Key::new("outputs", Form::Texts).of("output"),
            Key::new("states", Form::Named(Named { split: args::in_the_middle, value: text_value })).of("state"),
            Key::new("no_state", Form::Flag),
            Key::new("images", Form::Named(Named { split: Image::split, value: text_value })).of("image"),
            Key::new("image_outputs", Form::Named(AT_LAST)).of("image_output"),
            Key::new("class_labels", Form::FileOrText),
            Key::new("class_output", Form::Text),
            Key::new("class_softmax", Form::Flag),
            Key::new("optional", Form::Named(Named { split: interface::named, value: number_value })),
            Key::new("renames", Form::Named(Named { split: args::in_the_middle, value: text_value })).of("rename"),
            Key::new("io_precision", Form::Text),
        ],
    ),
    // What becomes of weights and activations.
    (
        COMPRESS,
        &[
            Key::new("preset", Form::Text).check(scheme),
            Key::new("config", Form::File),
            Key::new("tensor", Form::Rules).check(rule),
            Key::new("tensors", Form::Named(AT_LAST)).of("tensor").check(rule),
            Key::new("weight_threshold", Form::Count),
            Key::new("target_size", Form::Size),
            Key::new("target_bpw", Form::Positive),
            Key::new("max_drop", Form::Text),
            Key::new("candidates", Form::Choices),
            Key::new("search_log", Form::File),
            Key::new("calibrate", Form::Arrays),
            Key::new("rounding", Form::Text),
            Key::new("activations", Form::Text),
            Key::new("activation_range", Form::Text),
            Key::new("keep_activations", Form::Texts),
            Key::new("max_memory", Form::Size),
            Key::new("allow_skip", Form::Flag),
            Key::new("decompress", Form::Flag),
        ],
    ),
    // What a model is run on, and compared with.
    (
        VERIFY,
        &[
            Key::new("samples", Form::Arrays).of("sample"),
            Key::new("resize", Form::Named(AT_LAST)),
            Key::new("labels", Form::File),
            Key::new("seed", Form::Size),
            Key::new("source_runtime", Form::Text),
            Key::new("no_verify", Form::Flag),
            Key::new("tolerance", Form::Text),
            Key::new("min_snr", Form::Number),
            Key::new("min_cosine", Form::Number),
            Key::new("min_top1", Form::Number),
            Key::new("max_kl", Form::Number),
            Key::new("kinds", Form::Named(AT_LAST)).of("kind"),
            Key::new("quick", Form::Flag),
            Key::new("seeds", Form::Count),
            Key::new("steps", Form::Count),
            Key::new("backend", Form::Text),
            Key::new("emulate", Form::Text),
            Key::new("golden", Form::File),
        ],
    ),
];

/// Options that say nothing about what comes out, or of which comparison.
#[cfg(test)]
pub(super) const NOT_KEYS: &[&str] = &[
    "recipe",
    "print_recipe",
    "model",
    "out",
    "force",
    "dry_run",
    "format",
    "quiet",
    "jobs",
    "help",
    "html",
    "markdown",
    "junit",
    "print_after",
    "verify_each",
    "check_each",
    "stop_after_edit",
    "time_passes",
    "package",
    "against",
    "function",
    "save_golden",
    "ci",
];

/// `NAME=TEXT`, where a name may hold `=`.
const AT_LAST: Named = Named { split: |text| text.rsplit_once('='), value: text_value };

/// What of a recipe goes where `typed` is typed, beside what is the same option and what the command line forbids together.
pub(super) const INSTEAD: &[(&[&str], &[&str])] =
    &[(compress::GOALS, &["config"]), (&["config"], compress::GOALS), (&["sample"], &["labels"]), (LIMITS, LIMITS)];

/// Thresholds: those that are typed replace all of a recipe, as they replace the default.
const LIMITS: &[&str] = &["tolerance", "min_snr", "min_cosine", "min_top1", "max_kl"];

fn range(text: &str) -> Result<(), Diagnostic> {
    Declared::parse(text).map(drop).map_err(|why| Diagnostic::error(&codes::L0001, why))
}

fn input(text: &str) -> Result<(), Diagnostic> {
    InputSpec::parse(text).map(drop).map_err(|e| Diagnostic::error(&codes::L0001, e.to_string()))
}

/// The name of a preset, or a scheme.
fn scheme(text: &str) -> Result<(), Diagnostic> {
    if preset::mixed(text).is_some() {
        return Ok(());
    }
    let bare = |d: Diagnostic| Diagnostic { title: d.title.trim_start_matches("--preset ").to_owned(), ..d };
    preset::rules(text).map(drop).map_err(bare)
}

/// `REGEX=SCHEME`.
fn rule(text: &str) -> Result<(), Diagnostic> {
    let bad = |why| Diagnostic::error(&codes::L0001, why);
    let (pattern, scheme) =
        text.rsplit_once('=').ok_or_else(|| bad("wanted REGEX=SCHEME, such as `lm_head=int8`".to_owned()))?;
    Rule::new(pattern, scheme).map(drop).map_err(bad)
}
