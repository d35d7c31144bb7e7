#!/usr/bin/env python3
"""Operators of onnxruntime's own domain, `com.microsoft`: mlconv and onnxruntime must compute the same.

  tests/peer/contrib.py [--mlconv PATH] [--only TEXT]

A model of one node is made for each operator and form, with seeded numbers. It is run by onnxruntime, and converted in single
precision and run by mlconv. Operators that onnxruntime does not have for the CPU are held to their definition in NumPy.
coremltools reads every package. Models that must be refused are converted too: one diagnostic that names the node, and exit 2.
Prints each case that fails; the last line is `N passed, M failed`. Needs onnx, onnxruntime and coremltools.
"""
import argparse
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import onnx
import onnxruntime
from onnx import helper

DOMAIN = "com.microsoft"
F32, F16, I32, I64, U8, I8 = np.float32, np.float16, np.int32, np.int64, np.uint8, np.int8
rng = np.random.default_rng(11)


@dataclass
class C:
    """A constant of the model; what is given as it is becomes an input."""

    value: object


@dataclass
class Case:
    name: str
    op: str
    args: list
    attrs: dict = field(default_factory=dict)
    outputs: list = field(default_factory=lambda: [0])
    # What the node computes, where onnxruntime cannot; of the arrays in order.
    reference: object = None
    # How far results may be apart, in units of the result; 0 is as floats are compared.
    quanta: int = 0
    domain: str = DOMAIN
    version: int = 17
    target: str = "ios17"
    # Element types of outputs that onnxruntime does not infer.
    kinds: dict = field(default_factory=dict)
    # The part of each output that is defined.
    part: object = None


@dataclass
class Refused:
    name: str
    op: str
    args: list
    attrs: dict
    says: str
    target: str = "ios18"


CASES, REFUSED = [], []


def case(name, op, args, outputs=(0,), **rest):
    keys = {"reference", "quanta", "domain", "version", "target", "part", "kinds"}
    given = {k: v for k, v in rest.items() if k in keys}
    attrs = {k: v for k, v in rest.items() if k not in keys}
    CASES.append(Case(f"{op} {name}", op, args, attrs, list(outputs), **given))


def refused(name, op, args, says, **attrs):
    REFUSED.append(Refused(f"{op} {name}", op, args, attrs, says))


def floats(*shape, dtype=F32):
    return rng.standard_normal(shape).astype(dtype)


def ints(low, high, *shape, dtype=I32):
    return rng.integers(low, high, shape).astype(dtype)


def scalar(x, dtype=F32):
    return np.array(x, dtype)


def alone(op, args, outputs=(0,), **attrs):
    """What onnxruntime makes of one node."""
    m, feeds, _ = model(Case("", op, args, attrs, list(outputs)))
    return session(m).run(None, feeds)


