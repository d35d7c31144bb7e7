"""Packages as coremltools reads them: the weights of a program, and what compressed ones decode to."""
import logging
import os
import warnings

warnings.filterwarnings("ignore")
logging.disable(logging.ERROR)
os.environ.setdefault("TQDM_DISABLE", "1")

import coremltools as ct
import numpy as np
from coremltools.converters.mil.frontend.milproto.load import load

# Operands that are parameters.
PARAMETERS = ["conv.weight", "conv_transpose.weight", "linear.weight", "gather.x", "matmul.y"]


def program(path, model=None):
    """The program of a package; reading it infers the type of every op anew."""
    model = model or ct.models.MLModel(path, skip_model_load=True)
    spec = model.get_spec()
    return load(spec, specification_version=spec.specificationVersion, file_weights_dir=model.weights_dir)


def constants(prog):
    """Every constant that an op reads which decodes none: the op's type, number and operand, and the value."""
    found = []
    for function in prog.functions.values():
        readers = [op for op in function.operations if op.op_type != "const" and not op.op_type.startswith("constexpr_")]
        for i, op in enumerate(readers):
            for name, v in sorted(op.inputs.items()):
                if hasattr(v, "op") and v.op is not None and (v.op.op_type == "const" or constexpr(v)):
                    found.append(((op.op_type, i, name), v))
    return found


def parameters(prog):
    """The constants of at least two axes that compression is for."""
    return [(f"{op}.{name}", v) for (op, _, name), v in constants(prog) if f"{op}.{name}" in PARAMETERS and v.rank >= 2]


def constexpr(v):
    return v.op is not None and v.op.op_type.startswith("constexpr_")


def decoded(v):
    """The elements that a constant stands for, by the definitions of coremltools' classes."""
    if not constexpr(v):
        return np.asarray(v.val)
    op = v.op
    ins = {k: decoded(x) for k, x in op.inputs.items() if x is not None}
    if op.op_type == "constexpr_cast":
        return np.float32(ins["source_val"])
    if op.op_type == "constexpr_lut_to_dense" and "shape" not in ins and op.indices.val.size > 1 << 16:
        return table(ins)
    out = type(op).decompress(**with_all(type(op), ins))
    return out[list(op.outputs).index(v)] if isinstance(out, tuple) else out


def with_all(kind, ins):
    """Arguments of `decompress`, where an operand that is absent is None."""
    import inspect

    ins = {k: (v.item() if k in ("vector_axis", "axis") else v) for k, v in ins.items()}
    return {name: ins.get(name) for name in inspect.signature(kind.decompress).parameters}


def table(ins):
    """What `lut_to_dense` gives, without the copy of the table for each element that coremltools makes."""
    indices, lut = np.asarray(ins["indices"]).astype(np.uint8), ins["lut"]
    groups, (entries, size) = lut.shape[:-2], lut.shape[-2:]
    # The table of each element, by number, then the row of all tables put below each other.
    row = np.zeros(indices.shape, np.int32)
    step = int(np.prod(groups))
    for axis, n in enumerate(groups):
        step //= n
        if n > 1:
            at = np.arange(indices.shape[axis]) // (indices.shape[axis] // n) * step
            row += at.astype(np.int32).reshape([-1 if i == axis else 1 for i in range(indices.ndim)])
    out = lut.reshape(-1, size)[row * entries + indices]
    if size == 1:
        return out[..., 0]
    axis = ins["vector_axis"].item() % indices.ndim
    shape = list(indices.shape)
    shape[axis] *= size
    return np.moveaxis(out, -1, axis + 1).reshape(shape)
