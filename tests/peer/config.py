#!/usr/bin/env python3
"""Configuration files of coremltools, applied by mlconv and by coremltools: both must compress the same constants alike.

  tests/peer/config.py [--mlconv PATH] [--only TEXT]

A small package is made with coremltools for each target. Each file is applied by `OptimizationConfig.from_yaml` and by
`mlconv compress --config`. Compared are, for each constant that an op reads: the op that decodes it, and the element type and
shape of each of its operands. Where coremltools raises an error, mlconv must refuse as well. Prints each case that fails;
the last line is `N passed, M failed`. Needs coremltools and scikit-learn.
"""
import argparse
import logging
import os
import subprocess
import sys
import tempfile
import warnings

warnings.filterwarnings("ignore")
logging.disable(logging.ERROR)
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import coremltools as ct
import coremltools.optimize.coreml as cto
import numpy as np
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.frontend.milproto.load import load
from coremltools.converters.mil.mil import types

TARGETS = {"ios16": ct.target.iOS16, "ios18": ct.target.iOS18}

LINEAR = "config_type: OpLinearQuantizerConfig\n"
PALETTE = "config_type: OpPalettizerConfig\n"
# Of the weight of few values many magnitudes are alike.
MAGNITUDE = "config_type: OpMagnitudePrunerConfig\nop_name_configs: {few_weight: null}\n"
THRESHOLD = "config_type: OpThresholdPrunerConfig\n"

# Name, target, file.
CASES = [
    ("defaults", "ios18", LINEAR + "global_config: {}\n"),
    ("defaults", "ios16", LINEAR + "global_config: {}\n"),
    ("nothing", "ios18", LINEAR),
    ("modes of types", "ios18", LINEAR + "global_config: {mode: linear}\nop_type_configs:\n  linear: {dtype: uint8}\n  conv: null\n"),
    ("modes of types", "ios16", LINEAR + "global_config: {mode: LINEAR}\nop_type_configs:\n  linear: {dtype: uint8, granularity: per_tensor}\n"),
    ("blocks", "ios18", LINEAR + "global_config: {dtype: int4, granularity: per_block, block_size: 16}\n"),
    ("all of an axis", "ios18", LINEAR + "global_config: {granularity: per_block, block_size: 0}\n"),
    ("boxes", "ios18", LINEAR + "op_type_configs:\n  conv: {dtype: uint4, granularity: per_block, block_size: [2, 8, 0, 3]}\n"),
    ("per tensor", "ios18", LINEAR + "global_config: {granularity: per_tensor, mode: linear, dtype: uint4}\n"),
    ("thresholds", "ios18", LINEAR + "global_config: {weight_threshold: 100}\nop_type_configs:\n  conv: {weight_threshold: 2304}\n"),
    ("names", "ios18", LINEAR + "global_config: {}\nop_type_configs:\n  conv: {dtype: uint8}\nop_name_configs:\n  conv_2: {dtype: int4}\n  linear_1: null\n  linear_2_weight: {granularity: per_tensor}\n"),
    ("a weight of two ops that agree", "ios18", LINEAR + "op_name_configs:\n  shared_1: {}\n  shared_2: {}\n"),
    ("a weight of two ops that disagree", "ios18", LINEAR + "op_name_configs:\n  shared_1: {}\n"),
    ("a weight of two ops, by its name", "ios18", LINEAR + "op_name_configs:\n  shared_1: {}\n  shared_weight: {dtype: int4}\n"),
    ("k-means", "ios18", PALETTE + "global_config:\n  mode: kmeans\n  nbits: 4\nop_type_configs:\n  matmul: {nbits: 6, num_kmeans_workers: 1}\n"),
    ("k-means", "ios16", PALETTE + "global_config: {nbits: 2}\n"),
    ("groups", "ios18", PALETTE + "global_config: {nbits: 3, granularity: per_grouped_channel, group_size: 8}\n"),
    ("groups along an axis", "ios18", PALETTE + "global_config: {nbits: 2, granularity: per_grouped_channel, group_size: 4, channel_axis: 1}\n"),
    ("groups from the last axis", "ios18", PALETTE + "op_type_configs:\n  linear: {nbits: 1, granularity: per_grouped_channel, group_size: 16, channel_axis: -1}\n"),
    ("an axis without groups", "ios18", PALETTE + "global_config: {nbits: 1, channel_axis: 1}\n"),
    ("vectors", "ios18", PALETTE + "global_config: {nbits: 2, cluster_dim: 4}\n"),
    ("vectors in groups", "ios18", PALETTE + "global_config: {nbits: 1, cluster_dim: 2, granularity: per_grouped_channel, group_size: 16, channel_axis: 1}\n"),
    ("uniform", "ios18", PALETTE + "global_config: {mode: UNIFORM, nbits: 8}\n"),
    ("unique", "ios18", PALETTE + "op_name_configs:\n  few_weight: {mode: unique}\n"),
    ("half", "ios18", MAGNITUDE + "global_config: {target_sparsity: 0.5}\n"),
    ("half", "ios16", MAGNITUDE + "global_config: {target_sparsity: 0.5, weight_threshold: 10}\n"),
    ("n:m", "ios18", MAGNITUDE + "global_config: {n_m_ratio: [3, 4]}\n"),
    ("n:m along outputs", "ios18", MAGNITUDE + "op_type_configs:\n  conv: {n_m_ratio: [1, 4], dim: 0}\n  linear: null\n"),
    ("blocks of channels", "ios18", MAGNITUDE + "global_config: {target_sparsity: 0.75, block_size: 4}\n"),
    ("blocks along inputs", "ios18", MAGNITUDE + "global_config: {target_sparsity: 0.25, block_size: 2, dim: 1}\n"),
    ("threshold", "ios18", THRESHOLD + "global_config: {threshold: 0.5, minimum_sparsity_percentile: 0.3}\n"),
    ("threshold of the file's default", "ios18", THRESHOLD + "global_config: {}\n"),
    ("threshold and magnitude", "ios18", THRESHOLD + "global_config: {threshold: 0.001, minimum_sparsity_percentile: 0}\nop_type_configs:\n  conv: {config_type: OpMagnitudePrunerConfig, target_sparsity: 0.6}\n"),
    ("structure for other ops", "ios18", MAGNITUDE + "op_type_configs:\n  matmul: {n_m_ratio: [1, 2]}\n"),
    ("bits of unique", "ios18", PALETTE + "global_config: {mode: unique, nbits: 4}\n"),
    ("no bits", "ios18", PALETTE + "global_config: {mode: kmeans}\n"),
    ("a key that does not exist", "ios18", PALETTE + "global_config: {nbits: 4, group: 8}\n"),
    ("a section that does not exist", "ios18", PALETTE + "global: {nbits: 4}\n"),
    ("constants by type", "ios18", LINEAR + "op_type_configs:\n  const: {}\n"),
]


