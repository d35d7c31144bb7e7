//! Holds the declarations of all ops to what every op must obey, and to coremltools' signatures where they are at hand.

#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use mlconv_mil::{
    fold::Budget,
    ir::{Function, Place, Port},
    ops::{Const, OPS},
    schema::{
        Arg, Args, Arity, Attr, AttrDefault, AttrType, Op, OpError, OpInfo, Opset, Param, ParamKind, Schema, Step,
    },
};
use mlconv_tensor::{DType, Shape, Tensor, TensorType};
use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::Path,
};

#[test]
fn everything_is_documented() {
    for Schema { name, doc, params, .. } in schemas() {
        assert!(!doc.trim().is_empty(), "`{name}` has no documentation");
        for p in *params {
            assert!(!p.doc.trim().is_empty(), "`{}` of `{name}` has no documentation", p.name);
        }
    }
}

#[test]
fn no_op_set_has_two_forms_of_an_op() {
    for opset in Opset::ALL {
        let mut seen = BTreeSet::new();
        for s in schemas().filter(|s| s.exists_in(opset)) {
            assert!(seen.insert(s.name), "{opset} has two forms of `{}`", s.name);
        }
    }
}

#[test]
fn domains_exist_and_admit_something_wherever_they_are_used() {
    for s in schemas() {
        for d in s.domains {
            assert!(d.steps.is_sorted_by_key(|(o, _)| *o), "steps of `{}` in `{}` do not ascend", d.name, s.name);
            for (_, step) in d.steps {
                if let Step::Same(other) = step {
                    assert!(s.domains.iter().any(|d| d.name == *other), "`{}` has no domain `{other}`", s.name);
                }
            }
        }
        for (p, domain) in s.params.iter().filter_map(|p| Some((p, domain_of(p)?))) {
            assert!(s.domains.iter().any(|d| d.name == domain), "`{}` of `{}` has no domain", p.name, s.name);
            for opset in Opset::ALL.into_iter().filter(|o| s.exists_in(*o) && p.exists_in(*o)) {
                let none = s.types(domain, opset).is_some_and(|types| types.is_empty());
                assert!(!none, "`{}` of `{}` admits no type in {opset}", p.name, s.name);
            }
        }
    }
}

#[test]
fn defaults_read_back_to_themselves() {
    for info in OPS {
        let name = info.schema.name;
        let implied = build(info, false);
        for arg in implied.args() {
            let Some(ParamKind::Attr { default: AttrDefault::Value(default), .. }) = arg.param.map(|p| &p.kind) else {
                continue;
            };
            let Arg::Attr(found) = arg.arg else { panic!("`{}` of `{name}` is no attribute", arg.name) };
            assert_eq!(found, default(), "`{}` of `{name}`", arg.name);
        }
        assert!(implied.same(&*build(info, true)), "the defaults of `{name}`, stated, are others");
    }
}

