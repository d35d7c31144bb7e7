#!/usr/bin/env python3
"""Measures conversions of a model of ResNet-50's size: wall time and peak memory of the whole process.

  benches/convert.py [--mlconv target/release/mlconv] [--runs 7] [--folder target/bench] [--markdown]

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

# Channels inside and outside of the blocks, blocks, and stride, per stage.
STAGES = [(64, 256, 3, 1), (128, 512, 4, 2), (256, 1024, 6, 2), (512, 2048, 3, 2)]


def make(path):
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    nodes, weights = [], []

    def weight(name, values):
        weights.append(numpy_helper.from_array(np.asarray(values, np.float32), name))
        return name

    def emit(op, inputs, **attributes):
        name = f"{op.lower()}_{len(nodes)}"
        nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def conv(x, inside, outside, kernel, stride=1, relu=True):
        n, fan = len(nodes), inside * kernel * kernel
        w = weight(f"w{n}", random.standard_normal((outside, inside, kernel, kernel)) * (2 / fan) ** 0.5)
        x = emit("Conv", [x, w], kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[kernel // 2] * 4)
        norm = [random.uniform(0.5, 1, outside), random.normal(0, 0.1, outside), random.normal(0, 0.1, outside)]
        names = [weight(f"{k}{n}", v) for k, v in zip(("gamma", "beta", "mean"), norm)]
        x = emit("BatchNormalization", [x, *names, weight(f"variance{n}", random.uniform(0.5, 1, outside))])
        return emit("Relu", [x]) if relu else x

    x = conv("image", 3, 64, 7, 2)
    x = emit("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    channels = 64
    for inside, outside, blocks, stride in STAGES:
        for block in range(blocks):
            step = stride if block == 0 else 1
            y = conv(x, channels, inside, 1)
            y = conv(y, inside, inside, 3, step)
            y = conv(y, inside, outside, 1, relu=False)
            short = conv(x, channels, outside, 1, step, relu=False) if block == 0 else x
            x = emit("Relu", [emit("Add", [y, short])])
            channels = outside
    x = emit("Flatten", [emit("GlobalAveragePool", [x])])
    w = weight("fc", random.standard_normal((1000, channels)) / channels**0.5)
    nodes.append(helper.make_node("Gemm", [x, w, weight("fc_bias", np.zeros(1000))], ["logits"], transB=1))
    graph = helper.make_graph(
        nodes,
        "resnet50",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 224, 224])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 1000])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


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
        return make(model)
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
