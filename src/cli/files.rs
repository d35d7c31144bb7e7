//! Files that hold inputs: arrays and pictures.

use crate::{
    Diagnostic, Failure, arrays,
    arrays::Arrays,
    codes,
    names::listed,
    pictures::{self, Size},
};
use mlconv_tensor::{DType, Tensor};
use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

/// How pictures are read.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Pictures {
    /// Stretch pictures to this size, bilinearly; with the name of one, that one only; repeatable
    #[arg(long, value_name = "[NAME=]WIDTHxHEIGHT", value_parser = resize)]
    resize: Vec<(Option<String>, Size)>,
}

fn resize(text: &str) -> Result<(Option<String>, Size), String> {
    match text.rsplit_once('=') {
        Some((name, size)) => Ok((Some(name.to_owned()), size.parse()?)),
        None => Ok((None, text.parse()?)),
    }
}

impl Pictures {
    /// Reads arrays given as `FILE.npz`, `FILE.npy` or `NAME=FILE.npy`, and pictures in the place of the latter two; and
    /// what a user should know of them. Pictures of one name are rows of one array.
    pub(crate) fn read(&self, given: &[String]) -> Result<(Arrays, Vec<Diagnostic>), Failure> {
        let (mut out, mut notes, mut stacks) = (Arrays::new(), vec![], vec![]);
        for text in given {
            let (name, path) = named(text);
            let stem = || path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
            if pictures::is_picture(&path) {
                let name = name.unwrap_or_else(stem);
                let (picture, said) = pictures::read(&path, self.size(&name)).map_err(|d| vec![d])?;
                notes.extend(said);
                match out.get_mut(&name).filter(|_| stacks.contains(&name)) {
                    Some(stack) => *stack = stacked(stack, &picture).map_err(|why| refused(text, &why))?,
                    None => {
                        insert(&mut out, name.clone(), alone(&picture))?;
                        stacks.push(name);
                    }
                }
                continue;
            }
            let is_npz = path.extension().is_some_and(|e| e == "npz") || (name.is_none() && is_archive(&path));
            match (name, is_npz) {
                (None, true) => {
                    for (name, t) in arrays::read_npz(&path).map_err(|d| vec![d])? {
                        insert(&mut out, name, t)?;
                    }
                }
                (Some(_), true) => {
                    let d = Diagnostic::error(&codes::L0001, format!("{text}: an archive names its arrays itself"));
                    return Err(vec![d.help("give a .npy file, or the archive without a name")]);
                }
                (name, false) => {
                    let t = arrays::read_npy(&path).map_err(|d| vec![d])?;
                    insert(&mut out, name.unwrap_or_else(stem), t)?;
                }
            }
        }
        for name in &stacks {
            if let Some(t) = out.get_mut(name).filter(|t| t.shape().first() == Some(&1)) {
                *t = t.reshape(&t.shape()[1..]);
            }
        }
        let unused = |(name, _): &&(Option<String>, Size)| {
            !given.is_empty() && name.as_ref().map_or(stacks.is_empty(), |name| !stacks.contains(name))
        };
        if let Some((name, _)) = self.resize.iter().find(unused) {
            let what = name
                .as_ref()
                .map_or_else(|| "no picture is given".to_owned(), |n| format!("no picture is called `{n}`"));
            let d = Diagnostic::error(&codes::L0001, format!("`--resize`: {what}"));
            return Err(vec![d.help(format!("the pictures are {}", listed(&stacks)))]);
        }
        Ok((out, notes))
    }

    /// The size that a picture is to have: what is said of it, else what is said of all.
    fn size(&self, picture: &str) -> Option<Size> {
        let of = |name: Option<&str>| self.resize.iter().rev().find(|(n, _)| n.as_deref() == name).map(|(_, s)| *s);
        of(Some(picture)).or(of(None))
    }
}

fn refused(text: &str, why: &str) -> Failure {
    vec![Diagnostic::error(&codes::L0001, format!("{text}: {why}"))]
}

fn insert(out: &mut Arrays, name: String, t: Tensor) -> Result<(), Failure> {
    if out.contains_key(&name) {
        return Err(vec![Diagnostic::error(&codes::L0001, format!("array `{name}` is given twice"))]);
    }
    out.insert(name, t);
    Ok(())
}

/// A stack of one picture, with an axis for its channels.
fn alone(picture: &Tensor) -> Tensor {
    match *picture.shape() {
        [height, width] => picture.reshape(&[1, height, width, 1]),
        [height, width, channels] => picture.reshape(&[1, height, width, channels]),
        _ => picture.clone(),
    }
}

/// A stack with one more picture.
fn stacked(stack: &Tensor, picture: &Tensor) -> Result<Tensor, String> {
    let one = alone(picture);
    if stack.shape()[1..] != one.shape()[1..] {
        return Err(format!("pictures of one input differ: {:?} and {:?}", &stack.shape()[1..], &one.shape()[1..]));
    }
    let mut shape = stack.shape().to_vec();
    shape[0] += 1;
    let bytes = [stack.blob().read(), one.blob().read()].concat();
    let blob = mlconv_tensor::Bytes::from(bytes).into();
    Tensor::new(DType::U8, &shape, blob).map_err(|e| e.to_string())
}

/// The name and the file that a text gives.
pub(super) fn named(text: &str) -> (Option<String>, PathBuf) {
    match text.rsplit_once('=').filter(|_| !Path::new(text).exists()) {
        Some((name, path)) => (Some(name.to_owned()), PathBuf::from(path)),
        None => (None, PathBuf::from(text)),
    }
}

/// Whether the file begins as archives do.
fn is_archive(path: &Path) -> bool {
    let mut head = [0; 2];
    let read = path.is_file() && File::open(path).and_then(|mut f| f.read_exact(&mut head)).is_ok();
    read && &head == b"PK"
}