/// The result of an elementwise op does not change when operands are repeated, and their axes joined, beforehand.
#[test]
fn what_is_elementwise_knows_no_axes() {
    let mut seen = 0;
    for info in OPS.iter().filter(|o| o.schema.elementwise) {
        seen += 1;
        let mut f = Function::new("main", Opset::default());
        let mut results = vec![];
        for joined in [false, true] {
            let mut op = build(info, false);
            let mut operands = vec![];
            let domains = info.schema.params.iter().filter_map(|p| match &p.kind {
                ParamKind::Operand { domain, .. } => Some(*domain),
                ParamKind::Attr { .. } | ParamKind::Region => None,
            });
            let domains: Vec<&str> = domains.collect();
            for (i, domain) in domains.iter().enumerate() {
                let dtype = info.schema.types(domain, f.opset).map_or(DType::F32, |t| t[t.len() - 1]);
                let value = |at: usize| match dtype {
                    DType::Bool => (at % 2) as f64,
                    d if d.is_int() => (1 + i + at) as f64,
                    _ => (1 + i + at) as f64 / 16.0,
                };
                // The last of several has one element along the first and the last axis of `[2, 3, 2]`.
                let repeated = i > 0 && i + 1 == domains.len();
                let (shape, values): (&[usize], Vec<f64>) = match (joined, repeated) {
                    (true, true) => (&[12], (0..12).map(|at| value(at / 2 % 3)).collect()),
                    (true, false) => (&[12], (0..12).map(value).collect()),
                    (false, true) => (&[1, 3, 1], (0..3).map(value).collect()),
                    (false, false) => (&[2, 3, 2], (0..12).map(value).collect()),
                };
                let val = Tensor::from_f64(dtype, shape, &values);
                operands.push(f.push("c", Const { val }).expect("a constant"));
            }
            let mut next = operands.into_iter();
            op.visit_operands_mut(&mut |v| *v = next.next().expect("one each"));
            let made = f.insert(Place::End(f.body()), &["r"], op, None);
            let made = made.unwrap_or_else(|e| panic!("`{}`: {e}", info.schema.name));
            let id = f.def_op(made[0]).expect("an op");
            let folded = Budget::new(1 << 20).fold(&f, id);
            results.push(folded.unwrap_or_else(|| panic!("`{}` has no value", info.schema.name))[0].clone());
        }
        let name = info.schema.name;
        assert_eq!((results[0].shape(), results[1].shape()), (&[2, 3, 2][..], &[12][..]), "`{name}`");
        assert_eq!(results[0].reshape(&[12]), results[1], "`{name}`");
    }
    assert!(seen > 50, "{seen} ops");
}

/// Builds an op on made-up arguments, with its defaults left out or stated.
fn build(info: &OpInfo, state_defaults: bool) -> Box<dyn Op> {
    let mut f = Function::new("main", Opset::default());
    let v = f.add_input(Port::new("x"), TensorType::new(DType::F32, Shape::from([1, 1, 1, 1])));
    let block = f.add_block();
    // Which of the made-up literals each required attribute takes, found by trying.
    let mut tried: BTreeMap<&str, usize> = BTreeMap::new();
    loop {
        let mut args = Args::new(&f);
        for (nth, p) in info.schema.params.iter().enumerate() {
            match &p.kind {
                ParamKind::Operand { arity: Arity::Optional, .. } => {}
                ParamKind::Operand { arity: Arity::One | Arity::Many, .. } => args.add_operand(p.name, vec![v]),
                ParamKind::Attr { default: AttrDefault::Required, choices, .. } => {
                    let literal = match choices() {
                        [] => made_up(*tried.entry(p.name).or_default(), nth),
                        [first, ..] => Attr::Str((*first).to_owned()),
                    };
                    args.add_attr(p.name, literal);
                }
                ParamKind::Attr { default: AttrDefault::Value(default), .. } if state_defaults => {
                    if let Some(d) = default() {
                        args.add_attr(p.name, d);
                    }
                }
                ParamKind::Attr { .. } => {}
                ParamKind::Region => args.add_region(p.name, block),
            }
        }
        match (info.build)(&mut args) {
            Ok(op) => return op,
            Err(OpError::Kind { param, .. }) if tried.contains_key(param) => {
                *tried.get_mut(param).expect("just found") += 1;
            }
            Err(e) => panic!("`{}`: {e}", info.schema.name),
        }
    }
}

/// Literals of every kind, until the parameter takes one; numbers grow from one parameter to the next.
fn made_up(i: usize, nth: usize) -> Attr {
    let all = [
        Attr::Int(nth as i64 + 1),
        Attr::Float(nth as f32 + 0.5),
        Attr::Bool(true),
        Attr::Str("fp32".to_owned()),
        Attr::Ints(vec![0]),
        Attr::Floats(vec![0.5]),
        Attr::Bools(vec![true]),
        Attr::Strs(vec!["a".to_owned()]),
        Attr::Tensor(Tensor::scalar(0f32)),
        Attr::Tensor(Tensor::from_vec(&[2, 2], vec![0i32; 4])),
    ];
    all.get(i).cloned().expect("a literal that the parameter takes")
}

fn schemas() -> impl Iterator<Item = &'static Schema> {
    OPS.iter().map(|o| o.schema)
}

fn domain_of(p: &Param) -> Option<&'static str> {
    match &p.kind {
        ParamKind::Operand { domain, .. } | ParamKind::Attr { dtype: AttrType::Domain(domain), .. } => Some(domain),
        ParamKind::Attr { .. } | ParamKind::Region => None,
    }
}

