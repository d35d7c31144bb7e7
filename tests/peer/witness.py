#!/usr/bin/env python3
"""onnxruntime as the witness of a conversion: mlconv loads its library, runs the source in it and compares.

  tests/peer/witness.py [--mlconv PATH] [--jobs N] [--only TEXT] [FOLDER…]

Every .onnx file below the folders is converted in single precision with `--source-runtime onnxruntime`, on the arrays `in_…`
of an io.npz beside it, or on random ones. What converts must agree with onnxruntime; what does not convert is counted.
Then models are made whose inputs and outputs have types that Core ML has not, whose weights lie beside them, and the like; and
libraries that are none, or damaged, which must end in a diagnostic.
Prints each case that fails; the last line is `N passed, M failed`. Needs onnx and onnxruntime.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from witnessing import Failed, code_of, describe, files_below, run_all, sample_beside

CAPI = os.path.join(os.path.dirname(onnxruntime.__file__), "capi")

# Models that differ from onnxruntime, by a part of their path, each with its reason.
EXCEPTIONS = {
    "ops/nn_functional_silu__2/": "of 2e-3: onnxruntime's Sigmoid is exact to 1e-7 of one, not of its value",
}


def mlconv(args, *words, library=CAPI):
    env = {**os.environ, "ORT_DYLIB_PATH": library}
    done = subprocess.run([args.mlconv, *map(str, words)], capture_output=True, text=True, env=env, timeout=600)
    if done.returncode not in (0, 1, 2):
        raise Failed(f"exit {done.returncode}: {done.stderr[-300:]}")
    return done


def convert(args, folder, model, *more):
    """The report of a conversion that onnxruntime is the witness of; None where the model is not converted."""
    out = os.path.join(folder, "out.mlpackage")
    done = mlconv(args, "convert", model, "-o", out, "--force", "--precision", "fp32", "--source-runtime", "onnxruntime",
                  "--format", "json", *more)
    if done.returncode == 2:
        code, line = code_of(done)
        if code and code[0] in "RFX":
            return None
        raise Failed(line or done.stderr[-300:])
    report = json.loads(done.stdout)
    if report["parity"] is None:
        raise Failed("; ".join(w["title"] for w in report["warnings"]))
    witness = report["parity"]["witness"]
    if witness["runtime"] != "onnxruntime" or not onnxruntime.__version__.startswith(witness["version"] + "."):
        raise Failed(f"the witness is {witness}, wanted onnxruntime {onnxruntime.__version__}")
    if not report["parity"]["pass"]:
        raise Failed(describe(report["parity"]))
    return report


def found(args, path):
    with tempfile.TemporaryDirectory() as folder:
        more = sample_beside(path, folder)
        return "converted" if convert(args, folder, path, *more) else "not converted"


def model(nodes, inputs, outputs, weights=(), opset=17):
    value = lambda v: helper.make_tensor_value_info(v[0], v[1], v[2])
    weights = [numpy_helper.from_array(a, n) for n, a in weights]
    graph = helper.make_graph(nodes, "g", [value(v) for v in inputs], [value(v) for v in outputs], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def save(folder, m):
    path = os.path.join(folder, "m.onnx")
    onnx.save(m, path)
    return path


I64, F32, F64, F16, U8, I8, BOOL = (
    TensorProto.INT64, TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.UINT8, TensorProto.INT8,
    TensorProto.BOOL)


def agrees(m, arrays=None, wanted=None):
    """onnxruntime and the package agree, for a model and arrays."""

    def check(args, folder):
        more = []
        if arrays is not None:
            np.savez(os.path.join(folder, "in.npz"), **arrays)
            more = ["--sample", os.path.join(folder, "in.npz")]
        report = convert(args, folder, save(folder, m), *more)
        if report is None:
            raise Failed("not converted")
        if wanted and [o["ty"] for o in report["parity"]["outputs"]] != wanted:
            raise Failed(f"outputs are {report['parity']['outputs']}")

    return check


def types():
    """Each element type that an input may have in ONNX, and not in a package."""
    for name, ty, array in [
        ("int64", I64, np.array([[1, -2, 1 << 20]], np.int64)),
        ("float64", F64, np.array([[0.5, -2, 1e10]], np.float64)),
        ("float16", F16, np.array([[0.5, -2, 1000]], np.float16)),
        ("int32", TensorProto.INT32, np.array([[1, -2, 1 << 30]], np.int32)),
        ("uint8", U8, np.array([[0, 7, 255]], np.uint8)),
        ("int8", I8, np.array([[-128, 7, 127]], np.int8)),
        ("bool", BOOL, np.array([[True, False, True]])),
    ]:
        nodes = [helper.make_node("Transpose", ["x"], ["y"], perm=[1, 0])]
        m = model(nodes, [("x", ty, [1, 3])], [("y", ty, [3, 1])])
        yield f"an input of {name}", agrees(m, {"x": array})
        yield f"a made-up input of {name}", agrees(m)


def mixed():
    nodes = [helper.make_node("Gather", ["w", "ids"], ["e"], axis=0), helper.make_node("ReduceSum", ["e"], ["y"], keepdims=0),
             helper.make_node("ArgMax", ["e"], ["best"], axis=-1, keepdims=0), helper.make_node("Shape", ["ids"], ["size"])]
    outputs = [("y", F32, []), ("best", I64, ["n"]), ("size", I64, [1])]
    w = np.arange(40, dtype=np.float32).reshape(10, 4) % 7
    return model(nodes, [("ids", I64, ["n"])], outputs, [("w", w)])


def beside(args, folder):
    """Weights in a file beside the model."""
    w = np.arange(4096, dtype=np.float32).reshape(64, 64) / 4096
    m = model([helper.make_node("MatMul", ["x", "w"], ["y"])], [("x", F32, [2, 64])], [("y", F32, [2, 64])], [("w", w)])
    path = os.path.join(folder, "m.onnx")
    onnx.save(m, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    if not os.path.getsize(os.path.join(folder, "w.bin")) or convert(args, folder, path) is None:
        raise Failed("not converted")


def relu(args, folder):
    return save(folder, model([helper.make_node("Relu", ["x"], ["y"])], [("x", F32, [2, 3])], [("y", F32, [2, 3])]))


def witness_of(done):
    return json.loads(done.stdout)["parity"]["witness"]["runtime"]


def library_that_is_none(kind):
    """A library that is of no use: asked for, it is an error; else the lowering is the witness, and that is said."""

    def check(args, folder):
        library = os.path.join(folder, "libonnxruntime.so")
        real = next(os.path.join(CAPI, f) for f in sorted(os.listdir(CAPI)) if f.startswith("libonnxruntime."))
        if kind == "damaged":
            with open(real, "rb") as f, open(library, "wb") as g:
                g.write(f.read(os.path.getsize(real) * 9 // 10))
        elif kind == "text":
            with open(library, "w") as g:
                g.write("no library\n")
        path, out = relu(args, folder), os.path.join(folder, "out.mlpackage")
        done = mlconv(args, "convert", path, "-o", out, "--source-runtime", "onnxruntime", library=library)
        code, line = code_of(done)
        if (done.returncode, code) != (2, "N0006") or library not in line or os.path.exists(out):
            raise Failed(f"exit {done.returncode}: {done.stderr}")
        done = mlconv(args, "convert", path, "-o", out, "--format", "json", library=library)
        if done.returncode != 0 or witness_of(done) != "lowering" or "N0006" not in done.stderr:
            raise Failed(f"exit {done.returncode}: {done.stderr}")

    return check


def refused(args, folder):
    """onnxruntime checks types that mlconv finds itself: it may refuse a model that converts."""
    m = model([helper.make_node("Relu", ["x"], ["y"])], [("x", F32, [2, 3])], [("y", F32, [7, 7, 7])])
    path, out = save(folder, m), os.path.join(folder, "out.mlpackage")
    done = mlconv(args, "convert", path, "-o", out, "--source-runtime", "onnxruntime")
    if done.returncode == 2 and code_of(done)[0] != "N0006":
        raise Failed(done.stderr)
    done = mlconv(args, "convert", path, "-o", out, "--force", "--format", "json")
    if done.returncode != 0:
        raise Failed(done.stderr)


def out_of_range(args, folder):
    """A run that onnxruntime refuses: asked for, nothing is compared, which is said; else the lowering is the witness."""
    nodes = [helper.make_node("Gather", ["w", "ids"], ["y"], axis=0)]
    w = np.arange(6, dtype=np.float32).reshape(3, 2)
    path = save(folder, model(nodes, [("ids", I64, [2])], [("y", F32, [2, 2])], [("w", w)]))
    np.savez(os.path.join(folder, "in.npz"), ids=np.array([0, 100]))
    out, sample = os.path.join(folder, "out.mlpackage"), os.path.join(folder, "in.npz")
    words = ["convert", path, "-o", out, "--force", "--sample", sample]
    done = mlconv(args, *words, "--source-runtime", "onnxruntime")
    if done.returncode != 1 or "warning[N0007]" not in done.stderr or not os.path.isdir(out):
        raise Failed(f"exit {done.returncode}: {done.stderr}")


def runs_nowhere(args, folder):
    """A source that runs on made-up inputs nowhere: nothing is compared, which fails only where onnxruntime is asked for."""
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    path = save(folder, model(nodes, [("x", F32, [6]), ("shape", I64, [2])], [("y", F32, ["a", "b"])]))
    words = ["convert", path, "-o", os.path.join(folder, "out.mlpackage"), "--force", "--format", "json"]
    for asked, status in [([], 0), (["--source-runtime", "onnxruntime"], 1)]:
        done = mlconv(args, *words, *asked)
        if done.returncode != status or "warning[N0007]" not in done.stderr or json.loads(done.stdout)["parity"]:
            raise Failed(f"{asked}: exit {done.returncode}: {done.stderr}")


def damaged(args, folder):
    """Models with a few bytes changed: whatever onnxruntime makes of them, it is reported."""
    with open(os.path.join(os.path.dirname(__file__), "../../fixtures/models/digits_cnn/model.onnx"), "rb") as f:
        whole = f.read()
    path, out = os.path.join(folder, "m.onnx"), os.path.join(folder, "out.mlpackage")
    rng, taken = np.random.default_rng(5), 0
    for _ in range(150):
        bytes_ = bytearray(whole)
        # Most of the file is weights, in which nothing is at fault; what is around them is at its ends.
        for at in rng.choice(np.r_[0:3000, len(whole) - 3000:len(whole)], rng.integers(1, 4), replace=False):
            bytes_[at] = rng.integers(256)
        with open(path, "wb") as f:
            f.write(bytes_)
        done = mlconv(args, "convert", path, "-o", out, "--force", "--source-runtime", "onnxruntime")
        if "T0001" in done.stderr or (done.returncode == 2 and not code_of(done)[0]):
            raise Failed(done.stderr)
        taken += any(said in done.stderr for said in ["parity (onnxruntime", "[N0006]", "[N0007]"])
    if taken < 10:
        raise Failed(f"onnxruntime was given {taken} of 150 models: nothing is tested")


def verified(args, folder):
    """`verify` has the witness, too, and sees another model."""
    path, out = relu(args, folder), os.path.join(folder, "out.mlpackage")
    if mlconv(args, "convert", path, "-o", out, "--no-verify").returncode:
        raise Failed("not converted")
    done = mlconv(args, "verify", out, "--against", path, "--format", "json")
    if done.returncode or json.loads(done.stdout)["witness"]["runtime"] != "onnxruntime":
        raise Failed(done.stdout + done.stderr)
    other = os.path.join(folder, "other.onnx")
    onnx.save(model([helper.make_node("Neg", ["x"], ["y"])], [("x", F32, [2, 3])], [("y", F32, [2, 3])]), other)
    done = mlconv(args, "verify", out, "--against", other)
    if done.returncode != 1 or "parity (onnxruntime" not in done.stderr or "report" in done.stderr:
        raise Failed(f"exit {done.returncode}: {done.stderr}")


def random(args, folder):
    """Random numbers are other ones in onnxruntime, and not judged."""
    nodes = [helper.make_node("RandomUniformLike", ["x"], ["r"], seed=1.0), helper.make_node("Add", ["x", "r"], ["y"])]
    path = save(folder, model(nodes, [("x", F32, [2, 3])], [("y", F32, [2, 3])]))
    done = mlconv(args, "convert", path, "-o", os.path.join(folder, "out.mlpackage"), "--format", "json")
    if done.returncode or witness_of(done) != "onnxruntime" or "random" not in done.stderr:
        raise Failed(f"exit {done.returncode}: {done.stderr}")
    drawn = [(o["drawn"], o["pass"]) for o in json.loads(done.stdout)["parity"]["outputs"]]
    if drawn != [(True, True)]:
        raise Failed(f"outputs are {drawn}")


def made():
    yield from types()
    ids = {"ids": np.array([3, 1, 9], np.int64)}
    yield "integers in, floats and integers out", agrees(mixed(), ids, ["f32[1]", "i32[3]", "i32[1]"])
    join = [helper.make_node("Concat", ["x", "e"], ["y"], axis=0)]
    nothing = model(join, [("x", F32, [2]), ("e", F32, [0])], [("y", F32, [2])])
    yield "an input without elements", agrees(nothing, {"x": np.ones(2, np.float32), "e": np.ones(0, np.float32)})
    fixed = model([helper.make_node("Add", ["x", "w"], ["y"])], [("x", F32, [2]), ("w", F32, [2])], [("y", F32, [2])],
                  [("w", np.ones(2, np.float32))])
    yield "an input that the model has a value for", agrees(fixed)
    odd = model([helper.make_node("Relu", ["a/b:0"], ["c d/é"])], [("a/b:0", F32, [2])], [("c d/é", F32, [2])])
    halves = [helper.make_node("MatMul", ["x", "x"], ["a"]), helper.make_node("Softmax", ["a"], ["y"])]
    yield "a source in half precision", agrees(model(halves, [("x", F16, [16, 16])], [("y", F16, [16, 16])]))
    passed = model([helper.make_node("Relu", ["x"], ["y"])], [("x", F32, [64, 64])], [("y", F32, [64, 64]), ("x", F32, [64, 64])])
    yield "an output that is an input", agrees(passed)
    yield "names that are none for files", agrees(odd)
    yield "weights beside the model", beside
    for kind in ["damaged", "text", "absent"]:
        yield f"a library that is {kind}", library_that_is_none(kind)
    yield "a model that states a wrong type", refused
    yield "a run that is refused", out_of_range
    yield "a source that runs nowhere", runs_nowhere
    yield "damaged models", damaged
    yield "verify", verified
    yield "random numbers", random


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mlconv", default="target/release/mlconv")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--only", default="")
    parser.add_argument("folders", nargs="*")
    args = parser.parse_args()
    args.mlconv = os.path.abspath(args.mlconv)
    return run_all(args, found, files_below(args.folders, (".onnx",)), made(), EXCEPTIONS)


if __name__ == "__main__":
    sys.exit(main())
