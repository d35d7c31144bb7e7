//! Small files that would take much: time, memory or stack. The binary gets little of each, and does its work or says what
//! is wrong.

#![cfg(target_os = "linux")]

mod support;

use mlconv_proto::onnx::{
    AttributeProto, FunctionProto, NodeProto, OperatorSetIdProto, TensorProto, attribute_proto::AttributeType,
    tensor_proto::DataType,
};
use mlconv_tensor::Bytes;
use std::{
    fs,
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use support::{
    damage::Numbers,
    files, fixtures,
    onnx::{Onnx, int, tensor},
};

const F32: DataType = DataType::Float;
/// Kilobytes of address space.
const MEMORY: u32 = 6 << 20;
/// What one file may take, on a machine that does other things as well.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a command on a file, with little memory and time: it must end by itself, and say something where it fails.
/// The result is what it says.
fn survives(command: &str, bytes: &[u8]) -> String {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("bomb.onnx");
    fs::write(&path, bytes).expect("room");
    let script = format!(
        "ulimit -v {MEMORY}; exec timeout -s KILL {} '{}' {command} '{}'",
        PATIENCE.as_secs(),
        env!("CARGO_BIN_EXE_mlconv"),
        path.display()
    );
    let start = Instant::now();
    let out =
        Command::new("sh").args(["-c", &script]).env("RUST_BACKTRACE", "0").stdin(Stdio::null()).output().expect("sh");
    let stderr = String::from_utf8_lossy(&out.stderr);
    let code = out.status.code();
    let fine = matches!(code, Some(0..=2)) && !stderr.contains("T0001");
    let brief: String = stderr.chars().take(600).collect();
    assert!(fine, "{} bytes, {command}: {code:?} after {:?}: {brief}", bytes.len(), start.elapsed());
    assert!(code != Some(2) || stderr.contains("error["), "{command}: {brief}");
    brief + &String::from_utf8_lossy(&out.stdout)
}

fn names(prefix: &str, n: usize) -> Vec<String> {
    (0..n).map(|i| format!("{prefix}{i}")).collect()
}

/// A graph of `n` nodes, each after the one before.
fn chain(n: usize) -> Onnx {
    let mut model = Onnx::new().input("x", F32, &[2]);
    let mut last = "x".to_owned();
    for next in names("y", n) {
        model = model.node("Relu", &[&last], &[&next]);
        last = next;
    }
    model.output(&last, F32, &[2])
}

#[test]
fn a_long_chain() {
    survives("check", &chain(20_000).bytes());
    let mut backwards = chain(20_000);
    backwards.graph().node.reverse();
    survives("check", &backwards.bytes());
}

#[test]
fn many_inputs_and_outputs() {
    let mut model = Onnx::new();
    for i in 0..10_000 {
        let (x, y) = (format!("x{i}"), format!("y{i}"));
        model = model.input(&x, F32, &[1]).node("Relu", &[&x], &[&y]).output(&y, F32, &[1]);
    }
    survives("check", &model.bytes());
}

#[test]
fn many_symbols() {
    let mut model = Onnx::new();
    for i in 0..10_000 {
        let (x, y) = (format!("x{i}"), format!("y{i}"));
        model = model.input(&x, F32, &[1]).node("Relu", &[&x], &[&y]).output(&y, F32, &[1]);
        let ty = model.graph().input[i].r#type.as_mut().expect("a type");
        if let Some(mlconv_proto::onnx::type_proto::Value::TensorType(t)) = &mut ty.value {
            use mlconv_proto::onnx::tensor_shape_proto::dimension::Value;
            t.shape.as_mut().expect("a shape").dim[0].value = Some(Value::DimParam(format!("s{i}")));
        }
    }
    survives("check", &model.bytes());
}

#[test]
fn many_readers_of_one_value() {
    let mut model = Onnx::new().input("x", F32, &[2]);
    for y in names("y", 20_000) {
        model = model.node("Relu", &["x"], &[&y]);
    }
    survives("check", &model.node("Relu", &["y0"], &["z"]).output("z", F32, &[2]).bytes());
}

#[test]
fn many_operands_of_one_node() {
    let many = vec!["x"; 50_000];
    let model = Onnx::new().input("x", F32, &[1]).node("Concat", &many, &["y"]).output("y", F32, &[50_000]);
    survives("check", &model.bytes());
    let model = Onnx::new().input("x", F32, &[1]).node("Sum", &many, &["y"]).output("y", F32, &[1]);
    survives("check", &model.bytes());
}

#[test]
fn many_unknown_operators() {
    let mut model = Onnx::new().input("x", F32, &[2]);
    for (i, y) in names("y", 20_000).iter().enumerate() {
        model = model.node(&format!("Bogus{i}"), &["x"], &[y]);
    }
    survives("check", &model.output("y0", F32, &[2]).bytes());
}

/// Constants that few bytes ask for, and that fill memory.
#[test]
fn many_large_constants() {
    let shape: Vec<u8> = [1i64 << 12, 1 << 12].iter().flat_map(|n| n.to_le_bytes()).collect();
    let mut model = Onnx::new().input("x", F32, &[1]);
    model.graph().initializer.push(tensor("s", DataType::Int64, &[2], Bytes::from(shape)));
    let mut last = "x".to_owned();
    for (i, next) in names("y", 300).into_iter().enumerate() {
        let c = format!("c{i}");
        model = model.node("ConstantOfShape", &["s"], &[&c]).node("Add", &[&last, &c], &[&next]);
        last = next;
    }
    survives("check", &model.output(&last, F32, &[1 << 12, 1 << 12]).bytes());
}

#[test]
fn constants_that_grow() {
    let mut model = Onnx::new().input("x", F32, &[1]).weight("c0", &[1], &[1.0]);
    for i in 0..40 {
        let (c, d) = (format!("c{i}"), format!("c{}", i + 1));
        model = model.node("Concat", &[&c, &c], &[&d]);
        let axis = AttributeProto {
            name: Some("axis".to_owned()),
            r#type: Some(AttributeType::Int as i32),
            i: Some(0),
            ..AttributeProto::default()
        };
        model.graph().node[i].attribute.push(axis);
    }
    let model = model.node("Add", &["x", "c40"], &["y"]).output("y", F32, &[1 << 40]);
    survives("check", &model.bytes());
}

fn own(function: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: Some(function.to_owned()),
        domain: Some("own".to_owned()),
        input: inputs.iter().map(|i| (*i).to_owned()).collect(),
        output: vec![output.to_owned()],
        ..NodeProto::default()
    }
}

