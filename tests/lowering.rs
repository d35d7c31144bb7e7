//! What operators of ONNX come to, on cases that its own suite does not have: small models, run as they are lowered.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use mlconv_proto::onnx::{
    AttributeProto, FunctionProto, NodeProto, OperatorSetIdProto, attribute_proto::AttributeType,
    tensor_proto::DataType,
};
use mlconv_tensor::{Bytes, DType, Tensor};
use support::{
    lowered::{F32, I64, U8, constant, floats, int, int64, ints, lowered, refused, run, text, with},
    onnx::{Onnx, tensor, value},
};

/// A loop of three turns over `x` whose condition is false at the start.
fn unentered(scans: bool) -> Onnx {
    let mut body = Onnx::new().node("Add", &["v", "v"], &["w"]).node("Identity", &["go"], &["go_on"]);
    body.graph().input = vec![value("i", I64, &[]), value("go", DataType::Bool, &[]), value("v", F32, &[2])];
    body.graph().output = vec![value("go_on", DataType::Bool, &[]), value("w", F32, &[2])];
    let mut outputs = vec!["y"];
    if scans {
        body = body.node("Identity", &["w"], &["s"]);
        body.graph().output.push(value("s", F32, &[2]));
        outputs.push("all");
    }
    let model = constant(Onnx::new().input("x", F32, &[2]), int64("n", &[], &[3]));
    let model = constant(model, tensor("go", DataType::Bool, &[], Bytes::from_static(&[0])));
    let attribute = AttributeProto {
        name: Some("body".to_owned()),
        r#type: Some(AttributeType::Graph as i32),
        g: body.0.graph,
        ..AttributeProto::default()
    };
    let model = with(model.node("Loop", &["n", "go", "x"], &outputs), vec![attribute]).output("y", F32, &[2]);
    if scans { model.output("all", F32, &[0, 2]) } else { model }
}

#[test]
fn a_loop_whose_condition_is_false_at_the_start_does_not_run() {
    assert_eq!(run(&unentered(false), &[floats(&[1.0, 2.0])]).to_f64(), [1.0, 2.0]);
    assert!(refused(&unentered(true)).contains("a loop of no turns that collects values"));
}

#[test]
fn small_integers_wrap() {
    let binary = |op: &str, dtype| {
        Onnx::new().input("a", dtype, &[2]).input("b", dtype, &[2]).node(op, &["a", "b"], &["y"]).output(
            "y",
            dtype,
            &[2],
        )
    };
    let (a, b) = (ints(&[16, 200]), ints(&[250, 100]));
    let of = |op: &str| run(&binary(op, U8), &[a.clone(), b.clone()]).to_i64();
    assert_eq!(of("Add"), [10, 44]);
    assert_eq!(of("Sub"), [22, 100]);
    assert_eq!(of("Mul"), [160, 32]);
    let signed = run(&binary("Add", DataType::Int8), &[ints(&[127, -128]), ints(&[1, -1])]);
    assert_eq!(signed.to_i64(), [-128, 127]);
    let shift = with(binary("BitShift", U8), vec![text("direction", "LEFT")]);
    assert_eq!(run(&shift, &[a.clone(), ints(&[4, 1])]).to_i64(), [0, 144]);
    let minus = Onnx::new().input("a", DataType::Int8, &[2]).node("Neg", &["a"], &["y"]);
    assert_eq!(run(&minus.output("y", DataType::Int8, &[2]), &[ints(&[-128, 5])]).to_i64(), [-128, -5]);
    // A type that only the cast states.
    let cast = Onnx::new().input("a", DataType::Int32, &[2]).node("Cast", &["a"], &["c"]);
    let cast = with(cast, vec![int("to", 2)]).node("Add", &["c", "c"], &["y"]).output("y", U8, &[2]);
    assert_eq!(run(&cast, &[ints(&[300, 200])]).to_i64(), [88, 144]);
    assert_eq!(run(&binary("Add", DataType::Int32), &[a, b]).to_i64(), [266, 300]);
}

#[test]
fn unsigned_integers_of_32_bits_come_with_a_warning() {
    let model = Onnx::new().input("a", DataType::Uint32, &[1]).node("Sub", &["a", "a"], &["y"]);
    let (_, diagnostics) = lowered(&model.output("y", DataType::Uint32, &[1]), &[ints(&[1])]);
    assert!(diagnostics.iter().any(|d| d.title.contains("from 2^31 on come out negative")), "{diagnostics:?}");
}

#[test]
fn a_cast_to_the_type_of_another_wraps_as_well() {
    let model = Onnx::new().input("x", DataType::Int32, &[1]).input("like", U8, &[1]);
    let model = model.node("CastLike", &["x", "like"], &["y"]).output("y", U8, &[1]);
    assert_eq!(run(&model, &[ints(&[300]), ints(&[1])]).to_i64(), [44]);
}

