"""Cases of values.py: for each op that coremltools computes, programs of that op alone.

An argument that is an array becomes an input of the program, and whatever else a constant of it. So an operand that may be
either is given both ways, in cases of their own. Equal elements are not sorted: their order is not documented, and numpy's
depends on the processor.
"""
from dataclasses import dataclass

import numpy as np
from coremltools.converters.mil import Builder as mb

nan, inf = np.nan, np.inf
CASES = []


@dataclass
class Case:
    op: str
    label: str
    arguments: dict
    # The first op set that has what the case needs, and the first that has it no longer.
    since: str | None = None
    until: str | None = None


class Made:
    """An argument that the program computes: a list, which is no input."""

    def __init__(self, make):
        self.make = make


def case(op, label, since=None, until=None, **arguments):
    CASES.append(Case(op, label, arguments, since, until))


def f(*values):
    return np.array(values[0] if len(values) == 1 else values, np.float32)


def h(*values):
    return np.array(values[0] if len(values) == 1 else values, np.float16)


def i(*values):
    return np.array(values[0] if len(values) == 1 else values, np.int32)


def b(*values):
    return np.array(values[0] if len(values) == 1 else values, np.bool_)


def of(dtype, *values):
    return np.array(values[0] if len(values) == 1 else values, dtype)


def iota(*shape, dtype=np.float32, start=0, step=1):
    return (np.arange(np.prod(shape)) * step + start).astype(dtype).reshape(shape)


def wave(*shape, dtype=np.float32):
    """Numbers of both signs, none twice."""
    return (np.sin(np.arange(1, 1 + np.prod(shape)) * 1.7) * 3).astype(dtype).reshape(shape)


SMALL = {"int8": (-128, -1, 0, 127), "uint8": (0, 1, 200, 255), "int16": (-32768, -3, 0, 32767), "uint16": (0, 5, 40000, 65535)}
HALVES = f(-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, -0.0, 3.49999)
SPECIAL = f(nan, inf, -inf, 0.0, -0.0, 1e-30, 3e38, -3e38)
REAL = f(-3.75, -1.0, -0.3, 0.0, 0.2, 1.0, 2.5, 10.0)

# Elementwise, of one operand.
UNIT = ["acos", "asin", "atanh"]
for op in UNIT:
    case(op, "inside", x=f(-0.99, -0.5, -1e-4, 0.0, 0.3, 0.75))
    case(op, "borders and beyond", x=f(-1.0, 1.0, 1.5, -2.0, nan))
    case(op, "half", x=h(-0.5, 0.25))
    case(op, "no axes", x=f(0.5))
for op in ["atan", "cos", "sin", "tan", "tanh", "sinh", "cosh", "exp", "erf", "ceil", "floor", "round", "sqrt"]:
    case(op, "signs", x=f(0.25, 1.0, 2.0, 9.0) if op == "sqrt" else REAL)
    case(op, "halves", x=HALVES)
    case(op, "infinite", x=f(nan, inf, -inf) if op not in ("cos", "sin", "tan") else f(nan))
    case(op, "half", x=h(-1.5, 0.25, 2.0))
    case(op, "two axes", x=wave(2, 3))
    case(op, "no axes", x=f(0.5))
for op in ["abs", "sign", "square", "exp2"]:
    case(op, "signs", x=REAL)
    case(op, "infinite", x=f(nan, inf, -inf, -0.0))
    case(op, "integers", x=i(0, 1, 5, 10) if op == "exp2" else i(-7, -1, 0, 3, 46340))
    case(op, "half", x=h(-1.5, 0.25, 2.0))
    case(op, "no axes", x=f(-0.5))
case("square", "integers that wrap", x=i(46341, -65536, 100000))
case("abs", "the least integer", x=i(-2147483648, 2147483647))
case("exp2", "negative integers", x=i(-1, -2))
case("exp2", "integers too large", x=i(31, 40))
for op in ["inverse", "log", "rsqrt"]:
    case(op, "default epsilon", x=f(0.5, 1.0, 4.0, 100.0))
    case(op, "epsilon", x=f(0.5, 1.0, 4.0, 100.0), epsilon=0.5)
    case(op, "zero", x=f(0.0, 1.0))
    case(op, "infinite", x=f(nan, inf))
    case(op, "half", x=h(0.5, 2.0), epsilon=np.float16(0.25))
    case(op, "no axes", x=f(0.5))
