#!/usr/bin/env python3
"""The value of each op: what coremltools infers from constants, against what `mlconv run` computes.

  tests/peer/values.py [--mlconv PATH] [--only TEXT] [--jobs N]

Every op that coremltools can compute has cases in value_cases.py, one op each. A case is computed twice: once by
coremltools, from constants, and once by mlconv, which runs a package that coremltools wrote and in which the operands are
inputs, on the kernels for the CPU and on the reference kernels. That is done at every op set in which coremltools defines
the op anew. Integers and booleans must be equal, floats as near as their element type allows, and the types that the
package states must be those that mlconv infers.

fixtures/conformance/values.toml lists the cases where coremltools' value is not the documented one, or is none. One that
agrees after all must leave the list. Prints a line for each op; the last line is `N passed, M failed`. Needs coremltools.
"""
import argparse
import logging
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import warnings

warnings.filterwarnings("ignore")
logging.disable(logging.ERROR)
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import coremltools as ct
import numpy as np
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types
from coremltools.converters.mil.mil.operation import Operation
from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

import value_cases

HERE = os.path.dirname(os.path.abspath(__file__))
EXCEPTIONS = os.path.join(HERE, "..", "..", "fixtures", "conformance", "values.toml")
TARGETS = {t: getattr(ct.target, t.replace("ios", "iOS")) for t in ("ios15", "ios16", "ios17", "ios18")}
BACKENDS = ["cpu", "reference"]
# Ops of which a package has at most so many: a failure takes the others of its package with it, and they are run again.
BATCH = 60
# Relative and absolute, by element type; in half precision coremltools rounds at every step.
TOLERANCE = {"float32": (1e-6, 1e-7), "float16": (1e-3, 1e-3)}
# They have a value, but are no op of a program that computes one.
NOT_COMPUTED = {
    "_const_symbolic": "not public",
    "const": "every case has some",
    "reverse_sequence": "its inference is not written",
}


def versions(op):
    """The op sets in which coremltools has a class of its own for an op, with what they inherit from older ones at the first."""
    classes = {t.name.replace("iOS", "ios"): c for t, c in SSAOpRegistry.core_ops[op].items()}
    found, last = [], None
    for target in TARGETS:
        if classes.get(target) not in (None, last):
            found.append(target)
        last = classes.get(target, last)
    return found


def infers(op):
    return any(c.value_inference is not Operation.value_inference for c in SSAOpRegistry.core_ops[op].values())


def runs():
    """Every case with every target it is for: `(name, target, number)`."""
    order = list(TARGETS)
    for number, case in enumerate(value_cases.CASES):
        targets = set(versions(case.op))
        first = case.since or "ios15"
        # A parameter that a case needs may be younger than its op, and is there in later forms too.
        if not any(t >= first for t in targets) or first not in targets and case.since:
            targets.add(first)
        for target in sorted(targets, key=order.index):
            if target >= first and (case.until is None or target < case.until):
                yield f"{case.op} {target}: {case.label}", target, number


def tensors(arguments):
    """The operands of a case, under names of their own; operands that are lists are numbered."""
    for name, a in arguments.items():
        if isinstance(a, np.ndarray):
            yield (name, None), a
        elif isinstance(a, list | tuple):
            for i, x in enumerate(a):
                if isinstance(x, np.ndarray):
                    yield (name, i), x


def call(case, values):
    """The op of a case, on `values` for its operands; a list of results."""
    arguments = {k: v.make() if isinstance(v, value_cases.Made) else v for k, v in case.arguments.items()}
    for (name, i), v in values.items():
        if i is None:
            arguments[name] = v
        else:
            arguments[name] = list(arguments[name])
            arguments[name][i] = v
    arguments = {k: tuple(v) if isinstance(v, list) and any(hasattr(x, "op") for x in v) else v for k, v in arguments.items()}
    out = getattr(mb, case.op)(**arguments)
    return list(out) if isinstance(out, list | tuple) else [out]


def inferred(case, target):
    """What coremltools computes; None for a result that it does not."""
    found = []

    # `mb` wants a program around an op, and a program an input.
    @mb.program(input_specs=[mb.TensorSpec(shape=(1,))], opset_version=TARGETS[target])
    def prog(unused):
        out = call(case, {at: mb.const(val=a) for at, a in tensors(case.arguments)})
        found.extend(None if v.val is None else np.asarray(v.val).astype(types.nptype_from_builtin(v.dtype)) for v in out)
        return unused

    return found


