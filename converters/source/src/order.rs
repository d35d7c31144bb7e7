//! The order in which nodes are lowered.

use crate::{Node, SourceGraph, problems::place};
use mlconv_mil::diagnostic::{Diagnostic, codes};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// The nodes in an order in which each follows what it reads; their own order where that is one.
pub(crate) fn sorted<'g>(graph: &'g SourceGraph, outer: &dyn Fn(&str) -> bool) -> Result<Vec<&'g Node>, Diagnostic> {
    let mut makers: HashMap<&str, usize> = HashMap::new();
    for (i, node) in graph.nodes.iter().enumerate() {
        for out in node.outputs.iter().filter(|o| !o.is_empty()) {
            let twice = makers.insert(out, i).is_some() || graph.constants.contains_key(out);
            if twice || graph.inputs.iter().any(|v| v.name == *out) {
                return Err(Diagnostic::error(&codes::F0106, format!("`{out}` is defined twice")).at(place(node)));
            }
        }
    }
    let reads: Vec<Vec<usize>> = graph
        .nodes
        .iter()
        .map(|node| {
            let mut from = vec![];
            for name in deep_reads(node) {
                match makers.get(&*name) {
                    Some(i) => from.push(*i),
                    None if outer(&name) => {}
                    None => {
                        let d = Diagnostic::error(&codes::F0106, format!("`{name}` is read but not defined"));
                        return Err(d.at(place(node)));
                    }
                }
            }
            Ok(from)
        })
        .collect::<Result<_, _>>()?;
    let (mut order, mut done) = (vec![], vec![0u8; reads.len()]);
    for start in 0..reads.len() {
        // Depth first with a stack of our own: a chain of nodes may be as long as the file.
        let mut stack = vec![(start, 0)];
        while let Some((i, k)) = stack.pop() {
            if done[i] == 2 {
                continue;
            }
            done[i] = 1;
            match reads[i].get(k) {
                Some(from) if done[*from] == 1 => {
                    let d = Diagnostic::error(&codes::F0106, "nodes depend on each other in a circle");
                    return Err(d.at(place(&graph.nodes[i])));
                }
                Some(from) => {
                    stack.push((i, k + 1));
                    stack.push((*from, 0));
                }
                None => {
                    done[i] = 2;
                    order.push(&graph.nodes[i]);
                }
            }
        }
    }
    Ok(order)
}

/// What a node reads, and what its nested graphs read from outside of themselves.
pub(crate) fn deep_reads(node: &Node) -> Vec<Arc<str>> {
    let mut out: Vec<Arc<str>> = node.reads().cloned().collect();
    let mut todo: Vec<(&SourceGraph, HashSet<Arc<str>>)> = node.graphs().map(|g| (g, HashSet::new())).collect();
    while let Some((graph, mut known)) = todo.pop() {
        known.extend(graph.inputs.iter().map(|v| v.name.clone()));
        known.extend(graph.constants.keys().cloned());
        known.extend(graph.nodes.iter().flat_map(|n| n.outputs.iter().cloned()));
        let returned = graph.outputs.iter().map(|v| &v.name);
        for name in graph.nodes.iter().flat_map(Node::reads).chain(returned) {
            if !known.contains(name) {
                out.push(name.clone());
            }
        }
        todo.extend(graph.nodes.iter().flat_map(Node::graphs).map(|g| (g, known.clone())));
    }
    out
}
