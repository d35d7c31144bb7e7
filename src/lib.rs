//! Convert, run and verify Core ML models, on any operating system.
//!
//! This crate composes the others: it alone reads arguments, prints, and opens paths that a user gives. [`model`] reads
//! any model into the IR, [`convert`] makes a package of it, [`merge`] one of several, [`survey`] says what stands in the
//! way. [`parity`], [`feed`], [`made_up`], [`compare`] and [`accuracy`] hold two models against each other on the same
//! inputs, and [`witness`] says what runs the source then; [`beside`] reads both, and [`diff`] says which op is to blame where
//! they differ. [`interface`] is what a package takes and returns where that is not what the source does, and [`pictures`] reads
//! what image inputs take. [`ranges`] says how great values are, and [`inspect`] what a model costs. [`bundle`] takes a comparison
//! to a Mac and back.

pub mod accuracy;
pub mod arrays;
pub mod beside;
pub mod bundle;
mod chance;
pub mod cli;
pub mod compare;
pub mod compress;
pub mod convert;
pub mod diff;
pub mod feed;
pub mod golden;
pub mod inspect;
pub mod interface;
pub mod made_up;
pub mod merge;
pub mod model;
mod names;
pub mod parity;
pub mod pictures;
pub mod ranges;
pub mod report;
mod script;
mod settings;
mod stateful;
pub mod survey;
pub mod watch;
pub mod witness;
pub mod work;

pub use mlconv_mil::diagnostic::{Diagnostic, codes};

/// What a failed command says: at least one diagnostic is an error.
pub type Failure = Vec<Diagnostic>;
