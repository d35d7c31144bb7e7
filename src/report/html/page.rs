//! What a page is made of: one file without a network, for any report.
//!
//! Text of models goes through [`escape`] only, and to scripts through one element of JSON, so that no name can become
//! markup. Should one all the same, the page's policy runs no script but its own, and loads nothing.

use super::super::words::{printable, spans};
use serde_json::Value;
use sha2::{Digest, Sha256};

const STYLE: &str = include_str!("page.css");
/// The parts of the script share one scope, which nothing outside sees.
const SCRIPT: [&str; 5] = [
    include_str!("page.js"),
    include_str!("data.js"),
    include_str!("plots.js"),
    include_str!("graph.js"),
    include_str!("ops.js"),
];

/// A page.
#[derive(Default)]
pub struct Page {
    /// What it is about, as text.
    pub title: String,
    /// What stands above all sections, as markup.
    pub header: String,
    /// Its sections.
    pub sections: Vec<Section>,
    /// What made it, as text.
    pub made_by: Option<String>,
    /// When it was made, as text: the one line of the page that says so.
    pub time: Option<String>,
    /// What scripts show; see `data.rs`.
    pub data: Value,
}

/// A part of a page.
pub struct Section {
    /// Its name in links.
    pub id: &'static str,
    /// Its heading.
    pub title: &'static str,
    /// A sentence below the heading, as text with code in backticks; may be empty.
    pub lead: String,
    /// What it holds, as markup.
    pub body: String,
}

impl Page {
    /// The page as one file.
    pub fn render(&self) -> String {
        let script = format!("(() => {{\n\"use strict\";\n{}}})();\n", SCRIPT.concat());
        // Blocks of data are not run and need no leave.
        let policy = format!(
            "default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{}'; base-uri 'none'; form-action 'none'",
            base64(&Sha256::digest(script.as_bytes()))
        );
        let title = escape(&self.title);
        let mut links = String::new();
        let mut body = String::new();
        for Section { id, title, lead, body: inner } in &self.sections {
            links += &format!("<li><a href=\"#{id}\">{title}</a></li>\n");
            let lead = if lead.is_empty() { String::new() } else { format!("<p class=\"lead\">{}</p>\n", prose(lead)) };
            body += &format!(
                "<section id=\"{id}\" aria-labelledby=\"{id}-title\">\n<h2 id=\"{id}-title\">{title}</h2>\n{lead}{inner}\n\
                 </section>\n"
            );
        }
        let made_by = self.made_by.as_ref().map_or_else(String::new, |by| format!("<p>Made by {}.</p>\n", escape(by)));
        let time =
            self.time.as_ref().map_or_else(String::new, |t| format!("<p>Made at <time>{}</time>.</p>\n", escape(t)));
        let data = match &self.data {
            Value::Null => String::new(),
            data => format!("<script type=\"application/json\" id=\"data\">{}</script>\n", inert(data)),
        };
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n\
             <body>\n<a class=\"skip\" href=\"#main\">Skip to the report</a>\n\
             <nav aria-label=\"Sections\">\n<ul>\n{links}</ul>\n</nav>\n<main id=\"main\" tabindex=\"-1\">\n{}{body}</main>\n\
             <footer>\n{made_by}{time}</footer>\n{data}<script>{script}</script>\n</body>\n</html>\n",
            self.header
        )
    }
}

/// Text as markup, in elements and in quoted attributes.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in printable(text).chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            c => out.push(c),
        }
    }
    out
}

/// A sentence with code in backticks as markup.
pub fn prose(sentence: &str) -> String {
    let span = |(is_code, s)| if is_code { format!("<code>{}</code>", escape(s)) } else { escape(s) };
    spans(sentence).into_iter().map(span).collect()
}

/// A line to be copied, or several, with a button for it.
pub fn copied(lines: &str) -> String {
    let line = lines.lines().map(escape).collect::<Vec<_>>().join("\n");
    format!(
        "<span class=\"copied\"><code>{line}</code><button type=\"button\" data-copy=\"{line}\" hidden>Copy</button></span>"
    )
}

/// JSON that ends no script element, and holds no line break.
fn inert(data: &Value) -> String {
    let text = data.to_string();
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            // These stand in strings only.
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => out += &format!("\\u{:04x}", c as u32),
            c => out.push(c),
        }
    }
    out
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |w, b| w << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * i) & 63) as usize];
            out.push(if i <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        assert_eq!(
            ["", "f", "fo", "foo", "foob"].map(|s| base64(s.as_bytes())),
            ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg=="]
        );
    }

    #[test]
    fn no_text_becomes_markup() {
        assert_eq!(escape("</a>\"'&\0"), "&lt;/a&gt;&quot;&#39;&amp;\u{fffd}");
        assert_eq!(prose("see `<b>`"), "see <code>&lt;b&gt;</code>");
        let data = json!(["</script><!--", "&\u{2028}"]);
        assert_eq!(inert(&data), "[\"\\u003c/script\\u003e\\u003c!--\",\"\\u0026\\u2028\"]");
        assert_eq!(serde_json::from_str::<Value>(&inert(&data)).ok(), Some(data));
    }
}
