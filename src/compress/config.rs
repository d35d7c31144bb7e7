//! Configuration files of coremltools: which op gets which scheme, in its own words.

use super::Assigned;
use crate::{
    Diagnostic, codes,
    names::nearest,
    settings::{Field, Settings, Syntax},
};
use mlconv_mil::ops::OPS;
use mlconv_passes::compress::{
    Along, Code, Entries, Left, Linear, PALETTE_BITS, Palette, Prune, Range, Reader, Scheme, Share, Weight,
};
use mlconv_tensor::{DType, f16};
use std::path::Path;

/// Elements below which Core ML's tools keep a constant in the program itself, and never compress it.
const IN_PLACE: usize = 10;

/// An `OptimizationConfig` of coremltools, read from its YAML form.
#[derive(Clone, Debug)]
pub struct Config {
    file: String,
    global: Option<Entry>,
    op_types: Vec<(String, Option<Entry>)>,
    names: Vec<(String, Option<Entry>)>,
}

/// One config of an op; absent where the file says `null`, which leaves weights alone.
#[derive(Clone, Debug, PartialEq)]
struct Entry {
    scheme: Scheme,
    /// Elements up to which weights are left alone.
    threshold: usize,
    /// Weights of which a smaller part would be zero are left alone, in `0..=1`.
    least_sparsity: Option<f64>,
}

/// The classes of configs, by name.
const CLASSES: [(&str, Class); 4] = [
    ("OpLinearQuantizerConfig", Class::Linear),
    ("OpPalettizerConfig", Class::Palette),
    ("OpMagnitudePrunerConfig", Class::Magnitude),
    ("OpThresholdPrunerConfig", Class::Threshold),
];

#[derive(Clone, Copy)]
enum Class {
    Linear,
    Palette,
    Magnitude,
    Threshold,
}

impl Config {
    /// Reads a file. A config that states no `weight_threshold` has `threshold`, in elements.
    ///
    /// Errors: a file that cannot be read (R0001); keys that do not exist, values that do not fit, and what a file cannot
    /// say (C0002), with their place.
    pub fn read(path: &Path, threshold: usize) -> Result<Self, Diagnostic> {
        Self::of(&Settings::read(path, Syntax::Yaml, &codes::C0002)?, threshold)
    }

    fn of(settings: &Settings, threshold: usize) -> Result<Self, Diagnostic> {
        let root = settings.root().table(&["config_type", "global_config", "op_type_configs", "op_name_configs"])?;
        let Some(class) = root.some("config_type") else {
            let names = CLASSES.map(|(name, _)| name).join(", ");
            return Err(root.wrong("`config_type` is missing").help(format!("it is one of {names}")));
        };
        let class = class_of(&class)?;
        let read = |field: &Field<'_>| Entry::read(field, class, threshold);
        let all = |key: &str| -> Result<Vec<(String, Option<Entry>)>, Diagnostic> {
            let Some(table) = root.some(key) else { return Ok(vec![]) };
            table.entries()?.iter().map(|(name, field)| Ok(((*name).to_owned(), read(field)?))).collect()
        };
        let op_types = all("op_type_configs")?;
        for (op, field) in root.some("op_type_configs").map_or(Ok(vec![]), |f| f.entries())? {
            let entry = op_types.iter().find(|(o, _)| o == op).and_then(|(_, e)| e.as_ref());
            if op == "const" {
                return Err(field.wrong("constants are no ops that read weights").help("use `global_config`"));
            }
            if entry.is_some_and(|e| e.is_structured() && !STRUCTURED.contains(&op)) {
                let d = field.wrong(&format!("n:m and block pruning are not for `{op}`"));
                return Err(d.help("they are for `conv` and `linear`; name a constant in `op_name_configs` to insist"));
            }
        }
        Ok(Self {
            file: settings.path().display().to_string(),
            global: root.get("global_config").map_or(Ok(None), |f| read(&f))?,
            op_types,
            names: all("op_name_configs")?,
        })
    }

    /// The least number of elements up to which some config leaves weights alone.
    pub(super) fn least_threshold(&self) -> Option<usize> {
        let all = self.op_types.iter().chain(&self.names).filter_map(|(_, e)| e.as_ref());
        all.chain(&self.global).map(|e| e.threshold).min()
    }

