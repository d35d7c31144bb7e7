//! The reference part of `docs/`, from the catalogues.

mod cli;

use crate::{Result, output::Output};
use mlconv_mil::{
    diagnostic::{Limit, codes},
    ops::OPS,
    reference,
    schema::Schema,
};
use mlconv_passes::{PASSES, Pass, Pipeline};
use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

const HEADER: &str = "<!-- Written by `cargo xtask gen`; do not edit. -->\n\n";

pub fn generate(root: &Path, output: &mut Output) -> Result<()> {
    let docs = root.join("docs");
    output.folder(&docs.join("ops"), &ops(root)?)?;
    let pages = [
        ("cli.md", cli::page()),
        ("errors.md", errors()),
        ("onnx.md", onnx()),
        ("pytorch-operators.md", pytorch()),
        ("passes.md", passes(root)?),
    ];
    for (name, text) in pages {
        output.file(&docs.join(name), &format!("{HEADER}{}\n", text.trim_end()))?;
    }
    Ok(())
}

/// The letters that codes begin with.
const ORIGINS: &[(char, &str)] = &[
    ('R', "reading a file"),
    ('F', "the frontend that lowers a source model"),
    ('V', "verification of a program"),
    ('P', "a pass"),
    ('X', "writing a package"),
    ('N', "numbers: a run or a comparison"),
    ('T', "a fault of the tool itself"),
    ('L', "the command line"),
];

fn errors() -> String {
    let mut out = "# Diagnostics\n\n\
        Every failure and every warning has a code, which does not change. The letter says where it comes from.\n\n\
        | letter | comes from |\n|---|---|\n"
        .to_owned();
    for (letter, from) in ORIGINS {
        let _ = writeln!(out, "| {letter} | {from} |");
    }
    for code in codes::ALL {
        let _ = write!(out, "\n## {}: {}\n\n{}\n", code.id, code.title, code.explain);
    }
    out
}

/// One page an op, with every form of it, and an index.
fn ops(root: &Path) -> Result<Vec<(String, String)>> {
    let mut forms: BTreeMap<&str, Vec<&Schema>> = BTreeMap::new();
    for op in OPS {
        forms.entry(op.schema.name).or_default().push(op.schema);
    }
    let cases = cases(&root.join("fixtures/ops"))?;
    let operators = lowered(&root.join("fixtures/conformance/lowered.toml"))?;
    let mut index = format!(
        "{HEADER}# Ops\n\nThe {} ops of MIL that are known. An op that is not known is kept as it is when a package is read and \
         written again; it cannot be run.\n\n| op | since | |\n|---|---|---|\n",
        forms.len()
    );
    let mut files = vec![];
    for (name, forms) in forms {
        let since = forms.iter().map(|s| s.since).min().map_or_else(String::new, |o| o.to_string());
        let says = plain(forms[0].doc.lines().next().unwrap_or_default());
        let _ = writeln!(index, "| [`{name}`]({name}.md) | {since} | {says} |");
        files.push((format!("{name}.md"), format!("{HEADER}{}", op_page(name, &forms, &cases, &operators))));
    }
    files.push(("README.md".to_owned(), index));
    Ok(files)
}

fn op_page(name: &str, forms: &[&Schema], cases: &[(String, String)], operators: &[Operator]) -> String {
    let mut out = String::new();
    for (i, form) in forms.iter().enumerate() {
        let text = plain(&reference::markdown(form));
        match text.split_once('\n') {
            // Of several forms, each has its own section below the name.
            Some((title, rest)) if forms.len() > 1 => {
                let above = if i == 0 { format!("{title}\n") } else { String::new() };
                let _ = write!(out, "{above}\n## Form of {}\n{rest}", form.since);
            }
            _ => out += &text,
        }
    }
    let of = |ops: fn(&Operator) -> &[String]| {
        let reads = |o: &&Operator| ops(o).iter().any(|op| op == name);
        operators.iter().filter(reads).map(|o| o.name.as_str()).collect::<Vec<_>>().join(", ")
    };
    let (alone, among) = (of(|o| &o.alone), of(|o| &o.among));
    if !alone.is_empty() {
        let _ = write!(out, "\nLowered from ONNX: {alone}.\n");
    }
    if !among.is_empty() {
        let _ = write!(out, "\nLowered from ONNX, together with other ops: {among}.\n");
    }
    let call = format!(" = {name}(");
    let links: Vec<String> = cases
        .iter()
        .filter(|(_, text)| text.contains(&call))
        .map(|(file, _)| format!("[`{file}`](../../fixtures/ops/{file})"))
        .collect();
    if !links.is_empty() {
        let _ = write!(out, "\nCases: {}.\n", links.join(", "));
    }
    out
}

