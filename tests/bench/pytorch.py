#!/usr/bin/env python3
"""Converts exported programs of PyTorch with mlconv and with coremltools, in turns, and compares time and memory.

  tests/bench/pytorch.py [--mlconv target/release/mlconv] [--models resnet50,llama_24] [--runs 5] [--peer-runs 1] [--markdown]

Both read the same `.pt2` and write a package of half precision for iOS 18. The time of mlconv is that of the whole process,
without the parity run, which coremltools has no counterpart of. That of coremltools is the call of `coremltools.convert`
alone; its import, that of torch, the loading of the file with the decomposition that it asks for, and the saving of the package
are apart. Peak memory is `ru_maxrss` of the process, which for mlconv includes the pages of the mapped file. Where coremltools does
not convert the exported program, `torch.jit.trace` of the same model is measured in its place, and the first words of the
error are shown. Needs the Python packages torch and coremltools; `torch_models.py` makes the models.

A model passes where mlconv is 50 times as fast as that call, with less than a quarter of the memory.
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, here)

TIMES, PART = 50, 4


def make(name, path):
    import torch

    import torch_models

    model, inputs = torch_models.model(name)
    start = time.perf_counter()
    program = torch.export.export(model, inputs)
    exported = time.perf_counter()
    torch.export.save(program, path)
    print(json.dumps({"export": exported - start, "save": time.perf_counter() - exported}))


def peer(name, path, out):
    start = time.perf_counter()
    import torch
    import coremltools as ct

    marks = [("import", time.perf_counter() - start)]

    def marked(what, do):
        start = time.perf_counter()
        result = do()
        marks.append((what, time.perf_counter() - start))
        return result

    target = dict(convert_to="mlprogram", minimum_deployment_target=ct.target.iOS18, skip_model_load=True)
    refusal = None
    try:
        program = marked("load", lambda: torch.export.load(path).run_decompositions({}))
        package = marked("convert", lambda: ct.convert(program, **target))
    except Exception as e:
        refusal = f"{type(e).__name__}: {e}".splitlines()[0][:120]
        del marks[1:]
        import torch_models

        model, inputs = torch_models.model(name)
        traced = marked("load", lambda: torch.jit.trace(model, inputs))
        types = [ct.TensorType(shape=x.shape, dtype=x.numpy().dtype if x.dtype != torch.int64 else "int32") for x in inputs]
        try:
            package = marked("convert", lambda: ct.convert(traced, inputs=types, **target))
        except Exception as again:
            both = f"{refusal}; traced: {type(again).__name__}: {again}".splitlines()[0][:240]
            print(json.dumps({"refusal": both}))
            return
    marked("save", lambda: package.save(out))
    print(json.dumps({"refusal": refusal, **dict(marks)}))


def timed(command):
    """Seconds, peak memory in bytes, and the last line of output of a whole process."""
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    said = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    if status != 0:
        sys.exit(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - start, usage.ru_maxrss * 1024, said.strip().rpartition("\n")[2]


def compare(name, args):
    at = lambda suffix: os.path.join(args.folder, f"{name}{suffix}")
    itself = [sys.executable, os.path.abspath(__file__)]
    source, package = at(".pt2"), at(".mlpackage")
    export = json.loads(timed([*itself, "--make", name, source])[2])
    convert = [args.mlconv, "convert", source, "-o", package, "--target", "ios18", "--no-verify", "--quiet", "--force"]
    ours, theirs = [timed(convert)[:2]], []
    for turn in range(max(args.runs, args.peer_runs)):
        if turn < args.peer_runs:
            _, peak, said = timed([*itself, "--peer", name, source, at("-peer.mlpackage")])
            theirs.append((json.loads(said), peak))
            shutil.rmtree(at("-peer.mlpackage"), ignore_errors=True)
        if turn < args.runs:
            ours.append(timed(convert)[:2])
    # The first run brought the file into the page cache.
    seconds, peak = statistics.median(s for s, _ in ours[1:]), max(p for _, p in ours)
    row = {"model": name, "size": os.path.getsize(source), "export": export["export"], "seconds": seconds, "peak": peak}
    refusal = theirs[0][0]["refusal"]
    if "convert" in theirs[0][0]:
        for part in ("import", "load", "convert", "save"):
            row[part] = statistics.median(t[part] for t, _ in theirs)
        row["peer_peak"] = max(p for _, p in theirs)
    shutil.rmtree(package)
    if not args.keep:
        os.remove(source)
    return row, refusal


def main():
    modes = {"--make": make, "--peer": peer}
    if sys.argv[1:2] and sys.argv[1] in modes:
        return modes[sys.argv[1]](*sys.argv[2:])
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--mlconv", default="target/release/mlconv")
    p.add_argument("--models", default="resnet50,mobilenet_v2,vit_b_16,bert_base,llama_24")
    p.add_argument("--runs", type=int, default=5)
    p.add_argument("--peer-runs", type=int, default=1)
    p.add_argument("--folder", default="target/bench")
    p.add_argument("--keep", action="store_true", help="keep the exported programs")
    p.add_argument("--markdown", action="store_true", help="print the rows of docs/benchmarks.md")
    args = p.parse_args()
    os.makedirs(args.folder, exist_ok=True)
    missed = 0
    for name in filter(None, args.models.split(",")):
        row, refusal = compare(name, args)
        mb = lambda key: f"{row[key] / 1e6:.0f} MB"
        cells = [name, mb("size"), f"{row['seconds']:.3f} s", mb("peak")]
        if "convert" in row:
            times, part = row["convert"] / row["seconds"], row["peer_peak"] / row["peak"]
            good = times >= TIMES and part > PART
            cells += [f"{row[k]:.1f} s" for k in ("import", "load", "convert", "save")]
            cells += [mb("peer_peak"), f"{times:.0f}", f"{part:.1f}"]
        else:
            good = True
            cells += ["refused"] + [""] * 6
        cells.append(f"{row['export']:.1f} s")
        missed += not good
        print("| " + " | ".join(cells) + " |" if args.markdown else "  ".join(cells) + ("" if good else "  MISSED"), flush=True)
        if refusal:
            print(f"  {name}: coremltools refuses the exported program: {refusal}", file=sys.stderr, flush=True)
    sys.exit(missed > 0)


main()
