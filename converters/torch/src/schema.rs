//! Signatures of operators, as PyTorch writes them.
//!
//! `add.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor` gives an operator its arguments' names, order and
//! defaults, and says which results share memory with which arguments.

use mlconv_source::Arg;

/// A signature.
#[derive(Clone, Debug)]
pub struct Signature {
    /// The operator and its overload, such as `add.Tensor`; the overload `default` is left out.
    pub name: &'static str,
    /// Its parameters, in order.
    pub params: Vec<Param>,
    /// Its results.
    pub returns: Vec<Return>,
}

/// A result.
#[derive(Clone, Debug)]
pub struct Return {
    /// Its type, without alias sets.
    pub ty: String,
    /// The set of what shares memory with it.
    pub alias: Option<String>,
}

/// A parameter.
#[derive(Clone, Debug)]
pub struct Param {
    /// Its name.
    pub name: &'static str,
    /// Its type, such as `Tensor?` or `SymInt[]`, without alias sets.
    pub ty: String,
    /// What it is where it is not given.
    pub default: Option<Arg>,
    /// Whether it is given by name only.
    pub by_name: bool,
    /// The set of what shares memory with it.
    pub alias: Option<String>,
}

impl Signature {
    /// Reads a signature; `None` where the text is none.
    pub fn parse(text: &'static str) -> Option<Self> {
        let open = text.find('(')?;
        let (name, rest) = (&text[..open], &text[open..]);
        let close = matching(rest)?;
        let (inside, results) = (&rest[1..close], rest[close + 1..].trim_start());
        let results = results.strip_prefix("->")?.trim();
        let (mut params, mut by_name) = (vec![], false);
        for part in split(inside) {
            if part == "*" {
                by_name = true;
                continue;
            }
            let (typed, default) = match split_default(part) {
                Some((typed, default)) => (typed, Some(literal(default)?)),
                None => (part, None),
            };
            let (ty, name) = typed.rsplit_once(' ')?;
            let (ty, alias) = without_alias(ty.trim());
            params.push(Param { name, ty, default, by_name, alias });
        }
        let results = results.strip_prefix('(').and_then(|r| r.strip_suffix(')')).unwrap_or(results);
        let result = |r: &str| {
            let (ty, alias) = without_alias(r);
            Return { ty, alias }
        };
        let returns = split(results).into_iter().map(result).collect();
        Some(Self { name, params, returns })
    }

    /// The parameter called `name`.
    pub fn param(&self, name: &str) -> Option<&Param> {
        self.params.iter().find(|p| p.name == name)
    }
}

/// The position of the bracket that closes the one at the start.
fn matching(text: &str) -> Option<usize> {
    let mut depth = 0usize;
    for (i, c) in text.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(i);
                }
            }
            _ => {}
        }
    }
    None
}

/// The parts between commas outside of brackets.
fn split(text: &str) -> Vec<&str> {
    let (mut out, mut start, mut depth) = (vec![], 0, 0i32);
    for (i, c) in text.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            ',' if depth == 0 => {
                out.push(text[start..i].trim());
                start = i + 1;
            }
            _ => {}
        }
    }
    out.push(text[start..].trim());
    out.retain(|p| !p.is_empty());
    out
}

fn split_default(part: &'static str) -> Option<(&'static str, &'static str)> {
    let at = part.find('=')?;
    Some((part[..at].trim(), part[at + 1..].trim()))
}

/// A type without its alias set, and the set.
fn without_alias(ty: &str) -> (String, Option<String>) {
    let Some((open, close)) = ty.find('(').and_then(|open| Some((open, open + ty[open..].find(')')?))) else {
        let name = ty.split(' ').next().unwrap_or(ty);
        return (name.to_owned(), None);
    };
    let inside = &ty[open + 1..close];
    let set: String = inside.chars().take_while(char::is_ascii_alphanumeric).collect();
    let plain = format!("{}{}", &ty[..open], &ty[close + 1..]);
    (plain, Some(set))
}

/// A default; enumerations are integers there.
fn literal(text: &str) -> Option<Arg> {
    Some(match text {
        "None" => Arg::None,
        "True" => Arg::Bool(true),
        "False" => Arg::Bool(false),
        "[]" => Arg::Ints(vec![]),
        "Mean" => Arg::Int(1),
        "contiguous_format" => Arg::Str(text.to_owned()),
        "inf" => Arg::Float(f64::INFINITY),
        _ => {
            if let Some(list) = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
                let parts: Vec<&str> = split(list);
                if parts.iter().all(|p| p.parse::<i64>().is_ok()) {
                    return Some(Arg::Ints(parts.iter().filter_map(|p| p.parse().ok()).collect()));
                }
                return match parts.as_slice() {
                    [one, more @ ..] if *one == "True" || *one == "False" => {
                        let flags = std::iter::once(one).chain(more).map(|p| i64::from(*p == "True"));
                        Some(Arg::Ints(flags.collect()))
                    }
                    _ => Some(Arg::Floats(parts.iter().map(|p| p.parse().ok()).collect::<Option<_>>()?)),
                };
            }
            if let Some(s) = text.strip_prefix(['"', '\'']).and_then(|t| t.strip_suffix(['"', '\''])) {
                Arg::Str(s.to_owned())
            } else if let Ok(i) = text.parse() {
                Arg::Int(i)
            } else {
                Arg::Float(text.parse().ok()?)
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_read() {
        let s = Signature::parse(
            "max_pool2d(Tensor self, int[2] kernel_size, int[2] stride=[], *, bool ceil_mode=False) -> (Tensor, Tensor)",
        );
        let s = s.expect("a signature");
        let names: Vec<&str> = s.params.iter().map(|p| p.name).collect();
        assert_eq!(
            (s.name, names, s.returns.len()),
            ("max_pool2d", vec!["self", "kernel_size", "stride", "ceil_mode"], 2)
        );
        assert!(s.params[3].by_name && matches!(s.params[2].default, Some(Arg::Ints(ref v)) if v.is_empty()));
        let view = Signature::parse("view(Tensor(a) self, SymInt[] size) -> Tensor(a)").expect("a signature");
        assert_eq!(view.params[0].ty, "Tensor");
        assert_eq!(view.params[0].alias, view.returns[0].alias);
        let split = Signature::parse("split.Tensor(Tensor(a -> *) self, SymInt split_size, int dim=0) -> Tensor(a)[]");
        let split = split.expect("a signature");
        assert_eq!((split.params[0].ty.as_str(), split.returns[0].ty.as_str()), ("Tensor", "Tensor[]"));
        assert!(Signature::parse("nothing").is_none());
    }
}
