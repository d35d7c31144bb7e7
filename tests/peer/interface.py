#!/usr/bin/env python3
"""Interfaces of packages, as mlconv and coremltools make them of one TorchScript module: both must describe them alike.

  tests/peer/interface.py [--mlconv PATH] [--only TEXT]

Compared are the inputs and outputs of the description, and the names of what a classifier predicts; coremltools reads the
package of mlconv, and infers its types anew. Both must compute the same: `mlconv verify` holds the package of coremltools
against the source, with the interface that mlconv is asked for. Prints each case that fails; the last line is
`N passed, M failed`. Needs coremltools and PyTorch.
"""
import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import warnings

warnings.filterwarnings("ignore")
logging.disable(logging.ERROR)
os.environ.setdefault("TQDM_DISABLE", "1")

import coremltools as ct
import numpy as np
import torch
from packages import program


class Net(torch.nn.Module):
    """A convolution without padding, a mean, and probabilities; `gain` may have a default."""

    def __init__(self, channels, classifies):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.classifies = torch.nn.Conv2d(channels, 4, 3), classifies

    def forward(self, x, gain):
        features = self.conv(x) * gain
        probs = torch.softmax(features.mean((2, 3)), dim=-1)
        # coremltools fails on other outputs of a classifier where it is told of outputs.
        return probs if self.classifies else (probs, torch.relu(x))


def image(name="x", channels=3, layout="RGB", height=20, width=24, **more):
    shape = (1, channels, height, width)
    return ct.ImageType(name=name, shape=shape, color_layout=getattr(ct.colorlayout, layout), **more)


def size(low, high):
    return ct.RangeDim(low, high, default=low)


GAIN = ct.TensorType("gain", shape=(1,), dtype=np.float32)
NAMES = ["cat", "dog", "bird", "fish"]
TENSORS = [ct.TensorType("probs", dtype=np.float32), ct.TensorType("pixels", dtype=np.float32)]

# Name, target, channels, what coremltools is given, and what mlconv is.
CASES = [
    ("rgb", "ios15", 3, dict(inputs=[image(), GAIN], outputs=TENSORS), ["--image", "x=rgb"]),
    ("bgr scaled", "ios17", 3, dict(inputs=[image(layout="BGR", scale=1 / 127.5, bias=[-1, -1, -1]), GAIN], outputs=TENSORS),
     ["--image", "x=bgr,scale=1/127.5,bias=-1"]),
    ("bias of channels", "ios17", 3, dict(inputs=[image(scale=0.5, bias=[1.0, 2.0, 3.0]), GAIN], outputs=TENSORS),
     ["--image", "x=rgb,scale=0.5,bias=1:2:3"]),
    ("gray", "ios16", 1, dict(inputs=[image(channels=1, layout="GRAYSCALE"), GAIN], outputs=TENSORS), ["--image", "x=gray"]),
    ("gray of half precision", "ios16", 1, dict(inputs=[image(channels=1, layout="GRAYSCALE_FLOAT16"), GAIN], outputs=TENSORS),
     ["--image", "x=gray16"]),
    ("range", "ios17", 3, dict(inputs=[image(height=size(16, 64), width=size(24, 80)), GAIN], outputs=TENSORS),
     ["--image", "x=rgb", "--input", "x=1x3x[16..64]x[24..80]"]),
    ("enumerated", "ios17", 3,
     dict(inputs=[ct.ImageType(name="x", shape=ct.EnumeratedShapes([(1, 3, 20, 24), (1, 3, 40, 48)])), GAIN], outputs=TENSORS),
     ["--image", "x=rgb", "--input", "x=1x3x{20,40}x{24,48}"]),
    ("image output", "ios16", 3, dict(inputs=[image(), GAIN], outputs=[TENSORS[0], ct.ImageType("pixels")]),
     ["--image", "x=rgb", "--image-output", "pixels=rgb"]),
    ("image output of open size", "ios16", 3,
     dict(inputs=[image(height=size(16, 64), width=size(24, 80)), GAIN], outputs=[TENSORS[0], ct.ImageType("pixels")]),
     ["--image", "x=rgb", "--image-output", "pixels=rgb", "--input", "x=1x3x[16..64]x[24..80]"]),
    ("labels", "ios15", 3, dict(inputs=[image(), GAIN], classifier_config=ct.ClassifierConfig(NAMES)),
     ["--image", "x=rgb", "--class-labels", ",".join(NAMES)]),
    ("integer labels", "ios17", 3, dict(inputs=[image(), GAIN], classifier_config=ct.ClassifierConfig([3, 5, 7, -1])),
     ["--image", "x=rgb", "--class-labels", "3,5,7,-1"]),
    ("optional", "ios15", 3, dict(inputs=[image(), ct.TensorType("gain", shape=(1,), default_value=np.full((1,), 0.5, np.float32))],
                                  outputs=TENSORS),
     ["--image", "x=rgb", "--optional", "gain=0.5"]),
    ("half precision", "ios16", 3,
     dict(inputs=[ct.TensorType("x", shape=(1, 3, 20, 24), dtype=np.float16), ct.TensorType("gain", shape=(1,), dtype=np.float16)],
          outputs=[ct.TensorType("probs", dtype=np.float16), ct.TensorType("pixels", dtype=np.float16)]),
     ["--io-precision", "fp16"]),
]


