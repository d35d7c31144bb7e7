//! A model beside the one that it comes from.

use crate::{
    Diagnostic, Failure,
    arrays::Arrays,
    codes,
    convert::{Job, has_halves},
    interface::{Applied, Interface, Outside},
    model::{self, Format},
    ranges, stateful,
};
use mlconv_mil::{
    ir::Module,
    verify::{Verified, verify},
};
use mlconv_source::Request;
use std::path::Path;

/// Two models to be compared.
#[derive(Debug)]
pub struct Beside {
    /// The one to go by, with the interface that the other was given.
    pub source: Verified,
    /// What it was.
    pub source_format: Format,
    /// What stands between that interface and the source's own.
    pub outside: Option<Outside>,
    /// The other one.
    pub package: Verified,
    /// What it was.
    pub package_format: Format,
    /// What of both was adapted or is odd.
    pub notes: Vec<Diagnostic>,
    /// What makes a package of the source as the other one was made, as far as that shows.
    pub job: Job,
}

/// What is asked of two models that are compared.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The function to compare, where not all are.
    pub function: Option<&'a str>,
    /// How the source is imported.
    pub request: &'a Request,
    /// The interface that it is to have, beside the one that the package was given.
    pub interface: &'a Interface,
    /// Sample inputs, whose shapes stand in where the source says none.
    pub samples: &'a Arrays,
}

/// Reads a package, or any other model, and the model that it comes from.
pub fn read(package: &Path, source: &Path, asked: Asked<'_>) -> Result<Beside, Failure> {
    let read = model::read_sized(package, &Request::default(), &asked.interface.shaped(asked.samples, None))?;
    let (mut notes, package_format, mut module) = (read.warnings, read.format, read.module);
    if let Some(name) = asked.function {
        let f = model::function(&module, Some(name)).map_err(|d| vec![d])?.clone();
        module.functions = vec![f];
    }
    let request = request(source, asked.request, &module)?;
    // What was asked for when the package was written is asked of the source as well.
    let interface = asked.interface.clone().with_recorded(&module)?;
    let read = model::read_sized(source, &request, &interface.shaped(asked.samples, None))?;
    let (source_format, mut of_source) = (read.format, read.module);
    if source_format == Format::Package && package_format != Format::Package {
        let title = "the model to go by is a package, and what is held against it is none: they may be exchanged";
        notes.push(Diagnostic::warning(&codes::N0004, title).at(source.display().to_string()));
    }
    let left = interface.clone().beyond(&Interface::recorded(&of_source));
    let Applied { notes: said, outside } = left.apply(&mut of_source)?;
    notes.extend(said);
    ranges::adopt(&mut of_source, &module);
    let package = verify(module)?;
    let job = Job {
        model: source.to_owned(),
        half: has_halves(&package),
        request,
        interface,
        look: Some(0),
        samples: asked.samples.clone(),
        ..Job::default()
    };
    Ok(Beside { source: verify(of_source)?, source_format, outside, package, package_format, notes, job })
}

/// How the source of a package is imported: for its op set, with its states and its sizes.
fn request(source: &Path, own: &Request, package: &Module) -> Result<Request, Failure> {
    let opset = package.functions.first().map(|f| f.opset);
    // A package that is compared with may have the states itself.
    let is_package = model::format(source).is_ok_and(|f| f == Format::Package);
    let has_them = is_package && stateful::has_states(&model::read(source, &Request::default())?.module);
    let states = if has_them { vec![] } else { stateful::pairs(package) };
    // A package without states was made without them.
    let no_state = !stateful::has_states(package);
    let request = Request { opset, no_state, states, ..own.clone() };
    model::sized_like(source, request, package)
}
