//! Files that are wrong, one fault each: `mlconv run` says what is wrong in one diagnostic, as the `.stderr` beside the
//! file has it. `BLESS=1` rewrites these; `cargo test --test bad -- --ignored` rewrites the files.

mod support;

use libtest_mimic::{Arguments, Failed, Trial};
use mlconv_mil::{text::parse, verify::verify};
use mlconv_proto::{
    Message,
    coreml::{self, Model, mil, model},
    onnx::{
        AttributeProto, FunctionProto, GraphProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TypeProto,
        attribute_proto::AttributeType,
        tensor_proto::{DataLocation, DataType},
        type_proto,
    },
};
use mlconv_tensor::Bytes;
use std::{
    env, fs,
    path::Path,
    process::{Command, Stdio},
};
use support::onnx::{Onnx, tensor};

const F32: DataType = DataType::Float;

fn main() {
    let args = Arguments::from_args();
    let folder = support::fixtures().join("bad");
    let mut names: Vec<String> = fs::read_dir(&folder)
        .into_iter()
        .flatten()
        .map(|e| e.expect("an entry").file_name().into_string().expect("a plain name"))
        .filter(|n| Path::new(n).extension().is_some_and(|e| e == "onnx" || e == "mlpackage"))
        .collect();
    names.sort();
    let mut trials: Vec<Trial> = vec![];
    for name in names {
        let folder = folder.clone();
        trials.push(Trial::test(name.clone(), move || check(&folder, &name)));
    }
    let write = move || {
        write_files(&folder);
        Ok(())
    };
    trials.push(Trial::test("write_files", write).with_ignored_flag(true));
    libtest_mimic::run(&args, trials).exit();
}

fn check(folder: &Path, name: &str) -> Result<(), Failed> {
    let out = Command::new(env!("CARGO_BIN_EXE_mlconv"))
        .args(["run", name])
        .current_dir(folder)
        .stdin(Stdio::null())
        .env("RUST_BACKTRACE", "0")
        .output()?;
    let stderr = String::from_utf8(out.stderr)?;
    let status = out.status.code().map_or("killed".to_owned(), |c| c.to_string());
    let got = format!("{stderr}exit {status}\n");
    if !matches!(out.status.code(), Some(0 | 2)) || stderr.contains("T0001") {
        return Err(got.into());
    }
    let path = folder.join(format!("{name}.stderr"));
    if env::var_os("BLESS").is_some() {
        fs::write(path, got)?;
        return Ok(());
    }
    let want = fs::read_to_string(&path).unwrap_or_default();
    if got == want { Ok(()) } else { Err(format!("got\n{got}\nwanted\n{want}").into()) }
}

/// A chain of additions.
fn onnx() -> Onnx {
    Onnx::new().input("x", F32, &[2]).weight("w", &[2], &[1.0, 2.0]).node("Add", &["x", "w"], &["y"]).output(
        "y",
        F32,
        &[2],
    )
}

fn edited(edit: impl FnOnce(&mut Onnx)) -> Vec<u8> {
    let mut model = onnx();
    edit(&mut model);
    model.bytes()
}

/// A model whose weight lies in another file.
fn external(entries: &[(&str, &str)]) -> Vec<u8> {
    edited(|m| {
        let w = &mut m.graph().initializer[0];
        w.raw_data = None;
        w.data_location = Some(DataLocation::External as i32);
        w.external_data = (entries.iter())
            .map(|(k, v)| StringStringEntryProto { key: Some((*k).to_owned()), value: Some((*v).to_owned()) })
            .collect();
    })
}

/// A function of one node that calls `callee` with `inputs` and gives `y`.
fn function(name: &str, callee: &str) -> FunctionProto {
    let call = NodeProto {
        op_type: Some(callee.to_owned()),
        domain: Some("own".to_owned()),
        input: vec!["x".to_owned()],
        output: vec!["y".to_owned()],
        ..NodeProto::default()
    };
    FunctionProto {
        name: Some(name.to_owned()),
        domain: Some("own".to_owned()),
        input: vec!["x".to_owned()],
        output: vec!["y".to_owned()],
        node: vec![call.clone(), NodeProto { output: vec!["z".to_owned()], ..call }],
        ..FunctionProto::default()
    }
}

