//! Names in messages.

pub(crate) use mlconv_mil::diagnostic::{hides, visible};
use std::borrow::Cow;

/// Characters of a name that are shown.
const SHOWN: usize = 200;

/// Text of a model as one line that shows all of it, as far as it is not too long: nothing in a name ends a line of ours.
pub(crate) fn shown(name: &str) -> String {
    visible(&clipped(name, SHOWN), |_| false).into_owned()
}

/// Text of which the middle is left out where it has more than `most` characters.
pub(crate) fn clipped(text: &str, most: usize) -> Cow<'_, str> {
    // No character has less than a byte.
    if text.len() <= most || text.chars().count() <= most {
        return text.into();
    }
    let (head, tail) = (most - most / 2, most / 2);
    let end = text.char_indices().nth(head).map_or(text.len(), |(at, _)| at);
    let start = text.char_indices().rev().nth(tail.saturating_sub(1)).map_or(text.len(), |(at, _)| at);
    format!("{}…{}", &text[..end], &text[start..]).into()
}

/// `a`, `b` and `c`, each in backticks.
pub(crate) fn listed<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> String {
    let names: Vec<String> = names.into_iter().map(|n| format!("`{}`", shown(n.as_ref()))).collect();
    match names.split_last() {
        None => "none".to_owned(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
    }
}

/// The name that `word` may be a slip of the pen for: one that differs in a third of its letters at most.
pub(crate) fn nearest<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let most = (word.chars().count() / 3).max(1);
    let near = names.into_iter().map(|n| (edits(word, n), n)).filter(|(e, _)| *e <= most);
    near.min_by_key(|(e, _)| *e).map(|(_, n)| n)
}

/// Letters to insert, drop or exchange until `a` is `b`, in any case. Source: Wagner & Fischer 1974.
fn edits(a: &str, b: &str) -> usize {
    // Long words are no slips; this bounds the time.
    let letters = |s: &str| s.chars().take(64).flat_map(char::to_lowercase).collect::<Vec<char>>();
    let (a, b) = (letters(a), letters(b));
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let exchanged = corner + usize::from(x != y);
            corner = row[j + 1];
            row[j + 1] = exchanged.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// A word as a shell takes it for one.
pub(crate) fn quoted(word: &str) -> Cow<'_, str> {
    let is_plain = |c: char| c.is_alphanumeric() || "_./-+=:,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.into();
    }
    format!("'{}'", word.replace('\'', "'\\''")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_line_and_hide_nothing() {
        assert_eq!(shown("a.b/c é"), "a.b/c é");
        assert_eq!(shown("a\n\r\x1b[31m\u{202e}b\u{61c}"), "a\\n\\r\\u{1b}[31m\\u{202e}b\\u{61c}");
        let long = shown(&format!("{}é", "n".repeat(100_000)));
        assert_eq!((long.chars().count(), long.ends_with("né")), (SHOWN + 1, true));
        assert_eq!([clipped("abcdef", 4), clipped("abcd", 4), clipped("ééééé", 3)], ["ab…ef", "abcd", "éé…é"]);
        assert_eq!(listed(["a\nb"]), "`a\\nb`");
    }

    #[test]
    fn slips_of_the_pen_are_found() {
        let names = ["nbits", "mode", "group_size"];
        for (word, want) in [
            ("nbit", Some("nbits")),
            ("Mode", Some("mode")),
            ("groupsize", Some("group_size")),
            ("granularity", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, names), want, "{word}");
        }
    }
}
