#!/usr/bin/env python3
"""The catalogue of ops: what `mlconv ops` says of each, against the classes of coremltools.

  tests/peer/catalogue.py [--mlconv PATH]

At every op set each op must be in both, with the same parameters in the same order, which take the same element types and
share them alike, and are constant and optional alike. Prints each difference that has no reason here; the last line is
`N passed, M failed`. Needs coremltools.
"""
import argparse
import json
import logging
import os
import subprocess
import sys
import warnings

warnings.filterwarnings("ignore")
logging.disable(logging.ERROR)

import coremltools  # noqa: F401: it fills the registry
from coremltools.converters.mil.mil import types
from coremltools.converters.mil.mil.input_type import TensorInputType
from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

OPSETS = ["ios15", "ios16", "ios17", "ios18"]
# Ops of one side alone.
ONLY_THERE = {
    "_const_symbolic": "not public",
    "conv_quantized": "of neural networks; no ML program has it",
}
ONLY_HERE = {"write_state": "there it exists only in files"}
# What differs on purpose: op, parameter or "" for the order of them.
DIFFERENT = {
    ("avg_pool", ""): "the parameter that other pools do not have comes first there, last in its documentation",
    ("while_loop", ""): "the loop variables come last there; first here, as in files",
    ("make_list", "elem_shape"): "a tuple of constants there; literals here",
    ("reshape_like", "begins"): "a tuple of constants there; literals here",
    ("reshape_like", "ends"): "a tuple of constants there; literals here",
    ("reshape_like", "end_masks"): "a tuple of constants there; literals here",
}
# What builds blocks in Python is no parameter of an op.
HIDDEN = {"_existing_blocks"}
NAMES = {"fp16": "f16", "fp32": "f32", "fp64": "f64", "str": "str", "bool": "bool"}


def ours(binary):
    """By op and op set, the parameters."""
    done = subprocess.run([binary, "ops", "--format", "json"], capture_output=True, text=True, check=True)
    found = {}
    for op in json.loads(done.stdout)["ops"]:
        last = None
        for opset in OPSETS:
            if opset < op["since"] or op["until"] and opset >= op["until"]:
                continue
            last = op["signatures"].get(opset, last)
            found.setdefault(op["name"], {})[opset] = last
    return found


def element(t):
    name = types.builtin_to_string(t)
    return NAMES.get(name) or name.replace("uint", "u").replace("int", "i")


def theirs():
    """The same of coremltools."""
    found = {}
    for op, classes in SSAOpRegistry.core_ops.items():
        classes = {t.name.replace("iOS", "ios"): c for t, c in classes.items()}
        for opset in (o for o in OPSETS if o in classes):
            params = []
            for name, kind in classes[opset].input_spec.input_types.items():
                if name in HIDDEN:
                    continue
                tensor = isinstance(kind, TensorInputType)
                params.append(
                    {
                        "name": name.lstrip("_"),
                        "variable": kind.type_domain_id if tensor else None,
                        "types": domain(classes[opset], kind) if tensor else None,
                        "constant": kind.const,
                        "optional": kind.optional,
                    }
                )
            found.setdefault(op, {})[opset] = params
    return found


def domain(kind, param):
    if param.type_domain_id is not None:
        return sorted({element(t) for t in kind.type_domains[param.type_domain_id]})
    return sorted({element(t) for t in param.type_domain})


def compare(op, a, b):
    """How two lists of parameters differ: parameter and what."""
    by_name = [{p["name"]: p for p in side} for side in (a, b)]
    for name in by_name[0].keys() ^ by_name[1].keys():
        yield name, "only here" if name in by_name[0] else "only there"
    shared = [p["name"] for p in a if p["name"] in by_name[1]]
    if shared != [p["name"] for p in b if p["name"] in by_name[0]]:
        yield "", f"order {shared}"
    pairs = [(by_name[0][n], by_name[1][n]) for n in shared]
    for p, q in pairs:
        if p["takes"] != "block":
            for key in ("constant", "optional"):
                if p[key] != q[key]:
                    yield p["name"], f"{key} here is {p[key]}, there {q[key]}"
        # A literal without types of its own takes what its kind gives; a tuple or a list has none there.
        if p["types"] is not None and q["types"] is not None and sorted(p["types"]) != q["types"]:
            yield p["name"], f"types {' '.join(sorted(p['types']))}, there {' '.join(q['types'])}"
    typed = [(p, q) for p, q in pairs if p["variable"] and q["variable"]]
    for i, (p, q) in enumerate(typed):
        for r, s in typed[i + 1 :]:
            if (p["variable"] == r["variable"]) != (q["variable"] == s["variable"]):
                yield r["name"], f"shares its type with `{p['name']}` on one side alone"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--mlconv", default="target/release/mlconv")
    args = p.parse_args()
    here, there = ours(os.path.abspath(args.mlconv)), theirs()
    bad, used, passed = [], set(), 0
    for op in sorted(here.keys() | there.keys()):
        if op in ONLY_HERE and op not in there or op in ONLY_THERE and op not in here:
            used.add(op)
            continue
        for opset in OPSETS:
            a, b = here.get(op, {}).get(opset), there.get(op, {}).get(opset)
            if a is None and b is None:
                continue
            if a is None or b is None:
                found = [("", "only there" if a is None else "only here")]
            else:
                found = list(compare(op, a, b))
            used.update((op, param) for param, _ in found if (op, param) in DIFFERENT)
            found = [(param, what) for param, what in found if (op, param) not in DIFFERENT]
            bad += [f"{op} {opset}: {f'`{param}` ' if param else ''}{what}" for param, what in found]
            passed += not found
    bad += [f"{e}: a reason without a difference" for e in {*ONLY_HERE, *ONLY_THERE, *DIFFERENT} - used]
    print("\n".join(bad), end="\n" if bad else "")
    print(f"{passed} passed, {len(bad)} failed")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
