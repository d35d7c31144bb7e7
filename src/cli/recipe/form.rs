//! The forms that keys have, each with what it reads and what it writes.

use crate::{
    Diagnostic, codes,
    settings::{Field, toml},
};
use std::{
    ffi::{OsStr, OsString},
    path::Path,
};

/// How the value of a key is written, and how it becomes what is typed after its option.
#[derive(Clone, Copy)]
pub(super) enum Form {
    /// `true` or `false`.
    Flag,
    Text,
    /// A whole number.
    Count,
    /// A number above 0.
    Positive,
    /// Any number.
    Number,
    /// A whole number, or a text that may have a unit.
    Size,
    /// A list of texts, which those that are typed are added to.
    Texts,
    /// A list of texts, which those that are typed replace.
    Choices,
    /// Texts by name, as a table or as a list of texts as they are typed; what is typed replaces what has its name.
    Named(Named),
    /// Tables of a `pattern` and a `scheme`; only read.
    Rules,
    /// A file beside the recipe.
    File,
    /// A file beside the recipe where there is one, else a text.
    FileOrText,
    /// A list of files beside the recipe, each perhaps with a name before it; those that are typed replace them.
    Arrays,
}

/// How texts by name are written.
#[derive(Clone, Copy)]
pub(super) struct Named {
    /// Name and text of what is typed; `None` where it has no name.
    pub(super) split: fn(&str) -> Option<(&str, &str)>,
    /// What is typed after the `=`, of a value in a table.
    pub(super) value: fn(&Field<'_>) -> Result<String, Diagnostic>,
}

/// The value of a table that is a text.
pub(super) fn text_value(field: &Field<'_>) -> Result<String, Diagnostic> {
    field.text().map(str::to_owned)
}

/// The value of a table that is a number, or a text of one.
pub(super) fn number_value(field: &Field<'_>) -> Result<String, Diagnostic> {
    text_value(field).or_else(|_| Ok(field.number("a number", f64::is_finite)?.to_string()))
}

impl Form {
    /// What would be typed, each with its place; a flag that is `false` is nothing, and one that is `true` an empty text.
    /// `folder` is that of the recipe.
    pub(super) fn read<'a>(self, field: &Field<'a>, folder: &Path) -> Result<Vec<(OsString, Field<'a>)>, Diagnostic> {
        let one = |text: OsString| Ok(vec![(text, field.clone())]);
        let text = |f: Field<'a>| Ok((f.text()?.into(), f));
        match self {
            Self::Flag => Ok(if field.bool()? { vec![(OsString::new(), field.clone())] } else { vec![] }),
            Self::Text => one(field.text()?.into()),
            Self::Count => one(field.size(0)?.to_string().into()),
            Self::Positive => {
                let fits = |f: f64| f.is_finite() && f > 0.0;
                one(field.number("a number above 0", fits)?.to_string().into())
            }
            Self::Number => one(field.number("a number", f64::is_finite)?.to_string().into()),
            Self::Size => match field.text() {
                Ok(text) => one(text.into()),
                Err(_) => one(field.size(0)?.to_string().into()),
            },
            Self::Texts | Self::Choices => field.list()?.into_iter().map(text).collect(),
            Self::Named(_) if !field.is_table() => field.list()?.into_iter().map(text).collect(),
            Self::Named(named) => {
                let typed = |(name, f): (&str, Field<'a>)| {
                    let value = (named.value)(&f)?;
                    let typed = format!("{name}={value}");
                    if (named.split)(&typed) != Some((name, &value)) {
                        return Err(f.wrong("a `=` in it leaves open where the name ends"));
                    }
                    Ok((typed.into(), f))
                };
                field.entries()?.into_iter().map(typed).collect()
            }
            Self::Rules => field.list()?.into_iter().map(pattern_and_scheme).collect(),
            Self::File => one(folder.join(field.text()?).into()),
            Self::FileOrText => {
                let text = field.text()?;
                let whole = folder.join(text);
                if !whole.is_file() && !text.contains(',') {
                    let d = field.wrong(&format!("there is no file `{}`", whole.display()));
                    return Err(
                        d.help("files that a recipe names lie beside it; several labels are given as `cat,dog`")
                    );
                }
                one(if whole.is_file() { whole.into() } else { text.into() })
            }
            Self::Arrays => field.list()?.into_iter().map(|f| Ok((beside(folder, f.text()?), f))).collect(),
        }
    }

    /// The value in TOML of what is typed; `None` where another form is written. A path that is no text is an error.
    pub(super) fn write(self, typed: &[&OsStr]) -> Option<Result<String, Diagnostic>> {
        let texts: Result<Vec<&str>, &OsStr> = typed.iter().map(|t| t.to_str().ok_or(*t)).collect();
        let texts = match texts {
            Ok(texts) => texts,
            Err(t) => {
                let d = Diagnostic::error(&codes::L0001, "what is no text in UTF-8 cannot stand in a recipe");
                return Some(Err(d.at(t.display().to_string())));
            }
        };
        let first = texts.first().copied().unwrap_or_default();
        Some(Ok(match self {
            Self::Flag => "true".to_owned(),
            Self::Text | Self::File | Self::FileOrText => toml::text(first),
            Self::Count | Self::Size => first.parse().map_or_else(|_| toml::text(first), |n: i64| n.to_string()),
            Self::Positive | Self::Number => first.parse().map_or_else(|_| toml::text(first), |f: f64| f.to_string()),
            Self::Texts | Self::Choices | Self::Arrays => toml::list(&texts),
            Self::Named(Named { split, .. }) => match texts.iter().map(|t| split(t)).collect::<Option<Vec<_>>>() {
                Some(pairs) if distinct(&pairs) => toml::table(&pairs),
                _ => toml::list(&texts),
            },
            Self::Rules => return None,
        }))
    }
}

fn distinct(pairs: &[(&str, &str)]) -> bool {
    pairs.iter().enumerate().all(|(i, (name, _))| pairs[..i].iter().all(|(n, _)| n != name))
}

fn pattern_and_scheme(one: Field<'_>) -> Result<(OsString, Field<'_>), Diagnostic> {
    let t = one.table(&["pattern", "scheme"])?;
    let (Some(pattern), Some(scheme)) = (t.get("pattern"), t.get("scheme")) else {
        return Err(one.wrong("wanted a `pattern` and a `scheme`"));
    };
    Ok((format!("{}={}", pattern.text()?, scheme.text()?).into(), one))
}

/// `FILE` or `NAME=FILE`, with the file in `folder`.
fn beside(folder: &Path, text: &str) -> OsString {
    let whole = folder.join(text);
    match text.rsplit_once('=').filter(|_| !whole.exists()) {
        None => whole.into(),
        Some((name, file)) => {
            let mut out = OsString::from(format!("{name}="));
            out.push(folder.join(file));
            out
        }
    }
}
