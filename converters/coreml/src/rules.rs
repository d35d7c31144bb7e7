//! What Core ML demands of a model, checked on what is about to be written or has been read.
//!
//! Core ML's own validator looks at the interface only; most mistakes in a program show when a device compiles it, or
//! as wrong numbers. So every demand is a row of [`RULES`].

mod classify;
mod constness;
mod features;
mod interface;
mod literals;
mod names;
mod operands;
mod outputs;
mod package;
mod signature;
mod states;
mod structure;
mod types;
mod view;

#[cfg(test)]
mod tests;

pub use names::is_identifier;
pub use signature::{OpSignature, Param, Signatures};
pub(crate) use types::MAX_RANK;

use crate::{Manifest, Weights};
use mlconv_proto::coreml::Model;
use view::{Body, Interface};

/// One demand.
pub struct Rule {
    /// In snake case.
    pub name: &'static str,
    /// What Core ML demands, in a sentence.
    pub says: &'static str,
    check: fn(&Artifact<'_>, &mut Findings),
}

/// One place where a demand is not met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The rule's name.
    pub rule: &'static str,
    /// A function and an operation, value or feature in it.
    pub place: String,
    /// What is there.
    pub found: String,
}

/// A model and what surrounds it in a package.
pub struct Artifact<'a> {
    model: &'a Model,
    weights: &'a dyn Weights,
    manifest: Option<&'a Manifest>,
    signatures: Option<&'a dyn Signatures>,
    bodies: Vec<Body<'a>>,
    interfaces: Vec<Interface<'a>>,
}

impl<'a> Artifact<'a> {
    /// What `model` refers to by blobs is looked up in `weights`.
    pub fn new(model: &'a Model, weights: &'a dyn Weights) -> Self {
        let (bodies, interfaces) = (view::bodies(model), view::interfaces(model));
        Self { model, weights, manifest: None, signatures: None, bodies, interfaces }
    }

    /// Checks the manifest too.
    pub fn with_manifest(self, manifest: &'a Manifest) -> Self {
        Self { manifest: Some(manifest), ..self }
    }

    /// Checks operations against `signatures` too.
    pub fn with_signatures(self, signatures: &'a dyn Signatures) -> Self {
        Self { signatures: Some(signatures), ..self }
    }

    fn version(&self) -> i32 {
        self.model.specification_version
    }

