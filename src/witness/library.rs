//! Where onnxruntime's shared library is looked for.

use std::{
    env::consts::{DLL_PREFIX, DLL_SUFFIX},
    ffi::OsStr,
    fs,
    path::{self, Path, PathBuf},
};

/// The variable that names the library, or a folder with it: the one that other programs take it from, too.
pub const VARIABLE: &str = "ORT_DYLIB_PATH";

/// Where to look, and whether the user said so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Search {
    /// Files, and names that the system's loader looks for in its own places; the best first.
    pub(super) candidates: Vec<PathBuf>,
    /// Whether the variable names them.
    pub(super) named: bool,
    /// What the variable says, where it leads to nothing.
    pub(super) missing: Option<PathBuf>,
}

/// Looks where the variable says; where it says nothing, by the loader's usual names.
pub(super) fn search(variable: Option<&OsStr>) -> Search {
    let Some(said) = variable.filter(|v| !v.is_empty()).map(Path::new) else {
        return Search { candidates: usual(), named: false, missing: None };
    };
    if said.is_dir() {
        // A folder of Python's packages, that of the package, or the one in it that has the library.
        let inner = ["", "capi", "onnxruntime/capi", "lib"];
        let found = inner.iter().map(|i| libraries(&said.join(i))).find(|l| !l.is_empty());
        let missing = found.is_none().then(|| said.to_path_buf());
        return Search { candidates: found.unwrap_or_default(), named: true, missing };
    }
    // A name alone may be one for the loader.
    if said.is_file() || said.components().count() > 1 {
        let missing = (!said.is_file()).then(|| said.to_path_buf());
        let file = path::absolute(said).unwrap_or_else(|_| said.to_path_buf());
        return Search { candidates: if missing.is_none() { vec![file] } else { vec![] }, named: true, missing };
    }
    Search { candidates: vec![said.to_path_buf()], named: true, missing: None }
}

/// The names that installations give the library, and where they put it if the loader does not look there.
fn usual() -> Vec<PathBuf> {
    let plain = format!("{DLL_PREFIX}onnxruntime{DLL_SUFFIX}");
    let mut out = vec![PathBuf::from(&plain)];
    if cfg!(all(unix, not(target_os = "macos"))) {
        // Without the files for developers, there is only the name that programs are linked with.
        out.push(PathBuf::from(format!("{plain}.1")));
    }
    if cfg!(target_os = "macos") {
        let folders = ["/opt/homebrew/lib", "/usr/local/lib"];
        out.extend(folders.iter().map(|f| Path::new(f).join(&plain)).filter(|p| p.is_file()));
    }
    out
}

/// The libraries in a folder, the newest first; those of single accelerators are others.
fn libraries(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<(Vec<u64>, PathBuf)> = vec![];
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        let Some(version) = name.to_str().and_then(version_of).filter(|_| path.is_file()) else { continue };
        found.push((version, path::absolute(&path).unwrap_or(path)));
    }
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, path)| path).collect()
}

/// The numbers in a library's name, such as `libonnxruntime.so.1.31.1` or `libonnxruntime.1.31.1.dylib`; `None` for any
/// other file.
fn version_of(name: &str) -> Option<Vec<u64>> {
    let rest = name.strip_prefix("libonnxruntime.").or(name.strip_prefix("onnxruntime."))?;
    let suffix = |word: &str| ["so", "dylib", "dll"].contains(&word);
    let words: Vec<&str> = rest.split('.').collect();
    let known = words.iter().any(|w| suffix(w)) && words.iter().all(|w| suffix(w) || w.parse::<u64>().is_ok());
    known.then(|| words.iter().filter_map(|w| w.parse().ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(search: &Search) -> Vec<String> {
        let name = |p: &PathBuf| p.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        search.candidates.iter().map(name).collect()
    }

    #[test]
    fn a_folder_gives_its_newest_library() {
        let place = tempfile::tempdir().expect("a folder");
        let capi = place.path().join("onnxruntime/capi");
        fs::create_dir_all(&capi).expect("room");
        for name in [
            "libonnxruntime.so.1.9.0",
            "libonnxruntime.so.1.31.1",
            "libonnxruntime_providers_shared.so",
            "onnxruntime_pybind11_state.so",
            "libonnxruntime.so.txt",
        ] {
            fs::write(capi.join(name), b"").expect("room");
        }
        for folder in [place.path(), &place.path().join("onnxruntime"), &capi] {
            let found = search(Some(folder.as_os_str()));
            assert_eq!(names(&found), ["libonnxruntime.so.1.31.1", "libonnxruntime.so.1.9.0"]);
            assert!(found.named && found.missing.is_none() && found.candidates.iter().all(|c| c.is_absolute()));
        }
        let empty = tempfile::tempdir().expect("a folder");
        let found = search(Some(empty.path().as_os_str()));
        assert_eq!((found.candidates.len(), found.missing.as_deref()), (0, Some(empty.path())));
    }

    #[test]
    fn a_file_is_taken_and_a_name_left_to_the_loader() {
        let place = tempfile::tempdir().expect("a folder");
        let file = place.path().join("any.so");
        assert_eq!(search(Some(file.as_os_str())).missing.as_deref(), Some(&*file));
        fs::write(&file, b"").expect("room");
        assert_eq!(search(Some(file.as_os_str())).candidates, [file]);
        assert_eq!(names(&search(Some(OsStr::new("libother.so.1")))), ["libother.so.1"]);
    }

    #[test]
    fn without_the_variable_the_usual_names_are_tried() {
        let found = search(Some(OsStr::new("")));
        assert_eq!(found, search(None));
        assert!(!found.named && !found.candidates.is_empty());
        assert!(found.candidates.iter().all(|c| c.to_string_lossy().contains("onnxruntime")));
    }

    #[test]
    fn names_have_versions() {
        assert_eq!(version_of("libonnxruntime.1.22.0.dylib"), Some(vec![1, 22, 0]));
        assert_eq!(version_of("onnxruntime.dll"), Some(vec![]));
        assert_eq!(version_of("libonnxruntime.a"), None);
    }
}
