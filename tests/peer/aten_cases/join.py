import torch
from aten_cases import bools, case, floats, ints

S, V, M, X = torch.tensor(2.0), floats(3), floats(3, 4), floats(2, 3, 4)
CASES = [
    case("atleast", lambda *a: [f(t) for f in (torch.atleast_1d, torch.atleast_2d, torch.atleast_3d) for t in a], S, V, M, X),
    case("atleast_lists", lambda *a: torch.atleast_2d(*a) + torch.atleast_3d(*a) + torch.atleast_1d(*a), S, V),
    case("vstack", lambda x, y: torch.vstack([x, y]), V, floats(2, 3)), case("dstack", lambda x: torch.dstack([x, x]), M),
    case("column_stack", lambda v, x: torch.column_stack([v, x]), V, M), case("row_stack", lambda v: torch.row_stack([v, v]), V),
    case("broadcast_tensors", lambda v, x: torch.broadcast_tensors(v[:, None], x), V, M), case("moveaxis", lambda x: torch.moveaxis(x, 0, -1), X),
    case("moveaxis_list", lambda x: torch.moveaxis(x, (0, 1), (1, 2)), X), case("mH", lambda x: (x.mH, x.adjoint()), X), case("H", lambda x: x.H, M),
    case("where_alone", lambda b: torch.where(b), bools(3, 4)), case("nonzero_static", lambda b: torch.nonzero_static(b, size=20), bools(3, 4)),
    case("sum_to_size", lambda x: x.sum_to_size(3, 1), X), case("hsplit", lambda v, x: torch.hsplit(x, 2) + torch.hsplit(v, [1]), V, M),
    case("vsplit", lambda x: torch.vsplit(x, 3), M), case("dsplit", lambda x: torch.dsplit(x, [1, 3]), X), case("unsafe_split", lambda x: torch.unsafe_split(x, 2, 1) + torch.unsafe_chunk(x, 2, 0), M),
]
CASES += [
    case("combinations", torch.combinations, floats(5)),
    case("combinations_of_three", lambda x: torch.combinations(x, 3), ints(5)),
    case("combinations_again", lambda x: torch.combinations(x, 2, with_replacement=True), floats(4)),
    case("combinations_bool", torch.combinations, torch.tensor([True, False, True])),
]
