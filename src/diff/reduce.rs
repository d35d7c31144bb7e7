//! The op to blame as a package of its own: small enough to be looked at, and to be attached to a report.

use super::{Bisection, Cut, Sides, Start, cut, report::culprit_text};
use crate::{Diagnostic, arrays, arrays::Arrays, codes, convert, model::package_error};
use mlconv_coreml::Existing;
use std::{fs, io, path::Path};

/// Ops that a part may have.
const MOST: usize = 10;

/// Refuses a folder before work is spent on it.
pub fn check(folder: &Path) -> Result<(), Diagnostic> {
    let place = folder.display().to_string();
    if folder.symlink_metadata().is_ok() {
        return Err(Diagnostic::error(&codes::X0002, "there is something of that name already").at(place));
    }
    let parent = folder.parent().filter(|p| !p.as_os_str().is_empty());
    match parent.filter(|p| !p.is_dir()) {
        Some(parent) => {
            let title = format!("there is no folder `{}` to write to", parent.display());
            Err(Diagnostic::error(&codes::X0001, title).at(place))
        }
        None => Ok(()),
    }
}

/// Writes the first op to blame, with the ops that lead to it from values that the first model has, to a new folder:
/// `part.mlpackage`, what it begins with in `inputs.npz`, what the first model has for it in `expected.npz`, and what is
/// known of it in `README.md`. A warning says why that cannot be done.
pub fn write(sides: Sides<'_>, found: &Bisection, start: &Start, folder: &Path) -> Result<(), Diagnostic> {
    let place = || folder.display().to_string();
    let fail = |e: &io::Error| Diagnostic::error(&codes::X0001, format!("cannot write: {}", e.kind())).at(place());
    let cannot = |why: String| {
        Diagnostic::warning(
            &codes::N0004,
            format!("`--reduce` writes nothing: the op to blame cannot be taken out: {why}"),
        )
    };
    let first = found.culprits.first().ok_or_else(|| cannot("there is none".to_owned()))?;
    let Cut { part, begins, want, .. } = cut(sides, found, first.at, start)
        .ok_or_else(|| cannot("what it reads is not known of both models".to_owned()))?;
    let ops = part.len(sides.g);
    if ops > MOST {
        return Err(cannot(format!(
            "{ops} ops lie between it and what is known of both models, and {MOST} are the most"
        )));
    }
    let module = part.program(sides.g, &begins, None);
    let module = module.ok_or_else(|| cannot("it has branches or loops".to_owned()))?;
    let (module, package) = convert::package(module, &mut vec![]).map_err(|mut all| all.remove(0))?;
    let parent = folder.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let staged = tempfile::Builder::new().prefix(".mlconv-").tempdir_in(parent).map_err(|e| fail(&e))?;
    let target = staged.path().join("part.mlpackage");
    mlconv_coreml::write(&target, &package.model, &package.weights, Existing::Keep).map_err(|e| package_error(&e))?;
    let ports = |ports: &[mlconv_mil::ir::Port]| ports.iter().map(|p| p.name.to_string()).collect::<Vec<_>>();
    let f = &module.functions[0];
    let given: Arrays = ports(&f.sig.inputs).into_iter().zip(begins).collect();
    arrays::write_npz(&staged.path().join("inputs.npz"), &given)?;
    let expected: Arrays = ports(&f.sig.outputs).into_iter().zip(want).collect();
    arrays::write_npz(&staged.path().join("expected.npz"), &expected)?;
    let text = format!(
        "# An op that differs\n\n```\n{}```\n\n`part.mlpackage` holds it, with what leads to it; `inputs.npz` is what it \
         begins with, `expected.npz` what the source computes.\n\n```\nmlconv run part.mlpackage --inputs inputs.npz \
         --outputs got.npz\nmlconv diff expected.npz part.mlpackage --sample inputs.npz\nmlconv inspect part.mlpackage --mil\n```\n",
        culprit_text(sides, found, first, true)
    );
    fs::write(staged.path().join("README.md"), text).map_err(|e| fail(&e))?;
    let path = staged.keep();
    fs::rename(&path, folder).map_err(|e| {
        let _ = fs::remove_dir_all(&path);
        fail(&e)
    })
}
