//! Tables of measurements: what compression costs the fixtures in accuracy.
//!
//! `cargo xtask tables` writes them with the tool itself; `cargo xtask tables --check` fails where they are no longer what
//! it finds.

use crate::Result;
use serde_json::Value;
use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const PAGE: &str = "docs/compression.md";
const BEGIN: &str = "<!-- measured by `cargo xtask tables` -->\n";
const END: &str = "<!-- end -->\n";

/// The models of the table.
const MODELS: [(&str, &str); 2] = [("digits_cnn", "CNN"), ("digits_transformer", "transformer")];

/// What `docs/compression.md` compares: every preset, and searches of about the same sizes.
fn rows() -> Vec<Vec<String>> {
    let presets = mlconv::compress::PRESETS.iter().map(|p| vec!["--preset".to_owned(), p.name.to_owned()]);
    let searches = ["6.5", "5.6", "4.5"].map(|bits| vec!["--target-bpw".to_owned(), bits.to_owned()]);
    presets.chain(searches).collect()
}

/// One model in one form.
struct Measured {
    bytes: u64,
    bits: f64,
    snr: f64,
    correct: u64,
}

/// Writes the tables, or checks them.
pub fn run(root: &Path, check: bool) -> Result<()> {
    let page = root.join(PAGE);
    let text = fs::read_to_string(&page)?;
    let (head, rest) = text.split_once(BEGIN).ok_or("docs/compression.md has no place for the table")?;
    let (_, tail) = rest.split_once(END).ok_or("docs/compression.md has no end of the table")?;
    let table = presets(root)?;
    let whole = format!("{head}{BEGIN}\n{table}\n{END}{tail}");
    if whole == text {
        return Ok(());
    }
    if check {
        return Err(format!("{PAGE} is not what is measured, run `cargo xtask tables`").into());
    }
    Ok(fs::write(page, whole)?)
}

fn presets(root: &Path) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let mut out = String::new();
    for (model, name) in MODELS {
        let package = folder.path().join(format!("{model}.mlpackage"));
        let source = root.join("fixtures/models").join(model).join("model.onnx");
        let json = mlconv(root, &["convert".as_ref(), source.as_os_str(), "-o".as_ref(), package.as_os_str()], true)?;
        let plain = measured(&json).ok_or("a conversion that measures nothing")?;
        let _ =
            writeln!(out, "| {name} | bytes | bits per weight | SNR, dB | top-1, % | by samples: SNR, dB | top-1, % |");
        let _ = writeln!(out, "|---|{}", "--:|".repeat(6));
        let _ = writeln!(out, "| as it is | {} | 16.00 | {:.1} | {} | | |", plain.bytes, plain.snr, points(&plain));
        for row in rows() {
            let by = |aware: bool| compressed(root, &package, folder.path(), &row, aware);
            let (Some(alone), Some(aware)) = (by(false)?, by(true)?) else { continue };
            let _ = writeln!(
                out,
                "| `{}` | {} | {:.2} | {:.1} | {} | {:.1} | {} |",
                row.join(" "),
                alone.bytes,
                alone.bits,
                alone.snr,
                points(&alone),
                aware.snr,
                points(&aware)
            );
        }
        out.push('\n');
    }
    out.truncate(out.trim_end().len());
    Ok(out + "\n")
}

fn points(m: &Measured) -> String {
    format!("{:.2}", m.correct as f64 * 100.0 / 360.0)
}

/// A package in one form; `None` where a search says that there is no such form.
fn compressed(root: &Path, package: &Path, folder: &Path, row: &[String], aware: bool) -> Result<Option<Measured>> {
    let out: PathBuf = folder.join("out.mlpackage");
    let train = root.join("fixtures/models/digits/train.npz");
    let mut args = vec!["compress".as_ref(), package.as_os_str(), "-o".as_ref(), out.as_os_str()];
    args.extend(row.iter().map(AsRef::<std::ffi::OsStr>::as_ref));
    args.extend(["--force", "--weight-threshold", "256", "--target", "ios18"].map(AsRef::<std::ffi::OsStr>::as_ref));
    args.extend(["--calibrate".as_ref(), train.as_os_str()]);
    if !aware {
        args.extend(["--rounding", "nearest"].map(AsRef::<std::ffi::OsStr>::as_ref));
    }
    Ok(measured(&mlconv(root, &args, false)?))
}

/// Runs the tool on the test images; what it reports.
fn mlconv(root: &Path, args: &[&std::ffi::OsStr], fail: bool) -> Result<Value> {
    let test = root.join("fixtures/models/digits/test.npz");
    let mut labels = test.clone().into_os_string();
    labels.push(":label");
    let run = Command::new(env!("CARGO"))
        .current_dir(root)
        .args(["run", "--release", "--quiet", "--"])
        .args(args)
        .arg("--sample")
        .arg(&test)
        .arg("--labels")
        .arg(&labels)
        .args(["--format", "json", "--quiet"])
        .output()?;
    if fail && !run.status.success() {
        return Err(String::from_utf8_lossy(&run.stderr).into_owned().into());
    }
    Ok(serde_json::from_slice(&run.stdout)?)
}

fn measured(json: &Value) -> Option<Measured> {
    let compression = &json["compression"];
    Some(Measured {
        bytes: compression["bytes_after"].as_u64().or_else(|| json["weights_bytes"].as_u64())?,
        bits: compression["bits_per_weight_after"].as_f64().unwrap_or(16.0),
        snr: json["parity"]["outputs"][0]["overall_snr_db"].as_f64()?,
        correct: json["parity"]["accuracy"][0]["package_correct"].as_u64()?,
    })
}
