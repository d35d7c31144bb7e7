//! What compression did, in words and for programs.

use super::bytes;
use crate::compress::{Report, Row, Search, activations, search};
use serde_json::json;

/// A weight that is done, in a line: `conv1_weight f16[64, 3, 7, 7] fp16→pal4 18.8→4.7 kB 21.3 dB`.
pub fn weight_line(row: &Row) -> String {
    let head = format!("{} {}", row.name, row.ty);
    match &row.outcome {
        Err(why) => format!("{head} left as it is: {why}"),
        Ok(a) if a.shared_with.is_some() => format!("{head} {} shares the bytes of another", a.scheme),
        Ok(a) => {
            let snr = decibels(a.distortion.snr_db);
            format!("{head} → {} {} → {} {snr}", a.scheme, bytes(row.bytes_before), bytes(row.bytes_after))
        }
    }
}

/// A value in 8 bits, in a line: `relu_1 f16[1, 8, 8, 8] → int8 0..3.2, scale 0.0252, 0.01 % saturated, 38.2 dB`.
pub fn activation_line(row: &activations::Row, report: &activations::Report) -> String {
    let head = format!("{} {}", row.name, row.ty);
    match &row.outcome {
        Err(why) => format!("{head} left as it is: {why}"),
        Ok(c) => {
            let zero = if c.affine.zero_point == 0 { String::new() } else { format!(" from {}", c.affine.zero_point) };
            format!(
                "{head} → {} {:.4}..{:.4}, scale {:.4e}{zero}, {:.2} % saturated, {}",
                report.form,
                c.lo,
                c.hi,
                c.affine.scale,
                c.saturated * 100.0,
                decibels(c.snr_db),
            )
        }
    }
}

fn decibels(snr: f64) -> String {
    if snr == f64::INFINITY { "exact".to_owned() } else { format!("{snr:.1} dB") }
}

/// All values in 8 bits, in words.
fn activations_text(a: &activations::Report) -> String {
    match (a.rows.len(), a.before) {
        (0, 0) => return "no activation can be held in 8 bits".to_owned(),
        (0, n) => return format!("{n} activations were in 8 bits before, and no other can be"),
        _ => {}
    }
    let done: Vec<_> = a.rows.iter().filter_map(|r| Some((r, r.outcome.as_ref().ok()?))).collect();
    let mut out = format!(
        "{} of {} activations in 8 bits: {}, ranges by {} from {} samples",
        done.len(),
        a.rows.len(),
        a.form,
        a.method,
        a.samples,
    );
    let worst = done.iter().map(|(r, c)| (r, c.snr_db)).min_by(|a, b| a.1.total_cmp(&b.1));
    if let Some((row, snr)) = worst.filter(|(_, snr)| snr.is_finite()) {
        out += &format!("; the worst is {} with {snr:.1} dB", row.name);
    }
    if a.before > 0 {
        out += &format!("; {} were before", a.before);
    }
    out
}

/// The sums over all weights, in words.
pub fn compression_text(c: &Report) -> String {
    let activations = c.activations.as_ref().map(|a| format!("\n{}", activations_text(a))).unwrap_or_default();
    let done = c.rows.iter().filter(|r| r.outcome.is_ok()).count();
    let ((before, after), (bits_before, bits_after)) = (c.bytes(), c.bits_per_weight());
    let mut out = format!(
        "{done} of {} weights compressed: {} → {}, {bits_before:.2} → {bits_after:.2} bits per weight",
        c.rows.len(),
        bytes(before),
        bytes(after),
    );
    let worst = c.rows.iter().filter_map(|r| Some((r, r.outcome.as_ref().ok()?.distortion.snr_db)));
    if let Some((row, snr)) = worst.min_by(|a, b| a.1.total_cmp(&b.1)).filter(|(_, snr)| snr.is_finite()) {
        out += &format!("; the worst is {} with {snr:.1} dB", row.name);
    }
    if let Some(s) = &c.search {
        out += &format!("\n{}", search_text(s, c));
    }
    if let Some(rows) = c.rows.iter().filter_map(|r| r.outcome.as_ref().ok()?.aware_of).max() {
        let n = c.rows.iter().filter(|r| r.outcome.as_ref().is_ok_and(|a| a.aware_of.is_some())).count();
        out += &format!("\n{n} of them by their inputs, up to {rows} for each row");
    }
    // Weights left alone, by reason, so that a long list of biases is one line.
    let mut left: Vec<(&str, usize, u64, &str)> = vec![];
    for row in &c.rows {
        let Err(why) = &row.outcome else { continue };
        match left.iter_mut().find(|(w, ..)| *w == why.as_str()) {
            Some((_, n, size, _)) => (*n, *size) = (*n + 1, *size + row.bytes_before),
            None => left.push((why, 1, row.bytes_before, &row.name)),
        }
    }
    for (why, n, size, first) in left {
        let others = if n > 1 { format!(" and {} more", n - 1) } else { String::new() };
        out += &format!("\n  left as it is, {}: {first}{others}: {why}", bytes(size));
    }
    out + &activations
}

