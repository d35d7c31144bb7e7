//! Model-local functions, expanded where they are called.

use crate::reader::{ReadError, Reader, Result, Scope, domain};
use mlconv_proto::onnx::{FunctionProto, ModelProto};
use mlconv_source::{Arg, Node};
use std::{collections::HashMap, sync::Arc};

/// Nesting of calls beyond which functions are taken to call each other in a circle.
const MAX_DEPTH: usize = 32;
/// Nodes beyond which an expansion is taken to be hostile.
const MAX_NODES: usize = 1 << 20;

/// The functions of a model, by domain, name and overload.
pub(crate) struct Functions<'m>(HashMap<(&'m str, &'m str, &'m str), &'m FunctionProto>);

impl<'m> Functions<'m> {
    pub(crate) fn get(&self, domain: &str, op: &str, overload: Option<&str>) -> Option<&'m FunctionProto> {
        self.0.get(&(domain, op, overload.unwrap_or(""))).copied()
    }
}

pub(crate) fn index(model: &ModelProto) -> Result<Functions<'_>> {
    let mut out = HashMap::new();
    for f in &model.functions {
        let name = f.name.as_deref().unwrap_or_default();
        let key = (domain(f.domain.as_deref()), name, f.overload.as_deref().unwrap_or_default());
        if out.insert(key, f).is_some() {
            return Err(ReadError::Duplicate { what: "function", name: name.to_owned() });
        }
    }
    Ok(Functions(out))
}

impl<'m> Reader<'m> {
    /// Adds the nodes of `function` as called by `call`.
    pub(crate) fn expand(
        &mut self,
        function: &'m FunctionProto,
        call: &Node,
        scope: &Scope<'_>,
        out: &mut Vec<Node>,
    ) -> Result<()> {
        let name = function.name.as_deref().unwrap_or_default();
        self.expanded += function.node.len() + 1;
        if scope.depth >= MAX_DEPTH || self.expanded > MAX_NODES {
            return Err(ReadError::Endless { name: name.to_owned() });
        }
        if let Some(what) = undeclared(function, call) {
            return Err(ReadError::Call { node: call.name.to_string(), function: name.to_owned(), what });
        }
        let prefix = self.prefix(&call.name);
        let mut names: HashMap<&str, Arc<str>> = HashMap::new();
        for (i, input) in function.input.iter().enumerate() {
            // An input that the call leaves out is absent inside as well.
            let given = match call.inputs.get(i) {
                Some(Arg::Value(v)) => v.clone(),
                _ => "".into(),
            };
            names.insert(input, given);
        }
        for (i, output) in function.output.iter().enumerate() {
            let wanted = call.outputs.get(i).filter(|o| !o.is_empty()).cloned();
            names.insert(output, wanted.unwrap_or_else(|| format!("{prefix}/{output}").into()));
        }
        let rename = |inner: &str| names.get(inner).cloned().unwrap_or_else(|| format!("{prefix}/{inner}").into());
        let mut attrs = call.attrs.clone();
        for a in &function.attribute_proto {
            let key: Arc<str> = a.name.as_deref().unwrap_or_default().into();
            if !attrs.contains_key(&key)
                && let Some(default) = self.attribute(a, scope)?
            {
                attrs.insert(key, default);
            }
        }
        let mut imports: HashMap<&str, i64> = scope.imports.clone();
        for import in &function.opset_import {
            imports.insert(domain(import.domain.as_deref()), import.version.unwrap_or(1));
        }
        let inner = Scope { imports: &imports, rename: Some(&rename), attrs: Some(&attrs), depth: scope.depth + 1 };
        let start = out.len();
        for (index, node) in function.node.iter().enumerate() {
            self.node(node, index, &inner, out)?;
        }
        for node in &mut out[start..] {
            // An absent input was renamed to nothing.
            for arg in &mut node.inputs {
                if matches!(arg, Arg::Value(v) if v.is_empty()) {
                    *arg = Arg::None;
                }
            }
            if node.module.is_empty() {
                node.module = call.name.clone();
            }
        }
        Ok(())
    }

    /// What the names of a call's values begin with: its own name, with a number where an earlier call has it.
    fn prefix(&mut self, name: &Arc<str>) -> Arc<str> {
        let mut prefix = name.clone();
        loop {
            let calls = self.calls.entry(prefix.clone()).or_default();
            *calls += 1;
            if *calls == 1 {
                return prefix;
            }
            prefix = format!("{name}_{calls}").into();
        }
    }
}

/// What a call gives that the function does not take.
fn undeclared(function: &FunctionProto, call: &Node) -> Option<String> {
    let input = call.inputs.iter().enumerate().skip(function.input.len());
    if let Some((i, _)) = input.into_iter().find(|(_, arg)| !matches!(arg, Arg::None)) {
        return Some(format!("input {i}"));
    }
    let output = call.outputs.iter().enumerate().skip(function.output.len());
    if let Some((i, _)) = output.into_iter().find(|(_, name)| !name.is_empty()) {
        return Some(format!("output {i}"));
    }
    let declared = |name: &str| {
        let defaults = function.attribute_proto.iter().filter_map(|a| a.name.as_deref());
        function.attribute.iter().map(String::as_str).chain(defaults).any(|a| a == name)
    };
    call.attrs.keys().find(|name| !declared(name)).map(|name| format!("attribute `{name}`"))
}