/// Documentation without links that only rustdoc follows: of ``[`x`](Self::x)`` and ``[`x`]``, `` `x` `` stays.
fn plain(doc: &str) -> String {
    let mut out = String::new();
    let mut rest = doc;
    while let Some(at) = rest.find("[`") {
        let after = &rest[at + 1..];
        let Some(end) = after.find("`]") else { break };
        out += &rest[..at];
        out += &after[..=end];
        rest = &after[end + 2..];
        if rest.starts_with('(') && !rest.starts_with("(http") {
            rest = rest.split_once(')').map_or("", |(_, r)| r);
        }
    }
    out + rest
}

/// An operator of ONNX.
struct Operator {
    name: String,
    /// The ops that it may become alone.
    alone: Vec<String>,
    /// Those of which it becomes several.
    among: Vec<String>,
}

/// The operators of a list that `tests/lowered.py` wrote: both sides of each line are JSON too.
fn lowered(path: &Path) -> Result<Vec<Operator>> {
    let text = fs::read_to_string(path)?;
    let lines = text.lines().filter_map(|l| l.split_once(" = ")).filter(|(key, _)| key.starts_with('"'));
    let operator = |(name, ops): (&str, &str)| {
        let [alone, among] = serde_json::from_str(ops)?;
        Ok(Operator { name: serde_json::from_str(name)?, alone, among })
    };
    lines.map(operator).collect()
}

/// The fixtures in a folder, as name and text.
fn cases(folder: &Path) -> Result<Vec<(String, String)>> {
    let mut out = vec![];
    for path in files(folder)? {
        let name = path.file_name().and_then(|n| n.to_str()).ok_or("a fixture without a name")?.to_owned();
        out.push((name, fs::read_to_string(path)?));
    }
    Ok(out)
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut out: Vec<PathBuf> = fs::read_dir(folder)?.map(|e| Ok(e?.path())).collect::<Result<_>>()?;
    out.retain(|p| p.extension().is_some_and(|e| e == "mil"));
    out.sort();
    Ok(out)
}

fn passes(root: &Path) -> Result<String> {
    let mut out = "# Passes\n\n\
        A pass rewrites a program. `convert` runs one of two pipelines, `clean` with `--precision fp32` and `fp16` with \
        `--precision fp16`; `compress` runs `tidy` on packages, whose layers stay what they are. A group in brackets runs until nothing changes.\n\n| pipeline | passes |\n|---|---|\n"
        .to_owned();
    for (name, pipeline) in Pipeline::ALL {
        let group = |g: &mlconv_passes::Group| {
            let names: Vec<String> = g.passes.iter().map(|p| format!("[`{p}`](#{p})")).collect();
            if g.fixpoint { format!("( {} )", names.join(", ")) } else { names.join(", ") }
        };
        let groups: Vec<String> = pipeline.groups().map(group).collect();
        let _ = writeln!(out, "| `{name}` | {} |", groups.join(", "));
    }
    let mut all: Vec<&Pass> = PASSES.to_vec();
    all.sort_by_key(|p| p.name);
    for pass in all {
        let _ = write!(out, "\n## {}\n\n{}\n", pass.name, pass.doc);
        let folder = root.join("fixtures/passes").join(pass.name);
        let Some(first) = files(&folder).ok().and_then(|f| f.into_iter().next()) else { continue };
        let text = fs::read_to_string(&first)?;
        let (before, after) = text.split_once("// ----\n").unwrap_or((&text, ""));
        let _ = write!(out, "\n```\n{}\n```\n\nbecomes\n\n```\n{}\n```\n", program(before), program(after));
    }
    Ok(out)
}

/// A part of a fixture without the comments that steer its harness.
fn program(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|l| !l.starts_with("//")).collect();
    lines.join("\n").trim().to_owned()
}

/// What holds for all operators.
const ONNX_NOTES: &str = "\
Axes, sizes, limits and the like may be inputs of the model or computed by it. Where Core ML needs a size that only the run \
gives, the shape that the model states of the result serves: a model with the shapes of its results stated, such as \
`onnx.shape_inference` writes them, converts where one without may be refused.

Integers of 64 bits become ones of 32, float64 and bfloat16 become float32, and smaller integers are computed in 32 bits and \
wrap as in the source. Inputs of 8-bit floats, of integers of less than 8 bits, and of strings are refused: Core ML has no \
such tensors. An input without elements, which it does not have either, is left out of the package with a warning; the \
metadata names it under `com.github.mlconv.left-out`, and `mlconv run` ignores an array for it. `mlconv run` takes arrays of \
bfloat16 as NumPy writes those of `ml_dtypes`.

