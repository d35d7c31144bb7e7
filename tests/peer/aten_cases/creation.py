import torch
from aten_cases import bools, case, floats, ints

X, I = floats(3, 4), ints(3, 4)
N = torch.export.Dim("n", min=2, max=64)
DYN = (({0: N},),)
CASES = [
    case("tensor", lambda x: (x + torch.tensor([1, 2, 3, 4]), torch.where(torch.tensor([True, False, True, True]), x, -x)), X),
    case("tensor_rows", lambda x: x @ torch.tensor([[1.5, 2.0], [0.0, 4.0], [1.0, -1.0], [0.5, 0.25]]), X),
    case("tensor_number", lambda x: x * torch.tensor(2.5) + torch.tensor([3, 1, 2, 5], dtype=torch.float32), X),
    case("tensor_of_sizes", lambda x: (x * 1, torch.tensor([x.shape[0], 7, x.shape[1]])), X),
    case("arange", lambda x: x + torch.arange(4), X),
    case("arange_start", lambda x: x + torch.arange(2, 6), X),
    case("arange_step", lambda x: (x, torch.arange(1, 10, 3), torch.arange(0.5, 3, 0.5), torch.arange(5, 0, -2)), X),
    case("arange_dtype", lambda x: x + torch.arange(4, dtype=torch.float32), X),
    case("arange_dynamic", lambda x: (x, torch.arange(x.shape[0]), torch.arange(x.shape[0], dtype=torch.float32), torch.arange(1, x.shape[0] + 2)), X, dynamic=DYN, run=(floats(6, 4),)),
    case("linspace", lambda x: x + torch.linspace(-1, 2, 4), X),
    case("linspace_one", lambda x: x + torch.linspace(3, 5, 1), X),
    case("linspace_int", lambda x: (x, torch.linspace(0, 10, 4, dtype=torch.int64)), X),
    case("linspace_tensors", lambda a, b: torch.linspace(a, b, 7), torch.tensor(-1.5), torch.tensor(4.0)),
    case("linspace_tensor_number", lambda a: torch.linspace(a, 9, 5), torch.tensor(-1.5)),
    case("linspace_number_tensor", lambda a: torch.linspace(9, a, 5), torch.tensor(-1.5)),
    case("linspace_tensor_int", lambda a: torch.linspace(a, 9, 5, dtype=torch.int32), torch.tensor(-2)),
    case("logspace", lambda x: x + torch.logspace(-1, 1, 4), X),
    case("logspace_base", lambda x: x + torch.logspace(0, 3, 4, base=2), X),
    case("full", lambda x: x + torch.full((3, 4), 2.5), X),
    case("full_bool", lambda x: (x, torch.full((2,), True), torch.full((2,), 3), torch.full((2,), 3, dtype=torch.float32), torch.full((), 3)), X),
    case("full_dynamic", lambda x: torch.full((x.shape[0], 2), 1.5), X, dynamic=DYN, run=(floats(6, 4),)),
    case("full_like", lambda x: (torch.full_like(x, 2), torch.full_like(x, 2, dtype=torch.int32)), X),
    case("full_like_int", lambda x: torch.full_like(x, 2.7), I),
    case("zeros_ones", lambda x: (x + torch.zeros(3, 4) + torch.ones(4), torch.ones(2, dtype=torch.int64), torch.zeros(2, dtype=torch.bool)), X),
    case("likes", lambda x: (torch.zeros_like(x), torch.ones_like(x), torch.ones_like(x, dtype=torch.bool), torch.empty_like(x).zero_()), X),
    case("likes_dynamic", lambda x: (torch.zeros_like(x), torch.ones_like(x, dtype=torch.int64)), X, dynamic=DYN, run=(floats(6, 4),)),
    case("new", lambda x: (x.new_zeros(2, 3), x.new_ones(2), x.new_full((2,), 7), x.new_empty(3).fill_(1), x.new_ones(2, dtype=torch.bool)), X),
    case("new_dynamic", lambda x: (x.new_zeros(x.shape[0]), x.new_ones(x.shape[0], 2)), X, dynamic=DYN, run=(floats(6, 4),)),
    case("eye", lambda x: (x * torch.eye(3, 4), torch.eye(2, 3), torch.eye(3, dtype=torch.int64)), X),
    case("scalar_tensor", lambda x: x + torch.scalar_tensor(3.5), X),
    case("constant", lambda x: x + torch.tensor([1.0, 2.0, 3.0, 4.0]), X),
    case("windows", lambda x: (x, torch.hann_window(8), torch.hann_window(7, periodic=False), torch.hamming_window(9), torch.hamming_window(9, False, 0.5, 0.4), torch.blackman_window(8), torch.bartlett_window(8), torch.bartlett_window(7, False)), X),
]
CASES += [
    case("kaiser", lambda x: x * torch.kaiser_window(8), floats(8)),
    case("kaiser_beta", lambda x: x * torch.kaiser_window(8, periodic=False, beta=5.0), floats(8)),
    case("fftfreq", lambda x: (x * torch.fft.fftfreq(7, 0.5), torch.fft.rfftfreq(7) + x[:4]), floats(7)),
    case("range", lambda x: x + torch.range(1, 4, 0.5), floats(7)),
    case("zero_ios15", lambda x: x.clone().zero_() + x.new_zeros(3) + torch.ones_like(x).fill_(2), floats(2, 3), target="ios15"),
    case("eye_wide", lambda x: x @ torch.eye(3, 5), floats(2, 3)),
    case("arange_by_step", lambda x: x + torch.arange(0, 9, 3), floats(3)),
]
