#!/usr/bin/env python3
"""PyTorch as the witness of a conversion: mlconv has it run the source, and compares.

  tests/peer/torch_witness.py [--mlconv PATH] [--runtime python|torch] [--jobs N] [--only TEXT] [FOLDER…]

Every .pt2 and .pt file below the folders is converted in single precision with `--source-runtime python`, which runs the
Python that runs this, on the arrays `in_…` of an io.npz beside it, on the digits of the fixtures where it is a model of them,
or on random ones. What converts must agree with PyTorch; what does not convert is counted. Then models are made here: with buffers,
outputs in all kinds of containers, element types that Core ML has not, numbers among the inputs, and damaged ones, which must
end in a diagnostic. With `--runtime torch`, the .pt files run in `mlconv-torch`.
Prints each case that fails; the last line is `N passed, M failed`. Needs torch and numpy.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
from typing import Dict, List

import numpy as np
import torch
from torch.utils import _pytree
from witnessing import Failed, code_of, describe, files_below, run_all, sample_beside

DIGITS = os.path.join(os.path.dirname(__file__), "../../fixtures/models/digits/test.npz")

# Models that differ from PyTorch, by a part of their path, each with its reason.
EXCEPTIONS = {}


def mlconv(args, *words, python=sys.executable, cwd=None):
    env = {**os.environ, "MLCONV_PYTHON": python}
    done = subprocess.run([args.mlconv, *map(str, words)], capture_output=True, text=True, env=env, timeout=600, cwd=cwd)
    if done.returncode not in (0, 1, 2) or "T0001" in done.stderr:
        raise Failed(f"exit {done.returncode}: {done.stderr[-300:]}")
    return done


def convert(args, folder, model, *more):
    """What a conversion says that PyTorch is the witness of; None where the model is not converted."""
    out = os.path.join(folder, "out.mlpackage")
    done = mlconv(args, "convert", model, "-o", out, "--force", "--precision", "fp32", "--source-runtime", args.runtime,
                  "--format", "json", *more)
    if done.returncode == 2:
        code, line = code_of(done)
        if code and code[0] in "RFXLV":
            return None
        raise Failed(line or done.stderr[-300:])
    report = json.loads(done.stdout)
    if report["parity"] is None:
        raise Failed("; ".join(w["title"] for w in report["warnings"]))
    witness = report["parity"]["witness"]
    version = torch.__version__.split("+")[0] if args.runtime == "python" else None
    if (witness["runtime"], witness["version"]) != (args.runtime, version):
        raise Failed(f"the witness is {witness}, wanted {args.runtime} {version}")
    if not report["parity"]["pass"]:
        raise Failed(describe(report["parity"]))
    return report


def agreed(args, folder, path, outputs, *more):
    """A conversion that must be one, with so many outputs where that is said."""
    report = convert(args, folder, path, *more)
    if report is None:
        raise Failed("not converted")
    n = len(report["parity"]["outputs"])
    if outputs not in (None, n):
        raise Failed(f"{n} outputs, wanted {outputs}")


def found(args, path):
    with tempfile.TemporaryDirectory() as folder:
        more = sample_beside(path, folder)
        if not more and "digits" in path:
            shape = ["--input", "1x1x8x8" if "cnn" in path else "1x8x8"] if path.endswith(".pt") else []
            more = [*shape, "--sample", DIGITS, "--labels", DIGITS + ":label"]
        return "converted" if convert(args, folder, path, *more) else "not converted"


# Neither exporting nor scripting is made for threads.
MAKING = threading.Lock()


def export(folder, module, args, **kwargs):
    path = os.path.join(folder, "m.pt2")
    with MAKING:
        torch.export.save(torch.export.export(module.eval(), args, **kwargs), path)
    return path


def script(folder, module):
    path = os.path.join(folder, "m.pt")
    with MAKING:
        torch.jit.save(torch.jit.script(module.eval()), path)
    return path


def arrays_of(tensors):
    """The tensors in containers, in order."""
    leaves = [t for t in _pytree.tree_leaves(tensors) if isinstance(t, torch.Tensor)]
    return {f"in_{i:03}": np.asarray(t.float() if t.dtype == torch.bfloat16 else t) for i, t in enumerate(leaves)}


class Module(torch.nn.Module):
    """A module of one function."""

    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, *args, **kwargs):
        return self.f(*args, **kwargs)


def agrees(f, *tensors, outputs=None, kwargs=None, buffers=(), more=(), runs=1):
    """PyTorch and the package agree on an exported function, or module, with buffers that are inputs of the package."""

    def check(args, folder):
        if args.runtime != "python":
            return "not for libtorch"
        module = f if isinstance(f, torch.nn.Module) else Module(f)
        path = export(folder, module, tensors, **({"kwargs": kwargs} if kwargs else {}))
        every = arrays_of([tensors, kwargs or {}, buffers])
        if runs > 1:
            rng = np.random.default_rng(3)
            every = {k: np.stack([v * rng.random() for _ in range(runs)]).astype(v.dtype) for k, v in every.items()}
        sample = os.path.join(folder, "in.npz")
        np.savez(sample, **every)
        for given in (["--sample", sample], []):
            agreed(args, folder, path, outputs, *given, *more)

    return check


def scripted(make, arrays, outputs=None, more=()):
    """PyTorch and the package agree on a TorchScript module."""

    def check(args, folder):
        path, sample = script(folder, make()), os.path.join(folder, "in.npz")
        np.savez(sample, **arrays)
        agreed(args, folder, path, outputs, "--sample", sample, *more)

    return check


class Containers(torch.nn.Module):
    def forward(self, x, y: int = 2):
        parts: List[torch.Tensor] = [x + 1, x * y]
        named: Dict[str, torch.Tensor] = {"b": x - 1, "a": x.abs()}
        return (x.exp(), (parts, None), named)


class Numbers(torch.nn.Module):
    def forward(self, x, k: int, scale: float = 1.5, flag: bool = False):
        y = x * k + scale
        return y.neg() if flag else y


class Ids(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(10, 4)

    def forward(self, ids):
        e = self.table(ids)
        return e, e.argmax(-1), ids + 1, e > 0


class Plus(torch.nn.Module):
    def forward(self, x):
        return x + 1


class Minus(torch.nn.Module):
    def forward(self, x):
        return x - 1


class Cache(torch.nn.Module):
    """Each call finds what the last one left."""

    def __init__(self, dtype=torch.float16, start=0.0):
        super().__init__()
        self.register_buffer("seen", torch.full((3,), start, dtype=dtype))

    def forward(self, x):
        self.seen.add_(x.to(self.seen.dtype))
        return self.seen.to(x.dtype) * 2


def damaged(args, folder):
    """Files with a few bytes changed: whatever PyTorch makes of them, it is reported."""
    name = "model.pt" if args.runtime == "torch" else "model.pt2"
    with open(os.path.join(os.path.dirname(DIGITS), "../digits_cnn", name), "rb") as f:
        whole = f.read()
    path, out = os.path.join(folder, name), os.path.join(folder, "out.mlpackage")
    rng = np.random.default_rng(5)
    for _ in range(12):
        data = bytearray(whole)
        for at in rng.choice(len(whole), rng.integers(1, 4), replace=False):
            data[at] = rng.integers(256)
        with open(path, "wb") as f:
            f.write(data)
        done = mlconv(args, "convert", path, "-o", out, "--force", "--input", "1x1x8x8", "--source-runtime", args.runtime)
        if done.returncode == 2 and not code_of(done)[0]:
            raise Failed(done.stderr)


def refused(args, folder):
    """A run that PyTorch refuses: nothing is compared, which was asked for."""
    path = script(folder, Picky())
    out = os.path.join(folder, "out.mlpackage")
    done = mlconv(args, "convert", path, "-o", out, "--input", "x=3", "--source-runtime", args.runtime)
    if "F" == code_of(done)[0][:1]:
        return "not converted"
    if done.returncode != 1 or "warning[N0007]" not in done.stderr or "too small" not in done.stderr:
        raise Failed(f"exit {done.returncode}: {done.stderr}")


class Picky(torch.nn.Module):
    def forward(self, x):
        if bool((x.sum() < 1e9).item()):
            raise ValueError("too small")
        return x + 1


def verified(args, folder):
    """`verify` has the witness, too, and sees another model."""
    os.mkdir(os.path.join(folder, "other"))
    path, other = script(folder, Plus()), script(os.path.join(folder, "other"), Minus())
    out = os.path.join(folder, "out.mlpackage")
    if mlconv(args, "convert", path, "-o", out, "--no-verify", "--input", "x=4").returncode:
        raise Failed("not converted")
    words = ["verify", out, "--source-runtime", args.runtime, "--against"]
    done = mlconv(args, *words, path, "--format", "json")
    if done.returncode or json.loads(done.stdout)["witness"]["runtime"] != args.runtime:
        raise Failed(done.stdout + done.stderr)
    done = mlconv(args, *words, other)
    if done.returncode != 1 or "parity (PyTorch" not in done.stderr:
        raise Failed(f"exit {done.returncode}: {done.stderr}")


def strange_folder(args, folder):
    """What lies in the folder that mlconv runs in is not imported."""
    for name in ("torch.py", "json.py", "zipfile.py"):
        with open(os.path.join(folder, name), "w") as f:
            f.write("open('imported', 'w')\n")
    path = script(folder, Plus())
    done = mlconv(args, "convert", path, "-o", "out.mlpackage", "--input", "x=4", "--source-runtime", args.runtime, cwd=folder)
    left = sorted(set(os.listdir(folder)) - {"torch.py", "json.py", "zipfile.py", "m.pt", "out.mlpackage"})
    if done.returncode or left:
        raise Failed(f"exit {done.returncode}, {left}: {done.stderr}")


def python_without(args, folder):
    """A Python that has no PyTorch."""
    python = os.path.join(folder, "python")
    with open(python, "w") as f:
        f.write(f"#!/bin/sh\nexec {sys.executable} -S \"$@\"\n")
    os.chmod(python, 0o755)
    path = script(folder, Plus())
    done = mlconv(args, "convert", path, "-o", "out.mlpackage", "--input", "x=4", "--source-runtime", "python", python=python,
                  cwd=folder)
    if done.returncode != 2 or "No module named 'torch'" not in done.stderr or code_of(done)[0] != "N0006":
        raise Failed(f"exit {done.returncode}: {done.stderr}")


def made():
    x, wide = torch.randn(2, 3), torch.randn(4, 4)
    for dtype in (torch.int64, torch.int32, torch.uint8, torch.int8, torch.int16):
        ints = torch.tensor([[1, 2, 7]], dtype=dtype)
        yield f"exported, an input of {dtype}", agrees(lambda x: (x.t(), x.float() / 2), ints)
    yield "exported, an input of bool", agrees(lambda x: (~x, x.float()), torch.tensor([True, False]))
    yield "exported, an input of float16", agrees(lambda x: x * 2, wide.half())
    yield "exported, an input of float64", agrees(lambda x: x * 2, wide.double())
    yield "exported, an input of bfloat16", agrees(lambda x: x @ x, wide.bfloat16())
    yield "exported, containers", agrees(lambda x: {"b": [x + 1, (x, None)], "a": (x.exp(), 7)}, x)
    yield "exported, one value twice", agrees(lambda x: (lambda y: (y, y, x))(x + 1), x)
    yield "exported, inputs in containers", agrees(lambda p, q: p[0] + p[1]["k"] * q, (x, {"k": x * 2}), x)
    yield "exported, inputs by name", agrees(lambda x, *, y: x - y, x, kwargs={"y": x * 3})
    yield "exported, an input that is a number", agrees(lambda x, n: x * n, x, 3)
    yield "exported, part of the outputs", agrees(lambda x: (x + 1, x * 2, x - 3), x, outputs=1, more=["--output", "mul"])
    seen = [torch.rand(3)]
    yield "exported, a buffer as an input", agrees(Cache(torch.float32), torch.rand(3), buffers=seen, outputs=2)
    more = ["--target", "ios18"]
    yield "exported, a buffer that begins otherwise", agrees(Cache(torch.float32, 0.5), torch.rand(3), buffers=seen, more=more)
    yield "exported, a buffer as a state", agrees(Cache(), torch.rand(3), outputs=1, more=more)
    yield "exported, a buffer over calls", agrees(Cache(), torch.rand(3), more=["--target", "ios18"], runs=4)
    x = np.random.default_rng(1).standard_normal((2, 3)).astype(np.float32)
    yield "scripted, containers", scripted(Containers, {"x": x}, outputs=5)
    yield "scripted, numbers among the inputs", scripted(
        Numbers, {"x": x, "k": np.array(3), "scale": np.array(0.25, np.float32), "flag": np.array(True)})
    yield "scripted, numbers left out", scripted(Numbers, {"x": x, "k": np.array(3)})
    yield "scripted, integers", scripted(Ids, {"ids": np.array([1, 2, 9])}, outputs=4)
    yield "scripted, float16", scripted(Plus, {"x": x.astype(np.float16)})
    yield "damaged models", damaged
    yield "a run that is refused", refused
    yield "verify", verified
    yield "a folder with other modules", strange_folder
    yield "a Python without PyTorch", python_without


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mlconv", default="target/release/mlconv")
    parser.add_argument("--runtime", default="python", choices=["python", "torch"])
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--only", default="")
    parser.add_argument("folders", nargs="*")
    args = parser.parse_args()
    args.mlconv = os.path.abspath(args.mlconv)
    suffixes = (".pt", ".pt2") if args.runtime == "python" else (".pt",)
    return run_all(args, found, files_below(args.folders, suffixes), made(), EXCEPTIONS)


if __name__ == "__main__":
    sys.exit(main())