case("inverse", "negative", x=f(-4.0, -0.5))
case("log", "negative", x=f(-4.0, -0.5))
case("rsqrt", "negative", x=f(-4.0, -0.5))
case("logical_not", "both", x=b(True, False))
case("logical_not", "no axes", x=b(True))
case("clip", "inside and out", x=REAL, alpha=-1.0, beta=2.0)
case("clip", "infinite", x=f(nan, inf, -inf), alpha=-1.0, beta=2.0)
case("clip", "infinite bounds", x=f(-5.0, 5.0, inf), alpha=0.0, beta=inf)
case("clip", "crossed bounds", until="ios17", x=f(-5.0, 0.0, 5.0), alpha=2.0, beta=1.0)
case("clip", "half", x=h(-5.0, 5.0), alpha=np.float16(-1), beta=np.float16(2))
case("threshold", "floats", x=REAL, alpha=0.25)
case("threshold", "integers", x=i(-3, 0, 7), alpha=2)
case("threshold", "NaN", x=f(nan, inf, -inf), alpha=1.0)
for dtype in ["fp16", "fp32", "int32", "bool"]:
    case("cast", f"floats to {dtype}", x=f(-3.75, -1.0, -0.5, 0.0, 0.5, 2.5, 1000.0), dtype=dtype)
    case("cast", f"half to {dtype}", x=h(-3.75, -0.5, 0.0, 2.5), dtype=dtype)
    case("cast", f"integers to {dtype}", x=i(-3, 0, 7, 16777217 if dtype != "fp16" else 2049), dtype=dtype)
    case("cast", f"bool to {dtype}", x=b(True, False), dtype=dtype)
for dtype in ["fp16", "fp32", "int32", "bool"]:
    for small, values in SMALL.items():
        known = of(small, *values) if dtype != "fp16" or small != "uint16" else of(small, 0, 5, 40000)
        case("cast", f"{small} to {dtype}", since="ios17", x=known, dtype=dtype)
for dtype in SMALL:
    case("cast", f"integers to {dtype}", since="ios17", x=i(0, 3, 100), dtype=dtype)
    case("cast", f"floats to {dtype}", since="ios17", x=f(0.0, 3.75, 100.5), dtype=dtype)
    case("cast", f"bool to {dtype}", since="ios17", x=b(True, False), dtype=dtype)
    case("cast", f"integers beyond {dtype}", since="ios17", x=i(-1, 70000), dtype=dtype)
    for other, values in SMALL.items():
        if other != dtype:
            case("cast", f"{other} to {dtype}", since="ios17", x=of(other, *values), dtype=dtype)
case("cast", "floats too large for int32", x=f(3e9, -3e9), dtype="int32")
case("cast", "floats too large for fp16", x=f(1e6, -1e6, 65519.0), dtype="fp16")
case("cast", "NaN and infinite to bool", x=f(nan, inf, -0.0), dtype="bool")
case("cast", "ties of fp16", x=f(2049.0, 2051.0, 1e-8, 6e-8), dtype="fp16")
case("cast", "no axes", x=f(2.5), dtype="int32")

# Activations.
for op in ["relu", "relu6", "sigmoid", "softplus", "softsign"]:
    case(op, "signs", x=f(-20.0, -3.75, -0.3, 0.0, 0.2, 2.5, 6.0, 20.0))
    case(op, "infinite", x=f(nan, inf, -inf) if op != "softsign" else f(nan, 1e30, -1e30))
    case(op, "half", x=h(-1.5, 0.25, 7.0))
    case(op, "two axes", x=wave(2, 3))
case("softsign", "infinities", x=f(inf, -inf))
case("elu", "signs", x=REAL, alpha=0.7)
case("elu", "negative alpha", x=REAL, alpha=-2.0)
case("elu", "infinite", x=f(nan, inf, -inf), alpha=0.7)
case("leaky_relu", "signs", x=REAL, alpha=0.1)
case("leaky_relu", "alpha above 1", x=REAL, alpha=3.0)
case("leaky_relu", "negative alpha", x=REAL, alpha=-0.5)
case("linear_activation", "signs", x=REAL, alpha=0.5, beta=-2.0)
case("clamped_relu", "alpha", x=REAL, alpha=0.3, beta=2.0)
case("clamped_relu", "negative beta", x=REAL, alpha=0.3, beta=-0.5)
case("clamped_relu", "negative alpha", x=REAL, alpha=-0.5, beta=1.0)
case("scaled_tanh", "signs", x=REAL, alpha=1.7, beta=0.6)
case("sigmoid_hard", "signs", x=REAL, alpha=0.2, beta=0.5)
case("sigmoid_hard", "negative alpha", x=REAL, alpha=-0.2, beta=0.1)
case("thresholded_relu", "signs and ties", x=f(-2.0, 0.0, 0.5, 1.0, 1.0000001, 3.0), alpha=1.0)
case("thresholded_relu", "negative alpha", x=f(-2.0, -0.5, 0.0, 3.0), alpha=-1.0)
PARAMETERS = {
    **{op: {} for op in ("elu", "leaky_relu", "thresholded_relu")},
    **{op: {"beta": 1} for op in ("linear_activation", "scaled_tanh", "clamped_relu", "sigmoid_hard")},
}
for op, more in PARAMETERS.items():
    case(op, "half", x=h(-1.5, 0.25, 7.0), alpha=np.float16(0.5), **{k: np.float16(v) for k, v in more.items()})
    case(op, "three axes", x=wave(2, 2, 2), alpha=0.5, **{k: float(v) for k, v in more.items()})
    case(op, "half, parameters not", since="ios17", x=h(-1.5, 0.25, 7.0), alpha=0.5, **{k: float(v) for k, v in more.items()})
