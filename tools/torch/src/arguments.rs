//! The command line.

use std::{ffi::OsString, path::PathBuf};

const HELP: &str = "\
Runs a TorchScript model in libtorch for `mlconv convert` and `mlconv verify` with `--source-runtime torch`,
which start this program where it is on the PATH or MLCONV_TORCH names it.

Usage: mlconv-torch [--format torchscript] [--threads N] [--] MODEL.pt

Arrays go in on stdin and come out on stdout, as messages of mlconv's own.
";

/// What is to be served.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Arguments {
    pub(crate) model: PathBuf,
    pub(crate) threads: i32,
}

/// What a command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// A text.
    Text(String),
    /// Runs of a model.
    Serve(Arguments),
}

impl Arguments {
    pub(crate) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Asked, String> {
        let (mut words, mut model, mut threads) = (words.into_iter(), None, 1);
        let mut options = true;
        while let Some(word) = words.next() {
            let option = word.to_str().filter(|w| options && w.starts_with('-'));
            let mut value = |name: &str| {
                let text = words.next().and_then(|w| w.into_string().ok());
                text.ok_or_else(|| format!("`{name}` wants a value"))
            };
            match option {
                Some("--") => options = false,
                Some("--help" | "-h") => return Ok(Asked::Text(HELP.to_owned())),
                Some("--version" | "-V") => {
                    return Ok(Asked::Text(format!("mlconv-torch {}\n", env!("CARGO_PKG_VERSION"))));
                }
                Some("--threads") => {
                    let text = value("--threads")?;
                    let n = text.parse().ok().filter(|n| *n > 0);
                    threads = n.ok_or_else(|| format!("`--threads {text}`: wanted a number above 0"))?;
                }
                Some("--format") => {
                    let format = value("--format")?;
                    if format != "torchscript" {
                        return Err(format!("`--format {format}`: libtorch runs TorchScript, `torchscript`"));
                    }
                }
                Some(other) => return Err(format!("`{other}` is no option; `mlconv-torch --help` lists them")),
                None if model.is_some() => return Err("there is more than one model".to_owned()),
                None => model = Some(PathBuf::from(word)),
            }
        }
        let model = model.ok_or("there is no model; `mlconv-torch --help` says how this is used")?;
        Ok(Asked::Serve(Self { model, threads }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Asked, String> {
        Arguments::parse(words.iter().map(OsString::from))
    }

    #[test]
    fn a_model_and_options() {
        let serve = |model: &str, threads| Ok(Asked::Serve(Arguments { model: model.into(), threads }));
        assert_eq!(parse(&["m.pt"]), serve("m.pt", 1));
        assert_eq!(parse(&["--format", "torchscript", "--threads", "4", "--", "-m.pt"]), serve("-m.pt", 4));
        assert!(matches!(parse(&["--help"]), Ok(Asked::Text(text)) if text.contains("Usage")));
    }

    #[test]
    fn anything_else_is_refused() {
        for (words, why) in [
            (&[][..], "there is no model"),
            (&["a.pt", "b.pt"], "more than one model"),
            (&["--threads", "0", "m.pt"], "above 0"),
            (&["--threads"], "wants a value"),
            (&["--format", "pt2", "m.pt2"], "runs TorchScript"),
            (&["--fast", "m.pt"], "is no option"),
        ] {
            assert!(parse(words).expect_err("refused").contains(why), "{words:?}");
        }
    }
}
