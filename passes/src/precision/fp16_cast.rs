//! Computes in half precision what half precision can hold.

use super::{
    bounds::Bounds,
    delicate::{self, Delicate},
    epsilon,
    half::{MOST, NORMAL},
    integers,
    reach::{self, Cause, Reach, Unfit},
};
use crate::{Pass, PassCx, PassError, Pattern, Run, Seen, Weight};
use mlconv_mil::{
    ir::{Function, OpId, Place, Value},
    ops::{Cast, Const, ConstexprCast, ConstexprCastIos16},
    schema::{Arg, Attr, AttrType, Effect, NamedArg, Op, ParamKind},
};
use mlconv_tensor::{DType, Type};
use std::collections::{HashMap, HashSet};

pub(crate) static PASS: Pass = Pass {
    name: "fp16_cast",
    doc: "Casts the 32-bit operands of every op that takes half precision, unless a constant or a value does not fit, what it computes in between does not, or the op is to be kept.",
    changes_precision: true,
    after: &[],
    run: Run::Function(run),
};

fn run(cx: &mut PassCx<'_>) -> Result<(), PassError> {
    for index in 0..cx.module.functions.len() {
        let mut halves = Halves::default();
        let mut known = Known::new(cx, index);
        for id in cx.module.functions[index].all_ops() {
            if !cx.may_edit() {
                break;
            }
            if cx.module.functions[index].op_data(id).op.schema().constexpr {
                let f = &mut cx.module.functions[index];
                halves.decode(f, id).map_err(|e| PassError::new(cx.pass, &e))?;
                let single = f.op_data(id).results.iter().filter(|v| is_single(f, **v));
                known.reaches.extend(single.filter(|v| !halves.0.contains_key(*v)).map(|v| (*v, Reach::Wide)));
                continue;
            }
            match decide(cx, index, id, &known) {
                Decision::NotFloat => {}
                Decision::Keep { why, detail, asked, reach } => {
                    cx.note(index, id, (&why, &detail), if asked { Weight::Asked } else { Weight::Matters });
                    let f = &cx.module.functions[index];
                    let results = f.op_data(id).results.iter().filter(|v| is_single(f, **v));
                    known.reaches.extend(results.filter_map(|v| Some((*v, reach?))));
                }
                Decision::Half => {
                    cx.fired(index, id, "");
                    to_half(cx, index, id, &mut halves)?;
                }
            }
        }
    }
    Ok(())
}

/// What is known of a function before its ops are cast.
struct Known {
    /// Values that may lie where half precision has no numbers.
    reaches: Reaches,
    /// Ops that compute integers.
    exact: HashSet<OpId>,
    delicate: Delicate,
    bounds: Bounds,
    seen: Seen,
}

impl Known {
    fn new(cx: &PassCx<'_>, index: usize) -> Self {
        let f = &cx.module.functions[index];
        let bounds = Bounds::new(f);
        Self {
            reaches: Reaches::new(),
            exact: integers::exact(f),
            delicate: delicate::delicate(cx.module, f, &bounds),
            bounds,
            seen: cx.options.seen.get(index).cloned().unwrap_or_default(),
        }
    }

    /// Why half precision does not hold `v`, by what is declared and what was seen, and its greatest magnitude.
    fn misfit(&self, v: Value) -> Option<(&'static str, f64)> {
        let declared = self.bounds.of(v).reached().filter(|most| *most > MOST);
        let declared = declared.map(|most| ("values are beyond 65504, for what is declared of inputs", most));
        declared.or_else(|| match self.seen.greatest(v)? {
            most if most > MOST / HEADROOM => Some(("values are beyond 65504, or near it", most)),
            most if most > 0.0 && most < NORMAL => {
                Some(("no value is as great as 6.1e-5, below which digits are lost", most))
            }
            _ => None,
        })
    }
}

/// How much greater values may be than those that were seen.
const HEADROOM: f64 = 2.0;

/// The values that may lie where half precision has no numbers.
type Reaches = HashMap<Value, Reach>;

