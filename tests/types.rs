//! Element types that Core ML does not have, and random numbers: small models of ONNX, run as they are lowered.

mod support;

use mlconv_mil::diagnostic::Diagnostic;
use mlconv_proto::onnx::{AttributeProto, attribute_proto::AttributeType, tensor_proto::DataType};
use mlconv_tensor::{Bytes, Tensor};
use support::{
    lowered::{F32, I64, U8, constant, floats, int64, ints, list, lowered, refused, run, with},
    onnx::{Onnx, int, tensor},
};

fn version(mut model: Onnx, version: i64) -> Onnx {
    model.0.opset_import[0].version = Some(version);
    model
}

fn warnings(model: &Onnx, inputs: &[Tensor]) -> Vec<Diagnostic> {
    let (results, diagnostics) = lowered(model, inputs);
    results.expect("it runs");
    diagnostics.into_iter().filter(|d| d.code.id != "F0107").collect()
}

#[test]
fn small_integers_keep_their_type_through_what_rearranges_them() {
    let model = constant(Onnx::new().input("x", U8, &[4]), int64("s", &[2], &[2, 2]));
    let model = constant(model, tensor("k", U8, &[], Bytes::from_static(&[100])));
    let model = model.node("Reshape", &["x", "s"], &["a"]).node("Transpose", &["a"], &["b"]);
    let model = with(model.node("Concat", &["b", "b"], &["c"]), vec![int("axis", 0)]).node("Add", &["c", "k"], &["d"]);
    let model = with(model.node("Cast", &["d"], &["y"]), vec![int("to", 1)]).output("y", F32, &[4, 2]);
    let half = [101.0, 99.0, 44.0, 103.0];
    assert_eq!(run(&model, &[ints(&[1, 200, 255, 3])]).to_f64(), [half, half].concat());
    // The cast says that these are no bytes any more, although nothing is computed.
    let model = constant(Onnx::new().input("x", U8, &[2]), int64("s", &[2], &[2, 1]));
    let model = with(model.node("Cast", &["x"], &["w"]), vec![int("to", 6)]).node("Reshape", &["w", "s"], &["a"]);
    let model = model.node("Add", &["a", "a"], &["y"]).output("y", DataType::Int32, &[2, 1]);
    assert_eq!(run(&model, &[ints(&[200, 3])]).to_i64(), [400, 6]);
}

#[test]
fn small_integers_wrap_behind_any_operator() {
    let x = || Tensor::from_vec(&[1, 1, 1, 2], vec![200i32, 1]);
    for (op, inputs, attributes) in [
        ("Div", &["x", "one"][..], vec![]),
        ("Trilu", &["x"], vec![]),
        ("TopK", &["x", "k"], vec![]),
        ("MaxPool", &["x"], vec![list("kernel_shape", &[1, 1])]),
        ("DepthToSpace", &["x"], vec![int("blocksize", 1)]),
    ] {
        let model = constant(Onnx::new().input("x", U8, &[1, 1, 1, 2]), int64("k", &[1], &[2]));
        let model = constant(model, tensor("one", U8, &[], Bytes::from_static(&[1])));
        let model = with(model.node(op, inputs, &["a"]), attributes).node("Add", &["a", "a"], &["b"]);
        let model = with(model.node("Cast", &["b"], &["y"]), vec![int("to", 6)]);
        assert_eq!(run(&model.output("y", DataType::Int32, &[1, 1, 1, 2]), &[x()]).to_i64(), [144, 2], "{op}");
    }
    // Sums of products of bytes are no bytes.
    let sums = Onnx::new().input("x", U8, &[1, 2]).input("w", U8, &[2, 1]).node("MatMulInteger", &["x", "w"], &["a"]);
    let sums = sums.node("Add", &["a", "a"], &["y"]).output("y", DataType::Int32, &[1, 1]);
    let of = |shape: &[usize]| Tensor::from_vec(shape, vec![200i32, 200]);
    assert_eq!(run(&sums, &[of(&[1, 2]), of(&[2, 1])]).to_i64(), [160_000]);
}

