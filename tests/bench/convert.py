#!/usr/bin/env python3
"""Measures conversions of a model of ResNet-50's size: wall time and peak memory of the whole process.

  tests/bench/convert.py [--mlconv target/release/mlconv] [--runs 7] [--folder target/bench] [--markdown]

The model has ResNet-50's layers and 25.6 million random weights of a fixed seed, 102 MB in single precision. It is read
from the page cache. As a floor, `cat` copies the same bytes to a file. Needs the Python packages onnx and numpy.
"""
import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import sources

def measure(command, runs, prepare):
    """Median seconds and the greatest peak of resident memory, in bytes."""
    seconds, peaks = [], []
    for _ in range(runs):
        prepare()
        start = time.perf_counter()
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, shell=isinstance(command, str))
        said = child.stderr.read()
        _, status, usage = os.wait4(child.pid, 0)
        seconds.append(time.perf_counter() - start)
        if status != 0:
            sys.exit(f"{command}: {said.decode()}")
        peaks.append(usage.ru_maxrss * 1024)
    return statistics.median(seconds), max(peaks)


def own_memory(command, prepare):
    """The greatest memory that is the process's own and no mapped file, in bytes, as seen every millisecond or so."""
    prepare()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, shell=isinstance(command, str))
    most = 0
    while child.poll() is None:
        try:
            with open(f"/proc/{child.pid}/status") as f:
                most = max([most] + [int(line.split()[1]) * 1024 for line in f if line.startswith("RssAnon")])
        except OSError:
            break
        time.sleep(0.001)
    child.wait()
    return most


def size(path):
    if os.path.isfile(path):
        return os.path.getsize(path)
    return sum(os.path.getsize(os.path.join(at, f)) for at, _, files in os.walk(path) for f in files)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--mlconv", default="target/release/mlconv")
    p.add_argument("--runs", type=int, default=7)
    p.add_argument("--folder", default="target/bench")
    p.add_argument("--markdown", action="store_true", help="print the rows of docs/benchmarks.md")
    p.add_argument("--make", action="store_true", help="write the model and stop")
    args = p.parse_args()
    os.makedirs(args.folder, exist_ok=True)
    model = os.path.join(args.folder, "resnet50.onnx")
    if args.make:
        return sources.make("resnet50", model)
    # In a process of its own: a child's peak begins with what its parent holds.
    if not os.path.exists(model):
        subprocess.run([sys.executable, __file__, "--folder", args.folder, "--make"], check=True)
    copy, package = os.path.join(args.folder, "copy"), os.path.join(args.folder, "resnet50.mlpackage")

    def clean():
        shutil.rmtree(package, ignore_errors=True)
        if os.path.exists(copy):
            os.remove(copy)

    def convert(precision):
        return [args.mlconv, "convert", model, "-o", package, "--precision", precision, "--no-verify", "--quiet"]

    cases = [("cat", f"cat {model} > {copy}", copy)]
    cases += [(f"convert, {p}", convert(p), package) for p in ("fp16", "fp32")]
    measure(cases[0][1], 1, clean)
    floor, rows = None, []
    for name, command, out in cases:
        seconds, peak = measure(command, args.runs, clean)
        floor = floor or seconds
        rows.append((name, seconds, seconds / floor, size(out) / 1e6, peak / 1e6, own_memory(command, clean) / 1e6))
    clean()
    line = (
        "| {} | {:.3f} s | {:.1f} | {:.1f} MB | {:.0f} MB | {:.0f} MB |"
        if args.markdown
        else "{:14} {:6.3f} s {:5.1f} x cat {:7.1f} MB written {:5.0f} MB peak, {:4.0f} MB own"
    )
    for row in rows:
        print(line.format(*row))


main()
