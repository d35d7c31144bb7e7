//! Two models value by value: which op is blamed, where names say nothing, where there are several faults, and for what.

mod support;

use mlconv_tensor::Tensor;
use serde_json::Value;
use std::fmt::Write;
use support::{
    place::Place,
    programs::{culprit, numbers, package},
};

/// Compares two programs, with more options.
fn compared(a: &str, b: &str, more: &[&str]) -> (Value, String, Option<i32>) {
    let place = Place::new();
    between(&place, a, b, more)
}

fn between(place: &Place, a: &str, b: &str, more: &[&str]) -> (Value, String, Option<i32>) {
    package(place, "a.mlpackage", a);
    package(place, "b.mlpackage", b);
    let args = [&["diff", "a.mlpackage", "b.mlpackage", "--bisect"][..], more].concat();
    let text = place.run(&args);
    let done = place.run(&[&args[..], &["--format", "json"]].concat());
    assert_eq!(done.code, text.code, "{}", done.stderr);
    assert!(matches!(done.code, Some(0 | 1)), "{}", done.stderr);
    (done.json(), text.stdout, text.code)
}

fn names(report: &Value) -> Vec<String> {
    let all = report["bisection"]["culprits"].as_array().expect("culprits");
    all.iter().filter_map(|c| c["name"].as_str()).map(str::to_owned).collect()
}

/// Layers of a linear op and an activation that is added to what the layer reads, whose values are called as `name` says; `fault`
/// is a line that stands for that of the layer's own.
fn layers(name: impl Fn(&str) -> String, dtype: &str, fault: Option<(&str, &str)>) -> String {
    let mut out = format!("func @main(%x: {dtype}[4, 8]) ios17 {{\n");
    let mut last = "x".to_owned();
    for i in 0..4 {
        let (linear, act, sum) = (name(&format!("linear{i}")), name(&format!("act{i}")), name(&format!("sum{i}")));
        let (w, b) = (numbers(&[8, 8], 7 + i, 0.6), numbers(&[8], 70 + i, 1.0));
        let _ = writeln!(out, "  %w{i} = const(val={dtype}{w})\n  %b{i} = const(val={dtype}{b})");
        for (own, line) in [
            ("linear", format!("%{linear} = linear(x=%{last}, weight=%w{i}, bias=%b{i})")),
            ("act", format!("%{act} = tanh(x=%{linear})")),
            ("sum", format!("%{sum} = add(x=%{last}, y=%{act})")),
        ] {
            let fault = fault.filter(|(at, _)| *at == format!("{own}{i}"));
            let line = fault.map_or(line, |(_, line)| {
                let line = line.replace("LAST", &format!("%{last}")).replace("LINEAR", &format!("%{linear}"));
                line.replace("ACT", &format!("%{act}")).replace("SUM", &format!("%{sum}"))
            });
            let _ = writeln!(out, "  {line}");
        }
        last = sum;
    }
    out + &format!("  return %{last}\n}}\n")
}

#[test]
fn values_of_other_names_are_paired_by_what_they_are() {
    let own = |name: &str| name.to_owned();
    // Names that are of other values, and names that are of none.
    let shifted = |name: &str| match name.strip_prefix("linear") {
        Some(i) => format!("linear{}", i.parse::<usize>().expect("a number") + 1),
        None => name.to_owned(),
    };
    let other = |name: &str| format!("var_{}", name.bytes().map(usize::from).sum::<usize>() * 31 % 977);
    let faults = [
        (None, ""),
        (Some(("linear1", "LINEAR = linear(x=LAST, weight=%w1)")), "linear1"),
        (Some(("linear2", "LINEAR = linear(x=LAST, weight=%w1, bias=%b2)")), "linear2"),
        (Some(("act1", "ACT = sin(x=LINEAR)")), "act1"),
        (Some(("sum1", "SUM = sub(x=LAST, y=ACT)")), "sum1"),
    ];
    for dtype in ["f32", "f16"] {
        for (fault, op) in faults {
            for renamed in [&other as &dyn Fn(&str) -> String, &shifted] {
                let (report, text, _) = compared(&layers(own, "f32", None), &layers(renamed, dtype, fault), &[]);
                let Some(_) = fault else {
                    assert_eq!(names(&report), Vec::<String>::new(), "{dtype}: {text}");
                    assert!(text.contains("12 of 12 ops") || text.contains("of 13 ops"), "{text}");
                    continue;
                };
                assert_eq!(
                    culprit(&report),
                    (renamed(op), "computes something else".to_owned()),
                    "{dtype} {op}: {text}"
                );
                assert_eq!(names(&report).len(), 1, "{text}");
            }
        }
    }
}