/// Where a declaration differs from coremltools' on purpose: op, parameter, and why.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("while_loop", "", "the loop variables come last there; first here, as in files"),
    (
        "topk",
        "output_indices_dtype",
        "absent, it means the default there; it must be absent where no indices are returned",
    ),
    ("write_state", "", "there it exists only in files"),
    ("make_list", "elem_shape", "a tuple of constants there; a list of integers here"),
    ("reshape_like", "begins", "a tuple of constants there; a list of integers here"),
    ("reshape_like", "ends", "a tuple of constants there; a list of integers here"),
    ("reshape_like", "end_masks", "a tuple of constants there; a list of booleans here"),
];

/// The environment variable that names a folder in which `reference/mil_ops.json` has coremltools' parameters by
/// specification version, and `reference/coremltools.md` their types and defaults.
const SHARED: &str = "MLCONV_SHARED";

#[test]
#[expect(clippy::print_stderr, reason = "a test that cannot run says so")]
fn signatures_are_those_of_coremltools() {
    let Ok(folder) = env::var(SHARED) else {
        eprintln!("skipped: {SHARED} names no folder with coremltools' signatures");
        return;
    };
    let reference = Reference::read(Path::new(&folder));
    let mut found: BTreeMap<(String, String, String), Vec<Opset>> = BTreeMap::new();
    for opset in [Opset::Ios15, Opset::Ios16, Opset::Ios17, Opset::Ios18, Opset::Ios26] {
        for name in schemas().map(|s| s.name).collect::<BTreeSet<_>>() {
            let ours = schemas().find(|s| s.name == name && s.exists_in(opset));
            let mut report = |param: &str, what: String| {
                found.entry((name.to_owned(), param.to_owned(), what)).or_default().push(opset);
            };
            match (ours, reference.params(name, opset)) {
                (Some(ours), Some(theirs)) => {
                    compare(ours, opset, &theirs, &mut report);
                    if let Some(types) = reference.types(name, opset) {
                        compare_types(ours, opset, types, &mut report);
                    }
                }
                (Some(_), None) => report("", "only here".to_owned()),
                (None, Some(_)) => report("", "only there".to_owned()),
                (None, None) => {}
            }
        }
    }
    let excused = |op: &str, param: &str| EXCEPTIONS.iter().any(|(o, p, _)| *o == op && *p == param);
    let mut wrong: Vec<String> = found
        .iter()
        .filter(|((op, param, _), _)| !excused(op, param))
        .map(|((op, param, what), opsets)| format!("`{op}` {param}: {what} in {opsets:?}"))
        .collect();
    for (op, param, _) in EXCEPTIONS {
        if schemas().any(|s| s.name == *op) && !found.keys().any(|(o, p, _)| o == op && p == param) {
            wrong.push(format!("`{op}` {param}: an exception that is none"));
        }
    }
    assert!(wrong.is_empty(), "{} differences from coremltools\n{}", wrong.len(), wrong.join("\n"));
}

/// Names, constness and optionality.
fn compare(ours: &Schema, opset: Opset, theirs: &[Theirs], report: &mut dyn FnMut(&str, String)) {
    let mine: Vec<&Param> = ours.params.iter().filter(|p| p.exists_in(opset)).collect();
    let (a, b): (Vec<_>, Vec<_>) =
        (mine.iter().map(|p| p.name).collect(), theirs.iter().map(|t| t.name.as_str()).collect());
    for name in a.iter().filter(|n| !b.contains(n)) {
        report(name, "only here".to_owned());
    }
    for name in b.iter().filter(|n| !a.contains(n)) {
        report(name, "only there".to_owned());
    }
    for (p, t) in mine.iter().filter_map(|p| Some((p, theirs.iter().find(|t| t.name == p.name)?))) {
        let (constant, optional) = match &p.kind {
            ParamKind::Operand { arity, constant, .. } => (constant.holds_in(opset), *arity == Arity::Optional),
            ParamKind::Attr { default, .. } => (true, !matches!(default, AttrDefault::Required)),
            ParamKind::Region => (false, false),
        };
        if constant != t.constant {
            report(p.name, format!("constant here is {constant}, there {}", t.constant));
        }
        if optional != t.optional {
            report(p.name, format!("optional here is {optional}, there {}", t.optional));
        }
    }
}

