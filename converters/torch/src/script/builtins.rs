//! What TorchScript computes with known values: numbers, texts, lists.

use super::value::Item;
use std::rc::Rc;

/// The result of a builtin of known values; `None` where it is none, or where what it needs is not known.
pub(crate) fn known(op: &str, args: &[Item]) -> Option<Result<Item, String>> {
    let done = |item: Item| Some(Ok(item));
    match (op, args) {
        ("__is__", [a, b]) => return Some(Ok(Item::Bool(is(a, b)?))),
        ("__isnot__", [a, b]) => return Some(Ok(Item::Bool(!is(a, b)?))),
        ("__not__", [a]) => return done(Item::Bool(!a.truth()?)),
        ("Bool" | "bool", [a]) => return done(Item::Bool(a.truth()?)),
        ("len", [Item::Str(s)]) => return done(Item::Int(s.chars().count() as i64)),
        ("len", [Item::Dict(d)]) => return done(Item::Int(d.borrow().len() as i64)),
        ("len", [a]) => return done(Item::Int(a.elements()?.len() as i64)),
        ("format" | "percentFormat", [Item::Str(s), rest @ ..]) => return done(formatted(s, rest)),
        ("eq", [a, b]) => return done(Item::Bool(a.same(b)?)),
        ("ne", [a, b]) => return done(Item::Bool(!a.same(b)?)),
        ("__contains__", [all, one]) => return done(Item::Bool(contains(all, one)?)),
        ("__getitem__", [all, at]) => return item(all, at),
        ("str", [a]) => return done(Item::Str(a.to_string().into())),
        ("list", [a]) => return done(Item::list(a.elements()?)),
        ("copy", [Item::List(v)]) => return done(Item::list(v.borrow().clone())),
        ("keys", [Item::Dict(d)]) => return done(Item::list(d.borrow().iter().map(|(k, _)| k.clone()).collect())),
        ("values", [Item::Dict(d)]) => return done(Item::list(d.borrow().iter().map(|(_, v)| v.clone()).collect())),
        ("items", [Item::Dict(d)]) => {
            let pair = |(k, v): &(Item, Item)| Item::Tuple(vec![k.clone(), v.clone()].into());
            return done(Item::list(d.borrow().iter().map(pair).collect()));
        }
        ("get", [Item::Dict(d), key, rest @ ..]) => {
            for (k, v) in d.borrow().iter() {
                if k.same(key)? {
                    return done(v.clone());
                }
            }
            return done(rest.first().cloned().unwrap_or(Item::None));
        }
        _ => {}
    }
    list_op(op, args).or_else(|| number_op(op, args))
}

fn is(a: &Item, b: &Item) -> Option<bool> {
    match (a, b) {
        (Item::Uninitialized, _) | (_, Item::Uninitialized) => None,
        (Item::None, b) => Some(matches!(b, Item::None)),
        (a, Item::None) => Some(matches!(a, Item::None)),
        // A tensor is the one that it was made as.
        (Item::Tensor(a), Item::Tensor(b)) => Some(a == b),
        (a, b) => a.same(b),
    }
}

fn contains(all: &Item, one: &Item) -> Option<bool> {
    match (all, one) {
        (Item::Str(text), Item::Str(part)) => Some(text.contains(&**part)),
        (Item::Dict(d), key) => d.borrow().iter().try_fold(false, |found, (k, _)| Some(found || k.same(key)?)),
        (all, one) => all.elements()?.iter().try_fold(false, |found, x| Some(found || x.same(one)?)),
    }
}

/// The position that an index means among `len` elements.
fn position(at: i64, len: usize) -> Result<usize, String> {
    let from_start = if at < 0 { at.saturating_add(len as i64) } else { at };
    usize::try_from(from_start).ok().filter(|i| *i < len).ok_or_else(|| format!("element {at} of a list of {len}"))
}

fn item(all: &Item, at: &Item) -> Option<Result<Item, String>> {
    if let Item::Dict(d) = all {
        for (k, v) in d.borrow().iter() {
            if k.same(at)? {
                return Some(Ok(v.clone()));
            }
        }
        return Some(Err(format!("a dictionary without `{at}`")));
    }
    let (elements, at) = (all.elements()?, at.int()?);
    Some(position(at, elements.len()).map(|i| elements[i].clone()))
}

/// How many numbers lie in a range.
pub(super) fn turns(from: i64, to: i64, step: i64) -> i64 {
    let (from, to, step) = (i128::from(from), i128::from(to), i128::from(step));
    let way = if step < 0 { from - to } else { to - from };
    let turns = if way <= 0 || step == 0 { 0 } else { (way - 1) / step.abs() + 1 };
    i64::try_from(turns).unwrap_or(i64::MAX)
}

