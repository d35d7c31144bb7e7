//! Checks modules against the rules of the IR and the schemas of their ops. Knows no op by name.
//!
//! Rules enforced:
//! - a value is defined before it is read, in its own block or an outer one;
//! - an op exists in its function's op set, and so does every parameter that is bound;
//! - operands have an element type of their domain, and one type per domain;
//! - operands that must be constant are;
//! - the types of results are those that inference gives;
//! - the interface names each input and output once, and describes each of them.
//!
//! What Core ML demands beyond this of a package is the backend's business.

use crate::{
    diagnostic::{Diagnostic, codes},
    ir::{Block, Function, Module, OpId, Value},
    schema::{Arg, AttrDefault, InferCx, Op, OpError, ParamKind},
    text::print_op,
};
use mlconv_tensor::{DType, Type};
use std::{collections::HashSet, ops::Deref};

/// A module that passed [`verify`]: what writers and runners take. It may fail, never panic.
#[derive(Clone, Debug)]
pub struct Verified(Module);

impl Verified {
    /// The module, to change; it must be verified again.
    pub fn into_inner(self) -> Module {
        self.0
    }
}

impl Deref for Verified {
    type Target = Module;
    fn deref(&self) -> &Module {
        &self.0
    }
}

/// Checks a module; every violation is reported.
pub fn verify(module: Module) -> Result<Verified, Vec<Diagnostic>> {
    let mut bad = vec![];
    if module.functions.is_empty() {
        bad.push(Diagnostic::error(&codes::V0001, "the program has no function"));
    }
    for (i, f) in module.functions.iter().enumerate() {
        if module.functions[..i].iter().any(|o| o.name == f.name) {
            bad.push(Diagnostic::error(&codes::V0001, format!("two functions are called `{}`", f.name)));
        }
        let mut v = Verifier { f, module: &module, bad: &mut bad };
        v.signature();
        v.block(f.body(), &mut HashSet::new());
    }
    if bad.is_empty() { Ok(Verified(module)) } else { Err(bad) }
}

struct Verifier<'a> {
    f: &'a Function,
    module: &'a Module,
    bad: &'a mut Vec<Diagnostic>,
}

impl Verifier<'_> {
    fn report(&mut self, d: Diagnostic) {
        self.bad.push(d.within(format!("function `{}`", self.f.name)));
    }

    /// Reports a violation of op `id`, underlining `param` in its text.
    fn report_op(&mut self, id: OpId, param: Option<&str>, why: impl Into<String>) {
        let line = print_op(self.f, id);
        let at = param.and_then(|p| argument(&line, p)).unwrap_or(0..line.len());
        let mut d = Diagnostic::error(&codes::V0001, why).snippet(line, at);
        if let Some(origin) = self.f.op_data(id).origin
            && let Some(source) = self.module.origins.sources(origin).first()
        {
            d = d.at(source.to_string());
        }
        self.report(d);
    }

    fn signature(&mut self) {
        let f = self.f;
        let ports = [("input", f.inputs(), &f.sig.inputs), ("output", f.outputs(), &f.sig.outputs)];
        for (what, values, ports) in ports {
            if values.len() != ports.len() {
                let why = format!("{} {what}s are described, there are {}", ports.len(), values.len());
                self.report(Diagnostic::error(&codes::V0001, why));
            }
            for (i, p) in ports.iter().enumerate() {
                if p.name.is_empty() || ports[..i].iter().any(|o| o.name == p.name) {
                    self.report(Diagnostic::error(&codes::V0001, format!("{what} name `{}` is not unique", p.name)));
                }
            }
        }
        if f.outputs().is_empty() {
            self.report(Diagnostic::error(&codes::V0001, "the function has no output"));
        }
        for v in f.inputs() {
            if !matches!(f.ty(*v), Type::Tensor(_) | Type::State(_)) {
                let why = format!("input `{}` is {}, neither a tensor nor a state", f.value(*v).hint, f.ty(*v));
                self.report(Diagnostic::error(&codes::V0001, why));
            }
        }
        let arguments = f.all_ops().into_iter().flat_map(|id| {
            let mut args = vec![];
            f.op_data(id).op.visit_regions(&mut |b| args.extend(&f.block(b).args));
            args
        });
        for v in f.inputs().iter().copied().chain(arguments) {
            let (Type::Tensor(t) | Type::State(t) | Type::List { elem: t, .. }) = f.ty(v) else { continue };
            if t.shape.iter().any(|d| d.as_known().is_some_and(|n| n < 0)) {
                let why = format!("`%{}` is {}, and a size cannot be negative", f.value(v).hint, f.ty(v));
                self.report(Diagnostic::error(&codes::V0001, why));
            }
        }
    }

    fn block(&mut self, block: Block, seen: &mut HashSet<Value>) {
        seen.extend(&self.f.block(block).args);
        let mut here = vec![];
        for id in self.f.ops_in(block) {
            self.op(id, seen);
            let results = &self.f.op_data(id).results;
            seen.extend(results);
            here.extend(results.iter().copied());
        }
        for v in self.f.yields(block) {
            if !seen.contains(v) {
                let why = format!("`%{}` is yielded but not defined there", self.f.value(*v).hint);
                self.report(Diagnostic::error(&codes::V0001, why));
            }
        }
        // What a block defines, only it can read.
        for v in here.iter().chain(&self.f.block(block).args) {
            seen.remove(v);
        }
    }

    fn op(&mut self, id: OpId, seen: &mut HashSet<Value>) {
        let f = self.f;
        let op: &dyn Op = &*f.op_data(id).op;
        if !op.schema().exists_in(f.opset) {
            // What it takes in an op set that does not have it says nothing.
            return faults(f, id).into_iter().for_each(|fault| self.report_op(id, fault.param, fault.why));
        }
        let mut unseen: Vec<&str> = vec![];
        for arg in op.args() {
            let (Some(param), Arg::Operands(values)) = (arg.param, &arg.arg) else { continue };
            let ParamKind::Operand { .. } = &param.kind else { continue };
            for _ in values.iter().filter(|v| !seen.contains(v)) {
                self.report_op(id, Some(param.name), format!("`{}` is read before it is defined", param.name));
                unseen.push(param.name);
            }
        }
        for fault in faults(f, id) {
            if fault.param.is_none_or(|p| !unseen.contains(&p)) {
                self.report_op(id, fault.param, fault.why);
            }
        }
        let mut regions = vec![];
        op.visit_regions(&mut |b| regions.push(b));
        for b in regions {
            if f.block(b).parent != Some(id) {
                self.report_op(id, None, "it does not own its block");
            }
            self.block(b, seen);
        }
        self.results(id);
    }

    fn results(&mut self, id: OpId) {
        let f = self.f;
        let data = f.op_data(id);
        match data.op.infer(&InferCx::new(f, f.opset, id.index())) {
            Err(e) => self.report_op(id, None, e.to_string()),
            Ok(facts) if facts.len() != data.results.len() => {
                self.report_op(id, None, format!("it has {} results, wanted {}", data.results.len(), facts.len()));
            }
            Ok(facts) => {
                for (v, fact) in data.results.iter().zip(facts) {
                    if fact.ty != *f.ty(*v) {
                        self.report_op(id, None, format!("its result is {}, inferred is {}", f.ty(*v), fact.ty));
                    }
                    if fact.ty == Type::Unknown {
                        self.report_op(id, None, "its result's type is not known");
                    }
                }
            }
        }
    }
}

