//! The commands of docs/tutorial.md, replayed.
//!
//! In its blocks marked `console`, a line `$ mlconv …` is a command, and the lines below are what it says, stdout and stderr as a
//! terminal shows them. A line `...` stands for any lines, and a last line `exit: N` for the exit status where that is not 0. Files
//! below `fixtures/` that a command names are there as they are in the repository; whatever else it names, commands before it wrote.

mod support;

use std::{
    fs,
    io::{Read, pipe},
    path::Path,
};
use support::place::Place;

/// A command, the lines that are shown of what it says, and its exit status.
struct Step {
    command: String,
    shown: Vec<String>,
    status: i32,
}

fn steps(page: &str) -> Vec<Step> {
    let mut out: Vec<Step> = vec![];
    let mut inside = false;
    for line in page.lines() {
        match line {
            "```console" => inside = true,
            "```" => inside = false,
            _ if !inside => {}
            line => match (line.strip_prefix("$ "), line.strip_prefix("exit: ")) {
                (Some(command), _) => out.push(Step { command: command.to_owned(), shown: vec![], status: 0 }),
                (_, Some(status)) => {
                    out.last_mut().expect("a command").status = status.parse().expect("an exit status");
                }
                _ => out.last_mut().expect("a command comes first").shown.push(line.to_owned()),
            },
        }
    }
    out
}

/// The words of a line as a shell takes them, as far as quotes are single.
fn words(line: &str) -> Vec<String> {
    let (mut out, mut quoted) = (vec![String::new()], false);
    for c in line.chars() {
        match c {
            '\'' => quoted = !quoted,
            ' ' if !quoted => out.push(String::new()),
            c => out.last_mut().expect("there is one").push(c),
        }
    }
    assert!(!quoted, "a quote does not end: {line}");
    out
}

/// Whether lines are those that are shown, where `...` is any lines.
fn matches(shown: &[String], said: &[&str]) -> bool {
    match shown.split_first() {
        None => said.is_empty(),
        Some((first, rest)) if first == "..." => (0..=said.len()).any(|skip| matches(rest, &said[skip..])),
        Some((first, rest)) => said.split_first().is_some_and(|(line, said)| line == first && matches(rest, said)),
    }
}

/// Puts a file of the repository where a command looks for it.
fn provide(place: &Place, word: &str) {
    let Some((_, rest)) = word.split_once("fixtures/") else { return };
    let inner = format!("fixtures/{}", rest.split(':').next().unwrap_or(rest));
    let to = place.path(&inner);
    fs::create_dir_all(to.parent().expect("a folder")).expect("room");
    fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join(&inner), to).expect("the fixture is there");
}

#[test]
fn the_tutorial_is_what_happens() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/tutorial.md");
    let steps = steps(&fs::read_to_string(path).expect("the page is there"));
    assert!(steps.len() >= 5, "the page has commands");
    let place = Place::new();
    for Step { command, shown, status } in steps {
        let words = words(&command);
        let (program, args) = words.split_first().expect("a program");
        assert_eq!(program, "mlconv", "{command}");
        args.iter().for_each(|word| provide(&place, word));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let (mut both, end) = pipe().expect("a pipe");
        let mut run = place.command(env!("CARGO_BIN_EXE_mlconv"), &args);
        let mut child = run.stdout(end.try_clone().expect("a pipe")).stderr(end).spawn().expect("it starts");
        // What is left of the command would hold the pipe open.
        drop(run);
        let mut said = String::new();
        both.read_to_string(&mut said).expect("text");
        let code = child.wait().expect("it ends").code();
        let lines: Vec<&str> = said.lines().map(str::trim_end).collect();
        assert_eq!(code, Some(status), "{command}\n{said}");
        assert!(matches(&shown, &lines), "{command}\nis to say\n{}\nand says\n{said}", shown.join("\n"));
        for page in args.windows(2).filter(|pair| pair[0] == "--html").map(|pair| place.path(pair[1])) {
            assert!(fs::read_to_string(page).expect("the page is written").ends_with("</html>\n"), "{command}");
        }
    }
}
