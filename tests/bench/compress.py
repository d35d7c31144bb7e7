#!/usr/bin/env python3
"""Compresses models with mlconv and with coremltools, and compares time, memory, and the error of each weight.

  tests/bench/compress.py [--mlconv PATH] [--models resnet50,bert] [--schemes int8,pal4] [--quick] [--json FILE]

See README.md beside this file. The exit status is 1 where a bound is missed.
"""
import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

here = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [here, os.path.join(here, "..", "peer")]
import models

# How many times as fast as coremltools each scheme has to be.
BOUNDS = {
    "int8": 20,
    "int4-b32": 20,
    "prune50": 20,
    "pal4": 50,
    "pal6": 50,
    "pal8": 50,
    "pal4-g16": 50,
    "pal6-g16": 50,
    "pal4-v2": 10,
}
QUICK = ["int8", "int4-b32", "prune50", "pal4"]
THRESHOLD = 2048
# Memory beside what is read and what is written.
SPARE = 128e6
# An error counts as the peer's where it is greater by no more than this part, or than this part of the mean square.
WORSE, TINY = 1e-6, 1e-12


def peer_config(coreml, scheme):
    """The function of coremltools that does what `scheme` says, and its configuration."""
    if scheme == "int8":
        return coreml.linear_quantize_weights, coreml.OpLinearQuantizerConfig(
            mode="linear_symmetric", dtype="int8", granularity="per_channel", weight_threshold=THRESHOLD
        )
    if scheme == "int4-b32":
        return coreml.linear_quantize_weights, coreml.OpLinearQuantizerConfig(
            mode="linear_symmetric", dtype="int4", granularity="per_block", block_size=32, weight_threshold=THRESHOLD
        )
    if scheme.startswith("prune"):
        return coreml.prune_weights, coreml.OpMagnitudePrunerConfig(
            target_sparsity=int(scheme[5:]) / 100, weight_threshold=THRESHOLD
        )
    bits, *words = scheme[3:].split("-")
    options = {}
    for word in words:
        if word[0] == "g":
            options |= {"granularity": "per_grouped_channel", "group_size": int(word[1:])}
        else:
            options |= {"cluster_dim": int(word[1:])}
    return coreml.palettize_weights, coreml.OpPalettizerConfig(
        mode="kmeans", nbits=int(bits), weight_threshold=THRESHOLD, **options
    )


def peer_process(package, scheme, out):
    """Compresses with coremltools; says how long it took from after the import until all is saved."""
    import packages  # noqa: F401, which silences coremltools
    import coremltools as ct
    import coremltools.optimize.coreml as coreml

    start = time.perf_counter()
    model = ct.models.MLModel(package, skip_model_load=True)
    compress, config = peer_config(coreml, scheme)
    compress(model, coreml.OptimizationConfig(global_config=config)).save(out)
    print(json.dumps({"seconds": time.perf_counter() - start}))


def run(command, limit=None):
    """A whole process: seconds, peak of resident memory in bytes, what it printed, and seconds of processors.

    None where it was stopped.

    This process has to stay small: Linux counts its memory as that of a child until the child has begun its own program.
    So whatever needs coremltools or numpy is done in processes of its own.
    """
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as errors:
        start = time.perf_counter()
        child = subprocess.Popen(command, stdout=said, stderr=errors)
        while True:
            # Waiting without a limit costs nothing; with one, a poll may be late by so much.
            pid, status, usage = os.wait4(child.pid, 0 if limit is None else os.WNOHANG)
            if pid:
                break
            if time.perf_counter() - start > limit:
                child.kill()
                os.wait4(child.pid, 0)
                child.returncode = -9
                return None
            time.sleep(0.05)
        seconds = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        errors.seek(0)
        if child.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} ended with {child.returncode}: {errors.read()[-2000:]}")
        return seconds, usage.ru_maxrss * 1024, said.read(), usage.ru_utime + usage.ru_stime


