#!/usr/bin/env python3
"""Compressed packages, read by mlconv and by coremltools: both must see the same numbers, bit for bit.

  tests/peer/compressed.py [--mlconv PATH] [--only TEXT] [--jobs N]

What mlconv compresses is read by coremltools, which infers the type of every op anew, and decoded by the definitions of its
classes. What coremltools compresses is read by mlconv. Both times that must equal what `mlconv compress --decompress` gives.
Prints each case that fails; the last line is `N passed, M failed`. Needs coremltools and scikit-learn.
"""
import argparse
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, here)
os.environ.setdefault("OMP_NUM_THREADS", "1")

FIXTURES = os.path.join(here, "..", "..", "fixtures", "models")
DIGITS = ["digits_cnn", "digits_gru", "digits_transformer"]
TARGETS = ["ios16", "ios17", "ios18", "ios26"]
# So low that biases alone are left: the models are small.
THRESHOLD = 60

# What each target can say.
OLD = [
    *("int8", "int8-asym", "int8-tensor", "int8-mse", "uint8", "uint8-sym", "uint8-tensor"),
    *("pal1", "pal2", "pal4", "pal6", "pal8", "pal4-uniform", "pal8-uniform"),
    *("prune50", "prune75", "prune2:4", "prune-t0.05", "prune50-b2"),
]
NEW = [
    *("int4", "uint4", "int4-tensor", "int4-asym", "uint4-sym", "int4-mse"),
    *(f"{d}-b{n}" for d in ("int8", "uint8", "int4", "uint4") for n in (8, 32)),
    *("int4-b32-mse", "uint4-b16-mse", "int4-b5", "int8-b1"),
    *(f"pal{b}{words}" for b in (1, 2, 3, 4, 6, 8) for words in ("", "-g16", "-lut8", "-v2", "-g8-lut8")),
    *(f"pal{b}-scale" for b in (1, 2, 3, 4, 6)),
    *("pal3-uniform", "pal4-g8-uniform", "pal4-g8-in", "pal6-g16-in", "pal4-g16-scale", "pal4-g4-in-scale"),
    *("pal4-v4", "pal6-v2", "pal8-v2", "pal3-v8", "pal4-g16-v2", "pal4-v2-lut8", "pal4-g8-v2-lut8"),
    *("pal4-ulut8", "pal4-g16-ulut8", "pal6-scale-lut8", "pal4-scale-ulut8", "pal4-g16-scale-lut8", "pal4-in-g8-lut8"),
    *("prune50+int8", "prune50+uint8", "prune50+int4", "prune50+uint4", "prune50+int8-tensor", "prune50+int4-b32"),
    *("prune50+uint4-b16", "prune50+int8-asym", "prune50+int4-b32-mse", "prune2:4+int8", "prune2:4+int4-b32"),
    *(f"prune50+pal{b}" for b in (1, 2, 3, 4, 6, 8)),
    *("prune50+pal4-g16", "prune50+pal4-lut8", "prune50+pal4-g8-lut8", "prune2:4+pal4", "prune75+pal6-g16"),
    *("prune-t0.05+pal4", "prune75-b2+pal4", "prune50+pal4-uniform", "prune90+int8", "prune99+pal2"),
]
PRESETS = ["int8-mse", "pal3-g16", "pal2-g8", "prune50-int8", "prune50-pal4", "uint4-b32"]


@dataclass
class Case:
    name: str
    # A model for mlconv to compress, or a package to make with coremltools.
    model: str
    target: str
    scheme: str = ""
    # For coremltools: functions with their options, one after the other.
    chain: list = field(default_factory=list)


def linear(**options):
    return "linear", options


def palette(**options):
    return "palette", options


def prune(**options):
    return "prune", options


def custom(weight):
    """A table that a user might give: the evenly spaced ranks of the weight."""
    import numpy as np

    table = np.quantile(weight.astype(np.float32), np.linspace(0, 1, 16)).astype(weight.dtype)
    flat = weight.flatten().astype(np.float32)
    return table, np.abs(flat[:, None] - table.astype(np.float32)[None]).argmin(1).astype(np.uint8)


