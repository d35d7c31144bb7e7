#!/usr/bin/env python3
"""Faults that are planted in one layer of a model: `mlconv diff --bisect` must name the op that has it.

  tests/peer/faults.py [--mlconv PATH] [--folder FOLDER] [--only TEXT] [--makers NAME,…] [--seeds N] [--recipe] [--make] [-- OPTION…]

For each family of `fault_models.py`, each of its faults and each seed, a pair is made: A, the right model in ONNX, and B, a package
in half precision of a model with the fault, which `mlconv convert` makes without looking at A. A wrong epsilon, a transposed
weight, a dropped bias, wrong padding, a wrong mask and exchanged heads are in the ONNX model that B is made of. What overflows half
precision is put into the package, as `convert` would keep it in single precision; a tensor with a table of too few entries is
what `mlconv compress` makes when it is told so. Pairs called `coremltools` have packages that coremltools writes, whose ops have
names of its own. Then `mlconv diff A B --bisect` runs on a sample, and the first culprit must be an op of the place of the fault, by
its own name or by the node that it comes from. With `--recipe`, the recipe printed for overflows and tables must make the outputs
pass.

Prints a line for each pair, with the time and the greatest resident memory of `diff`; the last line is `N passed, M failed`.
`--make` makes the pairs in FOLDER and stops; what is there already is used again. Options behind `--` are given to `diff`.
Needs onnx, onnxruntime and coremltools.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import zlib

import numpy as np
import onnx
import onnxruntime
from fault_models import FAMILIES, MASKED
from measuring import measured
from witnessing import Failed

# The faults that a recipe can mend: what half precision or a table does, not what another program computes.
MENDED = ("overflow", "clusters")


class Pair:
    """A family, a fault, and a seed, from which follow the layer, the weights and the sample."""

    def __init__(self, family, fault, seed, maker):
        self.family, self.fault, self.seed, self.maker = family, fault, seed, maker
        self.name = f"{family.name}/{fault}/{seed}" + (f"/{maker}" if maker != "mlconv" else "")
        # coremltools makes an infinity of the least float, and NaN of that: a fault of its own.
        self.masked = -1e4 if maker == "coremltools" else MASKED
        # Faults of one seed lie in different layers.
        self.layer = family.layer_of(np.random.default_rng([seed, zlib.crc32(fault.encode())]))

    def build(self, faulty):
        """The model with the fault, or without."""
        fault = (self.fault, self.layer) if faulty else (None, None)
        return self.family.build(self.seed, *fault, masked=self.masked)

    def places(self):
        """Names of nodes or modules, one of which the culprit must be or lie in."""
        return [self.family.place(self.layer, part) for part in self.family.faults[self.fault]]

    def holds(self, op):
        """Whether an op of the report is at the fault, by its own name or by one of its places."""
        wanted = [plain(p) for p in self.places()]
        names = [plain(n) for n in [op["name"], *op["place"]]]
        return any(n == w or n.startswith(f"{w}_") for n in names for w in wanted)


def plain(name):
    """A name as any format could have it."""
    return re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")


def run(words):
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        raise Failed(f"{' '.join(map(str, words))}: exit {done.returncode}: {done.stderr[-300:]}")


def outputs(model, sample, name=None):
    """The outputs of a model in onnxruntime, or the value of this name."""
    if name is not None:
        model = onnx.ModelProto.FromString(model.SerializeToString())
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run([name] if name else None, sample)


def make(args, pair, folder):
    """The paths of A, B and the sample, which are made where they are not there."""
    family, fault = pair.family, pair.fault
    beside = lambda name: os.path.join(folder, pair.name.replace("/", "-") + name)
    # Only what overflows is in the right model, too: all others share one.
    overflows = "-overflow" if fault == "overflow" else ""
    right = os.path.join(folder, f"{family.name}{overflows}-{pair.seed}-{pair.maker}-a.onnx")
    package, sample = beside("-b.mlpackage"), os.path.join(folder, f"{family.name}-{pair.seed}.npz")
    arrays = family.sample(np.random.default_rng(pair.seed))
    model = None
    if not os.path.exists(right):
        model = pair.build(fault == "overflow")
        onnx.checker.check_model(model)
        onnx.save(model, right)
    if not os.path.exists(sample):
        np.savez(sample, **arrays)
    if os.path.exists(package):
        return right, package, sample
    model = model or onnx.load(right)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        made = os.path.join(scratch, "b.mlpackage")
        plant(args, pair, right, model, arrays, scratch, made)
        os.rename(made, package)
    return right, package, sample


def plant(args, pair, right, model, arrays, scratch, package):
    """Makes a package with the fault of what is `model`, which is in the file `right`, without it."""
    family, fault = pair.family, pair.fault
    source = os.path.join(scratch, "m.onnx")
    convert = [args.mlconv, "convert", "--quiet", "--no-verify", "-o", package, source]
    if pair.maker == "coremltools":
        from fault_builder import build

        build(pair.build(True), package)
    elif fault == "clusters":
        node = next(n for n in model.graph.node if n.name.startswith(pair.places()[0]) and n.op_type in ("Conv", "MatMul"))
        scheme = f"^{re.escape(node.input[1])}(_to_fp16)?$=pal2"
        run([args.mlconv, "compress", right, "--quiet", "--no-verify", "-o", package, "--tensor", scheme])
    elif fault == "overflow":
        first = f"{pair.places()[0]}/Mul_0"
        (great,) = outputs(model, arrays, f"{first}_output_0")
        if not np.isfinite(great).all() or np.abs(great).max() <= 65504:
            raise Failed(f"{first} overflows nothing: it is {np.abs(great).max():.3g} at most")
        onnx.save(pair.build(False), source)
        run(convert)
        overflow(package, model, first)
    else:
        wrong = pair.build(True)
        onnx.checker.check_model(wrong)
        if all(np.array_equal(a, b) for a, b in zip(outputs(model, arrays), outputs(wrong, arrays))):
            raise Failed(f"the fault {fault} changes nothing")
        onnx.save(wrong, source)
        run(convert)


def overflow(package, model, first):
    """Puts the two products of `model`, of which `first` is one, into a package without them, in half precision."""
    from coremltools.proto import MIL_pb2, Model_pb2

    up = next(n for n in model.graph.node if n.name == first)
    down = next(n for n in model.graph.node if up.output[0] in n.input)
    factors = {n.output[0]: onnx.numpy_helper.to_array(n.attribute[0].t) for n in model.graph.node if n.op_type == "Constant"}
    path = os.path.join(package, "Data", "com.apple.CoreML", "model.mlmodel")
    spec = Model_pb2.Model()
    with open(path, "rb") as f:
        spec.ParseFromString(f.read())
    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    ops = list(block.operations)
    (at,) = [i for i, op in enumerate(ops) if plain(op.outputs[0].name) == plain(up.input[0])]
    value, half = ops[at].outputs[0], MIL_pb2.DataType.FLOAT16
    if value.type.tensorType.dataType != half:
        raise Failed(f"{value.name} is not in half precision")

    def text(of, name):
        of.type.tensorType.dataType = MIL_pb2.DataType.STRING
        of.immediateValue.tensor.strings.values.append(name)

    def product(x, node):
        """A constant, and the product of `x` with it, called as the node's value."""
        name = re.sub(r"[^A-Za-z0-9_]", "_", node.output[0])
        factor, mul = MIL_pb2.Operation(type="const"), MIL_pb2.Operation(type="mul")
        text(factor.attributes["name"], f"{name}_y")
        text(mul.attributes["name"], name)
        factor.outputs.add(name=f"{name}_y").type.tensorType.dataType = half
        factor.attributes["val"].type.tensorType.dataType = half
        factor.attributes["val"].immediateValue.tensor.bytes.values = np.float16(factors[node.input[1]]).tobytes()
        mul.inputs["x"].arguments.add(name=x)
        mul.inputs["y"].arguments.add(name=f"{name}_y")
        mul.outputs.add(name=name).type.CopyFrom(value.type)
        return [factor, mul], name

    first_ops, great = product(value.name, up)
    then_ops, small = product(great, down)
    for op in ops[at + 1:]:
        for bound in op.inputs.values():
            for argument in bound.arguments:
                if argument.name == value.name:
                    argument.name = small
    ops[at + 1:at + 1] = first_ops + then_ops
    copies = [MIL_pb2.Operation.FromString(op.SerializeToString()) for op in ops]
    del block.operations[:]
    block.operations.extend(copies)
    with open(path, "wb") as f:
        f.write(spec.SerializeToString())


