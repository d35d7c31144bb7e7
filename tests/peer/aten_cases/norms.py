import torch
from aten_cases import case, floats, ints

X, Y = floats(3, 4, 5), floats(3, 4, 5, seed=1)
L = torch.linalg
CASES = [case(f"vector_norm_{str(p).replace('-', 'minus_').replace('.', '_')}", lambda x, p=p: L.vector_norm(x, p, dim=1), X)
         for p in [0, 0.5, 1, 2, 3, float("inf"), -float("inf"), -1]]
CASES += [
    case("vector_norm_all", lambda x: L.vector_norm(x), X),
    case("vector_norm_keep", lambda x: L.vector_norm(x, dim=(0, -1), keepdim=True), X),
    case("vector_norm_all_keep", lambda x: L.vector_norm(x, keepdim=True), X),
    case("vector_norm_number", lambda x: L.vector_norm(x), torch.tensor(-2.0)),
    case("norm", lambda x: torch.norm(x), X),
    case("norm_dim", lambda x: torch.norm(x, p=3, dim=1, keepdim=True), X),
    case("norm_fro", lambda x: torch.norm(x, p="fro", dim=(1, 2)), X),
    case("linalg_norm", lambda x: L.norm(x), X),
    case("linalg_norm_vector", lambda x: L.norm(x, 3, dim=-1), X),
    case("linalg_norm_fro", lambda x: L.norm(x, "fro"), X[0]),
    case("linalg_norm_columns", lambda x: L.norm(x, 1, dim=(1, 2)), X),
    case("linalg_norm_rows", lambda x: L.norm(x, float("inf"), dim=(1, 2), keepdim=True), X),
    case("matrix_norm", lambda x: L.matrix_norm(x), X),
    case("matrix_norm_least", lambda x: L.matrix_norm(x, -1), X),
    case("matrix_norm_nuclear", lambda x: torch.ops.aten.linalg_norm.ord_str(x, "nuc"), X[0], refused="singular values"),
    case("normalize", lambda x: torch.nn.functional.normalize(x, dim=1), X),
    case("normalize_3", lambda x: torch.nn.functional.normalize(x, p=3.0, dim=-1), X),
    case("cosine_similarity", torch.cosine_similarity, X, Y),
    case("cosine_similarity_broadcast", lambda x, y: torch.cosine_similarity(x, y, dim=-1), X, Y[0, 0]),
    case("cosine_similarity_zeros", lambda x, y: torch.cosine_similarity(x * 0, y, dim=-1), X, Y),
    case("pairwise_distance", torch.nn.functional.pairwise_distance, X, Y),
    case("pairwise_distance_1", lambda x, y: torch.nn.functional.pairwise_distance(x, y, p=1.0, keepdim=True), X, Y),
    case("cdist", torch.cdist, X, floats(3, 6, 5)),
    case("cdist_1", lambda x, y: torch.cdist(x, y, p=1.0), X[0], floats(6, 5)),
    case("cdist_decomposed", torch.cdist, X, floats(3, 6, 5), decompose=True),
    case("pdist", torch.pdist, X[0]),
    case("dist", torch.dist, X, Y),
    case("renorm", lambda x: torch.renorm(x, 2, 1, 4.0), X),
    case("renorm_1", lambda x: torch.renorm(x, 1, -1, 4.0), X),
]


class Normed(torch.nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.layer = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(5, 4), dim=dim)

    def forward(self, x):
        return self.layer(x)


CASES += [case(f"weight_norm_{'all' if d is None else d}", Normed(d), X, formats="pt2,pt") for d in [0, 1, None]]
CASES += [case("weight_norm_decomposed", Normed(0), X, decompose=True)]
