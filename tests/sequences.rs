//! Sequences and optionals of ONNX, which are resolved while lowering: small models, run as they are lowered.

mod support;

use mlconv_proto::onnx::{AttributeProto, ValueInfoProto, attribute_proto::AttributeType, tensor_proto::DataType};
use mlconv_tensor::Tensor;
use support::{
    lowered::{F32, I64, constant, floats, int64, refused, run, with},
    onnx::{Onnx, int, value},
};

fn graph(name: &str, body: Onnx) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(AttributeType::Graph as i32),
        g: body.0.graph,
        ..AttributeProto::default()
    }
}

/// A value of a nested graph whose type is not stated.
fn open(name: &str) -> ValueInfoProto {
    ValueInfoProto { name: Some(name.to_owned()), ..ValueInfoProto::default() }
}

fn body(nodes: Onnx, inputs: Vec<ValueInfoProto>, outputs: &[&str]) -> Onnx {
    let mut nodes = nodes;
    nodes.graph().input = inputs;
    nodes.graph().output = outputs.iter().map(|o| open(o)).collect();
    nodes
}

/// Three vectors, `a`, `b` and `a + b`, as the sequence `s`.
fn three() -> Onnx {
    let model = Onnx::new().input("a", F32, &[2]).input("b", F32, &[2]).node("Add", &["a", "b"], &["c"]);
    model.node("SequenceConstruct", &["a", "b", "c"], &["s"])
}

fn given() -> [Tensor; 2] {
    [floats(&[1.0, 2.0]), floats(&[10.0, 20.0])]
}

fn of_three(model: Onnx) -> Vec<f64> {
    run(&model, &given()).to_f64()
}

#[test]
fn elements_are_taken_put_in_and_left_out() {
    let at = |i: i64| {
        constant(three(), int64("i", &[], &[i])).node("SequenceAt", &["s", "i"], &["y"]).output("y", F32, &[2])
    };
    assert_eq!(of_three(at(2)), [11.0, 22.0]);
    assert_eq!(of_three(at(-3)), [1.0, 2.0]);
    assert!(refused(&at(3)).contains("position 3 of a sequence of 3 elements"));
    assert!(refused(&at(i64::MIN)).contains("of a sequence of 3 elements"));
    let joined = |model: Onnx, n: i64| {
        with(model.node("ConcatFromSequence", &["t"], &["y"]), vec![int("axis", 0)]).output("y", F32, &[n])
    };
    let put = constant(three(), int64("i", &[], &[0])).node("SequenceInsert", &["s", "c", "i"], &["t"]);
    assert_eq!(of_three(joined(put, 8)), [11.0, 22.0, 1.0, 2.0, 10.0, 20.0, 11.0, 22.0]);
    let behind = three().node("SequenceInsert", &["s", "a"], &["t"]);
    assert_eq!(of_three(joined(behind, 8))[6..], [1.0, 2.0]);
    let left_out = constant(three(), int64("i", &[], &[-2])).node("SequenceErase", &["s", "i"], &["t"]);
    assert_eq!(of_three(joined(left_out, 4)), [1.0, 2.0, 11.0, 22.0]);
    let empty = Onnx::new().input("a", F32, &[2]).input("b", F32, &[2]).node("SequenceEmpty", &[], &["e"]);
    assert!(
        refused(&joined(empty.clone().node("Identity", &["e"], &["t"]), 2)).contains("a tensor of an empty sequence")
    );
    assert_eq!(of_three(joined(empty.node("SequenceInsert", &["e", "b"], &["t"]), 2)), [10.0, 20.0]);
}

#[test]
fn a_place_that_only_the_run_gives_is_looked_up() {
    let model = three().input("i", I64, &[]).node("SequenceAt", &["s", "i"], &["y"]).output("y", F32, &[2]);
    for (i, want) in [(1, [10.0, 20.0]), (-1, [11.0, 22.0])] {
        let [a, b] = given();
        assert_eq!(run(&model, &[a, b, Tensor::scalar(i)]).to_f64(), want);
    }
    let uneven = Onnx::new().input("a", F32, &[2]).input("b", F32, &[3]).input("i", I64, &[]);
    let uneven = uneven.node("SequenceConstruct", &["a", "b"], &["s"]).node("SequenceAt", &["s", "i"], &["y"]);
    assert!(refused(&uneven.output("y", F32, &[2])).contains("in a sequence of several shapes"));
}