    /// What is to become of a weight: what its own name, the name of the op that reads it, the type of that op, or all ops
    /// have a config for, in this order.
    ///
    /// Errors: ops that read it have different configs.
    pub(super) fn assign(&self, w: &Weight) -> Result<Option<Assigned>, Diagnostic> {
        if let Some((name, entry)) = self.names.iter().find(|(name, _)| *name == w.name) {
            return Ok(Some(self.assigned(&format!("op_name_configs.{name}"), entry.as_ref(), w, true)));
        }
        let mut found: Option<(&Reader, Option<&Entry>, String)> = None;
        for reader in &w.readers {
            let (entry, key) = self.of_reader(reader);
            match &found {
                None => found = Some((reader, entry, key)),
                // Weights that are left alone anyway may be read by anything.
                Some((other, first, first_key)) if *first != entry && w.role.is_ok() => {
                    let name = |r: &Reader| r.names.first().cloned().unwrap_or_default();
                    let d = Diagnostic::error(
                        &codes::C0002,
                        format!(
                            "ops that read `{}` have different configs: `{}` ({}) has `{first_key}`, `{}` ({}) has `{key}`",
                            w.name,
                            name(other),
                            other.op,
                            name(reader),
                            reader.op,
                        ),
                    );
                    let help = format!("give `{}` a config of its own in `op_name_configs`", w.name);
                    return Err(d.at(self.file.clone()).help(help));
                }
                Some(_) => {}
            }
        }
        Ok(found.filter(|(_, _, key)| !key.is_empty()).map(|(_, entry, key)| self.assigned(&key, entry, w, false)))
    }

    /// The config of an op, and the key that it has; no key where there is none.
    fn of_reader(&self, r: &Reader) -> (Option<&Entry>, String) {
        if let Some((name, entry)) = self.names.iter().find(|(name, _)| r.names.contains(name)) {
            return (entry.as_ref(), format!("op_name_configs.{name}"));
        }
        if let Some((op, entry)) = self.op_types.iter().find(|(op, _)| op == r.op) {
            return (entry.as_ref(), format!("op_type_configs.{op}"));
        }
        (self.global.as_ref(), if self.global.is_some() { "global_config".to_owned() } else { String::new() })
    }

    fn assigned(&self, key: &str, entry: Option<&Entry>, w: &Weight, named: bool) -> Assigned {
        let rule = format!("{}: {key}", self.file);
        let Some(entry) = entry else {
            return Assigned { scheme: Scheme::default(), rule, named: false, left: None, by_config: true };
        };
        let least = entry.threshold.max(IN_PLACE - 1);
        let left = if w.tensor.count() <= least {
            Some(Left::Small(least).to_string())
        } else if w.role.is_ok() {
            entry.left(w, named)
        } else {
            None
        };
        Assigned { scheme: entry.scheme.clone(), rule, named: named && left.is_none(), left, by_config: true }
    }

    /// What the file asks for that concerns none of `weights`.
    pub(super) fn unapplied(&self, weights: &[Weight]) -> Vec<Diagnostic> {
        let warning = |title: String| Diagnostic::warning(&codes::L0002, title).at(self.file.clone());
        let mut out = vec![];
        for (name, _) in &self.names {
            let means = |w: &Weight| w.name == *name || w.readers.iter().any(|r| r.names.contains(name));
            if !weights.iter().any(means) {
                let d =
                    warning(format!("`op_name_configs.{name}` is the name of no weight, and of no op that reads one"));
                let names = weights.iter().flat_map(|w| w.readers.iter().flat_map(|r| &r.names).chain([&w.name]));
                out.push(match nearest(name, names.map(String::as_str)) {
                    Some(meant) => d.help(format!("`{meant}` may be meant; `mlconv inspect` shows the names")),
                    None => d.help("`mlconv inspect` shows the names"),
                });
            }
        }
        for (op, _) in &self.op_types {
            let names = || OPS.iter().map(|o| o.schema.name);
            // Configs are written for many models, which need not have every op.
            if !names().any(|n| n == op) {
                let d = warning(format!("`op_type_configs.{op}` is the type of no op"));
                out.push(match nearest(op, names()) {
                    Some(meant) => d.help(format!("`{meant}` may be meant; `mlconv ops` lists all of them")),
                    None => d.help("`mlconv ops` lists all of them"),
                });
            }
        }
        out
    }
}

/// Ops whose weights may be pruned by n:m or in blocks.
const STRUCTURED: [&str; 2] = ["conv", "linear"];

