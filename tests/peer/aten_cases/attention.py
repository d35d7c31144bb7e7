import torch
from aten_cases import case, floats, ints

F = torch.nn.functional.scaled_dot_product_attention
Q, K, V = floats(2, 4, 3, 8), floats(2, 4, 5, 8), floats(2, 4, 5, 8, seed=1)
B = ints(3, 5, low=0, high=1).bool()
GONE = torch.tensor([[True] * 5, [False] * 5, [True, False] * 2 + [True]])
L = floats(3, 5)
LESS = torch.where(GONE, L, -float("inf"))
Q3, Q5 = floats(4, 3, 8), floats(1, 2, 2, 3, 8)
CASES = []
for target in ["ios18", "ios16"]:
    def c(name, f, *inputs, **more):
        CASES.append(case(f"{name}_{target}", f, *inputs, target=target, **more))

    c("plain", F, Q, K, V)
    c("scale", lambda q, k, v: F(q, k, v, scale=0.1), Q, K, V)
    c("causal", lambda q, k, v: F(q, k, v, is_causal=True), Q, K, V)
    c("causal_square", lambda q: F(q, q, q, is_causal=True), Q)
    c("mask", lambda q, k, v, m: F(q, k, v, attn_mask=m), Q, K, V, B)
    c("mask_of_none", lambda q, k, v, m: F(q, k, v, attn_mask=m), Q, K, V, GONE)
    c("mask_float", lambda q, k, v, m: F(q, k, v, attn_mask=m), Q, K, V, L)
    c("mask_float_of_none", lambda q, k, v, m: F(q, k, v, attn_mask=m), Q, K, V, LESS)
    c("mask_4d", lambda q, k, v, m: F(q, k, v, attn_mask=m), Q, K, V, floats(2, 1, 3, 5))
    c("mask_row", lambda q, k, v, m: F(q, k, v, attn_mask=m), Q, K, V, floats(1, 5))
    c("mask_column", lambda q, k, v, m: F(q, k, v, attn_mask=m), Q, K, V, floats(3, 1))
    c("grouped", lambda q, k, v: F(q, k, v, enable_gqa=True), Q, K[:, :2].contiguous(), V[:, :2].contiguous())
    c("rank_3", F, Q3, floats(4, 5, 8), floats(4, 5, 8, seed=2))
    c("rank_3_mask", lambda q, k, v, m: F(q, k, v, attn_mask=m), Q3, floats(4, 5, 8), floats(4, 5, 8, seed=2), floats(4, 3, 5))
    c("rank_2", F, Q3[0], floats(5, 8), floats(5, 8, seed=2))
    c("rank_5", F, Q5, floats(1, 2, 2, 5, 8), floats(1, 2, 2, 5, 8, seed=3))
    c("wide_values", F, Q, K, floats(2, 4, 5, 6))
    c("half", F, Q.half(), K.half(), V.half(), rtol=1e-2, atol=1e-2)
    c("decomposed", F, Q, K, V, decompose=True)
    c("causal_decomposed", lambda q, k, v: F(q, k, v, is_causal=True), Q, K, V, decompose=True)
    c("mask_decomposed", lambda q, k, v, m: F(q, k, v, attn_mask=m), Q, K, V, GONE, decompose=True)
    c("open", lambda q, k, v: F(q, k, v, is_causal=True), Q, K, V, run=[floats(2, 4, 6, 8), floats(2, 4, 6, 8), floats(2, 4, 6, 8)],
      dynamic=(({2: torch.export.Dim("l", min=2, max=16)}, {2: (s := torch.export.Dim("s", min=2, max=16))}, {2: s}),))
CASES += [
    case("flash", lambda q, k, v: torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, is_causal=True), Q, K, V),
    case("flash_mask", lambda q, k, v, m: torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, attn_mask=m), Q, K, V, L),
    case("dropout", lambda q, k, v: F(q, k, v, dropout_p=0.5), Q, K, V, refused="dropout while training"),
    case("multi_head", torch.nn.MultiheadAttention(8, 2, batch_first=True), *[floats(2, 5, 8, seed=i) for i in range(3)]),
    case("encoder_layer", torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), floats(2, 5, 8)),
]
