//! Nodes that are wrong in one way each: the one diagnostic names the node, shows what it reads, underlines what is at
//! fault, and says what was wanted.

#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use mlconv_mil::diagnostic::{Diagnostic, Limit, Severity};
use mlconv_proto::onnx::{AttributeProto, NodeProto, attribute_proto::AttributeType, tensor_proto::DataType};
use mlconv_source::{ModelFiles, Request, lower};
use mlconv_tensor::Bytes;
use std::path::Path;
use support::{
    lowered::{F32, constant, int64, list, text, with},
    onnx::{Onnx, int, numbers, value},
};

/// A model of one sound node, by name.
fn sound(name: &str) -> Onnx {
    let x = |dims: &[i64]| Onnx::new().input("x", F32, dims);
    let ints = |model: Onnx, values: &[i64]| constant(model, int64("i", &[values.len() as i64], values));
    let made = match name {
        "Conv" => {
            let model = x(&[1, 2, 8, 8]).weight("w", &[4, 2, 3, 3], &numbers(72)).weight("b", &[4], &numbers(4));
            with(model.node("Conv", &["x", "w", "b"], &["y"]), vec![list("strides", &[1, 1]), int("group", 1)])
        }
        "MaxPool" => with(x(&[1, 2, 8, 8]).node("MaxPool", &["x"], &["y"]), vec![list("kernel_shape", &[2, 2])]),
        "Gemm" => {
            let model = x(&[2, 3]).weight("w", &[3, 4], &numbers(12)).weight("b", &[4], &numbers(4));
            with(model.node("Gemm", &["x", "w", "b"], &["y"]), vec![int("transB", 0)])
        }
        "MatMul" => x(&[2, 3]).weight("w", &[3, 4], &numbers(12)).node("MatMul", &["x", "w"], &["y"]),
        "Add" => x(&[2, 3]).input("z", F32, &[3]).node("Add", &["x", "z"], &["y"]),
        "And" => Onnx::new().input("x", DataType::Bool, &[2]).input("z", DataType::Bool, &[2]).node(
            "And",
            &["x", "z"],
            &["y"],
        ),
        "Less" => x(&[2, 3]).input("z", F32, &[3]).node("Less", &["x", "z"], &["y"]),
        "Compress" => {
            let model = x(&[2, 3]).input("c", DataType::Bool, &[2]).node("Compress", &["x", "c"], &["y"]);
            with(model, vec![int("axis", 0)])
        }
        "Relu" => x(&[2, 3]).node("Relu", &["x"], &["y"]),
        "Softmax" => with(x(&[2, 3]).node("Softmax", &["x"], &["y"]), vec![int("axis", 1)]),
        "Concat" => with(x(&[2, 3]).input("z", F32, &[2, 4]).node("Concat", &["x", "z"], &["y"]), vec![int("axis", 1)]),
        "Reshape" => ints(x(&[2, 3]), &[3, 2]).node("Reshape", &["x", "i"], &["y"]),
        "Transpose" => with(x(&[2, 3]).node("Transpose", &["x"], &["y"]), vec![list("perm", &[1, 0])]),
        "Gather" => with(ints(x(&[2, 3]), &[0, 1]).node("Gather", &["x", "i"], &["y"]), vec![int("axis", 0)]),
        "Split" => with(x(&[4, 3]).node("Split", &["x"], &["y", "z"]), vec![int("axis", 0), int("num_outputs", 2)]),
        "ReduceMean" => with(x(&[2, 3]).node("ReduceMean", &["x"], &["y"]), vec![list("axes", &[1])]),
        "Cast" => with(x(&[2, 3]).node("Cast", &["x"], &["y"]), vec![int("to", 6)]),
        "Where" => Onnx::new().input("c", DataType::Bool, &[2]).input("x", F32, &[2]).input("z", F32, &[2]).node(
            "Where",
            &["c", "x", "z"],
            &["y"],
        ),
        "Pad" => with(ints(x(&[2, 3]), &[0, 1, 0, 1]).node("Pad", &["x", "i"], &["y"]), vec![text("mode", "constant")]),
        "LayerNormalization" => {
            let model = x(&[2, 3]).weight("w", &[3], &numbers(3)).weight("b", &[3], &numbers(3));
            model.node("LayerNormalization", &["x", "w", "b"], &["y"])
        }
        "BatchNormalization" => {
            let model = x(&[2, 3, 4]);
            let model = ["s", "b", "m", "v"].iter().fold(model, |m, name| m.weight(name, &[3], &[0.5; 3]));
            model.node("BatchNormalization", &["x", "s", "b", "m", "v"], &["y"])
        }
        "GRU" => {
            let model = x(&[5, 1, 3]).weight("w", &[1, 6, 3], &numbers(18)).weight("r", &[1, 6, 2], &numbers(12));
            with(model.node("GRU", &["x", "w", "r"], &["y"]), vec![int("hidden_size", 2)])
        }
        "TopK" => ints(x(&[2, 3]), &[2]).node("TopK", &["x", "i"], &["y", "z"]),
        "If" => {
            let branch = |op: &str| Onnx::new().node(op, &["x"], &["r"]).output("r", F32, &[2]).0.graph;
            let graph = |name: &str, op: &str| AttributeProto {
                name: Some(name.to_owned()),
                r#type: Some(AttributeType::Graph as i32),
                g: branch(op),
                ..AttributeProto::default()
            };
            let model = x(&[2]).input("c", DataType::Bool, &[]).node("If", &["c"], &["y"]);
            with(model, vec![graph("then_branch", "Relu"), graph("else_branch", "Exp")])
        }
        other => panic!("there is no model of {other}"),
    };
    let mut model = made.output("y", F32, &[]);
    model.graph().output[0].r#type = None;
    let opset = if name == "Split" { 18 } else { 17 };
    model.0.opset_import[0].version = Some(opset);
    model.graph().node[0].name = Some("the_node".to_owned());
    model
}