# What inputs of a package cannot be before iOS 26 is cast from integers.
CARRIED = ["bool", "int8", "uint8", "int16", "uint16"]


def package(path, target, cases):
    """Writes a package of the ops of `cases`, each result an output; its inputs."""
    # Some have no operand, and a program has an input.
    feeds = {"unused": np.zeros(1, np.float32)}
    specs = [("unused", mb.TensorSpec(shape=(1,)), feeds["unused"], None)]
    for i, (_, _, case) in enumerate(cases):
        for k, (at, a) in enumerate(tensors(case.arguments)):
            carried = np.int32 if a.dtype.name in CARRIED else a.dtype
            if carried == np.float16 and target == "ios15":
                carried = np.float32
            feed = a.reshape(a.shape or (1,)).astype(carried)
            dtype = types.numpy_type_to_builtin_type(feed.dtype)
            feeds[f"in_{i}_{k}"] = feed
            specs.append((f"in_{i}_{k}", mb.TensorSpec(shape=feed.shape, dtype=dtype), a, at))

    def body(**inputs):
        outs = [mb.identity(x=inputs["unused"], name="out")]
        for i, (_, _, case) in enumerate(cases):
            values = {}
            for name, _, a, at in specs:
                if not name.startswith(f"in_{i}_"):
                    continue
                v = inputs[name]
                if a.shape == ():
                    v = mb.squeeze(x=v, axes=[0])
                wanted = {"float16": "fp16", "float32": "fp32"}.get(a.dtype.name, a.dtype.name)
                values[at] = v if feeds[name].dtype == a.dtype else mb.cast(x=v, dtype=wanted)
            for k, v in enumerate(call(case, values)):
                # Interfaces have no other element types.
                if v.dtype not in (types.fp32, types.int32, types.fp16) or target == "ios15" and v.dtype == types.fp16:
                    v = mb.cast(x=v, dtype="fp32" if v.dtype == types.fp16 else "int32")
                outs.append(mb.identity(x=v, name=f"out_{i}_{k}"))
        return tuple(outs)

    # `mb.program` takes the names of inputs from the function's parameters.
    names = ", ".join(name for name, *_ in specs)
    scope = {"body": body}
    exec(f"def prog({names}): return body({', '.join(f'{n}={n}' for n in names.split(', '))})", scope)
    prog = mb.program(input_specs=[s for _, s, *_ in specs], opset_version=TARGETS[target])(scope["prog"])
    model = ct.convert(
        prog,
        convert_to="mlprogram",
        minimum_deployment_target=TARGETS[target],
        compute_precision=ct.precision.FLOAT32,
        pass_pipeline=ct.PassPipeline.EMPTY,
        skip_model_load=True,
    )
    model.save(path)
    return feeds


def computed(binary, folder, target, cases):
    """What mlconv computes, by backend: a list of results for each case, or why there is none."""
    path, inputs = os.path.join(folder, "m.mlpackage"), os.path.join(folder, "in.npz")
    shutil.rmtree(path, ignore_errors=True)
    why = None
    try:
        np.savez(inputs, **package(path, target, cases))
    except Exception as e:
        why = f"coremltools does not write it: {type(e).__name__}: {' '.join(str(e).split())[:300]}"
    by_backend = {}
    for backend in BACKENDS:
        out = os.path.join(folder, f"{backend}.npz")
        if why is None:
            done = subprocess.run(
                [binary, "run", path, "--inputs", inputs, "--outputs", out, "--backend", backend],
                capture_output=True,
                text=True,
            )
            # It warns where the package states other types than it infers.
            if done.returncode != 0 or "R0006" in done.stderr:
                why = f"mlconv run ended with {done.returncode}: {' '.join(done.stderr.split())[:300]}"
        if why is not None:
            if len(cases) > 1:
                # One of them is to blame.
                half = len(cases) // 2
                parts = [computed(binary, folder, target, c) for c in (cases[:half], cases[half:])]
                return {b: parts[0][b] + parts[1][b] for b in BACKENDS}
            return {b: [why] for b in BACKENDS}
        with np.load(out) as z:
            found = {k: z[k] for k in z.files if k != "out"}
        rows = [[] for _ in cases]
        for name in sorted(found, key=lambda n: [int(x) for x in n.split("_")[1:]]):
            rows[int(name.split("_")[1])].append(found[name])
        by_backend[backend] = rows
    return by_backend