    /// The interface of the function of that name.
    fn interface(&self, body: &Body<'_>) -> Option<&Interface<'a>> {
        self.interfaces.iter().find(|i| i.function == body.name)
    }

    /// Interfaces with the functions behind them.
    fn described(&self) -> impl Iterator<Item = (&Interface<'a>, &Body<'a>)> {
        self.bodies.iter().filter_map(|b| Some((self.interface(b)?, b)))
    }
}

/// Receives what the rules find.
#[derive(Debug, Default)]
struct Findings {
    rule: &'static str,
    all: Vec<Finding>,
}

impl Findings {
    fn add(&mut self, place: impl Into<String>, found: impl Into<String>) {
        self.all.push(Finding { rule: self.rule, place: place.into(), found: found.into() });
    }
}

/// Holds `artifact` to every rule; nothing found means that no rule has anything against it.
pub fn check(artifact: &Artifact<'_>) -> Vec<Finding> {
    let mut findings = Findings::default();
    for rule in RULES {
        findings.rule = rule.name;
        (rule.check)(artifact, &mut findings);
    }
    findings.all
}

macro_rules! rules {
    ($($name:ident: $check:path, $says:literal;)*) => {
        &[$(Rule { name: stringify!($name), says: $says, check: $check }),*]
    };
}

/// Every rule. Sources: Core ML's open interface validator, coremltools' lowering passes, error messages of the compiler.
pub static RULES: &[Rule] = rules! {
    manifest_names_the_model: package::manifest,
        "The manifest's root is one of its items, and no two items share author and name.";
    blobs_are_in_the_weight_file: package::blob_file,
        "A blob is referred to as `@model_path/weights/weight.bin`.";
    blobs_are_aligned: package::blob_metadata,
        "A blob's offset is that of its metadata, at a multiple of 64, with the data right behind.";
    blobs_fit_their_types: package::blob_type,
        "A blob has the element type, and exactly as many elements as, the value bound to it.";
    opset_matches_version: structure::opset,
        "The specification version decides the opset, and all functions use it.";
    functions_have_one_body: structure::body,
        "The program has version 1, and every function one body, named by the function's opset and without arguments.";
    multifunction_is_declared: interface::multifunction,
        "Several functions need version 9, a default, and an interface each; a single one is called `main`.";
    interface_types_are_supported: interface::types,
        "Inputs and outputs are images or arrays of f32 or i32, of f16 from version 7, of i8 from version 10; \
         only a classifier returns texts, integers and dictionaries.";
    inputs_have_shapes: interface::shapes,
        "An input array has a default shape of rank 1 or more; no dimension is less than 1.";
    interface_matches_program: interface::program,
        "The interface names the function's inputs, states and outputs, each once, with their types and shapes.";
    something_goes_in_and_comes_out: interface::presence,
        "There is an output, and an input that is not optional; only from version 9 may there be no inputs.";
    images_are_described: features::images,
        "An image has a colour space and a size, and is a tensor of rank 4 in the program: batch, channel, height, width.";
    flexible_shapes_are_bounded: features::flexible,
        "Ranges are finite and contain the default; up to 128 shapes are enumerated, the default among them, for one \
         input before version 9; ranges, enumerations and states do not mix.";
    optional_inputs_have_defaults: features::defaults,
        "An optional array has a default value of its own type, and no enumerated shapes.";
    states_are_static: states::features,
        "A state needs version 9 and is an f16 array of fixed shape, not optional, and a state in the program.";
    states_are_read_and_written: states::ops,
        "A state is only an operand of `read_state` and `write_state`, and `write_state` has no result.";
    names_are_identifiers: names::spelling,
        "Names match `[A-Za-z_][A-Za-z0-9_]*` and are no words of the text form that models are compiled to.";
    names_are_unique: names::unique,
        "No two values of a function share a name, and no two operations do.";
    values_are_defined_first: names::order,
        "What an operation reads is an input, an earlier result, or visible in a block around it.";
    declared_types_hold: types::declared,
        "A declared type is complete, and is the one that Core ML infers.";
    ranks_are_at_most_five: types::rank,
        "A tensor has at most five dimensions, unless only constexpr operations read it.";
    element_types_run: types::elements,
        "Tensors are f16, f32, i32, bool or str; i8, u8, i16 and u16 from CoreML7; others only in constexpr operations.";
    operand_types_agree: operands::agree,
        "Operands of a binary operation are of one type, as are scalars such as `alpha` and their tensor before CoreML7; \
         a type is named by a text.";
    unsupported_forms_are_lowered: operands::forms,
        "Forms that are legal on paper and fail in Core ML do not occur: matrices of rank 1 or of integers, \
         rearranged scalars, gathered booleans, and the like.";
    weights_are_constant: constness::weights,
        "Axes, permutations, paddings, the parameters of normalisations and the biases of layers are constants.";
    parameters_are_constant: constness::parameters,
        "Parameters that a signature marks as constant are bound to constants.";
    parameters_are_bound: signature::bound,
        "Every parameter is bound that has no meaning of its own when absent: defaults are not Core ML's.";
    ops_are_of_the_opset: signature::known,
        "Every operation, and every parameter, is of the function's opset.";
    constexprs_are_of_the_opset: constness::constexprs,
        "Before CoreML8 the parameters of constexpr operations are attributes, then inputs; each opset has its own set of them.";
    compressed_weights_have_rank: constness::compressed,
        "A weight of rank 0 or 1 is not compressed.";
    outputs_are_not_inputs: outputs::not_inputs,
        "An output is not an input; `identity` stands between them.";
    outputs_are_computed: outputs::computed,
        "An output is no constant; `identity` stands between them.";
    outputs_are_distinct: outputs::distinct,
        "No value is returned twice; `identity` gives it a second name.";
    inputs_are_used: outputs::used,
        "Every input is read; `identity` reads one that the program does not need.";
    interface_has_no_scalars: outputs::scalars,
        "Inputs and outputs have rank 1 or more.";
    literals_are_encoded: literals::encoding,
        "A literal uses the field of its type, and has as many elements as its type says.";
    large_literals_are_blobs: literals::large,
        "Ten or more numbers of a type that the weight file holds are there.";
    classify_is_last: classify::last,
        "A classifier ends in `classify` of f32 probabilities and as many literal classes, whose results it returns.";
};
