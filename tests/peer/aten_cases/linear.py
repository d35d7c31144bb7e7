import torch
from aten_cases import case, floats, ints

A, B, C, V, W = floats(3, 4), floats(4, 5), floats(3, 5, seed=2), floats(4), floats(3, seed=1)
P, Q = floats(2, 3, 4), floats(2, 4, 5)
I, J = ints(3, 4), ints(4, 5)
S = floats(2, 3, 3) + 3 * torch.eye(3)
T = torch.tensor
BM = floats(6, 4, 5)


class Layer(torch.nn.Module):
    def __init__(self, bias=True):
        super().__init__()
        self.layer = torch.nn.Linear(4, 5, bias=bias)

    def forward(self, x):
        return self.layer(x)


CASES = [case(f"layer_{len(s)}d", Layer(), floats(*s)) for s in [(4,), (3, 4), (2, 3, 4), (2, 2, 3, 4), (2, 1, 2, 3, 4)]]
CASES += [
    case("layer_without_bias", Layer(False), A),
    case("layer_half", Layer().half(), A.half(), rtol=5e-3, atol=5e-3),
    case("layer_open", Layer(), A, dynamic=({0: torch.export.Dim("n", max=9)},), run=[floats(7, 4)]),
    case("linear_computed", torch.nn.functional.linear, A, floats(5, 4), floats(5)),
    case("linear_vector", torch.nn.functional.linear, A, V),
    case("matmul_vectors", torch.matmul, V, V),
    case("matmul_row", torch.matmul, V, B),
    case("matmul_column", torch.matmul, A, V),
    case("matmul_batches", torch.matmul, P, B),
    case("matmul_batch_column", torch.matmul, P, V),
    case("matmul_batch_row", torch.matmul, V, Q),
    case("matmul_broadcast", torch.matmul, floats(2, 1, 3, 4), floats(3, 4, 5)),
    case("matmul_int", torch.matmul, I, J),
    case("mm", torch.mm, A, B),
    case("bmm", torch.bmm, P, Q),
    case("mv", torch.mv, A, V),
    case("dot", torch.dot, V, floats(4, seed=3)),
    case("vdot", torch.vdot, V, floats(4, seed=3)),
    case("inner", torch.inner, P, floats(6, 4)),
    case("inner_vector", torch.inner, P, V),
    case("inner_number", torch.inner, A, T(2.0)),
    case("outer", torch.outer, V, W),
    case("outer_mixed", torch.outer, V, ints(3)),
    case("addmm", torch.addmm, C, A, B),
    case("addmm_scaled", lambda c, a, b: torch.addmm(c, a, b, beta=0.5, alpha=-2), C, A, B),
    case("addmm_without", lambda c, a, b: torch.addmm(c, a, b, beta=0), C * float("nan"), A, B),
    case("addmv", lambda c, a, b: torch.addmv(c, a, b, beta=0.5, alpha=2), W, A, V),
    case("addr", lambda c, a, b: torch.addr(c, a, b, beta=0.5, alpha=2), C, W, floats(5)),
    case("baddbmm", lambda c, a, b: torch.baddbmm(c, a, b, beta=0.5, alpha=2), floats(2, 3, 5), P, Q),
    case("addbmm", lambda c, a, b: torch.addbmm(c, a, b, beta=0.5, alpha=2), C, P, Q),
    case("chain_matmul", lambda a, b, c: torch.linalg.multi_dot([a, b, c]), A, B, floats(5, 2)),
    case("matrix_power", lambda x: torch.matrix_power(x, 5), S, rtol=1e-3),
    case("matrix_power_back", lambda x: torch.matrix_power(x, -2), S, rtol=1e-3, atol=1e-4),
    case("kron", torch.kron, A, floats(2, 3)),
    case("kron_vector", torch.kron, A, V),
    case("tensordot", lambda a, b: torch.tensordot(a, b, dims=([1, 0], [0, 1])), floats(3, 4, 5), floats(4, 3, 2)),
    case("tensordot_one", lambda a, b: torch.tensordot(a, b, dims=1), P, B),
    case("tensordot_all", lambda a, b: torch.tensordot(a, b, dims=2), A, floats(3, 4, seed=4)),
    case("tensordot_none", lambda a, b: torch.tensordot(a, b, dims=0), V, W),
    case("cross", torch.linalg.cross, floats(4, 3), floats(4, 3, seed=1)),
    case("cross_first", lambda a, b: torch.cross(a, b, dim=0), floats(3, 4), floats(3, 4, seed=1)),
    case("cross_broadcast", torch.linalg.cross, floats(4, 3), floats(1, 3, seed=1)),
    case("vecdot", torch.linalg.vecdot, A, floats(3, 4, seed=1)),
    case("vecdot_dim", lambda a, b: torch.linalg.vecdot(a, b, dim=0), A, floats(3, 4, seed=1)),
    case("inverse", torch.inverse, S, rtol=1e-3, atol=1e-4),
    case("linalg_inv", torch.linalg.inv, S, rtol=1e-3, atol=1e-4),
    case("bilinear", torch.nn.functional.bilinear, floats(6, 4), floats(6, 5), floats(3, 4, 5), floats(3)),
    case("bilinear_batches", torch.nn.functional.bilinear, floats(2, 3, 4), floats(2, 3, 5), floats(3, 4, 5)),
]
for equation, inputs in {
    "ij,jk->ik": (A, B), "bij,bjk->bik": (P, Q), "ij->ji": (A,), "ij->": (A,), "ii->i": (S[0],), "ii": (S[0],),
    "i,j->ij": (V, W), "bhqd,bhkd->bhqk": (floats(2, 2, 3, 4), floats(2, 2, 5, 4)), "...ij,jk->...ik": (P, B),
    "bij,kj,bk->bi": (P, floats(5, 4), floats(2, 5)), "nchw,cd->ndhw": (floats(1, 3, 2, 2), floats(3, 4)),
}.items():
    name = "einsum_" + equation.replace(",", "_").replace("->", "_to_").replace("...", "any_")
    CASES.append(case(name, lambda *t, e=equation: torch.einsum(e, *t), *inputs))