#[test]
fn names_that_were_exchanged_blame_nobody() {
    let text = |u: &str, w: &str| {
        format!(
            "func @main(%x: f32[4, 8]) ios17 {{\n  %a = const(val=f32{})\n  %b = const(val=f32{})\n  %{u} = matmul(x=%x, y=%a)\n  \
             %{w} = matmul(x=%x, y=%b)\n  %y = sub(x=%{u}, y=%{w})\n  return %y\n}}\n",
            numbers(&[8, 8], 1, 1.0),
            numbers(&[8, 8], 2, 1.0)
        )
    };
    let (report, text, code) = compared(&text("u", "w"), &text("w", "u"), &[]);
    assert_eq!((names(&report).len(), code), (0, Some(0)), "{text}");
}

#[test]
fn of_several_faults_the_one_that_harms_most_is_blamed() {
    let text = |first: &str, last: f64| {
        format!(
            "func @main(%x: f32[4, 8]) ios17 {{\n  %w = const(val=f32{})\n  %v = const(val=f32{})\n  %m = matmul(x=%x, \
             y=%{first})\n  %t = tanh(x=%m)\n  %k = const(val=f32[] {last})\n  %y = mul(x=%t, y=%k)\n  return %y\n}}\n",
            numbers(&[8, 8], 1, 1.0),
            numbers(&[8, 8], 2, 1.0)
        )
    };
    let (report, text, _) = compared(&text("w", 2.0), &text("v", 2.01), &[]);
    assert_eq!(names(&report), ["m", "y"], "{text}");
}

#[test]
fn a_fault_that_shows_in_later_calls_is_found() {
    let text = |decay: f64| {
        format!(
            "func @main(%x: f32[4], %s: state<f16[4]>) ios18 {{\n  %old = read_state(input=%s)\n  %half = cast(x=%x, \
             dtype=\"fp16\")\n  %k = const(val=f16[] {decay})\n  %kept = mul(x=%old, y=%k)\n  %new = add(x=%kept, y=%half)\n  \
             write_state(input=%s, data=%new)\n  %now = read_state(input=%s)\n  %y = cast(x=%now, dtype=\"fp32\")\n  return \
             %y\n}}\n"
        )
    };
    let place = Place::new();
    let calls = Tensor::from_vec(&[3, 4], (0..12).map(|i| i as f32 - 5.5).collect());
    place.arrays("calls.npz", &[("x", calls)]);
    let (report, text, code) = between(&place, &text(0.5), &text(0.75), &["--sample", "calls.npz"]);
    assert_eq!((culprit(&report).0.as_str(), code), ("kept", Some(1)), "{text}");
}

#[test]
fn the_sample_of_the_worst_output_is_looked_at() {
    let text = |y: f64, w: f64| {
        format!(
            "func @main(%x: f32[4]) ios17 {{\n  %one = const(val=f32[] {y})\n  %y = mul(x=%x, y=%one)\n  %r = relu(x=%x)\n  %two = \
             const(val=f32[] {w})\n  %w = mul(x=%r, y=%two)\n  return %y, %w\n}}\n"
        )
    };
    let place = Place::new();
    // `w` is zero in the sample in which `y` is off most.
    let rows = Tensor::from_vec(&[2, 4], vec![-900f32, -900.0, -900.0, -900.0, 1.0, 2.0, 3.0, 4.0]);
    place.arrays("rows.npz", &[("x", rows)]);
    let (report, text, _) = between(&place, &text(1.0, 1.0), &text(1.0005, 5.0), &["--sample", "rows.npz"]);
    assert_eq!(names(&report)[0], "w", "{text}");
}

#[test]
fn great_numbers_in_single_precision_are_no_masks() {
    let text = |k: f64, half: bool| {
        let back = if half {
            "  %h = cast(x=%d, dtype=\"fp16\")\n  %r = relu(x=%h)\n  %y = cast(x=%r, dtype=\"fp32\")\n"
        } else {
            "  %y = relu(x=%d)\n"
        };
        format!(
            "func @main(%x: f32[8]) ios17 {{\n  %a = abs(x=%x)\n  %five = const(val=f32[] 5)\n  %b = add(x=%a, y=%five)\n  %k = \
             const(val=f32[] {k})\n  %c = mul(x=%b, y=%k)\n  %small = const(val=f32[] 1e-5)\n  %d = mul(x=%c, \
             y=%small)\n{back}  return %y\n}}\n"
        )
    };
    let (report, text, _) = compared(&text(30000.0, false), &text(6000.0, true), &[]);
    assert_eq!(culprit(&report).0, "c", "{text}");
}

