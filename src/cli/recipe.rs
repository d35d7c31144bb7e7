//! The recipe: a TOML file of what would else be typed. A section is a struct that reads itself; options on the command
//! line win over it.

use super::{
    args::{Precision, Target},
    compress::parse_size,
};
use crate::{
    Diagnostic, Failure, codes,
    compress::{Rule, preset},
    settings::{Field, Settings, Syntax, Table},
};
use clap::ValueEnum;
use mlconv_source::InputSpec;
use std::path::{Path, PathBuf};

/// `--recipe`, for the commands that take one.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct RecipeFile {
    /// Options from a file, such as mlconv.toml; what is typed wins over them; see docs/recipes.md
    #[arg(long, value_name = "FILE.toml")]
    recipe: Option<PathBuf>,
}

impl RecipeFile {
    /// What the file says; nothing where there is none.
    pub(crate) fn read(&self) -> Result<Recipe, Failure> {
        self.recipe.as_deref().map_or(Ok(Recipe::default()), |path| Recipe::read(path).map_err(|d| vec![d]))
    }
}

/// What a recipe says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recipe {
    pub(crate) convert: Convert,
    pub(crate) compress: Compress,
}

/// A section: its name, and how it reads itself.
trait Section: Default {
    const NAME: &'static str;
    const KEYS: &'static [&'static str];
    fn of(table: &Table<'_>, folder: &Path) -> Result<Self, Diagnostic>;
}

impl Recipe {
    fn read(path: &Path) -> Result<Self, Diagnostic> {
        Self::of(&Settings::read(path, Syntax::Toml, &codes::L0001)?)
    }

    fn of(settings: &Settings) -> Result<Self, Diagnostic> {
        let root = settings.root().table(&[Convert::NAME, Compress::NAME])?;
        // Files that a recipe names lie beside it.
        let folder = settings.path().parent().unwrap_or(Path::new(""));
        Ok(Self { convert: section(&root, folder)?, compress: section(&root, folder)? })
    }
}

fn section<S: Section>(root: &Table<'_>, folder: &Path) -> Result<S, Diagnostic> {
    root.get(S::NAME).map_or_else(|| Ok(S::default()), |field| S::of(&field.table(S::KEYS)?, folder))
}

/// `[convert]`: how a model is imported and rewritten. Fields are as the options of the same names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Convert {
    pub(crate) target: Option<Target>,
    pub(crate) precision: Option<Precision>,
    pub(crate) keep_fp32: Vec<String>,
    pub(crate) inputs: Vec<String>,
    pub(crate) outputs: Vec<String>,
    pub(crate) states: Vec<(String, String)>,
    pub(crate) no_state: bool,
}

impl Section for Convert {
    const NAME: &'static str = "convert";
    const KEYS: &'static [&'static str] =
        &["target", "precision", "keep_fp32", "inputs", "outputs", "states", "no_state"];

    fn of(table: &Table<'_>, _: &Path) -> Result<Self, Diagnostic> {
        let texts = |key| table.get(key).map_or(Ok(vec![]), |f| f.texts());
        Ok(Self {
            target: table.get("target").map(|f| word(&f)).transpose()?,
            precision: table.get("precision").map(|f| word(&f)).transpose()?,
            keep_fp32: texts("keep_fp32")?,
            inputs: table.get("inputs").map_or(Ok(vec![]), |f| inputs(&f))?,
            outputs: texts("outputs")?,
            states: table.get("states").map_or(Ok(vec![]), |f| states(&f))?,
            no_state: table.get("no_state").map_or(Ok(false), |f| f.bool())?,
        })
    }
}

/// A word of those that an option takes.
fn word<T: ValueEnum + Clone>(field: &Field<'_>) -> Result<T, Diagnostic> {
    let all: Vec<(String, T)> = T::value_variants()
        .iter()
        .filter_map(|v| Some((v.to_possible_value()?.get_name().to_owned(), v.clone())))
        .collect();
    let all: Vec<(&str, T)> = all.iter().map(|(name, v)| (name.as_str(), v.clone())).collect();
    field.one_of(&all)
}

