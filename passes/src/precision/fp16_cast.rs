//! Computes in half precision what half precision can hold.

use super::{
    epsilon, integers,
    reach::{self, Cause, Reach, Unfit},
};
use crate::{Pass, PassCx, PassError, Pattern, Run, Weight};
use mlconv_mil::{
    ir::{Def, Function, OpId, Place, Value},
    ops::{Cast, Const, ConstexprCast, ConstexprCastIos16},
    schema::{Arg, Attr, AttrType, Effect, NamedArg, Op, ParamKind},
};
use mlconv_tensor::{DType, Type};
use std::collections::{HashMap, HashSet};

pub(crate) static PASS: Pass = Pass {
    name: "fp16_cast",
    doc: "Casts the 32-bit operands of every op that takes half precision, unless a constant does not fit, an operand may be too small or too large, or the op is to be kept.",
    changes_precision: true,
    after: &[],
    run: Run::Function(run),
};

fn run(cx: &mut PassCx<'_>) -> Result<(), PassError> {
    for index in 0..cx.module.functions.len() {
        let mut halves = Halves::default();
        let mut reaches = Reaches::new();
        let exact = integers::exact(&cx.module.functions[index]);
        for id in cx.module.functions[index].all_ops() {
            if !cx.may_edit() {
                break;
            }
            if cx.module.functions[index].op_data(id).op.schema().constexpr {
                let f = &mut cx.module.functions[index];
                halves.decode(f, id).map_err(|e| PassError::new(cx.pass, &e))?;
                let single = f.op_data(id).results.iter().filter(|v| is_single(f, **v));
                reaches.extend(single.filter(|v| !halves.0.contains_key(*v)).map(|v| (*v, Reach::Wide)));
                continue;
            }
            match decide(cx, index, id, &reaches, &exact) {
                Decision::NotFloat => {}
                Decision::Keep { why, asked, reach } => {
                    cx.note(index, id, &why, if asked { Weight::Asked } else { Weight::Matters });
                    let f = &cx.module.functions[index];
                    let results = f.op_data(id).results.iter().filter(|v| is_single(f, **v));
                    reaches.extend(results.filter_map(|v| Some((*v, reach?))));
                }
                Decision::Half => {
                    if let Some((_, had)) = epsilon::raised(&*cx.module.functions[index].op_data(id).op) {
                        let why =
                            format!("the epsilon is 6e-8, the least that half precision holds, instead of {had:e}");
                        cx.note(index, id, &why, Weight::Adapted);
                    }
                    to_half(cx, index, id, &mut halves)?;
                }
            }
        }
    }
    Ok(())
}

/// The values that may lie where half precision has no numbers.
type Reaches = HashMap<Value, Reach>;

enum Decision {
    /// The op has nothing to cast, or cannot be cast.
    NotFloat,
    /// The op computes in 32 bits.
    Keep {
        why: String,
        /// Whether the user wants it so.
        asked: bool,
        /// Where its results may lie.
        reach: Option<Reach>,
    },
    Half,
}

/// What to do with an op; `exact` holds the ops that compute integers.
fn decide(cx: &PassCx<'_>, index: usize, id: OpId, reaches: &Reaches, exact: &HashSet<OpId>) -> Decision {
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
    let mut any = false;
    for arg in &args {
        if f32_operands(f, arg).next().is_none() {
            continue;
        }
        let Some(ParamKind::Operand { domain, .. }) = arg.param.map(|p| &p.kind) else { return Decision::NotFloat };
        if schema.types(domain, f.opset).is_some_and(|t| !t.contains(&DType::F16)) {
            return Decision::NotFloat;
        }
        any = true;
    }
    if !any {
        return Decision::NotFloat;
    }
    let mut causes: Vec<(&str, Cause)> = vec![];
    for arg in &args {
        causes.extend(unfit(f, id, arg).map(|u| (&*arg.name, Cause::Number(u))));
        let reach = f32_operands(f, arg).find_map(|v| reaches.get(&v));
        causes.extend(reach.map(|r| (&*arg.name, Cause::Operand(*r))));
    }
    let reach = reach::of_results(f, id, &causes);
    if let Some(p) = cx.options.keep_fp32.iter().find(|p: &&Pattern| p.matches(cx.module, f, id)) {
        return Decision::Keep { why: format!("asked for by `{}`", p.as_str()), asked: true, reach };
    }
    if exact.contains(&id) {
        return Decision::Keep { why: "it computes integers".to_owned(), asked: false, reach };
    }
    match causes.first() {
        Some((name, cause)) => Decision::Keep { why: cause.why(name), asked: false, reach },
        None => Decision::Half,
    }
}

fn f32_operands<'a>(f: &'a Function, arg: &'a NamedArg<'_>) -> impl Iterator<Item = Value> + 'a {
    let values = match &arg.arg {
        Arg::Operands(v) => v.as_ref(),
        Arg::Attr(_) | Arg::Region(_) => &[],
    };
    values.iter().copied().filter(|v| match f.ty(*v) {
        Type::Tensor(t) => t.dtype == DType::F32,
        _ => false,
    })
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
        // Right behind the definition: there it is in reach of every reader.
        let place = after(f, v);
        let (op, origin): (Box<dyn Op>, _) = match (f.constant(v), f.def_op(v)) {
            (Some(t), def) => (Box::new(Const { val: t.cast(DType::F16) }), def.and_then(|id| f.op_data(id).origin)),
            (None, def) => (Box::new(Cast { x: v, dtype: DType::F16 }), def.and_then(|id| f.op_data(id).origin)),
        };
        let half = f.insert(place, &[&hint], op, origin)?[0];
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
    scale.is_none_or(|t| t.to_f64().iter().all(|s| s.abs() * data <= 65504.0))
}

/// The place right behind the definition of `v`.
fn after(f: &Function, v: Value) -> Place {
    let (block, first) = match f.value(v).def {
        Def::Arg(block, _) => (block, f.ops_in(block).next()),
        Def::Result(id, _) => {
            let block = f.op_data(id).block;
            (block, f.next_op(id))
        }
    };
    first.map_or(Place::End(block), Place::Before)
}

/// Puts a half-precision twin in the place of an op, with casts back for whoever reads 32 bits.
fn to_half(cx: &mut PassCx<'_>, index: usize, id: OpId, halves: &mut Halves) -> Result<(), PassError> {
    let data = cx.module.functions[index].op_data(id).clone();
    let mut operands = vec![];
    for arg in data.op.args() {
        operands.extend(f32_operands(&cx.module.functions[index], &arg));
    }
    let origin = data.origin.map(|o| cx.module.origins.rewritten(cx.pass, [o]));
    let f = &mut cx.module.functions[index];
    let result = (|| {
        let mut twins = HashMap::new();
        for v in operands {
            twins.insert(v, halves.of(f, v)?);
        }
        let mut op = epsilon::raised(&*data.op).map_or_else(|| data.op.clone(), |(op, _)| op);
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
