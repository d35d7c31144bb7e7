#!/usr/bin/env python3
"""Export operators of PyTorch in many forms, convert and run them, and compare with what PyTorch computes.

  aten.py --mlconv BIN [--family NAME,…] [--only TEXT] [--format pt2,pt,script] [--precision fp32] [--keep FOLDER]

The cases lie in aten_cases/, a file for each family. A case is a function of tensors, its inputs, and optionally a
tolerance or `refused=TEXT`, a part of the diagnostic that must come instead. `formats=TEXT` names the formats that a
case is of, where it is not of all: `pt2` is an exported program, `pt` a traced module, `script` one that is compiled,
which only modules are that TorchScript can compile. The last line is `N passed, M failed`.
"""
import argparse, importlib, os, pathlib, subprocess, sys, tempfile, warnings
import numpy as np
import torch

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE))


class Wrapped(torch.nn.Module):
    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, *args):
        return self.f(*args)


def flat(result):
    if isinstance(result, torch.Tensor):
        return [result]
    if isinstance(result, (list, tuple)):
        return [t for r in result for t in flat(r)]
    return []


def plain(t):
    a = t.detach().to(torch.float32).numpy() if t.dtype in (torch.bfloat16, torch.float16) else t.detach().numpy()
    return a.astype(np.int32) if a.dtype == np.int64 else a.astype(np.float32) if a.dtype == np.float64 else a


def differs(want, got, case):
    if want.shape != got.shape and not (want.shape == () and got.shape == (1,)):
        return f"shape {got.shape}, wanted {want.shape}"
    want = want.reshape(got.shape)
    if want.dtype.kind in "iub":
        bad = int(np.sum(want.astype(np.int64) != got.astype(np.int64)))
        return f"{bad} of {want.size} integers differ: {want.ravel()[:8]} {got.ravel()[:8]}" if bad else None
    if not np.array_equal(np.isnan(want), np.isnan(got)):
        return f"NaN elsewhere: {want.ravel()[:8]} {got.ravel()[:8]}"
    infinite = np.isinf(want) | np.isinf(got)
    if not np.array_equal(want[infinite], got[infinite]):
        return f"infinities differ: {want.ravel()[:8]} {got.ravel()[:8]}"
    at = np.isfinite(want) & np.isfinite(got)
    scale = max(float(np.max(np.abs(want[at]), initial=0)), 1e-30)
    worst = float(np.max(np.abs(want[at] - got[at]), initial=0))
    ok = np.allclose(got[at], want[at], rtol=case.get("rtol", 1e-4), atol=case.get("atol", 2e-5) * scale)
    return None if ok else f"max abs difference {worst:.3g} of {scale:.3g}"


def exported(case, fmt, model, inputs, path):
    """Writes the model; whether there is one in this format."""
    if fmt == "pt2":
        program = torch.export.export(model, tuple(inputs), dynamic_shapes=case.get("dynamic"))
        if case.get("decompose"):
            program = program.run_decompositions()
        torch.export.save(program, path)
        return True
    if fmt == "script" and isinstance(model, Wrapped):
        return False
    try:
        made = torch.jit.trace(model, tuple(inputs), check_trace=False) if fmt == "pt" else torch.jit.script(model)
        made.save(path)
    except Exception:
        # TorchScript has no such thing.
        return False
    return True


def is_of(case, fmt):
    """Whether a case is run in a format: what is said of shapes, or of how programs are exported, is for these alone."""
    if fmt == "pt2":
        return "pt2" in case.get("formats", "pt2").split(",")
    only_tensors = all(isinstance(t, torch.Tensor) for t in case["inputs"])
    return fmt in case.get("formats", fmt).split(",") and only_tensors and not case.get("dynamic") and not case.get("decompose")


def run(args, family, case, folder, fmt):
    f, inputs = case["f"], case["inputs"]
    model = f if isinstance(f, torch.nn.Module) else Wrapped(f)
    model.eval()
    path = folder / f"{family}-{case['name']}.{fmt}"
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not exported(case, fmt, model, inputs, path):
            return "-"
        given = case.get("run", inputs)
        want = [plain(t) for t in flat(model(*[t.clone() if isinstance(t, torch.Tensor) else t for t in given]))]
    sample, package, out = (folder / f"{path.name}.{e}" for e in ("npz", "mlpackage", "out.npz"))
    # Half precision is said by the array, where the file does not say it.
    array = plain if fmt == "pt2" else lambda t: t.numpy() if t.dtype == torch.float16 else plain(t)
    np.savez(sample, **{f"in_{i:03}": array(t) for i, t in enumerate(given) if isinstance(t, torch.Tensor)})
    # The file of an exported program says what its inputs are; others do not.
    shapes = [] if fmt == "pt2" else ["--sample", sample]
    r = subprocess.run([args.mlconv, "convert", path, "-o", package, "--precision", args.precision, "--target",
                        case.get("target", args.target), "--no-verify", "--quiet", "--force", *shapes], capture_output=True, text=True, timeout=300)
    refused = case.get("refused")
    if refused:
        return None if r.returncode == 2 and refused in r.stderr else f"not refused with `{refused}`: {r.stderr[:200]}"
    if r.returncode != 0:
        return f"convert: {(r.stderr.strip() or r.returncode)}"[:400]
    r = subprocess.run([args.mlconv, "run", package, "--inputs", sample, "--outputs", out, "--quiet"], capture_output=True, text=True, timeout=300)
    if r.returncode != 0:
        return f"run: {r.stderr.strip()}"[:400]
    with np.load(out) as z:
        got = [z[k] for k in z.files]
    if len(got) != len(want):
        return f"{len(got)} outputs, wanted {len(want)}"
    for i, (w, g) in enumerate(zip(want, got)):
        if why := differs(w, g, case):
            return f"out {i}: {why}"
    return None


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--mlconv", required=True)
    p.add_argument("--family", default="")
    p.add_argument("--only", default="")
    p.add_argument("--format", default="pt2,pt,script")
    p.add_argument("--precision", default="fp32")
    p.add_argument("--target", default="ios18")
    p.add_argument("--keep")
    args = p.parse_args()
    torch.manual_seed(0)
    names = args.family.split(",") if args.family else sorted(f.stem for f in (HERE / "aten_cases").glob("[a-z]*.py"))
    cases = [(n, c) for n in names for c in importlib.import_module(f"aten_cases.{n}").CASES if args.only in c["name"]]
    twice = {f"{n}-{c['name']}" for i, (n, c) in enumerate(cases) if any(m == n and d["name"] == c["name"] for m, d in cases[:i])}
    assert not twice, f"cases of one name: {twice}"
    jobs = [(n, c, fmt) for n, c in cases for fmt in args.format.split(",") if is_of(c, fmt)]
    passed = failed = 0
    with tempfile.TemporaryDirectory() as tmp:
        folder = pathlib.Path(args.keep or tmp)
        os.makedirs(folder, exist_ok=True)

        def guarded(job):
            try:
                return run(args, job[0], job[1], folder, job[2])
            except Exception as e:
                return f"{type(e).__name__}: {e}"[:400]

        # Exporting is not safe to do in threads at once, and takes most of the time.
        for job in jobs:
            why = guarded(job)
            if why == "-":
                continue
            passed, failed = (passed + 1, failed) if why is None else (passed, failed + 1)
            if why:
                print(f"{job[0]}-{job[1]['name']}.{job[2]}: {why.splitlines()[0]}", flush=True)
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed != 0)


if __name__ == "__main__":
    main()