#[test]
fn limits_beyond_32_bits_are_those_of_32_bits() {
    let of = |op: &str, inputs: &[&str], dtype| {
        let model = constant(Onnx::new().input("x", I64, &[2]), int64("most", &[], &[i64::MAX]));
        let model = constant(model, int64("least", &[], &[i64::MIN]));
        constant(model.node(op, inputs, &["y"]).output("y", dtype, &[2]), int64("odd", &[], &[1 << 40]))
    };
    let x = || [ints(&[-5, 7])];
    for (op, inputs) in [
        ("Min", &["x", "most"][..]),
        ("Max", &["least", "x"]),
        ("Clip", &["x", "least", "most"]),
        ("Min", &["x", "odd"]),
    ] {
        let model = of(op, inputs, I64);
        assert_eq!(run(&model, &x()).to_i64(), [-5, 7], "{op}");
        assert!(warnings(&model, &x()).is_empty(), "{op}");
    }
    let less = of("Less", &["x", "most"], DataType::Bool);
    assert_eq!(run(&less, &x()).to_bools(), [true, true]);
    let said = warnings(&less, &x());
    assert_eq!(said.len(), 1);
    assert!(said[0].title.starts_with("the extreme of 64-bit numbers becomes that of 32-bit ones"), "{said:?}");
    assert_eq!(
        refused(&of("Less", &["x", "odd"], DataType::Bool)),
        "`Less`: `odd` holds 1099511627776, which does not fit i32"
    );
    assert!(refused(&of("Add", &["x", "most"], I64)).contains("which does not fit i32"));
    let double = |values: [f64; 2]| {
        let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let model = constant(Onnx::new().input("x", F32, &[2]), tensor("m", DataType::Double, &[2], Bytes::from(raw)));
        let model = with(model.node("Cast", &["x"], &["d"]), vec![int("to", 11)]).node("Greater", &["d", "m"], &["c"]);
        model.node("Where", &["c", "d", "m"], &["y"]).output("y", DataType::Double, &[2])
    };
    let y = run(&double([f64::MIN, 3.0]), &[floats(&[1.0, 2.0])]);
    assert_eq!(y.to_f64(), [1.0, 3.0]);
    assert_eq!(refused(&double([1e300, 3.0])), "`Greater`: `m` holds 1e300, which does not fit f32");
}

#[test]
fn integers_of_64_bits_are_proven_to_fit_or_reported() {
    let said = |model: Onnx, inputs: &[Tensor]| {
        let said = warnings(&model, inputs);
        assert!(said.iter().all(|d| d.code.id == "F0108"), "{said:?}");
        said.iter().map(|d| d.place.len()).sum::<usize>()
    };
    let two = || Onnx::new().input("a", I64, &[2]).input("b", I64, &[2]);
    let given = || [ints(&[1, 2]), ints(&[3, 4])];
    let sum = two().node("Add", &["a", "b"], &["y"]).output("y", I64, &[2]);
    assert_eq!(said(sum, &given()), 0);
    // One warning, which names both nodes.
    let product = two().node("Mul", &["a", "b"], &["p"]).node("Mul", &["p", "b"], &["y"]).output("y", I64, &[2]);
    assert_eq!(said(product.clone(), &given()), 2);
    assert_eq!(warnings(&product, &given()).len(), 1);
    // What is known of shapes and of truth values is small.
    let counted = Onnx::new().input("a", I64, &[2]).input("b", I64, &[2]).node("Equal", &["a", "b"], &["e"]);
    let counted = with(counted.node("Cast", &["e"], &["n"]), vec![int("to", 7)]);
    let counted = with(counted.node("ReduceSum", &["n"], &["s"]), vec![int("keepdims", 0)]);
    let counted = counted.node("Mul", &["s", "s"], &["y"]).output("y", I64, &[]);
    assert_eq!(said(counted, &given()), 0);
    let sizes = Onnx::new().input("x", F32, &[2, 3]).node("Shape", &["x"], &["s"]).node("Mul", &["s", "s"], &["y"]);
    assert_eq!(said(sizes.output("y", I64, &[2]), &[Tensor::from_vec(&[2, 3], vec![0f32; 6])]), 0);
    let cast = with(Onnx::new().input("x", F32, &[2]).node("Cast", &["x"], &["y"]), vec![int("to", 7)]);
    assert_eq!(said(cast.output("y", I64, &[2]), &[floats(&[1.0, 2.0])]), 1);
    let bounded = Onnx::new().input("x", F32, &[2]).node("Sigmoid", &["x"], &["s"]).node("Round", &["s"], &["r"]);
    let bounded = with(bounded.node("Cast", &["r"], &["y"]), vec![int("to", 7)]).output("y", I64, &[2]);
    assert_eq!(said(bounded, &[floats(&[1.0, 2.0])]), 0);
    let table = Onnx::new().input("i", I64, &[2]);
    let rows: Vec<i64> = std::iter::repeat_n(i64::from(i32::MAX), 5000).collect();
    let table = constant(table, int64("t", &[5000], &rows));
    let table = constant(table, int64("one", &[1], &[1])).node("Gather", &["t", "i"], &["g"]);
    assert_eq!(said(table.node("Add", &["g", "one"], &["y"]).output("y", I64, &[2]), &[ints(&[1, 2])]), 1);
    // Integers that have 32 bits in the source wrap there as well.
    let own = Onnx::new().input("a", DataType::Int32, &[2]).node("Mul", &["a", "a"], &["y"]);
    assert_eq!(said(own.output("y", DataType::Int32, &[2]), &[ints(&[1, 2])]), 0);
}