/// Order, element types, which parameters share them, and defaults.
fn compare_types(ours: &Schema, opset: Opset, theirs: &Signature, report: &mut dyn FnMut(&str, String)) {
    let order: Vec<_> = ours.params.iter().filter(|p| p.exists_in(opset)).map(|p| p.name).collect();
    let there: Vec<_> = theirs.params.iter().map(|t| t.name.as_str()).collect();
    if order != there && order.len() == there.len() {
        report("", format!("order {order:?}, there {there:?}"));
    }
    let mine = |name: &str| ours.params.iter().find(|p| p.name == name && p.exists_in(opset));
    for t in &theirs.params {
        let (Some(p), Some(want)) = (mine(&t.name), theirs.types_of(t)) else { continue };
        let found = match &p.kind {
            ParamKind::Operand { domain, .. } | ParamKind::Attr { dtype: AttrType::Domain(domain), .. } => {
                ours.types(domain, opset).map(|types| types.iter().copied().collect())
            }
            ParamKind::Attr { dtype: AttrType::Exactly(d), .. } => Some(BTreeSet::from([*d])),
            // What the field's type gives; a variable there must be one here.
            ParamKind::Attr { dtype: AttrType::Natural, .. } => {
                let natural = [DType::I32, DType::F32, DType::Bool, DType::Str];
                want.iter().all(|d| natural.contains(d)).then(|| want.clone())
            }
            ParamKind::Region => continue,
        };
        if found.as_ref() != Some(&want) {
            let text = |types: Option<&BTreeSet<DType>>| types.map_or("not said".into(), |t| format!("{t:?}"));
            report(&t.name, format!("types {}, there {}", text(found.as_ref()), text(Some(&want))));
        }
        if let ParamKind::Attr { default: AttrDefault::Value(default), .. } = &p.kind
            && let Some(want) = t.default.as_deref().and_then(literal)
            && !same_literal(default().as_ref(), &want)
        {
            report(&t.name, format!("default {:?}, there {want}", default()));
        }
    }
    let variable = |t: &Typed| (theirs.variables.contains_key(&t.domain)).then(|| t.domain.clone());
    for (i, a) in theirs.params.iter().enumerate() {
        for b in &theirs.params[i + 1..] {
            let ours_of = |t: &Typed| mine(&t.name).and_then(domain_of).map(|d| ours.resolve(d, opset));
            let (Some(va), Some(vb), Some(da), Some(db)) = (variable(a), variable(b), ours_of(a), ours_of(b)) else {
                continue;
            };
            if (va == vb) != (da == db) {
                let said = |same: bool| if same { "one type" } else { "types of their own" };
                let pair = format!("`{}` and `{}` have {} here", a.name, b.name, said(da == db));
                report(&b.name, pair);
            }
        }
    }
}

/// A default that is a literal; expressions are not compared.
fn literal(text: &str) -> Option<Attr> {
    match text {
        "True" => Some(Attr::Bool(true)),
        "False" => Some(Attr::Bool(false)),
        _ => match (text.parse::<i64>(), text.parse::<f32>()) {
            (Ok(i), _) => Some(Attr::Int(i)),
            (_, Ok(x)) => Some(Attr::Float(x)),
            _ => Some(Attr::Str(text.strip_prefix('"')?.strip_suffix('"')?.to_owned())),
        },
    }
}

fn same_literal(a: Option<&Attr>, b: &Attr) -> bool {
    match (a, b) {
        (Some(Attr::Float(x)), Attr::Int(i)) => *x == *i as f32,
        _ => a == Some(b),
    }
}

/// A parameter of coremltools.
struct Theirs {
    name: String,
    constant: bool,
    optional: bool,
}

/// Types and defaults of coremltools.
struct Signature {
    params: Vec<Typed>,
    variables: BTreeMap<String, BTreeSet<DType>>,
}

struct Typed {
    name: String,
    domain: String,
    default: Option<String>,
}