/// Bounds of a slice as Python has them.
fn bounds(args: &[Item], len: usize) -> Option<(usize, usize, usize)> {
    let at = |i: usize, default: i64| match args.get(i) {
        None | Some(Item::None) => Some(default),
        Some(x) => x.int(),
    };
    let n = len as i64;
    let clamp = |i: i64| (if i < 0 { i.saturating_add(n) } else { i }).clamp(0, n) as usize;
    let step = at(3, 1).filter(|s| *s > 0)?;
    Some((clamp(at(1, 0)?), clamp(at(2, n)?), step as usize))
}

fn list_op(op: &str, args: &[Item]) -> Option<Result<Item, String>> {
    let done = |item: Item| Some(Ok(item));
    match (op, args) {
        ("slice", [Item::List(v), ..]) => {
            let v = v.borrow();
            let (from, to, step) = bounds(args, v.len())?;
            done(Item::list(v.get(from..to).unwrap_or_default().iter().step_by(step).cloned().collect()))
        }
        ("slice", [Item::Tuple(v), ..]) => {
            let (from, to, step) = bounds(args, v.len())?;
            done(Item::Tuple(v.get(from..to).unwrap_or_default().iter().step_by(step).cloned().collect()))
        }
        ("append", [Item::List(v), x]) => {
            v.borrow_mut().push(x.clone());
            done(args[0].clone())
        }
        ("extend", [Item::List(v), more]) => {
            let more = more.elements()?;
            v.borrow_mut().extend(more);
            done(Item::None)
        }
        ("insert", [Item::List(v), at, x]) => {
            let (at, len) = (at.int()?, v.borrow().len() as i64);
            let at = (if at < 0 { at.saturating_add(len) } else { at }).clamp(0, len) as usize;
            v.borrow_mut().insert(at, x.clone());
            done(Item::None)
        }
        ("pop", [Item::List(v), rest @ ..]) => {
            let at = rest.first().map_or(Some(-1), Item::int)?;
            let len = v.borrow().len();
            Some(position(at, len).map(|i| v.borrow_mut().remove(i)))
        }
        ("clear", [Item::List(v)]) => {
            v.borrow_mut().clear();
            done(Item::None)
        }
        ("reverse", [Item::List(v)]) => {
            v.borrow_mut().reverse();
            done(Item::None)
        }
        ("_set_item", [Item::List(v), at, x]) => {
            let len = v.borrow().len();
            let at = at.int()?;
            Some(position(at, len).map(|i| {
                v.borrow_mut()[i] = x.clone();
                Item::None
            }))
        }
        ("_set_item", [Item::Dict(d), key, x]) => {
            let mut d = d.borrow_mut();
            for (k, v) in d.iter_mut() {
                if k.same(key)? {
                    *v = x.clone();
                    return done(Item::None);
                }
            }
            d.push((key.clone(), x.clone()));
            done(Item::None)
        }
        ("add", [Item::List(a), Item::List(b)]) => {
            done(Item::list(a.borrow().iter().chain(b.borrow().iter()).cloned().collect()))
        }
        ("add_", [Item::List(a), Item::List(b)]) => {
            let more = b.borrow().clone();
            a.borrow_mut().extend(more);
            done(args[0].clone())
        }
        ("add", [Item::Str(a), Item::Str(b)]) => done(Item::Str(format!("{a}{b}").into())),
        ("mul", [Item::List(v), n] | [n, Item::List(v)]) => {
            let (v, n) = (v.borrow(), n.int()?.max(0) as usize);
            if v.len().checked_mul(n).is_none_or(|all| all > 1 << 20) {
                return Some(Err("a list that is too long".to_owned()));
            }
            done(Item::list((0..n).flat_map(|_| v.iter().cloned()).collect()))
        }
        ("max" | "min" | "sum" | "any" | "all", [Item::List(v)]) => {
            let numbers: Vec<Item> = v.borrow().clone();
            match op {
                "any" => done(Item::Bool(numbers.iter().try_fold(false, |a, x| Some(a | x.truth()?))?)),
                "all" => done(Item::Bool(numbers.iter().try_fold(true, |a, x| Some(a & x.truth()?))?)),
                "sum" => numbers.into_iter().try_fold(Item::Int(0), |a, x| number_op("add", &[a, x])?.ok()).map(Ok),
                _ => {
                    let mut all = numbers.into_iter();
                    let first = all.next()?;
                    all.try_fold(first, |a, x| number_op(op, &[a, x])?.ok()).map(Ok)
                }
            }
        }
        ("sorted", [Item::List(v)]) => {
            let mut all: Vec<(f64, Item)> =
                v.borrow().iter().map(|x| Some((x.number()?, x.clone()))).collect::<Option<_>>()?;
            all.sort_by(|a, b| a.0.total_cmp(&b.0));
            done(Item::list(all.into_iter().map(|(_, x)| x).collect()))
        }
        ("broadcast_shapes", shapes) => {
            let mut out: Vec<i64> = vec![];
            for shape in shapes {
                let own: Vec<i64> = shape.elements()?.iter().map(Item::int).collect::<Option<_>>()?;
                let ahead = own.len().saturating_sub(out.len());
                out.splice(0..0, std::iter::repeat_n(1, ahead));
                let from = out.len() - own.len();
                for (all, one) in out[from..].iter_mut().zip(own) {
                    match (*all, one) {
                        (1, n) => *all = n,
                        (n, m) if n == m || m == 1 => {}
                        (n, m) => return Some(Err(format!("sizes {n} and {m}, which do not go together"))),
                    }
                }
            }
            done(Item::list(out.into_iter().map(Item::Int).collect()))
        }
        ("__range_length", [from, to, step]) => {
            let (from, to, step) = (from.int()?, to.int()?, step.int()?);
            Some(match step {
                0 => Err("a range of steps of 0".to_owned()),
                step => Ok(Item::Int(turns(from, to, step))),
            })
        }
        ("__derive_index", [i, from, step]) => {
            let (i, from, step) = (i.int()?, from.int()?, step.int()?);
            done(Item::Int(from.checked_add(i.checked_mul(step)?)?))
        }
        _ => None,
    }
}

