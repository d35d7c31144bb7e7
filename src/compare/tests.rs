//! Tests of distances.

use super::*;

#[test]
fn noise_is_measured_against_the_signal() {
    let want = Tensor::from_vec(&[4], vec![1f32, 2.0, 3.0, 4.0]);
    let got = Tensor::from_vec(&[4], vec![1f32, 2.0, 3.0, 4.04]);
    let d = output("y", &want, &got, Tolerance::F16);
    assert!((d.max_abs - 0.04).abs() < 1e-6 && d.worst == 3);
    assert!((d.snr_db.expect("noise") - 42.7).abs() < 0.1, "{d:?}");
    assert!(d.pass && !output("y", &want, &got, Tolerance::F32).pass);
}

#[test]
fn of_several_samples_the_worst_counts() {
    let want = Tensor::from_vec(&[2], vec![1f32, 2.0]);
    let near = output("y", &want, &Tensor::from_vec(&[2], vec![1f32, 2.001]), Tolerance::F16);
    let far = output("y", &want, &Tensor::from_vec(&[2], vec![2f32, 2.0]), Tolerance::F16);
    let mut all = near.clone();
    all.absorb(OutputDiff { worst_sample: 1, ..far.clone() });
    assert_eq!((all.count, all.worst, all.worst_sample, all.pass), (4, 0, 1, false));
    assert_eq!((all.max_abs, all.snr_db), (1.0, far.snr_db));
    let equal = output("y", &want, &want, Tolerance::F16);
    all.absorb(equal.clone());
    assert_eq!(all.snr_db, far.snr_db);
    let mut all = equal;
    all.absorb(near.clone());
    assert_eq!((all.snr_db, all.pass), (near.snr_db, true));
}

#[test]
fn what_is_not_finite_must_agree() {
    let want = Tensor::from_vec(&[3], vec![f32::NAN, f32::INFINITY, 1.0]);
    assert!(output("y", &want, &want, Tolerance::F32).pass);
    let got = Tensor::from_vec(&[3], vec![f32::NAN, f32::NEG_INFINITY, 1.0]);
    let d = output("y", &want, &got, Tolerance::F32);
    assert_eq!((d.non_finite, d.nan, d.inf, d.pass), (1, [1, 1], [1, 1], false));
    let flat = want.reshape(&[3, 1]);
    assert!(output("y", &want, &flat, Tolerance::F32).mismatch.is_some());
}

#[test]
fn numbers_below_half_precision_are_told_from_noise() {
    let want = Tensor::from_vec(&[2], vec![1e-9f32, 2e-9]);
    let got = Tensor::from_vec(&[2], vec![0f32, 0.0]);
    assert!(output("y", &want, &got, Tolerance::F16).below_half());
    assert!(!output("y", &want, &want, Tolerance::F16).below_half());
}

#[test]
fn integers_are_equal_or_not() {
    let want = Tensor::from_vec(&[2], vec![1i32, 2]);
    let got = Tensor::from_vec(&[2], vec![1i32, 3]);
    assert_eq!(output("y", &want, &got, Tolerance::F16).unequal, Some(1));
}

#[test]
fn places_are_told_by_coordinates_and_halves_are_counted() {
    let want = Tensor::from_vec(&[2, 2], vec![1f32, -1e-3, 0.0, 8.0]);
    let got = Tensor::from_vec(&[2, 2], vec![1f32, 1e-3, 0.5, 8.0]);
    let d = output("y", &want, &got, Tolerance::F16);
    assert_eq!((d.worst_index, d.worst_rel_index, d.max_rel_elementwise), (vec![1, 0], vec![0, 1], 2.0));
    assert_eq!(d.max_ulp, None);
    let half = |a: f32, b: f32| {
        let [a, b] = [a, b].map(|x| Tensor::from_vec(&[1], vec![f16::from_f32(x)]));
        output("y", &a, &b, Tolerance::F16).max_ulp
    };
    assert_eq!([half(0.0, -0.0), half(1.0, 1.0 + 1e-3), half(-6e-8, 6e-8)], [Some(0), Some(1), Some(2)]);
}

