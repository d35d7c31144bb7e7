//! What `inspect` says a model costs.

mod support;

use serde_json::Value;
use std::path::{Path, PathBuf};
use support::{fixtures, place::Place};

fn digits(name: &str) -> String {
    fixtures().join("models").join(name).join("model.onnx").display().to_string()
}

fn inspected(place: &Place, model: &str) -> Value {
    place.run(&["inspect", model, "--format", "json", "--quiet"]).ok().json()
}

/// Products by type of op, and their total.
fn macs(report: &Value) -> (u64, Vec<(String, u64)>) {
    let macs = &report["functions"][0]["costs"]["macs"];
    assert_eq!(macs["uncounted"], 0, "{macs}");
    let by_op = macs["by_op"].as_array().expect("a list");
    let one = |o: &Value| (o["op"].as_str().expect("a name").to_owned(), o["macs"].as_u64().expect("a number"));
    (macs["total"].as_u64().expect("a number"), by_op.iter().map(one).collect())
}

#[test]
fn costs_are_those_that_one_counts_by_hand() {
    let place = Place::new();
    let report = inspected(&place, &digits("digits_cnn"));
    // 3 x 3 of 1 to 16 channels at 8 x 8, of each of 16 at 4 x 4, 1 x 1 of 16 to 16, 3 x 3 of 16 to 32; then 32 to 10.
    let conv = 64 * 16 * 9 + 16 * 16 * 9 + 16 * 16 * 16 + 16 * 32 * 16 * 9;
    assert_eq!(macs(&report), (conv + 320, vec![("conv".to_owned(), conv), ("linear".to_owned(), 320)]));
    let costs = &report["functions"][0]["costs"];
    // The input; what the first convolution makes, and as much of its relu.
    assert_eq!(costs["memory"]["peak_bytes"], 4 * (64 + 2 * 16 * 64), "{costs}");
    // Behind them a batch norm of 16 channels that the exporter has left.
    let weights = 4 * 16 + (16 * 9 + 16) + (16 * 9 + 16) + (16 * 16 + 16) + (32 * 16 * 9 + 32) + (32 * 10 + 10);
    let says = &report["weights"];
    assert_eq!((&says["parameters"], &says["bits_per_parameter"]), (&weights.into(), &32.0.into()), "{says}");
}

#[test]
fn open_sizes_states_and_compressed_weights_are_said() {
    let place = Place::new();
    let model = digits("digits_transformer");
    let report = inspected(&place, &model);
    let size = &report["functions"][0]["costs"]["sizes"][0];
    assert_eq!((&size["name"], &size["min"], &size["default"]), (&"batch".into(), &1.into(), &1.into()), "{size}");
    // A batch of two costs twice as much.
    let twice = place.run(&["inspect", &model, "--input", "rows=2x8x8", "--format", "json"]).ok().json();
    assert_eq!(macs(&twice).0, 2 * macs(&report).0);
    let compress = ["compress", &model, "-o", "p.mlpackage", "--preset", "pal4", "--weight-threshold", "256"];
    place.run(&[&compress[..], &["--no-verify", "--input", "rows=1x8x8"]].concat()).ok();
    let small = inspected(&place, "p.mlpackage");
    let kinds = small["functions"][0]["costs"]["weights"]["kinds"].as_array().expect("a list").clone();
    let palette = kinds.iter().find(|k| k["stored"] == "palette of 4 bits, f16").expect("palettes");
    let bits = palette["bits"].as_f64().expect("a number");
    assert!((4.0..4.6).contains(&bits) && palette["compressed"] == true, "{palette}");
    assert_eq!(small["functions"][0]["default"], true);
    let text = place.run(&["inspect", "p.mlpackage"]).ok().stdout;
    for part in ["multiply-accumulates", "ops with the most", "memory of values", "palette of 4 bits, f16", "bits each"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn a_model_that_cannot_be_converted_has_no_costs() {
    let place = Place::new();
    place.file("m.onnx", b"\x08\x08nonsense");
    let done = place.run(&["inspect", "m.onnx", "--format", "json"]);
    assert_eq!(done.code, Some(2), "{}", done.stdout);
}

/// What PyTorch's own counter says of models that others made, `torch.utils.flop_counter`, in products.
const COUNTED: [(&str, u64); 8] = [
    ("tv_squeezenet1_1", 17_022_656),
    ("tv_mnasnet0_5", 3_299_392),
    ("timm_lcnet_035", 2_366_272),
    ("tv_regnet_small", 3_275_392),
    ("hf_bert_seqcls", 140_352),
    ("hf_vit", 413_888),
    ("tv_swin_small", 8_258_016),
    ("hf_whisper_encoder", 1_446_400),
];

#[test]
fn products_are_those_that_pytorch_counts() {
    let Some(shared) = std::env::var_os("MLCONV_SHARED").map(PathBuf::from) else { return };
    let place = Place::new();
    for (name, want) in COUNTED {
        let model = shared.join("corpus/models").join(name).join("model.pt2");
        assert!(Path::new(&model).is_file(), "{}", model.display());
        assert_eq!(macs(&inspected(&place, &model.display().to_string())).0, want, "{name}");
    }
}

#[test]
fn a_page_has_what_the_text_has() {
    let place = Place::new();
    let model = digits("digits_cnn");
    let text = place.run(&["inspect", &model]).ok().stdout;
    assert_eq!(place.run(&["inspect", &model, "--html", "m.html"]).ok().stdout, text);
    let page = std::fs::read_to_string(place.path("m.html")).expect("the page is written");
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
    for said in [
        "89.7 k",
        "<code class=\"alone\">image</code>",
        "Values take 8.4 kB at most",
        "reduce_mean",
        "f32[1, 10]",
        "id=\"explorer\"",
    ] {
        assert!(page.contains(said), "{said} is not in the page");
    }
    let data = page.split("id=\"data\">").nth(1).and_then(|p| p.split("</script>").next()).expect("the page has data");
    let data: Value = serde_json::from_str(data).expect("data are JSON");
    let report = inspected(&place, &model);
    let counts = report["functions"][0]["ops"].as_array().expect("a list").iter().map(|o| o["count"].as_u64());
    let count: Option<u64> = counts.sum();
    assert_eq!(data["ops"].as_array().map(|all| all.len() as u64), count);
}

#[test]
fn a_page_is_not_written_over_the_model_or_instead_of_a_program() {
    let place = Place::new();
    let model = digits("digits_cnn");
    place.run(&["inspect", &model, "--html", &model]).fails("L0001", "over what is read");
    assert_eq!(place.run(&["inspect", &model, "--mil", "--html", "m.html"]).code, Some(2));
    assert_eq!(place.names(), Vec::<String>::new());
}