enum Decision {
    /// The op has nothing to cast, or cannot be cast.
    NotFloat,
    /// The op computes in 32 bits.
    Keep {
        why: String,
        /// What is special to this op.
        detail: String,
        /// Whether the user wants it so.
        asked: bool,
        /// Where its results may lie.
        reach: Option<Reach>,
    },
    Half,
}

/// What to do with an op.
fn decide(cx: &PassCx<'_>, index: usize, id: OpId, known: &Known) -> Decision {
    let f = &cx.module.functions[index];
    let data = f.op_data(id);
    let (op, schema) = (&*data.op, data.op.schema());
    let mut has_region = false;
    op.visit_regions(&mut |_| has_region = true);
    // A cast says itself what it makes; a constant is cast where it is read.
    let own_type = f.op::<Cast>(id).is_some() || f.op::<Const>(id).is_some();
    // Lists and states have element types of their own, to which the other operands must keep.
    let mut only_tensors = true;
    op.visit_operands(&mut |v| only_tensors &= matches!(f.ty(v), Type::Tensor(_)));
    if has_region || own_type || !only_tensors || schema.effect != Effect::None {
        return Decision::NotFloat;
    }
    let args = op.args();
    let is_attr = |arg: &NamedArg<'_>| matches!(arg.arg, Arg::Attr(_));
    if args.iter().any(|arg| f32_operands(f, arg).next().is_some() && arg.param.is_none())
        || !args.iter().any(|arg| casts(f, id, arg))
    {
        return Decision::NotFloat;
    }
    let mut causes: Vec<(&str, Cause)> = vec![];
    for arg in args.iter().filter(|arg| is_attr(arg) || casts(f, id, arg)) {
        causes.extend(unfit(f, id, arg).map(|u| (arg.name, Cause::Number(u))));
        let reach = f32_operands(f, arg).find_map(|v| known.reaches.get(&v));
        causes.extend(reach.map(|r| (arg.name, Cause::Operand(*r))));
    }
    let holds = |v: &Value| known.bounds.of(*v).greatest() <= MOST;
    let reach = reach::of_results(f, id, &causes).filter(|r| *r != Reach::Wide || !data.results.iter().all(holds));
    let keep = |why: String, detail: String| Decision::Keep { why, detail, asked: false, reach };
    if let Some(p) = cx.options.keep_fp32.iter().find(|p: &&Pattern| p.matches(cx.module, f, id)) {
        let why = format!("asked for by `{}`", p.as_str());
        return Decision::Keep { why, detail: String::new(), asked: true, reach };
    }
    if known.exact.contains(&id) {
        return keep("it computes integers".to_owned(), String::new());
    }
    if let Some(why) = known.delicate.get(&id) {
        return keep((*why).to_owned(), String::new());
    }
    if let Some((name, cause)) = causes.first() {
        return keep(cause.why(name), String::new());
    }
    let operands =
        args.iter().filter(|arg| casts(f, id, arg)).flat_map(|arg| f32_operands(f, arg).map(|v| (arg.name, v)));
    let results = data.results.iter().map(|v| ("the result", *v));
    let mut changing = operands.chain(results).filter(|(_, v)| f.constant(*v).is_none());
    let misfit = changing.find_map(|(name, v)| Some((name, known.misfit(v)?)));
    match misfit {
        Some((name, (why, most))) => keep(why.to_owned(), format!("{name} reaches {most:.1e}")),
        None => Decision::Half,
    }
}

/// Whether an argument of an op holds 32-bit floats that would be cast.
fn casts(f: &Function, id: OpId, arg: &NamedArg<'_>) -> bool {
    let Some(ParamKind::Operand { domain, .. }) = arg.param.map(|p| &p.kind) else { return false };
    let takes_half = f.op_data(id).op.schema().types(domain, f.opset).is_none_or(|t| t.contains(&DType::F16));
    takes_half && f32_operands(f, arg).next().is_some() && !delicate::is_place(f, id, arg.name)
}

