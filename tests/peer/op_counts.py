#!/usr/bin/env python3
"""Counts the ops of converted models, beside those that coremltools makes of the same files.

  op_counts.py --mlconv BIN [--only TEXT] [--target ios17] [--peers counts.json] [--list MODEL] [--markdown] FOLDER…

A model is a folder with `model.pt2` or `model.pt`, and `io.npz` for the shapes of inputs. coremltools reads the exported program
with its decompositions run, else the TorchScript; a model that it converts from neither is not compared. Ours is the `.pt2`
where there is one. Constants and what decodes them are not counted; ops in blocks are.

`--peers` keeps what coremltools makes, so that only models that are not in it are converted again. `--list` prints the ops of one
model side by side. The sum must be at most coremltools', and no model may have more than 1.05 times as many. The last line is
`N passed, M failed`. Needs torch, coremltools and numpy; with all models in `--peers`, coremltools alone.
"""
import argparse
import collections
import json
import os
import re
import subprocess
import sys
import tempfile

MOST = 1.05


def ops_of(package):
    """The histogram of the ops of a package, over all functions and blocks."""
    from coremltools.proto import Model_pb2

    path = os.path.join(package, "Data/com.apple.CoreML/model.mlmodel")
    model = Model_pb2.Model()
    with open(path, "rb") as f:
        model.ParseFromString(f.read())
    counts = collections.Counter()

    def walk(block):
        for op in block.operations:
            if op.type != "const" and not op.type.startswith("constexpr_"):
                counts[op.type] += 1
            for inner in op.blocks:
                walk(inner)

    for function in model.mlProgram.functions.values():
        for block in function.block_specializations.values():
            walk(block)
    return counts


def peer(folder, target, out):
    """Converts with coremltools; what it was made of."""
    import coremltools as ct
    import numpy as np
    import torch

    options = dict(convert_to="mlprogram", skip_model_load=True, minimum_deployment_target=getattr(ct.target, target.replace("ios", "iOS")))
    why = []
    pt2, pt = (os.path.join(folder, f"model.{e}") for e in ("pt2", "pt"))
    if os.path.exists(pt2):
        try:
            ct.convert(torch.export.load(pt2).run_decompositions({}), **options).save(out)
            return "pt2"
        except Exception as e:
            why.append(str(e).splitlines()[0][:100] if str(e) else repr(e))
    if os.path.exists(pt):
        try:
            with np.load(os.path.join(folder, "io.npz")) as z:
                names = sorted((k for k in z.files if re.fullmatch(r"in_\d+", k)), key=lambda k: int(k[3:]))
                arrays = [z[k] for k in names]
            types = [ct.TensorType(shape=a.shape, dtype=np.int32 if a.dtype == np.int64 else a.dtype) for a in arrays]
            ct.convert(torch.jit.load(pt), inputs=types, **options).save(out)
            return "pt"
        except Exception as e:
            why.append(str(e).splitlines()[0][:100] if str(e) else repr(e))
    return "; ".join(why) or "no file"


def peers(args, folders):
    known = {}
    if args.peers and os.path.exists(args.peers):
        with open(args.peers) as f:
            known = json.load(f)
    for folder in folders:
        name = f"{os.path.basename(folder)} {args.target}"
        if name in known:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            out = os.path.join(scratch, "peer.mlpackage")
            # A process of its own: what fails may leave patches behind.
            done = subprocess.run([sys.executable, os.path.abspath(__file__), "--peer", folder, args.target, out],
                                  capture_output=True, text=True)
            kind = (done.stdout.strip().splitlines() or ["it ends early"])[-1]
            known[name] = {"of": kind, "ops": dict(sorted(ops_of(out).items())) if os.path.exists(out) else None}
        if args.peers:
            with open(args.peers, "w") as f:
                json.dump(known, f, indent=1, sort_keys=True)
    return known


def ours(args, folder):
    source = next(p for e in ("pt2", "pt") if os.path.exists(p := os.path.join(folder, f"model.{e}")))
    with tempfile.TemporaryDirectory() as scratch:
        out = os.path.join(scratch, "ours.mlpackage")
        command = [args.mlconv, "convert", source, "-o", out, "--target", args.target, "--no-verify", "--quiet", *args.option]
        if source.endswith(".pt"):
            import numpy as np

            with np.load(os.path.join(folder, "io.npz")) as z:
                sample = os.path.join(scratch, "in.npz")
                np.savez(sample, **{k: z[k] for k in z.files if k.startswith("in_")})
            command += ["--sample", sample]
        done = subprocess.run(command, capture_output=True, text=True)
        return ops_of(out) if os.path.exists(out) else done.stderr


def main():
    if sys.argv[1:2] == ["--peer"]:
        return print(peer(*sys.argv[2:]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mlconv", default="target/release/mlconv")
    parser.add_argument("--only", default="")
    parser.add_argument("--target", default="ios17")
    parser.add_argument("--peers")
    parser.add_argument("--list")
    parser.add_argument("--option", action="append", default=[], help="a further option of the conversion")
    parser.add_argument("--markdown", action="store_true", help="print the table of docs/benchmarks.md")
    parser.add_argument("folders", nargs="+")
    args = parser.parse_args()
    models = sorted(os.path.join(top, n) for top in args.folders for n in os.listdir(top)
                    if args.only in n and (not args.list or n == args.list))
    known = peers(args, models)
    passed = failed = 0
    sums, rows = [0, 0], []
    for folder in models:
        name = os.path.basename(folder)
        theirs = known[f"{name} {args.target}"]
        if not theirs["ops"]:
            rows.append((name, theirs["of"], None, None))
            continue
        mine = ours(args, folder)
        if isinstance(mine, str):
            print(f"{name}: not converted: {mine}")
            failed += 1
            continue
        a, b = sum(mine.values()), sum(theirs["ops"].values())
        sums = [sums[0] + a, sums[1] + b]
        rows.append((name, theirs["of"], a, b))
        failed, passed = (failed + 1, passed) if a > MOST * b else (failed, passed + 1)
        if args.list:
            for op in sorted(set(mine) | set(theirs["ops"])):
                print(f"{op:32} {mine.get(op, 0):5} {theirs['ops'].get(op, 0):5}")
    for name, kind, a, b in rows:
        if args.markdown:
            print(f"| {name} | {kind} | {a} | {b} | {a / b:.2f} |" if b else f"| {name} | refused | | | |")
        else:
            print(f"{name:24} {kind:4} {a:5} {b:5} {a / b:5.2f}{'  MORE' if a > MOST * b else ''}" if b else f"{name:24} refused: {kind}")
    print(f"all: {sums[0]} ops, coremltools {sums[1]}, {sums[0] / max(sums[1], 1):.3f} times")
    failed += sums[0] > sums[1]
    print(f"{passed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