impl Entry {
    fn read(field: &Field<'_>, class: Class, threshold: usize) -> Result<Option<Self>, Diagnostic> {
        if field.is_null() {
            return Ok(None);
        }
        let stated = field.entries()?.into_iter().find(|(key, _)| *key == "config_type");
        let class = stated.map_or(Ok(class), |(_, field)| class_of(&field))?;
        let mut least_sparsity = None;
        let scheme = match class {
            Class::Linear => linear(field)?,
            Class::Palette => palette(field)?,
            Class::Magnitude => magnitude(field)?,
            Class::Threshold => {
                let t =
                    field.table(&["config_type", "threshold", "minimum_sparsity_percentile", "weight_threshold"])?;
                let limit =
                    t.get("threshold").map_or(Ok(1e-12), |f| f.number("a number of at least 0", fits_threshold))?;
                let part = |f: Field<'_>| f.number("a number from 0 to 1", |x| (0.0..=1.0).contains(&x));
                least_sparsity = Some(t.get("minimum_sparsity_percentile").map_or(Ok(0.5), part)?);
                Scheme { prune: Some(Prune::Threshold(limit)), code: None }
            }
        };
        let stated = field.entries()?.into_iter().find(|(key, _)| *key == "weight_threshold");
        let threshold = stated.map_or(Ok(threshold), |(_, f)| f.size(0))?;
        Ok(Some(Self { scheme, threshold, least_sparsity }))
    }

    fn is_structured(&self) -> bool {
        matches!(self.scheme.prune, Some(Prune::NofM { .. } | Prune::Block { .. }))
    }

    /// Why a weight, which could be compressed, is left as it is.
    fn left(&self, w: &Weight, named: bool) -> Option<String> {
        if self.is_structured() && !named && !w.readers.iter().all(|r| STRUCTURED.contains(&r.op)) {
            return Some("n:m and block pruning are for the weights of `conv` and `linear`".to_owned());
        }
        let (Some(least), Some(Prune::Threshold(limit))) = (self.least_sparsity, self.scheme.prune) else {
            return None;
        };
        let part = part_within(w, limit);
        (part < least).then(|| {
            format!("{:.1} % of its elements are within the threshold, fewer than {:.1} %", part * 100.0, least * 100.0)
        })
    }
}

fn fits_threshold(x: f64) -> bool {
    x.is_finite() && x >= 0.0
}

/// The part of the elements of a weight whose magnitude is `limit` at most.
fn part_within(w: &Weight, limit: f64) -> f64 {
    let within = match w.tensor.view::<f16>() {
        Some(halves) => halves.iter().filter(|x| x.to_f64().abs() <= limit).count(),
        None => w.tensor.to_f32().iter().filter(|x| f64::from(x.abs()) <= limit).count(),
    };
    within as f64 / w.tensor.count().max(1) as f64
}

fn class_of(field: &Field<'_>) -> Result<Class, Diagnostic> {
    if field.text().is_ok_and(|t| t.contains("Activation")) {
        let d = field.wrong("activations cannot be quantized by a configuration of weights");
        return Err(d.help("leave this config out"));
    }
    field.one_of(&CLASSES)
}

/// The word that a text is in any case, as modes may be written.
fn mode<T: Clone>(field: &Field<'_>, all: &[(&str, T)]) -> Result<T, Diagnostic> {
    let word = field.text().map(str::to_ascii_lowercase).unwrap_or_default();
    match all.iter().find(|(name, _)| *name == word) {
        Some((_, value)) => Ok(value.clone()),
        None => field.one_of(all),
    }
}

fn linear(field: &Field<'_>) -> Result<Scheme, Diagnostic> {
    #[derive(Clone, Copy)]
    enum Per {
        Tensor,
        Channel,
        Block,
    }
    let t = field.table(&["config_type", "mode", "dtype", "granularity", "block_size", "weight_threshold"])?;
    let symmetric = t.get("mode").map_or(Ok(true), |f| mode(&f, &[("linear_symmetric", true), ("linear", false)]))?;
    let dtypes = [("int8", DType::I8), ("uint8", DType::U8), ("int4", DType::I4), ("uint4", DType::U4)];
    let dtype = t.get("dtype").map_or(Ok(DType::I8), |f| f.one_of(&dtypes))?;
    let pers = [("per_tensor", Per::Tensor), ("per_channel", Per::Channel), ("per_block", Per::Block)];
    let per = t.get("granularity").map_or(Ok(Per::Channel), |f| f.one_of(&pers))?;
    let sizes = match t.get("block_size") {
        None => Share::Block(32),
        Some(f) if f.is_list() => Share::Blocks(f.list()?.iter().map(|f| f.size(0)).collect::<Result<_, _>>()?),
        Some(f) => match f.size(0)? {
            // All input channels in one block.
            0 => Share::Channel,
            n => Share::Block(n),
        },
    };
    let share = match per {
        Per::Tensor => Share::Tensor,
        Per::Channel => Share::Channel,
        Per::Block => sizes,
    };
    let code = Code::Linear(Linear { dtype, symmetric, share, range: Range::MinMax });
    Ok(Scheme { prune: None, code: Some(code) })
}

