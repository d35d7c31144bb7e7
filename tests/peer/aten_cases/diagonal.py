import torch
from aten_cases import bools, case, floats, ints

X, M, V = floats(3, 4, 5), floats(4, 6), floats(4)
CASES = [
    case("diagonal", lambda x: torch.diagonal(x), M),
    case("diagonal_offset", lambda x: torch.diagonal(x, 2), M),
    case("diagonal_below", lambda x: torch.diagonal(x, -1, 0, 2), X),
    case("diagonal_bool", lambda x: torch.diagonal(x), bools(4, 6)),
    case("linalg_diagonal", lambda x: torch.linalg.diagonal(x, offset=1), X),
    case("diag_vector", torch.diag, V),
    case("diag_vector_above", lambda x: torch.diag(x, 2), V),
    case("diag_vector_below", lambda x: torch.diag(x, -1), V),
    case("diag_matrix", lambda x: torch.diag(x, 1), M),
    case("diagflat", torch.diagflat, floats(2, 2)),
    case("diag_embed", torch.diag_embed, M),
    case("diag_embed_dims", lambda x: torch.diag_embed(x, 1, 0, 2), M),
    case("diag_embed_int", torch.diag_embed, ints(2, 3)),
    case("tril", torch.tril, M), case("tril_above", lambda x: x.tril(1), X), case("tril_below", lambda x: x.tril(-1), M),
    case("triu", torch.triu, M), case("triu_above", lambda x: x.triu(1), X), case("triu_below", lambda x: x.triu(-2), M),
    case("triu_bool", lambda x: x.triu(1), bools(4, 4)),
    case("triu_int", lambda x: x.triu(1), ints(4, 4)),
    case("tril_indices", lambda x: x + torch.tril_indices(3, 4, 1).sum(), M),
    case("triu_indices", lambda x: (x, torch.triu_indices(4, 3, -1)), M),
    case("block_diag", lambda x, y, z: torch.block_diag(x, y, z), M, V, torch.tensor(2.0)),
    case("cartesian_prod", torch.cartesian_prod, floats(2), floats(3), floats(4)),
    case("meshgrid", lambda x, y: torch.meshgrid(x, y, indexing="ij"), floats(2), floats(3)),
    case("meshgrid_xy", lambda x, y, z: torch.meshgrid(x, y, z, indexing="xy"), floats(2), floats(3), floats(4)),
    case("rot90", lambda x: torch.rot90(x), M), case("rot90_twice", lambda x: torch.rot90(x, 2), M),
    case("rot90_back", lambda x: torch.rot90(x, -1, [0, 2]), X),
    case("vander", lambda x: torch.vander(x), V), case("vander_n", lambda x: torch.vander(x, 3, increasing=True), V),
    case("linalg_vander", lambda x: torch.linalg.vander(x), V),
]
