import torch
from aten_cases import bools, case, floats, ints

X, I = floats(4, 5, 6), ints(4, 5, 6)
M = floats(4, 5)
A, C = torch.tensor([0, 2, 3]), torch.tensor([1, -1, 4])
G = ints(4, 5, 2, low=0, high=5)
MASK = bools(4, 5)
CASES = [
    case("index_one", lambda x, i: x[i], X, A),
    case("index_middle", lambda x, i: x[:, i], X, C),
    case("index_matrix", lambda x, i: x[:, :, i], X, torch.tensor([[0, 1], [-1, 2]])),
    case("index_two", lambda x, i, j: x[i, j], X, A, C),
    case("index_two_later", lambda x, i, j: x[:, i, j], X, C, A),
    case("index_apart", lambda x, i, j: x[i, :, j], X, A, A),
    case("index_broadcast", lambda x, i, j: x[i[:, None], j], X, A, C),
    case("index_three", lambda x, i, j: x[i, j, i], X, A, C),
    case("index_number", lambda x, i: x[i, 1], X, A),
    case("index_scalar_tensor", lambda x, i: x[i], X, torch.tensor(2)),
    case("index_new_axis", lambda x, i: x[:, None, i], X, A),
    case("index_bool_data", lambda x, i, j: x[i, j], MASK, A, C),
    case("index_int_data", lambda x, i: x[i], I, A),
    case("index_mask", lambda x, m: x[m], M, MASK),
    case("index_mask_rows", lambda x, m: x[m], X, torch.tensor([True, False, True, True])),
    case("index_mask_leading", lambda x, m: x[m], X, MASK),
    case("index_list", lambda x: x[[0, -1]], X),
    case("index_select", lambda x, i: torch.index_select(x, 1, i), X, A),
    case("index_select_negative_dim", lambda x, i: torch.index_select(x, -1, i), X, A),
    case("gather", lambda x, g: torch.gather(x, 2, g), X, G),
    case("gather_fewer", lambda x, g: torch.gather(x, 2, g), X, G[:2, :3]),
    case("gather_bool", lambda x, g: torch.gather(x > 0, -1, g), X, G),
    case("take_along_dim", lambda x, g: torch.take_along_dim(x, g[:1], dim=2), X, G),
    case("take_along_flat", lambda x, g: torch.take_along_dim(x, g), X, G),
    case("take", lambda x, i: torch.take(x, i), X, torch.tensor([[0, 7], [119, -1]])),
    case("masked_select", lambda x, m: torch.masked_select(x, m), M, MASK),
    case("masked_select_broadcast", lambda x, m: torch.masked_select(x, m), M, MASK[:1]),
    case("nonzero", lambda x: torch.nonzero(x), MASK),
    case("nonzero_tuple", lambda x: torch.nonzero(x, as_tuple=True), MASK),
    case("one_hot", lambda x: torch.nn.functional.one_hot(x, 7), G[0]),
    case("repeat_interleave", lambda x: torch.repeat_interleave(x, 3, dim=1), X),
    case("repeat_interleave_flat", lambda x: torch.repeat_interleave(x, 2), M),
    case("repeat_interleave_constant", lambda x: torch.repeat_interleave(x, torch.tensor([1, 0, 2, 3]), dim=0, output_size=6), X),
    case("unfold", lambda x: x.unfold(1, 3, 2), X),
    case("unfold_first", lambda x: x.unfold(0, 2, 1), X),
    case("as_strided", lambda x: torch.as_strided(x, (3, 3), (5, 1), 2), M),
    case("as_strided_windows", lambda x: x.as_strided((4, 3, 3), (5, 1, 1)), M),
    case("as_strided_turned", lambda x: x.t().as_strided((2, 2), (1, 5)), M, refused="memory"),
    case("select_by_tensor", lambda x, i: x[:, i.item()], M, torch.tensor(2)),
]
