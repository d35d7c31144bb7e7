#!/usr/bin/env python3
"""The verdict and the figures of `mlconv verify` on whole models, against NumPy's.

  tests/peer/verify.py [--mlconv PATH] [--jobs N] [--only TEXT] [--every N] [--precision fp16|fp32] FOLDER…

Every model.onnx, model.pt2 and model.pt below the folders that has an io.npz beside it is converted, and verified on the arrays
`in_…` of that. Then `mlconv run` runs the package, and the source on the reference kernels, on the same arrays, and what NumPy says
of these outputs is compared with the report: every figure must agree to 1e-6 of itself, the verdict of every output must be
that of the documented rule, and so must the exit status; with `--tolerance`, too, and with a `--min-snr` on either side of what was
found. What is `null` in the report must have no value in NumPy either: a signal over
noise without noise, the cosine of zeros, steps of half precision where none is computed in, counts of what is no integer.
`--every N` takes one model of N. Prints each case that fails; the last line is `N passed, M failed`.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
from metrics import agree, figures
from witnessing import Failed, files_below, run_all

TARGET = ["--target", "ios18"]


def mlconv(args, *words, status=(0,)):
    done = subprocess.run([args.mlconv, *map(str, words)], capture_output=True, text=True, timeout=600)
    if done.returncode not in status:
        raise Failed(f"exit {done.returncode} of {' '.join(map(str, words))}: {done.stderr[-400:]}")
    return done


def sample(path, folder):
    """The arrays `in_…` of the io.npz beside a model, of types that a package takes."""
    fits = {"int64": np.int32, "float64": np.float32}
    with np.load(os.path.join(os.path.dirname(path), "io.npz")) as z:
        names = sorted((k for k in z.files if k.startswith("in_")), key=lambda k: int(k[3:]))
        arrays = {f"in_{i:03}": z[k].astype(fits.get(z[k].dtype.name, z[k].dtype)) for i, k in enumerate(names)}
    out = os.path.join(folder, "in.npz")
    np.savez(out, **arrays)
    return out


def outputs(args, model, given, folder, *more):
    out = os.path.join(folder, "out.npz")
    mlconv(args, "run", model, "--inputs", given, "--outputs", out, "--quiet", *more)
    with np.load(out) as z:
        return [z[k] for k in z.files]


def has_halves(args, package):
    report = json.loads(mlconv(args, "inspect", package, "--format", "json").stdout)
    return any(p["dtype"] == "f16" for f in report["functions"] for p in f["costs"]["precision"])


def passes(want, figures, tolerance):
    """The documented rule, where no thresholds are given."""
    if figures["non_finite"]:
        return False
    if want.dtype.kind != "f":
        return figures["unequal"] == 0
    snr = figures["snr_db"]
    if figures["greatest"] > 0:
        near = figures["max_rel"] <= tolerance["max_rel"]
    else:
        # Zeros are held to what the element type can tell from them.
        half = tolerance["max_rel"] >= 1e-2
        near = figures["max_abs"] <= (float(np.finfo(np.float16).tiny) if half else 1e-3 * tolerance["max_rel"])
    return snr is None or snr >= tolerance["min_snr_db"] or near


def compare(report, wants, gots, half):
    """Holds a report against the outputs of the source and of the package; whether all outputs are within the tolerance."""
    tolerance = report["tolerance"]
    # Long sums explain more in single precision, but never more than half precision has.
    least, most = (40.0, 40.0) if half else (40.0, 80.0)
    if not least <= tolerance["min_snr_db"] <= most or not 10 ** (-most / 20) <= tolerance["max_rel"] * 1.0001 <= 0.0101:
        raise Failed(f"the tolerance is {tolerance}, of a package {'in' if half else 'without'} half precision")
    if not len(report["outputs"]) == len(wants) == len(gots):
        raise Failed(f"{len(report['outputs'])} outputs in the report, {len(wants)} of the source, {len(gots)} of the package")
    whole = True
    for found, want, got in zip(report["outputs"], wants, gots):
        want = want.reshape(got.shape) if want.size == got.size == 1 else want
        if want.shape != got.shape:
            raise Failed(f"{found['name']}: shape {got.shape}, wanted {want.shape}; the report says {found['mismatch']}")
        # What a mask is above follows from the op that makes it.
        thresholds, at = ((0.0, 0.5) if found["kind"] == "mask" else (0.0,)), []
        for threshold in thresholds:
            said = figures(found["kind"], [want], [got], threshold, half and got.dtype.kind == "f")
            try:
                agree(found["name"], found, said)
                break
            except Failed as e:
                at.append(e)
        if len(at) == len(thresholds):
            raise at[0]
        fine = found["drawn"] or passes(want, said, tolerance)
        if found["pass"] != fine:
            raise Failed(f"{found['name']} {'passes' if found['pass'] else 'fails'}, by the rule it must not: {found['missed']}")
        whole &= fine
    return whole


def thresholds(judged):
    """Options, and whether outputs hold by them."""
    wide = lambda a: a.astype(np.float64)
    close = all(np.allclose(wide(got), wide(want), rtol=1e-3, atol=1e-5, equal_nan=True) for _, want, got in judged)
    yield ["--tolerance", "1e-5,1e-3"], close
    sound = all(o["non_finite"] == 0 and not o["unequal"] for o, _, _ in judged)
    snrs = [o["snr_db"] for o, want, _ in judged if want.dtype.kind == "f" and o["snr_db"] is not None]
    if snrs:
        yield [f"--min-snr={min(snrs) - 1e-6:.17g}"], sound
        yield [f"--min-snr={min(snrs) + 1e-6:.17g}"], False


def found(args, path):
    with tempfile.TemporaryDirectory() as folder:
        given, package = sample(path, folder), os.path.join(folder, "m.mlpackage")
        words = ["convert", path, "-o", package, "--precision", args.precision, "--no-verify", "--quiet", "--sample", given, *TARGET]
        if mlconv(args, *words, status=(0, 1, 2)).returncode == 2:
            return "not converted"
        words = ["verify", package, "--against", path, "--sample", given, "--source-runtime", "lowering", "--format", "json"]
        done = mlconv(args, *words, status=(0, 1, 2))
        report = json.loads(done.stdout)
        if done.returncode == 2:
            if [e["code"] for e in report["errors"]] != ["N0007"]:
                raise Failed(f"exit 2: {report['errors']}")
            if any(np.isfinite(o).any() for o in outputs(args, path, given, folder, "--backend", "reference", *TARGET)):
                raise Failed("outputs are finite, and not compared")
            return "not compared"
        wants = outputs(args, path, given, folder, "--backend", "reference", *TARGET)
        gots = outputs(args, package, given, folder)
        whole = compare(report, wants, gots, has_halves(args, package))
        if (done.returncode == 0) != whole or report["pass"] != whole:
            raise Failed(f"exit {done.returncode}, `pass` is {report['pass']}, by the rule it must be {whole}")
        judged = [(o, w.reshape(g.shape), g) for o, w, g in zip(report["outputs"], wants, gots) if not o["drawn"]]
        for options, fine in thresholds(judged):
            done = mlconv(args, *words, "--quick", *options, status=(0, 1))
            if (done.returncode == 0) != fine or json.loads(done.stdout)["pass"] != fine:
                raise Failed(f"exit {done.returncode} with {' '.join(options)}, wanted {'0' if fine else '1'}")
        return "within the tolerance" if whole else "beyond the tolerance"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mlconv", default="target/release/mlconv")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--only", default="")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--precision", default="fp16", choices=["fp16", "fp32"])
    parser.add_argument("folders", nargs="+")
    args = parser.parse_args()
    args.mlconv = os.path.abspath(args.mlconv)
    names = ("model.onnx", "model.pt2", "model.pt")
    paths = [p for p in files_below(args.folders, names) if os.path.exists(os.path.join(os.path.dirname(p), "io.npz"))]
    return run_all(args, found, paths[::args.every], [], {})


if __name__ == "__main__":
    sys.exit(main())
