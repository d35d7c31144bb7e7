//! Operands that are only known when the program runs give what the same ones give as constants.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use mlconv_proto::onnx::tensor_proto::DataType;
use mlconv_tensor::{Bytes, DType, Tensor};
use support::{
    lowered::{F32, I64, constant, floats, int64, ints, list, lowered, refused, run, text, with},
    onnx::{Onnx, int, tensor, value},
};

const I32: DataType = DataType::Int32;

fn numbers(dims: &[usize]) -> Tensor {
    let count: usize = dims.iter().product();
    let values: Vec<f64> = (0..count).map(|i| ((i * 7 + 3) % 11) as f64 * 0.5 + 0.25).collect();
    Tensor::from_f64(DType::F32, dims, &values)
}

fn version(mut model: Onnx, version: i64) -> Onnx {
    model.0.opset_import[0].version = Some(version);
    model
}

/// The model without a type of its output.
fn unstated(mut model: Onnx) -> Onnx {
    model.graph().output[0].r#type = None;
    model
}

fn near(a: &Tensor, b: &Tensor, what: &str) {
    assert_eq!(a.shape(), b.shape(), "{what}");
    for (x, y) in a.to_f64().into_iter().zip(b.to_f64()) {
        assert!((x - y).abs() <= 1e-5 * y.abs().max(1.0), "{what}: {x} and {y}");
    }
}

/// Runs `model` with vectors of integers as constants and as inputs; both give the same.
fn agree(what: &str, x: &Tensor, operands: &[(&str, &[i64])], model: &dyn Fn(Onnx) -> Onnx) {
    let dims: Vec<i64> = x.shape().iter().map(|d| *d as i64).collect();
    let (mut known, mut open) = (Onnx::new().input("x", F32, &dims), Onnx::new().input("x", F32, &dims));
    let mut given = vec![x.clone()];
    for (name, values) in operands {
        known = constant(known, int64(name, &[values.len() as i64], values));
        open = open.input(name, I64, &[values.len() as i64]);
        given.push(ints(&values.iter().map(|v| *v as i32).collect::<Vec<_>>()));
    }
    near(&run(&model(open), &given), &run(&model(known), std::slice::from_ref(x)), what);
}

const REDUCTIONS: [&str; 10] = [
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
];

#[test]
fn reductions_over_axes_given_at_run_time() {
    for op in REDUCTIONS {
        for keep in [0, 1] {
            for (axes, dims) in [(&[1][..], [2, 1, 4]), (&[-1, 0][..], [1, 3, 1])] {
                let gone = |i: i64| axes.iter().any(|a: &i64| a.rem_euclid(3) == i);
                let dims: Vec<i64> = (0..3).filter(|i| keep == 1 || !gone(*i)).map(|i| dims[i as usize]).collect();
                let model = |m: Onnx| {
                    let m = with(m.node(op, &["x", "axes"], &["y"]), vec![int("keepdims", keep)]);
                    version(m.output("y", F32, &dims), 18)
                };
                let what = format!("{op} {axes:?} {keep}");
                agree(&what, &numbers(&[2, 3, 4]), &[("axes", axes)], &model);
                agree(&what, &numbers(&[2, 3, 4]), &[("axes", axes)], &|m| unstated(model(m)));
            }
        }
    }
}

#[test]
fn integers_have_one_mean_over_all_axes() {
    let model = Onnx::new().input("x", I32, &[2, 2, 2]).input("axes", I64, &[2]);
    let model = version(model.node("ReduceMean", &["x", "axes"], &["y"]).output("y", I32, &[1, 1, 2]), 18);
    let x = Tensor::from_vec(&[2, 2, 2], vec![1i32, 0, 2, 0, 2, 0, 2, 0]);
    // The whole part of 7 / 4, and of 8 / 4: of the means 3 / 2 and 5 / 2, the whole parts would come to 1.
    assert_eq!(run(&model, &[x, ints(&[0, 1])]).to_i64(), [1, 0]);
    let x = Tensor::from_vec(&[2, 2, 2], vec![1i32, 0, 2, 0, 2, 0, 3, 0]);
    assert_eq!(run(&model, &[x, ints(&[0, 1])]).to_i64(), [2, 0]);
}