fn function(name: &str, node: Vec<NodeProto>) -> FunctionProto {
    FunctionProto {
        name: Some(name.to_owned()),
        domain: Some("own".to_owned()),
        input: vec!["x".to_owned()],
        output: vec!["y".to_owned()],
        node,
        opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(17) }],
        ..FunctionProto::default()
    }
}

/// A large attribute or tensor in a function is there once for every call.
#[test]
fn functions_that_multiply_what_they_hold() {
    let ints = AttributeProto {
        name: Some("value_ints".to_owned()),
        r#type: Some(AttributeType::Ints as i32),
        ints: vec![1; 1 << 18],
        ..AttributeProto::default()
    };
    let floats = AttributeProto {
        name: Some("value".to_owned()),
        r#type: Some(AttributeType::Tensor as i32),
        t: Some(TensorProto {
            data_type: Some(F32 as i32),
            dims: vec![1 << 18],
            float_data: vec![1.0; 1 << 18],
            ..TensorProto::default()
        }),
        ..AttributeProto::default()
    };
    for attribute in [ints, floats] {
        let constant = NodeProto {
            op_type: Some("Constant".to_owned()),
            output: vec!["c".to_owned()],
            attribute: vec![attribute],
            ..NodeProto::default()
        };
        let identity = NodeProto { domain: None, ..own("Relu", &["x"], "y") };
        let mut model = Onnx::new().input("x", F32, &[2]);
        model.0.opset_import.push(OperatorSetIdProto { domain: Some("own".to_owned()), version: Some(1) });
        model.0.functions = vec![function("f", vec![constant, identity])];
        let mut last = "x".to_owned();
        for next in names("y", 10_000) {
            model.graph().node.push(own("f", &[&last], &next));
            last = next;
        }
        survives("check", &model.output(&last, F32, &[2]).bytes());
    }
}

