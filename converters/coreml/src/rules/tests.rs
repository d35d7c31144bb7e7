//! Every rule fires, alone, on a good model with one thing wrong.

mod change;
mod good;

use super::*;
use change::*;
use good::*;
use mlconv_proto::coreml::{
    array_feature_type::{ArrayDataType, DefaultOptionalValue, ShapeFlexibility},
    image_feature_type::ColorSpace,
    mil,
};
use mlconv_tensor::DType::*;
use std::collections::BTreeSet;

type Case = (&'static str, fn() -> Good, fn(&mut Good));

/// A rule, a good model, and what to do to it.
const CASES: &[Case] = &[
    ("manifest_names_the_model", base, |g| g.manifest.root = None),
    ("manifest_names_the_model", base, |g| {
        let items = &mut g.manifest.items;
        let again = items.values().next().cloned().expect("an item");
        items.insert("A".into(), again);
    }),
    ("blobs_are_in_the_weight_file", base, |g| blob_of(g, "w").file_name = "@model_path/w.bin".into()),
    ("blobs_are_aligned", base, |g| blob_of(g, "w").offset += 1),
    ("blobs_fit_their_types", base, |g| retype_const(g, "w", t(F32, &[3, 5]))),
    ("blobs_fit_their_types", base, |g| retype_const(g, "w", t(F16, &[3, 8]))),
    ("opset_matches_version", base, |g| g.model.specification_version = 7),
    ("opset_matches_version", base, |g| g.model.specification_version = 11),
    ("functions_have_one_body", base, |g| program(g).version = 2),
    ("functions_have_one_body", base, |g| g.model.r#type = None),
    ("functions_have_one_body", base, |g| block(g).inputs.push(nv("arg", t(F32, &[1])))),
    ("functions_have_one_body", base, |g| {
        let body = block(g).clone();
        main(g).block_specializations.insert("CoreML9".into(), body);
    }),
    ("multifunction_is_declared", multi, |g| description(g).default_function_name = "c".into()),
    ("multifunction_is_declared", multi, |g| description(g).predicted_feature_name = "y".into()),
    ("multifunction_is_declared", base, |g| {
        let function = main(g).clone();
        program(g).functions = [("other".to_owned(), function)].into();
    }),
    ("interface_types_are_supported", halves, |g| set_version(g, 6)),
    ("inputs_have_shapes", base, |g| {
        input(g, "z").r#type = Some(t(F32, &[0, 3]));
        array_of(g, "z").shape = vec![0, 3];
    }),
    ("interface_matches_program", base, |g| description(g).output[0].name = "v".into()),
    ("interface_matches_program", base, |g| array_of(g, "z").set_data_type(ArrayDataType::Int32)),
    ("interface_matches_program", base, |g| array_of(g, "z").shape = vec![1, 5]),
    ("interface_matches_program", base, |g| array_of(g, "y").shape = vec![1, 5]),
    ("something_goes_in_and_comes_out", base, |g| {
        for name in ["x", "z"] {
            array_of(g, name).default_optional_value = Some(DefaultOptionalValue::FloatDefaultValue(1.0));
            feature(g, name).r#type.as_mut().expect("a type").is_optional = true;
        }
    }),
    ("something_goes_in_and_comes_out", base, |g| feature(g, "y").r#type.as_mut().expect("a type").is_optional = true),
    ("images_are_described", image, |g| image_of(g).set_color_space(ColorSpace::Rgb)),
    ("images_are_described", image, |g| image_of(g).color_space = 7),
    ("images_are_described", image, |g| image_of(g).height = 0),
    ("flexible_shapes_are_bounded", flexible, |g| {
        let Some(ShapeFlexibility::ShapeRange(r)) = &mut array_of(g, "x").shape_flexibility else { return };
        r.size_ranges[0].upper_bound = -1;
    }),
    ("flexible_shapes_are_bounded", flexible, |g| array_of(g, "x").shape[0] = 9),
    ("optional_inputs_have_defaults", base, |g| feature(g, "z").r#type.as_mut().expect("a type").is_optional = true),
    ("optional_inputs_have_defaults", base, |g| {
        array_of(g, "z").default_optional_value = Some(DefaultOptionalValue::IntDefaultValue(1));
    }),
    ("states_are_static", stateful, |g| state_array(g).shape = vec![1, 8]),
    ("states_are_static", stateful, |g| state_array(g).set_data_type(ArrayDataType::Float32)),
    ("states_are_read_and_written", stateful, |g| operation(g, "write").outputs = vec![nv("w", t(F16, &[1, 4]))]),
    ("states_are_read_and_written", stateful, |g| bind(operation(g, "y"), "y", "s")),
    ("states_are_read_and_written", stateful, |g| bind(operation(g, "write"), "input", "x")),
    ("names_are_identifiers", base, |g| rename(g, "h", "h.1")),
    ("names_are_identifiers", base, |g| rename(g, "h", "tensor")),
    ("names_are_unique", base, |g| {
        let name = operation(g, "y").attributes["name"].clone();
        operation(g, "h").attributes.insert("name".into(), name);
    }),
    ("names_are_unique", base, |g| operation(g, "h").outputs.push(nv("r", t(F32, &[1, 3])))),
    ("values_are_defined_first", base, |g| block(g).operations.reverse()),
    ("values_are_defined_first", nested, |g| bind(operation(g, "y"), "x", "inner")),
    ("declared_types_hold", base, |g| operation(g, "b").outputs[0].r#type = Some(t(F32, &[4]))),
    ("declared_types_hold", base, |g| operation(g, "h").outputs[0].r#type = None),
    ("declared_types_hold", stateful, |g| operation(g, "r").outputs[0].r#type = Some(t(F16, &[4]))),
    ("ranks_are_at_most_five", base, |g| retype(g, "h", t(F32, &[1, 1, 1, 1, 1, 3]))),
    ("element_types_run", base, |g| retype(g, "h", t(F64, &[1, 3]))),
    ("element_types_run", nested, |g| {
        let op = &mut inner(g).operations[1];
        op.r#type = "relu".into();
        op.outputs[0].r#type = Some(t(Bf16, &[1]));
    }),
    ("operand_types_agree", base, |g| {
        input(g, "z").r#type = Some(t(I32, &[1, 3]));
        array_of(g, "z").set_data_type(ArrayDataType::Int32);
    }),
    ("operand_types_agree", base, |g| {
        set_version(g, 7);
        retype_const(g, "alpha", t(F16, &[]));
        *literal(g, "alpha") = bytes(&[0, 0]);
    }),
    ("unsupported_forms_are_lowered", base, |g| {
        operation(g, "h").r#type = "matmul".into();
        bind(operation(g, "h"), "y", "b");
    }),
    ("weights_are_constant", base, |g| bind(operation(g, "h"), "bias", "z")),
    ("parameters_are_constant", base, |g| bind(operation(g, "r"), "alpha", "z")),
    ("parameters_are_bound", base, |g| drop(operation(g, "r").inputs.remove("alpha"))),
    ("ops_are_of_the_opset", base, |g| operation(g, "h").r#type = "mystery".into()),
    ("ops_are_of_the_opset", base, |g| bind(operation(g, "h"), "unheard", "b")),
    ("constexprs_are_of_the_opset", compressed, |g| {
        let op = operation(g, "w");
        let scale = op.inputs.remove("scale").expect("bound").arguments.remove(0).binding.expect("bound");
        let mil::argument::binding::Binding::Value(value) = scale else { return };
        op.attributes.insert("scale".into(), value);
    }),
    ("constexprs_are_of_the_opset", compressed, |g| operation(g, "w").r#type = "constexpr_affine_dequantize".into()),
    ("compressed_weights_have_rank", compressed, |g| retype(g, "w", t(F16, &[12]))),
    ("outputs_are_not_inputs", base, |g| {
        block(g).outputs = vec!["x".into()];
        description(g).output = vec![array("x", F32, &[])];
    }),
    ("outputs_are_computed", base, |g| {
        block(g).outputs = vec!["b".into()];
        description(g).output = vec![array("b", F32, &[3])];
    }),
    ("outputs_are_distinct", base, |g| block(g).outputs.push("y".into())),
    ("inputs_are_used", base, |g| bind(operation(g, "y"), "y", "r")),
    ("interface_has_no_scalars", base, |g| retype(g, "y", t(F32, &[]))),
    ("literals_are_encoded", base, |g| *literal(g, "b") = floats(&[1.0, 2.0])),
    ("literals_are_encoded", base, |g| *literal(g, "b") = bytes(&[0; 12])),
    ("literals_are_encoded", base, |g| {
        operation(g, "b").attributes.get_mut("val").expect("an attribute").value = None;
    }),
    ("large_literals_are_blobs", base, |g| {
        retype_const(g, "b", t(F32, &[10]));
        *literal(g, "b") = floats(&[0.0; 10]);
    }),
    ("classify_is_last", classifier, |g| {
        block(g).operations.push(op("identity", "after", &[("x", name("p"))], &[("after", t(F32, &[1, 3]))]));
    }),
    ("classify_is_last", classifier, |g| bind_value(operation(g, "label"), "classes", texts(&["a", "b"]))),
    ("classify_is_last", classifier, |g| operation(g, "label").outputs.reverse()),
];

struct Fake;

impl Signatures for Fake {
    fn signature(&self, op_type: &str, _: &str) -> Option<OpSignature> {
        let param = |name, required_in_file, constant| Param { name, required_in_file, constant };
        let params = match op_type {
            "mystery" => return None,
            "leaky_relu" => vec![param("x", true, false), param("alpha", true, true)],
            _ => {
                let names = ["x", "y", "weight", "bias", "input", "data", "scale", "probabilities", "classes", "pred"];
                names.map(|name| param(name, false, false)).to_vec()
            }
        };
        Some(OpSignature { params })
    }
}

fn found(good: &Good) -> Vec<Finding> {
    check(&Artifact::new(&good.model, &good.plan).with_manifest(&good.manifest).with_signatures(&Fake))
}

#[test]
fn good_models_pass() {
    for good in [base, halves, multi, stateful, classifier, image, flexible, compressed, nested] {
        assert_eq!(found(&good()), []);
    }
}

#[test]
fn each_rule_fires_alone() {
    for (i, (rule, good, mutate)) in CASES.iter().enumerate() {
        let mut good = good();
        mutate(&mut good);
        let found = found(&good);
        let fired: BTreeSet<&str> = found.iter().map(|f| f.rule).collect();
        assert_eq!(fired, BTreeSet::from([*rule]), "case {i}: {found:#?}");
        assert!(found.iter().all(|f| !f.place.is_empty() && !f.found.is_empty()), "{found:?}");
    }
}

#[test]
fn every_rule_has_a_case_and_a_sentence() {
    let covered: BTreeSet<&str> = CASES.iter().map(|c| c.0).collect();
    let rules: BTreeSet<&str> = RULES.iter().map(|r| r.name).collect();
    assert_eq!(covered, rules);
    assert_eq!(rules.len(), RULES.len());
    for rule in RULES {
        assert!(rule.says.ends_with('.') && !rule.says.contains("  "), "{}: {}", rule.name, rule.says);
    }
}

#[test]
fn a_finding_says_where_and_what() {
    let mut good = base();
    retype(&mut good, "h", t(F64, &[1, 3]));
    let finding = found(&good).remove(0);
    assert_eq!((finding.place.as_str(), finding.found.as_str()), ("main/h", "f64[1, 3]"));
}

#[test]
fn an_empty_model_is_no_panic() {
    let plan = crate::Plan::default();
    assert!(!check(&Artifact::new(&Model::default(), &plan)).is_empty());
}
