//! Arrays for inputs: matched by name, checked, and converted where nothing is lost or as is said.

use crate::{Diagnostic, arrays::Arrays, codes, names::listed, pictures::developed};
use indexmap::IndexMap;
use mlconv_mil::{
    ir::{Feature, Function, Port},
    text::Namer,
};
use mlconv_tensor::{DType, Dim, Dims, Tensor, TensorType, Type};
use std::collections::HashSet;

/// The inputs of a function that are tensors, with their types.
pub fn tensor_inputs(f: &Function) -> impl Iterator<Item = (&Port, &TensorType)> {
    f.inputs().iter().zip(&f.sig.inputs).filter_map(|(v, port)| Some((port, f.ty(*v).tensor()?)))
}

/// The states of a function, with their types.
pub fn states(f: &Function) -> impl Iterator<Item = (&Port, &TensorType)> {
    f.inputs().iter().zip(&f.sig.inputs).filter_map(|(v, port)| match f.ty(*v) {
        Type::State(t) => Some((port, t)),
        Type::Tensor(_) | Type::List { .. } | Type::Dict { .. } | Type::Unknown => None,
    })
}

/// Whether `given` means the input or output that the source calls `name`: by that name, or by what a package makes of it.
pub fn means(given: &str, name: &str) -> bool {
    given == name || given == Namer::legal(name)
}

/// Whether `given` means `port`: by the source's name, or by the one it has in a package.
pub fn means_port(given: &str, port: &Port) -> bool {
    means(given, &port.name) || port.packaged.as_deref() == Some(given)
}

/// Inputs for one run, as a user gives them.
#[derive(Clone, Debug)]
pub struct Given {
    /// The inputs, in the order of the signature.
    pub inputs: Vec<Option<Tensor>>,
    /// What a user should know of how they were found.
    pub notes: Vec<Diagnostic>,
}

/// As [`match_inputs`], except that arrays for no input are left out and said.
pub fn given_inputs(f: &Function, arrays: &Arrays) -> Result<Given, Diagnostic> {
    let arrays = &*developed(f, arrays)?;
    let fitted = pair(f, arrays)?.into_iter().map(|(port, ty, t)| t.map(|t| fit(&port.name, ty, t)).transpose());
    let inputs = fitted.collect::<Result<_, _>>()?;
    let mut notes = notes(f, arrays);
    notes.extend(unused_note(f, &unmatched(f, arrays)));
    Ok(Given { inputs, notes })
}

/// What a user should know of `arrays`: that no name matches, that one holds what is not finite, is rounded, or is no image.
pub fn notes(f: &Function, arrays: &Arrays) -> Vec<Diagnostic> {
    // Pictures that do not fit are an error elsewhere, as are arrays.
    let Ok(arrays) = developed(f, arrays) else { return vec![] };
    let (arrays, mut out) = (&*arrays, vec![]);
    let named = is_named(f, arrays);
    if !named && !arrays.is_empty() {
        let title = format!("{} taken for {}, in order: no name matches", listed(arrays.keys()), input_names(f));
        out.push(Diagnostic::warning(&codes::N0004, title));
    }
    let places = places(f, arrays);
    let used = |i: usize| !named || places.contains(&Some(i));
    for (what, nan) in [("NaN", true), ("infinities", false)] {
        let is_odd = |x: &f64| if nan { x.is_nan() } else { x.is_infinite() };
        let any = |t: &Tensor| t.dtype().is_float() && t.to_f64().iter().any(is_odd);
        let found = arrays.iter().enumerate().filter(|(i, (_, t))| used(*i) && any(t));
        let found: Vec<&String> = found.map(|(_, (k, _))| k).collect();
        if !found.is_empty() {
            let title = format!("{}: there are {what} among the elements", listed(found));
            out.push(Diagnostic::warning(&codes::N0004, title));
        }
    }
    let paired = pair(f, arrays).unwrap_or_default();
    let is_rounded = |want: &TensorType, t: &Tensor| rounds(t.dtype(), want.dtype) && !is_same(t, &t.cast(want.dtype));
    let rounded = paired.iter().filter(|(_, ty, t)| t.is_some_and(|t| is_rounded(ty, t)));
    for (port, ty, t) in rounded {
        let from = t.map_or(ty.dtype, |t| t.dtype());
        let title = format!("`{}`: elements are {from}, and are rounded to {}", port.name, ty.dtype);
        out.push(Diagnostic::warning(&codes::N0004, title));
    }
    for (port, _, t) in &paired {
        let (Some(range), Some(t)) = (port.range, t) else { continue };
        let beyond = |x: &f64| (range.low - x).max(x - range.high);
        let worst = t.to_f64().into_iter().filter(|x| beyond(x) > 0.0).max_by(|a, b| beyond(a).total_cmp(&beyond(b)));
        let said = format!("which is declared to hold {} to {}", range.low, range.high);
        let title = worst.map(|x| format!("`{}`, {said}, is given {x}", port.name));
        out.extend(title.map(|title| Diagnostic::warning(&codes::N0004, title).help(UNDECLARED)));
    }
    let odd = paired.iter().filter(|(port, ty, t)| {
        let bytes = matches!(port.feature, Feature::Image(_)) && ty.dtype == DType::F32;
        let is_pixel = |x: &f64| (0.0..=255.0).contains(x) && x.fract() == 0.0;
        bytes && t.is_some_and(|t| !t.to_f64().iter().all(is_pixel))
    });
    let odd: Vec<&str> = odd.map(|(port, ..)| &*port.name).collect();
    if !odd.is_empty() {
        let title = format!("{}: elements are no pixels, which are whole numbers from 0 to 255", listed(odd));
        let d = Diagnostic::warning(&codes::N0004, title);
        out.push(d.help("the model scales the pixels of its images itself: give them as they are"));
    }
    out
}

