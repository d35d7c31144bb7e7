//! Operators of ONNX that Core ML has no op for, and that are composed: small models, run as they are lowered.

mod support;

use mlconv_proto::onnx::{AttributeProto, attribute_proto::AttributeType, tensor_proto::DataType};
use mlconv_tensor::{DType, Tensor};
use support::{
    lowered::{F32, I64, U8, constant, floats, int64, ints, list, lowered, refused, run, text, with},
    onnx::{Onnx, int},
};

const I32: DataType = DataType::Int32;

fn version(mut model: Onnx, version: i64) -> Onnx {
    model.0.opset_import[0].version = Some(version);
    model
}

fn all(model: &Onnx, inputs: &[Tensor]) -> Vec<Vec<f64>> {
    lowered(model, inputs).0.unwrap_or_default().iter().map(Tensor::to_f64).collect()
}

fn of_two(op: &str, dtype: DataType, dims: &[i64]) -> Onnx {
    let model = Onnx::new().input("a", dtype, dims).input("b", dtype, dims).node(op, &["a", "b"], &["y"]);
    version(model.output("y", dtype, dims), 18)
}

#[test]
fn bits_of_integers() {
    let (a, b) = ([-1, i32::MIN, i32::MAX, -8, 12, 0x5555_5555], [5, -1, i32::MIN, 6, -7, 0x3333_3333]);
    let of = |op: &str| run(&of_two(op, I32, &[6]), &[ints(&a), ints(&b)]).to_i64();
    let want = |f: fn(i32, i32) -> i32| a.iter().zip(&b).map(|(a, b)| i64::from(f(*a, *b))).collect::<Vec<_>>();
    assert_eq!(of("BitwiseAnd"), want(|a, b| a & b));
    assert_eq!(of("BitwiseOr"), want(|a, b| a | b));
    assert_eq!(of("BitwiseXor"), want(|a, b| a ^ b));
    let bytes = run(&of_two("BitwiseXor", U8, &[2]), &[ints(&[255, 170]), ints(&[15, 255])]);
    assert_eq!(bytes.to_i64(), [240, 85]);
    // Of the highest rank, there is no axis left for the bits.
    let shaped = |v: &[i32]| Tensor::from_vec(&[1, 1, 2, 1, 3], v.to_vec());
    let high = run(&of_two("BitwiseAnd", I32, &[1, 1, 2, 1, 3]), &[shaped(&a), shaped(&b)]);
    assert_eq!((high.shape().len(), high.to_i64()), (5, want(|a, b| a & b)));
}

#[test]
fn complements_keep_to_their_type() {
    let not = |dtype| {
        version(Onnx::new().input("a", dtype, &[2]).node("BitwiseNot", &["a"], &["y"]).output("y", dtype, &[2]), 18)
    };
    assert_eq!(run(&not(U8), &[ints(&[0, 200])]).to_i64(), [255, 55]);
    assert_eq!(run(&not(I64), &[ints(&[0, -200])]).to_i64(), [-1, 199]);
    assert!(refused(&not(DataType::Uint64)).contains("the complement of u64"));
}

#[test]
fn shifts_beyond_all_bits_leave_the_sign() {
    let shift = |direction| with(of_two("BitShift", I32, &[4]), vec![text("direction", direction)]);
    let (x, by) = (ints(&[-8, 9, i32::MIN, 1]), ints(&[1, -1, 31, 32]));
    assert_eq!(run(&shift("RIGHT"), &[x.clone(), by.clone()]).to_i64(), [-4, 0, -1, 0]);
    assert_eq!(run(&shift("LEFT"), &[x, by]).to_i64(), [-16, 0, 0, 0]);
    assert!(refused(&shift("UP")).contains("`LEFT` or `RIGHT`"));
}

#[test]
fn determinants() {
    let det =
        |side: i64| Onnx::new().input("x", F32, &[2, side, side]).node("Det", &["x"], &["y"]).output("y", F32, &[2]);
    let of =
        |side: usize, v: &[f32]| run(&det(side as i64), &[Tensor::from_vec(&[2, side, side], v.to_vec())]).to_f64();
    assert_eq!(of(1, &[3.0, -4.0]), [3.0, -4.0]);
    assert_eq!(of(2, &[1.0, 2.0, 3.0, 4.0, 0.0, 1.0, -1.0, 0.0]), [-2.0, 1.0]);
    let three = [2.0, 0.0, 1.0, 1.0, 3.0, 2.0, 1.0, 1.0, 4.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0];
    assert_eq!(of(3, &three), [18.0, -1.0]);
    assert!(refused(&det(9)).contains("a determinant of f32[2, 9, 9]"));
}

