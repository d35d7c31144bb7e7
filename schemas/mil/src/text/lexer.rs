//! Tokens of the textual form.

use super::TextError;
use std::ops::Range;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token<'a> {
    /// `%name`
    Value(&'a str),
    /// `@name`
    Function(&'a str),
    Word(&'a str),
    Number(&'a str),
    Str(String),
    /// One of `( ) [ ] { } < > , : = * + -` or `..`.
    Sign(&'a str),
    End,
}

pub(super) struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// The text at `at`.
    pub(super) fn slice(&self, at: Range<usize>) -> &'a str {
        self.text.get(at).unwrap_or("")
    }

    /// The next token and its bytes.
    pub(super) fn next(&mut self) -> Result<(Token<'a>, Range<usize>), TextError> {
        self.skip_blank();
        let start = self.at;
        let rest = &self.text[start..];
        let Some(c) = rest.chars().next() else { return Ok((Token::End, start..start)) };
        let word = |s: &'a str| {
            let end = s.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.')).unwrap_or(s.len());
            &s[..end]
        };
        let token = match c {
            '%' => Token::Value(word(&rest[1..])),
            '@' => Token::Function(word(&rest[1..])),
            '"' => return self.string(),
            c if c.is_ascii_digit() || (c == '-' && number_follows(&rest[1..])) => Token::Number(number(rest)),
            c if c.is_ascii_alphabetic() || c == '_' => {
                let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
                Token::Word(&rest[..end])
            }
            '.' if rest.starts_with("..") => Token::Sign(&rest[..2]),
            c if "()[]{}<>,:=*+-".contains(c) => Token::Sign(&rest[..1]),
            _ => return Err(TextError { why: format!("unexpected character {c:?}"), at: start..start + c.len_utf8() }),
        };
        let len = match &token {
            Token::Value(s) | Token::Function(s) => s.len() + 1,
            Token::Word(s) | Token::Number(s) | Token::Sign(s) => s.len(),
            Token::Str(_) | Token::End => 0,
        };
        self.at += len;
        Ok((token, start..self.at))
    }

    fn skip_blank(&mut self) {
        loop {
            let rest = &self.text[self.at..];
            let trimmed = rest.trim_start();
            self.at += rest.len() - trimmed.len();
            if !trimmed.starts_with("//") {
                return;
            }
            self.at += trimmed.find('\n').unwrap_or(trimmed.len());
        }
    }

    /// A string as Rust's `{:?}` writes it.
    fn string(&mut self) -> Result<(Token<'a>, Range<usize>), TextError> {
        let start = self.at;
        let unclosed = || TextError { why: "a string is not closed".into(), at: start..start + 1 };
        let (mut out, mut chars) = (String::new(), self.text[start + 1..].char_indices());
        while let Some((i, c)) = chars.next() {
            match c {
                '"' => {
                    self.at = start + 1 + i + 1;
                    return Ok((Token::Str(out), start..self.at));
                }
                '\\' => match chars.next().ok_or_else(unclosed)?.1 {
                    'n' => out.push('\n'),
                    't' => out.push('\t'),
                    'r' => out.push('\r'),
                    '0' => out.push('\0'),
                    'u' => {
                        let hex: String =
                            chars.by_ref().map(|(_, c)| c).skip(1).take_while(|c| *c != '}').take(8).collect();
                        let c = u32::from_str_radix(&hex, 16).ok().and_then(char::from_u32);
                        out.push(c.ok_or_else(unclosed)?);
                    }
                    other => out.push(other),
                },
                c => out.push(c),
            }
        }
        Err(unclosed())
    }
}

fn number_follows(rest: &str) -> bool {
    rest.starts_with(|c: char| c.is_ascii_digit()) || rest.starts_with("inf")
}

/// An integer, or a float such as `1.5e-7` or `-inf`; a `..` ends it.
fn number(text: &str) -> &str {
    let bytes = text.as_bytes();
    let mut end = usize::from(bytes.first() == Some(&b'-'));
    if text[end..].starts_with("inf") {
        return &text[..end + 3];
    }
    while let Some(c) = bytes.get(end) {
        let dot = *c == b'.' && bytes.get(end + 1) != Some(&b'.');
        let exponent = matches!(c, b'e' | b'E');
        let sign = matches!(c, b'-' | b'+') && matches!(bytes.get(end - 1), Some(b'e' | b'E'));
        if !(c.is_ascii_digit() || dot || exponent || sign) {
            break;
        }
        end += 1;
    }
    &text[..end]
}