def errors_of(original, compressed):
    """The mean squared error of each weight, with its name and mean square; None where it is not compressed."""
    import packages

    numpy = packages.np
    before, after = (packages.parameters(packages.program(p)) for p in (original, compressed))
    if [kind for kind, _ in before] != [kind for kind, _ in after]:
        raise RuntimeError(f"{compressed} has other weights than {original}")
    found = []
    for i, ((kind, a), (_, b)) in enumerate(zip(before, after)):
        name = f"{kind}[{i}] {list(a.shape)}"
        if not packages.constexpr(b):
            found.append((name, None, None))
            continue
        w, d = packages.decoded(a), packages.decoded(b)
        if w.shape != d.shape:
            raise RuntimeError(f"{compressed}: {name} decodes to {list(d.shape)}")
        # Row by row, so that no copy in double precision of a whole weight is made.
        squares = [0.0, 0.0]
        rows = max(1, (1 << 22) // max(1, w[0].size))
        for at in range(0, len(w), rows):
            part = w[at : at + rows].astype(numpy.float64)
            squares[0] += float(((d[at : at + rows].astype(numpy.float64) - part) ** 2).sum())
            squares[1] += float((part**2).sum())
        found.append((name, squares[0] / w.size, squares[1] / w.size))
    return found


def errors(original, compressed):
    """`errors_of`, in a process of its own."""
    return json.loads(run([sys.executable, os.path.abspath(__file__), "--errors", original, compressed])[2])


def once_peer(package, scheme, args, folder):
    """A run of the peer: seconds of the work, of the whole process, its peak memory, and seconds of processors."""
    out = os.path.join(folder, "peer.mlpackage")
    shutil.rmtree(out, ignore_errors=True)
    os.sync()
    got = run([sys.executable, os.path.abspath(__file__), "--peer-process", package, scheme, out], args.peer_limit)
    return got and (json.loads(got[2].splitlines()[-1])["seconds"], *got[:2], got[3])


def result_of_peer(package, runs, args, folder):
    if None in runs:
        nothing = dict.fromkeys(["whole", "cpu", "peak", "size", "errors"])
        return {"seconds": args.peer_limit, "stopped": True, **nothing}
    out = os.path.join(folder, "peer.mlpackage")
    return {
        "seconds": statistics.median(r[0] for r in runs),
        "stopped": False,
        "whole": statistics.median(r[1] for r in runs),
        "peak": max(r[2] for r in runs),
        "cpu": statistics.median(r[3] for r in runs),
        "size": size_of(out),
        "errors": errors(package, out),
    }


def size_of(package):
    """Bytes of all its files."""
    return sum(os.path.getsize(os.path.join(folder, f)) for folder, _, files in os.walk(package) for f in files)


def cached(args, model, scheme):
    """Where the peer's result is kept, and the result where it is there and serves."""
    if not args.peer_cache:
        return None, None
    path = os.path.join(args.peer_cache, f"{model}-{scheme}.json")
    if not os.path.exists(path):
        return path, None
    with open(path, encoding="utf-8") as f:
        known = json.load(f)
    # A run that was stopped says nothing about a longer one.
    return path, None if known["stopped"] and known["seconds"] < (args.peer_limit or float("inf")) else known


def case(model, scheme, args, folder):
    package = os.path.join(args.folder, f"{model}.mlpackage")
    if not os.path.exists(package):
        run([sys.executable, os.path.abspath(__file__), "--make", model, args.folder])
    out = os.path.join(folder, "ours.mlpackage")
    command = [args.mlconv, "compress", package, "-o", out, "--preset", scheme, "--no-verify", "--quiet"]
    command += ["--weight-threshold", str(THRESHOLD)]
    cache, peer = cached(args, model, scheme)
    was_cached = peer is not None
    ours, theirs = [], []
    # The runs of both alternate, so that other work on the machine meets both.
    for i in range(max(args.runs, args.peer_runs)):
        if i < args.runs:
            shutil.rmtree(out, ignore_errors=True)
            os.sync()
            ours.append(run(command))
        if not was_cached and i < args.peer_runs and None not in theirs:
            theirs.append(once_peer(package, scheme, args, folder))
    if not was_cached:
        peer = result_of_peer(package, theirs, args, folder)
        if cache:
            os.makedirs(args.peer_cache, exist_ok=True)
            with open(cache, "w", encoding="utf-8") as f:
                json.dump(peer, f)

    seconds, peak, size = statistics.median(r[0] for r in ours), max(r[1] for r in ours), size_of(out)
    allowed = size_of(package) + size + SPARE
    row = {
        "model": model,
        "scheme": scheme,
        "seconds": seconds,
        "seconds_of_runs": [r[0] for r in ours],
        "cpu": statistics.median(r[3] for r in ours),
        "peer_seconds": peer["seconds"],
        "peer_whole": peer["whole"],
        "peer_cpu": peer.get("cpu"),
        "peer_stopped": peer["stopped"],
        "peer_cached": was_cached,
        "times": peer["seconds"] / seconds,
        "bound": BOUNDS[scheme],
        "peak": peak,
        "peak_bound": allowed,
        "peer_peak": peer["peak"],
        "size": size,
        "peer_size": peer["size"],
        "missed": [],
        "worse": [],
    }
    if row["times"] < row["bound"]:
        # Nothing is known where the peer was stopped before the bound.
        row["missed"].append("unknown" if peer["stopped"] else "time")
    if peak > allowed:
        row["missed"].append("memory")
    if peer["errors"]:
        compare(row, errors(package, out), peer["errors"])
    shutil.rmtree(out, ignore_errors=True)
    return row


def compare(row, ours, theirs):
    ratios, total, peer_total = [], 0.0, 0.0
    for (name, a, square), (_, b, _) in zip(ours, theirs):
        if b is None:
            # Where the peer leaves a weight as it is, whatever is done is more than it does.
            continue
        if a is None:
            row["worse"].append(f"{name} is not compressed")
            continue
        total, peer_total = total + a, peer_total + b
        ratios.append(a / b if b > 0 else (1.0 if a <= TINY * square else float("inf")))
        if a > b * (1 + WORSE) + TINY * square:
            row["worse"].append(f"{name}: {a:.9e}, the peer's is {b:.9e}")
    row["tensors"] = len(ratios)
    row["error_ratio"] = total / peer_total if peer_total > 0 else 1.0
    row["worst_error_ratio"] = max(ratios, default=1.0)
    if row["worse"]:
        row["missed"].append("error")


HEADINGS = ["model", "scheme", "mlconv", "cpu", "peer", "whole", "times", "bound", "peak", "allowed", "peer's", "size", "peer's"]
HEADINGS += ["error", "worst", "result"]


def line(r):
    mb = lambda n: "-" if n is None else f"{n / 1e6:.0f} MB"
    peer = f"{'>' if r['peer_stopped'] else ''}{r['peer_seconds']:.1f} s{' *' if r['peer_cached'] else ''}"
    error = [f"{r[k]:.6f}" if k in r else "-" for k in ("error_ratio", "worst_error_ratio")]
    return [
        *(r["model"], r["scheme"], f"{r['seconds']:.2f} s", f"{r['cpu']:.2f} s", peer),
        "-" if r["peer_whole"] is None else f"{r['peer_whole']:.1f} s",
        *(f"{'>' if r['peer_stopped'] else ''}{r['times']:.1f}", str(r["bound"])),
        *(mb(r[k]) for k in ("peak", "peak_bound", "peer_peak", "size", "peer_size")),
        *(*error, ", ".join(r["missed"]) or "ok"),
    ]


def main():
    if sys.argv[1:2] == ["--peer-process"]:
        return peer_process(*sys.argv[2:])
    if sys.argv[1:2] == ["--errors"]:
        return print(json.dumps(errors_of(*sys.argv[2:])))
    if sys.argv[1:2] == ["--make"]:
        return print(models.make(*sys.argv[2:]))
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--mlconv", default="target/release/mlconv")
    p.add_argument("--models", default="resnet50,bert", help="`resnet50`, `bert`, or one distribution as `bert-heavy`")
    p.add_argument("--schemes", default=",".join(BOUNDS))
    p.add_argument("--quick", action="store_true", help="resnet50 with the schemes that take coremltools seconds")
    p.add_argument("--runs", type=int, default=5, help="runs of mlconv; the median counts")
    p.add_argument("--peer-runs", type=int, default=1)
    p.add_argument("--peer-limit", type=float, metavar="SECONDS", help="stop coremltools then; its time counts as that")
    p.add_argument("--peer-cache", metavar="DIR", help="keep what coremltools did, and do not run it again")
    p.add_argument("--folder", default="target/bench/compress", help="where models and results are put")
    p.add_argument("--json", metavar="FILE", help="write all figures there")
    args = p.parse_args()
    if args.quick:
        args.models, args.schemes = "resnet50", ",".join(QUICK)
    names = []
    for m in args.models.split(","):
        names += [m] if "-" in m else [f"{m}-{kind}" for kind in models.KINDS]
    schemes = args.schemes.split(",")
    unknown = [s for s in schemes if s not in BOUNDS]
    if unknown:
        p.error(f"no such scheme: {', '.join(unknown)}")
    os.makedirs(args.folder, exist_ok=True)

    rows = []
    layout = "{:<15} {:<9} {:>7} {:>7} {:>10} {:>7} {:>7} {:>5} {:>7} {:>8} {:>8} {:>7} {:>7} {:>9} {:>9}  {}"
    print(layout.format(*HEADINGS), flush=True)
    for model in names:
        for scheme in schemes:
            with tempfile.TemporaryDirectory(dir=args.folder) as folder:
                rows.append(case(model, scheme, args, folder))
            print(layout.format(*line(rows[-1])), flush=True)
            for worse in rows[-1]["worse"][:5]:
                print(f"  {worse}", flush=True)
    if args.json:
        machine = {"processor": platform.processor(), "cores": os.cpu_count(), "system": platform.platform()}
        with open(args.json, "w", encoding="utf-8") as f:
            json.dump({"machine": machine, "rows": rows}, f, indent=1)
    missed = sum(bool(r["missed"]) for r in rows)
    print("peer: from after its import until all is saved; whole: its whole process; cpu: of all processors, which other work touches less")
    print("error: mean squared error as a part of the peer's, over all weights and for the worst; * kept from before")
    print(f"{len(rows) - missed} passed, {missed} failed")
    return missed > 0


if __name__ == "__main__":
    sys.exit(main())