fn f32_operands<'a>(f: &'a Function, arg: &'a NamedArg<'_>) -> impl Iterator<Item = Value> + 'a {
    arg.operands().iter().copied().filter(|v| is_single(f, *v))
}

/// A number in an argument that does not fit half precision.
fn unfit(f: &Function, id: OpId, arg: &NamedArg<'_>) -> Option<Unfit> {
    match &arg.arg {
        Arg::Operands(_) => f32_operands(f, arg).find_map(|v| reach::unfit_tensor(f.constant(v)?)),
        Arg::Attr(Some(Attr::Float(x))) => {
            let Some(ParamKind::Attr { dtype: AttrType::Domain(domain), .. }) = arg.param.map(|p| &p.kind) else {
                return None;
            };
            if arg.name == "epsilon" && reach::rounds_epsilon(f, id) {
                return reach::epsilon(f, id, *x);
            }
            if arg.name == "epsilon" && epsilon::raised(&*f.op_data(id).op).is_some() {
                return None;
            }
            // It takes the type of the operands of its domain, which is about to change.
            reach::unfit_value(*x).filter(|_| f.attr_dtype(id, domain).is_some())
        }
        Arg::Attr(_) | Arg::Region(_) => None,
    }
}

/// The half-precision twin of each 32-bit value that has one.
#[derive(Default)]
struct Halves(HashMap<Value, Value>);

impl Halves {
    fn of(&mut self, f: &mut Function, v: Value) -> Result<Value, mlconv_mil::ir::InsertError> {
        if let Some(half) = self.0.get(&v) {
            return Ok(*half);
        }
        let hint = format!("{}_to_fp16", f.value(v).hint);
        let (op, origin): (Box<dyn Op>, _) = match (f.constant(v), f.def_op(v)) {
            (Some(t), def) => (Box::new(Const { val: t.cast(DType::F16) }), def.and_then(|id| f.op_data(id).origin)),
            (None, def) => (Box::new(Cast { x: v, dtype: DType::F16 }), def.and_then(|id| f.op_data(id).origin)),
        };
        let half = f.insert(f.behind(v), &[&hint], op, origin)?[0];
        self.0.insert(v, half);
        Ok(half)
    }
}

impl Halves {
    /// Decodes compressed weights to half precision: a cast of what is decoded would be no constant.
    fn decode(&mut self, f: &mut Function, id: OpId) -> Result<(), mlconv_mil::ir::InsertError> {
        let data = f.op_data(id).clone();
        let source = f.op::<ConstexprCast>(id).map(|c| c.source_val);
        if let Some(source) = source.or(f.op::<ConstexprCastIos16>(id).map(|c| c.source_val)) {
            let half = data.results.iter().filter(|v| is_single(f, **v) && is_half(f, source));
            self.0.extend(half.map(|v| (*v, source)));
            return Ok(());
        }
        if !data.results.iter().any(|v| is_single(f, *v)) || !decodes_to_half(f, id) {
            return Ok(());
        }
        let mut twins = HashMap::new();
        for arg in data.op.args() {
            let Some(ParamKind::Operand { domain, .. }) = arg.param.map(|p| &p.kind) else { continue };
            if data.op.schema().types(domain, f.opset).is_some_and(|t| !t.contains(&DType::F16)) {
                continue;
            }
            for v in f32_operands(f, &arg).collect::<Vec<_>>() {
                if f.constant(v).is_none() && !self.0.contains_key(&v) {
                    return Ok(());
                }
                twins.insert(v, self.of(f, v)?);
            }
        }
        if twins.is_empty() {
            return Ok(());
        }
        let mut op = data.op.clone();
        op.visit_operands_mut(&mut |v| *v = twins.get(v).copied().unwrap_or(*v));
        let hints: Vec<String> = data.results.iter().map(|v| format!("{}_to_fp16", f.value(*v).hint)).collect();
        let hints: Vec<&str> = hints.iter().map(String::as_str).collect();
        let place = f.next_op(id).map_or(Place::End(data.block), Place::Before);
        let decoded = f.insert(place, &hints, op, data.origin)?;
        for (old, new) in data.results.iter().zip(&decoded) {
            if is_single(f, *old) {
                self.0.insert(*old, *new);
            } else {
                f.replace_uses(*old, *new);
            }
        }
        Ok(())
    }
}