def norms():
    x, skip, gamma, beta, bias = floats(2, 3, 8), floats(2, 3, 8), floats(8), floats(8), floats(8)
    case("plain", "SkipLayerNormalization", [x, skip, C(gamma), C(beta), C(bias)], epsilon=1e-6)
    case("sum", "SkipLayerNormalization", [x, skip, C(gamma), C(beta), C(bias)], outputs=(0, 3))
    case("no shift", "SkipLayerNormalization", [x, skip, C(gamma)])
    case("broadcast", "SkipLayerNormalization", [x, skip[0], C(gamma), C(beta)], outputs=(0, 3))
    case("computed scale", "SkipLayerNormalization", [x, skip, gamma, beta, bias])
    case("in the default domain", "SimplifiedLayerNormalization", [x, C(gamma)], domain="", epsilon=1e-6)
    case("of an older set", "SimplifiedLayerNormalization", [x, C(gamma)], domain="", version=14, axis=-1)
    case("deviation", "SimplifiedLayerNormalization", [x, C(gamma)], domain="", outputs=(0, 1), axis=-1, stash_type=1)
    case("of an older set", "LayerNormalization", [x, C(gamma), C(beta)], domain="", version=12)
    case("plain", "SkipSimplifiedLayerNormalization", [x, skip, C(gamma)], epsilon=1e-6)
    case("sum", "SkipSimplifiedLayerNormalization", [x, skip, C(gamma), C(bias)], outputs=(0, 3))
    case("rank 2", "SkipSimplifiedLayerNormalization", [x[0], skip[0], C(gamma)])
    refused("larger skip", "SkipLayerNormalization", [x[:1], skip, C(gamma)], "a sum of f32[2, 3, 8] from f32[1, 3, 8]")
    refused("without skip", "SkipLayerNormalization", [x, None, C(gamma)], "input 1 is missing")
    refused("scale of another size", "SkipLayerNormalization", [x, skip, C(floats(7))], "a scale f32[7]")
    refused("attribute", "SkipLayerNormalization", [x, skip, C(gamma)], "attribute `axis` is not known", axis=1)

    words, segments = ints(0, 12, 2, 5), ints(0, 2, 2, 5)
    tables = [C(floats(12, 8)), C(floats(9, 8)), C(floats(2, 8))]
    mask = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], I32)
    case("plain", "EmbedLayerNormalization", [words, segments, *tables, C(gamma), C(beta)], outputs=(0, 1))
    case("mask", "EmbedLayerNormalization", [words, segments, *tables, C(gamma), C(beta), mask], outputs=(0, 1, 2))
    case("no mask", "EmbedLayerNormalization", [words, segments, *tables, C(gamma), C(beta)], outputs=(0, 1))
    refused("no segment ids", "EmbedLayerNormalization", [words, None, *tables, C(gamma), C(beta)], "input 1 is missing")
    case("no segments", "EmbedLayerNormalization", [words, None, *tables[:2], None, C(gamma), C(beta)], outputs=(0, 1))
    places = ints(0, 9, 2, 5)
    case("places", "EmbedLayerNormalization", [words, segments, *tables, C(gamma), C(beta), None, places], outputs=(0, 1), epsilon=1e-4)
    refused("ranks", "EmbedLayerNormalization", [words[0], None, *tables[:2], None, C(gamma), C(beta)], "rank 2")
    refused("segments alone", "EmbedLayerNormalization", [words, segments, *tables[:2], None, C(gamma), C(beta)], "input 4 is missing")

    def group_norm(x, gamma, beta, skip=0, bias=0, groups=2, silu=False, eps=1e-5):
        s = x + skip + bias
        n, h, w, c = s.shape
        g = s.reshape(n, h * w, groups, c // groups)
        g = (g - g.mean((1, 3), keepdims=True)) / np.sqrt(g.var((1, 3), keepdims=True) + eps)
        y = g.reshape(s.shape) * gamma + beta
        return (y / (1 + np.exp(-y)) if silu else y), s

    image = floats(2, 3, 4, 8)
    case("last", "GroupNorm", [image, C(gamma), C(beta)], groups=2, activation=1, reference=lambda *a: group_norm(*a, silu=True))
    case("second", "GroupNorm", [image.transpose(0, 3, 1, 2).copy(), C(gamma), C(beta)], groups=4, activation=0, channels_last=0,
         reference=lambda x, g, b: [group_norm(x.transpose(0, 2, 3, 1), g, b, groups=4)[0].transpose(0, 3, 1, 2)])
    case("sum", "SkipGroupNorm", [image, C(gamma), C(beta), floats(2, 3, 4, 8), C(bias)], outputs=(0, 1), groups=2, activation=0, reference=group_norm)
    case("flat skip", "SkipGroupNorm", [image, C(gamma), C(beta), floats(2, 8)], groups=2, activation=1,
         reference=lambda x, g, b, s: group_norm(x, g, b, s[:, None, None, :], silu=True))
    refused("no groups", "GroupNorm", [image, C(gamma), C(beta)], "`groups`", groups=0, activation=0)


def activations():
    x, bias = floats(2, 3, 8), floats(8)
    case("plain", "Gelu", [x])
    case("plain", "FastGelu", [x])
    case("bias", "FastGelu", [x, C(bias)])
    case("plain", "BiasGelu", [x, C(bias)])
    case("plain", "QuickGelu", [x])
    case("alpha", "QuickGelu", [x], alpha=1.3)
    def gelu(x):
        from math import erf
        return x * 0.5 * (1 + np.vectorize(erf)(x / np.sqrt(2)))
    case("plain", "BiasSplitGelu", [x, C(bias)], reference=lambda x, b: [(x + b)[..., :4] * gelu((x + b)[..., 4:])])
    case("plain", "BiasAdd", [x, C(bias), floats(2, 3, 8)], reference=lambda x, b, s: [x + b + s])
    case("residual", "BiasDropout", [x, C(bias), floats(2, 3, 8)], reference=lambda x, b, s: [x + b + s])
    def softmax(x):
        e = np.exp(x - x.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)
    case("inner", "BiasSoftmax", [floats(2, 4, 3, 5), floats(2, 1, 1, 5)], axis=3, is_inner_broadcast=1, reference=lambda x, b: [softmax(x + b)])
    case("outer", "BiasSoftmax", [floats(2, 4, 3, 5), floats(3, 5)], axis=2, is_inner_broadcast=0,
         reference=lambda x, b: [softmax((x + b).reshape(2, 4, 15)).reshape(2, 4, 3, 5)])
    refused("no bias", "BiasGelu", [x], "input 1 is missing")
    refused("odd halves", "BiasSplitGelu", [floats(2, 3, 7), C(floats(7))], "halves of 7")
    refused("an attribute", "QuickGelu", [x], "attribute `beta` is not known", beta=1.0)


def products():
    for op in ("FusedMatMul", "TransposeMatMul"):
        case("alpha", op, [floats(3, 4), C(floats(4, 5))], alpha=0.5)
        case("transposed", op, [floats(2, 4, 3), floats(2, 5, 4)], transA=1, transB=1, alpha=2.0)
    case("batch", "FusedMatMul", [floats(3, 2, 4), floats(2, 4, 5)], transBatchA=1)
    case("batches", "FusedMatMul", [floats(3, 2, 4), floats(5, 2, 4)], transBatchA=1, transBatchB=1, transB=1)
    case("batch and transposed", "FusedMatMul", [floats(4, 2, 6, 3), floats(2, 6, 4, 5)], transBatchA=1, transA=1)
    case("vector", "FusedMatMul", [floats(4), floats(4, 5)], alpha=3.0)
    a, b, c = floats(3, 4), floats(4, 5), floats(5)
    for name, numbers in [("Relu", {}), ("LeakyRelu", {"activation_alpha": 0.2}), ("Sigmoid", {}), ("Tanh", {}),
                          ("HardSigmoid", {"activation_alpha": 0.3, "activation_beta": 0.4}), ("Elu", {"activation_alpha": 0.7})]:
        case(name, "FusedGemm", [a, C(b), C(c)], activation=name, alpha=0.5, **numbers)
    case("transposed", "FusedGemm", [a.T.copy(), C(b.T.copy()), C(c)], activation="Relu", transA=1, transB=1, beta=2.0)
    case("plain", "FusedMatMulActivation", [a, C(b)], activation="Relu", alpha=0.5, reference=lambda a, b: [np.maximum(0.5 * (a @ b), 0)])
    case("squared", "CDist", [floats(3, 4), floats(5, 4)], metric="sqeuclidean")
    case("rooted", "CDist", [floats(3, 4), floats(5, 4)], metric="euclidean")
    for size in (1, 2, 3, 4, 7):
        case(f"{size} rows", "Inverse", [floats(2, size, size) + 3 * np.eye(size, dtype=F32)])
    case("without a batch", "Inverse", [floats(3, 3) + 3 * np.eye(3, dtype=F32)])
    refused("too large", "Inverse", [floats(65, 65)], "the inverse of f32[65, 65]")
    refused("oblong", "Inverse", [floats(2, 3)], "the inverse of f32[2, 3]")
    refused("function", "FusedGemm", [a, C(b), C(c)], "attribute `activation`", activation="Bogus")
    refused("metric", "CDist", [a, a], "attribute `metric`", metric="cosine")
    refused("sizes", "FusedMatMul", [a, C(floats(6, 5))], "matmul")

    x, w, bias = floats(1, 3, 6, 6), floats(4, 3, 3, 3), floats(4)
    z = floats(1, 4, 6, 6)
    for name, numbers in [("Relu", []), ("LeakyRelu", [0.1]), ("Clip", [-0.5, 0.7]), ("Tanh", []), ("Sigmoid", []), ("HardSigmoid", [0.2, 0.4])]:
        case(name, "FusedConv", [x, C(w), C(bias)], activation=name, pads=[1, 1, 1, 1], kernel_shape=[3, 3], **({"activation_params": numbers} if numbers else {}))
    case("summand", "FusedConv", [x, C(w), C(bias), z], activation="Relu", pads=[1, 1, 1, 1])
    case("strides", "FusedConv", [x, C(w)], strides=[2, 2], activation="Relu")
    last = x.transpose(0, 2, 3, 1).copy()
    def conv(x, w, b, z=None):
        model = onnx.helper.make_model(helper.make_graph([helper.make_node("Conv", ["x", "w", "b"], ["y"], pads=[1, 1, 1, 1])], "g",
            [helper.make_tensor_value_info(n, 1, v.shape) for n, v in (("x", x.transpose(0, 3, 1, 2)), ("w", w), ("b", b))],
            [helper.make_tensor_value_info("y", 1, None)]), opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        y = session(model).run(None, {"x": x.transpose(0, 3, 1, 2), "w": w, "b": b})[0].transpose(0, 2, 3, 1)
        return [y if z is None else np.maximum(y + z, 0)]
    case("plain", "NhwcConv", [last, C(w), C(bias)], pads=[1, 1, 1, 1], reference=conv)
    case("summand", "NhwcFusedConv", [last, C(w), C(bias), z.transpose(0, 2, 3, 1).copy()], pads=[1, 1, 1, 1], activation="Relu", reference=conv)
    refused("numbers", "FusedConv", [x, C(w)], "activation_params", activation="Clip", activation_params=[0.0, 1.0, 2.0])


def attentions():
    b, s, h, d = 2, 5, 2, 4
    width = h * d
    x, w, bias = floats(b, s, 6), C(floats(6, 3 * width)), C(floats(3 * width))
    words = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], I32)
    cube = (rng.random((b, s, s)) < 0.7).astype(I32)
    case("plain", "Attention", [x, w, bias], num_heads=h)
    case("direct", "Attention", [x, w, bias], num_heads=h, target="ios18")
    # onnxruntime 1.31 ends with a fault where the bias is absent.
    zeros = np.zeros(3 * width, F32)
    case("unbiased", "Attention", [x, w], num_heads=h, reference=lambda x, w: alone("Attention", [x, w, zeros], num_heads=h))
    case("causal", "Attention", [x, w, bias], num_heads=h, unidirectional=1)
    case("scale", "Attention", [x, w, bias], num_heads=h, scale=0.3)
    case("mask of words", "Attention", [x, w, bias, words], num_heads=h)
    case("mask of words, direct", "Attention", [x, w, bias, words], num_heads=h, target="ios18")
    case("mask of pairs", "Attention", [x, w, bias, cube], num_heads=h, mask_filter_value=-500.0)
    case("ends", "Attention", [x, w, bias, np.array([3, 5], I32)], num_heads=h)
    case("ends and starts", "Attention", [x, w, bias, np.array([5, 4, 2, 0], I32)], num_heads=h)
    case("all masked", "Attention", [x, w, bias, np.zeros((b, s), I32)], num_heads=h)
    case("causal and masked", "Attention", [x, w, bias, words], num_heads=h, unidirectional=1)
    past = floats(2, b, h, 3, d)
    case("past", "Attention", [x, w, bias, None, past], outputs=(0, 1), num_heads=h, unidirectional=1)
    case("past and mask", "Attention", [x, w, bias, np.ones((b, 8), I32), past], outputs=(0, 1), num_heads=h)
    case("added", "Attention", [x, w, bias, None, None, floats(1, h, s, s)], num_heads=h)
    case("values of another size", "Attention", [x, C(floats(6, 2 * width + 12)), C(floats(2 * width + 12))], num_heads=h, qkv_hidden_sizes=[width, width, 12])
    refused("heads", "Attention", [x, C(floats(6, 21)), C(floats(21))], "qkv_hidden_sizes", num_heads=2)
    refused("no heads", "Attention", [x, w, bias], "`num_heads`", num_heads=0)
    refused("rank", "Attention", [x[0], w, bias], "a projection of f32[5, 6]", num_heads=h)
    refused("mask", "Attention", [x, w, bias, np.zeros(8, I32)], "a mask of i32[8]", num_heads=h)
    refused("direction", "Attention", [x, w, bias], "attribute `unidirectional` is 2, wanted 0 or 1", num_heads=h, unidirectional=2)
    refused("turned", "Attention", [x, w, bias], "do_rotary", num_heads=h, do_rotary=1)
    refused("sizes", "Attention", [x, w, bias], "qkv_hidden_sizes", num_heads=h, qkv_hidden_sizes=[2**62, 2**62, 2**62])

    xq, wq = ints(0, 256, b, s, 6, dtype=U8), ints(-128, 128, 6, 3 * width, dtype=I8)
    quantized = [xq, C(wq), bias, C(scalar(0.02)), C(scalar(0.01))]
    case("plain", "QAttention", [*quantized, None, C(scalar(120, U8)), C(scalar(0, I8))], num_heads=h)
    case("masked", "QAttention", [*quantized, np.array([3, 5], I32), C(scalar(120, U8)), C(scalar(0, I8))], num_heads=h, unidirectional=1)
    case("by columns", "QAttention", [xq, C(wq), bias, C(scalar(0.02)), C(np.abs(floats(3 * width)) * F32(0.01)), None, C(scalar(120, U8)), C(np.zeros(3 * width, I8))], num_heads=h)

    q, k, v = floats(b, s, width), floats(b, 7, width), floats(b, 7, width)
    biases = C(floats(3 * width))
    case("plain", "MultiHeadAttention", [q, k, v], num_heads=h)
    case("direct", "MultiHeadAttention", [q, k, v], num_heads=h, target="ios18")
    case("biases", "MultiHeadAttention", [q, k, v, biases], num_heads=h)
    case("scale", "MultiHeadAttention", [q, k, v, biases], num_heads=h, scale=0.2)
    case("causal", "MultiHeadAttention", [q, k[:, :5].copy(), v[:, :5].copy()], num_heads=h, unidirectional=1)
    case("ends", "MultiHeadAttention", [q, k, v, None, np.array([4, 7], I32)], num_heads=h)
    case("mask of words", "MultiHeadAttention", [q, k, v, biases, (rng.random((b, 7)) < 0.6).astype(I32)], num_heads=h, mask_filter_value=-1000.0)
    case("mask of pairs", "MultiHeadAttention", [q, k, v, None, (rng.random((b, s, 7)) < 0.6).astype(I32)], num_heads=h)
    case("added", "MultiHeadAttention", [q, k, v, None, None, floats(1, h, s, 7)], num_heads=h)
    case("values of another size", "MultiHeadAttention", [q, k, floats(b, 7, 2 * 6), C(floats(2 * width + 12))], num_heads=h)
    case("keys by heads", "MultiHeadAttention", [q, floats(b, h, 7, d), floats(b, h, 7, d)], num_heads=h)
    past = [floats(b, h, 3, d), floats(b, h, 3, d)]
    case("past", "MultiHeadAttention", [q, k[:, :5].copy(), v[:, :5].copy(), biases, None, None, *past], outputs=(0, 1, 2), num_heads=h)
    case("past, causal", "MultiHeadAttention", [q, k[:, :5].copy(), v[:, :5].copy(), None, None, None, *past], outputs=(0, 1, 2), num_heads=h, unidirectional=1)
    case("scores", "MultiHeadAttention", [q, k, v], outputs=(0, 3), num_heads=h, kinds={3: F32})
    def heads(x):
        return x.reshape(b, s, h, -1).transpose(0, 2, 1, 3)
    def attention(q, k, v):
        scores = heads(q) @ heads(k).transpose(0, 1, 3, 2) / np.sqrt(d)
        e = np.exp(scores - scores.max(-1, keepdims=True))
        return [((e / e.sum(-1, keepdims=True)) @ heads(v)).transpose(0, 2, 1, 3).reshape(b, s, width)]
    case("packed", "MultiHeadAttention", [floats(b, s, h, 3, d)], num_heads=h, reference=lambda x: attention(*(x[:, :, :, i].reshape(b, s, width) for i in range(3))))
    case("packed keys and values", "MultiHeadAttention", [q, floats(b, s, h, 2, d)], num_heads=h, reference=lambda q, x: attention(q, *(x[:, :, :, i].reshape(b, s, width) for i in range(2))))
    refused("no values", "MultiHeadAttention", [q, k], "input 2 is missing", num_heads=h)
    refused("ranks", "MultiHeadAttention", [q, k[0], v[0]], "ranks [3, 2, 2]", num_heads=h)
    refused("shared", "MultiHeadAttention", [q, k, v, None, None, None, *past, np.array([3], I32)], "input 8 is not known", num_heads=h)


