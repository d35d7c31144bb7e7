import torch
from aten_cases import case, floats, ints

A = torch.ops.aten
X, KEYS = floats(2, 5, 8), floats(2, 5, 8, seed=1)
W = [floats(24, 8, low=-0.5, high=0.5), floats(24, seed=2), floats(8, 8, low=-0.5, high=0.5, seed=3), floats(8, seed=4)]
QUERIES = ints(5, 5, low=0, high=1).bool() & ~torch.eye(5, dtype=torch.bool)
PADDING = torch.tensor([[False] * 5, [False, False, True, True, True]])
ALL = ints(2, 2, 5, 5, low=0, high=1).bool() & ~torch.eye(5, dtype=torch.bool)


def heads(q, k, v, *mask, kind=None, **more):
    return A._native_multi_head_attention(q, k, v, 8, 2, *W, mask[0] if mask else None, more.pop("need", True), more.pop("mean", True), kind)


class Same(torch.nn.Module):
    """One sequence as queries, keys and values."""

    def __init__(self, **more):
        super().__init__()
        torch.manual_seed(1)
        self.inner = torch.nn.MultiheadAttention(8, 2, batch_first=True, **more)

    def forward(self, x):
        return self.inner(x, x, x)


class Padded(torch.nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x, padding):
        return self.layer(x, src_key_padding_mask=padding)


def layer(**more):
    torch.manual_seed(2)
    return torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, **more)


def shares(x, mask, kind):
    return A._masked_softmax(x, mask, 3, kind)


CASES = [
    case("heads", lambda x: heads(x, x, x), X),
    case("heads_ios15", lambda x: heads(x, x, x), X, target="ios15"),
    case("heads_across", lambda q, k: heads(q, k, k), X, KEYS),
    case("heads_apart", lambda q, k, v: heads(q, k, v), X, KEYS, floats(2, 5, 8, seed=5)),
    case("heads_each", lambda x: heads(x, x, x, mean=False), X),
    case("heads_without_shares", lambda x: heads(x, x, x, need=False)[0], X),
    case("heads_mask_of_queries", lambda x, m: heads(x, x, x, m, kind=0), X, QUERIES),
    case("heads_mask_of_keys", lambda x, m: heads(x, x, x, m, kind=1), X, PADDING),
    case("heads_mask_of_all", lambda x, m: heads(x, x, x, m, kind=2), X, ALL),
    case("shares_of_queries", lambda x, m: shares(x, m, 0), floats(2, 2, 5, 5), QUERIES),
    case("shares_of_keys", lambda x, m: shares(x, m, 1), floats(2, 2, 5, 5), PADDING),
    case("attention", Same(), X),
    case("attention_without_bias", Same(bias=False), X),
    case("layer", layer(), X),
    case("layer_decomposed", layer(), X, decompose=True),
    case("layer_gelu", layer(activation="gelu"), X),
    case("layer_norm_first", layer(norm_first=True), X),
    case("layer_padding", Padded(layer()), X, PADDING),
    case("encoder", torch.nn.TransformerEncoder(layer(), 2, enable_nested_tensor=False), X),
    case("decoder", torch.nn.TransformerDecoder(torch.nn.TransformerDecoderLayer(8, 2, 16, batch_first=True), 2), X, KEYS),
    case("transformer", torch.nn.Transformer(8, 2, 1, 1, 16, batch_first=True), X, KEYS),
]