const UNDECLARED: &str =
    "what half precision must hold follows from `--range`: declare one that holds all that is given";

/// Says that arrays are for no input.
pub fn unused_note(f: &Function, unused: &[String]) -> Option<Diagnostic> {
    let title = format!("not used, as no input has the name: {}", listed(unused));
    let d = Diagnostic::warning(&codes::N0004, title).help(format!("the inputs are {}", input_names(f)));
    (!unused.is_empty()).then_some(d)
}

/// The array of each input, in the order of the signature. Arrays are matched by name; where no name matches at all, in
/// order. `None` is left to the input's default.
pub fn match_inputs(f: &Function, arrays: &Arrays) -> Result<Vec<Option<Tensor>>, Diagnostic> {
    let arrays = &*developed(f, arrays)?;
    let paired = pair(f, arrays)?;
    if let Some(extra) = unmatched(f, arrays).first() {
        let d = Diagnostic::error(&codes::N0003, format!("no input is called `{extra}`"));
        return Err(d.help(format!("the inputs are {}", input_names(f))));
    }
    let fitted = paired.into_iter().map(|(port, ty, t)| t.map(|t| fit(&port.name, ty, t)).transpose());
    fitted.collect()
}

/// Inputs for one or more runs.
#[derive(Clone, Debug)]
pub struct Samples {
    /// The inputs of each run.
    pub runs: Vec<Vec<Option<Tensor>>>,
    /// Arrays that match no input.
    pub unused: Vec<String>,
}

/// Inputs for as many runs as the arrays have rows. An array has rows if it has one more leading axis than its input, or
/// a longer first axis where the input's is 1; `rows` also splits a flexible first axis of that length. An array without
/// rows goes into every run. Arrays that match no input are left out, as long as every input has one.
pub fn samples(f: &Function, arrays: &Arrays, rows: Option<usize>) -> Result<Samples, Diagnostic> {
    let arrays = &*developed(f, arrays)?;
    let paired = pair(f, arrays)?;
    let mut count: Option<(&str, usize)> = None;
    let mut columns = vec![];
    for (port, ty, t) in paired {
        let split = t.and_then(|t| rows_of(ty, t, rows));
        if let Some(split) = &split {
            if split.is_empty() {
                return Err(Diagnostic::error(&codes::N0003, format!("input `{}` is given no samples", port.name)));
            }
            match count {
                Some((first, n)) if n != split.len() => {
                    let title = format!("`{first}` has {n} samples, `{}` has {}", port.name, split.len());
                    return Err(Diagnostic::error(&codes::N0003, title));
                }
                _ => count = Some((&port.name, split.len())),
            }
        }
        columns.push(match split {
            Some(split) => split.iter().map(|row| fit(&port.name, ty, row).map(Some)).collect::<Result<_, _>>()?,
            None => vec![t.map(|t| fit(&port.name, ty, t)).transpose()?],
        });
    }
    let run = |i: usize| columns.iter().map(|c: &Vec<_>| c.get(i).or(c.first()).cloned().flatten()).collect();
    Ok(Samples { runs: (0..count.map_or(1, |(_, n)| n)).map(run).collect(), unused: unmatched(f, arrays) })
}