def angles(size, count=16):
    at = np.outer(np.arange(count), 1.0 / 100 ** (np.arange(size) / size))
    return C(np.cos(at).astype(F32)), C(np.sin(at).astype(F32))


def rotations():
    cos, sin = angles(4)
    x = floats(2, 5, 16)
    places = np.array([[0, 1, 2, 3, 4], [3, 4, 5, 6, 7]], I64)
    case("plain", "RotaryEmbedding", [x, places, cos, sin])
    case("interleaved", "RotaryEmbedding", [x, places, cos, sin], interleaved=1)
    case("one place", "RotaryEmbedding", [x, np.array([2], I64), cos, sin])
    case("rank 4", "RotaryEmbedding", [floats(2, 3, 5, 8), places, cos, sin])
    case("rank 4, one place", "RotaryEmbedding", [floats(2, 3, 5, 8), np.array([2], I64), cos, sin], interleaved=1)
    half = angles(2)
    case("part", "RotaryEmbedding", [x, places, *half], num_heads=2, rotary_embedding_dim=4)
    refused("no heads", "RotaryEmbedding", [x, places, *half], "`num_heads`", rotary_embedding_dim=4)
    refused("more than a head", "RotaryEmbedding", [floats(2, 3, 5, 6), places, cos, sin], "turning 8 elements of 6")
    refused("packed", "RotaryEmbedding", [x, places, cos, sin], "is_packed_batching", is_packed_batching=1)