for mode in ["EXACT", "TANH_APPROXIMATION", "SIGMOID_APPROXIMATION"]:
    case("gelu", mode, x=REAL, mode=mode)
    case("gelu", f"{mode}, far from zero", x=f(-20.0, -6.0, 6.0, 20.0), mode=mode)
    case("gelu", f"{mode}, half", x=h(-1.5, 0.25, 7.0), mode=mode)
case("gelu", "default", x=REAL)
case("prelu", "rank 3", x=wave(2, 3, 2), alpha=[0.1, 0.1, 0.1])
case("prelu", "rank 4", x=wave(1, 2, 2, 3), alpha=[0.1, 2.0])
case("prelu", "rank 5", x=wave(1, 2, 1, 2, 2), alpha=[-1.0, -1.0])
case("softplus_parametric", "rank 3", x=wave(2, 3, 2), alpha=[0.1, 2.0, -0.5], beta=[1.0, 0.5, 2.0])
case("softplus_parametric", "rank 4", x=wave(1, 2, 2, 3), alpha=[0.1, 2.0], beta=[-1.0, 0.5])
for axis in [-1, 0, 1, -3]:
    case("softmax", f"axis {axis}", x=wave(2, 3, 2), axis=axis)
case("softmax", "default axis", x=wave(2, 3))
case("softmax", "large", x=f([1e30, 1e30, -1e30], [-inf, 0.0, 0.0]))
case("softmax", "half", x=wave(2, 3, dtype=np.float16))

# Elementwise, of two operands.
PAIRS = f(7.5, -7.5, 7.5, -7.5, 0.0, 3.0), f(2.0, 2.0, -2.0, -2.0, 5.0, 3.0)
INTS = i(7, -7, 7, -7, 0, 6, -6), i(2, 2, -2, -2, 5, 3, 3)
ARITHMETIC = ["add", "sub", "mul", "real_div", "floor_div", "mod", "maximum", "minimum", "pow"]
COMPARISON = ["equal", "not_equal", "less", "less_equal", "greater", "greater_equal"]
for op in ARITHMETIC + COMPARISON:
    case(op, "signs", x=PAIRS[0], y=PAIRS[1])
    case(op, "integers", x=INTS[0], y=i(2, 3, 0, 1, 5, 3, 4) if op == "pow" else INTS[1])
    case(op, "half", x=PAIRS[0].astype(np.float16), y=PAIRS[1].astype(np.float16))
    case(op, "broadcast", x=wave(2, 1, 3), y=f([[2.0], [-3.0]]))
    case(op, "broadcast of a number", x=wave(2, 3), y=f(2.0))
    case(op, "constant", x=wave(2, 3), y=2.0)
    case(op, "constant first", x=2.0, y=wave(2, 3))
    case(op, "numbers", x=f(-3.0), y=f(2.0))
    case(op, "NaN", x=f(nan, 1.0, nan), y=f(1.0, nan, nan))
    case(op, "zeros", x=f(0.0, -0.0, 0.0, -0.0), y=f(1.0, 1.0, -1.0, -1.0))
for op in ["add", "sub", "mul", "maximum", "minimum", "real_div", "pow", *COMPARISON]:
    case(op, "infinite", x=f(inf, -inf, inf, 1.0), y=f(2.0, 3.0, -inf, inf))
for op in ["add", "sub", "mul"]:
    case(op, "integers that wrap", x=i(2147483647, -2147483648, 65536), y=i(2, -5, 65537))
for op in ["real_div", "floor_div", "mod"]:
    case(op, "zero divisor", x=f(1.0, -1.0, 0.0), y=f(0.0, 0.0, 0.0))
    case(op, "integer zero divisor", x=i(1, -1, 0), y=i(0, 0, 0))
    case(op, "infinite divisor", x=f(1.0, -1.0), y=f(inf, inf))
case("floor_div", "the least integer", x=i(-2147483648), y=i(3))
case("mod", "fractions", x=f(5.3, -5.3, 5.3, -5.3), y=f(0.5, 0.5, -0.5, -0.5))
case("mod", "multiples", x=f(6.0, -6.0, 6.0, -6.0), y=f(3.0, 3.0, -3.0, -3.0))
case("pow", "roots and signs", x=f(4.0, -8.0, -2.0, 0.0, 2.0, -2.0), y=f(0.5, 3.0, 2.0, 0.0, -2.0, -3.0))
case("pow", "no real result", x=f(-8.0, 0.0), y=f(0.5, -1.0))
case("pow", "integers that wrap", x=i(3, -3), y=i(21, 21))
for op in ["logical_and", "logical_or", "logical_xor"]:
    case(op, "table", x=b(False, False, True, True), y=b(False, True, False, True))
    case(op, "broadcast", x=b([[True], [False]]), y=b(True, False, True))
    case(op, "number", x=b(True), y=b(False, True))
case("select", "same shape", cond=b(True, False, True), a=f(1, 2, 3), b=f(4, 5, 6))
case("select", "integers", cond=b(True, False), a=i(2147483647, 2), b=i(4, -2147483648))
case("select", "booleans", cond=b(True, False), a=b(False, False), b=b(True, True))
case("select", "broadcast cond", cond=b([[True], [False]]), a=wave(2, 3), b=wave(2, 3) * 2)
case("select", "one cond", cond=b(False), a=wave(2, 3), b=wave(2, 3) * 2)
case("select", "infinite", cond=b(True, False), a=f(inf, nan), b=f(nan, -inf))

