"""Memory that values share, conditions that are known late, and names: what programs mean beside their operators."""
from typing import List, NamedTuple, Optional

import torch
from aten_cases import case, floats, ints

X, Y = floats(4, 6), floats(6, 4)
WHOLE = ints(4, 6, low=0, high=8)
ONE, TWO = torch.tensor([2.7, 3.1]), torch.tensor([0, 1])


def shared(change):
    """What `change` makes of a tensor that is computed, beside that tensor."""

    def f(x):
        x = x * 2
        y = change(x)
        y.add_(1)
        return x, y

    return f


class Masked(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mask", torch.arange(6.0))

    def forward(self, x, mask):
        return x * self.mask + mask


class Named(torch.nn.Module):
    """Inputs that are called as values are that programs make."""

    def __init__(self):
        super().__init__()
        self.register_buffer("add_1", torch.arange(6.0))

    def forward(self, add, add__v1, mul_1, mul_2, split_3_0):
        y = add + 1
        y.add_(2)
        a, b = (y * self.add_1).split(3, 1)
        return y * add__v1 + mul_1 - mul_2, a + b + split_3_0


class Appended(torch.nn.Module):
    def forward(self, x):
        s = [2]
        if bool(x.sum() > 0):
            s.append(3)
        else:
            s.append(4)
        return x * s[0] + s[1]


class Kept(torch.nn.Module):
    def forward(self, x):
        parts = [x]
        if bool(x.sum() > 1000):
            parts[0] = x * 2
        else:
            parts[0] = x + 1
        return parts[0]


class Grown(torch.nn.Module):
    def forward(self, x):
        s = [x]
        if bool(x.sum() > 0):
            s.append(x)
        return torch.cat(s)


class Converted(torch.nn.Module):
    def forward(self, x, i):
        n = int(x[0])
        f = float(i[0])
        b = bool(x[1])
        return torch.zeros(2) + n, torch.zeros(2) + f / 2, torch.zeros(2) + float(b)


class Pair(NamedTuple):
    a: torch.Tensor
    b: torch.Tensor


class Tupled(torch.nn.Module):
    def forward(self, x):
        p = Pair(b=x + 1, a=x)
        return p.a * 2 - p.b


class Defaults(torch.nn.Module):
    def forward(self, x, flag: bool = False, y: Optional[torch.Tensor] = None):
        if y is not None:
            x = x + y
        return x * 2 if flag else x


@torch.jit.script
class Holder:
    def __init__(self, x: torch.Tensor):
        self.x = x

    def put(self, x: torch.Tensor):
        self.x = x


class Held(torch.nn.Module):
    def forward(self, x):
        h = Holder(x)
        h.put(x + 1)
        return h.x


class Looped(torch.nn.Module):
    def forward(self, x):
        for i in range(1000000000000):
            x = x + i
            if i == 3:
                break
        return x


class Seen(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(4, 6))

    def forward(self, x):
        with torch.no_grad():
            self.seen.add_(1)
            part = self.seen[1:3]
            part.mul_(2)
        return x + self.seen


def compared(x):
    y = x + 1
    y.gt_(1)
    return y / 2


def narrow(x):
    y = x.half()
    y.add_(x)
    return y


def bits(x, y):
    a = x + 1
    view = a[1:]
    view &= y[1:]
    b = x + 2
    b |= y
    c = x + 3
    c ^= y
    return a, b, c


def shifts(x):
    a, b = x + 1, x + 100
    a <<= 2
    b >>= 1
    return a, b


def refused(name, f, text, **more):
    return case(name, f, X, refused=text, **more)


CASES = [
    case("input_like_buffer", Masked(), X, floats(6)),
    case("inputs_like_values", Named(), X, X + 1, X + 2, X + 3, floats(4, 3)),
    case("contiguous", shared(lambda x: x.contiguous()), X),
    case("to_same_type", shared(lambda x: x.to(torch.float32)), X),
    case("type_as", shared(lambda x: x.type_as(x)), X),
    case("to_copy", shared(lambda x: x.to(torch.float32, copy=True)), X),
    case("to_other_type", shared(lambda x: x.to(torch.float16)), X, rtol=1e-2),
    case("detach", shared(lambda x: x.detach()[1:].detach()), X),
    case("linalg_diagonal", shared(lambda x: torch.linalg.diagonal(x, offset=1)), X),
    case("view", shared(lambda x: x.reshape(6, 4)), X),
    case("copy_not_read", lambda x: (x * 2).t().reshape(-1).add_(1), X),
    refused("copy_or_view", shared(lambda x: x.t().reshape(-1)), "clone"),
    case("compared_in_place", compared, X),
    case("narrow_in_place", narrow, X, rtol=1e-2),
    case("bits_in_place", bits, WHOLE, WHOLE + 1),
    case("shifts_in_place", shifts, WHOLE),
    case("no_grad_writes", Seen(), X, formats="pt2"),
    case("list_in_branches", Appended(), X.abs(), formats="script"),
    case("list_in_other_branch", Appended(), -X.abs(), formats="script"),
    case("element_in_branches", Kept(), X, formats="script"),
    case("list_that_grows", Grown(), X, refused="grows in one branch", formats="script"),
    case("numbers_of_tensors", Converted(), ONE, TWO, formats="script"),
    case("named_tuple", Tupled(), X, formats="script"),
    case("instance_of_class", Held(), X, refused="instances of classes", formats="script"),
    case("long_loop", Looped(), X, formats="script"),
]