def package(path, target):
    """Two convolutions, three products, a weight of two ops, one of few distinct values, one that is half zeros, a bias."""
    rng = np.random.default_rng(0)

    def weight(name, *shape):
        # No two magnitudes are alike: of those that are, coremltools drops all or none, mlconv as many as are asked for.
        bits = rng.permutation(np.arange(0x0400, 0x4C00, dtype=np.uint16))[: int(np.prod(shape))]
        signs = rng.integers(0, 2, bits.shape).astype(np.uint16) << 15
        return mb.const(val=(bits | signs).view(np.float16).reshape(shape), name=name)

    fp16 = types.fp16

    @mb.program(
        input_specs=[mb.TensorSpec((1, 16, 8, 8), dtype=fp16), mb.TensorSpec((2, 32), dtype=fp16)],
        opset_version=TARGETS[target],
    )
    def program(image, rows):
        a = mb.conv(x=image, weight=weight("conv_1_weight", 16, 16, 3, 3), pad_type="same", name="conv_1")
        a = mb.conv(x=a, weight=weight("conv_2_weight", 32, 16, 3, 3), pad_type="same", name="conv_2")
        b = mb.linear(x=rows, weight=weight("linear_1_weight", 96, 32), bias=weight("linear_1_bias", 96), name="linear_1")
        b = mb.linear(x=b, weight=weight("linear_2_weight", 32, 96), name="linear_2")
        b = mb.matmul(x=b, y=weight("matmul_weight", 32, 128), name="matmul_1")
        shared = weight("shared_weight", 128, 128)
        c = mb.linear(x=b, weight=shared, name="shared_1")
        c = mb.linear(x=c, weight=shared, name="shared_2")
        few = np.round(rng.uniform(-5, 5, (64, 128))).astype(np.float16)
        c = mb.linear(x=c, weight=mb.const(val=few, name="few_weight"), name="few")
        half = rng.permutation(4096).reshape(64, 64) / 4096 * (rng.uniform(0, 1, (64, 64)) < 0.4)
        c = mb.linear(x=c, weight=mb.const(val=half.astype(np.float16), name="half_weight"), name="half")
        return a, c

    # Passes would merge what the test tells apart.
    empty = ct.PassPipeline.EMPTY
    model = ct.convert(program, minimum_deployment_target=TARGETS[target], pass_pipeline=empty, skip_model_load=True)
    model.save(path)