/// Arithmetic of known numbers, by Python's rules.
fn number_op(op: &str, args: &[Item]) -> Option<Result<Item, String>> {
    let done = |item: Item| Some(Ok(item));
    match args {
        [a] => {
            let x = a.number()?;
            done(match (op, a.int()) {
                ("neg", Some(i)) => Item::Int(i.checked_neg()?),
                ("neg", None) => Item::Float(-x),
                ("abs", Some(i)) => Item::Int(i.checked_abs()?),
                ("abs", None) => Item::Float(x.abs()),
                ("Int" | "int", _) => Item::Int(in_range(x.trunc())?),
                ("Float" | "float", _) => Item::Float(x),
                ("floor", _) => Item::Int(in_range(x.floor())?),
                ("ceil", _) => Item::Int(in_range(x.ceil())?),
                ("round", _) => Item::Float(x.round_ties_even()),
                ("sqrt", _) => Item::Float(x.sqrt()),
                ("log", _) => Item::Float(x.ln()),
                ("log2", _) => Item::Float(x.log2()),
                ("log10", _) => Item::Float(x.log10()),
                ("exp", _) => Item::Float(x.exp()),
                ("isnan", _) => Item::Bool(x.is_nan()),
                ("isinf", _) => Item::Bool(x.is_infinite()),
                ("isfinite", _) => Item::Bool(x.is_finite()),
                _ => return None,
            })
        }
        [a, b] => {
            let (x, y) = (a.number()?, b.number()?);
            let ints = a.int().zip(b.int());
            if matches!(op, "div" | "floordiv" | "remainder" | "fmod") && y == 0.0 {
                return Some(Err("a division by zero".to_owned()));
            }
            done(match (op, ints) {
                ("add", Some((a, b))) => Item::Int(a.checked_add(b)?),
                ("add", None) => Item::Float(x + y),
                ("sub", Some((a, b))) => Item::Int(a.checked_sub(b)?),
                ("sub", None) => Item::Float(x - y),
                ("mul", Some((a, b))) => Item::Int(a.checked_mul(b)?),
                ("mul", None) => Item::Float(x * y),
                ("div" | "truediv", _) => Item::Float(x / y),
                ("floordiv", Some((a, b))) => Item::Int(mlconv_tensor::floor_div(a, b)),
                ("floordiv", None) => Item::Float((x / y).floor()),
                ("remainder", Some((a, b))) => {
                    Item::Int(a.checked_sub(b.checked_mul(mlconv_tensor::floor_div(a, b))?)?)
                }
                ("remainder", None) => Item::Float(x - y * (x / y).floor()),
                ("pow", Some((a, b))) => match u32::try_from(b) {
                    Ok(b) => Item::Int(a.checked_pow(b)?),
                    Err(_) => Item::Float(x.powf(y)),
                },
                ("pow", None) => Item::Float(x.powf(y)),
                ("lt", _) => Item::Bool(x < y),
                ("le", _) => Item::Bool(x <= y),
                ("gt", _) => Item::Bool(x > y),
                ("ge", _) => Item::Bool(x >= y),
                ("max", Some((a, b))) => Item::Int(a.max(b)),
                ("max", None) => Item::Float(x.max(y)),
                ("min", Some((a, b))) => Item::Int(a.min(b)),
                ("min", None) => Item::Float(x.min(y)),
                ("__and__", Some((p, q))) => both(a, b, p & q),
                ("__or__", Some((p, q))) => both(a, b, p | q),
                ("__xor__", Some((p, q))) => both(a, b, p ^ q),
                ("__lshift__", Some((a, b))) => Item::Int(a.checked_shl(u32::try_from(b).ok()?)?),
                ("__rshift__", Some((a, b))) => Item::Int(a.checked_shr(u32::try_from(b).ok()?)?),
                _ => return None,
            })
        }
        _ => None,
    }
}