fn errors(model: &Onnx) -> Vec<Diagnostic> {
    let files = ModelFiles::beside(Path::new("."));
    let graph = mlconv_onnx::read(Bytes::from(model.bytes()), &files).expect("the file is sound");
    let all = lower(&graph, mlconv_onnx::table(), &Request::default()).diagnostics;
    all.into_iter().filter(|d| d.severity == Severity::Error).collect()
}

/// How a node is damaged.
enum Damage {
    /// An input is left out.
    Absent(usize),
    /// One more input is given.
    Surplus(&'static str),
    /// An input of the model has another type or shape.
    Input(&'static str, DataType, &'static [i64]),
    /// An attribute is another one, or a new one.
    Int(&'static str, i64),
    Ints(&'static str, &'static [i64]),
    Text(&'static str, &'static str),
    Float(&'static str),
    /// An attribute is left out.
    Without(&'static str),
    /// The node is of another operator.
    Operator(&'static str, &'static str),
    /// It names one more result than it has.
    Result,
}

use Damage::{Absent, Float, Input, Int, Ints, Operator, Result as OneMore, Surplus, Text, Without};

fn damaged(name: &str, damage: &Damage) -> Onnx {
    let mut model = sound(name);
    let set = |node: &mut NodeProto, a: AttributeProto| {
        node.attribute.retain(|old| old.name != a.name);
        node.attribute.push(a);
    };
    let graph = model.graph();
    if let Input(name, dtype, dims) = damage {
        let input = graph.input.iter_mut().find(|v| v.name.as_deref() == Some(name)).expect("an input");
        *input = value(name, *dtype, dims);
    }
    let node = &mut graph.node[0];
    match damage {
        Input(..) => {}
        Absent(i) => node.input[*i] = String::new(),
        Surplus(name) => node.input.push((*name).to_owned()),
        Int(name, v) => set(node, int(name, *v)),
        Ints(name, v) => set(node, list(name, v)),
        Text(name, v) => set(node, text(name, v)),
        Float(name) => set(
            node,
            AttributeProto {
                name: Some((*name).to_owned()),
                r#type: Some(AttributeType::Float as i32),
                f: Some(0.5),
                ..AttributeProto::default()
            },
        ),
        Without(name) => node.attribute.retain(|a| a.name.as_deref() != Some(name)),
        Operator(domain, op) => {
            node.domain = Some((*domain).to_owned());
            node.op_type = Some((*op).to_owned());
        }
        OneMore => node.output.push("surplus".to_owned()),
    }
    model
}

/// The operator, how it is damaged, the code, what is said, and what is underlined.
type Case = (&'static str, Damage, &'static str, &'static str, &'static str);

const CASES: &[Case] = &[
    // Inputs that are missing or too many.
    ("Conv", Absent(0), "F0102", "input 0 is missing", "none"),
    ("Conv", Absent(1), "F0102", "input 1 is missing", "none"),
    ("MatMul", Absent(1), "F0102", "input 1 is missing", "none"),
    ("Gather", Absent(1), "F0102", "input 1 is missing", "none"),
    ("Reshape", Absent(1), "F0102", "input 1 is missing", "none"),
    ("GRU", Absent(2), "F0102", "input 2 is missing", "none"),
    ("Where", Absent(0), "F0102", "input 0 is missing", "none"),
    ("Relu", Surplus("x"), "F0103", "input 1 is not known to this lowering", "%x: f32[2, 3]"),
    ("Softmax", Surplus("x"), "F0103", "input 1 is not known to this lowering", "%x: f32[2, 3]"),
    // Attributes of another kind or value.
    ("Softmax", Text("axis", "last"), "F0102", "attribute `axis` is \"last\", wanted an integer", "axis=\"last\""),
    ("Softmax", Int("axis", 7), "F0102", "axis 7 is outside a tensor of rank 2", "Softmax"),
    ("Concat", Int("axis", -9), "F0102", "axis -9 is outside", "Concat"),
    ("Conv", Text("strides", "2"), "F0102", "attribute `strides` is \"2\", wanted integers", "strides=\"2\""),
    ("Conv", Ints("strides", &[1]), "F0102", "attribute `strides` is [1], wanted 2 integers", "strides=[1]"),
    ("Conv", Ints("strides", &[0, 1]), "F0102", "wanted 2 integers of at least 1", "strides=[0, 1]"),
    ("Conv", Text("auto_pad", "MOST"), "F0102", "attribute `auto_pad` is \"MOST\", wanted", "auto_pad=\"MOST\""),
    ("Conv", Float("group"), "F0102", "attribute `group` is 0.5, wanted an integer", "group=0.5"),
    ("MaxPool", Without("kernel_shape"), "F0102", "attribute `kernel_shape` is missing", "MaxPool"),
    ("MaxPool", Ints("kernel_shape", &[1 << 40, 2]), "F0102", "wanted 2 integers of at least 1", "kernel_shape="),
    ("Gemm", Text("transB", "yes"), "F0102", "attribute `transB` is \"yes\", wanted an integer", "transB=\"yes\""),
    ("Transpose", Text("perm", "yx"), "F0102", "attribute `perm` is \"yx\", wanted integers", "perm=\"yx\""),
    ("Transpose", Ints("perm", &[0, 0]), "F0102", "`perm` is [0, 0], wanted each axis of f32[2, 3] once", "perm="),
    ("Split", Int("num_outputs", 1 << 40), "F0102", "wanted 2, as many as the node has outputs", "num_outputs="),
    ("ReduceMean", Text("keepdims", "no"), "F0102", "wanted an integer", "keepdims=\"no\""),
    ("Cast", Without("to"), "F0102", "attribute `to` is missing", "Cast"),
    ("Cast", Int("to", 99), "F0102", "attribute `to` is 99, wanted the number of an element type", "to=99"),
    ("Cast", Int("to", 18), "F0101", "a cast to float8e4m3fnuz is not supported", "Cast"),
    ("Pad", Text("mode", "mirror"), "F0102", "wanted `constant`, `reflect`, `edge` or `wrap`", "mode=\"mirror\""),
    ("GRU", Int("hidden_size", 3), "F0102", "attribute `hidden_size` is 3, wanted 2", "hidden_size=3"),
    ("If", Int("then_branch", 1), "F0102", "attribute `then_branch` is 1, wanted a graph", "then_branch=1"),
    ("If", Without("else_branch"), "F0102", "attribute `else_branch` is missing", "If"),
    // Attributes that nothing knows.
    ("Relu", Int("alpha", 1), "F0103", "attribute `alpha` is not known to this lowering", "alpha=1"),
    ("Conv", Int("padding", 1), "F0103", "attribute `padding` is not known to this lowering", "padding=1"),
    // Ranks and sizes that do not fit.
    ("Conv", Input("x", F32, &[1, 2]), "F0101", "0 spatial dimensions is not supported", "Conv"),
    ("Conv", Input("x", F32, &[1, 5, 8, 8]), "F0102", "wanted", "Conv"),
    ("MaxPool", Input("x", F32, &[8]), "F0101", "spatial dimensions is not supported", "MaxPool"),
    ("MatMul", Input("x", F32, &[2, 5]), "F0102", "wanted 5 rows, as many as `x` has columns", "MatMul"),
    ("Gemm", Input("x", F32, &[2, 5]), "F0102", "`weight` is f32[4, 3], wanted a matrix of 5 columns", "Gemm"),
    ("Add", Input("z", F32, &[4]), "F0102", "shapes [2, 3] and [4] cannot be broadcast together", "Add"),
    ("Concat", Input("z", F32, &[4]), "F0102", "axis 1 is outside a tensor of rank 1", "Concat"),
    ("Reshape", Input("x", F32, &[2, 5]), "F0102", "wanted a shape of 10 elements", "Reshape"),
    ("Transpose", Input("x", F32, &[2, 3, 4]), "F0102", "`perm` is [1, 0], wanted each axis", "perm=[1, 0]"),
    (
        "BatchNormalization",
        Input("x", F32, &[2, 5, 4]),
        "F0102",
        "`mean` is f32[3], wanted a tensor of shape [5]",
        "Batch",
    ),
    ("GRU", Input("x", F32, &[5, 3]), "F0101", "a sequence that is not of rank 3", "GRU"),
    ("If", Input("c", DataType::Bool, &[2]), "F0101", "bool[2] where a scalar is wanted", "If"),
    // Types that do not go together.
    ("Relu", Input("x", DataType::Bool, &[2, 3]), "F0102", "`x` is bool, wanted f16 or f32", "Relu"),
    ("Add", Input("z", DataType::Int32, &[3]), "F0102", "`y` is i32, but `x` is f32", "Add"),
    ("Add", Input("z", DataType::Bool, &[3]), "F0102", "`y` is bool, wanted f16 or f32 or i32", "Add"),
    ("And", Input("z", F32, &[2]), "F0102", "`y` is f32, wanted bool", "And"),
    ("MatMul", Input("x", DataType::Bool, &[2, 3]), "F0102", "booleans, where numbers are wanted", "MatMul"),
    ("MatMul", Input("x", DataType::Int32, &[2, 3]), "F0102", "operands of i32 and f32, where one type", "MatMul"),
    ("Gemm", Input("x", DataType::Int32, &[2, 3]), "F0102", "operands of i32 and f32, where one type", "Gemm"),
    ("Less", Input("x", DataType::Bool, &[2, 3]), "F0102", "operands of bool and f32, where one type", "Less"),
    ("Compress", Input("c", F32, &[2]), "F0101", "a condition of f32[2], where a vector of bool is wanted", "Compress"),
    ("Compress", Input("c", DataType::Bool, &[2, 1]), "F0101", "a condition of bool[2, 1]", "Compress"),
    ("Conv", Input("x", DataType::Int32, &[1, 2, 8, 8]), "F0102", "`x` is i32, wanted f16 or f32", "Conv"),
    ("Where", Input("c", F32, &[2]), "F0102", "`cond` is f32, wanted bool", "Where"),
    ("Where", Input("z", DataType::Int32, &[2]), "F0102", "but `a` is f32", "Where"),
    ("If", Input("c", F32, &[]), "F0102", "`pred` is f32, wanted bool", "If"),
    // Operators that are not known.
    ("Relu", Operator("acme", "Relu"), "F0101", "no operator of the domain `acme` is known", ""),
    ("Relu", Operator("", "Relru"), "F0101", "no operator of this name is known", ""),
    ("Relu", Operator("com.microsoft", "Relru"), "F0101", "no operator of this name is known", ""),
    ("Relu", Operator("", "StringSplit"), "F0101", "Core ML computes with no strings", ""),
    ("Relu", Operator("ai.onnx.ml", "SVMRegressor"), "F0101", "only linear regression and what prepares features", ""),
    ("Relu", OneMore, "F0102", "it has 1 results, the node names 2", "Relu"),
    ("TopK", OneMore, "F0102", "it has 2 results, the node names 3", "TopK"),
];

#[test]
fn models_that_are_not_damaged_are_lowered() {
    let mut seen: Vec<&str> = CASES.iter().map(|c| c.0).collect();
    seen.extend(["LayerNormalization"]);
    seen.sort_unstable();
    seen.dedup();
    for name in seen {
        assert!(errors(&sound(name)).is_empty(), "{name}: {:?}", errors(&sound(name)));
    }
}

#[test]
fn each_damage_is_one_diagnostic_that_names_the_node() {
    let mut wrong = vec![];
    for (i, (name, damage, code, says, under)) in CASES.iter().enumerate() {
        let all = errors(&damaged(name, damage));
        let [d] = all.as_slice() else {
            wrong.push(format!("case {i}, {name}: {} diagnostics, wanted `{says}`: {all:#?}", all.len()));
            continue;
        };
        let shown = d.snippet.as_ref().and_then(|(line, at)| line.get(at.clone())).unwrap_or_default();
        let named = d.place.iter().any(|p| p.starts_with("node `the_node` ("));
        let right = named && d.code.id == *code && d.title.contains(says) && shown.starts_with(under);
        if !right || (under.is_empty() != shown.is_empty()) || d.nodes.as_ref().map(|n| n.count) != Some(1) {
            wrong.push(format!("case {i}, {name}: wanted {code} `{says}` at `{under}`, got\n{d}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), CASES.len(), wrong.join("\n"));
}

#[test]
fn whose_limit_it_is_is_said_where_it_is_known() {
    let limit = |name, damage| errors(&damaged(name, &damage)).into_iter().map(|d| d.limit).collect::<Vec<_>>();
    assert_eq!(limit("Relu", Operator("", "StringSplit")), [Some(Limit::CoreMl)]);
    assert_eq!(limit("Relu", Operator("ai.onnx.ml", "TreeEnsemble")), [Some(Limit::NotYet)]);
    assert_eq!(limit("Relu", Operator("acme", "Relu")), [None]);
    assert_eq!(limit("Cast", Int("to", 18)), [Some(Limit::CoreMl)]);
    assert_eq!(limit("Softmax", Int("axis", 7)), [None]);
}
