#!/usr/bin/env python3
"""Converts the PyTorch files of corpora, so that coremltools can read the packages.

  tests/peer/corpus.py [--mlconv target/release/mlconv] [--target ios18] [--jobs 2] --out FOLDER CORPUS…

A corpus is a folder of folders, each with `model.pt2` or `model.pt` and the inputs `in_0`, `in_1`, … in `io.npz`. A file that does
not convert is named; one that crashes mlconv leaves a file `crashed` beside the packages. Needs numpy.
"""
import argparse
import concurrent.futures
import os
import subprocess
import tempfile

import numpy as np


def sample(io, path):
    """Writes the inputs alone, in order, in the types that packages have."""
    with np.load(io) as arrays:
        names = sorted((n for n in arrays.files if n.startswith("in_")), key=lambda n: int(n[3:]))
        narrow = {np.dtype("int64"): np.int32, np.dtype("float64"): np.float32}
        ins = {f"in_{i:03}": arrays[n].astype(narrow.get(arrays[n].dtype, arrays[n].dtype)) for i, n in enumerate(names)}
    np.savez(path, **ins)


def convert(args, source):
    folder, file = os.path.split(source)
    corpus, case = folder.split(os.sep)[-2:]
    out = os.path.join(args.out, f"{corpus}_{case}_{file.replace('.', '_')}.mlpackage")
    with tempfile.TemporaryDirectory() as tmp:
        inputs = os.path.join(tmp, "in.npz")
        sample(os.path.join(folder, "io.npz"), inputs)
        command = [args.mlconv, "convert", source, "-o", out, "--target", args.target, "--sample", inputs]
        status = subprocess.run([*command, "--no-verify", "--quiet"], capture_output=True).returncode
    if status not in (0, 1, 2):
        open(os.path.join(args.out, "crashed"), "w").close()
    return {0: None, 1: None, 2: f"not converted: {source}"}.get(status, f"CRASHED: {source}")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--mlconv", default="target/release/mlconv")
    p.add_argument("--target", default="ios18")
    p.add_argument("--jobs", type=int, default=2)
    p.add_argument("--out", required=True)
    p.add_argument("corpora", nargs="+")
    args = p.parse_args()
    os.makedirs(args.out, exist_ok=True)
    files = (os.path.join(c, case, f) for c in args.corpora for case in sorted(os.listdir(c)) for f in ("model.pt2", "model.pt"))
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for said in pool.map(lambda f: convert(args, f), filter(os.path.exists, files)):
            if said:
                print(said)


main()