#[test]
fn sizes_that_follow_from_scales_are_rounded_in_one_way() {
    let resize = |model: Onnx| {
        let model = model.node("Resize", &["x", "", "s"], &["y"]);
        let model = with(model, vec![text("mode", "nearest"), text("nearest_mode", "floor")]);
        with(model, vec![text("coordinate_transformation_mode", "asymmetric")]).output("y", F32, &[7])
    };
    let x = floats(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]);
    let known = resize(Onnx::new().input("x", F32, &[10]).weight("s", &[1], &[0.7]));
    let open = resize(Onnx::new().input("x", F32, &[10]).input("s", F32, &[1]));
    assert_eq!(run(&known, std::slice::from_ref(&x)).to_f64(), [0.0, 1.0, 2.0, 4.0, 5.0, 7.0, 8.0]);
    assert_eq!(run(&open, &[x, floats(&[0.7])]).to_f64(), [0.0, 1.0, 2.0, 4.0, 5.0, 7.0, 8.0]);
}

#[test]
fn a_single_pixel_lies_at_the_first_one() {
    let model = constant(Onnx::new().input("x", F32, &[8]), int64("n", &[1], &[1]));
    let model = with(model.node("Resize", &["x", "", "", "n"], &["y"]), vec![text("mode", "cubic")]);
    let model = with(model, vec![text("coordinate_transformation_mode", "pytorch_half_pixel")]).output("y", F32, &[1]);
    assert_eq!(run(&model, &[floats(&[3.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])]).to_f64(), [3.0]);
}

#[test]
fn what_is_cut_is_not_wrapped_around() {
    for mode in ["wrap", "reflect", "edge"] {
        let pad =
            |model: Onnx| with(model.node("Pad", &["x", "p"], &["y"]), vec![text("mode", mode)]).output("y", F32, &[6]);
        let known = pad(constant(Onnx::new().input("x", F32, &[5]), int64("p", &[2], &[-1, 2])));
        let open = pad(Onnx::new().input("x", F32, &[5]).input("p", I64, &[2]));
        let (mut known, mut open) = (known, open);
        for model in [&mut known, &mut open] {
            model.0.opset_import[0].version = Some(21);
        }
        let x = floats(&[0.0, 1.0, 2.0, 3.0, 4.0]);
        assert_eq!(run(&open, &[x.clone(), ints(&[-1, 2])]).to_f64(), run(&known, &[x]).to_f64(), "{mode}");
    }
}

#[test]
fn diagonals_far_outside_keep_all_or_nothing() {
    for (k, upper, want) in [(i64::MIN, 1, 1.0), (i64::MAX, 0, 1.0), (i64::MAX, 1, 0.0), (i64::MIN, 0, 0.0)] {
        let model = constant(Onnx::new().input("x", F32, &[2, 2]), int64("k", &[], &[k]));
        let model = with(model.node("Trilu", &["x", "k"], &["y"]), vec![int("upper", upper)]).output("y", F32, &[2, 2]);
        assert_eq!(run(&model, &[Tensor::splat(DType::F32, &[2, 2], 1.0)]).to_f64(), [want; 4], "{k} {upper}");
    }
}

fn call(name: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: Some("square_and_more".to_owned()),
        name: Some(name.to_owned()),
        domain: Some("own".to_owned()),
        input: inputs.iter().map(|i| (*i).to_owned()).collect(),
        output: vec![output.to_owned()],
        ..NodeProto::default()
    }
}

/// A model with a function, `a * a + a`.
fn calls(nodes: Vec<NodeProto>) -> Onnx {
    let mut model = Onnx::new().input("x", F32, &[2]).output("y", F32, &[2]);
    model.0.opset_import.push(OperatorSetIdProto { domain: Some("own".to_owned()), version: Some(1) });
    let inner = Onnx::new().node("Mul", &["a", "a"], &["t"]).node("Add", &["t", "a"], &["b"]);
    model.0.functions = vec![FunctionProto {
        name: Some("square_and_more".to_owned()),
        domain: Some("own".to_owned()),
        input: vec!["a".to_owned()],
        output: vec!["b".to_owned()],
        node: inner.0.graph.expect("a graph").node,
        opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(17) }],
        ..FunctionProto::default()
    }];
    model.graph().node = nodes;
    model
}

#[test]
fn calls_of_one_name_do_not_collide() {
    let model = calls(vec![call("c", &["x"], "p"), call("c", &["p"], "y")]);
    assert_eq!(run(&model, &[floats(&[1.0, 2.0])]).to_f64(), [6.0, 42.0]);
}

#[test]
fn what_a_function_does_not_declare_is_refused() {
    let inputs = calls(vec![call("c", &["x", "x"], "y")]);
    assert!(refused(&inputs).contains("gives the function `square_and_more` input 1, which it does not declare"));
    let mut attribute = call("c", &["x"], "y");
    attribute.attribute.push(int("k", 1));
    assert!(refused(&calls(vec![attribute])).contains("attribute `k`"));
}
