//! The order in which nodes are lowered.

use crate::{Node, SourceGraph, problems::place};
use mlconv_mil::diagnostic::{Diagnostic, codes};
use std::collections::{HashMap, HashSet};

/// The nodes in an order in which each follows what it reads; their own order where that is one.
pub(crate) fn sorted<'g>(graph: &'g SourceGraph, outer: &dyn Fn(&str) -> bool) -> Result<Vec<&'g Node>, Diagnostic> {
    let inputs: HashSet<&str> = graph.inputs.iter().map(|v| &*v.name).collect();
    let mut makers: HashMap<&str, usize> = HashMap::new();
    for (i, node) in graph.nodes.iter().enumerate() {
        for out in node.outputs.iter().filter(|o| !o.is_empty()) {
            let twice =
                makers.insert(out, i).is_some() || graph.constants.contains_key(out) || graph.absent.contains_key(out);
            if twice || inputs.contains(&**out) {
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
                match makers.get(name) {
                    Some(i) => from.push(*i),
                    None if outer(name) => {}
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
pub(crate) fn deep_reads(node: &Node) -> Vec<&str> {
    enum Step<'g> {
        Enter(&'g SourceGraph),
        Leave(&'g SourceGraph),
    }
    let mut out: Vec<&str> = node.reads().map(|name| &**name).collect();
    // How many of the graphs that are entered define each name.
    let mut known: HashMap<&str, usize> = HashMap::new();
    let mut todo: Vec<Step<'_>> = node.graphs().map(Step::Enter).collect();
    while let Some(step) = todo.pop() {
        let graph = match step {
            Step::Enter(graph) => graph,
            Step::Leave(graph) => {
                defined(graph).for_each(|name| {
                    known.entry(name).and_modify(|n| *n -= 1);
                });
                continue;
            }
        };
        defined(graph).for_each(|name| *known.entry(name).or_default() += 1);
        let returned = graph.outputs.iter().map(|v| &v.name);
        for name in graph.nodes.iter().flat_map(Node::reads).chain(returned) {
            if known.get(&**name).is_none_or(|n| *n == 0) {
                out.push(name);
            }
        }
        todo.push(Step::Leave(graph));
        todo.extend(graph.nodes.iter().flat_map(Node::graphs).map(Step::Enter));
    }
    out
}

/// The names that a graph gives to values.
fn defined(graph: &SourceGraph) -> impl Iterator<Item = &str> {
    let inputs = graph.inputs.iter().map(|v| &v.name);
    let made = graph.nodes.iter().flat_map(|n| &n.outputs);
    inputs.chain(graph.constants.keys()).chain(graph.absent.keys()).chain(made).map(|name| &**name)
}
