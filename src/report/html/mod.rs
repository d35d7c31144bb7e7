//! A comparison as a page: one file that can be opened anywhere, now and in years.
//!
//! What matters is there without scripts: the six answers, outputs, runs, where an error begins, the worst ops, weights and files.
//! Scripts add the ops with their graph, plots, sorting and search.

mod data;
mod inspection;
mod origin;
mod page;
mod runs;
mod sections;
mod table;

pub use inspection::inspection;
pub use page::{Page, Section, copied, escape, prose};
pub use table::{Cell, Form, Table};

use super::{read::text, words};
use serde_json::Value;

/// The page of a comparison. `time` is when it was made, which one line of the page holds; without it, equal reports make equal
/// pages.
pub fn html(report: &Value, time: Option<&str>) -> String {
    let made_by = report.get("made_by").and_then(|m| text(m, "program"));
    let page = Page {
        title: format!("{}: {}", words::headline(report), words::subject(report)),
        header: sections::header(report),
        sections: sections::all(report),
        made_by: made_by.map(str::to_owned),
        time: time.map(str::to_owned),
        data: data::encode(report),
    };
    page.render()
}

/// The section with all ops, for a page whose data [`Page::data`] has them; `fallback` is markup that is seen in print and without
/// scripts.
pub fn ops_section(lead: String, fallback: &str) -> Section {
    let body = format!("<div id=\"explorer\" hidden></div>\n<div class=\"static\">\n{fallback}</div>\n");
    Section { id: "ops", title: "Ops", lead, body }
}

/// What scripts need to show the ops of a report: its `ops`, `weights`, `bisection` and `tolerance`.
pub fn ops_data(report: &Value) -> Value {
    data::encode(report)
}