#[test]
fn loops_that_do_not_end() {
    // A loop of 2^62 iterations, its body an addition.
    let count = (1i64 << 62).to_le_bytes().to_vec();
    let mut body = Onnx::new().node("Relu", &["v"], &["w"]).node("Identity", &["go"], &["go_on"]);
    body.graph().input = vec![
        support::onnx::value("i", DataType::Int64, &[]),
        support::onnx::value("go", DataType::Bool, &[]),
        support::onnx::value("v", F32, &[2]),
    ];
    body.graph().output =
        vec![support::onnx::value("go_on", DataType::Bool, &[]), support::onnx::value("w", F32, &[2])];
    let mut model = Onnx::new().input("x", F32, &[2]);
    model.graph().initializer.push(tensor("n", DataType::Int64, &[], Bytes::from(count)));
    model.graph().initializer.push(tensor("t", DataType::Bool, &[], Bytes::from_static(&[1])));
    let mut model = model.node("Loop", &["n", "t", "x"], &["y"]).output("y", F32, &[2]);
    let attribute = AttributeProto {
        name: Some("body".to_owned()),
        r#type: Some(AttributeType::Graph as i32),
        g: body.0.graph,
        ..AttributeProto::default()
    };
    model.graph().node[0].attribute.push(attribute);
    survives("check", &model.bytes());
}

#[test]
fn damaged_files_in_little_memory() {
    let models = files(&fixtures().join("models"), "onnx");
    let good: Vec<Vec<u8>> = models.iter().map(|p| fs::read(p).expect("readable")).collect();
    for seed in 1..=40 {
        let mut n = Numbers::new(seed);
        let i = n.below(good.len());
        let bytes = if seed % 4 == 0 { n.damaged(&good[i], &good[0]) } else { n.damaged_message(&good[i]) };
        survives(["check", "run", "inspect"][n.below(3)], &bytes);
    }
}

/// Lowerings that make constants of their own: of each, one is harmless.
#[test]
fn constants_that_lowerings_make() {
    // Vectors of integers that are joined as they are.
    let mut model = Onnx::new().input("x", F32, &[4]);
    let start: Vec<u8> = (0..1024i64).flat_map(i64::to_le_bytes).collect();
    model.graph().initializer.push(tensor("c0", DataType::Int64, &[1024], Bytes::from(start)));
    for i in 0..20 {
        let (c, d) = (format!("c{i}"), format!("c{}", i + 1));
        model = model.node("Concat", &[&c, &c], &[&d]);
        model.graph().node[i].attribute.push(int("axis", 0));
    }
    refuses(&model.node("Size", &["c20"], &["y"]).output("y", DataType::Int64, &[]));
    // Windows.
    let mut model = Onnx::new().input("x", F32, &[4]).node("Relu", &["x"], &["y"]).output("y", F32, &[4]);
    let size = (1i64 << 24).to_le_bytes().to_vec();
    model.graph().initializer.push(tensor("n", DataType::Int64, &[], Bytes::from(size)));
    for window in names("w", 50) {
        model = model.node("HannWindow", &["n"], &[&window]);
    }
    refuses(&model);
    // Matrices that resize.
    let mut model = Onnx::new().input("x", F32, &[1, 1, 1, 8192]).output("y0", F32, &[1, 1, 1, 8191]);
    let sizes: Vec<u8> = [1i64, 1, 1, 8191].iter().flat_map(|n| n.to_le_bytes()).collect();
    model.graph().initializer.push(tensor("s", DataType::Int64, &[4], Bytes::from(sizes)));
    for (i, y) in names("y", 6).iter().enumerate() {
        model = model.node("Resize", &["x", "", "", "s"], &[y]);
        let mode = AttributeProto {
            name: Some("mode".to_owned()),
            r#type: Some(AttributeType::String as i32),
            s: Some(Bytes::from_static(b"cubic")),
            ..AttributeProto::default()
        };
        model.graph().node[i].attribute.push(mode);
    }
    refuses(&model);
}

/// What the model comes to is too large, and that is what is said.
fn refuses(model: &Onnx) {
    let mut model = model.clone();
    model.0.opset_import[0].version = Some(18);
    let said = survives("check", &model.bytes());
    assert!(said.contains("more than memory holds"), "{said}");
}

#[test]
fn one_constant_in_many_types_and_places() {
    let mut model = Onnx::new().input("x", F32, &[4]).node("Relu", &["x"], &["y"]).output("y", F32, &[4]);
    let zeros = vec![0u8; 4 << 20];
    model.graph().initializer.push(tensor("c", DataType::Int32, &[1 << 20], Bytes::from(zeros.clone())));
    for c in names("c", 500) {
        model = model.node("Cast", &["c"], &[&c]);
        model.graph().node.last_mut().expect("a node").attribute.push(int("to", 7));
    }
    survives("check", &model.bytes());
    let mut model = Onnx::new().input("x", F32, &[4]).node("Relu", &["x"], &["y"]).output("y", F32, &[4]);
    model.graph().initializer.push(tensor("i", DataType::Int64, &[1 << 16], Bytes::from(zeros[..8 << 16].to_vec())));
    for g in names("g", 5_000) {
        model = model.node("Gather", &["x", "i"], &[&g]);
    }
    survives("check", &model.bytes());
}