#[test]
fn axes_that_cannot_be_are_refused() {
    let model = |axes: i64| {
        let model = Onnx::new().input("x", F32, &[2, 3]).input("axes", I64, &[axes]);
        version(model.node("ReduceSum", &["x", "axes"], &["y"]).output("y", F32, &[1, 3]), 18)
    };
    assert!(refused(&model(3)).contains("3 axes of f32[2, 3]"));
    // All axes, and none, whatever is fed.
    assert_eq!(run(&model(2), &[numbers(&[2, 3]), ints(&[0, 1])]).shape(), [1, 1]);
    assert_eq!(run(&model(0), &[numbers(&[2, 3])]).shape(), [1, 1]);
}

#[test]
fn blocks_of_sizes_given_at_run_time() {
    let model = |m: Onnx| {
        let m = with(m.node("Col2Im", &["x", "image", "block"], &["y"]), vec![list("pads", &[0, 1, 0, 1])]);
        version(with(m, vec![list("strides", &[1, 2])]).output("y", F32, &[1, 2, 5, 5]), 18)
    };
    agree("Col2Im", &numbers(&[1, 6, 15]), &[("image", &[5, 5]), ("block", &[1, 3])], &model);
    let open = Onnx::new().input("x", F32, &[1, 6, 15]).input("image", I64, &[2]).input("block", I64, &[2]);
    assert!(refused(&unstated(model(open))).contains("input 1 must be constant"));
}

#[test]
fn frames_of_a_length_given_at_run_time() {
    for (length, bins) in [(6, 4), (7, 4)] {
        let model = |m: Onnx| {
            let m = constant(m, int64("step", &[], &[4]));
            m.node("STFT", &["x", "step", "", "length"], &["y"]).output("y", F32, &[1, 4, bins, 2])
        };
        agree("STFT", &numbers(&[1, 20, 1]), &[("length", &[length])], &model);
    }
}

#[test]
fn antialiased_sizes_given_at_run_time() {
    for mode in ["linear", "cubic"] {
        for exclude in [0, 1] {
            let attributes = || vec![text("mode", mode), int("antialias", 1), int("exclude_outside", exclude)];
            let sizes = |m: Onnx| version(with(m.node("Resize", &["x", "", "", "s"], &["y"]), attributes()), 18);
            let stated = |m: Onnx| sizes(m).output("y", F32, &[1, 1, 3, 4]);
            agree(mode, &numbers(&[1, 1, 7, 9]), &[("s", &[1, 1, 3, 4])], &stated);
            let scales = |m: Onnx| version(with(m.node("Resize", &["x", "", "s"], &["y"]), attributes()), 18);
            let open = Onnx::new().input("x", F32, &[7]).input("s", F32, &[1]);
            let known = Onnx::new().input("x", F32, &[7]).weight("s", &[1], &[0.6]);
            let (open, known) = (scales(open).output("y", F32, &[4]), scales(known).output("y", F32, &[4]));
            let x = numbers(&[7]);
            near(&run(&open, &[x.clone(), floats(&[0.6])]), &run(&known, &[x]), mode);
            assert!(refused(&unstated(open)).contains("antialiasing to sizes that are not known"));
        }
    }
}

#[test]
fn a_matrix_of_mel_weights_of_numbers_given_at_run_time() {
    let names = ["bins", "length", "rate", "low", "high"];
    let node = |m: Onnx| m.node("MelWeightMatrix", &names, &["y"]).output("y", F32, &[17, 6]);
    let (mut known, mut open, mut given) = (Onnx::new(), Onnx::new().input("other", F32, &[1]), vec![floats(&[0.0])]);
    for (name, number) in names.into_iter().zip([6, 32, 16000, 20, 7000]) {
        known = if name == "low" || name == "high" {
            known.weight(name, &[], &[number as f32])
        } else {
            constant(known, int64(name, &[], &[number]))
        };
        let dtype = if name == "low" || name == "high" { F32 } else { I64 };
        open = open.input(name, dtype, &[]);
        given.push(if dtype == F32 { Tensor::scalar(number as f32) } else { Tensor::scalar(number as i32) });
    }
    let known = run(&node(known.input("other", F32, &[1])), &[floats(&[0.0])]);
    // The edges are the frequencies 0, 0, 1, 2, 3, 5, 7 and 10.
    let at = |row: usize, bin: usize| known.to_f64()[row * 6 + bin];
    assert_eq!((at(0, 0), at(3, 3), at(4, 3), at(6, 5), at(7, 5), at(10, 5)), (1.0, 1.0, 0.5, 0.5, 1.0, 0.0));
    near(&run(&node(open), &given), &known, "mel weights");
}