/// The rows of `t`, each of the rank that `want` has; `None` where `t` is a single value of it.
fn rows_of(want: &TensorType, t: &Tensor, rows: Option<usize>) -> Option<Vec<Tensor>> {
    let (n, rest) = t.shape().split_first()?;
    let fits = |dims: &[Dim]| dims.iter().zip(rest).all(|(d, n)| d.as_usize().is_none_or(|d| d == *n));
    let dims: Vec<Dim> = want.shape.iter().cloned().collect();
    if rest.len() == dims.len() && fits(&dims) {
        return (0..*n).map(|i| Some(t.rows(i..i + 1)?.reshape(rest))).collect();
    }
    let (first, others) = dims.split_first()?;
    let splits = match first.as_usize() {
        Some(one) => one == 1 && *n != 1,
        None => rows == Some(*n),
    };
    if rest.len() == others.len() && splits && fits(others) {
        return (0..*n).map(|i| t.rows(i..i + 1)).collect();
    }
    None
}

type Paired<'a> = (&'a Port, &'a TensorType, Option<&'a Tensor>);

/// Each input with its array.
fn pair<'a>(f: &'a Function, arrays: &'a Arrays) -> Result<Vec<Paired<'a>>, Diagnostic> {
    let ports: Vec<_> = tensor_inputs(f).collect();
    let offered = offered(f, arrays).len();
    if !is_named(f, arrays) && offered > ports.len() {
        let title = format!("{offered} arrays for {} inputs, and no name matches", ports.len());
        return Err(Diagnostic::error(&codes::N0003, title).help(format!("the inputs are {}", input_names(f))));
    }
    let pair = |((port, ty), at): ((&'a Port, &'a TensorType), Option<usize>)| match at
        .and_then(|at| arrays.get_index(at))
        .map(|(_, t)| t)
    {
        None if port.default.is_none() => {
            Err(Diagnostic::error(&codes::N0003, format!("input `{}` is missing, wanted {ty}", port.name)))
        }
        found => Ok((port, ty, found)),
    };
    ports.into_iter().zip(assigned(f, arrays)).map(pair).collect()
}

/// Where among `arrays` the one of each input is: by name, and where no name matches at all, in order.
pub(crate) fn assigned(f: &Function, arrays: &Arrays) -> Vec<Option<usize>> {
    if is_named(f, arrays) {
        return places(f, arrays);
    }
    let offered = offered(f, arrays);
    (0..tensor_inputs(f).count()).map(|i| offered.get(i).copied()).collect()
}

/// The arrays that may be for inputs: those without elements are for inputs that a package leaves out.
fn offered(f: &Function, arrays: &Arrays) -> Vec<usize> {
    let surplus = arrays.len() > tensor_inputs(f).count();
    let any = arrays.values().enumerate().filter(|(_, t)| !surplus || t.count() > 0);
    any.map(|(i, _)| i).collect()
}

/// Where among `arrays` the one of each input is, by name; each is for one input. What a package calls one input may be what
/// the source calls another: names of the package go first, unless more inputs have an array where the source's do.
fn places(f: &Function, arrays: &Arrays) -> Vec<Option<usize>> {
    type Means = fn(&str, &Port) -> bool;
    let of_package: Means = |k, p| k == p.packaged.as_deref().unwrap_or(&p.name);
    let of_source: Means = |k, p| k == &*p.name;
    let by = |order: [Means; 3]| {
        let ports: Vec<&Port> = tensor_inputs(f).map(|(p, _)| p).collect();
        let (mut places, mut taken) = (vec![None; ports.len()], HashSet::new());
        for means in order {
            for (place, port) in places.iter_mut().zip(&ports).filter(|(place, _)| place.is_none()) {
                let at = arrays.keys().enumerate().position(|(i, k)| !taken.contains(&i) && means(k, port));
                taken.extend(at);
                *place = at;
            }
        }
        (taken.len(), places)
    };
    let (package, source) = (by([of_package, of_source, means_port]), by([of_source, of_package, means_port]));
    if source.0 > package.0 { source.1 } else { package.1 }
}