fn palette(field: &Field<'_>) -> Result<Scheme, Diagnostic> {
    let keys = [
        "config_type",
        "mode",
        "nbits",
        "granularity",
        "group_size",
        "channel_axis",
        "cluster_dim",
        "enable_per_channel_scale",
        "num_kmeans_workers",
        "lut_dtype",
        "weight_threshold",
    ];
    let function = |key: &str| field.entries().ok()?.into_iter().find(|(k, _)| *k == key);
    if let Some((_, f)) = function("lut_function") {
        let d = f.wrong("a file cannot hold a function");
        return Err(d.help("use the mode `kmeans`, `uniform` or `unique`"));
    }
    let t = field.table(&keys)?;
    let modes = [("kmeans", Entries::KMeans), ("uniform", Entries::Uniform), ("unique", Entries::Unique)];
    let entries = match t.get("mode") {
        None => Entries::KMeans,
        Some(f) if f.text().is_ok_and(|m| m.eq_ignore_ascii_case("custom")) => {
            let d = f.wrong("the mode `custom` needs a function, which a file cannot hold");
            return Err(d.help("use the mode `kmeans`, `uniform` or `unique`"));
        }
        Some(f) => mode(&f, &modes)?,
    };
    let fits = |i: i64| u8::try_from(i).is_ok_and(|i| PALETTE_BITS.contains(&i));
    let bits = t.some("nbits").map(|f| Ok((f.int("1, 2, 3, 4, 6 or 8", fits)?, f))).transpose()?;
    let bits = match (bits, &entries) {
        (Some((_, f)), Entries::Unique) => {
            return Err(f.wrong("the mode `unique` finds the number of bits by itself").help("leave `nbits` out"));
        }
        (None, Entries::Unique) => None,
        (Some((bits, _)), _) => Some(bits as u8),
        (None, _) => {
            return Err(t.wrong("`nbits` is missing").help("say how many bits an index has: 1, 2, 3, 4, 6 or 8"));
        }
    };
    let grouped = [("per_tensor", false), ("per_grouped_channel", true)];
    let grouped = t.get("granularity").map_or(Ok(false), |f| f.one_of(&grouped))?;
    // A size of 0 is all channels.
    let size = t.get("group_size").map_or(Ok(32), |f| f.size(0))?;
    let axis = t.some("channel_axis").map(|f| f.size(0)).transpose()?;
    let dim = t.get("cluster_dim").map(|f| Ok((f.int("1 to 8", |d| (1..=8).contains(&d))?, f))).transpose()?;
    if let Some((2.., f)) = &dim
        && entries == Entries::Uniform
    {
        return Err(f
            .wrong("entries of several elements are not for the mode `uniform`")
            .help("use the mode `kmeans`"));
    }
    if let Some(workers) = t.get("num_kmeans_workers") {
        // Threads are `--jobs`.
        workers.int("a whole number", |_| true)?;
    }
    let code = Code::Palette(Palette {
        bits,
        entries,
        group: (grouped && size > 0).then_some(size),
        input_groups: false,
        // It says how channels are grouped, and nothing where they are not.
        channel_axis: axis.filter(|_| grouped),
        vector: dim.map_or(1, |(d, _)| d as usize),
        channel_scale: t.get("enable_per_channel_scale").map_or(Ok(false), |f| f.bool())?,
        lut_dtype: t.some("lut_dtype").map(|f| f.one_of(&[("int8", DType::I8), ("uint8", DType::U8)])).transpose()?,
    });
    Ok(Scheme { prune: None, code: Some(code) })
}

fn magnitude(field: &Field<'_>) -> Result<Scheme, Diagnostic> {
    let t = field.table(&["config_type", "target_sparsity", "block_size", "n_m_ratio", "dim", "weight_threshold"])?;
    let part = |f: Field<'_>| f.number("a number from 0 to 1", |x| (0.0..=1.0).contains(&x));
    let sparsity = t.some("target_sparsity").map(part).transpose()?;
    let size = t.some("block_size").map(|f| f.size(2)).transpose()?;
    let ratio = t.some("n_m_ratio").map(|f| ratio(&f)).transpose()?;
    let dims = [Along::Output, Along::Input];
    let dim = |f: Field<'_>| f.int("0 or 1", |d| (0..=1).contains(&d)).map(|d| dims[usize::from(d == 1)]);
    let along = t.some("dim").map(dim).transpose()?;
    let prune = match (sparsity, ratio, size) {
        (Some(_), Some(_), _) | (None, None, _) => {
            let d = t.wrong("either `target_sparsity` or `n_m_ratio` must be there, and not both");
            return Err(d.help("`target_sparsity: 0.5` drops the smaller half, `n_m_ratio: [2, 4]` two of each four"));
        }
        (None, Some(_), Some(_)) => {
            return Err(t.wrong("`block_size` and `n_m_ratio` exclude each other").help("leave one of them out"));
        }
        (Some(_), None, None) if along.is_some() => {
            let d = t.wrong("`dim` is for `block_size` and `n_m_ratio`, and neither is there");
            return Err(d.help("leave `dim` out"));
        }
        (Some(part), None, None) => Prune::Sparsity(part),
        (Some(sparsity), None, Some(size)) => Prune::Block { sparsity, size, along: along.unwrap_or(Along::Output) },
        // Of n:m, the file says how many go.
        (None, Some((n, m)), None) => Prune::NofM { n: m - n, m, along: along.unwrap_or(Along::Input) },
    };
    Ok(Scheme { prune: Some(prune), code: None })
}