/// What is wrong with how an op is bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The parameter; `None` where it is the op itself.
    pub param: Option<&'static str>,
    /// What was found and what was wanted.
    pub why: String,
}

/// Checks one op against its schema: that it and its parameters exist in the function's op set, and that operands have
/// the types of their domains and are constant where they must be.
pub fn faults(f: &Function, id: OpId) -> Vec<Fault> {
    let op: &dyn Op = &*f.op_data(id).op;
    let schema = op.schema();
    if !schema.exists_in(f.opset) {
        let why = match schema.until.filter(|u| *u <= f.opset) {
            Some(until) => format!("`{}` no longer exists in this form since {until}", op.name()),
            None => format!("`{}` needs {}, the function is {}", op.name(), schema.since, f.opset),
        };
        return vec![Fault { param: None, why }];
    }
    let mut out = vec![];
    let mut bound: Vec<(&str, DType, &'static str)> = vec![];
    for arg in op.args() {
        let Some(param) = arg.param else { continue };
        let mut fault = |why: String| out.push(Fault { param: Some(param.name), why });
        if let (Arg::Attr(Some(value)), ParamKind::Attr { default, .. }) = (&arg.arg, &param.kind)
            && !param.exists_in(f.opset)
            && !matches!(default, AttrDefault::Value(d) if d().as_ref() == Some(value))
        {
            fault(format!("`{}` does not exist in {}", param.name, f.opset));
        }
        let Arg::Operands(values) = &arg.arg else { continue };
        let ParamKind::Operand { domain, constant, .. } = &param.kind else { continue };
        if !values.is_empty() && !param.exists_in(f.opset) {
            fault(format!("`{}` does not exist in {}", param.name, f.opset));
        }
        for v in values.iter() {
            if constant.holds_in(f.opset) && !is_constant(f, *v) {
                fault(format!("`{}` must be constant", param.name));
            }
            let Some(dtype) = element_type(f.ty(*v)) else { continue };
            // A domain of any type binds nothing: each operand has its own.
            let Some(allowed) = schema.types(domain, f.opset) else { continue };
            if !allowed.contains(&dtype) {
                let allowed: Vec<_> = allowed.iter().map(|d| d.name()).collect();
                fault(format!("`{}` is {dtype}, wanted {} in {}", param.name, allowed.join(" or "), f.opset));
            }
            let var = schema.resolve(domain, f.opset);
            match bound.iter().find(|(n, ..)| *n == var) {
                Some((_, want, other)) if *want != dtype => {
                    let e = OpError::DType { param: param.name, found: dtype, other, want: *want };
                    fault(e.to_string());
                }
                Some(_) => {}
                None => bound.push((var, dtype, param.name)),
            }
        }
    }
    out
}

/// Whether `v` is a constant, or computed from constants by `constexpr_*` ops.
pub fn is_constant(f: &Function, v: Value) -> bool {
    f.constant(v).is_some() || f.def_op(v).is_some_and(|id| f.op_data(id).op.schema().constexpr)
}

fn element_type(ty: &Type) -> Option<DType> {
    match ty {
        Type::Tensor(t) | Type::State(t) => Some(t.dtype),
        Type::List { elem, .. } => Some(elem.dtype),
        Type::Dict { .. } | Type::Unknown => None,
    }
}

/// The bytes of `param`'s value in the text of an op.
fn argument(line: &str, param: &str) -> Option<std::ops::Range<usize>> {
    let key = format!("{param}=");
    let found =
        line.match_indices(&key).find(|(i, _)| line[..*i].chars().next_back().is_some_and(|c| c == '(' || c == ' '));
    let start = found?.0 + key.len();
    let (mut depth, mut end) = (0i32, line.len());
    for (i, c) in line[start..].char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth == 0 => {
                end = start + i;
                break;
            }
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                end = start + i;
                break;
            }
            _ => {}
        }
    }
    Some(start..end)
}