/// A boolean of booleans, else an integer.
fn both(a: &Item, b: &Item, bits: i64) -> Item {
    if matches!((a, b), (Item::Bool(_), Item::Bool(_))) { Item::Bool(bits != 0) } else { Item::Int(bits) }
}

fn in_range(x: f64) -> Option<i64> {
    // The bounds are exact in floats.
    (x >= -(2f64.powi(63)) && x < 2f64.powi(63)).then_some(x as i64)
}

/// A text with each `{}` replaced by the next argument.
fn formatted(text: &str, args: &[Item]) -> Item {
    let mut parts = text.split("{}");
    let mut out = parts.next().unwrap_or_default().to_owned();
    let mut args = args.iter();
    for part in parts {
        out += &args.next().map_or_else(|| "{}".to_owned(), ToString::to_string);
        out += part;
    }
    Item::Str(Rc::from(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(op: &str, args: &[Item]) -> String {
        match known(op, args) {
            None => "unknown".to_owned(),
            Some(Ok(item)) => item.to_string(),
            Some(Err(why)) => why,
        }
    }

    #[test]
    fn numbers_follow_python() {
        let (i, x) = (|i| Item::Int(i), |x| Item::Float(x));
        assert_eq!(value("floordiv", &[i(-7), i(2)]), "-4");
        assert_eq!(value("remainder", &[i(-7), i(2)]), "1");
        assert_eq!(value("div", &[i(7), i(2)]), "3.5");
        assert_eq!(value("div", &[i(7), i(0)]), "a division by zero");
        assert_eq!(value("add", &[i(i64::MAX), i(1)]), "unknown");
        assert_eq!(value("Int", &[x(-2.7)]), "-2");
        assert_eq!(value("ne", &[Item::Str("a".into()), Item::Str("a".into())]), "False");
        assert_eq!(value("add", &[Item::Tensor("t".into()), i(1)]), "unknown");
        assert_eq!(value("__isnot__", &[Item::Tensor("t".into()), Item::None]), "True");
    }

    #[test]
    fn lists_are_shared() {
        let list = Item::list(vec![Item::Int(1)]);
        let other = list.clone();
        assert_eq!(value("append", &[list.clone(), Item::Int(2)]), "[1, 2]");
        assert_eq!(value("len", std::slice::from_ref(&other)), "2");
        assert_eq!(value("__getitem__", &[other.clone(), Item::Int(-1)]), "2");
        assert_eq!(value("__getitem__", &[other.clone(), Item::Int(5)]), "element 5 of a list of 2");
        assert_eq!(value("slice", &[other, Item::None, Item::Int(-1)]), "[1]");
        let length = |from, to, step| value("__range_length", &[from, to, step].map(Item::Int));
        assert_eq!([length(0, 7, 3), length(7, 0, -3), length(7, 0, 3)], ["3", "3", "0"]);
        assert_eq!(length(-i64::MAX, i64::MAX, 1), i64::MAX.to_string());
        assert_eq!(length(i64::MAX, i64::MIN, i64::MIN), "2");
        let list = || Item::list([1, 2, 3].map(Item::Int).to_vec());
        for (at, expected) in [(-1, "[1, 2, 9, 3]"), (0, "[9, 1, 2, 3]"), (-7, "[9, 1, 2, 3]"), (7, "[1, 2, 3, 9]")] {
            let list = list();
            value("insert", &[list.clone(), Item::Int(at), Item::Int(9)]);
            assert_eq!(list.to_string(), expected);
        }
        assert_eq!(value("format", &[Item::Str("{} of {}".into()), Item::Int(1), Item::Int(2)]), "1 of 2");
    }
}
