import torch
from aten_cases import bools, case, floats, ints

X, M = floats(4, 5, 6), floats(4, 5)
G = torch.tensor([[0, 1, 2, 0, 3], [3, 2, 1, 0, 0]])
SRC = floats(2, 5)
A, C = torch.tensor([0, 2, 3]), torch.tensor([1, -1, 4])
MASK = bools(4, 5)
put = lambda f: lambda *a: (lambda x: (f(x, *a[1:]), x)[-1])(a[0].clone())


def assign(x, m, v):
    x[m] = v


CASES = [
    case("scatter", lambda x, g, s: x.scatter(0, g, s), M, G, SRC, rtol=1e-4),
    case("scatter_unique", lambda x, s: x.scatter(1, torch.tensor([[4, 3], [0, 1]]), s), M, SRC),
    case("scatter_value", lambda x, g: x.scatter(0, g, 7.0), M, G),
    case("scatter_reduce_add", lambda x, g, s: x.scatter(0, g, s, reduce="add"), M, G, SRC),
    case("scatter_reduce_multiply", lambda x, g, s: x.scatter(0, g, s, reduce="multiply"), M, G, SRC),
    case("scatter_value_reduce", lambda x, g: x.scatter(0, g, 2.0, reduce="add"), M, G),
    case("scatter_add", lambda x, g, s: x.scatter_add(0, g, s), M, G, SRC),
    case("scatter_add_int", lambda x, g, s: x.scatter_add(0, g, s), ints(4, 5), G, ints(2, 5)),
    case("scatter_fewer", lambda x, g, s: x.scatter_add(0, g[:, :3], s), M, G, SRC),
]
for r in "sum prod mean amax amin".split():
    for own in (True, False):
        CASES.append(case(f"scatter_reduce_{r}_{'with' if own else 'without'}_self", lambda x, g, s, r=r, own=own: x.scatter_reduce(0, g, s, r, include_self=own), M, G, SRC))
CASES += [
    case("scatter_reduce_mean_int", lambda x, g, s: x.scatter_reduce(0, g, s, "mean"), ints(4, 5), G, ints(2, 5)),
    case("index_put", lambda x, i, v: x.index_put((i,), v), M, A, floats(3, 5)),
    case("index_put_two", lambda x, i, j, v: x.index_put((i, j), v), M, A, C, floats(3)),
    case("index_put_broadcast", lambda x, i, j, v: x.index_put((i[:, None], j), v), M, A, C, torch.tensor(1.0)),
    case("index_put_accumulate", lambda x, i, v: x.index_put((i,), v, accumulate=True), M, torch.tensor([0, 0, 2]), floats(3, 5)),
    case("index_put_later", put(lambda x, i, v: assign(x, (slice(None), i), v)), X, C, floats(4, 3, 6)),
    case("index_put_apart", put(lambda x, i, v: assign(x, (i, slice(None), i), v)), X, A, floats(3, 5)),
    case("index_put_mask_value", put(lambda x, m: assign(x, m, 0.5)), M, MASK),
    case("index_put_mask_leading", put(lambda x, m: assign(x, m, 0.5)), X, MASK),
    case("index_put_mask_rows", put(lambda x, m: assign(x, m, torch.arange(5.0))), M, torch.tensor([True, False, True, True])),
    case("index_put_bool", put(lambda x, i: assign(x, i, True)), MASK, A),
    case("assign_slice", put(lambda x, v: assign(x, (slice(1, 3), slice(None, None, 2)), v)), M, floats(2, 3)),
    case("assign_select", put(lambda x: assign(x, (1, 2), 5.0)), X),
    case("assign_number_and_index", put(lambda x, i: assign(x, (1, i), 5.0)), X, A),
    case("index_add", lambda x, i, s: x.index_add(0, i, s, alpha=2), M, torch.tensor([0, 0, 3]), floats(3, 5)),
    case("index_add_dim", lambda x, i, s: x.index_add(1, i, s), M, A, floats(4, 3)),
    case("index_copy", lambda x, i, s: x.index_copy(1, i, s), M, A, floats(4, 3)),
    case("index_fill", lambda x, i: x.index_fill(1, i, -1.0), M, A),
    case("index_fill_tensor", lambda x, i, v: x.index_fill(0, i, v), M, A, torch.tensor(3.0)),
    case("masked_scatter", lambda x, m, s: x.masked_scatter(m, s), M, MASK, floats(20)),
    case("masked_scatter_broadcast", lambda x, m, s: x.masked_scatter(m, s), M, MASK[:1], floats(20)),
    case("put", lambda x, i, s: x.put(i, s), M, A, floats(3)),
    case("put_accumulate", lambda x, i, s: x.put(i, s, accumulate=True), M, torch.tensor([1, 1, -1]), floats(3)),
    case("diagonal_scatter", lambda x, s: torch.diagonal_scatter(x, s, 1), M, floats(4)),
    case("diagonal_scatter_dims", lambda x, s: torch.diagonal_scatter(x, s, -1, 0, 2), X, floats(5, 3)),
    case("write_split", put(lambda x: x.split(2, dim=1)[1].mul_(3)), M),
    case("write_chunk", put(lambda x: x.chunk(2, dim=1)[1].fill_(3)), M),
    case("write_unbind", put(lambda x: x.unbind(1)[2].add_(3)), M),
    case("write_tensor_split_from_end", put(lambda x: x.tensor_split((-4, -1), dim=1)[2].fill_(3)), M),
    case("write_tensor_split", put(lambda x: x.tensor_split(3, dim=1)[1].fill_(3)), M),
    case("write_split_sizes", put(lambda x: x.split([1, 3, 1], dim=1)[1].zero_()), M),
    case("write_diagonal", put(lambda x: x.diagonal().fill_(9)), M),
    case("fill_diagonal_wrap", put(lambda x: x.fill_diagonal_(9, wrap=True)), floats(7, 3)),
    case("fill_diagonal", put(lambda x: x.fill_diagonal_(9)), M),
]


def index_reduce(x, i, s, **more):
    return [x.index_reduce(0, i, s, r, **more) for r in ("prod", "mean", "amax", "amin")]


ROWS = torch.tensor([0, 3, 3, 1])
CASES += [
    case("index_reduce", index_reduce, floats(5, 3), ROWS, floats(4, 3, seed=1)),
    case("index_reduce_anew", lambda x, i, s: index_reduce(x, i, s, include_self=False), floats(5, 3), ROWS, floats(4, 3, seed=1)),
    case("index_reduce_dim", lambda x, i, s: x.index_reduce(-1, i, s, "amax"), floats(2, 5), ROWS, floats(2, 4, seed=1)),
    case("index_reduce_ints", lambda x, i, s: x.index_reduce(0, i, s, "amin"), ints(5, 3), ROWS, ints(4, 3, seed=1)),
]
