#!/usr/bin/env python3
"""Converts transformers of growing depth and small width: what a layer takes where there are next to no weights.

  tests/bench/depth.py [--mlconv PATH] [--depths 6,12,24,48,96] [--width 48] [--runs 5] [--markdown]

The encoders are written as exporters of PyTorch write them, with layer normalizations, attention and gelu in their parts.
Times are those of whole processes of `mlconv convert --no-verify --time-passes`, medians of `--runs`; behind them are the
passes that took longest in the deepest model. The exit status is 1 where a layer of the deepest model takes more than
`BOUND` times as long as one of a model of a quarter of its layers.
"""
import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import time

import sources

BOUND = 1.5


def convert(mlconv, model, package):
    """Seconds of the whole process, and of each pass."""
    shutil.rmtree(package, ignore_errors=True)
    start = time.perf_counter()
    command = [mlconv, "convert", model, "-o", package, "--no-verify", "--time-passes"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    seconds, passes = time.perf_counter() - start, {}
    for name, number, unit in re.findall(r"^  (\w+) +([\d.]+) (ms|s)\b", said, re.M):
        passes[name] = float(number) * (1e-3 if unit == "ms" else 1)
    return seconds, passes


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--mlconv", default="target/release/mlconv")
    p.add_argument("--depths", default="6,12,24,48,96")
    p.add_argument("--width", type=int, default=48)
    p.add_argument("--runs", type=int, default=5)
    p.add_argument("--folder", default="target/bench")
    p.add_argument("--markdown", action="store_true", help="print the rows of docs/benchmarks.md")
    args = p.parse_args()
    os.makedirs(args.folder, exist_ok=True)
    each, passes = {}, {}
    for layers in map(int, args.depths.split(",")):
        name = f"transformer-{layers}-{args.width}"
        model, package = (os.path.join(args.folder, name + suffix) for suffix in (".onnx", ".mlpackage"))
        sources.make(name, model)
        runs = [convert(args.mlconv, model, package) for _ in range(args.runs)]
        shutil.rmtree(package)
        os.remove(model)
        seconds = statistics.median(s for s, _ in runs)
        each[layers], passes[layers] = seconds / layers, runs[-1][1]
        text = "| {} | {:.3f} s | {:.2f} ms |" if args.markdown else "{} layers: {:.3f} s, {:.2f} ms a layer"
        print(text.format(layers, seconds, seconds / layers * 1e3), flush=True)
    deepest = max(each)
    passes[deepest].pop("all", None)
    if not args.markdown:
        for name, seconds in sorted(passes[deepest].items(), key=lambda p: -p[1])[:8]:
            took = (f"{1e3 * passes[n].get(name, 0) / n:.3f}" for n in each)
            print(f"{name}: {', '.join(took)} ms a layer")
    quarter = each.get(deepest // 4)
    sys.exit(quarter is not None and each[deepest] > BOUND * quarter)


main()
