//! `mlconv ops`

use super::{CommandResult, Outcome, terminal::Terminal};
use crate::{Diagnostic, codes, report};
use mlconv_mil::{
    ops::OPS,
    reference,
    schema::{Arity, AttrDefault, AttrType, Opset, Param, ParamKind, Schema},
};
use serde_json::{Map, Value, json};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The op to show; all where it is left out
    name: Option<String>,
}

pub(crate) fn run(args: &Args, terminal: &Terminal) -> CommandResult {
    let all = OPS.iter().map(|o| o.schema);
    let found: Vec<&Schema> = match &args.name {
        None => all.collect(),
        Some(name) => all.filter(|s| s.name == name).collect(),
    };
    if found.is_empty() {
        let d =
            Diagnostic::error(&codes::L0001, format!("there is no op `{}`", args.name.as_deref().unwrap_or_default()));
        return Err(vec![d.help("`mlconv ops` lists all of them")]);
    }
    if terminal.is_json() {
        let one = |s: &&Schema| {
            json!({"name": s.name, "since": s.since.name(), "until": s.until.map(Opset::name),
                "doc": s.doc, "params": s.params.iter().map(|p| json!({"name": p.name, "doc": p.doc})).collect::<Vec<_>>(),
                "signatures": signatures(s)})
        };
        terminal.json(
            &json!({"version": report::VERSION, "command": "ops", "ops": found.iter().map(one).collect::<Vec<_>>()}),
        );
    } else if args.name.is_some() {
        terminal.result(&found.iter().map(|s| reference::markdown(s)).collect::<Vec<_>>().join("\n"));
    } else {
        let row = |s: &&Schema| {
            vec![s.name.to_owned(), s.since.name().to_owned(), s.doc.lines().next().unwrap_or_default().to_owned()]
        };
        terminal.result(&report::table(&found.iter().map(row).collect::<Vec<_>>()));
    }
    Ok(Outcome::Done)
}

/// What an op takes in each op set that changes it.
fn signatures(s: &Schema) -> Map<String, Value> {
    let mut out: Map<String, Value> = Map::new();
    for opset in Opset::ALL.into_iter().filter(|o| s.exists_in(*o)) {
        let params: Vec<Value> = s.params.iter().filter(|p| p.exists_in(opset)).map(|p| takes(s, p, opset)).collect();
        if out.values().next_back() != Some(&Value::from(params.clone())) {
            out.insert(opset.name().to_owned(), params.into());
        }
    }
    out
}

fn takes(s: &Schema, p: &Param, opset: Opset) -> Value {
    let (kind, domain, constant, optional) = match &p.kind {
        ParamKind::Operand { domain, arity, constant } => {
            ("value", Some(*domain), constant.holds_in(opset), *arity == Arity::Optional)
        }
        ParamKind::Attr { default, dtype, .. } => {
            let domain = if let AttrType::Domain(d) = dtype { Some(*d) } else { None };
            ("literal", domain, true, !matches!(default, AttrDefault::Required))
        }
        ParamKind::Region => ("block", None, false, false),
    };
    let types = match (&p.kind, domain) {
        (ParamKind::Attr { dtype: AttrType::Exactly(d), .. }, _) => Some(vec![d.name()]),
        (_, Some(domain)) => s.types(domain, opset).map(|t| t.iter().map(|d| d.name()).collect()),
        (_, None) => None,
    };
    json!({"name": p.name, "takes": kind, "variable": domain.map(|d| s.resolve(d, opset)), "types": types,
        "constant": constant, "optional": optional})
}
