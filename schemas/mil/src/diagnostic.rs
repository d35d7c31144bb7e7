//! What is told to a person when something is wrong: a code, what was found and wanted, the place, and what to do.

use std::fmt;

macro_rules! codes {
    ($($id:ident $title:literal $explain:literal;)*) => {
        /// Every code. The letter says where it comes from: **R**eading, a **F**rontend, **V**erification, a **P**ass,
        /// e**X**port, **N**umerics, the **T**ool itself, the command **L**ine.
        pub mod codes {
            use super::Code;
            $(
                #[doc = $explain]
                pub static $id: Code = Code { id: stringify!($id), title: $title, explain: $explain };
            )*
            /// All of them.
            pub static ALL: &[&Code] = &[$(&$id),*];
        }
    };
}

codes! {
    R0001 "file cannot be read" "The operating system refused to open or read the file, or it is not there.";
    R0002 "format not recognised" "A model is recognised by its content: an ONNX file, an .mlpackage folder, or an .mlmodel file that holds an ML program. The file is neither, or its beginning is damaged.";
    R0003 "malformed model file" "The file is of the format it seems to be, but breaks off, contradicts itself, or holds a value that the format does not allow.";
    R0004 "path leaves the model's folder" "Data that a model keeps in other files must lie in the model's own folder. Absolute paths, `..` and links that lead elsewhere are refused.";
    R0005 "malformed weights" "A weight's type, shape, offset or length does not fit the bytes that are there.";
    R0006 "malformed package" "An .mlpackage folder must hold a Manifest.json that names the model and its weights.";
    R0007 "malformed tensor file" "A .npy or .npz file could not be read, or holds a type that has no place in a model.";
    R0008 "malformed picture" "The file is no PNG or JPEG file, breaks off, or is of a kind that is not read, such as one of four colours.";
    F0101 "operator not supported" "The source model uses an operator, or a form of one, that has no lowering to MIL. Every such node is listed; nothing is written.";
    F0102 "operator could not be lowered" "A lowering exists, but this node's arguments do not fit it.";
    F0103 "attribute not used" "The node has an attribute that its lowering does not know. It may change what the node means, so it is not ignored.";
    F0104 "value does not fit" "Core ML has 32-bit integers and floats. A constant of a wider type does not fit, and is not wrapped.";
    F0105 "input shape not known" "Core ML needs the rank of every input, and a size or a range for each of its dimensions.";
    F0106 "graph is not sound" "A node reads a value that nothing defines, two nodes define one value, or nodes depend on each other in a circle.";
    F0107 "interface adapted" "An input or output was renamed, left out, or changed its type because Core ML has no equal.";
    F0108 "computed in another type" "Core ML has no equal of the element type, and results may differ from the source's where they leave the range of the type that stands for it.";
    F0109 "random numbers" "A program draws other random numbers than the source, whether there is a seed or not: only their distribution is the same. Outputs that follow from them are run, and not judged.";
    F0110 "weights not read" "Data of constants are in a file that is not there, or so large that `check` does not read them. It judges the model without them, but for nodes that depend on what they say, such as a shape, and for what half precision cannot hold. A conversion needs and reads them.";
    V0001 "program is not sound" "The program breaks a rule of its op set: a type that an op does not take, an argument that must be constant, a value read before it is defined.";
    P0001 "pass failed" "A rewrite could not be carried out. This is a fault of the tool, not of the model.";
    P0101 "kept in 32-bit precision" "Half precision cannot hold a constant of the op, such as an epsilon of 1e-10, or a value that the op reads may be too small or too large for it. The op computes in 32 bits, and what it gives is cast back where that is safe. Ops with the same reason are one warning; the JSON report lists all of them.";
    P0102 "adapted to half precision" "Half precision does not hold a number of the op, such as the epsilon of a normalisation, and the op computes with the nearest number that does what it is for. Results change by little; the parity run says by how much. `--keep-fp32` with the name of the op keeps it as it was.";
    C0001 "nothing to compress" "A pattern or name matches no weight, or a scheme cannot be applied to any.";
    C0002 "compression cannot be as asked" "A scheme, a budget or a configuration asks for what cannot be done; nothing is written.";
    C0101 "target raised" "A compressed form, or several functions in one package, need a newer deployment target than the model has, and none was stated.";
    C0102 "weight not compressed" "A weight that was to be compressed is left as it is.";
    C0103 "scheme adapted" "Sizes do not divide as asked, so that the nearest that do are taken.";
    C0104 "few samples" "Ranges of activations come from samples. A few of them do not show how large values become.";
    C0105 "activation not quantized" "A value that was to be held in 8 bits stays as it is.";
    X0001 "package cannot be written" "The operating system refused to write the package, a file of arrays, or the result on stdout. A file or package that was there before is untouched.";
    X0002 "target exists" "The output exists, and replacing it was not asked for, or it is no package, or lies inside of one. Outputs of `run` replace a .npz file, and nothing else.";
    X0003 "not expressible for the target" "The program needs something that the chosen deployment target does not have.";
    X0004 "package breaks a rule of Core ML" "The package would not load, or would not mean what it should. This is a fault of the tool where it wrote the package.";
    X0005 "former package left behind" "The new package is in its place, but what was there before, which has been moved aside, could not be removed. It can be removed by hand.";
    X0006 "metadata differ" "A package of several functions has one set of metadata, and the packages that they come from have several.";
    N0001 "models differ" "The outputs of two models on the same inputs differ beyond tolerance.";
    N0002 "run failed" "An op could not be computed on these inputs.";
    N0003 "input does not fit" "An array given for an input has a shape or type other than declared, or no input has its name.";
    N0004 "arrays may not be what was meant" "An array is not used as no input has its name, arrays or outputs are matched in order as no name matches, or an array holds NaN. The run was made all the same.";
    N0005 "not finite" "An op gave an infinity or NaN although nothing that it reads has one: its result is beyond the range of the precision, or not defined.";
    N0006 "witness not available" "What runs the source of a comparison, which is onnxruntime where its library is found, or PyTorch where that is asked for, could not be loaded, or does not take the model. Unless it was asked for, the source's own lowering was the witness instead.";
    N0007 "not compared" "The source does not run on the inputs, or neither model gives a finite number for them, so the package was not compared with it. Made-up inputs need not be what the model is for: give samples with `--sample`.";
    T0001 "fault of the tool" "The tool came upon something that it should have foreseen. Nothing was written. Please report it, with the model if it may be shared.";
    L0001 "invalid command line" "An option or argument is missing, unknown or contradictory.";
    L0002 "request not applied" "Something was asked for that had no effect.";
}