def shown(a):
    return " ".join(np.array2string(a, threshold=12, precision=9).split())


def differs(want, found):
    """How two tensors differ; None where they agree."""
    if want.shape != found.shape:
        return f"shape {list(found.shape)}, coremltools has {list(want.shape)}"
    if want.dtype.kind != "f":
        same = np.array_equal(want.astype(np.int64), found.astype(np.int64)) if found.dtype.kind != "f" else False
    else:
        relative, absolute = TOLERANCE[want.dtype.name]
        a, b = want.astype(np.float64), found.astype(np.float64)
        same = np.allclose(b, a, rtol=relative, atol=absolute, equal_nan=True)
    return None if same else f"{shown(found)}, coremltools has {shown(want)}"


def check(job):
    """The faults of each case of a batch."""
    # Cases hold functions, which do not travel between processes.
    binary, folder, target, numbered = job
    cases = [(name, target, value_cases.CASES[number]) for name, _, number in numbered]
    own = os.path.join(folder, str(os.getpid()))
    os.makedirs(own, exist_ok=True)
    wanted = []
    for _, _, case in cases:
        try:
            wanted.append(inferred(case, target))
        except Exception as e:
            wanted.append(f"coremltools does not compute it: {type(e).__name__}: {' '.join(str(e).split())[:300]}")
    found = computed(binary, own, target, cases)
    results = []
    for i, (name, _, case) in enumerate(cases):
        want, fault = wanted[i], None
        if isinstance(want, str):
            fault = want
        elif any(w is None for w in want):
            fault = "coremltools does not compute it"
        for backend in BACKENDS:
            got = found[backend][i]
            if fault is None and isinstance(got, str):
                fault = got
            elif fault is None and len(got) != len(want):
                fault = f"{len(got)} results, coremltools has {len(want)}"
            if fault is None:
                faults = [f for f in map(differs, want, got) if f]
                fault = f"{backend}: {faults[0]}" if faults else None
        results.append((name, case.op, fault))
    return results


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--mlconv", default="target/release/mlconv")
    p.add_argument("--only", default="", metavar="TEXT", help="cases with this in their name")
    p.add_argument("--jobs", type=int, default=os.cpu_count())
    args = p.parse_args()
    with open(EXCEPTIONS, "rb") as f:
        exceptions = tomllib.load(f)
    cases = [c for c in runs() if args.only in c[0]]
    assert len({c[0] for c in cases}) == len(cases), "two cases have one name"
    by_target = {t: [c for c in cases if c[1] == t] for t in TARGETS}
    with tempfile.TemporaryDirectory() as folder:
        jobs = [
            (os.path.abspath(args.mlconv), folder, target, mine[i : i + BATCH])
            for target, mine in by_target.items()
            for i in range(0, len(mine), BATCH)
        ]
        with multiprocessing.Pool(args.jobs) as pool:
            results = [r for rows in pool.imap(check, jobs, chunksize=1) for r in rows]

    counts, bad = {}, []
    for name, op, fault in results:
        row = counts.setdefault(op, [0, 0, 0])
        if fault is None and name in exceptions:
            bad.append(f"{name}: agrees; take it off the list")
            row[1] += 1
        elif fault is None:
            row[0] += 1
        elif name in exceptions:
            row[2] += 1
        else:
            bad.append(f"{name}: {fault}")
            row[1] += 1
    bad += [f"{n}: on the list, but no case" for n in exceptions if args.only in n and n not in {r[0] for r in results}]
    if not args.only:
        lacking = {op for op in SSAOpRegistry.core_ops if infers(op)} - set(counts) - set(NOT_COMPUTED)
        bad += [f"{op}: coremltools computes it, and there is no case" for op in sorted(lacking)]
    for op, (ok, wrong, known) in sorted(counts.items()):
        print(f"{op}: {ok} agree" + (f", {wrong} do not" if wrong else "") + (f", {known} known exceptions" if known else ""))
    without = sorted(op for op in SSAOpRegistry.core_ops if not infers(op))
    print(f"coremltools computes no value of {len(without)} ops: {' '.join(without)}")
    print("\n".join(bad), end="\n" if bad else "")
    print(f"{sum(c[0] for c in counts.values())} passed, {len(bad)} failed")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
