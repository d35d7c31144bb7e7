//! Reads every ONNX file of the fixtures, and those that `MLCONV_SHARED` has, with two independent readers, and compares
//! what they say.

use mlconv_source::{Arg, ModelFiles, SourceDim, SourceGraph, SourceValue};
use mlconv_tensor::{Bytes, DType};
use onnx_protobuf::{GraphProto, ModelProto, TensorProto, ValueInfoProto, tensor_shape_proto::dimension, type_proto};
use protobuf::Message;
use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
};

/// ONNX's numbers of element types, and how they are called here.
const TYPES: [(i32, DType); 12] = [
    (1, DType::F32),
    (2, DType::U8),
    (3, DType::I8),
    (4, DType::U16),
    (5, DType::I16),
    (6, DType::I32),
    (7, DType::I64),
    (9, DType::Bool),
    (10, DType::F16),
    (11, DType::F64),
    (12, DType::U32),
    (13, DType::U64),
];

fn dtype(code: i32) -> DType {
    TYPES.iter().find(|(c, _)| *c == code).unwrap_or_else(|| panic!("element type {code} is not compared")).1
}

fn models() -> Vec<PathBuf> {
    let mut todo = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models")];
    match env::var_os("MLCONV_SHARED") {
        Some(shared) => todo.push(PathBuf::from(shared)),
        None => eprintln!("MLCONV_SHARED is not set: fixtures only"),
    }
    let mut out = vec![];
    while let Some(folder) = todo.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|e| e == "onnx") {
                out.push(path);
            }
        }
    }
    out.sort();
    assert!(out.len() >= 4, "{} models", out.len());
    out
}

#[test]
fn both_readers_say_the_same() {
    let all = models();
    for path in &all {
        let bytes = fs::read(path).expect("readable");
        let theirs = ModelProto::parse_from_bytes(&bytes).expect("an ONNX model");
        if !theirs.functions.is_empty() {
            // Functions are expanded where they are called: there is nothing to compare node by node.
            eprintln!("{}: has functions, not compared", path.display());
            continue;
        }
        let ours = match mlconv_onnx::read(Bytes::from(bytes), &ModelFiles::beside(path)) {
            Ok(graph) => graph,
            Err(e) => panic!("{}: {e}", path.display()),
        };
        compare(&path.display().to_string(), &ours, &theirs.graph, path, true);
    }
    eprintln!("{} models compared", all.len());
}

/// `top` is the graph of the file, not one inside of a node, whose inputs have no types as a rule.
fn compare(place: &str, ours: &SourceGraph, theirs: &GraphProto, path: &Path, top: bool) {
    assert_eq!(ours.nodes.len(), theirs.node.len(), "{place}: nodes");
    for (a, b) in ours.nodes.iter().zip(&theirs.node) {
        let at = format!("{place}, node `{}`", b.name);
        assert_eq!(*a.op, *b.op_type, "{at}");
        if !b.name.is_empty() {
            assert_eq!(*a.name, *b.name, "{at}");
        }
        let domain = if b.domain == "ai.onnx" { "" } else { &b.domain };
        assert_eq!(*a.domain, *domain, "{at}");
        assert_eq!(a.outputs.iter().map(|o| o.to_string()).collect::<Vec<_>>(), b.output, "{at}");
        let inputs: Vec<String> = a
            .inputs
            .iter()
            .map(|i| match i {
                Arg::Value(v) => v.to_string(),
                Arg::None => String::new(),
                other => panic!("{at}: input {other:?}"),
            })
            .collect();
        assert_eq!(inputs, b.input, "{at}");
        let names = |it: &mut dyn Iterator<Item = String>| it.collect::<Vec<_>>();
        assert_eq!(
            names(&mut a.attrs.keys().map(|k| k.to_string())),
            names(&mut b.attribute.iter().map(|k| k.name.to_owned())),
            "{at}"
        );
        for attribute in &b.attribute {
            let at = format!("{at}, `{}`", attribute.name);
            match &a.attrs[attribute.name.as_str()] {
                Arg::Int(i) => assert_eq!(*i, attribute.i, "{at}"),
                Arg::Float(x) => assert_eq!(*x, f64::from(attribute.f), "{at}"),
                Arg::Ints(v) => assert_eq!(*v, attribute.ints, "{at}"),
                Arg::Floats(v) => {
                    assert_eq!(*v, attribute.floats.iter().map(|x| f64::from(*x)).collect::<Vec<_>>(), "{at}");
                }
                Arg::Str(s) => assert_eq!(s.as_bytes(), &*attribute.s, "{at}"),
                Arg::Tensor(t) => {
                    let b = attribute.t.as_ref().expect("a tensor");
                    assert_eq!((t.dtype(), hash(&t.blob().read())), (dtype(b.data_type), hash(&data(b, path))), "{at}");
                }
                Arg::Graph(g) => compare(&at, g, attribute.g.as_ref().expect("a graph"), path, false),
                _ => {}
            }
        }
    }
    let mut constants: BTreeMap<&str, (DType, Vec<i64>, u64)> = BTreeMap::new();
    for (name, t) in &ours.constants {
        constants.insert(name, (t.dtype(), t.shape().iter().map(|n| *n as i64).collect(), hash(&t.blob().read())));
    }
    assert_eq!(constants.len(), theirs.initializer.len(), "{place}: initializers");
    for t in &theirs.initializer {
        let want = (dtype(t.data_type), t.dims.clone(), hash(&data(t, path)));
        assert_eq!(constants.get(t.name.as_str()), Some(&want), "{place}: initializer `{}`", t.name);
    }
    for (what, a, b) in [("inputs", &ours.inputs, &theirs.input), ("outputs", &ours.outputs, &theirs.output)] {
        let b: Vec<_> = b.iter().map(|v| port(v, top)).collect();
        let a: Vec<_> = a.iter().map(|v| our_port(v, top)).collect();
        assert_eq!(a, b, "{place}: {what}");
    }
}