/// A kind of diagnostic.
#[derive(Debug, PartialEq, Eq)]
pub struct Code {
    /// Such as `F0101`.
    pub id: &'static str,
    /// A few words.
    pub title: &'static str,
    /// A paragraph for `docs/errors.md`.
    pub explain: &'static str,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Something was adapted or approximated; the result is usable.
    Warning,
    /// There is no result.
    Error,
}

/// On whose side it is that something cannot be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Limit {
    /// Core ML has nothing that means the same.
    CoreMl,
    /// Core ML may have it; this tool does not make it yet.
    NotYet,
}

impl Limit {
    /// Its name in reports for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::CoreMl => "core_ml",
            Self::NotYet => "not_yet",
        }
    }
}

/// Nodes of a source that one message is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nodes {
    /// Their operator, where it is one for all.
    pub operator: Option<String>,
    /// How many there are; `place` names the first few.
    pub count: usize,
}

/// One message to a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Its kind.
    pub code: &'static Code,
    /// How bad it is.
    pub severity: Severity,
    /// What was found, and what was wanted; one line.
    pub title: String,
    /// Where, in the user's own model: a file, a node, a source line; outermost first.
    pub place: Vec<String>,
    /// A line of text to show, and the bytes of it that are at fault.
    pub snippet: Option<(String, std::ops::Range<usize>)>,
    /// On whose side it is, where that is known.
    pub limit: Option<Limit>,
    /// The nodes that it is about, where it is about nodes.
    pub nodes: Option<Nodes>,
    /// What to do.
    pub help: Option<String>,
}

impl Diagnostic {
    /// An error.
    pub fn error(code: &'static Code, title: impl Into<String>) -> Self {
        let (severity, title) = (Severity::Error, title.into());
        Self { code, severity, title, place: vec![], snippet: None, limit: None, nodes: None, help: None }
    }

    /// A warning.
    pub fn warning(code: &'static Code, title: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, title) }
    }

    /// Adds an inner place.
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.place.push(place.into());
        self
    }

    /// Adds an outer place.
    pub fn within(mut self, place: impl Into<String>) -> Self {
        self.place.insert(0, place.into());
        self
    }

    /// Says what to do.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Says on whose side it is.
    pub fn limit(mut self, limit: impl Into<Option<Limit>>) -> Self {
        self.limit = limit.into();
        self
    }

    /// Shows a line, with a part of it underlined.
    pub fn snippet(mut self, line: impl Into<String>, at: std::ops::Range<usize>) -> Self {
        self.snippet = Some((line.into(), at));
        self
    }
}

/// Characters of a snippet that are shown at most.
const MAX_LINE: usize = 160;

/// As much of a line as there is room for, around the part that is at fault.
fn shown(line: &str, at: std::ops::Range<usize>) -> (String, std::ops::Range<usize>) {
    let count = line.chars().count();
    if count <= MAX_LINE {
        return (line.to_owned(), at);
    }
    let chars = |end: usize| line.get(..end).map_or(0, |s| s.chars().count());
    let (start, end) = (chars(at.start), chars(at.end));
    let room = MAX_LINE.saturating_sub(end - start) / 2;
    let from = start.saturating_sub(room).min(count - MAX_LINE);
    let text: String = line.chars().skip(from).take(MAX_LINE).collect();
    let (before, after) = (if from > 0 { "…" } else { "" }, if from + MAX_LINE < count { "…" } else { "" });
    let byte = |n: usize| text.char_indices().nth(n).map_or(text.len(), |(i, _)| i) + before.len();
    let at = byte(start - from)..byte(end.min(from + MAX_LINE).max(start) - from);
    (format!("{before}{text}{after}"), at)
}

