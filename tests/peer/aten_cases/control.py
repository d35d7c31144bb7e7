import math
import torch
from torch._higher_order_ops.map import map as over
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops import while_loop
from aten_cases import bools, case, floats, ints

X, T, F = floats(4, 6), torch.tensor(True), torch.tensor(False)
N = torch.export.Dim("n", min=2, max=64)
DYN, OTHER = (({0: N},),), (floats(9, 6),)


def no_grad(x):
    with torch.no_grad():
        y = x * 2
    return y + 1


def autocast(x):
    with torch.autocast("cpu", torch.bfloat16):
        y = x.sin()
    return y + 1


def dyn(name, f, **more):
    return case(name, f, X, dynamic=DYN, run=OTHER, **more)


class Counter(torch.nn.Module):
    def __init__(self, start):
        super().__init__()
        self.register_buffer("seen", torch.full((4, 6), start))

    def forward(self, x):
        self.seen[1:3].add_(x[1:3])
        return self.seen * 2


CASES = [
    case("cond_true", lambda p, x: torch.cond(p, lambda x: (x.sin(), x), lambda x: (x.cos() + 1, x * 2), (x,)), T, X),
    case("cond_false", lambda p, x: torch.cond(p, lambda x: (x.sin(),), lambda x: (x.cos() + 1,), (x,)), F, X),
    case("cond_of_values", lambda x: torch.cond(x.sum() > 0, lambda x: x.sin(), lambda x: x.cos(), (x,)), X),
    dyn("cond_of_size", lambda x: torch.cond(x.shape[0] > 5, lambda x: x.sin(), lambda x: x.cos(), (x,))),
    case("while_loop", lambda i, x: while_loop(lambda i, x: i < 5, lambda i, x: (i + 1, x * 1.5), (i, x)), torch.tensor(0), X),
    case("while_loop_of_values", lambda x: while_loop(lambda x: x.sum() < 100, lambda x: (x * x + 1,), (x,)), X),
    case("scan", lambda x: scan(lambda c, y: (c + y, c * y), torch.zeros(6), x), X),
    case("map", lambda x: over(lambda y: y.sin() * y.sum(), x), X),
    case("no_grad", no_grad, X),
    case("autocast", autocast, X, rtol=2e-2, atol=2e-2),
    dyn("size", lambda x: x * x.shape[0]),
    dyn("numel", lambda x: x * x.numel()),
    dyn("floordiv", lambda x: x * (x.shape[0] // 2)),
    dyn("mod", lambda x: x + x.shape[0] % 4),
    dyn("truediv", lambda x: x + x.shape[0] / 4),
    dyn("power", lambda x: x.new_zeros(x.shape[0] ** 2) + x.shape[0]),
    dyn("maximum", lambda x: x.new_zeros(torch.sym_max(x.shape[0], 7))),
    dyn("minimum", lambda x: x.new_zeros(torch.sym_min(x.shape[0], 7))),
    dyn("sqrt", lambda x: x * torch.sym_sqrt(x.shape[0])),
    dyn("choice", lambda x: x + torch.sym_ite(x.shape[0] > 5, 1, 2)),
    dyn("negative", lambda x: x * -x.shape[0]),
    dyn("reshape", lambda x: x.reshape(-1)),
    dyn("reshape_sizes", lambda x: x.reshape(x.shape[0] * 2, 3).t()),
    dyn("cat", lambda x: torch.cat([x, x], 0)),
    dyn("unfold", lambda x: x.unfold(0, 2, 1)),
    dyn("expand", lambda x: x[:, None].expand(x.shape[0], 3, 6)),
    dyn("flatten", lambda x: x.flatten()),
    case("doubled", lambda x: x.reshape(x.shape[0] // 2, 2, 6).sum(1), X, dynamic=(({0: 2 * torch.export.Dim("h", min=2, max=32)},),), run=(floats(10, 6),)),
    case("two_dynamic", lambda x: (x.t() @ x, x.reshape(-1), x.mean(1)), X, dynamic=(({0: N, 1: torch.export.Dim("m", min=2, max=64)},),), run=(floats(3, 5),)),
    case("item", lambda i, x: x[:, i.item()], torch.tensor(2), X),
    case("select_masked", lambda x: x[x > 0.5].sum(), X),
    # TorchScript's are given with the sample: torch_states.py has them.
    case("buffer", Counter(0.0), X, rtol=2e-3, atol=1e-3, formats="pt2"),
    case("buffer_decomposed", Counter(0.0), X, decompose=True, rtol=2e-3, atol=1e-3),
]