#[test]
fn constants_of_64_bits_are_computed_exactly() {
    let of = |model: Onnx| {
        let model = with(model.node("Cast", &["q"], &["f"]), vec![int("to", 1)]).node("Mul", &["x", "f"], &["y"]);
        lowered(&model.output("y", F32, &[2]), &[floats(&[1.0, 2.0])])
    };
    let given = || {
        let model = constant(Onnx::new().input("x", F32, &[2]), int64("a", &[], &[100_000]));
        constant(model, int64("v", &[1, 2], &[100_000, 200_000])).weight("w", &[], &[1e10])
    };
    let all = |model: Onnx| of(model).0.expect("it runs")[0].to_f64();
    assert_eq!(all(given().node("Mul", &["a", "a"], &["q"])), [1e10, 2e10]);
    assert_eq!(all(given().node("Mul", &["a", "a"], &["p"]).node("Div", &["p", "a"], &["q"])), [1e5, 2e5]);
    assert_eq!(
        all(given().node("Mul", &["v", "a"], &["p"]).node("Sub", &["p", "a"], &["q"])),
        [9_999_900_000.0f32, 39_999_800_000.0].map(f64::from)
    );
    let product = with(given().node("ReduceProd", &["v"], &["q"]), vec![int("keepdims", 0)]);
    assert_eq!(all(product), [2e10, 4e10].map(|x: f64| f64::from(x as f32)));
    assert_eq!(all(with(given().node("Cast", &["w"], &["q"]), vec![int("to", 7)])), [1e10, 2e10]);
    // Where the program itself has to hold it, it is refused.
    let open = given().node("Mul", &["a", "a"], &["p"]).input("i", I64, &[1]).node("Add", &["p", "i"], &["y"]);
    assert!(refused(&open.output("y", I64, &[1])).contains("holds 10000000000, which does not fit i32"));
    // What is not computed exactly is reported.
    let running = constant(given(), int64("axis", &[], &[1])).node("CumSum", &["v", "axis"], &["p"]);
    let running = constant(running, int64("e", &[], &[3])).node("Pow", &["a", "e"], &["q"]);
    assert!(of(running).1.iter().any(|d| d.code.id == "F0108"));
}

#[test]
fn bits_are_read_as_another_type() {
    let cast = |from, to: DataType| {
        let model = Onnx::new().input("x", from, &[2]).node("BitCast", &["x"], &["y"]);
        version(with(model, vec![int("to", to as i64)]).output("y", to, &[2]), 26)
    };
    assert_eq!(run(&cast(DataType::Int8, U8), &[ints(&[-1, 5])]).to_i64(), [255, 5]);
    assert_eq!(run(&cast(DataType::Uint16, DataType::Int16), &[ints(&[65535, 5])]).to_i64(), [-1, 5]);
    assert!(refused(&cast(F32, DataType::Int32)).contains("a bit cast of f32 to i32 is not supported"));
    assert!(refused(&cast(F32, I64)).contains("which differ in size"));
    let known = Onnx::new().input("x", DataType::Int32, &[1]).weight("w", &[1], &[1.0]).node("BitCast", &["w"], &["b"]);
    let known = with(known, vec![int("to", 6)]).node("Add", &["x", "b"], &["y"]).output("y", DataType::Int32, &[1]);
    assert_eq!(run(&version(known, 26), &[ints(&[1])]).to_i64(), [0x3f80_0001]);
}