fn is_single(f: &Function, v: Value) -> bool {
    f.ty(v).tensor().is_some_and(|t| t.dtype == DType::F32)
}

fn is_half(f: &Function, v: Value) -> bool {
    f.ty(v).tensor().is_some_and(|t| t.dtype == DType::F16)
}

/// Whether half precision holds whatever a `constexpr_*` op decodes: the numbers it is given, and the greatest integer
/// times the greatest scale.
fn decodes_to_half(f: &Function, id: OpId) -> bool {
    let (mut scale, mut data) = (None, 1.0);
    for arg in f.op_data(id).op.args() {
        if unfit(f, id, &arg).is_some() {
            return false;
        }
        let Arg::Operands(values) = &arg.arg else { continue };
        let Some(t) = values.first().and_then(|v| f.ty(*v).tensor()) else { continue };
        match arg.name {
            "scale" => scale = values.first().and_then(|v| f.constant(*v)),
            // An offset is of the same type, and doubles the range at most.
            "data" | "nonzero_data" | "quantized_data" if t.dtype.is_int() => {
                data = f64::from(t.dtype.bits() + 1).exp2();
            }
            "data" | "nonzero_data" if t.dtype.is_float() && f.op_data(id).op.name().ends_with("scale") => {
                return false;
            }
            _ => {}
        }
    }
    scale.is_none_or(|t| t.to_f64().iter().all(|s| s.abs() * data <= MOST))
}

/// Puts a half-precision twin in the place of an op, with casts back for whoever reads 32 bits.
fn to_half(cx: &mut PassCx<'_>, index: usize, id: OpId, halves: &mut Halves) -> Result<(), PassError> {
    let data = cx.module.functions[index].op_data(id).clone();
    let mut operands = vec![];
    for arg in data.op.args().iter().filter(|arg| casts(&cx.module.functions[index], id, arg)) {
        operands.extend(f32_operands(&cx.module.functions[index], arg));
    }
    let raised = epsilon::raised(&*data.op);
    if let Some((_, had)) = &raised {
        let why = format!("the epsilon is 6e-8, the least that half precision holds, instead of {had:e}");
        cx.note(index, id, (&why, ""), Weight::Adapted);
    }
    let origin = data.origin.map(|o| cx.module.origins.rewritten(cx.pass, [o]));
    let f = &mut cx.module.functions[index];
    let result = (|| {
        let mut twins = HashMap::new();
        for v in operands {
            twins.insert(v, halves.of(f, v)?);
        }
        let mut op = raised.map_or_else(|| data.op.clone(), |(op, _)| op);
        op.visit_operands_mut(&mut |v| *v = twins.get(v).copied().unwrap_or(*v));
        let singles: Vec<Value> = data.results.iter().copied().filter(|v| is_single(f, *v)).collect();
        // In its place, as a size that depends on data is named after the op: what is not cast was inferred from that name.
        f.replace_op(id, op, origin)?;
        let place = f.next_op(id).map_or(Place::End(data.block), Place::Before);
        for v in singles {
            if !is_half(f, v) {
                continue;
            }
            let hint = format!("{}_to_fp32", f.value(v).hint);
            let back = f.insert(place, &[&hint], Box::new(Cast { x: v, dtype: DType::F32 }), origin)?[0];
            f.replace_uses(v, back);
            if let Some(cast) = f.def_op(back) {
                f.replace_operands(cast, &mut |_| v);
            }
            halves.0.insert(back, v);
        }
        Ok::<_, mlconv_mil::ir::InsertError>(())
    })();
    result.map_err(|e| PassError::new(cx.pass, &e))?;
    cx.edited();
    Ok(())
}
