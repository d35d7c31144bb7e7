//! What a user asks of the interface: images, labels, optional inputs, names, element types.

use super::args::in_the_middle;
use crate::{
    Diagnostic, Failure, codes,
    interface::{Classes, Floats, Image, Interface, Labels, Layout},
};
use clap::ValueEnum;
use std::{fs::File, io::Read, path::Path};

/// Bytes that a file of labels may have.
const MAX_LABELS: u64 = 16 << 20;

#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Interface")]
pub(crate) struct Asked {
    /// Make an input an image of a layout, `rgb`, `bgr`, `gray` or `gray16`, and have the model compute `(pixel * scale - mean)
    /// / std`, or `pixel * scale + bias`, of it, such as `x=rgb,scale=1/255,mean=0.5,std=0.2:0.2:0.3` or `x=rgb,imagenet`;
    /// see docs/interface.md; repeatable
    #[arg(long, value_name = "[NAME=]LAYOUT[,…]", value_parser = Image::parse)]
    pub(crate) image: Vec<Image>,
    /// Make an output, whose elements are 0 to 255, an image; repeatable
    #[arg(long, value_name = "NAME=LAYOUT", value_parser = output_image)]
    pub(crate) image_output: Vec<(String, Layout)>,
    /// Return the label of the best class, and a probability for each label: a file of a label a line, a JSON list, or labels
    /// such as `cat,dog`; integers are integer labels
    #[arg(long, value_name = "FILE|LABEL,…")]
    pub(crate) class_labels: Option<String>,
    /// The output that holds a score for each class, where there are several outputs
    #[arg(long, value_name = "NAME")]
    pub(crate) class_output: Option<String>,
    /// Make the scores probabilities with a softmax first
    #[arg(long)]
    pub(crate) class_softmax: bool,
    /// Let an input be left out: its elements are VALUE then, or 0; repeatable
    #[arg(long, value_name = "NAME[=VALUE]", value_parser = optional)]
    pub(crate) optional: Vec<(String, f64)>,
    /// Give an input or an output another name in the package; `run` takes either; repeatable
    #[arg(long, value_name = "OLD=NEW", value_parser = renaming)]
    pub(crate) rename: Vec<(String, String)>,
    /// Element type of inputs and outputs that are arrays of floats [default: that of the source]
    #[arg(long, value_enum)]
    pub(crate) io_precision: Option<IoPrecision>,
}

/// The element type of inputs and outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum IoPrecision {
    /// Half precision, from iOS 16 on
    Fp16,
    /// Single precision
    Fp32,
}

impl Asked {
    /// What is asked for, with the labels read.
    pub(crate) fn interface(&self) -> Result<Interface, Failure> {
        let unread = [("--class-output", self.class_output.is_some()), ("--class-softmax", self.class_softmax)];
        if let Some((option, _)) = unread.iter().find(|(_, given)| *given && self.class_labels.is_none()) {
            let d = Diagnostic::error(&codes::L0001, format!("`{option}` is about labels, and there are none"));
            return Err(vec![d.help("give them with `--class-labels`")]);
        }
        let labels = self.class_labels.as_deref().map(labels).transpose().map_err(|d| vec![d])?;
        let classes =
            labels.map(|labels| Classes { output: self.class_output.clone(), softmax: self.class_softmax, labels });
        Ok(Interface {
            images: self.image.clone(),
            output_images: self.image_output.clone(),
            classes,
            optional: self.optional.clone(),
            renamed: self.rename.clone(),
            floats: self.io_precision.map(|p| match p {
                IoPrecision::Fp16 => Floats::Fp16,
                IoPrecision::Fp32 => Floats::Fp32,
            }),
            ranges: vec![],
        })
    }
}

pub(crate) fn output_image(text: &str) -> Result<(String, Layout), String> {
    let pair = text.rsplit_once('=').and_then(|(name, layout)| Some((name.to_owned(), Layout::of(layout)?)));
    let named = pair.filter(|(name, _)| !name.is_empty());
    named.ok_or_else(|| "wanted the name of an output, `=`, and `rgb`, `bgr`, `gray` or `gray16`".to_owned())
}

pub(crate) fn optional(text: &str) -> Result<(String, f64), String> {
    let (name, value) = named(text).unwrap_or_default();
    let value = if value.is_empty() { Some(0.0) } else { value.parse().ok().filter(|x: &f64| x.is_finite()) };
    let pair = value.filter(|_| !name.is_empty()).map(|value| (name.to_owned(), value));
    pair.ok_or_else(|| "wanted the name of an input, and perhaps `=` and a number".to_owned())
}

/// The name of an input, and what is said of it, perhaps nothing.
pub(crate) fn named(text: &str) -> Option<(&str, &str)> {
    text.rsplit_once('=').or(Some((text, "")))
}