Core ML has tensors of at most five axes. Inside of a model there may be more: axes that an operator treats alike are joined, \
see [`rank_reduction`](passes.md#rank_reduction). Inputs and outputs of more than five axes are refused.

That 32 bits suffice is proven from shapes and constants where it can be, with integers of inputs taken to be below 2^30; where \
it cannot, one warning (`F0108`) names the nodes. The extremes of 64-bit integers, which exporters write for *no limit*, become \
those of 32 bits. Any other constant beyond 32 bits that is not a mere limit is an error that names it.

Sequences and optionals, which Core ML does not have, are resolved while converting: how many elements there are must be known, \
the elements need not be. A loop over them is written out, which takes a number of turns that is known. They cannot be inputs or \
outputs of a model.

Random numbers are drawn when the program runs, with the model's seed where it has one. They are other numbers than in the source: \
only the distribution is the same (`F0109`), and a comparison does not judge the outputs that follow from them. `Dropout` while \
training needs a seed, and its numbers are constants.

Those of the domain `com.microsoft` are what onnxruntime's optimizer and exporters for it write. The weights of `MatMulNBits` \
and `GatherBlockQuantized` keep their codes, scales and zero points from iOS 18 on (`--target ios18`); before, they are stored \
decoded. Of `ai.onnx.ml`, linear regression and what prepares features are lowered. Operators of other domains are refused, unless the model has them as functions.";

fn onnx() -> String {
    let mut rows: BTreeMap<(&str, &str), Vec<(i64, i64)>> = BTreeMap::new();
    for row in mlconv_onnx::rows() {
        rows.entry((row.domain, row.op)).or_default().push((*row.versions.start(), *row.versions.end()));
    }
    let latest = mlconv_onnx::LATEST;
    let mut out = format!(
        "# ONNX operators\n\nThe operators that are lowered, with the versions of their operator set. The newest set of \
         ONNX's own operators that is known is {latest}. A node whose form Core ML cannot express is reported with the node, \
         the operator and the reason; `mlconv check MODEL` lists all of them at once.\n\n{ONNX_NOTES}\n\n| operator | \
         versions |\n|---|---|\n"
    );
    for ((domain, op), mut versions) in rows {
        versions.sort_unstable();
        let name = if domain.is_empty() { op.to_owned() } else { format!("{domain}.{op}") };
        let _ = writeln!(out, "| {name} | {} |", ranges(&versions, latest));
    }
    out += "\n## Operators that are not lowered\n\n| operators | whose limit | why | what to do |\n|---|---|---|---|\n";
    for w in mlconv_onnx::WITHOUT {
        let name = |op: &&str| if w.domain.is_empty() { (*op).to_owned() } else { format!("{}.{op}", w.domain) };
        let names: Vec<String> = w.ops.iter().map(name).collect();
        let whose = match w.limit {
            Limit::CoreMl => "Core ML's",
            Limit::NotYet => "mlconv's, so far",
        };
        let _ = writeln!(out, "| {} | {whose} | {} | {} |", names.join(", "), w.why, w.help);
    }
    out
}

/// The operators of PyTorch, each with its overloads.
fn pytorch() -> String {
    let mut rows: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for (domain, signature) in mlconv_pytorch::signatures() {
        let (base, overload) = signature.name.split_once('.').unwrap_or((signature.name, "default"));
        rows.entry((domain, base)).or_default().push(overload);
    }
    let mut out = format!(
        "# Operators of PyTorch\n\nThe {} operators that are lowered, with their overloads; [PyTorch](pytorch.md) says how. The \
         twins that write their first argument (`add_` of `add`), and views and copies that only say where a tensor lies, are \
         read as well. A node whose form Core ML cannot express is reported with the node, the operator and the reason; `mlconv \
         check MODEL` lists all of them at once.\n\n| operator | overloads |\n|---|---|\n",
        rows.len()
    );
    for ((domain, base), mut overloads) in rows {
        overloads.sort_unstable();
        overloads.dedup();
        let list: Vec<String> = overloads.iter().map(|o| format!("`{o}`")).collect();
        let _ = writeln!(out, "| `{domain}::{base}` | {} |", list.join(", "));
    }
    out
}

/// Sorted ranges as text; those that touch are one.
fn ranges(sorted: &[(i64, i64)], latest: i64) -> String {
    let mut merged: Vec<(i64, i64)> = vec![];
    for (start, end) in sorted {
        match merged.last_mut() {
            Some((_, last)) if *start <= last.saturating_add(1) => *last = (*last).max(*end),
            _ => merged.push((*start, *end)),
        }
    }
    let range = |(start, end): &(i64, i64)| match (start, end) {
        (s, e) if *e >= latest => format!("since {s}"),
        (s, e) if s == e => s.to_string(),
        (s, e) => format!("{s} to {e}"),
    };
    merged.iter().map(range).collect::<Vec<_>>().join(", ")
}
