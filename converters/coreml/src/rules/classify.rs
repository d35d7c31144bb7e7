//! Classifiers.

use super::{
    Artifact, Findings,
    view::{Body, Interface, bindings, show},
};
use mlconv_proto::coreml::mil::{
    Operation, Value,
    argument::binding::Binding,
    value::{Value as Kind, immediate_value::Value as Immediate},
};
use mlconv_tensor::DType;

pub(super) fn last(a: &Artifact<'_>, out: &mut Findings) {
    for (interface, body) in a.described() {
        let classifiers: Vec<&Operation> = body.ops.iter().copied().filter(|op| op.r#type == "classify").collect();
        let named = !interface.label.is_empty() || !interface.probabilities.is_empty();
        match classifiers[..] {
            [] if named => out.add(body.name, "a label, and no `classify`"),
            [] => {}
            [op] => one(body, interface, op, out),
            _ => out.add(body.name, format!("`classify` {} times", classifiers.len())),
        }
    }
}

fn one<'a>(body: &Body<'a>, interface: &Interface<'_>, op: &'a Operation, out: &mut Findings) {
    let mut add = |found: String| out.add(body.place(op), found);
    let is_last = body.block.and_then(|b| b.operations.last()).is_some_and(|last| std::ptr::eq(last, op));
    if !is_last {
        add("operations follow it".into());
    }
    let Some(probabilities) = body.operand(op, "probabilities") else { return add("no `probabilities`".into()) };
    if probabilities.dtype != Some(DType::F32) {
        add(format!("`probabilities` are {}", probabilities.dtype.map_or("unknown".into(), |d| d.to_string())));
    }
    match classes(op) {
        None => add("`classes` are no literal list".into()),
        Some(classes) if probabilities.count().is_some_and(|n| n != classes.len()) => {
            add(format!("{} classes for {:?} probabilities", classes.len(), probabilities.dims));
        }
        Some(_) => {}
    }
    let results: Vec<&str> = op.outputs.iter().map(|o| o.name.as_str()).collect();
    if results != [interface.label, interface.probabilities] {
        let kinds: Vec<String> = op.outputs.iter().map(|o| show(o.r#type.as_ref())).collect();
        add(format!(
            "results {results:?} of {kinds:?} are not `predictedFeatureName` and `predictedProbabilitiesName`"
        ));
    }
}

fn classes(op: &Operation) -> Option<&[Value]> {
    let Some(Binding::Value(value)) = bindings(op, "classes").next() else { return None };
    let Some(Kind::ImmediateValue(i)) = &value.value else { return None };
    match &i.value {
        Some(Immediate::List(list)) => Some(&list.values),
        _ => None,
    }
}
