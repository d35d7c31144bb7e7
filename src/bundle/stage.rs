//! A folder that becomes a bundle: filled beside its place, and put there whole or not at all.

use super::FILE;
use crate::{Diagnostic, codes};
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// What a process that ends must undo.
#[derive(Default)]
struct Undone {
    /// The folder that is being filled.
    staged: Option<PathBuf>,
    /// A former bundle that was put aside, and where it was.
    aside: Option<(PathBuf, PathBuf)>,
}

static UNDONE: Mutex<Undone> = Mutex::new(Undone { staged: None, aside: None });

fn undone() -> MutexGuard<'static, Undone> {
    UNDONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes what is being staged, and puts back what it was to replace: for a process that is about to end.
pub fn abandon() {
    let Undone { staged, aside } = std::mem::take(&mut *undone());
    if let Some((old, target)) = aside {
        // Where the new one is in its place, this fails, as that is no empty folder, and the former one goes.
        if fs::rename(&old, target).is_err() {
            let _ = fs::remove_dir_all(old);
        }
    }
    // Nothing can be done about a folder that stays.
    let _ = staged.map(fs::remove_dir_all);
}

/// A folder that is removed when dropped, unless it has been renamed.
pub(super) struct Stage(pub(super) PathBuf);

impl Stage {
    pub(super) fn new(path: PathBuf) -> io::Result<Self> {
        fs::create_dir(&path)?;
        undone().staged = Some(path.clone());
        Ok(Self(path))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Nothing can be done about a folder that stays.
        let _ = fs::remove_dir_all(&self.0);
        undone().staged = None;
    }
}

/// Refuses a target that exists, unless it is a bundle or an empty folder that may be replaced.
pub(super) fn check_target(out: &Path, force: bool) -> Result<(), Diagnostic> {
    let place = out.display().to_string();
    if out.file_name().is_none() {
        return Err(Diagnostic::error(&codes::L0001, "the output names no folder").at(place));
    }
    if let Some(parent) = out.parent().filter(|p| !p.as_os_str().is_empty() && !p.is_dir()) {
        let d = Diagnostic::error(&codes::X0001, format!("there is no folder `{}` to write to", parent.display()));
        return Err(d.at(place));
    }
    if fs::symlink_metadata(out).is_err() {
        return Ok(());
    }
    if !force {
        let d = Diagnostic::error(&codes::X0002, "the folder exists").at(place);
        return Err(d.help("replace it with `--force`"));
    }
    let is_empty = || fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_none());
    if out.is_symlink() || !(out.join(FILE).is_file() || is_empty()) {
        return Err(Diagnostic::error(&codes::X0002, "what exists is no bundle, and is not replaced").at(place));
    }
    Ok(())
}

/// Puts a folder in the place of another one, or of none.
pub(super) fn put(staged: &Path, target: &Path) -> io::Result<()> {
    if fs::symlink_metadata(target).is_err() {
        return fs::rename(staged, target);
    }
    let mut old = staged.as_os_str().to_owned();
    old.push(".old");
    let old = PathBuf::from(old);
    undone().aside = Some((old.clone(), target.to_path_buf()));
    let done = fs::rename(target, &old).and_then(|()| {
        fs::rename(staged, target).inspect_err(|_| {
            // The first error is the one to tell.
            let _ = fs::rename(&old, target);
        })
    });
    undone().aside = None;
    done?;
    // The new one is in its place; what stays of the former is in nobody's way.
    let _ = fs::remove_dir_all(&old);
    Ok(())
}

pub(super) fn cannot_write(path: &Path, e: &io::Error) -> Diagnostic {
    Diagnostic::error(&codes::X0001, format!("the bundle cannot be written: {e}")).at(path.display().to_string())
}

/// Copies a folder with everything in it.
pub(super) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut todo = vec![(from.to_path_buf(), to.to_path_buf())];
    while let Some((from, to)) = todo.pop() {
        fs::create_dir(&to)?;
        for entry in fs::read_dir(&from)? {
            let entry = entry?;
            let (from, to) = (entry.path(), to.join(entry.file_name()));
            if from.is_dir() {
                todo.push((from, to));
            } else {
                fs::copy(&from, &to)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_ends_between_two_renames_loses_no_bundle() {
        let place = tempfile::tempdir().expect("a folder");
        let at = |name: &str| place.path().join(name);
        let names = || {
            let mut all: Vec<_> = fs::read_dir(place.path()).expect("there").flatten().map(|e| e.file_name()).collect();
            all.sort();
            all
        };
        let make = |name: &str| {
            fs::create_dir(at(name)).expect("room");
            fs::write(at(name).join(FILE), name).expect("room");
        };
        // The former one is aside, and the new one not yet in its place.
        make("b.old");
        make("b.tmp");
        *undone() = Undone { staged: Some(at("b.tmp")), aside: Some((at("b.old"), at("b"))) };
        abandon();
        assert_eq!((names(), fs::read_to_string(at("b").join(FILE)).ok()), (vec!["b".into()], Some("b.old".into())));
        // It is.
        make("b.old");
        *undone() = Undone { staged: None, aside: Some((at("b.old"), at("b"))) };
        abandon();
        assert_eq!(names(), ["b"]);
        // It never left.
        *undone() = Undone { staged: None, aside: Some((at("b.old"), at("b"))) };
        abandon();
        assert_eq!(names(), ["b"]);
        make("new");
        put(&at("new"), &at("b")).expect("it is put");
        assert_eq!((names(), fs::read_to_string(at("b").join(FILE)).ok()), (vec!["b".into()], Some("new".into())));
    }
}