/// How many elements go, of how many: `[n, m]`.
fn ratio(field: &Field<'_>) -> Result<(usize, usize), Diagnostic> {
    let want = "wanted two whole numbers `[n, m]`, of which n is m at most, and m 1 at least";
    match &field.list()?[..] {
        [n, m] => {
            let (n, m) = (n.size(0)?, m.size(1)?);
            if n <= m { Ok((n, m)) } else { Err(field.wrong(want)) }
        }
        _ => Err(field.wrong(want)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlconv_mil::text::parse;
    use mlconv_passes::compress::weights;

    /// What becomes of `w`, of 64 elements, which `a`, a convolution, and `b`, an addition or a convolution, read.
    fn assigned(yaml: &str, other: &str) -> Result<Option<(String, String)>, Diagnostic> {
        let ones = ["1.0"; 64].join(", ");
        let text = format!(
            "func @main(%x: f32[1, 8, 4, 4]) ios18 {{\n  %w = const(val=f32[8, 8, 1, 1] [{ones}]) : f32[8, 8, 1, 1]\n  \
             %a = conv(x=%x, weight=%w) : f32[1, 8, 4, 4]\n  %b = {other} : f32[1, 8, 4, 4]\n  return %a, %b\n}}\n"
        );
        let module = parse(&text).unwrap_or_else(|e| panic!("{e:?}"));
        let yaml = format!("config_type: OpLinearQuantizerConfig\n{yaml}");
        let settings = Settings::parse(Path::new("c.yaml"), yaml, Syntax::Yaml, &codes::C0002)?;
        let config = Config::of(&settings, 20)?;
        let all = weights(&module, 20);
        let found = config.assign(&all[0])?;
        Ok(found.map(|a| (a.left.unwrap_or_else(|| a.scheme.to_string()), a.rule)))
    }

    #[test]
    fn ops_that_read_a_weight_agree_on_it() {
        let conv = "conv(x=%x, weight=%w)";
        let of = |yaml: &str| assigned(yaml, conv).map(|a| a.map(|(scheme, rule)| format!("{scheme} {rule}")));
        let global = "global_config: {dtype: uint8}\n";
        assert_eq!(of("").unwrap_or_default(), None);
        for (yaml, want) in [
            ("", "uint8-sym c.yaml: global_config"),
            ("op_type_configs: {conv: {}}", "int8 c.yaml: op_type_configs.conv"),
            ("op_type_configs: {conv: null}", "none c.yaml: op_type_configs.conv"),
            ("op_name_configs: {a: {}, b: {}}", "int8 c.yaml: op_name_configs.a"),
            ("op_name_configs: {b: {dtype: uint8}}", "uint8-sym c.yaml: global_config"),
            ("op_name_configs: {w: {dtype: int4}, b: {}}", "int4 c.yaml: op_name_configs.w"),
            (
                "op_type_configs: {conv: {weight_threshold: 64}}",
                "it has 64 elements or fewer c.yaml: op_type_configs.conv",
            ),
        ] {
            let got = of(&format!("{global}{yaml}\n")).unwrap_or_else(|d| panic!("{d}"));
            assert_eq!(got.as_deref(), Some(want), "{yaml}");
        }
        for yaml in ["op_name_configs: {b: {}}", "op_name_configs: {b: null}"] {
            let d = of(&format!("{global}{yaml}\n")).expect_err("a conflict").to_string();
            let want = "ops that read `w` have different configs: `a` (conv) has `global_config`, `b` (conv) has \
                        `op_name_configs.b`";
            assert!(d.contains(want) && d.contains("give `w` a config of its own"), "{d}");
        }
    }
}