/// Whether a character shows as nothing, or as something else than what it is: it moves the cursor, ends a line, or turns the
/// direction of what follows.
pub fn hides(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fffe}' | '\u{ffff}')
}

/// Text with what hides written out, as `\n` or `\u{202e}`, but for characters that are `kept`.
pub fn visible(text: &str, kept: impl Fn(char) -> bool) -> std::borrow::Cow<'_, str> {
    let hidden = |c: char| hides(c) && !kept(c);
    if !text.contains(hidden) {
        return text.into();
    }
    let one = |c: char| if hidden(c) { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(one).collect::<String>().into()
}

/// Plain text, without colour; renderers may do better. Title, places, the line and the help are one line each, whatever a model
/// has put into them.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let line = |text| visible(text, |_| false);
        write!(f, "{kind}[{}]: {}", self.code.id, line(&self.title))?;
        if !self.place.is_empty() {
            write!(f, "\n  --> {}", visible(&self.place.join(", "), |_| false))?;
        }
        if let Some((line, at)) = &self.snippet {
            let (line, at) = shown(line, at.clone());
            let before = line.get(..at.start).map_or(0, |s| s.chars().count());
            let width = line.get(at.clone()).map_or(1, |s| s.chars().count()).max(1);
            // One character for another, so that what is at fault stays above its mark.
            let line: String = line.chars().map(|c| if hides(c) && c != '\t' { '\u{fffd}' } else { c }).collect();
            write!(f, "\n   | {line}\n   | {:before$}{}", "", "^".repeat(width))?;
        }
        match self.limit {
            Some(Limit::CoreMl) => write!(f, "\n   = note: it is Core ML that has no equal of it")?,
            Some(Limit::NotYet) => write!(f, "\n   = note: it is mlconv that does not do this yet")?,
            None => {}
        }
        if let Some(help) = &self.help {
            write!(f, "\n   = help: {}", line(help))?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostic {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_explained() {
        let mut ids: Vec<_> = codes::ALL.iter().map(|c| c.id).collect();
        ids.dedup();
        assert_eq!(ids.len(), codes::ALL.len());
        assert!(codes::ALL.iter().all(|c| c.explain.ends_with('.') && !c.title.ends_with('.')));
    }

    #[test]
    fn no_name_makes_a_line_or_moves_the_cursor() {
        let bad = "n\r\n= help: all is well\x1b[2K\u{202e}\u{61c}";
        let d = Diagnostic::error(&codes::F0103, bad).at(bad).snippet(bad, 0..2).help(bad).to_string();
        assert_eq!(d.lines().count(), 5, "{d:?}");
        assert!(!d.chars().any(|c| hides(c) && c != '\n'), "{d:?}");
        assert!(d.starts_with("error[F0103]: n\\r\\n= help: all is well\\u{1b}[2K\\u{202e}\\u{61c}\n"), "{d}");
        assert_eq!(visible("a\n\tb\r", |c| matches!(c, '\n' | '\t')), "a\n\tb\\r");
    }

    #[test]
    fn a_long_line_is_cut_around_what_is_at_fault() {
        let line = format!("{}BAD{}", "a".repeat(500), "b".repeat(500));
        let (text, at) = shown(&line, 500..503);
        assert_eq!((&text[at], text.chars().count()), ("BAD", MAX_LINE + 2));
        let (text, at) = shown(&line, 0..line.len());
        assert_eq!((at, text.ends_with("a…")), (0..MAX_LINE, true));
        let (text, at) = shown(&line, 1000..1003);
        assert_eq!((&text[at], text.ends_with('b')), ("bbb", true));
        let d = Diagnostic::error(&codes::F0103, "t").snippet(line, 0..1003).to_string();
        assert!(d.lines().all(|l| l.chars().count() < MAX_LINE + 10), "{d}");
    }

    #[test]
    fn a_snippet_is_underlined() {
        let d = Diagnostic::error(&codes::F0103, "attribute `auto_pad` of Conv is not used")
            .at("m.onnx")
            .at("node `c`")
            .snippet("%1 = Conv(%0, auto_pad=\"X\")", 14..26)
            .help("remove it");
        let want = "error[F0103]: attribute `auto_pad` of Conv is not used\n  --> m.onnx, node `c`\n   | %1 = Conv(%0, auto_pad=\"X\")\n   |               ^^^^^^^^^^^^\n   = help: remove it";
        assert_eq!(d.to_string(), want);
    }
}
