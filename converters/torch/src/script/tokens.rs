//! The code of TorchScript as names, numbers, texts and signs.

use super::syntax::{Result, SyntaxError};
use std::rc::Rc;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Name(Rc<str>),
    Int(i64),
    Float(f64),
    Str(Rc<str>),
    /// One of `()[]{}:,.=*@` and `->`.
    Sign(&'static str),
    /// The end of a line outside of brackets, and how far the next one is indented.
    Line(usize),
    End,
}

/// The parts of a text, each with its line.
pub(super) fn tokens(text: &str) -> Result<Vec<(Token, usize)>> {
    const SIGNS: &[&str] = &["->", "(", ")", "[", "]", "{", "}", ":", ",", ".", "=", "*", "@"];
    let (mut out, mut depth) = (vec![], 0usize);
    let bytes = text.as_bytes();
    let (mut at, mut line) = (0, 1);
    let fail = |line: usize, why: &str| Err(SyntaxError { line, why: why.to_owned() });
    while at < bytes.len() {
        let c = bytes[at];
        match c {
            b'\n' => {
                at += 1;
                line += 1;
                if depth == 0 {
                    let indent = bytes[at..].iter().take_while(|b| **b == b' ').count();
                    let rest = bytes.get(at + indent);
                    // Empty lines and comments say nothing of indentation.
                    if !matches!(rest, None | Some(b'\n' | b'#' | b'\r')) {
                        out.push((Token::Line(indent), line));
                    }
                }
            }
            b' ' | b'\t' | b'\r' => at += 1,
            b'#' => at += bytes[at..].iter().take_while(|b| **b != b'\n').count(),
            b'"' | b'\'' => {
                let (s, n) = string(&text[at..]).ok_or(SyntaxError { line, why: "a text does not end".to_owned() })?;
                out.push((Token::Str(s.into()), line));
                at += n;
            }
            b'0'..=b'9' | b'-'
                if c != b'-'
                    || bytes.get(at + 1).is_some_and(|b| b.is_ascii_digit() || matches!(b, b'.' | b'i' | b'n')) =>
            {
                let n = 1 + bytes[at + 1..]
                    .iter()
                    .zip(&bytes[at..])
                    .take_while(|(b, before)| {
                        b.is_ascii_alphanumeric()
                            || **b == b'.'
                            || (matches!(b, b'-' | b'+') && matches!(before, b'e' | b'E'))
                    })
                    .count();
                let number = &text[at..at + n];
                let token = match number.parse::<i64>() {
                    Ok(i) => Token::Int(i),
                    Err(_) => match number.parse::<f64>() {
                        Ok(x) => Token::Float(x),
                        Err(_) => return fail(line, "a number that is none"),
                    },
                };
                out.push((token, line));
                at += n;
            }
            _ if c.is_ascii_alphabetic() || c == b'_' => {
                let n = bytes[at..].iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'_').count();
                out.push((Token::Name(text[at..at + n].into()), line));
                at += n;
            }
            _ => {
                let rest = &bytes[at..];
                let Some(sign) = SIGNS.iter().find(|s| rest.starts_with(s.as_bytes())) else {
                    return fail(line, "a sign that TorchScript does not have");
                };
                match *sign {
                    "(" | "[" | "{" => depth += 1,
                    ")" | "]" | "}" => depth = depth.saturating_sub(1),
                    _ => {}
                }
                out.push((Token::Sign(sign), line));
                at += sign.len();
            }
        }
    }
    out.push((Token::Line(0), line));
    out.push((Token::End, line));
    Ok(out)
}

/// A quoted text at the start, and how many bytes it takes.
fn string(text: &str) -> Option<(String, usize)> {
    let quote = text.chars().next()?;
    let mut out = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((i, c)) = chars.next() {
        match c {
            _ if c == quote => return Some((out, i + quote.len_utf8())),
            '\\' => match chars.next()?.1 {
                'n' => out.push('\n'),
                't' => out.push('\t'),
                'r' => out.push('\r'),
                'x' => {
                    let (a, b) = (chars.next()?.1.to_digit(16)?, chars.next()?.1.to_digit(16)?);
                    out.push(char::from(u8::try_from(a * 16 + b).ok()?));
                }
                digit @ '0'..='7' => {
                    let (b, c) = (chars.next()?.1.to_digit(8)?, chars.next()?.1.to_digit(8)?);
                    out.push(char::from(u8::try_from(digit.to_digit(8)? * 64 + b * 8 + c).ok()?));
                }
                other => out.push(other),
            },
            '\n' => return None,
            c => out.push(c),
        }
    }
    None
}
