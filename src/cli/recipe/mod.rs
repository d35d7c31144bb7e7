//! The recipe: a TOML file of what would else be typed. Its keys stand for options: reading a recipe puts options on the
//! command line, where what is typed wins, and printing one reads them from there.

mod form;
mod keys;
#[cfg(test)]
mod tests;

use super::{compress, usage_error};
use crate::{
    Diagnostic, Failure, codes,
    model::{self, Format},
    settings::{Field, Settings, Syntax},
};
use clap::{Arg, ArgMatches, Command, error::ErrorKind, parser::ValueSource};
use form::Form;
use keys::{COMPRESS, CONVERT, INSTEAD, Key, SECTIONS, VERIFY};
use std::{
    error::Error,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

/// `--recipe` and `--print-recipe`, for the commands that take them.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct RecipeFile {
    /// Options from a file, such as mlconv.toml; what is typed wins over them; see docs/recipes.md
    #[arg(long, value_name = "FILE.toml")]
    recipe: Option<PathBuf>,
    /// Print the recipe that says what this command line says, that of `--recipe` included, and do nothing else
    #[arg(long)]
    print_recipe: bool,
}

impl RecipeFile {
    /// The file.
    pub(super) fn path(&self) -> Option<&Path> {
        self.recipe.as_deref()
    }
}

/// What a recipe says of an option.
struct Said<'a> {
    section: &'static str,
    key: &'static Key,
    /// What would be typed; empty for a flag.
    value: OsString,
    field: Field<'a>,
}

/// The command line `line`, which was read as `typed`, with the options of its recipe that nothing typed stands for.
pub(super) fn fill(typed: ArgMatches, line: &[OsString]) -> Result<ArgMatches, Failure> {
    let Some((name, of)) = typed.subcommand() else { return Ok(typed) };
    let Some(path) = one::<PathBuf>(of, "recipe") else { return Ok(typed) };
    let mut cli = super::command();
    // So that every command knows what its options take.
    cli.build();
    let Some(command) = cli.find_subcommand(name) else { return Ok(typed) };
    let settings = Settings::read(path, Syntax::Toml, &codes::L0001).map_err(|d| vec![d])?;
    let mut said = read(&cli, &settings).map_err(|d| vec![d])?;
    said.retain(|s| option(command, s.key.option).is_some());
    if name == VERIFY && value(of, &said, "golden").is_some() {
        // What it says of a conversion is about the source, which is not there.
        said.retain(|s| s.section != CONVERT);
    }
    exclusive(command, &said).map_err(|d| vec![d])?;
    let before = said.len();
    said.retain(|s| !displaced(command, of, s));
    if said.len() < before {
        drop_idle(of, &mut said);
    }
    let package = || one::<PathBuf>(of, "model").is_some_and(|m| model::format(m).is_ok_and(|f| f == Format::Package));
    if name == COMPRESS && package() {
        // What else a recipe says of the import is about the model that the package comes from.
        said.retain(|s| s.section != CONVERT || s.key.option == "target");
    }
    if name == CONVERT && !compress::ASKS.iter().any(|o| value(of, &said, o).is_some()) {
        // What it says beside is for commands that compress.
        said.retain(|s| s.section != COMPRESS);
    }
    let at = line.iter().position(|word| word == name).map_or(line.len(), |at| at + 1);
    let mut all = line[..at].to_vec();
    all.extend(said.iter().filter_map(|s| as_typed(option(command, s.key.option)?, &s.value)));
    all.extend_from_slice(&line[at..]);
    super::command().try_get_matches_from(all).map_err(|e| vec![usage_error(&e)])
}

/// The recipe that `--print-recipe` asks for: what a command line says, in which its recipe is filled in.
pub(super) fn wanted(filled: &ArgMatches) -> Result<Option<String>, Failure> {
    let Some((_, of)) = filled.subcommand().filter(|(_, of)| one::<bool>(of, "print_recipe") == Some(&true)) else {
        return Ok(None);
    };
    let mut out = String::new();
    for (section, keys) in SECTIONS {
        let mut lines = String::new();
        for key in keys.iter().filter(|key| was_typed(of, key.option)) {
            let all: Vec<&OsStr> = of.get_raw(key.option).into_iter().flatten().collect();
            if let Some(written) = key.form.write(&all) {
                lines += &format!("{} = {}\n", key.name, written.map_err(|d| vec![d])?);
            }
        }
        if !lines.is_empty() {
            let space = if out.is_empty() { "" } else { "\n" };
            out += &format!("{space}[{section}]\n{lines}");
        }
    }
    Ok(Some(out))
}

/// Everything that a recipe says, each of it right by itself.
fn read<'a>(cli: &Command, settings: &'a Settings) -> Result<Vec<Said<'a>>, Diagnostic> {
    let names: Vec<&str> = SECTIONS.iter().map(|(name, _)| *name).collect();
    let root = settings.root().table(&names)?;
    // Files that a recipe names lie beside it.
    let folder = settings.path().parent().unwrap_or(Path::new(""));
    let mut out = vec![];
    for (section, keys) in SECTIONS {
        let Some(field) = root.get(section) else { continue };
        let names: Vec<&str> = keys.iter().map(|key| key.name).collect();
        let table = field.table(&names)?;
        for key in *keys {
            let Some(field) = table.get(key.name) else { continue };
            for (value, field) in key.form.read(&field, folder)? {
                let said = Said { section, key, value, field };
                said.check(cli)?;
                out.push(said);
            }
        }
    }
    Ok(out)
}