impl Signature {
    /// The types of a parameter; `None` where it has none, as tuples do.
    fn types_of(&self, t: &Typed) -> Option<BTreeSet<DType>> {
        self.variables.get(&t.domain).cloned().or_else(|| Some(BTreeSet::from([element_type(&t.domain)?])))
    }
}

fn element_type(name: &str) -> Option<DType> {
    if name == "b" { Some(DType::Bool) } else { DType::from_name(name) }
}

struct Reference {
    json: serde_json::Value,
    /// By op, the signature from each op set on.
    signatures: BTreeMap<String, BTreeMap<Opset, Signature>>,
}

impl Reference {
    fn read(folder: &Path) -> Self {
        let text = |name: &str| fs::read_to_string(folder.join("reference").join(name)).expect("a readable reference");
        let json = serde_json::from_str(&text("mil_ops.json")).expect("JSON");
        let mut signatures: BTreeMap<String, BTreeMap<Opset, Signature>> = BTreeMap::new();
        for line in text("coremltools.md").lines() {
            let Some((opset, names, rest)) = signature_line(line) else { continue };
            for name in names.split(", ") {
                let of_op = signatures.entry(name.trim_end_matches('†').to_owned()).or_default();
                of_op.insert(opset, signature(rest));
            }
        }
        assert!(signatures.len() > 100, "the signatures are no longer where they were");
        Self { json, signatures }
    }

    /// The parameters of an op, in order.
    fn params(&self, op: &str, opset: Opset) -> Option<Vec<Theirs>> {
        let version = match opset {
            Opset::Ios15 => "6",
            Opset::Ios16 => "7",
            Opset::Ios17 => "8",
            Opset::Ios18 | Opset::Ios26 => "9",
        };
        let params = self.json.get(op)?.get(version)?.as_object()?;
        let flag = |p: &serde_json::Value, key: &str| p.get(key).and_then(serde_json::Value::as_bool).unwrap_or(false);
        // What builds blocks in Python is no parameter of the op.
        let real = params.iter().filter(|(name, _)| *name != "_existing_blocks");
        let one = |(name, p): (&String, &serde_json::Value)| Theirs {
            name: name.trim_start_matches('_').to_owned(),
            constant: flag(p, "const"),
            optional: flag(p, "optional"),
        };
        Some(real.map(one).collect())
    }

    fn types(&self, op: &str, opset: Opset) -> Option<&Signature> {
        self.signatures.get(op)?.range(..=opset).next_back().map(|(_, s)| s)
    }
}

/// `- [15] **abs†, sign†** (x:T) {T=f16/f32}`: the op set, the names, and the rest.
fn signature_line(line: &str) -> Option<(Opset, &str, &str)> {
    let (number, rest) = line.strip_prefix("- [")?.split_once("] **")?;
    let opset = Opset::from_name(&format!("ios{number}"))?;
    let (names, rest) = rest.split_once("** (")?;
    Some((opset, names, rest))
}

/// `x:T, axis!?:i32=-1) {T=f16/f32; U=i32}`.
fn signature(text: &str) -> Signature {
    let (mut depth, mut parts, mut end) = (0, vec![String::new()], text.len());
    for (i, c) in text.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' if depth == 0 => {
                end = i;
                break;
            }
            ')' | ']' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().expect("never empty").push(c);
    }
    let param = |part: &String| {
        let (name, rest) = part.trim().split_once(':')?;
        let (domain, default) = rest.split_once('=').map_or((rest, None), |(d, v)| (d, Some(v.to_owned())));
        let name = name.trim_start_matches('_').trim_end_matches('?').trim_end_matches('!').to_owned();
        (name != "existing_blocks").then_some(())?;
        Some(Typed { name, domain: domain.to_owned(), default })
    };
    let braces = text[end..].split_once('{').and_then(|(_, b)| b.split_once('}')).map_or("", |(b, _)| b);
    let variable = |part: &str| {
        let (name, types) = part.trim().split_once('=')?;
        Some((name.to_owned(), types.split('/').filter_map(element_type).collect()))
    };
    Signature {
        params: parts.iter().filter_map(param).collect(),
        variables: braces.split(';').filter_map(variable).collect(),
    }
}