def shapes(model):
    """For each constant that an op reads: the op that decodes it, and the type and shape of each of its operands."""
    spec = model.get_spec()
    prog = load(spec, specification_version=spec.specificationVersion, file_weights_dir=model.weights_dir)
    found = {}
    for op in prog.functions["main"].operations:
        if op.op_type == "const" or op.op_type.startswith("constexpr_"):
            continue
        for name, v in op.inputs.items():
            if hasattr(v, "op") and v.op is not None and v.rank > 1:
                if v.op.op_type == "const" or v.op.op_type.startswith("constexpr_"):
                    found[f"{op.op_type} {op.name}.{name}"] = form(v)
    return found


def form(v):
    if v.op.op_type == "const":
        return f"{types.builtin_to_string(v.dtype)}{list(v.shape)}"
    operands = {k: form(x) for k, x in sorted(v.op.inputs.items()) if x is not None and k not in ("vector_axis", "axis")}
    axis = {k: int(v.op.inputs[k].val) for k in ("vector_axis", "axis") if v.op.inputs.get(k) is not None}
    return {v.op.op_type: {**operands, **axis}}


# What applies a config, by the class of the configs in it.
APPLY = {
    "OpLinearQuantizerConfig": cto.linear_quantize_weights,
    "OpPalettizerConfig": cto.palettize_weights,
    "OpMagnitudePrunerConfig": cto.prune_weights,
    "OpThresholdPrunerConfig": cto.prune_weights,
}


def theirs(path, yaml):
    """What coremltools makes of the package; the error where it refuses."""
    try:
        config = cto.OptimizationConfig.from_yaml(yaml)
        with open(yaml) as file:
            apply = APPLY[file.readline().split()[-1]]
        model = ct.models.MLModel(path, skip_model_load=True)
        return shapes(apply(model, config)), None
    except Exception as e:  # Whatever it raises is a refusal.
        return None, f"{type(e).__name__}: {e}".splitlines()[0]


def ours(mlconv, path, yaml, out):
    command = [mlconv, "compress", path, "-o", out, "--config", yaml, "--force", "--no-verify", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 2:
        return None, done.stderr.splitlines()[0]
    return shapes(ct.models.MLModel(out, skip_model_load=True)), None


def differences(want, got):
    lines = []
    for key in sorted({*want, *got}):
        if not alike(want.get(key), got.get(key)):
            lines.append(f"  {key}\n    coremltools {want.get(key)}\n    mlconv      {got.get(key)}")
    return lines


def alike(a, b):
    """Equal, but that numbers of elements that stay may differ by a block.

    coremltools rounds a percentile that lies between two halves to one of them.
    """
    if not (isinstance(a, dict) and isinstance(b, dict) and list(a) == list(b) == ["constexpr_sparse_to_dense"]):
        return a == b
    (a,), (b,) = a.values(), b.values()
    count = [int(x["nonzero_data"].split("[")[1][:-1]) for x in (a, b)]
    return abs(count[0] - count[1]) <= 4 and {**a, "nonzero_data": 0} == {**b, "nonzero_data": 0}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mlconv", default="target/release/mlconv")
    parser.add_argument("--only", default="", help="cases whose name has this text")
    args = parser.parse_args()
    passed = failed = 0
    with tempfile.TemporaryDirectory() as folder:
        packages = {target: os.path.join(folder, f"{target}.mlpackage") for target in TARGETS}
        for target, path in packages.items():
            package(path, target)
        for name, target, text in CASES:
            if args.only not in name:
                continue
            yaml = os.path.join(folder, "config.yaml")
            with open(yaml, "w") as file:
                file.write(text)
            (want, theirs_no), (got, ours_no) = (
                theirs(packages[target], yaml),
                ours(args.mlconv, packages[target], yaml, os.path.join(folder, "out.mlpackage")),
            )
            if (want is None) != (got is None):
                lines = [f"  coremltools {theirs_no or 'applies it'}\n  mlconv      {ours_no or 'applies it'}"]
            else:
                lines = differences(want, got) if want is not None else []
            passed, failed = passed + (not lines), failed + bool(lines)
            if lines:
                print(f"{name} ({target}) differs", *lines, sep="\n")
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
