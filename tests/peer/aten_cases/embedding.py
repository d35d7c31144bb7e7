import torch
from aten_cases import case, floats, ints

N, F = torch.nn, torch.nn.functional
I, T, M = ints(7, low=0, high=9), floats(10, 4), ints(3, 4, low=0, high=9)
O = torch.tensor([0, 2, 2, 5])


class Bag(torch.nn.Module):
    def __init__(self, **more):
        super().__init__()
        self.bag = N.EmbeddingBag(10, 4, **more)

    def forward(self, *args):
        return self.bag(*args)


CASES = [
    case("embedding", N.Embedding(10, 4), M), case("embedding_number", N.Embedding(10, 4), torch.tensor(3)),
    case("embedding_int32", N.Embedding(10, 4), M.int()), case("embedding_padding", N.Embedding(10, 4, padding_idx=2), M),
    case("embedding_computed", F.embedding, M, T),
    case("embedding_decomposed", N.Embedding(10, 4), M, decompose=True),
]
for mode in ["sum", "mean", "max"]:
    CASES += [
        case(f"bag_{mode}", Bag(mode=mode), M), case(f"bag_{mode}_offsets", Bag(mode=mode), I, O),
        case(f"bag_{mode}_padding", Bag(mode=mode, padding_idx=int(I[0])), I, O),
        case(f"bag_{mode}_last", Bag(mode=mode, include_last_offset=True), I, torch.tensor([0, 3, 7])),
        case(f"bag_{mode}_decomposed", Bag(mode=mode), M, decompose=True),
    ]
CASES += [case("bag_weighted", lambda i, t, o, w: F.embedding_bag(i, t, o, mode="sum", per_sample_weights=w), I, T, O, floats(7))]