/// A loop that adds `x` to a variable and collects it.
fn collecting(dims: &[i64]) -> Onnx {
    let mut body = Onnx::new().node("Add", &["v", "x"], &["w"]).node("Identity", &["go"], &["go_on"]);
    body = body.node("Identity", &["w"], &["s"]);
    body.graph().input = vec![value("i", I64, &[]), value("go", DataType::Bool, &[]), value("v", F32, &[2])];
    body.graph().output = vec![value("go_on", DataType::Bool, &[]), value("w", F32, &[2]), value("s", F32, &[2])];
    let model = Onnx::new().input("x", F32, &[2]).input("turns", I64, &[]);
    let mut attribute = int("body", 0);
    (attribute.r#type, attribute.i) = (Some(mlconv_proto::onnx::attribute_proto::AttributeType::Graph as i32), None);
    attribute.g = body.0.graph;
    with(model.node("Loop", &["turns", "", "x"], &["last", "y"]), vec![attribute]).output("y", F32, dims)
}

#[test]
fn a_loop_collects_as_many_values_as_are_stated() {
    let given = [floats(&[1.0, 2.0]), Tensor::scalar(3i32)];
    assert_eq!(run(&collecting(&[3, 2]), &given).to_f64(), [2.0, 4.0, 3.0, 6.0, 4.0, 8.0]);
    assert!(refused(&unstated(collecting(&[3, 2]))).contains("a loop of unknown or many turns that collects values"));
}

#[test]
fn dropout_with_a_seed_is_the_same_each_time() {
    let model = |seed: Option<i64>| {
        let model = Onnx::new().input("x", F32, &[4]).input("ratio", F32, &[]).input("training", DataType::Bool, &[]);
        let model = model.node("Dropout", &["x", "ratio", "training"], &["y"]);
        let seed = seed.map(|s| int("seed", s));
        with(model, seed.into_iter().collect()).output("y", F32, &[4])
    };
    let of = |ratio: f32, training: bool| {
        let given = [floats(&[1.0, 2.0, 3.0, 4.0]), Tensor::scalar(ratio), Tensor::from_bools(&[], [training])];
        run(&model(Some(0)), &given).to_f64()
    };
    // The numbers of seed 0 are 0.549, 0.715, 0.603, 0.545.
    assert_eq!(of(0.55, false), [1.0, 2.0, 3.0, 4.0]);
    assert_eq!(of(0.0, true), [1.0, 2.0, 3.0, 4.0]);
    assert_eq!(of(0.5, true), [2.0, 4.0, 6.0, 8.0]);
    assert_eq!(of(0.75, true), [0.0; 4]);
    let some = of(0.6, true);
    assert_eq!((some[0], some[3], some[1] > 4.9, some[2] > 7.4), (0.0, 0.0, true, true));
    assert!(refused(&model(None)).contains("dropout that may be for training"));
    assert!(refused(&model(Some(-1))).contains("`seed`"));
}

#[test]
fn inputs_without_elements_are_left_out() {
    let model = Onnx::new().input("like", DataType::Double, &[0]).input("x", DataType::Float16, &[2]);
    let model = version(model.node("CastLike", &["x", "like"], &["y"]).output("y", DataType::Double, &[2]), 17);
    let x = Tensor::from_f64(DType::F16, &[2], &[1.5, -2.0]);
    let (out, diagnostics) = lowered(&model, std::slice::from_ref(&x));
    let out = out.expect("it is lowered").swap_remove(0);
    assert_eq!((out.dtype(), out.to_f64()), (DType::F32, vec![1.5, -2.0]));
    assert!(diagnostics.iter().any(|d| d.title.contains("input `like` is left out")), "{diagnostics:?}");
}

#[test]
fn inputs_of_types_that_only_weights_have_are_refused() {
    for (dtype, name) in [(DataType::Float8e4m3fn, "f8e4m3fn"), (DataType::Uint4, "u4")] {
        let model = Onnx::new().input("x", dtype, &[2]).node("Cast", &["x"], &["y"]);
        let model = version(with(model, vec![int("to", 1)]).output("y", F32, &[2]), 21);
        assert!(refused(&model).contains(&format!("inputs of type {name} are not supported")));
        let like = Onnx::new().input("x", F32, &[2]);
        let like = constant(like, tensor("like", dtype, &[1], Bytes::from_static(&[0])));
        let like = version(like.node("CastLike", &["x", "like"], &["y"]).output("y", F32, &[2]), 21);
        assert!(refused(&like).contains(&format!("a cast to {name}")), "{}", refused(&like));
    }
}