/// What a search chose, in words.
fn search_text(s: &Search, c: &Report) -> String {
    let mut used: Vec<(String, usize, u64)> = vec![];
    for row in &c.rows {
        // What a rule says was not chosen.
        let chosen = row.asked.as_ref().filter(|(_, rule)| rule == search::RULE);
        let Some(scheme) = chosen.map(|(s, _)| s.to_string()) else { continue };
        match used.iter_mut().find(|(known, ..)| *known == scheme) {
            Some((_, n, size)) => (*n, *size) = (*n + 1, *size + row.bytes_after),
            None => used.push((scheme, 1, row.bytes_after)),
        }
    }
    used.sort_by(|a, b| b.2.cmp(&a.2).then_with(|| a.0.cmp(&b.0)));
    let used: Vec<String> = used.iter().map(|(s, n, size)| format!("{s} for {n} ({})", bytes(*size))).collect();
    let by = if s.on_samples { "what outputs lose on the samples" } else { "their own error" };
    let used = if used.is_empty() { "nothing to compress".to_owned() } else { used.join(", ") };
    let mut out = format!("chosen by {by}: {used}");
    if let Some(point) = s.curve.get(s.chosen) {
        let loss = point.measured.map_or_else(String::new, |m| format!(", measured loss {m:.4}"));
        out += &format!("; point {} of {} of the curve{loss}", s.chosen + 1, s.curve.len());
    }
    if s.resumed > 0 {
        out += &format!("; {} measurements were in the log", s.resumed);
    }
    out
}

/// What became of every weight, for programs.
pub fn compression_json(c: &Report) -> serde_json::Value {
    let ((before, after), (bits_before, bits_after)) = (c.bytes(), c.bits_per_weight());
    let row = |r: &Row| {
        let applied = r.outcome.as_ref().ok();
        json!({
            "name": r.name,
            "type": r.ty,
            "readers": r.readers,
            "asked": r.asked.as_ref().map(|(s, _)| s.to_string()),
            "rule": r.asked.as_ref().map(|(_, rule)| rule),
            "scheme": applied.map(|a| a.scheme.to_string()),
            "adapted": applied.and_then(|a| a.adapted.clone()),
            "data_aware": applied.is_some_and(|a| a.aware_of.is_some()),
            "shared": applied.is_some_and(|a| a.shared_with.is_some()),
            "skipped": r.outcome.as_ref().err(),
            "bytes_before": r.bytes_before,
            "bytes_after": r.bytes_after,
            "mse": applied.map(|a| a.distortion.mse),
            "snr_db": applied.map(|a| a.distortion.snr_db),
            "cosine": applied.map(|a| a.distortion.cosine),
            "max_abs": applied.map(|a| a.distortion.max_abs),
        })
    };
    json!({
        "bytes_before": before,
        "bytes_after": after,
        "bits_per_weight_before": bits_before,
        "bits_per_weight_after": bits_after,
        "search": c.search,
        "weights": c.rows.iter().map(row).collect::<Vec<_>>(),
        "activation_samples": c.activations.as_ref().map(|a| a.samples),
        "activations": c.activations.as_ref().map(activations_json).unwrap_or_default(),
    })
}

/// What became of every activation, for programs.
fn activations_json(a: &activations::Report) -> Vec<serde_json::Value> {
    let row = |r: &activations::Row| {
        let c = r.outcome.as_ref().ok();
        json!({
            "name": r.name,
            "op": r.op,
            "type": r.ty,
            "readers": r.readers,
            "form": a.form.to_string(),
            "method": a.method.to_string(),
            "skipped": r.outcome.as_ref().err(),
            "min": c.map(|c| c.min),
            "max": c.map(|c| c.max),
            "lo": c.map(|c| c.lo),
            "hi": c.map(|c| c.hi),
            "scale": c.map(|c| c.affine.scale),
            "zero_point": c.map(|c| c.affine.zero_point),
            "saturated": c.map(|c| c.saturated),
            "snr_db": c.map(|c| c.snr_db),
        })
    };
    a.rows.iter().map(row).collect()
}
