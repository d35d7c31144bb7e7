//! What operators of ONNX come to, on cases that its own suite does not have: small models, run as they are lowered.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use mlconv_mil::schema::Opset;
use mlconv_proto::onnx::{
    AttributeProto, FunctionProto, NodeProto, OperatorSetIdProto, attribute_proto::AttributeType,
    tensor_proto::DataType,
};
use mlconv_tensor::{Bytes, DType, Tensor};
use support::{
    lowered::{F32, I64, U8, constant, floats, int64, ints, lowered, lowered_for, refused, run, text, with},
    onnx::{Onnx, int, tensor, value},
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

/// Moves the last node to the domain of onnxruntime's own operators.
fn contributed(mut model: Onnx) -> Onnx {
    model.graph().node.last_mut().expect("a node").domain = Some("com.microsoft".to_owned());
    model
}

fn bytes(name: &str, dims: &[i64], values: &[u8]) -> mlconv_proto::onnx::TensorProto {
    tensor(name, U8, dims, Bytes::from(values.to_vec()))
}

/// A product with two columns of 17 codes of 4 bits each, the first from 0 on, the second 15 each, in two blocks.
fn product_in_blocks(attributes: [i64; 4], weight: &[i64]) -> Onnx {
    let first: Vec<u8> = (0..8).map(|i| (2 * i) | ((2 * i + 1) << 4)).chain([7; 8]).collect();
    let codes = [first, vec![0xff; 16]].concat();
    let model = constant(Onnx::new().input("x", F32, &[1, 17]), bytes("w", weight, &codes));
    let model = model.weight("s", &[2, 2], &[1.0, 10.0, 0.5, 0.25]);
    // The zero points of the first are 1 and 2, those of the second 14 and 15.
    let model = constant(model, bytes("z", &[2, 1], &[0x21, 0xfe]));
    let model = contributed(model.node("MatMulNBits", &["x", "w", "s", "z"], &["y"])).output("y", F32, &[1, 2]);
    let [k, n, bits, block] = attributes;
    with(model, vec![int("K", k), int("N", n), int("bits", bits), int("block_size", block)])
}

#[test]
fn weights_in_blocks_keep_their_codes_from_ios_18_on() {
    let x = Tensor::from_vec(&[1, 17], (0..17).map(|i| if i < 16 { 1.0f32 } else { 3.0 }).collect());
    let model = product_in_blocks([17, 2, 4, 16], &[2, 2, 8]);
    for (opset, blocks) in [(Opset::Ios17, 0), (Opset::Ios18, 1)] {
        let count = |ops: &[String]| {
            assert_eq!(ops.iter().filter(|o| *o == "constexpr_blockwise_shift_scale").count(), blocks, "{opset:?}");
        };
        let y = lowered_for(opset, &model, std::slice::from_ref(&x), count).0.unwrap_or_else(|e| panic!("{e}"));
        // (0 + .. + 15 - 16) + 3 * (7 - 2) * 10, and 16 * (15 - 14) / 2 + 3 * (15 - 15) / 4.
        assert_eq!(y[0].to_f64(), [254.0, 8.0], "{opset:?}");
    }
}

#[test]
fn weights_in_blocks_of_other_sizes_are_refused() {
    let huge = i64::MAX;
    for (attributes, weight, says) in [
        ([17, 2, 4, 16], &[2, 16][..], ""),
        ([17, 3, 4, 16], &[2, 16], "packed weights of u8[2, 16], wanted u8[3, 16],"),
        ([33, 2, 4, 16], &[2, 16], "packed weights of u8[2, 16], wanted u8[2, 24],"),
        ([huge, 2, 4, 16], &[2, 16], "attribute `K` is 9223372036854775807, wanted at least 1"),
        ([17, huge, 4, 16], &[2, 16], "attribute `N`"),
        ([17, -1, 4, 16], &[2, 16], "attribute `N` is -1"),
        ([17, (1 << 31) - 1, 4, 16], &[2, 16], "wanted u8[2147483647, 16],"),
        ([17, 2, 3, 16], &[2, 16], "attribute `bits` is 3"),
        ([17, 2, 4, 0], &[2, 16], "attribute `block_size` is 0"),
        ([17, 2, 4, 24], &[2, 16], "attribute `block_size` is 24"),
        ([17, 2, 4, 1 << 40], &[2, 16], "attribute `block_size`"),
    ] {
        let model = product_in_blocks(attributes, weight);
        if says.is_empty() {
            run(&model, &[Tensor::splat(DType::F32, &[1, 17], 1.0)]);
        } else {
            let said = refused(&model);
            assert!(said.starts_with("`com.microsoft::MatMulNBits`: ") && said.contains(says), "{said}");
        }
    }
}

#[test]
fn a_normalization_gives_the_sum_before_it() {
    let model = Onnx::new().input("a", F32, &[1, 2]).input("b", F32, &[1, 2]).weight("g", &[2], &[1.0, 2.0]);
    let model = model.node("SkipSimplifiedLayerNormalization", &["a", "b", "g"], &["y", "", "", "sum"]);
    let model = contributed(model).output("y", F32, &[1, 2]).output("sum", F32, &[1, 2]);
    let (a, b) = (Tensor::from_vec(&[1, 2], vec![1.0f32, 2.0]), Tensor::from_vec(&[1, 2], vec![5.0f32, 6.0]));
    let results = lowered(&model, &[a, b]).0.unwrap_or_else(|e| panic!("{e}"));
    // The root of (36 + 64) / 2.
    let root = 50f64.sqrt();
    for (y, want) in results[0].to_f64().into_iter().zip([6.0 / root, 16.0 / root]) {
        assert!((y - want).abs() < 1e-5, "{y} {want}");
    }
    assert_eq!(results[1].to_f64(), [6.0, 8.0]);
}

#[test]
fn quantized_sums_are_exact() {
    let scalar = |model: Onnx, name: &str, value: f32| model.weight(name, &[], &[value]);
    let model = Onnx::new().input("a", U8, &[3]).input("b", U8, &[3]);
    let model = scalar(scalar(scalar(model, "as", 0.5), "bs", 0.25), "cs", 0.5);
    let model = constant(constant(model, bytes("az", &[], &[10])), bytes("cz", &[], &[100]));
    let model = contributed(model.node("QLinearAdd", &["a", "as", "az", "b", "bs", "", "cs", "cz"], &["y"]));
    let y = run(&model.output("y", U8, &[3]), &[ints(&[10, 0, 255]), ints(&[4, 0, 255])]);
    assert_eq!(y.to_i64(), [102, 90, 255]);
}

/// Attention of one head of two numbers to a cache, of a batch of two.
fn cached(tokens: i64, past: i64) -> Onnx {
    let mut model = Onnx::new();
    for name in ["q", "k", "v"] {
        model = model.input(name, F32, &[2, tokens, 2]);
    }
    for name in ["pk", "pv"] {
        model = model.input(name, F32, &[2, 1, past, 2]);
    }
    let model = model.input("last", DataType::Int32, &[2]).input("total", DataType::Int32, &[]);
    let inputs = ["q", "k", "v", "pk", "pv", "last", "total"];
    let model = contributed(model.node("GroupQueryAttention", &inputs, &["y", "nk", "nv"]));
    let model = with(model, vec![int("num_heads", 1), int("kv_num_heads", 1)]);
    model.output("y", F32, &[2, tokens, 2]).output("nk", F32, &[2, 1, past, 2]).output("nv", F32, &[2, 1, past, 2])
}

#[test]
fn new_keys_go_behind_the_last_of_each_sequence() {
    let row = |values: [f32; 4]| Tensor::from_vec(&[2, 1, 2], values.to_vec());
    // Queries of zeros share evenly among what they see.
    let (q, k, v) = (row([0.0; 4]), row([7.0, 8.0, 9.0, 6.0]), row([8.0, 16.0, 12.0, 24.0]));
    let past: Vec<f32> = (0..12).map(|i| i as f32).collect();
    let past = Tensor::from_vec(&[2, 1, 3, 2], past);
    let total = Tensor::scalar(3i32);
    let inputs = [q, k, v, past.clone(), past, ints(&[2, 1]), total];
    let results = lowered(&cached(1, 3), &inputs).0.unwrap_or_else(|e| panic!("{e}"));
    let near = |have: &Tensor, want: [f64; 4]| {
        let have = have.to_f64();
        assert!(have.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-5), "{have:?} {want:?}");
    };
    // (0, 1), (2, 3) and (8, 16); (6, 7) and (12, 24).
    near(&results[0], [10.0 / 3.0, 20.0 / 3.0, 9.0, 15.5]);
    assert_eq!(results[1].to_f64(), [0.0, 1.0, 2.0, 3.0, 7.0, 8.0, 6.0, 7.0, 9.0, 6.0, 10.0, 11.0]);
    assert_eq!(results[2].to_f64(), [0.0, 1.0, 2.0, 3.0, 8.0, 16.0, 6.0, 7.0, 12.0, 24.0, 10.0, 11.0]);
}

