#!/usr/bin/env python3
"""Which ops of ML programs the operators of ONNX are lowered to, as seen in the cases of ONNX's own suite.

  lowered.py DATA [--mlconv PATH] [--list fixtures/conformance/lowered.toml] [--bless] [--jobs N]

DATA has the cases, each a folder with a `model.onnx`. Of those that are a single node, in every form and version that the
suite has, the ops are collected. The list holds a line for each operator: the ops that some case becomes alone, and the
others. It goes into the pages of the ops. `--bless` writes it, else it must be as it would be written. The last line is
`N passed, M failed`. Needs onnx.
"""
import argparse
import glob
import json
import multiprocessing
import os
import subprocess
import sys
import tomllib

HEADER = """\
# Ops of ML programs that the operators of ONNX are lowered to, in the cases of ONNX's own suite that are a single node:
# those that some case becomes alone, casts apart, and the others, for the oldest target and for a new one. Constants are
# left out. `python3 tests/lowered.py DATA --bless` writes this list.

"""
# What every program may have, whatever it computes.
EVERYWHERE = {"const", "identity"}
# Newer op sets have ops of their own, and forms of others that need help.
TARGETS = ["ios15", "ios18"]


def one(job):
    """The operator of a model of one node, and the ops it becomes; nothing for other models, and for those refused."""
    path, target, binary = job
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    if len(graph.node) != 1:
        return None
    done = subprocess.run([binary, "inspect", path, "--target", target, "--format", "json"], capture_output=True, text=True)
    if done.returncode != 0:
        return None
    report = json.loads(done.stdout)
    if report["blockers"]:
        return None
    node = graph.node[0]
    operator = f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type
    return operator, {op["op"] for f in report["functions"] for op in f["ops"]} - EVERYWHERE


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("data")
    p.add_argument("--mlconv", default="target/release/mlconv")
    p.add_argument("--list", default=os.path.join(here, "..", "fixtures", "conformance", "lowered.toml"))
    p.add_argument("--bless", action="store_true", help="write the list")
    p.add_argument("--jobs", type=int, default=os.cpu_count())
    args = p.parse_args()
    models = sorted(glob.glob(os.path.join(args.data, "**", "model.onnx"), recursive=True))
    alone, all_ops = {}, {}
    jobs = [(m, t, os.path.abspath(args.mlconv)) for m in models for t in TARGETS]
    with multiprocessing.Pool(args.jobs) as pool:
        for row in pool.imap_unordered(one, jobs, chunksize=16):
            if row:
                operator, ops = row
                only = ops - {"cast"} or ops
                alone.setdefault(operator, set()).update(only if len(only) == 1 else ())
                all_ops.setdefault(operator, set()).update(ops)
    found = {o: [sorted(alone[o]), sorted(ops - alone[o])] for o, ops in sorted(all_ops.items()) if ops}
    if args.bless:
        with open(args.list, "w", encoding="utf-8") as f:
            f.write(HEADER + "".join(f"{json.dumps(k)} = {json.dumps(v)}\n" for k, v in found.items()))
    with open(args.list, "rb") as f:
        known = tomllib.load(f)
    bad = sorted(k for k in set(known) | set(found) if known.get(k) != found.get(k))
    for operator in bad:
        print(f"{operator}: {found.get(operator)}, on the list {known.get(operator)}")
    print(f"{len(found) - len(bad)} passed, {len(bad)} failed")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