def chains():
    """What coremltools is asked to do, with the first target that can say it."""
    for mode in ("linear_symmetric", "linear"):
        for dtype in ("int8", "uint8", "int4", "uint4"):
            for granularity in ("per_tensor", "per_channel", "per_block"):
                old = "8" in dtype and granularity != "per_block"
                options = {"block_size": 8} if granularity == "per_block" else {}
                name = f"{mode} {dtype} {granularity}"
                yield name, "ios16" if old else "ios18", [linear(mode=mode, dtype=dtype, granularity=granularity, **options)]
    # A size for each axis, which only weights of two axes have.
    blocks = {"mode": "linear", "dtype": "int4", "granularity": "per_block", "block_size": (2, 16)}
    yield "linear int4 blocks of both axes", "ios18", [linear(**blocks, only="matmul")]
    groups = {"granularity": "per_grouped_channel", "group_size": 8}
    for mode in ("kmeans", "uniform"):
        for bits in (1, 2, 3, 4, 6, 8):
            first = "ios18" if bits == 3 else "ios16"
            yield f"{mode} {bits}", first, [palette(mode=mode, nbits=bits)]
        yield f"{mode} 4 by groups", "ios18", [palette(mode=mode, nbits=4, **groups)]
        yield f"{mode} 3 by groups of inputs", "ios18", [palette(mode=mode, nbits=3, **groups, channel_axis=1)]
        yield f"{mode} 4 with scales", "ios18", [palette(mode=mode, nbits=4, enable_per_channel_scale=True)]
    yield "4 by groups with scales", "ios18", [palette(mode="kmeans", nbits=4, **groups, enable_per_channel_scale=True)]
    yield "custom", "ios16", [palette(mode="custom", lut_function=custom)]
    for bits, size in ((1, 2), (4, 2), (3, 4), (6, 2)):
        yield f"kmeans {bits} by vectors of {size}", "ios18", [palette(mode="kmeans", nbits=bits, cluster_dim=size)]
    yield "4 by vectors and groups", "ios18", [palette(mode="kmeans", nbits=4, cluster_dim=2, **groups)]
    half = prune(target_sparsity=0.5)
    yield "pruned by half", "ios16", [half]
    yield "pruned by nine tenths", "ios16", [prune(target_sparsity=0.9)]
    yield "pruned 2 of 4", "ios16", [prune(n_m_ratio=(2, 4))]
    yield "pruned by blocks", "ios16", [prune(target_sparsity=0.5, block_size=2)]
    yield "pruned by threshold", "ios16", [("threshold", {"threshold": 0.05, "minimum_sparsity_percentile": 0.0})]
    for dtype in ("int8", "uint8", "int4", "uint4"):
        for mode in ("linear_symmetric", "linear"):
            yield f"pruned, {mode} {dtype}", "ios18", [half, linear(mode=mode, dtype=dtype)]
    yield "pruned, blocks", "ios18", [half, linear(dtype="int4", granularity="per_block", block_size=8)]
    yield "pruned, kmeans 4", "ios18", [half, palette(mode="kmeans", nbits=4)]
    yield "pruned, kmeans 4 by groups", "ios18", [half, palette(mode="kmeans", nbits=4, **groups)]
    yield "pruned, uniform 3", "ios18", [half, palette(mode="uniform", nbits=3)]
    tensor = linear(mode="linear_symmetric", granularity="per_tensor")
    yield "kmeans 4, table int8", "ios18", [palette(mode="kmeans", nbits=4), tensor]
    yield "kmeans 4 by groups, table int8", "ios18", [palette(mode="kmeans", nbits=4, **groups), tensor]
    yield "kmeans 4 by vectors, table int8", "ios18", [palette(mode="kmeans", nbits=4, cluster_dim=2), tensor]
    yield "kmeans 4, table uint8", "ios18", [
        palette(mode="kmeans", nbits=4),
        linear(mode="linear", dtype="uint8", granularity="per_tensor"),
    ]
    yield "int8, unique", "ios18", [linear(mode="linear_symmetric", granularity="per_tensor"), palette(mode="unique")]
    yield "int8, kmeans 4", "ios18", [linear(mode="linear_symmetric"), palette(mode="kmeans", nbits=4)]
    yield "int8, pruned", "ios18", [linear(mode="linear_symmetric"), half]
    yield "kmeans 4, pruned", "ios18", [palette(mode="kmeans", nbits=4), half]
    yield "pruned, kmeans 4, table int8", "ios18", [half, palette(mode="kmeans", nbits=4), tensor]


