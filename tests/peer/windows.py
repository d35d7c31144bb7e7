#!/usr/bin/env python3
"""The memory of a comparison value by value: a model with 2 GB of values must fit into 512 MB.

  tests/peer/windows.py [--mlconv PATH] [--only TEXT] [--megabytes N] [--folder FOLDER] [--verify]

A model of small weights is made whose values, 36 of N = 64 MB each, are behind a small input and before a small output. `chain` is
a chain of products, sums and activations, `skips` reads some values twice, and `convs` has convolutions. A package of it, in each
precision, has a fault: one sum has no bias. Then `mlconv diff A B --bisect --max-memory` with 8 N MB must name the op behind that, end
with 1, compare all values, and stay below 8 N MB of resident memory. With `--verify`, what `mlconv verify --quick` takes is told.

Prints a line for each case, with the time and the memory; the last line is `N passed, M failed`. Needs onnx.
"""
import argparse
import json
import os
import sys
import tempfile

import numpy as np
import onnx
from measuring import measured
from onnx import TensorProto, helper, numpy_helper
from witnessing import Failed

# Values that fit.
WINDOW = 8
CHANNELS, SMALL, BLOCKS, FAULTY = 64, 32, 12, 10


def build(form, megabytes, faulty):
    """Twelve blocks of three values each, on values of so many MB; the sum of one has no bias if it is `faulty`."""
    rng, nodes, weights = np.random.default_rng(11), [], []
    # Squares of the large values: the small ones are 32 wide, and made larger by a whole factor.
    scale = int(round((megabytes * (1 << 20) / 4 / CHANNELS) ** 0.5)) // SMALL

    def weight(name, array):
        weights.append(numpy_helper.from_array(array.astype(np.float32), name))
        return name

    def node(op, name, *inputs, **attributes):
        nodes.append(helper.make_node(op, inputs, [f"{name}_y"], name=name, **attributes))
        return f"{name}_y"

    x = node("Resize", "enlarge", "x", "", weight("scales", np.array([1, 1, scale, scale])), mode="nearest")
    channels = (CHANNELS, 1, 1)
    for i in range(BLOCKS):
        before, bias = x, rng.normal(0.5, 0.3, channels)
        if form == "convs" and i % 4 == 2:
            kernel = rng.normal(0, 0.4, (CHANNELS, 1, 3, 3))
            x = node("Conv", f"block{i}/scale", x, weight(f"w{i}", kernel), group=CHANNELS, pads=[1, 1, 1, 1])
        else:
            x = node("Mul", f"block{i}/scale", x, weight(f"w{i}", rng.uniform(0.6, 1.2, channels)))
        if form == "skips" and i % 3 == 1:
            x = node("Add", f"block{i}/skip", x, before)
        if not (faulty and i == FAULTY):
            x = node("Add", f"block{i}/bias", x, weight(f"b{i}", bias))
        x = node(("Tanh", "Relu", "Sigmoid")[i % 3], f"block{i}/act", x)
    node("GlobalAveragePool", "pool", x)
    info = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "g", [info("x", [1, CHANNELS, SMALL, SMALL])], [info("pool_y", [1, CHANNELS, 1, 1])], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def run(args, *words, status=(0,)):
    done = measured([args.mlconv, *words])
    if done[0] not in status:
        raise Failed(f"exit {done[0]} of {' '.join(map(str, words))}: {done[2][-300:]}")
    return done


def case(args, form, precision, folder):
    right, wrong = (os.path.join(folder, f"{form}-{name}.onnx") for name in ("a", "b"))
    for path, faulty in ((right, False), (wrong, True)):
        onnx.save(build(form, args.megabytes, faulty), path)
    package = os.path.join(folder, f"{form}-{precision}.mlpackage")
    run(args, "convert", wrong, "-o", package, "--precision", precision, "--no-verify", "--quiet", "--force")
    window = WINDOW * args.megabytes
    words = ["diff", right, package, "--bisect", "--max-memory", f"{window}M", "--format", "json"]
    status, out, _, seconds, memory = run(args, *words, status=(0, 1))
    line = f"{seconds:5.1f} s {memory / (1 << 20):6.0f} MB"
    if args.verify:
        _, _, _, quick, taken = run(args, "verify", package, "--against", right, "--quick", "--quiet", status=(0, 1))
        line += f"; verify {quick:5.1f} s {taken / (1 << 20):6.0f} MB"
    report = json.loads(out)
    if status != 1 or not report["bisection"]["culprits"]:
        raise Failed(f"{line}: exit {status}, {report['bisection']}")
    op = report["ops"][report["bisection"]["culprits"][0]["op"]]
    line += f"; {op['name']} ({op['op']})"
    if not any(f"block{FAULTY}/" in place for place in op["place"]):
        raise Failed(f"{line}: it is not in block {FAULTY}, but {op['place']}")
    if report["bisection"]["not_looked_at"]:
        raise Failed(f"{line}: {report['bisection']['not_looked_at']} values were let go of")
    if memory > window << 20:
        raise Failed(f"{line}: more than {window} MB")
    return line


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mlconv", default="target/release/mlconv")
    parser.add_argument("--only", default="")
    parser.add_argument("--megabytes", type=int, default=64)
    parser.add_argument("--verify", action="store_true")
    parser.add_argument("--folder", help="where models are kept; a temporary one by default")
    args = parser.parse_args()
    args.mlconv = os.path.abspath(args.mlconv)
    passed = failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.folder or scratch
        os.makedirs(folder, exist_ok=True)
        for form in ("chain", "skips", "convs"):
            for precision in ("fp32", "fp16"):
                name = f"{form}/{precision}"
                if args.only not in name:
                    continue
                try:
                    line, passed = case(args, form, precision, folder), passed + 1
                    print(f"{name:12} {line}", flush=True)
                except Exception as e:
                    failed += 1
                    print(f"{name:12} FAILED {e if isinstance(e, Failed) else repr(e)}", flush=True)
    print(f"{passed} passed, {failed} failed")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
