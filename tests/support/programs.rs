//! Programs as text, made packages, and what is said of them.

use super::place::Place;
use mlconv_mil::{text::parse, verify::verify};
use serde_json::Value;

/// Numbers of a tensor of this shape that look random, up to `spread`.
pub(crate) fn numbers(shape: &[usize], seed: u64, spread: f64) -> String {
    format!("{shape:?} [{}]", elements(shape, seed, spread).join(", "))
}

pub(crate) fn elements(shape: &[usize], seed: u64, spread: f64) -> Vec<String> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) as f64 / f64::from(1 << 30) - 1.0) * spread
    };
    (0..shape.iter().product()).map(|_| format!("{:.4}", next())).collect()
}

/// Writes a program as a package.
pub(crate) fn package(place: &Place, name: &str, text: &str) {
    let mut module = parse(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    mlconv_coreml::legalize(&mut module).unwrap_or_else(|e| panic!("{e:?}"));
    let module = verify(module).unwrap_or_else(|e| panic!("{e:?}"));
    let made = mlconv_coreml::export(&module).expect("a package");
    mlconv_coreml::write(&place.path(name), &made.model, &made.weights, mlconv_coreml::Existing::Replace)
        .expect("room");
}

/// The op to blame of a report, and why.
pub(crate) fn culprit(report: &Value) -> (String, String) {
    let first = &report["bisection"]["culprits"][0];
    let at = first["op"].as_u64().unwrap_or_else(|| panic!("no culprit: {:#}", report["bisection"])) as usize;
    assert_eq!(report["ops"][at]["state"], "culprit");
    (
        report["ops"][at]["name"].as_str().expect("a name").to_owned(),
        first["why"].as_str().expect("a reason").to_owned(),
    )
}
