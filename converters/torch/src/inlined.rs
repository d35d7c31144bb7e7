//! Graphs that write into what they are given, put where they are run.

use mlconv_source::{Arg, Node, SourceGraph};
use std::{collections::HashMap, sync::Arc};

/// Operators that run a graph once, on the arguments behind it.
const RUNS_ONCE: &[&str] =
    &["wrap_with_set_grad_enabled", "wrap_with_autocast", "wrap", "tag_activation_checkpoint", "invoke_subgraph"];

/// Puts the nodes of a graph that writes into what it is given where the node stands that runs it: so its writes are seen.
pub(crate) fn inlined(node: &Node, inner: SourceGraph, written: &str, out: &mut SourceGraph) -> Result<(), String> {
    let args: Option<Vec<Arc<str>>> =
        node.inputs.iter().map(|a| if let Arg::Value(name) = a { Some(name.clone()) } else { None }).collect();
    let args = args.filter(|a| {
        &*node.domain == "higher_order"
            && RUNS_ONCE.contains(&&*node.op)
            && a.len() == inner.inputs.len()
            && node.outputs.len() <= inner.outputs.len()
    });
    let Some(args) = args else {
        let why =
            format!("node `{}` runs a graph that writes into its input `{written}`, which is not supported", node.name);
        return Err(why);
    };
    let mut names: HashMap<Arc<str>, Arc<str>> = inner.inputs.iter().map(|i| i.name.clone()).zip(args).collect();
    let used =
        |name: &str, out: &SourceGraph| out.types.contains_key(name) || out.inputs.iter().any(|i| *i.name == *name);
    for mut own in inner.nodes {
        for arg in own.attrs.values_mut().chain(&mut own.inputs) {
            renamed(arg, &names);
        }
        for result in &mut own.outputs {
            let mut name = format!("{}_{result}", node.name);
            while used(&name, out) {
                name.push('_');
            }
            let name: Arc<str> = name.into();
            if let Some(ty) = inner.types.get(result) {
                out.types.insert(name.clone(), ty.clone());
            }
            names.insert(result.clone(), name.clone());
            *result = name;
        }
        out.nodes.push(own);
    }
    for (result, value) in node.outputs.iter().zip(&inner.outputs) {
        let value = names.get(&value.name).unwrap_or(&value.name).clone();
        let attrs = [("self".into(), Arg::Value(value))].into_iter().collect();
        let (domain, op) = ("aten".into(), "alias".into());
        let outputs = vec![result.clone()];
        out.nodes.push(Node { domain, op, name: result.clone(), inputs: vec![], attrs, outputs, ..node.clone() });
    }
    Ok(())
}

/// Gives the values that an argument reads their new names.
fn renamed(arg: &mut Arg, names: &HashMap<Arc<str>, Arc<str>>) {
    let new = |name: &mut Arc<str>| {
        if let Some(to) = names.get(name) {
            *name = to.clone();
        }
    };
    match arg {
        Arg::Value(name) => new(name),
        Arg::Values(all) => all.iter_mut().flatten().for_each(new),
        Arg::List(all) => all.iter_mut().for_each(|a| renamed(a, names)),
        _ => {}
    }
}