/// Shapes of inputs: a list, as they are typed, or a table by name.
fn inputs<'a>(field: &Field<'a>) -> Result<Vec<String>, Diagnostic> {
    let all: Vec<(String, Field<'a>)> = if field.is_table() {
        let typed = |(name, f): (&str, Field<'a>)| Ok((format!("{name}={}", f.text()?), f));
        field.entries()?.into_iter().map(typed).collect::<Result<_, Diagnostic>>()?
    } else {
        let typed = |f: Field<'a>| Ok((f.text()?.to_owned(), f));
        field.list()?.into_iter().map(typed).collect::<Result<_, Diagnostic>>()?
    };
    for (text, field) in &all {
        InputSpec::parse(text).map_err(|e| field.wrong(&e.to_string()))?;
    }
    Ok(all.into_iter().map(|(text, _)| text).collect())
}

/// Outputs by the inputs that they become.
fn states(field: &Field<'_>) -> Result<Vec<(String, String)>, Diagnostic> {
    let pair = |(input, f): (&str, Field<'_>)| Ok((input.to_owned(), f.text()?.to_owned()));
    field.entries()?.into_iter().map(pair).collect()
}

/// `[compress]`: what becomes of weights. Fields are as the options of the same names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Compress {
    pub(crate) preset: Option<String>,
    pub(crate) config: Option<PathBuf>,
    pub(crate) tensors: Vec<Rule>,
    pub(crate) weight_threshold: Option<usize>,
    pub(crate) max_memory: Option<u64>,
    pub(crate) allow_skip: bool,
}

impl Section for Compress {
    const NAME: &'static str = "compress";
    const KEYS: &'static [&'static str] =
        &["preset", "config", "tensor", "tensors", "weight_threshold", "max_memory", "allow_skip"];

    fn of(table: &Table<'_>, folder: &Path) -> Result<Self, Diagnostic> {
        let preset = table.get("preset").map(|f| scheme(&f)).transpose()?;
        let config = table.get("config").map(|f| Ok((folder.join(f.text()?), f))).transpose()?;
        if let (Some(_), Some((_, f))) = (&preset, &config) {
            return Err(f
                .wrong("`preset` and `config` both say what becomes of all weights")
                .help("leave one of them out"));
        }
        let mut tensors = vec![];
        for one in table.get("tensor").map_or(Ok(vec![]), |f| f.list())? {
            let t = one.table(&["pattern", "scheme"])?;
            let (Some(pattern), Some(scheme)) = (t.get("pattern"), t.get("scheme")) else {
                return Err(one.wrong("wanted a `pattern` and a `scheme`"));
            };
            tensors.push(rule(&one, pattern.text()?, scheme.text()?)?);
        }
        for (pattern, scheme) in table.get("tensors").map_or(Ok(vec![]), |f| f.entries())? {
            tensors.push(rule(&scheme, pattern, scheme.text()?)?);
        }
        let size = |f: Field<'_>| match f.text() {
            Ok(text) => parse_size(text).map_err(|why| f.wrong(&why)),
            Err(_) => f.size(1).map(|n| n as u64),
        };
        Ok(Self {
            preset,
            config: config.map(|(path, _)| path),
            tensors,
            weight_threshold: table.get("weight_threshold").map(|f| f.size(0)).transpose()?,
            max_memory: table.get("max_memory").map(size).transpose()?,
            allow_skip: table.get("allow_skip").map_or(Ok(false), |f| f.bool())?,
        })
    }
}

/// The name of a preset, or a scheme.
fn scheme(field: &Field<'_>) -> Result<String, Diagnostic> {
    let text = field.text()?;
    if preset::mixed(text).is_some() {
        return Ok(text.to_owned());
    }
    match preset::rules(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(d) => Err(Diagnostic { help: d.help, ..field.wrong(d.title.trim_start_matches("--preset ")) }),
    }
}

fn rule(field: &Field<'_>, pattern: &str, scheme: &str) -> Result<Rule, Diagnostic> {
    Rule::new(pattern, scheme).map_err(|why| field.wrong(&why))
}