fn renaming(text: &str) -> Result<(String, String), String> {
    let whole = in_the_middle(text).filter(|(old, new)| !old.is_empty() && !new.is_empty());
    let pair = whole.map(|(old, new)| (old.to_owned(), new.to_owned()));
    pair.ok_or_else(|| "wanted the name of an input or output, `=`, and another name".to_owned())
}

/// Reads labels: of a file, where there is one of the name, else those in the text.
fn labels(text: &str) -> Result<Labels, Diagnostic> {
    let wrong = |why: String| Diagnostic::error(&codes::L0001, format!("--class-labels {text}: {why}"));
    let path = Path::new(text);
    let found = if path.is_file() {
        let mut bytes = vec![];
        let read = File::open(path).and_then(|f| f.take(MAX_LABELS + 1).read_to_end(&mut bytes));
        read.map_err(|e| Diagnostic::error(&codes::R0001, format!("cannot read the file: {e}")).at(text))?;
        if bytes.len() as u64 > MAX_LABELS {
            return Err(wrong(format!("a file of labels has at most {MAX_LABELS} bytes")));
        }
        let content = String::from_utf8(bytes).map_err(|_| wrong("the file is no text in UTF-8".to_owned()))?;
        listed(content.trim_start_matches('\u{feff}')).map_err(wrong)?
    } else if text.contains(',') {
        of_texts(text.split(',').map(|t| t.trim().to_owned()).collect())
    } else {
        return Err(wrong("there is no such file".to_owned()).help("several labels are given as `cat,dog`"));
    };
    let (count, empty) = match &found {
        Labels::Texts(texts) => (texts.len(), texts.iter().position(String::is_empty)),
        Labels::Integers(integers) => (integers.len(), None),
    };
    match (count, empty) {
        (0, _) => Err(wrong("there are no labels".to_owned())),
        (_, Some(at)) => Err(wrong(format!("label {} is empty", at + 1))),
        _ => Ok(found),
    }
}

/// The labels in the content of a file: a JSON list, or one a line.
fn listed(content: &str) -> Result<Labels, String> {
    if !content.trim_start().starts_with('[') {
        let lines = content.trim_end().lines().map(|l| l.trim().to_owned());
        return Ok(of_texts(lines.collect()));
    }
    let list: Vec<serde_json::Value> = serde_json::from_str(content).map_err(|e| format!("it is no JSON list: {e}"))?;
    let integers: Option<Vec<i64>> = list.iter().map(serde_json::Value::as_i64).collect();
    if let Some(integers) = integers {
        return Ok(Labels::Integers(integers));
    }
    let texts: Option<Vec<String>> = list.iter().map(|v| v.as_str().map(str::to_owned)).collect();
    texts.map(Labels::Texts).ok_or_else(|| "wanted texts, or integers of at most 64 bits, in the list".to_owned())
}

/// Integers where all are.
fn of_texts(texts: Vec<String>) -> Labels {
    let integers: Option<Vec<i64>> = texts.iter().map(|t| t.parse().ok()).collect();
    integers.filter(|i| !i.is_empty()).map_or(Labels::Texts(texts), Labels::Integers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_lines_or_a_list() {
        let texts = |all: &[&str]| Ok(Labels::Texts(all.iter().map(|t| (*t).to_owned()).collect()));
        assert_eq!(listed("cat\r\nbig dog\n\n"), texts(&["cat", "big dog"]));
        assert_eq!(listed(" [\"a\", \"1\"]"), texts(&["a", "1"]));
        assert_eq!(listed("0\n-1\n"), Ok(Labels::Integers(vec![0, -1])));
        assert_eq!(listed("[3, 4]"), Ok(Labels::Integers(vec![3, 4])));
        assert!(listed("[1, \"a\"]").is_err_and(|e| e.contains("wanted texts, or integers")));
        assert!(listed("[1,").is_err_and(|e| e.contains("no JSON list")));
    }

    #[test]
    fn options_are_names_and_values() {
        assert_eq!(optional("a=b=0.5"), Ok(("a=b".to_owned(), 0.5)));
        assert_eq!(optional("mask"), Ok(("mask".to_owned(), 0.0)));
        assert!(optional("mask=one").is_err() && optional("mask=nan").is_err() && optional("=1").is_err());
        assert_eq!(optional("mask="), Ok(("mask".to_owned(), 0.0)));
        assert_eq!(renaming("a=b=c=d"), Ok(("a=b".to_owned(), "c=d".to_owned())));
        assert!(renaming("a").is_err() && renaming("a=").is_err());
        assert_eq!(output_image("y=bgr"), Ok(("y".to_owned(), Layout::Bgr)));
        assert!(output_image("y").is_err() && output_image("y=red").is_err());
    }
}