# Reductions.
FLOATS = {"reduce_log_sum": np.abs(wave(2, 3, 2))}
for op in ["l1_norm", "l2_norm", "log_sum", "log_sum_exp", "max", "mean", "min", "prod", "sum", "sum_square"]:
    op = f"reduce_{op}"
    x = FLOATS.get(op, wave(2, 3, 2))
    case(op, "all axes", x=x)
    case(op, "all axes, kept", x=x, keep_dims=True)
    case(op, "one axis", x=x, axes=[1])
    case(op, "one axis, kept", x=x, axes=[-1], keep_dims=True)
    case(op, "two axes", x=x, axes=[0, -1])
    case(op, "integers", x=iota(2, 3, dtype=np.int32, start=1), axes=[1])
    case(op, "negative integers", x=iota(2, 3, dtype=np.int32, start=-4), axes=[0])
    case(op, "half", x=x.astype(np.float16), axes=[1])
    case(op, "one element", x=f([2.5]), axes=[0])
    case(op, "NaN", x=f([1.0, nan], [2.0, 3.0]), axes=[1])
case("reduce_log_sum_exp", "large", x=f([1e30, 1.0], [1000.0, 1000.0]), axes=[1])
case("reduce_sum", "integers that wrap", x=i([2147483647, 1], [-2147483648, -1]), axes=[1])
case("reduce_mean", "integers of both signs", x=i([1, 2], [-1, -2], [-1, -1]), axes=[1])
case("reduce_max", "infinite", x=f([-inf, 1.0], [inf, 2.0]), axes=[1])
case("reduce_min", "infinite", x=f([-inf, 1.0], [inf, 2.0]), axes=[1])
for op in ["reduce_argmax", "reduce_argmin"]:
    case(op, "default axis", x=wave(2, 3))
    case(op, "axis 0", x=wave(2, 3), axis=0)
    case(op, "kept", x=wave(2, 3, 2), axis=1, keep_dims=True)
    case(op, "ties", x=f([1, 3, 3, 1], [2, 2, 2, 2]))
    case(op, "integers", x=i([5, -5, 5], [0, -1, -2]), axis=-1)
    case(op, "infinite", x=f([inf, -inf, 0.0], [-inf, -inf, inf]))
    case(op, "NaN", x=f([1.0, nan, 2.0]))
    case(op, "half", x=wave(2, 3, dtype=np.float16))
    case(op, "uint16 result", since="ios17", x=wave(2, 3), output_dtype="uint16")
    case(op, "int32 result", since="ios17", x=wave(2, 3), output_dtype="int32")

# Products and norms.
for tx in (False, True):
    for ty in (False, True):
        x, y = wave(3, 2) if tx else wave(2, 3), wave(2, 3) * 2 if ty else wave(3, 2) * 2
        case("matmul", f"transposed {tx} {ty}", x=x, y=y, transpose_x=tx, transpose_y=ty)