#[test]
fn what_is_asked_for_is_named_when_it_is_missed() {
    let want = Tensor::from_vec(&[2], vec![1f32, 2.0]);
    let got = Tensor::from_vec(&[2], vec![1f32, 2.5]);
    let missed = |thresholds: Thresholds| {
        let d = output("y", &want, &got, thresholds.instead_of(Tolerance::F16));
        d.missed.iter().map(Miss::text).collect::<Vec<_>>()
    };
    let none = Thresholds::default();
    assert_eq!(missed(none), ["SNR 13.0 dB, at least 40 dB wanted"]);
    assert_eq!(missed(Thresholds { min_cosine: Some(0.9), ..none }), [""; 0]);
    assert_eq!(missed(Thresholds { min_cosine: Some(1.0), ..none }), ["cosine 0.996546, at least 1 wanted"]);
    let close = |abs, rel| Thresholds { elementwise: Some(Close { abs, rel }), ..none };
    assert_eq!(missed(close(0.1, 0.2)), [""; 0]);
    assert_eq!(missed(close(0.1, 0.1)), ["1 elements are further off than `--tolerance` allows"]);
    let miss = |found| Miss { measure: "snr_db", found: Some(found), limit: 40.0 }.text();
    assert_eq!(miss(39.98), "SNR 39.98 dB, at least 40 dB wanted");
}

fn judged(want: &[f32], got: &[f32], kind: Kind, tolerance: Tolerance) -> OutputDiff {
    let [want, got] = [want, got].map(|v| Tensor::from_vec(&[1, v.len()], v.to_vec()));
    measured("y", &want, &got, &Measure { tolerance, kind: Some(kind), half: true }).judged(&tolerance)
}

#[test]
fn masks_are_no_measure_of_scores() {
    let (row, mask) = ([1f32, -2.0, 3.0], |scores: [f32; 3], mask: f32| [scores.as_slice(), &[mask]].concat());
    for masked in [-1e4, -6e4, f32::MIN] {
        let want = mask(row, masked);
        let wrong = judged(&want, &mask([3.0, 1.0, -2.0], masked), Kind::Logits, Tolerance::F16);
        assert_eq!((wrong.pass, wrong.greatest, wrong.masked), (false, 3.0, 1), "{masked}");
        // Whatever rounds or clamps a mask is no fault, and its absence is.
        let clamped = masked.max(-65504.0) * 0.999;
        assert!(judged(&want, &mask(row, clamped), Kind::Logits, Tolerance::F16).pass, "{masked}");
        assert!(!judged(&want, &mask(row, 0.0), Kind::Logits, Tolerance::F16).pass, "{masked}");
    }
    // Scores that are all far below 0 are scores.
    let low = judged(&[-6000.0, -6001.0], &[-6200.0, -5900.0], Kind::Logits, Tolerance::F16);
    assert_eq!((low.pass, low.masked), (false, 0));
    assert_eq!(judged(&[-9e3, 1.0], &[-9e3, 1.0], Kind::Values, Tolerance::F16).masked, 0);
}

#[test]
fn zeros_are_held_to_what_the_type_can_tell_from_them() {
    let off = |x: f32, tolerance| judged(&[0.0; 3], &[0.0, x, 0.0], Kind::Values, tolerance).pass;
    assert!(off(5e-5, Tolerance::F16) && !off(9e-3, Tolerance::F16) && !off(1e-4, Tolerance::F16));
    assert!(off(5e-8, Tolerance::F32) && !off(9e-5, Tolerance::F32) && off(1.0, Tolerance::ANY));
}

#[test]
fn an_output_that_no_threshold_measures_keeps_its_default() {
    let of_classes = Thresholds { min_top1: Some(0.5), ..Thresholds::default() }.instead_of(Tolerance::F16);
    let far = |kind| judged(&[1.0, 2.0, 3.0], &[1.0, 3.0, 9.0], kind, of_classes);
    assert!(far(Kind::Logits).pass && far(Kind::Logits).bounded);
    assert!(!far(Kind::Values).pass && far(Kind::Values).bounded);
    let any = judged(&[1.0, 2.0], &[2.0, 1.0], Kind::Logits, Tolerance::ANY);
    assert!(any.pass && !any.bounded);
}
