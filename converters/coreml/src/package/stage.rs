//! Outputs that appear whole or not at all.

use super::{MANIFEST, io_error};
use crate::{Access, Error, Result};
use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    process,
    sync::{Mutex, PoisonError},
};

/// What to do about a target that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Refuse to write.
    Keep,
    /// Replace it, if it is a package or an empty folder; a user may have mistyped anything else.
    Replace,
}

/// Held by the writer of this process, so that what bears this process's id and is not being written is stale.
static WRITER: Mutex<()> = Mutex::new(());

/// What this process is staging.
static STAGED: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Whether a package can be written to `target`, as far as can be said without writing.
pub fn check_target(target: &Path, existing: Existing) -> Result<()> {
    place(target, existing).map(|_| ())
}

/// Where a package is written that is to be `target`: there, or where a link leads that is to be replaced.
///
/// Errors: `target` exists and must stay, or lies inside of a package.
fn place(target: &Path, existing: Existing) -> Result<PathBuf> {
    let name = target.file_name().ok_or_else(|| Error::NoName { path: target.into() })?;
    // Without a slash at the end, which would lead through a link.
    let named = folder_of(target).join(name);
    check(&named, existing)?;
    let real =
        if named.is_symlink() { fs::canonicalize(&named).map_err(io_error(Access::Read, &named))? } else { named };
    outside(target, &real)?;
    Ok(real)
}

/// Whether a file that is no part of a package can be written to `path`, which is not inside of one then.
pub fn check_file(path: &Path) -> Result<()> {
    outside(path, path)
}