case("matmul", "broadcast batches", x=wave(2, 1, 2, 3), y=wave(3, 3, 2))
case("matmul", "constant", x=wave(2, 3), y=wave(3, 2).tolist())
case("matmul", "vector and matrix", x=wave(3), y=wave(3, 2))
case("matmul", "matrix and vector", x=wave(2, 3), y=wave(3))
case("matmul", "integers", x=iota(2, 3, dtype=np.int32, start=-2), y=iota(3, 2, dtype=np.int32))
case("matmul", "half", x=wave(2, 3, dtype=np.float16), y=wave(3, 2, dtype=np.float16))
case("linear", "bias", x=wave(2, 3), weight=wave(4, 3).tolist(), bias=[1.0, 2.0, 3.0, 4.0])
case("linear", "no bias", x=wave(2, 3), weight=wave(4, 3).tolist())
case("linear", "vector", x=wave(3), weight=wave(4, 3).tolist(), bias=[1.0, 2.0, 3.0, 4.0])
case("linear", "batches", x=wave(2, 2, 3), weight=wave(4, 3).tolist(), bias=[1.0, 2.0, 3.0, 4.0])
case("linear", "integers", x=iota(2, 3, dtype=np.int32, start=-2), weight=[[1, -2, 3], [4, 5, -6]], bias=[1, -1])
case("einsum", "rank 4", values=[wave(2, 3, 2, 3), wave(2, 3, 2, 2)], equation="nchw,nwhu->nchu")
case("einsum", "rank 4, broadcast", values=[wave(1, 3, 2, 3), wave(2, 3, 2, 2)], equation="nchw,nwhu->nchu")
case("einsum", "rank 3", values=[wave(2, 3, 4), wave(4, 3, 2)], equation="chw,whr->chr")
case("l2_norm", "rank 3", x=wave(2, 2, 3))
case("l2_norm", "rank 4", x=wave(2, 2, 1, 3), epsilon=0.5)
case("l2_norm", "rank 5", x=wave(2, 1, 2, 1, 3))
case("l2_norm", "zeros", x=f([[[0.0, 0.0]]]))
case("l2_norm", "half", x=wave(2, 2, 3, dtype=np.float16), epsilon=np.float16(0.5))
case("layer_norm", "last axis", x=wave(2, 3, 4), axes=[-1])
case("layer_norm", "two axes", x=wave(2, 3, 4), axes=[1, 2], epsilon=0.1)
case("layer_norm", "first axis", x=iota(3, 2, 2, step=0.5), axes=[0])
case("layer_norm", "gamma and beta", x=wave(2, 3, 4), axes=[2], gamma=[1.0, 2.0, -1.0, 0.5], beta=[1.0, 0.0, -1.0, 3.0])
case("layer_norm", "gamma of two axes", x=wave(2, 2, 3), axes=[-2, -1], gamma=[[1.0, 2.0, -1.0], [0.5, 0.0, 3.0]])
case("layer_norm", "half", x=wave(2, 3, 4, dtype=np.float16), axes=[-1], epsilon=np.float16(0.1))
case("scaled_dot_product_attention", "no mask", query=wave(1, 2, 3), key=wave(1, 4, 3) * 2, value=wave(1, 4, 2))
case("scaled_dot_product_attention", "heads", query=wave(2, 2, 2, 3), key=wave(2, 2, 4, 3), value=np.abs(wave(2, 2, 4, 2)))
MASKS = {
    "boolean mask": b([[True, False, True], [True, True, False]]),
    "float mask": f([[0.0, -inf, 1.0], [0.5, 0.0, -1.0]]),
    "mask of batches": wave(2, 2, 3),
}
for label, mask in MASKS.items():
    n = mask.shape[0]
    q, k, v = wave(n, 2, 3), wave(n, 3, 3), np.abs(wave(n, 3, 2))
    case("scaled_dot_product_attention", label, query=q, key=k, value=v, attn_mask=mask)

# Order.
for ascending in (False, True):
    word = "ascending" if ascending else "descending"
    case("argsort", word, x=wave(2, 4), ascending=ascending)
    case("argsort", f"{word}, axis 0", x=wave(3, 2), axis=0, ascending=ascending)
    case("argsort", f"{word}, integers", x=i(5, -3, 0, 9), ascending=ascending)
    case("argsort", f"{word}, infinite", x=f(0.0, inf, -inf, 1.0), ascending=ascending)
    case("topk", word, x=wave(2, 4), k=2, ascending=ascending)
    case("topk", f"{word}, axis 0", x=wave(3, 2), k=2, axis=0, ascending=ascending)
    case("topk", f"{word}, integers", x=i(5, -3, 0, 9), k=3, axis=0, ascending=ascending)
    case("topk", f"{word}, infinite", x=f(0.0, inf, -inf, 1.0), k=4, ascending=ascending)
case("argsort", "defaults", x=wave(2, 4))
case("argsort", "half", x=wave(4, dtype=np.float16))
case("topk", "defaults", x=wave(2, 4))
case("topk", "all of them", x=wave(2, 4), k=4)
case("topk", "no indices", since="ios16", x=wave(2, 4), k=2, return_indices=False)
case("topk", "sorted", since="ios16", x=wave(2, 4), k=3, sort=True)
case("topk", "half", since="ios16", x=wave(2, 4, dtype=np.float16), k=2)
for dtype, values in SMALL.items():
    case("topk", dtype, since="ios17", x=of(dtype, *values), k=2, axis=0, ascending=dtype.startswith("u"))
case("topk", "uint16 indices", since="ios17", x=wave(2, 4), k=2, output_indices_dtype="uint16")

# Places of elements.
for op in ["gather", "gather_along_axis"]:
    along = op == "gather_along_axis"
    case(op, "axis 0", x=wave(3, 2), indices=i([2, 0], [1, 1]) if along else i(2, 0, 1, 1), axis=0)
    case(op, "axis 1", x=wave(2, 3), indices=i([2, 0], [1, 1]), axis=1)
    case(op, "negative axis", x=wave(2, 3), indices=i([2, 0], [1, 1]), axis=-1)
    case(op, "integers", x=i(5, -3, 0), indices=i(2, 2, 0), axis=0)
    case(op, "constant indices", x=wave(2, 3), indices=[[0, 1, 1]] if along else [1, 0], axis=0)
    case(op, "negative indices", until="ios17", x=f(1, 2, 3), indices=i(-1, -3), axis=0)
    case(op, "half", x=wave(3, dtype=np.float16), indices=i(2, 0), axis=0)
    case(op, "uint16 indices", since="ios17", x=wave(3), indices=of("uint16", 2, 0), axis=0)
    case(op, "int16 indices", since="ios17", x=wave(3), indices=of("int16", 2, 0), axis=0)
    for dtype, values in SMALL.items():
        case(op, dtype, since="ios17", x=of(dtype, *values), indices=i(3, 0, 1), axis=0)
    for dtype in ["int8", "uint8"]:
        case(op, f"{dtype} indices", since="ios17", x=wave(3), indices=of(dtype, 2, 0), axis=0)
    case(op, "validated", since="ios17", x=wave(3), indices=i(2, 0), axis=0, validate_indices=True)
