//! What readers rely on, seen on the wire.

use bytes::Bytes;
use mlconv_proto::{
    Message,
    coreml::{Model, mil, model},
    onnx::{AttributeProto, ModelProto, NodeProto, TensorProto},
};

/// A length-delimited field of number `tag` below 16.
fn field(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![tag << 3 | 2];
    prost::encode_length_delimiter(body.len(), &mut out).expect("a vector grows");
    out.extend(body);
    out
}

/// `levels` graphs, each an attribute of the only node of the one before.
fn nested_graphs(levels: usize) -> Vec<u8> {
    (0..levels).fold(vec![], |graph, _| field(1, &field(5, &field(6, &graph))))
}

#[test]
fn presence_of_an_attribute_is_seen() {
    let absent = AttributeProto::decode(&b""[..]).expect("an empty message");
    assert_eq!((absent.i, absent.s, absent.r#type), (None, None, None));
    let zero = AttributeProto::decode(&b"\x18\x00\x22\x00"[..]).expect("two fields");
    assert_eq!((zero.i, zero.s), (Some(0), Some(Bytes::new())));
}

#[test]
fn text_that_is_not_utf8_costs_no_model() {
    let doc = NodeProto::decode(&field(6, b"\xff")[..]).expect("documentation is bytes");
    assert_eq!(doc.doc_string.as_deref(), Some(&b"\xff"[..]));
    assert!(NodeProto::decode(&field(3, b"\xff")[..]).is_err(), "names are text");
}

#[test]
fn unknown_codes_of_types_survive() {
    let tensor = TensorProto::decode(&b"\x10\xe7\x07"[..]).expect("a tensor");
    assert_eq!(tensor.data_type, Some(999));
}

#[test]
fn packed_and_plain_numbers_read_alike() {
    let packed = TensorProto::decode(&b"\x3a\x02\x01\x02"[..]).expect("packed");
    let plain = TensorProto::decode(&b"\x38\x01\x38\x02"[..]).expect("plain");
    assert_eq!(packed.int64_data, [1, 2]);
    assert_eq!(packed, plain);
}

#[test]
fn raw_data_is_shared_with_the_file() {
    let file = Bytes::from(field(9, &[7; 100]));
    let raw = TensorProto::decode(file.clone()).expect("a tensor").raw_data.expect("raw data");
    assert!(file.as_ptr_range().contains(&raw.as_ptr()));
}

#[test]
fn deep_nesting_is_an_error_and_no_crash() {
    let model = |levels| field(7, &nested_graphs(levels));
    assert!(ModelProto::decode(&model(20)[..]).is_ok());
    assert!(ModelProto::decode(&model(5_000)[..]).is_err());

    let program = |levels| {
        let block = (0..levels).fold(vec![], |block, _| field(3, &field(4, &block)));
        let entry = [field(1, b"main"), field(2, &field(3, &field(2, &block)))].concat();
        field(2, &entry)
    };
    assert!(mil::Program::decode(&program(20)[..]).is_ok());
    assert!(mil::Program::decode(&program(5_000)[..]).is_err());

    // A group is nested by a single byte, and is skipped as an unknown field.
    assert!(ModelProto::decode(&vec![0x7b; 1 << 20][..]).is_err());
}

#[test]
fn kinds_of_models_are_told_apart() {
    // 500 << 3 | 2, with the bytes of a message that this schema does not know.
    let neural = Model::decode(&b"\x08\x04\xa2\x1f\x02\x08\x01"[..]).expect("a model");
    assert_eq!(neural.specification_version, 4);
    assert!(matches!(neural.r#type, Some(model::Type::NeuralNetwork(body)) if *body == b"\x08\x01"[..]));
}

#[test]
fn maps_are_written_in_order() {
    let names = ["b", "a", "c"];
    let program = |order: [usize; 3]| mil::Program {
        functions: order.iter().map(|i| (names[*i].to_owned(), mil::Function::default())).collect(),
        ..Default::default()
    };
    assert_eq!(program([0, 1, 2]).encode_to_vec(), program([2, 1, 0]).encode_to_vec());
}