#[test]
fn numbers_that_vanish_are_the_fault_of_the_op_that_loses_them() {
    let text = |dtype: &str, cast: bool| {
        let (to, from) = if cast {
            ("  %h = cast(x=%x, dtype=\"fp16\")\n", "  %y = cast(x=%root, dtype=\"fp32\")\n")
        } else {
            ("  %h = identity(x=%x)\n", "  %y = identity(x=%root)\n")
        };
        format!(
            "func @main(%x: f32[8]) ios17 {{\n{to}  %k = const(val={dtype}[] 3e-5)\n  %a = mul(x=%h, y=%k)\n  %square = mul(x=%a, \
             y=%a)\n  %z = relu(x=%square)\n  %root = sqrt(x=%z)\n{from}  return %y\n}}\n"
        )
    };
    let (report, text, _) = compared(&text("f32", false), &text("f16", true), &[]);
    assert_eq!(culprit(&report), ("square".to_owned(), "loses precision".to_owned()), "{text}");
}

#[test]
fn a_constant_that_is_rounded_loses_precision_and_one_that_is_another_does_not() {
    let text = |dtype: &str, power: f64, cast: bool| {
        let (to, from) = if cast {
            ("  %h = cast(x=%x, dtype=\"fp16\")\n", "  %y = cast(x=%p, dtype=\"fp32\")\n")
        } else {
            ("  %h = identity(x=%x)\n", "  %y = identity(x=%p)\n")
        };
        format!(
            "func @main(%x: f32[8]) ios17 {{\n{to}  %a = abs(x=%h)\n  %far = const(val={dtype}[] 50)\n  %b = add(x=%a, \
             y=%far)\n  %power = const(val={dtype}[] {power})\n  %p = pow(x=%b, y=%power)\n{from}  return %y\n}}\n"
        )
    };
    for (power, why) in [(2.2, "loses precision"), (2.3, "computes something else")] {
        let (report, text, _) = compared(&text("f32", 2.2, false), &text("f16", power, true), &["--min-snr", "60"]);
        assert_eq!(culprit(&report), ("p".to_owned(), why.to_owned()), "{text}");
    }
}

#[test]
fn sizes_are_those_that_outputs_were_compared_with() {
    let text = |n: &str| {
        format!("symbol n = 1..64\nfunc @main(%x: f32[{n}, 8]) ios17 {{\n  %y = exp(x=%x)\n  return %y\n}}\n")
    };
    let (report, text, code) = compared(&text("n"), &text("5"), &[]);
    assert_eq!((code, &report["bisection"]["state"]), (Some(0), &"agrees".into()), "{text}");
}

#[test]
fn nothing_that_was_compared_is_not_nothing_wrong() {
    let text = |k: f64| {
        format!(
            "func @main(%x: f32[8]) ios17 {{\n  %k = const(val=f32[8] [{k}, 2, 3, 4, 5, 6, 7, 8])\n  %y = identity(x=%k)\n  %z = \
             relu(x=%x)\n  return %y, %z\n}}\n"
        )
    };
    let (report, text, code) = compared(&text(1.0), &text(9.0), &[]);
    assert_eq!(code, Some(1), "{text}");
    assert_eq!(report["bisection"]["state"], "unknown", "{text}");
    assert!(text.contains("made of constants alone, which differ: `y`"), "{text}");
}

#[test]
fn loops_that_count_in_vectors_of_one_are_run_and_compared() {
    let text = |counter: &str, k: f64| {
        format!(
            "func @main(%x: f32[4]) ios17 {{\n  %zero = const(val=i32{counter})\n  %count, %sum = while_loop(loop_vars=(%zero, %x), \
             cond={{(%i: i32{0}, %s: f32[4])\n      %most = const(val=i32[] 3)\n      %lt = less(x=%i, y=%most)\n      yield %lt}}, \
             body={{(%j: i32{0}, %t: f32[4])\n      %one = const(val=i32[] 1)\n      %next = add(x=%j, y=%one)\n      %k = \
             const(val=f32[] {k})\n      %more = mul(x=%t, y=%k)\n      yield %next, %more}})\n  %y = relu(x=%sum)\n  return \
             %y\n}}\n",
            counter.split(' ').next().unwrap_or_default()
        )
    };
    let (_, out, code) = compared(&text("[] 0", 2.0), &text("[1] [0]", 2.0), &[]);
    assert_eq!(code, Some(0), "{out}");
    let (report, out, code) = compared(&text("[] 0", 2.0), &text("[1] [0]", 2.1), &[]);
    assert_eq!(
        (culprit(&report), code),
        (("sum".to_owned(), "is off by more than its types explain".to_owned()), Some(1)),
        "{out}"
    );
}