case("gather", "one index", x=wave(3, 2), indices=i(1), axis=0)
case("gather", "two axes of indices", x=wave(3, 2), indices=i([2, 0], [1, 1]), axis=0)
case("gather", "batches", since="ios16", x=wave(2, 3, 2), indices=i([2, 0], [1, 1]), axis=1, batch_dims=1)
case("gather", "batches, last axis", since="ios16", x=wave(2, 3, 4), indices=i([2, 0], [1, 1]), axis=2, batch_dims=1)
case("gather", "two batches", since="ios16", x=wave(2, 2, 3), indices=i([[2], [0]], [[1], [1]]), axis=2, batch_dims=2)
for mode in ["add", "div", "max", "min", "mul", "sub", "update"]:
    case("scatter_along_axis", mode, data=wave(3, 2), indices=i([2, 0], [1, 1]), updates=f([2, 3], [4, 5]), axis=0, mode=mode)
two = {"indices": i([2, 0], [1, 0]), "updates": f([2, 3], [4, 5])}
case("scatter_along_axis", "update, axis 1", data=wave(2, 3), **two, axis=1, mode="update")
case("scatter_along_axis", "update, integers", data=i(1, 2, 3), indices=i(2, 0), updates=i(7, 8), axis=-1, mode="update")
case("non_zero", "matrix", x=f([0, 1, 0], [nan, 0, -2]))
case("non_zero", "integers", x=i(0, 5, 0, -1))
case("non_zero", "booleans", x=b([True, False], [False, True]))
case("non_zero", "rank 3", x=iota(2, 2, 2))

# Shapes.
for dtype in ["float32", "float16", "int32", "bool"]:
    x = of(dtype, (wave(2, 3) * 10).round() if dtype != "bool" else wave(2, 3) > 0)
    t = dtype
    case("reshape", t, x=x, shape=[3, 2])
    case("transpose", t, x=x, perm=[1, 0])
    case("expand_dims", t, x=x, axes=[0, -1])
    case("squeeze", t, x=x.reshape(1, 2, 1, 3), axes=[0, 2])
    case("reverse", t, x=x, axes=[-1])
    case("slice_by_index", t, x=x, begin=[0, 1], end=[2, 3])
    case("slice_by_size", t, x=x, begin=[0, 1], size=[2, 2])
    case("split", t, x=x, num_splits=3, axis=1)
    case("concat", t, values=[x, x], axis=0)
    case("stack", t, values=[x, x], axis=1)
    case("tile", t, x=x, reps=[2, 1])
    case("flatten2d", t, x=x.reshape(1, 2, 3), axis=2)
    case("identity", t, x=x)
    case("shape", t, x=x)
    case("band_part", t, x=x, lower=0, upper=1)
for dtype, values in SMALL.items():
    x = of(dtype, *values).reshape(2, 2)
    for op, arguments in {
        "reshape": {"shape": [4]},
        "transpose": {"perm": [1, 0]},
        "expand_dims": {"axes": [1]},
        "reverse": {"axes": [0]},
        "slice_by_index": {"begin": [0, 1], "end": [2, 2]},
        "slice_by_size": {"begin": [0, 1], "size": [2, 1]},
    }.items():
        case(op, dtype, since="ios17", x=x, **arguments)
    case("squeeze", dtype, since="ios17", x=x.reshape(1, 4), axes=[0])
    case("slice_update", dtype, x=x, update=of(dtype, [values[3], values[0]]).reshape(2, 1), begin=[0, 0], end=[2, 1])
case("reshape", "minus one", x=wave(2, 3), shape=[-1])
case("reshape", "minus one among others", x=wave(2, 3, 4), shape=[2, -1, 2])
case("reshape", "zero", x=wave(2, 3), shape=[0, 3])
case("reshape", "zero and minus one", x=wave(2, 3, 2), shape=[0, -1, 1])
case("reshape", "number", x=f(1.5), shape=[1, 1])
case("reshape", "shape in the run", x=wave(2, 3), shape=i(3, 2))
case("reshape", "shape in the run, minus one", x=wave(2, 3), shape=i(3, -1))
case("reshape", "int8 shape", since="ios17", x=wave(2, 3), shape=of("int8", 3, 2))
case("reshape", "int16 shape", since="ios17", x=wave(2, 3), shape=of("int16", 3, -1))
case("transpose", "rank 4", x=wave(2, 3, 1, 2), perm=[3, 0, 2, 1])
case("transpose", "negative", x=wave(2, 3, 2), perm=[-1, 0, 1])
case("expand_dims", "number", x=f(1.5), axes=[0])
case("expand_dims", "unordered", x=wave(2, 3), axes=[3, 0])
case("squeeze", "all", x=wave(1, 3, 1))
case("squeeze", "to a number", x=f([1.5]), axes=[0])
case("squeeze", "negative", x=wave(2, 3, 1), axes=[-1])
case("reverse", "all", x=wave(2, 3))
case("reverse", "two axes", x=wave(2, 2, 3), axes=[0, 2])
case("flatten2d", "default", x=wave(2, 3, 2))
case("flatten2d", "axis 0", x=wave(2, 3, 2), axis=0)
case("flatten2d", "negative axis", x=wave(2, 3, 2), axis=-1)
case("flatten2d", "axis of the rank", x=wave(2, 3, 2), axis=3)
case("identity", "number", x=f(1.5))
case("shape", "number", x=f(1.5))
case("shape", "rank 5", x=wave(1, 2, 1, 3, 1))
for lower, upper in [(-1, -1), (0, 0), (1, -1), (-1, 1), (2, 0), (0, -1)]:
    case("band_part", f"{lower} {upper}", x=wave(4, 3), lower=lower, upper=upper)