/// Refuses the path `named`, which is really `real`, where it lies inside of a package.
fn outside(named: &Path, real: &Path) -> Result<()> {
    let is_package = |p: &&Path| p.join(MANIFEST).is_file();
    // A folder that is not there is no part of a package; the operating system says what is wrong with it.
    if let Ok(folder) = fs::canonicalize(folder_of(real))
        && let Some(package) = folder.ancestors().find(is_package)
    {
        return Err(Error::InsidePackage { path: named.into(), package: package.into() });
    }
    Ok(())
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Lets `fill` write into a new folder beside `target`, then puts that folder in the target's place. On an error the
/// target is as it was and the folder is gone. Where the target is a link, the package that it leads to is replaced, and
/// the link stays.
///
/// A process that is killed leaves its folder, which the next writer of the same target removes. One that is killed
/// between the last two renames leaves the former target beside the place it had, as `.NAME.old-PID`.
///
/// The result is what could not be removed of the former target, which is no failure: the new one is in its place.
pub(super) fn replace(
    target: &Path,
    existing: Existing,
    fill: &dyn Fn(&Path) -> Result<()>,
) -> Result<Option<PathBuf>> {
    let target = &place(target, existing)?;
    let name = target.file_name().ok_or_else(|| Error::NoName { path: target.into() })?;
    let parent = folder_of(target);
    let _writer = WRITER.lock().unwrap_or_else(PoisonError::into_inner);
    remove_stale(parent, name);
    let id = process::id();
    let staged = Staged::new(parent.join(beside(name, &format!("tmp-{id}"))));
    // The folder is what the user knows; what is staged in it is not.
    fs::create_dir(&staged.0).map_err(io_error(Access::Write, parent))?;
    fill(&staged.0)?;
    // Time has passed; somebody else may have written the target.
    check(target, existing)?;
    let rename = |from: &Path, to: &Path| fs::rename(from, to).map_err(io_error(Access::Rename, from));
    if fs::symlink_metadata(target).is_err() {
        return rename(&staged.0, target).map(|()| None);
    }
    let old = parent.join(beside(name, &format!("old-{id}")));
    rename(target, &old)?;
    if let Err(e) = rename(&staged.0, target) {
        // The first error is the one to tell.
        let _ = fs::rename(&old, target);
        return Err(e);
    }
    Ok(remove(&old).err().map(|_| old))
}

/// Removes what this process is staging: for a process that is about to end.
pub fn abandon() {
    let staged = STAGED.lock().unwrap_or_else(PoisonError::into_inner).take();
    // Nothing can be done about a folder that stays; the next writer tries again.
    let _ = staged.map(fs::remove_dir_all);
}

/// A folder that is removed when dropped, unless it has been renamed.
struct Staged(PathBuf);

impl Staged {
    fn new(path: PathBuf) -> Self {
        *STAGED.lock().unwrap_or_else(PoisonError::into_inner) = Some(path.clone());
        Self(path)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Nothing can be done about a folder that stays; the next writer tries again.
        let _ = fs::remove_dir_all(&self.0);
        *STAGED.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

fn check(target: &Path, existing: Existing) -> Result<()> {
    let path = || target.to_path_buf();
    if fs::symlink_metadata(target).is_err() {
        return Ok(());
    }
    if existing == Existing::Keep {
        return Err(Error::Exists { path: path() });
    }
    let empty = || fs::read_dir(target).is_ok_and(|mut entries| entries.next().is_none());
    if target.join(MANIFEST).is_file() || empty() { Ok(()) } else { Err(Error::NotReplaceable { path: path() }) }
}

/// `.NAME.suffix`
fn beside(name: &std::ffi::OsStr, suffix: &str) -> OsString {
    let mut out = OsString::from(".");
    out.push(name);
    out.push(".");
    out.push(suffix);
    out
}

/// Removes what killed writers of the same target left. Only Linux tells cheaply which processes live.
fn remove_stale(parent: &Path, name: &std::ffi::OsStr) {
    let prefix = beside(name, "tmp-");
    let (Some(prefix), true) = (prefix.to_str(), cfg!(target_os = "linux")) else { return };
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let file_name = entry.file_name();
        let id = file_name.to_str().and_then(|n| n.strip_prefix(prefix)).and_then(|id| id.parse::<u32>().ok());
        let Some(id) = id else { continue };
        if id == process::id() || !Path::new("/proc").join(id.to_string()).exists() {
            // What stays is in nobody's way.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn remove(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("a folder").map(|e| e.expect("an entry").file_name());
        let mut names: Vec<String> = entries.map(|n| n.into_string().expect("plain")).collect();
        names.sort();
        names
    }

    fn manifest(text: &str) -> impl Fn(&Path) -> Result<()> {
        move |folder| {
            fs::write(folder.join(MANIFEST), text).expect("room");
            Ok(())
        }
    }

    fn text(target: &Path) -> String {
        fs::read_to_string(target.join(MANIFEST)).expect("a manifest")
    }

    #[test]
    fn a_target_is_replaced_only_when_asked() {
        let dir = tempfile::tempdir().expect("a folder");
        let target = dir.path().join("a.mlpackage");
        replace(&target, Existing::Keep, &manifest("1")).expect("written");
        assert!(matches!(replace(&target, Existing::Keep, &manifest("2")), Err(Error::Exists { .. })));
        assert_eq!(text(&target), "1");
        replace(&target, Existing::Replace, &manifest("2")).expect("replaced");
        assert_eq!((text(&target), names(dir.path())), ("2".into(), vec!["a.mlpackage".into()]));
    }

    #[test]
    fn a_failed_write_leaves_the_target_and_nothing_else() {
        let dir = tempfile::tempdir().expect("a folder");
        let target = dir.path().join("a.mlpackage");
        replace(&target, Existing::Keep, &manifest("1")).expect("written");
        let full = |folder: &Path| {
            manifest("half")(folder)?;
            Err(io_error(Access::Write, folder)(io::ErrorKind::StorageFull.into()))
        };
        assert!(replace(&target, Existing::Replace, &full).is_err());
        assert!(replace(&dir.path().join("new"), Existing::Keep, &full).is_err());
        assert_eq!((text(&target), names(dir.path())), ("1".into(), vec!["a.mlpackage".into()]));
    }

    #[test]
    fn a_panic_leaves_nothing() {
        let dir = tempfile::tempdir().expect("a folder");
        let panics =
            std::panic::AssertUnwindSafe(|| replace(&dir.path().join("a"), Existing::Keep, &|_| panic!("a bug")));
        assert!(std::panic::catch_unwind(panics).is_err());
        assert_eq!(names(dir.path()), [""; 0]);
        replace(&dir.path().join("a"), Existing::Keep, &manifest("1")).expect("the lock is not lost");
    }

    #[test]
    fn a_target_that_appears_meanwhile_is_kept() {
        let dir = tempfile::tempdir().expect("a folder");
        let target = dir.path().join("a");
        let other = target.clone();
        let race = move |folder: &Path| {
            fs::create_dir(&other).expect("room");
            manifest("theirs")(&other)?;
            manifest("ours")(folder)
        };
        assert!(matches!(replace(&target, Existing::Keep, &race), Err(Error::Exists { .. })));
        assert_eq!((text(&target), names(dir.path())), ("theirs".into(), vec!["a".into()]));
    }

    #[test]
    fn what_is_no_package_is_not_replaced() {
        let dir = tempfile::tempdir().expect("a folder");
        let home = dir.path().join("home");
        fs::create_dir(&home).expect("room");
        replace(&home, Existing::Replace, &manifest("1")).expect("an empty folder may go");
        fs::remove_file(home.join(MANIFEST)).expect("there");
        fs::write(home.join("diary"), "dear").expect("room");
        let file = dir.path().join("file");
        fs::write(&file, "text").expect("room");
        for target in [&home, &file] {
            assert!(matches!(replace(target, Existing::Replace, &manifest("2")), Err(Error::NotReplaceable { .. })));
        }
        assert_eq!(names(&home), ["diary"]);
        for nameless in ["/", "..", ""] {
            assert!(matches!(
                replace(Path::new(nameless), Existing::Replace, &manifest("2")),
                Err(Error::NoName { .. })
            ));
        }
    }

    #[test]
    fn nothing_is_written_into_a_package() {
        let dir = tempfile::tempdir().expect("a folder");
        let outer = dir.path().join("a.mlpackage");
        replace(&outer, Existing::Keep, &manifest("1")).expect("written");
        fs::create_dir_all(outer.join("Data/deep")).expect("room");
        for inner in ["b.mlpackage", "Data/deep/b.mlpackage", "Data/../b.mlpackage"] {
            let inside = outer.join(inner);
            for existing in [Existing::Keep, Existing::Replace] {
                assert!(matches!(check_target(&inside, existing), Err(Error::InsidePackage { .. })), "{inner}");
                assert!(matches!(replace(&inside, existing, &manifest("2")), Err(Error::InsidePackage { .. })));
            }
        }
        assert_eq!(names(&outer), ["Data", MANIFEST]);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_followed() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().expect("a folder");
        let far = dir.path().join("far");
        fs::create_dir(&far).expect("room");
        replace(&far.join("real"), Existing::Keep, &manifest("1")).expect("written");
        let link = dir.path().join("link");
        symlink("far/real", &link).expect("a link");
        for slash in ["", "/"] {
            let link = PathBuf::from(format!("{}{slash}", link.display()));
            assert!(matches!(replace(&link, Existing::Keep, &manifest("2")), Err(Error::Exists { .. })));
            replace(&link, Existing::Replace, &manifest(&format!("2{slash}"))).expect("replaced");
            assert_eq!(text(&far.join("real")), format!("2{slash}"));
        }
        assert!(link.is_symlink());
        assert_eq!((names(&far), names(dir.path())), (vec!["real".into()], vec!["far".into(), "link".into()]));
        // What it leads to is no package, or not there.
        fs::write(far.join("note"), "dear").expect("room");
        for (name, to) in [("to_far", "far"), ("to_note", "far/note"), ("to_nothing", "far/none")] {
            let link = dir.path().join(name);
            symlink(to, &link).expect("a link");
            let found = replace(&link, Existing::Replace, &manifest("3"));
            assert!(matches!(found, Err(Error::NotReplaceable { .. })), "{name}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_killed_writers_left_is_removed() {
        let dir = tempfile::tempdir().expect("a folder");
        // Linux allots no process id this high; process 1 lives.
        let own = format!(".a.tmp-{}", process::id());
        for name in [".a.tmp-4294967295", ".a.tmp-1", ".b.tmp-4294967295", ".a.tmp-x", &own] {
            fs::create_dir(dir.path().join(name)).expect("room");
        }
        replace(&dir.path().join("a"), Existing::Keep, &manifest("1")).expect("written");
        assert_eq!(names(dir.path()), [".a.tmp-1", ".a.tmp-x", ".b.tmp-4294967295", "a"]);
    }
}
