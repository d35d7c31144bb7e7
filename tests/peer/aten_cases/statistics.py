import torch
from aten_cases import case, floats, ints

X, V = floats(3, 6), floats(6)
AT = torch.tensor([0.0, 1.0, 1.5, 3.0, 4.0, 6.0])
W, N = torch.tensor([0.5, 1.0, 2.0, 0.1, 0.7, 1.0]), ints(6, low=1, high=4)
CASES = [
    case("trapezoid", torch.trapezoid, X),
    case("trapezoid_step", lambda x: torch.trapezoid(x, dx=0.5, dim=0), X),
    case("trapezoid_at", lambda x, t: torch.trapezoid(x, t), X, AT),
    case("trapezoid_at_first", lambda x, t: torch.trapezoid(x, t[:3], dim=0), X, AT),
    case("trapezoid_ints", torch.trapezoid, ints(2, 5)),
    case("trapz", lambda x, t: (torch.trapz(x, dx=2), torch.trapz(x, t)), X, AT),
    case("cumulative_trapezoid", torch.cumulative_trapezoid, X),
    case("cumulative_trapezoid_at", lambda x, t: torch.cumulative_trapezoid(x, t, dim=-1), X, AT),
    case("gradient", lambda x: torch.gradient(x), X),
    case("gradient_dim", lambda x: torch.gradient(x, dim=1, spacing=0.5), X),
    case("gradient_dims", lambda x: torch.gradient(x, dim=(0, 1), spacing=[2.0, 0.5]), X),
    case("gradient_edge", lambda x: torch.gradient(x, dim=-1, edge_order=2), X),
    case("cov", torch.cov, X, formats="pt"),
    case("cov_vector", torch.cov, V, formats="pt"),
    case("cov_row", torch.cov, X[:1], formats="pt"),
    case("cov_correction", lambda x: torch.cov(x, correction=0), X, formats="pt"),
    case("cov_counts", lambda x, n: torch.cov(x, fweights=n), X, N, formats="pt"),
    case("cov_shares", lambda x, w: torch.cov(x, aweights=w), X, W, formats="pt"),
    case("cov_both", lambda x, n, w: torch.cov(x, correction=2, fweights=n, aweights=w), X, N, W, formats="pt"),
    case("corrcoef", torch.corrcoef, X, formats="pt"),
    case("corrcoef_vector", torch.corrcoef, V, formats="pt"),
    case("mode", lambda x: torch.mode(x).values, ints(3, 9, low=0, high=2)),
    case("mode_dim", lambda x: torch.mode(x, 0, keepdim=True).values, ints(9, 3, low=0, high=2)),
    case("mode_bool", lambda x: torch.mode(x).values, ints(3, 5, low=0, high=1).bool()),
    case("mode_0d", torch.mode, torch.tensor(3.0)),
]