impl Said<'_> {
    /// Refuses a value that the option would refuse.
    fn check(&self, cli: &Command) -> Result<(), Diagnostic> {
        let text = self.value.to_string_lossy();
        if let Some(d) = self.key.check.and_then(|check| check(&text).err()) {
            return Err(Diagnostic { help: d.help, ..self.field.wrong(&d.title) });
        }
        let have =
            |name: &&str| Some((cli.find_subcommand(name)?, option(cli.find_subcommand(name)?, self.key.option)?));
        let Some((command, arg)) = [CONVERT, COMPRESS, VERIFY].iter().find_map(have) else { return Ok(()) };
        let words: Vec<String> = arg.get_possible_values().iter().map(|v| v.get_name().to_owned()).collect();
        if !words.is_empty() {
            let words: Vec<(&str, ())> = words.iter().map(|w| (w.as_str(), ())).collect();
            return self.field.one_of(&words);
        }
        let other = if command.get_name() == VERIFY { "--against=source" } else { "-oout.mlpackage" };
        let line = ["model", other].map(OsString::from).into_iter().chain(as_typed(arg, &self.value));
        match command.clone().no_binary_name(true).try_get_matches_from(line) {
            // Whether it goes with others is seen when they are together.
            Err(e) if e.kind() == ErrorKind::ValueValidation => {
                Err(self.field.wrong(&e.source().map_or_else(|| e.to_string(), ToString::to_string)))
            }
            _ => Ok(()),
        }
    }
}

/// Refuses two keys that the command line refuses together.
fn exclusive(command: &Command, said: &[Said<'_>]) -> Result<(), Diagnostic> {
    for (i, later) in said.iter().enumerate() {
        if let Some(other) = said[..i].iter().find(|s| conflict(command, s.key.option, later.key.option)) {
            let d = later.field.wrong(&format!("`{}` and `{}` exclude each other", other.key.name, later.key.name));
            return Err(d.help("leave one of them out"));
        }
    }
    Ok(())
}

/// Whether something that was typed stands in the place of what a recipe says.
fn displaced(command: &Command, typed: &ArgMatches, said: &Said<'_>) -> bool {
    let option = said.key.option;
    let instead = |all: &[&str]| all.iter().any(|o| was_typed(typed, o));
    INSTEAD.iter().any(|(typed, gone)| gone.contains(&option) && instead(typed))
        || typed.ids().any(|id| was_typed(typed, id.as_str()) && conflict(command, id.as_str(), option))
        || was_typed(typed, option) && {
            let mut all = typed.get_raw(option).into_iter().flatten().filter_map(OsStr::to_str);
            match said.key.form {
                Form::Texts | Form::Rules => false,
                // What is typed without a name stands for all.
                Form::Named(form::Named { split, .. }) => {
                    let name = |text| split(text).map(|(name, _)| name.to_owned());
                    let own = said.value.to_str().and_then(name);
                    all.any(|t| name(t).is_none_or(|n| own.as_ref() == Some(&n)))
                }
                _ => true,
            }
        }
}

/// Drops what only said more about what was displaced.
fn drop_idle(typed: &ArgMatches, said: &mut Vec<Said<'_>>) {
    let idle: Vec<&str> = compress::DETAILS
        .iter()
        .filter(|(_, of_use)| !of_use(&|option| value(typed, said, option)))
        .flat_map(|(options, _)| options.iter().copied())
        .collect();
    said.retain(|s| !idle.contains(&s.key.option));
}

/// What an option is given, by what is typed or by a recipe.
fn value(typed: &ArgMatches, said: &[Said<'_>], option: &str) -> Option<String> {
    let text = |value: &OsStr| value.to_string_lossy().into_owned();
    if was_typed(typed, option) {
        return Some(typed.get_raw(option).and_then(|mut all| all.next()).map(text).unwrap_or_default());
    }
    said.iter().find(|s| s.key.option == option).map(|s| text(&s.value))
}

fn one<'a, T: Clone + Send + Sync + 'static>(of: &'a ArgMatches, option: &str) -> Option<&'a T> {
    of.try_get_one(option).ok().flatten()
}

pub(super) fn was_typed(of: &ArgMatches, option: &str) -> bool {
    of.try_contains_id(option).unwrap_or(false) && of.value_source(option) == Some(ValueSource::CommandLine)
}

fn option<'a>(command: &'a Command, id: &str) -> Option<&'a Arg> {
    command.get_arguments().find(|arg| arg.get_id() == id && arg.get_long().is_some())
}

/// Whether the command line refuses two options together.
fn conflict(command: &Command, a: &str, b: &str) -> bool {
    let one_way = |a: &str, b: &str| {
        let arg = option(command, a);
        arg.is_some_and(|arg| command.get_arg_conflicts_with(arg).iter().any(|other| other.get_id() == b))
    };
    a != b && (one_way(a, b) || one_way(b, a))
}

/// An option as one word; `None` where it has no name.
pub(super) fn as_typed(arg: &Arg, value: &OsStr) -> Option<OsString> {
    let mut word = OsString::from(format!("--{}", arg.get_long()?));
    if arg.get_action().takes_values() {
        word.push("=");
        word.push(value);
    }
    Some(word)
}