fn call(m: &mut Onnx, callee: &str) {
    m.0.opset_import.push(OperatorSetIdProto { domain: Some("own".to_owned()), version: Some(1) });
    m.graph().node[0].op_type = Some(callee.to_owned());
    m.graph().node[0].domain = Some("own".to_owned());
    m.graph().node[0].input = vec!["x".to_owned()];
}

/// A graph of graphs of graphs.
fn nested(depth: usize) -> GraphProto {
    let mut graph = GraphProto::default();
    for _ in 0..depth {
        let attribute = AttributeProto {
            name: Some("then_branch".to_owned()),
            r#type: Some(AttributeType::Graph as i32),
            g: Some(graph),
            ..AttributeProto::default()
        };
        let node = NodeProto { op_type: Some("If".to_owned()), attribute: vec![attribute], ..NodeProto::default() };
        graph = GraphProto { node: vec![node], ..GraphProto::default() };
    }
    graph
}

fn write_files(folder: &Path) {
    fs::create_dir_all(folder).expect("room");
    let put = |name: &str, bytes: &[u8]| fs::write(folder.join(name), bytes).expect("room");
    put("empty.onnx", b"");
    put("zip.onnx", b"PK\x03\x04\x14\x00\x00\x00\x00\x00");
    put("lfs_pointer.onnx", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n");
    put("text.onnx", b"a text that is no model\n");
    let whole = onnx().bytes();
    put("truncated.onnx", &whole[..whole.len() / 2]);
    put("no_graph.onnx", &edited(|m| m.0.graph = None));
    put("no_opset.onnx", &edited(|m| m.0.opset_import.clear()));
    put("cyclic.onnx", &edited(|m| m.graph().node[0].input[1] = "y".to_owned()));
    put("undefined_value.onnx", &edited(|m| m.graph().node[0].input[1] = "nowhere".to_owned()));
    put("undefined_output.onnx", &edited(|m| m.graph().output[0].name = Some("nowhere".to_owned())));
    put("two_definitions.onnx", &onnx().node("Relu", &["x"], &["y"]).bytes());
    put("node_defines_input.onnx", &onnx().node("Relu", &["y"], &["x"]).bytes());
    put("two_weights.onnx", &onnx().weight("w", &[1], &[0.0]).bytes());
    put("two_inputs.onnx", &onnx().input("x", F32, &[2]).bytes());
    put("weight_too_short.onnx", &edited(|m| m.graph().initializer[0].dims = vec![3]));
    put("weight_too_large.onnx", &edited(|m| m.graph().initializer[0].dims = vec![i64::MAX, i64::MAX]));
    put("weight_negative.onnx", &edited(|m| m.graph().initializer[0].dims = vec![-2]));
    put("weight_of_no_type.onnx", &edited(|m| m.graph().initializer[0].data_type = Some(99)));
    put("weight_complex.onnx", &edited(|m| m.graph().initializer[0].data_type = Some(14)));
    put("node_without_operator.onnx", &edited(|m| m.graph().node[0].op_type = None));
    put("unknown_operator.onnx", &edited(|m| m.graph().node[0].op_type = Some("Bogus".to_owned())));
    let operator = |domain: &str, op: &str| {
        edited(|m| {
            let node = &mut m.graph().node[0];
            (node.domain, node.op_type) = (Some(domain.to_owned()), Some(op.to_owned()));
        })
    };
    put("unknown_domain.onnx", &operator("acme", "Add"));
    put("operator_of_strings.onnx", &operator("", "StringConcat"));
    put("operator_of_trees.onnx", &operator("ai.onnx.ml", "TreeEnsemble"));
    put("unknown_attribute.onnx", &edited(|m| m.graph().node[0].attribute.push(support::onnx::int("alpha", 1))));
    put("missing_input.onnx", &edited(|m| m.graph().node[0].input[1] = String::new()));
    let bools = support::onnx::value("x", DataType::Bool, &[2]);
    put("types_that_do_not_fit.onnx", &edited(|m| m.graph().input[0] = bools));
    let float8 = support::onnx::value("x", DataType::Float8e4m3fnuz, &[2]);
    put("input_of_8_bit_floats.onnx", &edited(|m| m.graph().input[0] = float8));
    put("shapes_that_do_not_fit.onnx", &edited(|m| m.graph().input[0] = support::onnx::value("x", F32, &[3])));
    put("input_too_large.onnx", &edited(|m| m.graph().input[0] = support::onnx::value("x", F32, &[1 << 40, 2])));
    let sequence = type_proto::Value::SequenceType(Box::default());
    let sequence = TypeProto { value: Some(sequence), ..TypeProto::default() };
    put("sequence_input.onnx", &edited(|m| m.graph().input[0].r#type = Some(sequence)));
    put(
        "functions_in_a_circle.onnx",
        &edited(|m| {
            call(m, "f");
            m.0.functions = vec![function("f", "g"), function("g", "f")];
        }),
    );
    put(
        "functions_without_end.onnx",
        &edited(|m| {
            call(m, "f0");
            m.0.functions = (0..30).map(|i| function(&format!("f{i}"), &format!("f{}", i + 1))).collect();
        }),
    );
    put("graphs_too_deep.onnx", &edited(|m| m.0.graph = Some(nested(60))));
    put("external_climbs.onnx", &external(&[("location", "../models/digits/test.npz")]));
    put("external_absolute.onnx", &external(&[("location", "/etc/passwd")]));
    put("external_missing.onnx", &external(&[("location", "none.data")]));
    put("external_folder.onnx", &external(&[("location", ".")]));
    put("external_nameless.onnx", &external(&[("offset", "0")]));
    put("external.data", &[0; 16]);
    let at = |offset, length| external(&[("location", "external.data"), ("offset", offset), ("length", length)]);
    put("external_out_of_file.onnx", &at("12", "8"));
    put("external_overflows.onnx", &at("18446744073709551615", "8"));
    put("external_negative.onnx", &at("-8", "8"));
    put("external_too_short.onnx", &at("0", "4"));
    put(
        "external_overlaps_itself.onnx",
        &edited(|m| {
            *m = Onnx(mlconv_proto::onnx::ModelProto::decode(&*at("0", "8")).expect("our own"));
            let mut second = m.graph().initializer[0].clone();
            second.name = Some("v".to_owned());
            second.external_data[1].value = Some("4".to_owned());
            m.graph().initializer.push(second);
            *m = m.clone().node("Add", &["y", "v"], &["z"]).output("z", F32, &[2]);
        }),
    );
    let mut other = tensor("t", F32, &[2], Bytes::from_static(&[0; 8]));
    other.segment = Some(mlconv_proto::onnx::tensor_proto::Segment::default());
    put("weight_in_segments.onnx", &edited(|m| m.graph().initializer.push(other)));
    write_packages(folder);
}

/// A package of `add(relu(x), w)`, with a weight in the weight file.
fn write_packages(folder: &Path) {
    let w: Vec<String> = (0..64).map(|i| format!("{i}.0")).collect();
    let text = format!(
        "func @main(%x: f32[64]) ios17 {{\n  %w = const(val=f32[64] [{}])\n  %r = relu(x=%x)\n  \
         %y = add(x=%r, y=%w)\n  return %y\n}}\n",
        w.join(", ")
    );
    let module = verify(parse(&text).expect("a program")).expect("sound");
    let good = mlconv_coreml::export(&module).expect("a package");
    let write = |name: &str, edit: &dyn Fn(&mut Model)| {
        let mut model = good.model.clone();
        edit(&mut model);
        let path = folder.join(format!("{name}.mlpackage"));
        mlconv_coreml::write(&path, &model, &good.weights, mlconv_coreml::Existing::Replace).expect("room");
        path
    };
    fn main_of(m: &mut Model) -> &mut mil::Function {
        let Some(model::Type::MlProgram(p)) = &mut m.r#type else { unreachable!("written as a program") };
        p.functions.get_mut("main").expect("there")
    }
    fn ops_of(m: &mut Model) -> &mut Vec<mil::Operation> {
        &mut main_of(m).block_specializations.values_mut().next().expect("a block").operations
    }
    fn named(m: &mut Model, op: &str) -> mil::Operation {
        ops_of(m).iter().find(|o| o.r#type == op).expect("there").clone()
    }
    write("good", &|_| {});
    write("undefined_value", &|m| ops_of(m).retain(|o| o.r#type != "relu"));
    write("two_definitions", &|m| {
        let relu = named(m, "relu");
        ops_of(m).push(relu);
    });
    write("later_definition", &|m| ops_of(m).reverse());
    write("unknown_op_set", &|m| main_of(m).opset = "CoreML99".to_owned());
    write("no_block", &|m| main_of(m).block_specializations.clear());
    write("unknown_op", &|m| {
        ops_of(m).iter_mut().filter(|o| o.r#type == "relu").for_each(|o| o.r#type = "bogus".to_owned());
    });
    write("old_specification", &|m| m.specification_version = 6);
    write("future_specification", &|m| m.specification_version = 99);
    write("no_program", &|m| m.r#type = Some(model::Type::Pipeline(Bytes::new())));
    write("nothing", &|m| *m = Model::default());
    write("type_that_is_not_inferred", &|m| {
        for op in ops_of(m).iter_mut().filter(|o| o.r#type == "relu") {
            let other = mil::TensorType { data_type: mil::DataType::Int32 as i32, ..Default::default() };
            op.outputs[0].r#type = Some(mil::ValueType { r#type: Some(mil::value_type::Type::TensorType(other)) });
        }
    });
    write("undescribed_output", &|m| {
        if let Some(d) = &mut m.description {
            d.output = vec![coreml::FeatureDescription { name: "z".to_owned(), ..Default::default() }];
        }
    });
    let blob = |edit: &dyn Fn(&mut mil::value::BlobFileValue), m: &mut Model| {
        for op in ops_of(m).iter_mut().filter(|o| o.r#type == "const") {
            for v in op.attributes.values_mut() {
                if let Some(mil::value::Value::BlobFileValue(b)) = &mut v.value {
                    edit(b);
                }
            }
        }
    };
    write("blob_out_of_file", &|m| blob(&|b| b.offset = 1 << 40, m));
    write("blob_at_the_end_of_numbers", &|m| blob(&|b| b.offset = u64::MAX - 32, m));
    write("blob_file_climbs", &|m| blob(&|b| b.file_name = "@model_path/../../../external.data".to_owned(), m));
    write("blob_file_absolute", &|m| blob(&|b| b.file_name = "/etc/passwd".to_owned(), m));
    let weights = "Data/com.apple.CoreML/weights/weight.bin";
    let patched = |name: &str, file: &str, edit: &dyn Fn(&mut Vec<u8>)| {
        let path = write(name, &|_| {}).join(file);
        let mut bytes = fs::read(&path).expect("written");
        edit(&mut bytes);
        fs::write(&path, bytes).expect("room");
    };
    patched("blob_sentinel", weights, &|b| b[64] ^= 1);
    patched("blob_type", weights, &|b| b[68] = 1);
    patched("blob_size", weights, &|b| b[72] = 4);
    patched("blob_data_out_of_file", weights, &|b| b[80..88].fill(0x7f));
    patched("weights_version", weights, &|b| b[4] = 1);
    patched("weights_too_short", weights, &|b| b.truncate(20));
    patched("weights_lfs_pointer", weights, &|b| *b = b"version https://git-lfs.github.com/spec/v1\n".to_vec());
    patched("model_truncated", "Data/com.apple.CoreML/model.mlmodel", &|b| b.truncate(b.len() / 2));
    let manifest = |name: &str, from: &str, to: &str| {
        patched(name, "Manifest.json", &|b| {
            let text = String::from_utf8(b.clone()).expect("text");
            assert!(text.contains(from), "{text}");
            *b = text.replace(from, to).into_bytes();
        });
    };
    manifest("manifest_no_json", "{", "[");
    manifest("manifest_version", "1.0.0", "9.0.0");
    manifest("manifest_climbs", "com.apple.CoreML/model.mlmodel", "../../../../etc/passwd");
    manifest("manifest_absolute", "com.apple.CoreML/model.mlmodel", "/etc/passwd");
    manifest("manifest_without_model", "com.apple.CoreML/model.mlmodel", "com.apple.CoreML/none.mlmodel");
    fs::remove_file(write("no_manifest", &|_| {}).join("Manifest.json")).expect("written");
    fs::remove_dir_all(write("no_weights", &|_| {}).join("Data/com.apple.CoreML/weights")).expect("written");
}