/// A loop of 1000 turns, `depth` times in itself.
fn loops(depth: usize) -> Vec<NodeProto> {
    if depth == 0 {
        return Onnx::new().node("Add", &["v", "v"], &["w0"]).0.graph.expect("a graph").node;
    }
    let name = |prefix: &str| format!("{prefix}{depth}");
    let mut body = Onnx::new().node("Identity", &[&name("c")], &[&name("d")]);
    body.graph().node.extend(loops(depth - 1));
    let mut body = body.node("Identity", &[&format!("w{}", depth - 1)], &[&name("o")]);
    body.graph().input = vec![
        support::onnx::value(&name("i"), DataType::Int64, &[]),
        support::onnx::value(&name("c"), DataType::Bool, &[]),
        support::onnx::value(&name("u"), F32, &[4]),
    ];
    body.graph().output =
        vec![support::onnx::value(&name("d"), DataType::Bool, &[]), support::onnx::value(&name("o"), F32, &[4])];
    let mut model = Onnx::new().node("Loop", &["n", "", "v"], &[&name("w")]);
    let node = &mut model.graph().node[0];
    node.attribute.push(AttributeProto {
        name: Some("body".to_owned()),
        r#type: Some(AttributeType::Graph as i32),
        g: body.0.graph,
        ..AttributeProto::default()
    });
    model.0.graph.expect("a graph").node
}

#[test]
fn loops_in_loops() {
    let mut model = Onnx::new().input("x", F32, &[4]).node("Identity", &["x"], &["v"]);
    let count = 1000i64.to_le_bytes().to_vec();
    model.graph().initializer.push(tensor("n", DataType::Int64, &[], Bytes::from(count)));
    model.graph().node.extend(loops(3));
    let said = survives("check", &model.node("Identity", &["w3"], &["y"]).output("y", F32, &[4]).bytes());
    assert!(said.contains("loops that come to so many nodes"), "{said}");
}

#[test]
fn many_branches_in_one() {
    let branch = |output: &str| {
        let model = Onnx::new().node("Identity", &["x"], &[output]).output(output, F32, &[4]);
        model.0.graph.expect("a graph")
    };
    let choice = |output: &str, yes, no| {
        let mut model = Onnx::new().node("If", &["p"], &[output]);
        for (name, graph) in [("then_branch", yes), ("else_branch", no)] {
            model.graph().node[0].attribute.push(AttributeProto {
                name: Some(name.to_owned()),
                r#type: Some(AttributeType::Graph as i32),
                g: Some(graph),
                ..AttributeProto::default()
            });
        }
        model.0.graph.expect("a graph").node
    };
    let mut inner = Onnx::new().output("o0", F32, &[4]);
    for i in 0..4_000 {
        let nodes = choice(&format!("o{i}"), branch(&format!("t{i}")), branch(&format!("e{i}")));
        inner.graph().node.extend(nodes);
    }
    let mut model = Onnx::new().input("x", F32, &[4]).input("p", DataType::Bool, &[]).output("y", F32, &[4]);
    model.graph().node = choice("y", inner.0.graph.expect("a graph"), branch("z"));
    survives("check", &model.bytes());
}

#[test]
fn many_operands_and_many_inputs() {
    let mut model = Onnx::new().input("x", F32, &[1]);
    let parts = names("r", 20_000);
    for part in &parts {
        model = model.node("Relu", &["x"], &[part]);
    }
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let mut model = model.node("Concat", &parts, &["y"]).output("y", F32, &[20_000]);
    model.graph().node.last_mut().expect("a node").attribute.push(int("axis", 0));
    survives("run", &model.bytes());
    let mut model = Onnx::new().input("x", F32, &[4]).node("Relu", &["x"], &["y"]).output("y", F32, &[4]);
    for (input, y) in names("in", 30_000).iter().zip(names("y", 30_000)) {
        model = model.input(input, F32, &[1]).node("Relu", &["x"], &[&y]);
    }
    survives("check", &model.bytes());
}