#[test]
fn contributed_operators_say_what_stands_in_their_way() {
    let two = |op: &str, inputs: &[&str]| {
        contributed(Onnx::new().input("x", F32, &[2, 3]).node(op, inputs, &["y"])).output("y", F32, &[2, 3])
    };
    for (model, says) in [
        (two("BiasGelu", &["x"]), "`com.microsoft::BiasGelu`: input 1 is missing"),
        (two("SkipLayerNormalization", &["x", "x"]), "input 2 is missing"),
        (two("SkipLayerNormalization", &["x", "x", "x"]), "a scale f32[2, 3], wanted one number for each of 3,"),
        (two("Attention", &["x", "x"]), "a projection of f32[2, 3] by f32[2, 3] is not supported"),
        (with(two("MultiHeadAttention", &["x", "x", "x"]), vec![int("num_heads", 1)]), "ranks [2, 2, 2]"),
        (with(two("MultiHeadAttention", &["x", "x", "x"]), vec![int("num_heads", 0)]), "`num_heads` is 0"),
        (with(two("QuickGelu", &["x"]), vec![int("gamma", 0)]), "attribute `gamma` is not known"),
        (with(two("GroupNorm", &["x", "x", "x"]), vec![int("groups", -1)]), "attribute `groups` is -1"),
        (two("QLinearSigmoid", &["x", "x"]), "f32[2, 3] where a scalar is wanted"),
        (two("BeamSearch", &["x"]), "`com.microsoft::BeamSearch` is not supported"),
    ] {
        let said = refused(&model);
        assert!(said.contains(says), "{said}");
    }
    let mut other = two("Gelu", &["x"]);
    other.graph().node[0].domain = Some("com.acme".to_owned());
    assert!(refused(&other).contains("`com.acme::Gelu` is not supported"));
}