case("band_part", "defaults", x=wave(3, 3))
case("band_part", "batches", x=wave(2, 3, 3), lower=1, upper=0)
case("band_part", "NaN outside", x=f([nan, inf], [1.0, 2.0]), lower=0, upper=0)
case("tile", "vector", x=f(1, 2), reps=[3])
case("tile", "reps in the run", x=wave(2, 2), reps=i(1, 2))
case("split", "sizes", x=wave(2, 4), split_sizes=[1, 3], axis=1)
case("split", "sizes and number", x=wave(4, 2), num_splits=2, split_sizes=[3, 1], axis=0)
case("split", "negative axis", x=wave(2, 4), num_splits=2, axis=-1)
case("split", "one", x=wave(2, 4), num_splits=1, axis=0)
case("concat", "axis 1", values=[wave(2, 1), wave(2, 2)], axis=1)
case("concat", "negative axis", values=[wave(2, 1), wave(2, 2)], axis=-1)
case("concat", "three", values=[f([1.0]), f(2, 3), f([4.0])], axis=0)
case("concat", "interleaved", values=[wave(2, 2), wave(2, 2) * 2], axis=1, interleave=True)
case("stack", "numbers", values=[f(1.5), f(2.5)], axis=0)
case("stack", "negative axis", values=[wave(2, 3), wave(2, 3) * 2], axis=-1)
case("stack", "axis 0", values=[wave(2, 3), wave(2, 3) * 2, wave(2, 3)], axis=0)
case("slice_by_index", "strides", x=wave(5, 4), begin=[0, 3], end=[5, 0], stride=[2, -1])
case("slice_by_index", "negative places", x=wave(5, 4), begin=[-3, 0], end=[-1, -1])
case("slice_by_index", "masks", x=wave(5, 4), begin=[1, 1], end=[2, 2], begin_mask=[True, False], end_mask=[False, True])
case("slice_by_index", "masks, backward", x=wave(5), begin=[1], end=[2], stride=[-1], begin_mask=[True], end_mask=[True])
case("slice_by_index", "squeeze", x=wave(5, 4), begin=[2, 1], end=[0, 3], squeeze_mask=[True, False])
case("slice_by_index", "squeeze, negative place", x=wave(5, 4), begin=[-1, 0], end=[0, 4], squeeze_mask=[True, False])
case("slice_by_index", "squeeze to a number", x=wave(5), begin=[2], end=[0], squeeze_mask=[True])
case("slice_by_index", "beyond the end", x=wave(5), begin=[2], end=[99])
case("slice_by_index", "before the beginning", x=wave(5), begin=[-99], end=[3])
case("slice_by_index", "backward to the first", x=wave(5), begin=[3], end=[-99], stride=[-2])
case("slice_by_index", "places in the run", x=wave(5, 4), begin=i(1, 0), end=i(4, 2))
case("slice_by_index", "places in the run, negative", x=wave(5, 4), begin=i(-3, 0), end=i(-1, 2))
places = {"begin": i(1, 1), "end": i(3, 2)}
case("slice_by_index", "places in the run, masks", x=wave(5, 4), **places, begin_mask=[False, True], end_mask=[True, False])
case("slice_by_index", "int16 places", since="ios17", x=wave(5), begin=of("int16", [1]), end=of("int16", [4]))
case("slice_by_size", "rest", x=wave(5, 4), begin=[1, 2], size=[-1, 2])
case("slice_by_size", "negative begin", x=wave(5, 4), begin=[-2, 0], size=[2, 1])
case("slice_by_size", "negative begin, rest", x=wave(5), begin=[-2], size=[-1])
case("slice_by_size", "begin in the run", x=wave(5, 4), begin=i(1, 2), size=[2, 2])
case("slice_by_size", "both in the run", x=wave(5, 4), begin=i(1, 2), size=i(2, -1))
case("slice_update", "rows", x=wave(4, 3), update=wave(2, 3) * 9, begin=[1, 0], end=[3, 3])
case("slice_update", "strides", x=wave(5), update=f(7, 8, 9), begin=[0], end=[5], stride=[2])
case("slice_update", "backward", x=wave(5), update=f(7, 8), begin=[4], end=[0], stride=[-2])
places = {"begin": [3, 1], "end": [4, 1], "begin_mask": [True, False], "end_mask": [True, True]}
case("slice_update", "masks", x=wave(5, 2), update=wave(5, 1) * 9, **places)
case("slice_update", "squeeze", x=wave(3, 2), update=f(7, 8), begin=[1, 0], end=[2, 2], squeeze_mask=[True, False])
case("slice_update", "places in the run", x=wave(5), update=f(7, 8), begin=i([1]), end=i([3]))
case("slice_update", "integers", x=i(1, 2, 3), update=i([9]), begin=[-1], end=[3])
case("slice_update", "booleans", x=b(True, True), update=b([False]), begin=[0], end=[1])