def described(spec):
    d = spec.description
    for output in d.output:
        # A shape of an output may be left out.
        if output.type.HasField("multiArrayType"):
            output.type.multiArrayType.ClearField("shape")
    return [str(f) for f in d.input] + [str(f) for f in d.output] + [d.predictedFeatureName, d.predictedProbabilitiesName]


def differences(folder, case, mlconv):
    _, target, channels, theirs, ours = case
    net = Net(channels, "classifier_config" in theirs).eval()
    script = torch.jit.trace(net, (torch.rand(1, channels, 20, 24), torch.rand(1)))
    source, package = os.path.join(folder, "net.pt"), os.path.join(folder, "net.mlpackage")
    script.save(source)
    goal, other = getattr(ct.target, target.replace("ios", "iOS")), os.path.join(folder, "other.mlpackage")
    converted = ct.convert(script, minimum_deployment_target=goal, convert_to="mlprogram", skip_model_load=True, **theirs)
    converted.save(other)
    want = converted.get_spec()
    names = outputs(mlconv, source)
    shapes = [] if any("--input" == o for o in ours) else ["--input", f"x=1x{channels}x20x24"]
    renames = [w for old, new in zip(names, ["probs", "pixels"]) for w in ["--rename", f"{old}={new}"]]
    ours = [o.replace("pixels=", f"{names[-1]}=") for o in ours]
    if net.classifies:
        renames = []
    asked = shapes + ["--input", "gain=1"] + ours
    for command in [
        ["convert", source, "-o", package, "--force", "--target", target, *asked, *renames],
        ["verify", other, "--against", source, *asked],
    ]:
        done = subprocess.run([mlconv, *command], capture_output=True, text=True)
        if done.returncode:
            yield f"mlconv {command[0]}: {done.stderr.strip()}"
            return
    model = ct.models.MLModel(package, skip_model_load=True)
    program(package, model)
    for a, b in zip(described(want), described(model.get_spec())):
        if a != b:
            yield f"coremltools: {' '.join(a.split())}; mlconv: {' '.join(b.split())}"


def outputs(mlconv, source):
    """The outputs as mlconv calls them."""
    shapes = ["--input", f"x=1x{torch.jit.load(source).conv.weight.shape[1]}x20x24", "--input", "gain=1"]
    text = subprocess.run([mlconv, "inspect", source, "--format", "json", *shapes], capture_output=True, text=True).stdout
    ports = json.loads(text)["functions"][0]["ports"]
    return [p["name"] for p in ports if p["kind"] == "output"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mlconv", default="target/release/mlconv")
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    passed = failed = 0
    for case in CASES:
        if args.only not in case[0]:
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = list(differences(folder, case, os.path.abspath(args.mlconv)))
            except Exception as e:
                found = [f"{type(e).__name__}: {str(e)[:400]}"]
        passed, failed = passed + (not found), failed + bool(found)
        for line in found:
            print(f"{case[0]}: {line}")
    print(f"{passed} passed, {failed} failed")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
