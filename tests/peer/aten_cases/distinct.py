import torch
from aten_cases import bools, case, floats, ints

I, T = ints(3, 4, low=0, high=4), torch.tensor([1, 1, 2, 2, 2, 1, 3, 3])
CASES = [
    case("unique", lambda x: torch.unique(x), I),
    case("unique_all", lambda x: torch.unique(x, return_inverse=True, return_counts=True), I),
    case("unique_float", lambda x: torch.unique(x, return_counts=True), torch.tensor([2.5, 1.0, 2.5, -1.0])),
    case("unique_dim", lambda x: torch.unique(x, dim=0, return_inverse=True, return_counts=True), torch.tensor([[1, 2], [0, 5], [1, 2]])),
    case("unique_dim_1", lambda x: torch.unique(x, dim=1), torch.tensor([[1, 2, 1], [0, 5, 0]])),
    case("unique_consecutive", lambda x: torch.unique_consecutive(x, return_inverse=True, return_counts=True), T),
    case("unique_consecutive_matrix", lambda x: torch.unique_consecutive(x, return_inverse=True), I),
    case("unique_consecutive_dim", lambda x: torch.unique_consecutive(x, dim=0, return_counts=True), torch.tensor([[1, 2], [1, 2], [0, 2]])),
]