fn number(name: &str, value: f32) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(AttributeType::Float as i32),
        f: Some(value),
        ..AttributeProto::default()
    }
}

/// The mean and the greatest distance from it.
fn spread(t: &Tensor) -> (f64, f64) {
    let v = t.to_f64();
    let mean = v.iter().sum::<f64>() / v.len() as f64;
    (mean, v.iter().map(|x| (x - mean).abs()).fold(0.0, f64::max))
}

#[test]
fn random_numbers_have_the_distribution_asked_for() {
    let made = |op: &str, attributes| {
        let model = with(Onnx::new().input("x", F32, &[1]).node(op, &[], &["r"]), attributes);
        let model = with(model, vec![list("shape", &[40, 50]), number("seed", 3.0)]);
        run(&model.node("Add", &["r", "x"], &["y"]).output("y", F32, &[40, 50]), &[floats(&[0.0])])
    };
    let (mean, far) = spread(&made("RandomUniform", vec![number("low", 2.0), number("high", 4.0)]));
    assert!((mean - 3.0).abs() < 0.1 && far <= 1.1, "{mean} {far}");
    let (mean, far) = spread(&made("RandomNormal", vec![number("mean", 5.0), number("scale", 0.5)]));
    assert!((mean - 5.0).abs() < 0.1 && (1.0..3.0).contains(&far), "{mean} {far}");
    let like = |op: &str, dtype: i64| {
        let model = with(Onnx::new().input("x", F32, &[2000]).node(op, &["x"], &["y"]), vec![number("seed", 1.0)]);
        let model = if dtype > 0 { with(model, vec![int("dtype", dtype)]) } else { model };
        run(&model.output("y", F32, &[2000]), &[Tensor::from_vec(&[2000], vec![0.25f32; 2000])])
    };
    assert!((spread(&like("RandomUniformLike", 0)).0 - 0.5).abs() < 0.05);
    assert!(spread(&like("RandomNormalLike", 0)).0.abs() < 0.1);
    let heads = like("Bernoulli", 6);
    assert!(heads.to_i64().iter().all(|b| (0..=1).contains(b)));
    assert!((spread(&heads).0 - 0.25).abs() < 0.05);
    let drawn =
        with(Onnx::new().input("x", F32, &[1, 2]).node("Multinomial", &["x"], &["y"]), vec![int("sample_size", 1000)]);
    let drawn = with(drawn, vec![number("seed", 1.0), int("dtype", 7)]).output("y", I64, &[1, 1000]);
    let weights = Tensor::from_vec(&[1, 2], vec![0.1f32.ln(), 0.9f32.ln()]);
    assert!((spread(&run(&drawn, &[weights])).0 - 0.9).abs() < 0.05);
}

#[test]
fn random_numbers_come_with_a_warning() {
    let model =
        Onnx::new().input("x", F32, &[2]).node("RandomNormalLike", &["x"], &["r"]).node("Bernoulli", &["r"], &["y"]);
    let said = warnings(&model.clone().output("y", F32, &[2]), &[floats(&[0.0, 1.0])]);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].code.id == "F0109" && said[0].title == "random numbers are drawn anew in every run (2 nodes)");
    let seeded = with(model, vec![number("seed", 1.5)]).output("y", F32, &[2]);
    assert_eq!(warnings(&seeded, &[floats(&[0.0, 1.0])]).len(), 2);
    let bad =
        |op: &str, attributes| refused(&with(Onnx::new().node(op, &[], &["y"]), attributes).output("y", F32, &[2]));
    assert!(bad("RandomUniform", vec![]).contains("attribute `shape` is missing"));
    assert!(bad("RandomUniform", vec![list("shape", &[0])]).contains("attribute `shape` is [0]"));
    assert!(bad("RandomNormal", vec![list("shape", &[2]), number("scale", f32::NAN)]).contains("a finite number"));
    assert!(bad("RandomNormal", vec![list("shape", &[2]), int("dtype", 99)]).contains("attribute `dtype` is 99"));
}

