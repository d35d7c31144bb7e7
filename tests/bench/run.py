#!/usr/bin/env python3
"""Runs models with mlconv and with onnxruntime, each in whole processes and in turns, and converts transformers of growing depth.

  tests/bench/run.py [--mlconv PATH] [--models resnet50,transformer-12] [--depths 6,12,24,48] [--runs 7] [--markdown]

A model is run as ONNX and as the package that mlconv makes of it, in single precision and in half precision. The time of
onnxruntime is that of its session and of one run with two threads, without the start of Python and its imports; the time of
mlconv is that of the whole process, outputs written. The outputs of both are compared. Needs the Python packages onnx, numpy and
onnxruntime. The exit status is 1 where mlconv takes more than twice as long, or outputs differ.
"""
import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, here)
import sources

BOUND, THREADS = 2, 2
# Of the greatest output: single precision, and a package that computes in half.
TOLERANCE = {"onnx": 1e-3, "fp32": 1e-3, "fp16": 3e-2}


def peer_process(model, inputs, outputs):
    import numpy as np
    import onnxruntime as ort

    feeds = dict(np.load(inputs))
    start = time.perf_counter()
    options = ort.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    made = time.perf_counter()
    results = session.run(None, feeds)
    end = time.perf_counter()
    np.savez(outputs, **dict(zip((o.name for o in session.get_outputs()), results)))
    print(json.dumps({"session": made - start, "run": end - made}))


def draw_inputs(model, path):
    import numpy as np
    import onnx

    graph = onnx.load(model, load_external_data=False).graph
    random = np.random.default_rng(1)
    shapes = {i.name: [d.dim_value for d in i.type.tensor_type.shape.dim] for i in graph.input}
    np.savez(path, **{name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()})


def far(a, b):
    """The greatest difference of outputs, as a part of the greatest output."""
    import numpy as np

    a, b = np.load(a), np.load(b)
    parts = [np.abs(a[n] - b[n]).max() / np.abs(a[n]).max() for n in a.files]
    print(json.dumps(float(max(parts))))


def itself(*words):
    """This script in a process of its own, so that this one stays small; what it printed last."""
    said = subprocess.run([sys.executable, os.path.abspath(__file__), *words], check=True, capture_output=True, text=True)
    return json.loads(said.stdout.splitlines()[-1]) if said.stdout.strip() else None


def timed(command):
    """Seconds and peak memory in bytes of a whole process."""
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status != 0:
        sys.exit(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - start, usage.ru_maxrss * 1024


def model_of(name, folder):
    path = os.path.join(folder, f"{name}.onnx")
    if not os.path.exists(path):
        itself("--make", name, path)
    return path


def compare(name, args):
    at = lambda f: os.path.join(args.folder, f)
    model, inputs, theirs = model_of(name, args.folder), at("in.npz"), at("theirs.npz")
    itself("--inputs", model, inputs)
    forms = {"onnx": model}
    for precision in ("fp32", "fp16"):
        forms[precision] = at(f"{name}-{precision}.mlpackage")
        convert = [args.mlconv, "convert", model, "-o", forms[precision], "--precision", precision, "--force"]
        timed([*convert, "--no-verify", "--quiet"])
    command = lambda form: [args.mlconv, "run", forms[form], "--inputs", inputs, "--outputs", at(f"{form}.npz"), "--quiet"]
    ours, peers = {form: [] for form in forms}, []
    for _ in range(args.runs):
        peers.append(itself("--peer-process", model, inputs, theirs))
        for form in forms:
            ours[form].append(timed(command(form)))
    session, once = (statistics.median(p[k] for p in peers) for k in ("session", "run"))
    whole = statistics.median(p["session"] + p["run"] for p in peers)
    for form, runs in ours.items():
        seconds, peak = statistics.median(r[0] for r in runs), max(r[1] for r in runs)
        difference = itself("--far", theirs, at(f"{form}.npz"))
        good = seconds <= BOUND * whole and difference <= TOLERANCE[form]
        row = (name, form, seconds, peak / 1e6, session, once, seconds / whole, difference)
        yield row, good


def depths(args):
    for layers in args.depths:
        name = f"transformer-{layers}"
        model, package = model_of(name, args.folder), os.path.join(args.folder, "deep.mlpackage")
        runs = []
        for _ in range(args.runs):
            shutil.rmtree(package, ignore_errors=True)
            runs.append(timed([args.mlconv, "convert", model, "-o", package, "--no-verify", "--quiet"])[0])
        shutil.rmtree(package)
        # Without the weights, whose writing is linear by nature.
        check = [timed([args.mlconv, "check", model, "--quiet"])[0] for _ in range(args.runs)]
        yield layers, statistics.median(runs), statistics.median(check)


def main():
    modes = {"--peer-process": peer_process, "--inputs": draw_inputs, "--far": far, "--make": sources.make}
    if sys.argv[1:2] and sys.argv[1] in modes:
        return modes[sys.argv[1]](*sys.argv[2:])
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--mlconv", default="target/release/mlconv")
    p.add_argument("--models", default="resnet50,transformer-12")
    p.add_argument("--depths", default="6,12,24,48")
    p.add_argument("--runs", type=int, default=7)
    p.add_argument("--folder", default="target/bench")
    p.add_argument("--markdown", action="store_true", help="print the rows of docs/benchmarks.md")
    args = p.parse_args()
    os.makedirs(args.folder, exist_ok=True)
    args.depths = [int(d) for d in args.depths.split(",") if d]
    missed = 0
    line = "{:<15} {:<5} {:.3f} s {:4.0f} MB; onnxruntime: session {:.3f} s, run {:.3f} s; {:.2f} times; differs by {:.1e}"
    if args.markdown:
        line = "| {} | {} | {:.3f} s | {:.0f} MB | {:.3f} s | {:.3f} s | {:.2f} | {:.1e} |"
    for name in filter(None, args.models.split(",")):
        for row, good in compare(name, args):
            missed += not good
            print(line.format(*row) + ("" if good or args.markdown else "  MISSED"), flush=True)
    for layers, seconds, check in depths(args):
        each = (layers, seconds, seconds / layers * 1e3, check, check / layers * 1e3)
        text = "{} layers: convert {:.3f} s, {:.2f} ms a layer; check {:.3f} s, {:.2f} ms a layer"
        print((("| {} | {:.3f} s | {:.2f} ms | {:.3f} s | {:.2f} ms |") if args.markdown else text).format(*each), flush=True)
    sys.exit(missed > 0)


main()