#[test]
fn what_a_pooling_took_is_put_back() {
    let model = |asked: &[i64]| {
        let model = Onnx::new().input("x", F32, &[1, 1, 2]).input("i", I64, &[1, 1, 2]);
        let model = constant(model, int64("s", &[3], asked)).node("MaxUnpool", &["x", "i", "s"], &["y"]);
        with(model, vec![list("kernel_shape", &[2]), list("strides", &[2])]).output("y", F32, asked)
    };
    let given = [Tensor::from_vec(&[1, 1, 2], vec![5f32, 6.0]), Tensor::from_vec(&[1, 1, 2], vec![1i32, 2])];
    assert_eq!(run(&model(&[1, 1, 4]), &given).to_f64(), [0.0, 5.0, 6.0, 0.0]);
    assert_eq!(run(&model(&[1, 1, 6]), &given).to_f64(), [0.0, 5.0, 6.0, 0.0, 0.0, 0.0]);
    assert!(refused(&model(&[1, 1, 3])).contains("unpooling to [1, 1, 3], where [1, 1, 4] was pooled"));
}

#[test]
fn distinct_elements_and_slices() {
    let unique = |dims: &[i64], attributes| {
        let model = with(Onnx::new().input("x", F32, dims).node("Unique", &["x"], &["y", "i", "v", "c"]), attributes);
        let model = model.output("y", F32, &[]).output("i", I64, &[]).output("v", I64, &[]).output("c", I64, &[]);
        let mut model = version(model, 11);
        model.graph().output.iter_mut().for_each(|o| o.r#type = None);
        model
    };
    let x = floats(&[2.0, 1.0, 1.0, 3.0, 4.0, 3.0]);
    let sorted = all(&unique(&[6], vec![]), std::slice::from_ref(&x));
    assert_eq!(
        sorted,
        [
            vec![1.0, 2.0, 3.0, 4.0],
            vec![1.0, 0.0, 3.0, 4.0],
            vec![1.0, 0.0, 0.0, 2.0, 3.0, 2.0],
            vec![2.0, 1.0, 2.0, 1.0]
        ]
    );
    let first = all(&unique(&[6], vec![int("sorted", 0)]), &[x]);
    assert_eq!(first[..2], [vec![2.0, 1.0, 3.0, 4.0], vec![0.0, 1.0, 3.0, 4.0]]);
    let rows = Tensor::from_vec(&[3, 2], vec![1f32, 5.0, 1.0, 4.0, 1.0, 5.0]);
    let of_rows = all(&unique(&[3, 2], vec![int("axis", 0)]), &[rows]);
    assert_eq!(of_rows, [vec![1.0, 4.0, 1.0, 5.0], vec![1.0, 0.0], vec![1.0, 0.0, 1.0], vec![1.0, 2.0]]);
    assert!(refused(&unique(&[100_000], vec![])).contains("comparing 100000 parts of 1 elements"));
}

#[test]
fn runs_of_tokens_are_counted_and_weighed() {
    let vectorize = |mode: &str, more: Vec<AttributeProto>| {
        let weights = AttributeProto {
            name: Some("weights".to_owned()),
            r#type: Some(AttributeType::Floats as i32),
            floats: vec![0.5, 2.0, 3.0],
            ..AttributeProto::default()
        };
        let model = Onnx::new().input("x", I32, &[6]).node("TfIdfVectorizer", &["x"], &["y"]);
        let pool = vec![list("pool_int64s", &[1, 2, 1, 2]), list("ngram_counts", &[0, 2])];
        let places = vec![list("ngram_indexes", &[0, 3, 1]), text("mode", mode), weights];
        let model = with(with(model, pool), places);
        let lengths = vec![int("min_gram_length", 1), int("max_gram_length", 2), int("max_skip_count", 1)];
        with(with(model, lengths), more).output("y", F32, &[4])
    };
    let x = ints(&[1, 2, 1, 2, 2, 7]);
    let of = |mode| run(&vectorize(mode, vec![]), std::slice::from_ref(&x)).to_f64();
    // `1 2` comes twice side by side, and once with a token in between.
    assert_eq!(of("TF"), [2.0, 3.0, 0.0, 3.0]);
    assert_eq!(of("IDF"), [0.5, 3.0, 0.0, 2.0]);
    assert_eq!(of("TFIDF"), [1.0, 9.0, 0.0, 6.0]);
    let strings = AttributeProto {
        name: Some("pool_strings".to_owned()),
        r#type: Some(AttributeType::Strings as i32),
        strings: vec![mlconv_tensor::Bytes::from_static(b"a")],
        ..AttributeProto::default()
    };
    assert!(refused(&vectorize("TF", vec![strings])).contains("a pool of strings"));
}

/// Two images, two classes and four boxes, the limits as constants or as inputs.
fn suppression(open: bool, centred: i64) -> Onnx {
    let mut model = Onnx::new().input("boxes", F32, &[2, 4, 4]).input("scores", F32, &[2, 2, 4]);
    model = if open {
        model.input("most", I64, &[1]).input("overlap", F32, &[1]).input("least", F32, &[1])
    } else {
        let model = constant(model, int64("most", &[1], &[2]));
        model.weight("overlap", &[1], &[0.4]).weight("least", &[1], &[0.2])
    };
    let model = model.node("NonMaxSuppression", &["boxes", "scores", "most", "overlap", "least"], &["y"]);
    let mut model = with(model.output("y", I64, &[]), vec![int("center_point_box", centred)]);
    model.graph().output[0].r#type = None;
    model
}

#[test]
fn limits_of_a_suppression_may_be_known_or_not() {
    let image = [0.0f32, 0.0, 2.0, 2.0, 2.0, 2.0, 0.1, 0.0, 4.0, 4.0, 6.0, 6.0, 4.0, 4.0, 6.0, 5.9];
    let boxes = Tensor::from_vec(&[2, 4, 4], image.iter().chain(&image).copied().collect::<Vec<_>>());
    let scores = [0.9f32, 0.8, 0.1, 0.3, 0.1, 0.1, 0.1, 0.1, 0.5, 0.6, 0.7, 0.6, 0.3, 0.3, 0.3, 0.3];
    let scores = Tensor::from_vec(&[2, 2, 4], scores.to_vec());
    for centred in [0, 1] {
        let known = run(&suppression(false, centred), &[boxes.clone(), scores.clone()]);
        let limits = [Tensor::from_vec(&[1], vec![2i32]), floats(&[0.4]), floats(&[0.2])];
        let given: Vec<Tensor> = [boxes.clone(), scores.clone()].into_iter().chain(limits).collect();
        let open = run(&suppression(true, centred), &given);
        assert_eq!((known.shape(), known.to_i64()), (open.shape(), open.to_i64()), "{centred}");
        if centred == 0 {
            let want = [0, 0, 0, 0, 0, 3, 1, 0, 2, 1, 0, 1, 1, 1, 0, 1, 1, 2];
            assert_eq!(known.to_i64(), want);
        }
    }
}

#[test]
fn a_suppression_needs_fixed_sizes_and_a_limit() {
    let mut model = suppression(false, 0);
    model.graph().node[0].input.truncate(2);
    assert!(refused(&model).contains("a selection of no boxes"));
    assert!(refused(&suppression(false, 2)).contains("`center_point_box`"));
}

#[test]
fn without_offsets_a_deformable_convolution_is_a_convolution() {
    let numbers = |dims: &[usize], step: f64| {
        let count: usize = dims.iter().product();
        let values: Vec<f64> = (0..count).map(|i| ((i * 5 + 1) % 13) as f64 * step - 1.0).collect();
        Tensor::from_f64(DType::F32, dims, &values)
    };
    let attributes = || {
        let window = vec![list("pads", &[1, 0, 1, 2]), list("strides", &[2, 1]), list("dilations", &[1, 2])];
        window.into_iter().chain([int("group", 2)]).collect::<Vec<_>>()
    };
    let (x, w) = (numbers(&[2, 4, 5, 6], 0.25), numbers(&[6, 2, 3, 2], 0.5));
    let weight: Vec<f32> = w.to_f64().into_iter().map(|v| v as f32).collect();
    let model = Onnx::new().input("x", F32, &[2, 4, 5, 6]).weight("w", &[6, 2, 3, 2], &weight);
    let conv = with(model.clone().node("Conv", &["x", "w"], &["y"]), attributes()).output("y", F32, &[2, 6, 3, 6]);
    let deform = model.input("offset", F32, &[2, 24, 3, 6]).node("DeformConv", &["x", "w", "offset"], &["y"]);
    let deform = with(with(deform, attributes()), vec![int("offset_group", 2)]);
    let deform = version(deform.output("y", F32, &[2, 6, 3, 6]), 19);
    let none = Tensor::splat(DType::F32, &[2, 24, 3, 6], 0.0);
    let (want, got) = (run(&conv, std::slice::from_ref(&x)), run(&deform, &[x, none]));
    assert_eq!(want.shape(), got.shape());
    assert!(want.to_f64().iter().zip(got.to_f64()).all(|(a, b)| (a - b).abs() < 1e-4));
    let mut wrong = deform;
    wrong.graph().node[0].attribute.retain(|a| a.name.as_deref() != Some("offset_group"));
    assert!(refused(&wrong).contains("offsets in f32[2, 24, 3, 6]"));
}