/// `arrays` under the names of the inputs that they are for; others keep theirs.
pub fn under_own_names(f: &Function, arrays: &Arrays, rename: impl Fn(&str, &Port) -> bool) -> Arrays {
    let ports: Vec<&Port> = tensor_inputs(f).map(|(p, _)| p).collect();
    let places = places(f, arrays);
    let own = |(i, (k, t)): (usize, (&String, &Tensor))| {
        let port = places.iter().position(|p| *p == Some(i)).map(|p| ports[p]);
        (port.filter(|p| rename(k, p)).map_or_else(|| k.clone(), |p| p.name.to_string()), t.clone())
    };
    arrays.iter().enumerate().map(own).collect()
}

/// Whether any array is called as an input is; if not, arrays are matched in order.
pub fn is_named(f: &Function, arrays: &Arrays) -> bool {
    arrays.keys().any(|k| tensor_inputs(f).any(|(p, _)| means_port(k, p)))
}

/// Arrays that are for no input. One without elements is for an input that a package leaves out.
fn unmatched(f: &Function, arrays: &Arrays) -> Vec<String> {
    let (ordered, places) = (!is_named(f, arrays), places(f, arrays));
    let extra = |(i, (_, t)): &(usize, (&String, &Tensor))| !ordered && t.count() > 0 && !places.contains(&Some(*i));
    arrays.iter().enumerate().filter(extra).map(|(_, (k, _))| k.clone()).collect()
}

fn input_names(f: &Function) -> String {
    listed(tensor_inputs(f).map(|(p, _)| &*p.name))
}

/// Whether elements are rounded: NumPy makes f64 of what nobody meant to be more exact, and a model may take half precision.
fn rounds(from: DType, to: DType) -> bool {
    matches!((from, to), (DType::F64, DType::F32 | DType::F16) | (DType::F32, DType::F16))
}

/// Whether both have the same elements, which are floats.
fn is_same(a: &Tensor, b: &Tensor) -> bool {
    a.to_f64().into_iter().zip(b.to_f64()).all(|(a, b)| a == b || (a.is_nan() && b.is_nan()))
}

/// `t` as a value of type `want`: f64 is rounded to f32, and both to f16, where no value becomes an infinity; other types are
/// converted only where every value stays what it is, and a scalar is a vector of one.
pub fn fit(name: &str, want: &TensorType, t: &Tensor) -> Result<Tensor, Diagnostic> {
    let fail = |why: &str| -> Result<Tensor, Diagnostic> {
        let shape: Dims = t.shape().into();
        let found = TensorType::new(t.dtype(), &shape);
        let d = Diagnostic::error(&codes::N0003, format!("input `{name}` is {found}, wanted {want}{why}"));
        let pixels = t.dtype() == DType::U8 && want.shape.rank() == 4;
        Err(if pixels {
            let is_gray = want.shape[1].is(1) || want.shape[3].is(1);
            let layout = if is_gray { "gray" } else { "rgb" };
            d.help(format!("say what the model does with pixels: `--image {name}={layout},scale=1/255`"))
        } else {
            d
        })
    };
    let t = match (t.shape(), want.shape.rank()) {
        ([], 1) => t.reshape(&[1]),
        ([1], 0) => t.reshape(&[]),
        _ => t.clone(),
    };
    let fits = t.shape().len() == want.shape.rank()
        && want.shape.iter().zip(t.shape()).all(|(d, n)| d.as_usize().is_none_or(|d| d == *n));
    if !fits {
        return fail("");
    }
    if t.dtype() == want.dtype {
        return Ok(t);
    }
    let number = |d: DType| d.is_int() || d == DType::Bool;
    let same_kind = (t.dtype().is_float() && want.dtype.is_float()) || (number(t.dtype()) && number(want.dtype));
    if !same_kind {
        return fail("");
    }
    let converted = t.cast(want.dtype);
    let kept = if rounds(t.dtype(), want.dtype) {
        let fits = |(a, b): (f64, f64)| b.is_finite() || !a.is_finite();
        t.to_f64().into_iter().zip(converted.to_f64()).all(fits)
    } else if t.dtype() == DType::U64 || !number(t.dtype()) {
        is_same(&t, &converted)
    } else {
        t.to_i64() == converted.to_i64()
    };
    if kept { Ok(converted) } else { fail(", and not every value fits") }
}