type Ported = (String, Option<(DType, Option<Vec<String>>)>);

fn our_port(v: &SourceValue, typed: bool) -> Ported {
    let dim = |d: &SourceDim| match d {
        SourceDim::Known(n) => n.to_string(),
        SourceDim::Named(s) => s.clone(),
        SourceDim::Unknown => "?".to_owned(),
    };
    let ty = v.ty.as_ref().filter(|_| typed);
    (v.name.to_string(), ty.map(|t| (t.dtype, t.shape.as_ref().map(|s| s.iter().map(dim).collect()))))
}

fn port(v: &ValueInfoProto, typed: bool) -> Ported {
    let Some(type_proto::Value::TensorType(t)) = v.type_.as_ref().and_then(|t| t.value.as_ref()).filter(|_| typed)
    else {
        return (v.name.to_owned(), None);
    };
    let dims = t.shape.as_ref().map(|s| {
        let dim = |d: &onnx_protobuf::tensor_shape_proto::Dimension| match &d.value {
            Some(dimension::Value::DimValue(n)) => n.to_string(),
            Some(dimension::Value::DimParam(p)) if !p.is_empty() => p.clone(),
            _ => "?".to_owned(),
        };
        s.dim.iter().map(dim).collect()
    });
    (v.name.to_owned(), Some((dtype(t.elem_type), dims)))
}

/// The elements of a tensor as little-endian bytes.
fn data(t: &TensorProto, model: &Path) -> Vec<u8> {
    let entry = |key: &str| t.external_data.iter().find(|e| e.key == key).map(|e| e.value.to_owned());
    if let Some(location) = entry("location") {
        let whole = fs::read(model.with_file_name(location)).expect("external data");
        let number = |key: &str| entry(key).map(|n| n.parse::<usize>().expect("a number"));
        let start = number("offset").unwrap_or(0);
        return whole[start..number("length").map_or(whole.len(), |n| start + n)].to_vec();
    }
    if !t.raw_data.is_empty() {
        return t.raw_data.to_vec();
    }
    match dtype(t.data_type) {
        DType::F32 => t.float_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::F64 => t.double_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::I64 => t.int64_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::I32 => t.int32_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::U64 => t.uint64_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::U32 => t.uint64_data.iter().flat_map(|x| (*x as u32).to_le_bytes()).collect(),
        DType::I16 | DType::U16 | DType::F16 => t.int32_data.iter().flat_map(|x| (*x as u16).to_le_bytes()).collect(),
        _ => t.int32_data.iter().map(|x| *x as u8).collect(),
    }
}

/// Source: Fowler, Noll and Vo, FNV-1a of 64 bits.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3))
}