#[test]
fn tensors_are_split_and_joined() {
    let split = |inputs: &[&str], attributes| {
        let model = constant(Onnx::new().input("x", F32, &[5]), int64("two", &[], &[2]));
        let model = constant(model, int64("parts", &[2], &[4, 1]));
        with(model.node("SplitToSequence", inputs, &["s"]), attributes)
    };
    let x = floats(&[1.0, 2.0, 3.0, 4.0, 5.0]);
    let length = |model: Onnx| {
        let model = model.node("SequenceLength", &["s"], &["n"]).node("Add", &["n", "n"], &["y"]);
        run(&model.output("y", I64, &[]), std::slice::from_ref(&x)).to_i64()
    };
    assert_eq!(length(split(&["x", "two"], vec![])), [6]);
    assert_eq!(length(split(&["x", "parts"], vec![])), [4]);
    assert_eq!(length(split(&["x"], vec![])), [10]);
    let last = |model: Onnx, n: &[i64]| {
        let model = constant(model, int64("i", &[], &[-1])).node("SequenceAt", &["s", "i"], &["y"]);
        run(&model.output("y", F32, n), std::slice::from_ref(&x)).to_f64()
    };
    assert_eq!(last(split(&["x", "two"], vec![]), &[1]), [5.0]);
    assert_eq!(last(split(&["x", "parts"], vec![]), &[1]), [5.0]);
    assert_eq!(last(split(&["x"], vec![int("keepdims", 0)]), &[]), [5.0]);
    let stacked = split(&["x"], vec![]).node("ConcatFromSequence", &["s"], &["y"]);
    let stacked = with(stacked, vec![int("axis", 0), int("new_axis", 1)]).output("y", F32, &[5, 1]);
    assert_eq!(run(&stacked, std::slice::from_ref(&x)).shape(), [5, 1]);
    let wrong = constant(split(&["x", "three"], vec![]), int64("three", &[2], &[1, 3]));
    assert!(
        refused(&wrong.node("SequenceLength", &["s"], &["y"]).output("y", I64, &[]))
            .contains("splitting f32[5] at [1, 3]")
    );
    let by = |count: usize, sizes: Tensor| {
        let model = Onnx::new().input("x", F32, &[count as i64]);
        let shape: Vec<i64> = sizes.shape().iter().map(|d| *d as i64).collect();
        let model = constant(model, int64("sizes", &shape, &sizes.to_i64()));
        let model = model.node("SplitToSequence", &["x", "sizes"], &["s"]);
        refused(&model.node("SequenceLength", &["s"], &["y"]).output("y", I64, &[]))
    };
    assert!(by(4097, Tensor::from_vec(&[4097], vec![1i64; 4097])).contains("splitting f32[4097] into 4097 parts"));
    assert!(by(4097, Tensor::scalar(1i64)).contains("splitting f32[4097] into parts of 1"));
    let none = constant(split(&["x", "zero"], vec![]), int64("zero", &[], &[0]));
    assert!(refused(&none.node("SequenceLength", &["s"], &["y"]).output("y", I64, &[])).contains("into parts of 0"));
}

#[test]
fn a_body_is_applied_to_each_element() {
    let square = body(Onnx::new().node("Mul", &["e", "f"], &["g"]), vec![open("e"), open("f")], &["g"]);
    let model = with(three().node("SequenceMap", &["s", "b"], &["t"]), vec![graph("body", square)]);
    let model = with(model.node("ConcatFromSequence", &["t"], &["y"]), vec![int("axis", 0)]).output("y", F32, &[6]);
    assert_eq!(of_three(model), [10.0, 40.0, 100.0, 400.0, 110.0, 440.0]);
}

/// A loop that appends `v * i`, in every turn, to a sequence that begins empty.
fn appending(limit: Onnx) -> Onnx {
    let nodes = with(Onnx::new().node("Cast", &["i"], &["f"]), vec![int("to", 1)]).node("Mul", &["a", "f"], &["p"]);
    let nodes = nodes.node("SequenceInsert", &["acc", "p"], &["more"]).node("Identity", &["go"], &["go_on"]);
    let inputs = vec![value("i", I64, &[]), value("go", DataType::Bool, &[]), open("acc")];
    let model = limit.node("SequenceEmpty", &[], &["e"]).node("Loop", &["n", "", "e"], &["s"]);
    let model = with(model, vec![graph("body", body(nodes, inputs, &["go_on", "more"]))]);
    with(model.node("ConcatFromSequence", &["s"], &["y"]), vec![int("axis", 0)]).output("y", F32, &[6])
}

#[test]
fn a_loop_of_known_turns_carries_a_sequence() {
    let input = Onnx::new().input("a", F32, &[2]);
    let known = appending(constant(input.clone(), int64("n", &[], &[3])));
    assert_eq!(run(&known, &[floats(&[1.0, 2.0])]).to_f64(), [0.0, 0.0, 1.0, 2.0, 2.0, 4.0]);
    let said = refused(&appending(input.input("n", I64, &[])));
    assert!(said.contains("a loop of unknown or many turns over a sequence or an optional"), "{said}");
}