# Generators.
case("fill", "default value", shape=[2, 3])
case("fill", "floats", shape=[2, 3], value=1.5)
case("fill", "integers", shape=[2], value=7)
case("fill", "booleans", shape=[2], value=True)
case("fill", "shape in the run", shape=i(2, 3), value=1.5)
case("fill_like", "floats", ref_tensor=wave(2, 3), value=1.5)
case("fill_like", "default", ref_tensor=wave(2, 3))
case("fill_like", "integers like floats", ref_tensor=wave(2, 3), value=4)
case("fill_like", "floats like integers", ref_tensor=i(1, 2), value=0.5)
case("fill_like", "booleans", ref_tensor=wave(2), value=True)
case("range_1d", "floats", start=f(0.5), end=f(3.0), step=f(0.75))
case("range_1d", "integers", start=i(2), end=i(11), step=i(3))
case("range_1d", "down", start=i(5), end=i(0), step=i(-2))
case("range_1d", "end on a step", start=i(0), end=i(6), step=i(3))
case("range_1d", "constants", start=0.0, end=f(2.0), step=0.5)
case("range_1d", "inexact steps", start=f(0.0), end=f(1.0), step=f(0.1))
for axis in [0, 1, -1]:
    for exclusive in (False, True):
        for reverse in (False, True):
            label = f"axis {axis}{', exclusive' * exclusive}{', reverse' * reverse}"
            case("cumsum", label, x=wave(2, 3), axis=axis, exclusive=exclusive, reverse=reverse)
case("cumsum", "defaults", x=wave(3, 2))
case("cumsum", "integers", x=i(1, -2, 3), axis=0)
case("cumsum", "integers that wrap", x=i(2147483647, 1, 1), axis=0)
case("pad", "constant", x=wave(2, 3), pad=[1, 0, 2, 1], mode="constant", constant_val=9.0)
case("pad", "default mode", x=wave(2, 3), pad=[1, 0, 2, 1])
case("pad", "last axes", x=wave(2, 2, 3), pad=[1, 2])
case("pad", "reflect", x=wave(3, 4), pad=[2, 1, 3, 2], mode="reflect")
case("pad", "reflect, last axis", x=wave(2, 3), pad=[2, 2], mode="reflect")
case("pad", "replicate", x=wave(3, 4), pad=[2, 1, 3, 2], mode="replicate")
case("pad", "replicate, wide", x=wave(1, 2), pad=[2, 2], mode="replicate")
case("pad", "infinite", x=wave(2), pad=[1, 1], constant_val=-inf)
case("pad", "pad in the run", x=wave(2, 3), pad=i(1, 0, 2, 1), constant_val=9.0)
case("pad", "half", x=wave(2, 3, dtype=np.float16), pad=[1, 1], constant_val=np.float16(0.5))

# Quantization.
for dtype in ["int8", "uint8"]:
    q = {"output_dtype": dtype}
    zero = np.int8(-3) if dtype == "int8" else np.uint8(7)
    case("quantize", f"{dtype}", input=f(-3.3, -0.1, 0.0, 0.25, 1.0, 5.7), scale=0.1, **q)
    case("quantize", f"{dtype}, ties", input=f(-0.75, -0.25, 0.25, 0.75, 1.25, 1.75), scale=0.5, **q)
    case("quantize", f"{dtype}, saturated", input=f(-1000.0, 1000.0, 1e9, -1e9), scale=0.5, **q)
    case("quantize", f"{dtype}, zero point", input=f(-3.3, 0.0, 5.7), scale=0.1, zero_point=zero, **q)
    case("quantize", f"{dtype}, ties about a zero point", input=f(-0.75, -0.25, 0.25, 0.75), scale=0.5, zero_point=zero, **q)
    case("quantize", f"{dtype}, axis", input=wave(3, 2), scale=[0.5, 0.25, 1.0], axis=0, **q)
    case("quantize", f"{dtype}, last axis", input=wave(2, 3), scale=[0.5, 0.25, 1.0], axis=-1, **q)
    case("quantize", f"{dtype}, half", input=h(-3.5, 0.25), scale=np.float16(0.5), **q)

# Control flow.
def branch(*values):
    return lambda: mb.const(val=np.float32(values))


for taken in (True, False):
    case("cond", str(taken), pred=b(taken), _true_fn=branch(1.0, 2.0), _false_fn=branch(3.0, 4.0))
for length in (0, 3):
    made = Made(lambda length=length: mb.make_list(init_length=length, dynamic_length=False, elem_shape=(2,)))
    case("list_length", f"fixed, {length}", ls=made)
