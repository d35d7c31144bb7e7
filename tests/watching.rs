//! Looking into passes: what is printed behind them, what is checked, and what they say of a node.

mod support;

use support::place::{Done, Place};

fn run(place: &Place, args: &str) -> Done {
    place.run(&args.split_whitespace().collect::<Vec<_>>())
}

const DIGITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/models/digits_cnn/model.pt2");

#[test]
fn programs_times_and_checks_of_each_pass() {
    let place = Place::new();
    let done = run(
        &place,
        &format!(
            "convert {DIGITS} -o out.mlpackage --no-verify --print-after fold_* --verify-each --check-each --time-passes"
        ),
    );
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let printed = done.stderr.split_once("// after fold_affine\n").map(|(_, rest)| rest);
    let program = printed.and_then(|p| p.split_once("\n}\n")).map(|(p, _)| p).unwrap_or_default();
    assert!(program.starts_with("func @main(") && program.matches("batch_norm(").count() == 1, "{}", done.stderr);
    let table = done.stderr.lines().map(str::trim_start).skip_while(|l| !l.starts_with("pass ")).collect::<Vec<_>>();
    for pass in ["fold_affine", "fp16_cast", "dead_code_elimination", "all"] {
        assert!(table.iter().any(|l| l.starts_with(pass) && l.contains(" ms")), "{pass}: {}", done.stderr);
    }
}

#[test]
fn edits_are_counted_and_stop() {
    let place = Place::new();
    let normalisations = |edits: usize| {
        let done = run(
            &place,
            &format!(
                "convert {DIGITS} -o {edits}.mlpackage --precision fp32 --stop-after-edit {edits} --quiet --no-verify"
            ),
        );
        assert_eq!(done.code, Some(0), "{edits}: {}", done.stderr);
        run(&place, &format!("inspect {edits}.mlpackage --mil")).stdout.matches("batch_norm(").count()
    };
    // The third one is behind a sum.
    assert_eq!((normalisations(0), normalisations(1000)), (3, 1));
    assert!((1..20).map(normalisations).any(|n| n == 2), "edits stop in between");
}

#[test]
fn what_rules_did_with_a_node_is_said() {
    let place = Place::new();
    let done = run(&place, &format!("passes explain {DIGITS} --node batch_norm*"));
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(done.stdout.starts_with("before\n  %batch_norm"), "{}", done.stdout);
    assert!(done.stdout.contains("fold_affine, rule `batch_norm`: applied\n"), "{}", done.stdout);
    let done = run(&place, &format!("passes explain {DIGITS} --node batch_norm* --format json"));
    let json: serde_json::Value = serde_json::from_str(&done.stdout).expect("JSON");
    let applied = |s: &serde_json::Value| s["applied"] == true && s["rule"] == "batch_norm";
    assert!(json["steps"].as_array().is_some_and(|s| s.iter().any(applied)), "{json}");
    // A pass without rules, of a model that takes pictures.
    let done = run(&place, &format!("passes explain {DIGITS} --node conv* --image image=gray,scale=1/16"));
    assert!(
        done.stdout.contains("\nfp16_cast: applied\n") && done.stdout.contains("%image"),
        "{}{}",
        done.stdout,
        done.stderr
    );
}

#[test]
fn a_node_that_is_not_there_is_an_error() {
    let place = Place::new();
    let done = run(&place, &format!("passes explain {DIGITS} --node nothing_like_it"));
    assert_eq!(done.code, Some(2));
    assert!(done.stderr.starts_with("error[L0001]: `--node nothing_like_it` matches no op\n"), "{}", done.stderr);
    assert_eq!(run(&place, "passes explain absent.onnx --node x").code, Some(2));
}
