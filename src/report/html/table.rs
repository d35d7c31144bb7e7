//! Tables that can be sorted, scroll in themselves where they are wide, and leave columns out that say nothing.

use super::page::{escape, prose};

/// A table.
pub struct Table {
    /// What it lists, for those who do not see it.
    pub caption: &'static str,
    /// Headings, and what they mean where that is not plain.
    pub columns: Vec<(&'static str, &'static str)>,
    /// As many cells as columns. The first is the heading of its row.
    pub rows: Vec<Vec<Cell>>,
    /// How many rows were left out.
    pub left_out: usize,
}

/// How a table is laid out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// In rows everywhere.
    Plain,
    /// With many columns: the first stays in view, and printed rows are paragraphs.
    Wide,
}

/// A cell.
#[derive(Clone, Default)]
pub struct Cell {
    markup: String,
    /// What it is sorted by; its text where there is none.
    key: Option<f64>,
    numeric: bool,
    /// Whether it holds more than a word or two, and needs room.
    long: bool,
}

/// Characters that fit into a narrow column.
const SHORT: usize = 24;

impl Cell {
    /// Words.
    pub fn text(text: &str) -> Self {
        Self { markup: escape(text), long: text.chars().count() > SHORT, ..Self::default() }
    }

    /// A sentence with code in backticks.
    pub fn prose(sentence: &str) -> Self {
        Self { markup: prose(sentence), ..Self::text(sentence) }
    }

    /// A name in a model.
    pub fn name(name: &str) -> Self {
        if name.is_empty() {
            return Self::default();
        }
        Self { markup: format!("<code class=\"alone\">{}</code>", escape(name)), ..Self::default() }
    }

    /// A number, as `show` writes it; empty where it is not known.
    pub fn number(x: Option<f64>, show: impl Fn(f64) -> String) -> Self {
        Self { markup: x.map_or_else(String::new, |x| escape(&show(x))), key: x, numeric: true, long: false }
    }

    /// Markup, sorted by `key`.
    pub fn markup(markup: String, key: Option<f64>) -> Self {
        Self { markup, key, ..Self::default() }
    }

    /// The same, aligned as a number.
    #[must_use]
    pub fn aligned(self) -> Self {
        Self { numeric: true, ..self }
    }

    /// What it shows, as markup.
    pub fn into_markup(self) -> String {
        self.markup
    }
}

impl Table {
    /// As markup.
    pub fn render(&self, form: Form) -> String {
        let says = |c: usize| c == 0 || self.rows.iter().any(|r| r.get(c).is_some_and(|cell| !cell.markup.is_empty()));
        let shown: Vec<usize> = (0..self.columns.len()).filter(|c| says(*c)).collect();
        let mut head = String::new();
        for c in &shown {
            let Some((title, about)) = self.columns.get(*c) else { continue };
            let numeric = self.rows.iter().filter_map(|r| r.get(*c)).any(|cell| cell.numeric);
            let class = if numeric { " class=\"n\"" } else { "" };
            let about = if about.is_empty() { String::new() } else { format!(" title=\"{}\"", escape(about)) };
            head += &format!("<th scope=\"col\"{class}{about}>{title}</th>");
        }
        let mut body = String::new();
        for row in &self.rows {
            body += "<tr>";
            for c in &shown {
                let Some(Cell { markup, key, numeric, long }) = row.get(*c) else { continue };
                let class = match (numeric, long) {
                    (true, _) => " class=\"n\"",
                    (false, true) => " class=\"long\"",
                    (false, false) => "",
                };
                let key = key.map_or_else(String::new, |k| format!(" data-key=\"{k:e}\""));
                let label = match (form, self.columns.get(*c)) {
                    (Form::Wide, Some((title, _))) => format!(" data-label=\"{title}\""),
                    _ => String::new(),
                };
                body += &match c {
                    0 => format!("<th scope=\"row\"{key}>{markup}</th>"),
                    _ => format!("<td{class}{label}{key}>{markup}</td>"),
                };
            }
            body += "</tr>\n";
        }
        let rest = match self.left_out {
            0 => String::new(),
            n => format!("<p class=\"rest\">{n} more rows are in the JSON report.</p>\n"),
        };
        format!(
            "<div class=\"scroll{wide}\" tabindex=\"0\" role=\"region\" aria-label=\"Table: {caption}\">\n<table class=\"sortable\">\n\
             <caption>{caption}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n</div>\n{rest}",
            wide = if form == Form::Wide { " wide" } else { "" },
            caption = self.caption,
        )
    }
}