def group_query():
    h, g, d = 4, 2, 16
    cos, sin = angles(d // 2, 32)

    def run(name, batch, tokens, past=None, lasts=None, total=None, rotary=False, more=(), known=True, outputs=(0, 1, 2), packed=False, **rest):
        q, k, v = floats(batch, tokens, h * d), floats(batch, tokens, g * d), floats(batch, tokens, g * d)
        rows = [np.concatenate([q, k, v], -1), None, None] if packed else [q, k, v]
        cache = [floats(batch, g, past, d), floats(batch, g, past, d)] if past else [None, None]
        total = total if total is not None else tokens + (past or 0)
        lasts = np.array(lasts if lasts is not None else [total - 1] * batch, I32)
        whole = scalar(total, I32)
        more = list(more) + [None] * (9 - len(more))
        tables = [cos, sin] if rotary else [None, None]
        args = [*rows, *cache, lasts, C(whole) if known else whole, *tables, *more]
        while args[-1] is None:
            args.pop()
        case(name, "GroupQueryAttention", args, outputs=outputs, num_heads=h, kv_num_heads=g, **({"do_rotary": 1} if rotary else {}), **rest)

    run("prompt", 2, 5)
    run("prompt, turned", 2, 5, rotary=True)
    run("prompt, interleaved", 1, 5, rotary=True, rotary_interleaved=1)
    run("prompt, packed", 1, 5, packed=True, rotary=True)
    run("prompt, direct", 2, 5, rotary=True, target="ios18")
    run("prompt, padded", 2, 5, lasts=[2, 4], rotary=True, part=[lambda y: y[1], lambda y: y[1], lambda y: y[1]])
    run("next token", 1, 1, past=6, rotary=True)
    run("next tokens", 1, 3, past=6, rotary=True)
    run("next token, of unknown length", 1, 1, past=6, rotary=True, known=False)
    run("next token of several", 2, 1, past=6, rotary=True, lasts=[6, 3], part=[lambda y: y, lambda y: y[0], lambda y: y[0]])
    run("next token of several, packed", 2, 1, past=6, rotary=True, packed=True)
    run("next token, with room", 1, 1, past=12, total=7, rotary=True, lasts=[6], part=[lambda y: y] + [lambda y: y[:, :, :7]] * 2)
    run("next token, with room for several", 2, 1, past=12, total=7, lasts=[6, 4], rotary=True,
        part=[lambda y: y] + [lambda y: np.concatenate([y[0, :, :7], y[1, :, :5]], 1)] * 2)
    run("window", 1, 6, local_window_size=3)
    run("window and past", 1, 2, past=6, local_window_size=4, rotary=True)
    run("softcap", 1, 5, softcap=2.0)
    run("scale", 1, 5, scale=0.2)
    run("smooth", 1, 5, smooth_softmax=1)
    run("sink", 1, 5, more=[None, None, C(floats(h))])
    run("sink and past", 1, 1, past=6, more=[None, None, C(floats(h))], rotary=True)
    run("added", 2, 5, more=[None, floats(1, h, 5, 5)])
    run("added and softcap", 1, 5, more=[None, floats(1, h, 5, 5)], softcap=3.0)
    run("places", 1, 2, past=6, rotary=True, more=[np.array([[4, 9]], I64)])
    run("places of a prompt", 1, 4, rotary=True, more=[np.array([[3, 4, 5, 6]], I64)])
    run("outputs", 1, 5, outputs=(0,))

    def normalized(q, k, v, lasts, total, cos, sin, of_q, of_k):
        def norm(x, scale):
            x = x.reshape(1, 5, -1, d)
            return (x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * scale).reshape(1, 5, -1).astype(F32)

        args = [norm(q, of_q), norm(k, of_k), v, None, None, lasts, C(total), C(cos), C(sin)]
        return alone("GroupQueryAttention", args, (0, 1, 2), num_heads=h, kv_num_heads=g, do_rotary=1)

    weights = [C(floats(d)), C(floats(d))]
    run("normalized", 1, 5, rotary=True, more=[None] * 5 + weights, qk_norm_epsilon=1e-5, reference=normalized)
    run("both ways", 1, 5, causal=0)
    q, k = floats(1, 5, h * d), floats(1, 5, g * d)
    ends = [None, None, np.array([4], I32), C(scalar(5, I32))]
    refused("heads", "GroupQueryAttention", [q, k, k, *ends], "a multiple of 3", num_heads=4, kv_num_heads=3)
    refused("window", "GroupQueryAttention", [q, k, k, *ends], "local_window_size", num_heads=4, kv_num_heads=2, local_window_size=0)
    refused("no lengths", "GroupQueryAttention", [q, k, k], "input 5 is missing", num_heads=4, kv_num_heads=2)
    refused("no angles", "GroupQueryAttention", [q, k, k, *ends], "input 7 is missing", num_heads=4, kv_num_heads=2, do_rotary=1)
    refused("quantized", "GroupQueryAttention", [q, k, k, *ends], "k_quant_type", num_heads=4, kv_num_heads=2, k_quant_type="PER_TENSOR")
    refused("keys alone", "GroupQueryAttention", [q, k, None, *ends], "input 2 is missing", num_heads=4, kv_num_heads=2)
    refused("past keys alone", "GroupQueryAttention", [q, k, k, floats(1, g, 3, d), None, *ends[2:]], "past keys without past values", num_heads=4, kv_num_heads=2)


def nbits():
    def packed(values, bits):
        """Integers as bytes, the least bits first, along the last axis."""
        per = 8 // bits
        values = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, -values.shape[-1] % per)])
        values = values.reshape(*values.shape[:-1], -1, per).astype(np.uint32)
        return (values << (np.arange(per) * bits).astype(np.uint32)).sum(-1).astype(U8)

    def product(x, codes, scales, zeros, block):
        wide = lambda v: np.repeat(v, block, 1)[:, : x.shape[-1]].astype(np.float64)
        w = (codes.reshape(codes.shape[0], -1)[:, : x.shape[-1]] - wide(zeros)) * wide(scales)
        return [(x.astype(np.float64) @ w.T).astype(x.dtype)]

    for bits in (2, 4, 8):
        for inputs, block in ((64, 32), (48, 32), (64, 16), (20, 32)):
            for kind in ("none", "packed", "float"):
                outputs, blocks = 6, -(-inputs // block)
                x = floats(3, inputs)
                codes = ints(0, 1 << bits, outputs, blocks, block)
                scales = np.abs(floats(outputs, blocks)) + F32(0.1)
                zeros = np.full((outputs, blocks), 1 << (bits - 1), F32)
                given = None
                if kind == "packed":
                    zeros = ints(0, 1 << bits, outputs, blocks).astype(F32)
                    given = C(packed(zeros.astype(np.uint32), bits))
                elif kind == "float":
                    zeros = (rng.random((outputs, blocks)) * (1 << bits)).astype(F32)
                    given = C(zeros)
                args = [x, C(packed(codes, bits)), C(scales), given]
                reference = lambda x, *_, codes=codes, scales=scales, zeros=zeros, block=block: product(x, codes, scales, zeros, block)
                for target in ("ios18", "ios17"):
                    case(f"{bits} bits, {inputs} by {block}, zeros {kind}, {target}", "MatMulNBits", [a for a in args if a is not None],
                         K=inputs, N=outputs, bits=bits, block_size=block, target=target, reference=reference)
    x, codes = floats(2, 3, 64), packed(ints(0, 16, 6, 2, 32), 4)
    scales = np.abs(floats(6, 2))
    sizes = {"K": 64, "N": 6, "bits": 4, "block_size": 32}
    case("onnxruntime", "MatMulNBits", [x, C(codes), C(scales)], target="ios18", **sizes)
    case("onnxruntime, zeros", "MatMulNBits", [x, C(codes), C(scales), C(packed(ints(0, 16, 6, 2), 4))], target="ios18", **sizes)
    case("onnxruntime, 8 bits", "MatMulNBits", [x, C(ints(0, 256, 6, 2, 32, dtype=U8)), C(scales)], target="ios18", **{**sizes, "bits": 8})
    case("bias", "MatMulNBits", [x, C(codes), C(scales), None, None, C(floats(6))], target="ios18", **sizes)
    case("accuracy", "MatMulNBits", [x, C(codes), C(scales)], target="ios18", accuracy_level=1, **sizes)
    case("rank 4", "MatMulNBits", [floats(2, 2, 3, 64), C(codes), C(scales)], target="ios18", **sizes)
    case("flat", "MatMulNBits", [x, C(codes), C(scales.reshape(-1))], target="ios18", reference=lambda x, *_, codes=codes, scales=scales: product(x, unpack4(codes), scales, np.full((6, 2), 8), 32), **sizes)
    case("groups in order", "MatMulNBits", [x, C(codes), C(scales), None, C((np.arange(64) // 32).astype(I32))], target="ios18", reference=lambda x, *_, codes=codes, scales=scales: product(x, unpack4(codes), scales, np.full((6, 2), 8), 32), **sizes)
    refused("groups", "MatMulNBits", [x, C(codes), C(scales), None, C((np.arange(64) % 2).astype(I32))], "g_idx", **sizes)
    refused("sizes", "MatMulNBits", [x, C(codes[:5].copy()), C(scales)], "packed weights", **sizes)
    refused("huge", "MatMulNBits", [x, C(codes), C(scales)], "packed weights", **{**sizes, "N": 2**31 - 1})
    refused("beyond", "MatMulNBits", [x, C(codes), C(scales)], "attribute `K`", **{**sizes, "K": 2**63 - 1})
    refused("negative", "MatMulNBits", [x, C(codes), C(scales)], "attribute `N`", **{**sizes, "N": -6})
    refused("no block", "MatMulNBits", [x, C(codes), C(scales)], "`block_size`", **{**sizes, "block_size": 0})
    refused("3 bits", "MatMulNBits", [x, C(codes), C(scales)], "attribute `bits`", **{**sizes, "bits": 3})
    refused("scales", "MatMulNBits", [x, C(codes), C(scales[:, :1].copy())], "scales of", **sizes)
    refused("zeros", "MatMulNBits", [x, C(codes), C(scales), C(np.zeros((6, 2), U8))], "packed zero points", **sizes)
    refused("computed weights", "MatMulNBits", [x, codes, C(scales)], "input 1 must be constant", **sizes)
    refused("layout", "MatMulNBits", [x, C(codes), C(scales)], "weight_prepacked", weight_prepacked=1, **sizes)
    refused("input", "MatMulNBits", [floats(3, 32), C(codes), C(scales)], "attribute `K`", **sizes)

    table, at = ints(0, 16, 10, 64), ints(0, 10, 2, 3, dtype=I64)
    scales = np.abs(floats(10, 2))
    for target in ("ios18", "ios17"):
        case(f"bytes, {target}", "GatherBlockQuantized", [C(packed(table, 4)), at, C(scales)], bits=4, block_size=32, quantize_axis=1, target=target)
        case(f"zeros, {target}", "GatherBlockQuantized", [C(packed(table, 4)), at, C(scales), C(packed(ints(0, 16, 10, 2), 4))], bits=4, block_size=32, quantize_axis=1, target=target)
    case("8 bits", "GatherBlockQuantized", [C(ints(0, 256, 10, 64, dtype=U8)), at, C(scales)], bits=8, block_size=32, quantize_axis=1, target="ios18")
    refused("axis", "GatherBlockQuantized", [C(packed(table, 4)), at, C(scales)], "rows of a matrix", bits=4, block_size=32, quantize_axis=0, gather_axis=1)
    refused("scales", "GatherBlockQuantized", [C(packed(table, 4)), at, C(scales[:9].copy())], "scales of", bits=4, block_size=32, quantize_axis=1)


def unpack4(codes):
    return np.stack([codes & 15, codes >> 4], -1).reshape(codes.shape[0], -1).astype(I32)


def quantized():
    for dtype, low, high in ((U8, 0, 256), (I8, -128, 128)):
        name = np.dtype(dtype).name
        zero = lambda z: C(scalar(z, dtype))
        a, b = ints(low, high, 3, 4, dtype=dtype), ints(low, high, 3, 4, dtype=dtype)
        sa, sb, sc = C(scalar(0.11)), C(scalar(0.07)), C(scalar(0.19))
        za, zb, zc = zero(low + 120), zero(low + 131), zero(low + 128)
        case(name, "QLinearAdd", [a, sa, za, b, sb, zb, sc, zc], quanta=1)
        case(f"{name}, broadcast", "QLinearAdd", [a, sa, za, C(b[:1]), sb, zb, sc, zc], quanta=1)
        stored = lambda y, s, z=0, dtype=dtype, low=low, high=high: np.clip(np.rint(y / s) + z, low, high - 1).astype(dtype)
        case(f"{name}, no zeros", "QLinearAdd", [a, sa, None, b, sb, None, sc], quanta=1,
             reference=lambda a, sa, b, sb, sc, stored=stored: [stored(a * sa + b * sb, sc)])
        case(name, "QLinearMul", [a, sa, za, b, sb, zb, C(scalar(0.9)), zc], quanta=1)
        case(name, "QLinearSigmoid", [a, sa, za, C(scalar(1 / 256)), zero(low)], quanta=1)
        case(name, "QLinearLeakyRelu", [a, sa, za, sc, zc], alpha=0.1, quanta=1)
        case(name, "QLinearSoftmax", [a, sa, za, C(scalar(1 / 256)), zero(low)], opset=13, axis=-1, quanta=1)
        image = ints(low, high, 2, 3, 4, 5, dtype=dtype)
        case(name, "QLinearGlobalAveragePool", [image, sa, za, sb, zb], quanta=1)
        case(f"{name}, last", "QLinearGlobalAveragePool", [image, sa, za, sb, zb], channels_last=1, quanta=1)
        case(name, "QLinearAveragePool", [image, sa, za, sb, zb], kernel_shape=[2, 2], strides=[1, 2], pads=[1, 0, 0, 1], quanta=1)
        case(name, "QLinearConcat", [sc, zc, a, sa, za, b, sc, zc], axis=1, quanta=1)
        case(name, "QLinearReduceMean", [image, sa, za, sb, zb], axes=[2, 3], keepdims=1, quanta=1,
             reference=lambda x, s, z, t, u, stored=stored: [stored((x.astype(F32) - z).mean((2, 3), keepdims=True) * s, t, u.astype(F32))])
        case(name, "QLinearWhere", [np.array([[True], [False], [True]]), a, sa, za, b, sb, zb, sc, zc], quanta=1)
        case(name, "DequantizeLinear", [a, C(scalar(0.11)), za])
        case(f"{name}, by axis", "DequantizeLinear", [a, C(np.abs(floats(4))), C(ints(low, high, 4, dtype=dtype))], axis=1)
        case(name, "QuantizeLinear", [floats(3, 4) * 9, C(scalar(0.11)), za])
    case("no zero", "QuantizeLinear", [np.abs(floats(3, 4)) * 9, C(scalar(0.11))])
    case("16 bits", "QuantizeLinear", [floats(3, 4) * 9, C(scalar(0.001)), C(scalar(30000, np.uint16))])

    x, w = floats(3, 6), ints(-128, 128, 6, 5, dtype=I8)
    case("plain", "DynamicQuantizeMatMul", [x, C(w), C(scalar(0.02)), C(scalar(3, I8))])
    case("by columns", "DynamicQuantizeMatMul", [x, C(w), C(np.abs(floats(5))), C(ints(-9, 9, 5, dtype=I8)), C(floats(5))])
    case("batch", "DynamicQuantizeMatMul", [floats(2, 3, 6), C(w), C(scalar(0.02))])
    a = ints(0, 256, 3, 6, dtype=U8)
    case("plain", "MatMulIntegerToFloat", [a, C(w), C(scalar(0.03)), C(scalar(0.02)), C(scalar(119, U8)), C(scalar(3, I8))])
    case("by columns", "MatMulIntegerToFloat", [a, C(w), C(scalar(0.03)), C(np.abs(floats(5))), C(scalar(119, U8)), None, C(floats(5))])
    case("bytes", "MatMulIntegerToFloat", [a, C(ints(0, 256, 6, 5, dtype=U8)), C(scalar(0.03)), C(scalar(0.02)), C(scalar(119, U8)), C(scalar(99, U8))])
    rest = [C(scalar(0.03)), C(scalar(119, U8)), C(w), C(scalar(0.02)), C(scalar(3, I8))]
    case("floats", "QGemm", [a, *rest, C(ints(-999, 999, 5))], alpha=0.5)
    refused("no zero point", "QGemm", [a, *rest, None, C(scalar(0.7))], "input 8 is missing")
    case("quantized", "QGemm", [a, *rest, C(ints(-999, 999, 5)), C(scalar(0.7)), C(scalar(100, U8))], quanta=1)
    case("transposed", "QGemm", [a.T.copy(), *rest[:2], C(w.T.copy()), *rest[3:]], transA=1, transB=1)
    case("by columns", "QGemm", [a, *rest[:3], C(np.abs(floats(5)) * F32(0.1)), C(np.zeros(5, I8))])
    image, weight = ints(0, 256, 1, 6, 6, 3, dtype=U8), ints(0, 256, 4, 3, 3, 3, dtype=U8)
    numbers = [C(scalar(0.02)), C(scalar(128, U8)), C(weight), C(scalar(0.01)), C(scalar(120, U8)), C(scalar(0.3)), C(scalar(120, U8))]
    case("last", "QLinearConv", [image, *numbers], channels_last=1, pads=[1, 1, 1, 1], quanta=1)
    refused("scales", "QLinearAdd", [a, C(np.ones(6, F32)), None, a, C(scalar(1.0)), None, C(scalar(1.0))], "f32[6] where a scalar is wanted")
    refused("no scale", "QLinearSigmoid", [a, C(scalar(1.0)), None], "input 3 is missing")
    refused("threes", "QLinearConcat", [C(scalar(1.0)), C(scalar(0, U8)), a, C(scalar(1.0))], "a join of 2 tensors", axis=0)
    refused("no axis", "QLinearConcat", [C(scalar(1.0)), C(scalar(0, U8)), a, C(scalar(1.0)), C(scalar(0, U8))], "`axis`")
    refused("columns", "MatMulIntegerToFloat", [a, C(w), C(scalar(0.03)), C(floats(4))], "scales or zero points of f32[4]")
    refused("rank", "QGemm", [a[0], *rest], "a product of")


def others():
    case("plain", "ExpandDims", [floats(2, 3), C(scalar(1, I32))])
    case("from the end", "ExpandDims", [floats(2, 3), C(scalar(-1, I32))])
    case("plain", "GatherND", [floats(3, 4, 2), np.array([[0, 1], [2, 3]], I64)])
    case("plain", "Pad", [floats(2, 3), C(np.array([0, 2, 1, 0], I64)), C(scalar(1.5))])
    case("edge", "Pad", [floats(2, 3), C(np.array([0, 2, 1, 0], I64))], mode="edge")
    case("plain", "Range", [scalar(1.0), C(scalar(9.0)), C(scalar(2.0))])
    case("no step", "Range", [scalar(2, I32), C(scalar(7, I32))])
    case("upper", "Trilu", [floats(2, 4, 4)])
    case("lower", "Trilu", [floats(2, 4, 4), C(scalar(1, I64))], upper=0)
    case("bilinear", "GridSample", [floats(1, 2, 4, 4), (rng.random((1, 3, 3, 2)) * 1.8 - 0.9).astype(F32)], mode="bilinear")
    case("border", "GridSample", [floats(1, 2, 4, 4), (rng.random((1, 3, 3, 2)) * 3 - 1.5).astype(F32)], mode="bilinear", padding_mode="border", align_corners=1)
    refused("unknown", "BeamSearch", [floats(2, 3)], "`com.microsoft::BeamSearch` is not supported")


def decoder():
    """Two layers of a language model, as exporters for onnxruntime write it, whose sizes are all open."""
    heads, of_keys, size, words, width = 4, 2, 16, 30, 64
    nodes, constants = [], []

    def const(name, value):
        constants.append(onnx.numpy_helper.from_array(np.asarray(value), name))
        return name

    def op(kind, inputs, *outputs, domain="", **attrs):
        nodes.append(helper.make_node(kind, inputs, list(outputs), name=f"{kind}_{outputs[0]}", domain=domain, **attrs))
        return outputs[0]

    def product(x, rows, columns, out):
        codes = const(f"{out}_codes", ints(0, 256, columns, rows // 32, 16, dtype=U8))
        scales = const(f"{out}_scales", np.abs(floats(columns, rows // 32)) * F32(0.02))
        return op("MatMulNBits", [x, codes, scales], out, domain=DOMAIN, K=rows, N=columns, bits=4, block_size=32, accuracy_level=1)

    one = const("one", np.array([1], I64))
    length = op("Sub", [op("ReduceSum", ["attention_mask", one], "sum", keepdims=0), one], "length")
    lasts = op("Cast", [length], "lasts", to=onnx.TensorProto.INT32)
    whole = op("Gather", [op("Shape", ["attention_mask"], "sizes"), const("second", np.array(1, I64))], "whole")
    total = op("Cast", [whole], "total", to=onnx.TensorProto.INT32)
    tables = [const(name, table.value) for name, table in zip(("cos", "sin"), angles(size // 2, 64))]
    sum_ = op("Gather", [const("embedding", floats(words, width)), "input_ids"], "x0")
    hidden = op("SimplifiedLayerNormalization", [sum_, const("scale", floats(width))], "h0", axis=-1, epsilon=1e-6, stash_type=1)
    open_ = lambda name, *dims: helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, dims)
    inputs = [helper.make_tensor_value_info(name, onnx.TensorProto.INT64, ["batch", size]) for name, size in
              (("input_ids", "tokens"), ("attention_mask", "total"))]
    outputs = [open_("logits", "batch", "tokens", words)]
    for layer in range(2):
        q, k, v = (product(hidden, width, n * size, f"{name}{layer}") for name, n in (("q", heads), ("k", of_keys), ("v", of_keys)))
        past = [f"past_{name}{layer}" for name in "kv"]
        present = [f"present_{name}{layer}" for name in "kv"]
        inputs += [open_(name, "batch", of_keys, "past", size) for name in past]
        outputs += [open_(name, "batch", of_keys, "total", size) for name in present]
        y = op("GroupQueryAttention", [q, k, v, *past, lasts, total, *tables], f"y{layer}", *present, domain=DOMAIN,
               num_heads=heads, kv_num_heads=of_keys, do_rotary=1, local_window_size=-1)
        projected = product(y, heads * size, width, f"o{layer}")
        scale = const(f"scale{layer}", floats(width))
        hidden = op("SkipSimplifiedLayerNormalization", [sum_, projected, scale], f"h{layer + 1}", "", "", f"x{layer + 1}", domain=DOMAIN)
        sum_ = f"x{layer + 1}"
    product(hidden, width, words, "logits")
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid(DOMAIN, 1)], ir_version=10)


def check_decoder(mlconv, folder, read, fixed):
    """What is wrong with a decoder whose sizes stay open, or are fixed at those of one next token, if anything."""
    m = decoder()
    path, package = os.path.join(folder, "decoder.onnx"), os.path.join(folder, "decoder.mlpackage")
    given, out = os.path.join(folder, "in.npz"), os.path.join(folder, "out.npz")
    onnx.save(m, path)
    sizes = []
    for batch, tokens, past in [(1, 1, 8)] if fixed else [(1, 1, 8), (2, 1, 5), (1, 3, 4)]:
        feeds = {"input_ids": ints(0, 30, batch, tokens, dtype=I64), "attention_mask": np.ones((batch, tokens + past), I64)}
        feeds |= {i.name: floats(batch, 2, past, 16) for i in m.graph.input[2:]}
        want = session(m).run(None, feeds)
        if not sizes:
            sizes = [a for k, v in feeds.items() for a in ("--input", f"{k}={'x'.join(map(str, v.shape))}")]
            command = [mlconv, "convert", path, "-o", package, "--precision", "fp32", "--target", "ios18", "--force", "--quiet", *(sizes if fixed else [])]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                return f"convert: exit {done.returncode}: {done.stderr.strip()}"
        np.savez(given, **feeds)
        done = subprocess.run([mlconv, "run", package, "--inputs", given, "--outputs", out], capture_output=True, text=True)
        if done.returncode:
            return f"run: exit {done.returncode}: {done.stderr.strip()}"
        got = np.load(out)
        for o, w in zip(m.graph.output, want):
            if got[o.name].shape != w.shape or not np.allclose(got[o.name], w, rtol=1e-3, atol=1e-4):
                return f"{o.name} differs for {batch} of {tokens} after {past}"
    ops = read(package)
    blocks = sum(o == "constexpr_blockwise_shift_scale" for o in ops)
    return None if blocks == 9 else f"{blocks} weights in blocks instead of 9"


def model(c, typed=None):
    inputs, constants, names, feeds, arrays = [], [], [], {}, []
    for i, arg in enumerate(c.args):
        if arg is None:
            names.append("")
            continue
        name = f"i{i}"
        names.append(name)
        value = arg.value if isinstance(arg, C) else arg
        arrays.append(value)
        if isinstance(arg, C):
            constants.append(onnx.numpy_helper.from_array(np.ascontiguousarray(value).reshape(np.shape(value)), name))
        else:
            kind = helper.np_dtype_to_tensor_dtype(value.dtype)
            inputs.append(helper.make_tensor_value_info(name, kind, value.shape))
            feeds[name] = value
    wanted = getattr(c, "outputs", [0])
    results = [f"o{i}" if i in wanted else "" for i in range(max(wanted) + 1)]
    domain = getattr(c, "domain", DOMAIN)
    node = helper.make_node(c.op, names, results, name="the node", domain=domain, **c.attrs)
    outputs = []
    for i, at in enumerate(wanted):
        if at in getattr(c, "kinds", {}):
            outputs.append(helper.make_tensor_value_info(f"o{at}", helper.np_dtype_to_tensor_dtype(np.dtype(c.kinds[at])), None))
        elif typed is None:
            outputs.append(onnx.ValueInfoProto(name=f"o{at}"))
        else:
            kind = helper.np_dtype_to_tensor_dtype(typed[i].dtype)
            outputs.append(helper.make_tensor_value_info(f"o{at}", kind, typed[i].shape))
    graph = helper.make_graph([node], "g", inputs, outputs, constants)
    sets = [helper.make_opsetid("", getattr(c, "version", 17)), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=sets, ir_version=8), feeds, arrays


def session(m):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(m.SerializeToString(), options, providers=["CPUExecutionProvider"])


def check(c, mlconv, folder, read):
    """What is wrong with a case, if anything."""
    m, feeds, arrays = model(c)
    if c.reference:
        want = [np.asarray(y) for y in c.reference(*arrays)][: len(c.outputs)]
        want = [y.astype(F32) if y.dtype == np.float64 else y for y in want]
    else:
        want = session(m).run(None, feeds)
    m, _, _ = model(c, want)
    path, package = os.path.join(folder, "m.onnx"), os.path.join(folder, "m.mlpackage")
    given, out = os.path.join(folder, "in.npz"), os.path.join(folder, "out.npz")
    onnx.save(m, path)
    np.savez(given, **{k: v for k, v in feeds.items()})
    command = [mlconv, "convert", path, "-o", package, "--precision", "fp32", "--target", c.target, "--force", "--no-verify", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return f"convert: exit {done.returncode}: {done.stderr.strip()}"
    command = [mlconv, "run", package, *(["--inputs", given] if feeds else []), "--outputs", out]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return f"run: exit {done.returncode}: {done.stderr.strip()}"
    got = np.load(out)
    for i, (at, w) in enumerate(zip(c.outputs, want)):
        g = got[f"o{at}"]
        if g.shape != w.shape:
            return f"output {at} has shape {g.shape}, not {w.shape}"
        if c.part:
            g, w = c.part[i](g), c.part[i](w)
        if w.dtype.kind in "iub":
            apart = np.abs(g.astype(np.int64) - w.astype(np.int64))
            # A number halfway between two may be rounded either way; most are not.
            if apart.max(initial=0) > c.quanta or (apart > 0).mean() > 0.1:
                return f"output {at}: {(apart > 0).sum()} of {apart.size} differ, by up to {apart.max()}"
        elif not np.allclose(g, w, rtol=1e-3, atol=1e-5):
            return f"output {at} differs by up to {np.abs(g - w).max():.3g}"
    if c.op == "MatMulNBits" and c.target == "ios18" and not any(s.endswith("shift_scale") for s in read(package)):
        return "its weight is not stored in blocks"
    elif c.target != "ios18" or c.op != "MatMulNBits":
        read(package)
    return None


def check_refused(c, mlconv, folder):
    m, _, _ = model(c)
    for output in m.graph.output:
        output.CopyFrom(helper.make_tensor_value_info(output.name, 1, None))
    path, package = os.path.join(folder, "m.onnx"), os.path.join(folder, "refused.mlpackage")
    onnx.save(m, path)
    command = [mlconv, "convert", path, "-o", package, "--target", c.target, "--force", "--no-verify"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 2:
        return f"exit {done.returncode} instead of 2"
    if done.stderr.count("error[") != 1 or c.says not in done.stderr or "the node" not in done.stderr:
        return f"says `{done.stderr.strip()}`, wanted one error with `{c.says}`"
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mlconv", default="target/release/mlconv")
    parser.add_argument("--only", default="", help="cases whose name has this text")
    args = parser.parse_args()
    for make in (norms, activations, products, attentions, rotations, group_query, nbits, quantized, others):
        make()
    import packages

    def read(path):
        """The types of all ops, as coremltools reads the package."""
        return [op.op_type for f in packages.program(path).functions.values() for op in f.operations]

    passed = failed = 0
    with tempfile.TemporaryDirectory() as folder:
        checks = [(c.name, lambda c=c: check(c, args.mlconv, folder, read)) for c in CASES]
        checks += [(c.name, lambda c=c: check_refused(c, args.mlconv, folder)) for c in REFUSED]
        checks += [("a decoder", lambda: check_decoder(args.mlconv, folder, read, False))]
        checks += [("a decoder of fixed sizes", lambda: check_decoder(args.mlconv, folder, read, True))]
        for name, run in [(name, run) for name, run in checks if args.only in name]:
            try:
                wrong = run()
            except Exception as e:  # Whatever is raised is a failure of this case alone.
                wrong = f"{type(e).__name__}: {e}".strip().splitlines()[0]
            passed, failed = passed + (wrong is None), failed + (wrong is not None)
            if wrong:
                print(f"{name}: {wrong}", flush=True)
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