#[test]
fn what_has_no_row_says_why() {
    for (op, domain, why, help) in [
        ("StringConcat", "", "Core ML computes with no strings", "give it the numbers"),
        ("ImageDecoder", "", "no op of an ML program decodes files of images", "decode the image outside"),
        ("ZipMap", "ai.onnx.ml", "ML programs have no maps", "outside of the model"),
        ("Adam", "ai.onnx.preview.training", "ML programs are not trained", "for inference"),
    ] {
        let mut model = Onnx::new().input("x", F32, &[2]).node(op, &["x"], &["y"]).output("y", F32, &[2]);
        model.graph().node[0].domain = Some(domain.to_owned());
        let (results, diagnostics) = lowered(&model, &[]);
        assert!(results.expect_err("there is no row").ends_with(&format!("{op}` is not supported: {why}")));
        assert!(diagnostics[0].help.as_deref().is_some_and(|h| h.contains(help)), "{diagnostics:?}");
    }
}

#[test]
fn features_are_prepared() {
    let of = |op: &str, attributes, x: &[f32], size: i64| {
        let model = with(Onnx::new().input("x", F32, &[1, 3]).node(op, &["x"], &["y"]), attributes);
        let mut model = model.output("y", F32, &[1, size]);
        model.graph().node[0].domain = Some("ai.onnx.ml".to_owned());
        run(&model, &[Tensor::from_vec(&[1, 3], x.to_vec())]).to_f64()
    };
    let numbers = |name: &str, v: &[f32]| AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(AttributeType::Floats as i32),
        floats: v.to_vec(),
        ..AttributeProto::default()
    };
    let norm = |how: &str| vec![support::lowered::text("norm", how)];
    let x = [1.0, -2.0, 4.0];
    assert_eq!(of("Binarizer", vec![number("threshold", 1.0)], &x, 3), [0.0, 0.0, 1.0]);
    assert_eq!(
        of("Scaler", vec![numbers("offset", &[1.0]), numbers("scale", &[1.0, 2.0, 0.5])], &x, 3),
        [0.0, -6.0, 1.5]
    );
    assert_eq!(of("Normalizer", norm("MAX"), &[1.0, -8.0, 4.0], 3), [0.25, -2.0, 1.0]);
    assert_eq!(of("Normalizer", norm("L1"), &[1.0, -1.0, 2.0], 3), [0.25, -0.25, 0.5]);
    assert_eq!(of("Normalizer", norm("L2"), &[0.0; 3], 3), [0.0; 3]);
    let filled = vec![numbers("imputed_value_floats", &[7.0, 8.0, 9.0]), number("replaced_value_float", f32::NAN)];
    assert_eq!(of("Imputer", filled, &[1.0, f32::NAN, 2.0], 3), [1.0, 8.0, 2.0]);
    let line = vec![
        numbers("coefficients", &[1.0, 1.0, 1.0, 2.0, 0.0, 1.0]),
        numbers("intercepts", &[0.5, 0.0]),
        int("targets", 2),
    ];
    assert_eq!(of("LinearRegressor", line, &x, 2), [3.5, 6.0]);
}

#[test]
fn the_greatest_of_each_cell_of_a_region() {
    let image: Vec<f32> = (0..16).map(|i| i as f32).collect();
    let model =
        Onnx::new().input("x", F32, &[1, 1, 4, 4]).input("r", F32, &[2, 5]).node("MaxRoiPool", &["x", "r"], &["y"]);
    let model = with(model, vec![list("pooled_shape", &[2, 2])]).output("y", F32, &[2, 1, 2, 2]);
    let regions = vec![0f32, 0.0, 0.0, 3.0, 3.0, 0.0, 3.0, 3.0, 9.0, 9.0];
    let y = run(&model, &[Tensor::from_vec(&[1, 1, 4, 4], image), Tensor::from_vec(&[2, 5], regions)]);
    assert_eq!(y.to_f64(), [5.0, 7.0, 13.0, 15.0, 15.0, 0.0, 0.0, 0.0]);
    let none =
        Onnx::new().input("x", F32, &[1, 1, 4, 4]).input("r", F32, &[2, 5]).node("MaxRoiPool", &["x", "r"], &["y"]);
    assert!(refused(&with(none, vec![list("pooled_shape", &[2, 0])])).contains("two numbers from 1 to 64"));
}