/// The named inputs, as an archive would hold them.
pub fn as_arrays(f: &Function, inputs: &[Option<Tensor>]) -> Arrays {
    let named = tensor_inputs(f).zip(inputs).filter_map(|((port, _), t)| Some((port.name.to_string(), t.clone()?)));
    named.collect::<IndexMap<_, _>>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlconv_tensor::Shape;

    fn module(inputs: &str) -> mlconv_mil::ir::Module {
        let text = format!("func @main({inputs}) ios17 {{\n  %y = relu(x=%x)\n  return %y\n}}\n");
        mlconv_mil::text::parse(&text).unwrap_or_else(|e| panic!("{e}"))
    }

    fn arrays<const N: usize>(named: [(&str, &[usize]); N]) -> Arrays {
        named.into_iter().map(|(n, shape)| (n.to_owned(), Tensor::splat(DType::F32, shape, 0.0))).collect()
    }

    #[test]
    fn rows_of_samples_are_runs() {
        let m = module("%x: f32[1, 2], %k: f32[2]");
        let runs = |x: &[usize], k: &[usize]| samples(&m.functions[0], &arrays([("x", x), ("k", k)]), None);
        let shapes =
            |s: Samples| s.runs.iter().map(|r| r[0].as_ref().map_or(0, |t| t.shape().len())).collect::<Vec<_>>();
        assert_eq!(shapes(runs(&[1, 2], &[2]).expect("one run")), [2]);
        assert_eq!(shapes(runs(&[3, 2], &[2]).expect("a longer first axis")), [2, 2, 2]);
        assert_eq!(shapes(runs(&[3, 1, 2], &[3, 2]).expect("one more axis")), [2, 2, 2]);
        assert_eq!(runs(&[3, 2], &[4, 2]).expect_err("3 and 4").title, "`x` has 3 samples, `k` has 4");
        assert_eq!(runs(&[0, 2], &[2]).expect_err("none").title, "input `x` is given no samples");
        assert!(runs(&[3, 3], &[2]).expect_err("3 for 2").title.contains("f32[3, 3], wanted f32[1, 2]"));
    }

    #[test]
    fn a_flexible_first_axis_is_split_by_labels() {
        let m = module("%x: f32[batch, 2]");
        let runs = |rows| samples(&m.functions[0], &arrays([("x", &[3, 2])]), rows).expect("it fits").runs.len();
        assert_eq!((runs(None), runs(Some(3)), runs(Some(4))), (1, 3, 1));
    }

    #[test]
    fn arrays_for_no_input_are_left_out_of_samples_only() {
        let m = module("%x: f32[1, 2]");
        let given = arrays([("x", &[1, 2]), ("label", &[7])]);
        assert_eq!(samples(&m.functions[0], &given, None).expect("`x` is there").unused, ["label"]);
        assert_eq!(match_inputs(&m.functions[0], &given).expect_err("extra").title, "no input is called `label`");
        let other = arrays([("y", &[1, 2])]);
        assert!(samples(&m.functions[0], &other, None).expect("in order").unused.is_empty());
        let said = |arrays: &Arrays| {
            let given = given_inputs(&m.functions[0], arrays).expect("it fits");
            given.notes.into_iter().map(|d| d.title).collect::<Vec<_>>()
        };
        assert_eq!(said(&given), ["not used, as no input has the name: `label`"]);
        assert_eq!(said(&other), ["`y` taken for `x`, in order: no name matches"]);
        let nan = [("x".to_owned(), Tensor::splat(DType::F32, &[1, 2], f64::NAN))].into_iter().collect();
        assert_eq!(said(&nan), ["`x`: there are NaN among the elements"]);
    }

    #[test]
    fn names_of_a_package_go_before_those_of_the_source() {
        let mut m = module("%x: f32[1], %k: f32[2]");
        for (port, (name, packaged)) in m.functions[0].sig.inputs.iter_mut().zip([("a.b", "a_b"), ("a_b", "a_b_0")]) {
            *port = Port { packaged: Some(packaged.into()), ..Port::new(name) };
        }
        let f = &m.functions[0];
        let sizes = |given: &Arrays| {
            let found = match_inputs(f, given).map_err(|d| d.title)?;
            Ok::<_, String>(found.iter().map(|t| t.as_ref().map_or(0, Tensor::count)).collect::<Vec<_>>())
        };
        for (one, two) in [("a_b", "a_b_0"), ("a.b", "a_b_0"), ("a.b", "a_b")] {
            assert_eq!(sizes(&arrays([(one, &[1]), (two, &[2])])), Ok(vec![1, 2]), "{one}, {two}");
            assert_eq!(sizes(&arrays([(two, &[2]), (one, &[1])])), Ok(vec![1, 2]), "{two}, {one}");
        }
        assert_eq!(sizes(&arrays([("a_b", &[1])])), Err("input `a_b` is missing, wanted f32[2]".to_owned()));
        let three = arrays([("a_b", &[1]), ("a.b", &[1]), ("a_b_0", &[2])]);
        assert_eq!(sizes(&three), Err("no input is called `a.b`".to_owned()));
        assert_eq!(given_inputs(f, &three).expect("one is left out").notes.len(), 1);
    }

    #[test]
    fn arrays_without_elements_are_for_inputs_that_are_left_out() {
        let m = module("%x: f32[1, 2]");
        for given in [arrays([("x", &[1, 2]), ("like", &[0])]), arrays([("like", &[0]), ("y", &[1, 2])])] {
            let matched = match_inputs(&m.functions[0], &given).expect("one is for `x`");
            assert_eq!(matched[0].as_ref().map(|t| t.shape().len()), Some(2));
        }
        assert!(match_inputs(&m.functions[0], &arrays([("x", &[0, 2])])).is_err());
    }

    #[test]
    fn what_is_rounded_is_said() {
        let m = module("%x: f32[1, 2]");
        let said = |values: [f64; 2]| {
            let arrays = [("x".to_owned(), Tensor::from_vec(&[1, 2], values.to_vec()))].into_iter().collect();
            given_inputs(&m.functions[0], &arrays).map(|g| g.notes.into_iter().map(|d| d.title).collect::<Vec<_>>())
        };
        assert_eq!(said([0.5, -0.25]).expect("exact"), [""; 0]);
        assert_eq!(said([0.5, f64::INFINITY]).expect("exact"), ["`x`: there are infinities among the elements"]);
        assert_eq!(said([0.5, 0.1]).expect("rounded"), ["`x`: elements are f64, and are rounded to f32"]);
        assert!(said([0.5, 1e39]).is_err());
    }

    fn ty(dtype: DType, dims: &[usize]) -> TensorType {
        TensorType::new(dtype, Shape::from(dims))
    }

    #[test]
    fn conversions_lose_nothing_or_fail() {
        let ints = Tensor::from_vec(&[2], vec![1i64, -7]);
        assert_eq!(fit("x", &ty(DType::I32, &[2]), &ints).expect("small").to_i64(), [1, -7]);
        let large = Tensor::from_vec(&[1], vec![1i64 << 40]);
        assert!(fit("x", &ty(DType::I32, &[1]), &large).expect_err("too large").title.contains("not every value"));
        let floats = Tensor::from_vec(&[1], vec![0.1f64]);
        assert_eq!(fit("x", &ty(DType::F32, &[1]), &floats).expect("rounded").to_f64(), [f64::from(0.1f32)]);
        assert_eq!(fit("x", &ty(DType::F16, &[1]), &floats).expect("rounded").to_f64(), [0.0999755859375]);
        let beyond = Tensor::from_vec(&[1], vec![65520f32]);
        assert!(fit("x", &ty(DType::F16, &[1]), &beyond).expect_err("infinite").title.contains("not every value"));
        let large = Tensor::from_vec(&[1], vec![1e300f64]);
        assert!(fit("x", &ty(DType::F32, &[1]), &large).expect_err("too large").title.contains("not every value"));
        assert!(fit("x", &ty(DType::F32, &[2]), &ints).is_err());
        assert!(fit("x", &ty(DType::I32, &[3]), &ints).expect_err("shape").title.contains("i64[2], wanted i32[3]"));
        assert_eq!(fit("x", &ty(DType::F32, &[1]), &Tensor::scalar(2f32)).expect("a scalar").shape(), [1]);
    }
}