# What only the newest can say, or say in fewer bytes than the weight itself.
NEWEST = ["pal4-v2-scale", "pal8-scale"]


def cases():
    for target in TARGETS:
        for scheme in OLD + (NEW if target in ("ios18", "ios26") else []) + (NEWEST if target == "ios26" else []):
            yield Case(f"{target} {scheme}", "made", target, scheme)
    for scheme in PRESETS:
        yield Case(f"ios18 {scheme}", "made", "ios18", scheme)
    for model in DIGITS:
        for target, scheme in [
            *(("ios16", s) for s in ("int8", "pal4", "prune50")),
            *(("ios18", s) for s in ("int4-b32", "pal4-g16", "pal4-v2", "prune50+pal4", "prune50+int8", "pal2-scale")),
            ("ios26", "pal4-scale"),
        ]:
            yield Case(f"{model} {target} {scheme}", model, target, scheme)
    for name, first, chain in chains():
        for target in [first] if len(chain) > 1 else TARGETS[TARGETS.index(first) : 3]:
            yield Case(f"coremltools {target} {name}", "made", target, chain=chain)


def mlconv(binary, *arguments):
    done = subprocess.run([binary, *arguments], capture_output=True, text=True)
    # 1 says that a weight could not be compressed as asked.
    if done.returncode not in (0, 1):
        raise RuntimeError(f"mlconv ended with {done.returncode}: {' '.join(done.stderr.split())[:300]}")


def compress_with_coremltools(source, chain, out):
    import coremltools as ct
    import coremltools.optimize.coreml as coreml

    tools = {
        "linear": (coreml.linear_quantize_weights, coreml.OpLinearQuantizerConfig),
        "palette": (coreml.palettize_weights, coreml.OpPalettizerConfig),
        "prune": (coreml.prune_weights, coreml.OpMagnitudePrunerConfig),
        "threshold": (coreml.prune_weights, coreml.OpThresholdPrunerConfig),
    }
    model = ct.models.MLModel(source, skip_model_load=True)
    for i, (tool, options) in enumerate(chain):
        function, kind = tools[tool]
        # A mask or a table is smaller than its weight, and is to be compressed all the same.
        only = options.get("only")
        options = {k: v for k, v in options.items() if k != "only"}
        config = kind(**options, weight_threshold=0 if i else THRESHOLD)
        if only:
            config = coreml.OptimizationConfig(op_type_configs={only: config})
        else:
            config = coreml.OptimizationConfig(global_config=config)
        model = function(model, config, joint_compression=i > 0)
    model.save(out)


def types_differ(path, prog, model):
    """Values whose declared type is not the one that coremltools infers, which Core ML refuses."""
    import numpy as np
    from coremltools.converters.mil.mil import types

    for name, function in prog.functions.items():
        proto = model.get_spec().mlProgram.functions[name]
        declared = {}
        for op in next(iter(proto.block_specializations.values())).operations:
            for o in op.outputs:
                if o.type.WhichOneof("type") == "tensorType":
                    declared[o.name] = o.type.tensorType
        for op in function.operations:
            for o in op.outputs:
                t = declared.get(o.name)
                if t is None or not types.is_tensor(o.sym_type):
                    continue
                # Sizes that only a run knows have no number on either side.
                shape = [d.constant.size if d.WhichOneof("dimension") == "constant" else None for d in t.dimensions]
                inferred = [int(n) if isinstance(n, (int, np.integer)) else None for n in o.shape]
                if shape != inferred:
                    yield f"`{o.name}` is declared {shape}, coremltools infers {inferred}"
                if types.PROTO_TO_BUILTIN_TYPE[t.dataType] != o.dtype:
                    yield f"`{o.name}` is declared of type {t.dataType}, coremltools infers {o.dtype.__name__}"


