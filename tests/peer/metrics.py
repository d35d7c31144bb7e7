#!/usr/bin/env python3
"""The figures of `mlconv verify` against NumPy's.

  tests/peer/metrics.py [--mlconv PATH] [--cases N] [--seed S]

A package that returns its input is compared with recorded outputs, so both sides of each comparison are arrays of this
program: random ones and nasty ones, with NaN, infinities, denormal numbers, zeros, huge and tiny numbers, integers, booleans
and text-like ties. Every figure of the report is computed anew from these arrays in double precision and must agree to 1e-6 of
itself; verdicts of thresholds must be NumPy's. Then models and samples go through onnx files, so that several samples are
pooled. Prints each case that fails; the last line is `N passed, M failed`. Needs onnx.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import onnx
from onnx import TensorProto, helper
from witnessing import Failed

KINDS = ("values", "logits", "probabilities", "boxes", "mask")


def mlconv(args, *words, status=(0, 1)):
    done = subprocess.run([args.mlconv, *map(str, words)], capture_output=True, text=True, timeout=600)
    if done.returncode not in status:
        raise Failed(f"exit {done.returncode} of {' '.join(map(str, words))}: {done.stderr[-400:]}")
    return done


def package(args, folder, dtype, shape):
    """A package that returns its input, in single precision."""
    path = os.path.join(folder, f"id-{dtype}-{'x'.join(map(str, shape))}.mlpackage")
    if not os.path.exists(path):
        onnx_type = {"f32": TensorProto.FLOAT, "f16": TensorProto.FLOAT16, "i32": TensorProto.INT32}[dtype]
        info = lambda n: helper.make_tensor_value_info(n, onnx_type, shape)
        graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [info("x")], [info("y")])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        source = path.replace(".mlpackage", ".onnx")
        onnx.save(model, source)
        mlconv(args, "convert", source, "-o", path, "--precision", "fp32", "--no-verify", "--force")
    return path


def db(signal, noise):
    if not noise > 0:
        return None
    with np.errstate(divide="ignore"):
        return max(10 * np.log10(signal / noise), -999.0)


def half_steps(a, b):
    with np.errstate(over="ignore"):
        bits = [x.astype(np.float16).view(np.int16).astype(np.int64) for x in (a, b)]
    place = lambda v: np.where(v < 0, -(v & 0x7FFF), v)
    return int(np.abs(place(bits[0]) - place(bits[1])).max(initial=0))


def softmax_log(rows):
    most = rows.max(-1, keepdims=True)
    return rows - most - np.log(np.exp(rows - most).sum(-1, keepdims=True))


LEAST = np.log(np.finfo(np.float64).tiny)


def term(p, q, off):
    """p ln(p / q) - p + q, where `off` is ln(p / q): little is left of it near 0 unless it is computed as a whole."""
    return p * max(np.expm1(-off) + off, 0.0) if p > 0 and off > LEAST else q


def masks(kind, x):
    """Which scores are masks, and up to which number: as far below 0 and below the greatest of their row as masks are."""
    if kind not in ("logits", "probabilities"):
        return np.full(x.shape, -np.inf)
    most = np.max(np.where(np.isnan(x), -np.inf, x), -1, keepdims=True)
    return np.broadcast_to(np.minimum(most - 5e3, -5e3), x.shape)


def task(kind, wants, gots, threshold):
    """Over samples of one shape."""
    out = dict(kl=None, kl_max=None, top1=None, top5=None, argmax=None, iou_mean=None, iou_min=None)
    shape = wants[0].shape
    if kind in ("logits", "probabilities") and shape:
        w, g = (np.concatenate([a.reshape(-1, shape[-1]) for a in all_]).astype(np.float64) for all_ in (wants, gots))
        bad = [np.isnan(a).any(-1) for a in (w, g)]
        best = [np.where(b, -1, np.where(np.isnan(a), -np.inf, a).argmax(-1)) for a, b in zip((w, g), bad)]
        same = best[0] == best[1]
        out["top1"] = same.mean()
        if shape[-1] > 5:
            rank = lambda row, at: (row > row[at]).sum() + (row[:at] == row[at]).sum()
            five = [s if i < 0 or j < 0 else rank(row, i) < 5 for row, i, j, s in zip(g, *best, same)]
            out["top5"] = np.mean(five)
        if len(shape) == 1 or (len(shape) == 2 and shape[0] == 1):
            out["argmax"] = same.mean()
        kls = []
        for p, q in zip(w, g):
            if kind == "logits":
                if any(np.isnan(a).any() or not np.isfinite(a.max()) for a in (p, q)):
                    continue
                p_log, q_log = softmax_log(p), softmax_log(q)
                off = p_log - np.maximum(q_log, LEAST)
                kls.append(sum(term(*t) for t in zip(np.exp(p_log), np.exp(q_log), off)))
            elif np.isfinite(p).all() and np.isfinite(q).all():
                p, q = np.maximum(p, 0), np.maximum(q, 0)
                log = lambda x: max(np.log(x), LEAST) if x > 0 else LEAST
                near = lambda a, b: np.log1p((a - b) / b) if b > 0 and abs(a - b) < b else log(a) - log(b)
                kls.append(sum(term(a, b, near(a, b)) for a, b in zip(p, q)))
        if kls:
            out["kl"], out["kl_max"] = np.mean(kls), max(kls)
    elif kind == "boxes" and shape and shape[-1] == 4:
        ious = []
        for want, got in zip(wants, gots):
            w, g = want.reshape(-1, 4).astype(np.float64), got.reshape(-1, 4).astype(np.float64)
            corners = not ((w[:, 2] < w[:, 0]) | (w[:, 3] < w[:, 1])).any()
            for a, b in zip(w, g):
                same = bool(((a == b) | (np.isnan(a) & np.isnan(b))).all())
                if not corners:
                    a, b = (np.array([x[0] - x[2] / 2, x[1] - x[3] / 2, x[0] + x[2] / 2, x[1] + x[3] / 2]) for x in (a, b))
                if not (np.isfinite(a).all() and np.isfinite(b).all()):
                    ious.append(float(same))
                    continue
                area = lambda x: max(x[2] - x[0], 0.0) * max(x[3] - x[1], 0.0)
                inside = area([max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])])
                union = area(a) + area(b) - inside
                ious.append(inside / union if union > 0 else float(same))
        out["iou_mean"], out["iou_min"] = np.mean(ious), min(ious)
    elif kind == "mask":
        pairs = [((w > threshold), (g > threshold)) for w, g in zip(wants, gots)]
        of = lambda i, u: i / u if u else 1.0
        out["iou_min"] = min(of((a & b).sum(), (a | b).sum()) for a, b in pairs)
        out["iou_mean"] = of(sum((a & b).sum() for a, b in pairs), sum((a | b).sum() for a, b in pairs))
    else:
        return None
    return out


def figures(kind, wants, gots, threshold=0.0, half=False):
    """What the report should say of samples `wants` and `gots`; `half` where the package computes in half precision."""
    per = []
    for want, got in zip(wants, gots):
        w, g = want.astype(np.float64).ravel(), got.astype(np.float64).ravel()
        limit = masks(kind, want.astype(np.float64)).ravel()
        finite = np.isfinite(w) & np.isfinite(g)
        hidden = finite & (w <= limit) & (g <= limit / 2)
        fine, mask = finite & ~hidden, (w <= limit)[finite & ~hidden]
        a, b = w[fine], g[fine]
        d = np.abs(a - b)
        full, a = a, np.where(mask, 0.0, a)
        per.append(dict(
            masked=int(hidden.sum()), d=d, a=a, b=b, full=full, max_abs=d.max(initial=0.0), greatest=np.abs(a).max(initial=0.0),
            rel=np.where(full != 0, d / np.where(full != 0, np.abs(full), 1), 0).max(initial=0.0),
            snr=db((a * a).sum(), (d * d).sum()),
            cosine=(a @ b) / (np.sqrt(a @ a) * np.sqrt(b @ b)) if a @ a > 0 and b @ b > 0 else None,
            non_finite=int((~finite & (w != g) & ~(np.isnan(w) & np.isnan(g))).sum()),
            nan=[int(np.isnan(x).sum()) for x in (w[~finite], g[~finite])],
            inf=[int(np.isinf(x).sum()) for x in (w[~finite], g[~finite])],
        ))
    cat = lambda key: np.concatenate([p[key] for p in per])
    least = lambda key: min((p[key] for p in per if p[key] is not None), default=None)
    d, a, b, full = cat("d"), cat("a"), cat("b"), cat("full")
    n, greatest, noise = max(len(d), 1), max(p["greatest"] for p in per), (d * d).sum()
    out = dict(
        count=sum(w.size for w in wants), max_abs=max(p["max_abs"] for p in per), greatest=greatest,
        max_rel=max(p["max_abs"] / p["greatest"] if p["greatest"] > 0 else p["max_abs"] for p in per),
        max_rel_elementwise=max(p["rel"] for p in per), mean_abs=d.sum() / n, rms=np.sqrt(noise / n),
        snr_db=least("snr"), overall_snr_db=db((a * a).sum(), noise), psnr_db=db(greatest**2, noise / n),
        cosine=least("cosine"),
        overall_cosine=(a @ b) / (np.sqrt(a @ a) * np.sqrt(b @ b)) if a @ a > 0 and b @ b > 0 else None,
        non_finite=sum(p["non_finite"] for p in per), masked=sum(p["masked"] for p in per),
        nan=[sum(p["nan"][i] for p in per) for i in (0, 1)], inf=[sum(p["inf"][i] for p in per) for i in (0, 1)],
        max_ulp=half_steps(full, b) if half or wants[0].dtype == np.float16 else None,
        unequal=None if wants[0].dtype.kind == "f" else sum(int((w != g).sum()) for w, g in zip(wants, gots)),
        kind=kind if kind != "values" or wants[0].dtype.kind == "f" else "integers",
        task=task(kind, wants, gots, threshold),
    )
    return out


def agree(path, found, want):
    if isinstance(want, dict):
        if not isinstance(found, dict):
            raise Failed(f"{path}: {found}, wanted {want}")
        for key, value in want.items():
            agree(f"{path}.{key}", found.get(key), value)
    elif isinstance(want, (list, tuple)):
        if list(found) != list(want):
            raise Failed(f"{path}: {found}, wanted {want}")
    elif want is None or isinstance(want, (str, bool, int, np.integer)) or found is None:
        if found != want:
            raise Failed(f"{path}: {found}, wanted {want}")
    elif np.isfinite(want):
        # Cosines near 1, and logarithms near 0, are differences of what is near each other.
        floor = 1e-12 if path.endswith(("cosine", "kl", "kl_max")) else 0.0
        if not abs(found - want) <= 1e-6 * abs(want) + floor + (1e-6 if path.endswith("db") else 0):
            raise Failed(f"{path}: {found}, wanted {want}")
    else:
        raise Failed(f"{path}: {found}, wanted {want}")


def numbers(rng, dtype, shape, style):
    if dtype == "i32":
        return rng.integers(-5, 5, shape).astype(np.int32)
    x = rng.standard_normal(shape)
    of = {"f32": np.float32, "f16": np.float16}[dtype]
    if style == "huge":
        x *= 1e38 if dtype == "f32" else 6e4
    if style == "denormal":
        x *= 1e-40 if dtype == "f32" else 3e-7
    if style == "zeros":
        x *= rng.random(shape) < 0.3
    with np.errstate(over="ignore"):
        x = x.astype(of)
    if style == "odd":
        for value in (np.nan, np.inf, -np.inf, -0.0):
            x[rng.random(shape) < 0.1] = value
    if style == "positive":
        x = np.abs(x) / np.maximum(np.abs(x).sum(-1, keepdims=True), of(1e-3))
    return x


def near(rng, x, style):
    """Something like `x`."""
    if x.dtype.kind != "f":
        return np.where(rng.random(x.shape) < 0.2, x + 1, x).astype(x.dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        y = (x.astype(np.float64) * (1 + rng.standard_normal(x.shape) * 10.0 ** rng.integers(-5, 0))).astype(x.dtype)
    if style == "odd":
        y = np.where(rng.random(x.shape) < 0.1, np.roll(x, 1), y).astype(x.dtype)
    if rng.random() < 0.1:
        y = x.copy()
    return y


SHAPES = [(1, 12), (7,), (3, 4), (2, 3, 4), (1, 3), (5000,), (2, 6, 5)]


def case(args, folder, rng, i):
    dtype = rng.choice(["f32", "f32", "f16", "i32"])
    style = rng.choice(["plain", "odd", "huge", "denormal", "zeros", "positive"])
    kind = rng.choice(KINDS) if dtype != "i32" else "values"
    shape = SHAPES[rng.integers(len(SHAPES))]
    count = int(rng.choice([1, 1, 3]))
    if kind == "boxes" and shape[-1] != 4:
        kind = "values"
    wants = [numbers(rng, dtype, shape, style) for _ in range(count)]
    gots = [near(rng, w, style) for w in wants]
    path, golden = package(args, folder, dtype, shape), os.path.join(folder, f"g{i}.npz")
    name = lambda what, k: f"{what}/{k}" if count > 1 else what
    np.savez(golden, **{name("input/x", k): g for k, g in enumerate(gots)},
             **{name("output/y", k): w for k, w in enumerate(wants)})
    words = ["verify", path, "--golden", golden, "--kind", f"y={kind}", "--format", "json"]
    told = f"{dtype} {style} {kind} {shape} x{count}"
    if not any((np.isfinite(w) & np.isfinite(g)).any() for w, g in zip(wants, gots)):
        # There may be nothing to compare, which is no verdict.
        return
    try:
        report = json.loads(mlconv(args, *words).stdout)
        found, want = report["outputs"][0], figures(kind, wants, gots)
        agree("", found, want)
        fine = [np.isfinite(w) & np.isfinite(g) for w, g in zip(wants, gots)]
        at = found["worst_sample"]
        d = abs(float(wants[at][tuple(found["worst_index"])]) - float(gots[at][tuple(found["worst_index"])]))
        if any(f.any() for f in fine) and found["max_abs"] > 0 and d != found["max_abs"]:
            raise Failed(f"worst_index: {d} there, not {found['max_abs']}")
        # Thresholds, on either side of what was found.
        close = all(np.allclose(g.astype(np.float64), w.astype(np.float64), rtol=1e-2, atol=1e-3, equal_nan=True)
                    for w, g in zip(wants, gots))
        verdict(args, words, ["--tolerance", "1e-3,1e-2"], close)
        # What is not finite in one only, and integers that are not equal, fail whatever the threshold.
        sound = want["non_finite"] == 0 and not want["unequal"]
        limits = []
        if dtype != "i32" and want["cosine"] is not None:
            limits += [("--min-cosine", want["cosine"], 1)]
        if dtype != "i32" and want["snr_db"] is not None:
            limits += [("--min-snr", want["snr_db"], 1)]
        if want["task"] and want["task"]["top1"] is not None:
            limits += [("--min-top1", want["task"]["top1"], 1)]
        if want["task"] and want["task"]["kl"] is not None:
            limits += [("--max-kl", want["task"]["kl"], -1)]
        for option, value, sign in limits:
            step = max(abs(value), 1e-3) * 1e-3
            for by, passes in ((-step, True), (step, False)):
                limit = value + sign * by
                bounds = {"--min-cosine": (-1, 1), "--min-top1": (0, 1), "--max-kl": (0, np.inf)}
                low, high = bounds.get(option, (-np.inf, np.inf))
                if low <= limit <= high and not (option == "--min-cosine" and want["snr_db"] is None):
                    verdict(args, words, [f"{option}={limit:.17g}"], sound and passes)
    except Failed as e:
        raise Failed(f"{told}: {e}") from None


def verdict(args, words, more, want):
    done = mlconv(args, *words, *more)
    if (done.returncode == 0) != want or json.loads(done.stdout)["pass"] != want:
        missed = [m for o in json.loads(done.stdout)["outputs"] for m in o["missed"]]
        raise Failed(f"{' '.join(more)}: exit {done.returncode}, wanted {'0' if want else '1'}; missed {missed}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mlconv", default="target/debug/mlconv")
    parser.add_argument("--cases", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    passed = failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for i in range(args.cases):
            try:
                case(args, folder, np.random.default_rng([args.seed, i]), i)
                passed += 1
            except Failed as e:
                failed += 1
                print(f"case {i}: {e}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
