import torch
from aten_cases import case, floats

L = torch.linalg


def regular(*shape, seed=0):
    return floats(*shape, seed=seed) + 3 * torch.eye(shape[-1])


def definite(*shape, seed=0):
    x = floats(*shape, seed=seed)
    return x @ x.mT + torch.eye(shape[-1])


A3, A5, BATCH = regular(3, 3), regular(5, 5), regular(2, 4, 4)
TURNED = torch.tensor([[0.0, 2.0, 1.0, 0.0], [1.0, 0.0, 0.0, 3.0], [0.0, 0.0, 4.0, 1.0], [2.0, 1.0, 0.0, 0.0]])
B = floats(5, 2)
CASES = [
    case("inv", L.inv, A5),
    case("inv_small", L.inv, A3),
    case("inv_batches", L.inv, BATCH),
    case("inv_needs_pivots", L.inv, TURNED),
    case("inv_ex", L.inv_ex, BATCH),
    case("inverse_of_many", torch.inverse, regular(12, 12)),
    case("inverse_of_too_many", torch.inverse, regular(70, 70), refused="the inverse of"),
    case("inverse_of_product", lambda x: torch.ops.aten.linalg_inv(x @ x.mT), floats(2, 3, 4)),
    case("det", L.det, A5),
    case("det_one", torch.det, regular(1, 1)),
    case("det_batches", torch.det, regular(2, 3, 3, 3)),
    case("det_needs_pivots", L.det, TURNED),
    case("det_singular", torch.det, torch.ones(3, 3)),
    case("slogdet", L.slogdet, A5),
    case("slogdet_negative", torch.slogdet, TURNED),
    case("logdet", torch.logdet, definite(4, 4)),
    case("logdet_negative", torch.logdet, TURNED[[1, 0, 2, 3]]),
    case("solve", L.solve, A5, B),
    case("solve_vector", L.solve, A5, B[:, 0]),
    case("solve_right", lambda a, b: L.solve(a, b, left=False), A5, B.mT),
    case("solve_batches", L.solve, BATCH, floats(2, 4, 3)),
    case("solve_vectors", L.solve, BATCH, floats(2, 4)),
    case("solve_many", L.solve, A5, floats(3, 5, 2)),
    case("solve_ex", L.solve_ex, A5, B),
    case("triangular", lambda a, b: L.solve_triangular(a, b, upper=True), A5, B),
    case("triangular_lower", lambda a, b: L.solve_triangular(a, b, upper=False, unitriangular=True), A5, B),
    case("triangular_right", lambda a, b: L.solve_triangular(a, b, upper=True, left=False), A5, B.mT),
    case("triangular_solve", lambda a, b: torch.triangular_solve(b, a, upper=False, transpose=True), A5, B),
    case("cholesky", L.cholesky, definite(5, 5)),
    case("cholesky_upper", lambda x: L.cholesky(x, upper=True), definite(2, 3, 3)),
    case("cholesky_ex", L.cholesky_ex, definite(3, 3)),
    case("cholesky_solve", torch.cholesky_solve, B, L.cholesky(definite(5, 5))),
    case("cholesky_inverse", torch.cholesky_inverse, L.cholesky(definite(4, 4))),
]