def check(case, binary, folder):
    """What is wrong with a case; nothing where all is right."""
    import packages

    np, ct = packages.np, packages.ct
    packed, plain = (os.path.join(folder, f"{n}.mlpackage") for n in ("packed", "plain"))
    for path in (packed, plain):
        shutil.rmtree(path, ignore_errors=True)
    source = os.path.join(FIXTURES, case.model, "model.onnx")
    if case.model == "made":
        source = os.path.join(folder, "..", f"{'ios18' if case.target == 'ios26' else case.target}.mlpackage")
    if case.chain:
        compress_with_coremltools(source, case.chain, packed)
    else:
        options = ["--target", case.target, "--weight-threshold", str(THRESHOLD), "--no-verify", "--quiet"]
        mlconv(binary, "compress", source, "-o", packed, "--preset", case.scheme, *options)
    mlconv(binary, "compress", packed, "-o", plain, "--decompress", "--no-verify", "--quiet")

    model = ct.models.MLModel(packed, skip_model_load=True)
    prog = packages.program(packed, model)
    if not case.chain:
        yield from types_differ(packed, prog, model)
    ours, theirs = packages.constants(packages.program(plain)), packages.constants(prog)
    if [place for place, _ in ours] != [place for place, _ in theirs]:
        yield "the constants of the decoded package are in other places"
        return
    count = 0
    for (place, a), (_, b) in zip(ours, theirs):
        where = f"{place[0]}[{place[1]}].{place[2]}"
        if packages.constexpr(a):
            yield f"{where} is not decoded"
            continue
        count += packages.constexpr(b)
        a, b = np.asarray(a.val), np.asarray(packages.decoded(b))
        if a.dtype != b.dtype or a.shape != b.shape:
            yield f"{where}: {a.dtype}{list(a.shape)}, coremltools has {b.dtype}{list(b.shape)}"
        elif a.dtype.kind == "f" and a.tobytes() != b.tobytes():
            whole = np.dtype(f"u{a.dtype.itemsize}")
            a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
            differ = np.flatnonzero((a.view(whole) != b.view(whole)).ravel())
            at = differ[0]
            yield (
                f"{where} {list(a.shape)}: {len(differ)} of {a.size} elements differ, the first at {at}: "
                f"{a.flat[at]!r}, coremltools has {b.flat[at]!r}"
            )
        elif a.dtype.kind != "f" and not np.array_equal(a, b):
            yield f"{where} differs"
    if count == 0:
        yield "nothing is compressed"


def one(job):
    case, binary, folder = job
    own = os.path.join(folder, str(os.getpid()))
    os.makedirs(own, exist_ok=True)
    try:
        return case.name, list(check(case, binary, own))
    except Exception as e:
        return case.name, [f"{type(e).__name__}: {' '.join(str(e).split())[:400]}"]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--mlconv", default="target/release/mlconv")
    p.add_argument("--only", default="", metavar="TEXT", help="cases with this in their name")
    p.add_argument("--jobs", type=int, default=os.cpu_count())
    args = p.parse_args()
    import packages
    import models

    ct = packages.ct
    with tempfile.TemporaryDirectory() as folder:
        for name, target in (("ios16", ct.target.iOS16), ("ios17", ct.target.iOS17), ("ios18", ct.target.iOS18)):
            models.make(os.path.join(folder, f"{name}.mlpackage"), target)
        jobs = [(c, os.path.abspath(args.mlconv), folder) for c in cases() if args.only in c.name]
        failed = 0
        with multiprocessing.Pool(args.jobs) as pool:
            for name, faults in pool.imap(one, jobs):
                failed += bool(faults)
                if faults:
                    more = f"; and {len(faults) - 1} more" if len(faults) > 1 else ""
                    print(f"{name}: {faults[0]}{more}", flush=True)
    print(f"{len(jobs) - failed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