def bisected(args, pair, folder):
    """The line of the table; fails where the fault is not found."""
    right, package, sample = make(args, pair, folder)
    if args.make:
        return "made"
    words = [args.mlconv, "diff", right, package, "--bisect", "--sample", sample, "--format", "json", *args.options]
    status, out, err, seconds, memory = measured(words)
    cost = f"{seconds:6.1f} s {memory / 1e6:6.0f} MB"
    if status not in (0, 1):
        raise Failed(f"{cost}  exit {status}: {err[-300:]}")
    report = json.loads(out)
    bisection = report["bisection"]
    if bisection is None or not bisection["culprits"]:
        raise Failed(f"{cost}  no culprit: {bisection and bisection['state']}, pass {report['pass']}")
    culprit = bisection["culprits"][0]
    op = report["ops"][culprit["op"]]
    decibels = lambda x: "-" if x is None else f"{x:.1f}"
    line = f"{cost}  {op['name']} ({op['op']}) {culprit['why']}, {decibels(culprit['own_snr_db'])} dB where " \
           f"{decibels(culprit['explained_snr_db'])} are explained"
    if not pair.holds(op):
        raise Failed(f"{line}: not in {' or '.join(pair.places())}")
    if args.recipe and pair.fault in MENDED and not (bisection["recipe"] or {}).get("pass"):
        raise Failed(f"{line}: the recipe does not mend it: {bisection['recipe']}")
    return line


def main():
    words = sys.argv[1:]
    mine, options = (words[:words.index("--")], words[words.index("--") + 1:]) if "--" in words else (words, [])
    parser = argparse.ArgumentParser()
    parser.add_argument("--mlconv", default="target/release/mlconv")
    parser.add_argument("--folder", help="where pairs are kept; a temporary one by default")
    parser.add_argument("--only", default="")
    parser.add_argument("--makers", default="mlconv,coremltools", help="whose packages are compared")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--recipe", action="store_true")
    parser.add_argument("--make", action="store_true")
    args = parser.parse_args(mine)
    args.mlconv, args.options = os.path.abspath(args.mlconv), options
    if args.make and not args.folder:
        parser.error("--make needs --folder")
    pairs = [Pair(f, fault, seed, maker) for maker in args.makers.split(",") for f in FAMILIES.values()
             for seed in range(args.seeds) for fault in f.faults if (maker, fault) != ("coremltools", "clusters")]
    passed = failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.folder or scratch
        os.makedirs(folder, exist_ok=True)
        for pair in pairs:
            if args.only not in pair.name:
                continue
            try:
                line, passed = bisected(args, pair, folder), passed + 1
                print(f"{pair.name:38} {line}", flush=True)
            except Exception as e:
                failed += 1
                print(f"{pair.name:38} FAILED {e if isinstance(e, Failed) else repr(e)}", flush=True)
    print(f"{passed} passed, {failed} failed")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