#[test]
fn a_loop_ends_where_its_condition_is_known_to_fail() {
    // Elements are put in until there are three.
    let nodes =
        Onnx::new().node("SequenceInsert", &["acc", "a"], &["more"]).node("SequenceLength", &["more"], &["len"]);
    let nodes = constant(nodes.node("Less", &["len", "three"], &["go_on"]), int64("three", &[], &[3]));
    let inputs = vec![value("i", I64, &[]), value("go", DataType::Bool, &[]), open("acc")];
    let model = constant(Onnx::new().input("a", F32, &[2]), int64("n", &[], &[i64::MAX]));
    let model = model.node("SequenceEmpty", &[], &["e"]).node("Loop", &["n", "", "e"], &["s"]);
    let model = with(model, vec![graph("body", body(nodes, inputs, &["go_on", "more"]))]);
    let model = with(model.node("ConcatFromSequence", &["s"], &["y"]), vec![int("axis", 0)]).output("y", F32, &[6]);
    assert_eq!(run(&model, &[floats(&[1.0, 2.0])]).to_f64(), [1.0, 2.0, 1.0, 2.0, 1.0, 2.0]);
}

/// Two branches on a condition that is an input.
fn branches(yes: Onnx, no: Onnx) -> Onnx {
    let model = three().input("p", DataType::Bool, &[]);
    with(model.node("If", &["p"], &["t"]), vec![graph("then_branch", yes), graph("else_branch", no)])
}

#[test]
fn branches_may_return_sequences_of_one_length() {
    let pair = |x: &str, y: &str, t: &str| body(Onnx::new().node("SequenceConstruct", &[x, y], &[t]), vec![], &[t]);
    let model = branches(pair("a", "b", "u"), pair("b", "c", "v"));
    let model = with(model.node("ConcatFromSequence", &["t"], &["y"]), vec![int("axis", 0)]).output("y", F32, &[4]);
    for (p, want) in [(true, [1.0, 2.0, 10.0, 20.0]), (false, [10.0, 20.0, 11.0, 22.0])] {
        let [a, b] = given();
        assert_eq!(run(&model, &[a, b, Tensor::from_bools(&[], [p])]).to_f64(), want);
    }
    let whole = body(Onnx::new().node("Identity", &["s"], &["v"]), vec![], &["v"]);
    let uneven = branches(pair("a", "b", "u"), whole).node("SequenceLength", &["t"], &["y"]).output("y", I64, &[]);
    assert!(refused(&uneven).contains("branches of a sequence of 2 and a sequence of 3 on an unknown condition"));
}

#[test]
fn a_number_and_a_vector_of_one_are_branches_of_one_type() {
    let model = Onnx::new().input("p", DataType::Bool, &[]).input("a", F32, &[]).input("b", F32, &[1]);
    let branch = |x: &str, y: &str| body(Onnx::new().node("Relu", &[x], &[y]), vec![], &[y]);
    let attributes = vec![graph("then_branch", branch("a", "u")), graph("else_branch", branch("b", "v"))];
    let model = with(model.node("If", &["p"], &["t"]), attributes).weight("w", &[2], &[1.0, 2.0]);
    let model = model.node("Mul", &["t", "w"], &["y"]).output("y", F32, &[2]);
    // Nothing states which of the two it is, and other readers than this one would see another rank.
    assert!(refused(&model).contains("branches of f32[] and f32[1] on an unknown condition"));
    let mut model = model;
    model.graph().value_info.push(value("t", F32, &[1]));
    let of = |p| run(&model, &[Tensor::from_bools(&[], [p]), Tensor::scalar(3f32), floats(&[5.0])]).to_f64();
    assert_eq!((of(true), of(false)), (vec![3.0, 6.0], vec![5.0, 10.0]));
}

#[test]
fn optionals_have_an_element_or_not() {
    let has = |model: Onnx| {
        let model = model.node("OptionalHasElement", &["o"], &["h"]).node("Where", &["h", "a", "b"], &["y"]);
        of_three(model.output("y", F32, &[2]))
    };
    assert_eq!(has(three().node("Optional", &["c"], &["o"])), [1.0, 2.0]);
    assert_eq!(has(three().node("Optional", &["s"], &["o"])), [1.0, 2.0]);
    assert_eq!(has(three().node("Optional", &[], &["o"])), [10.0, 20.0]);
    let element = |model: Onnx| model.node("OptionalGetElement", &["o"], &["y"]).output("y", F32, &[2]);
    assert_eq!(of_three(element(three().node("Optional", &["c"], &["o"]))), [11.0, 22.0]);
    let nothing = element(three().node("Optional", &[], &["o"]));
    assert!(refused(&nothing).contains("the element of an optional that has none"));
}

#[test]
fn what_is_no_tensor_is_not_read_as_one() {
    let model = three().node("Relu", &["s"], &["y"]).output("y", F32, &[2]);
    assert_eq!(refused(&model), "`Relu`: a sequence of 3 elements where a tensor is wanted is not supported");
    let model = three().node("SequenceLength", &["a"], &["y"]).output("y", I64, &[]);
    assert!(refused(&model).contains("a tensor where a sequence is wanted"));
    let mut output = three();
    output.graph().output = vec![open("s")];
    assert!(refused(&output).contains("a sequence of 3 elements where a tensor is wanted"));
    let nested = three().node("SequenceConstruct", &["s"], &["t"]).node("SequenceLength", &["t"], &["y"]);
    assert!(refused(&nested.output("y", I64, &[])).contains("a sequence of anything but tensors"));
}
