import torch
from aten_cases import bools, case, floats, ints

X = floats(3, 4)
P = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
CASES = [
    case("rand", lambda x: (x, (torch.rand(3, 4) >= 0) & (torch.rand_like(x) < 1)), X),
    case("randn", lambda x: (x, torch.randn(200).abs().mean() < 1.5, torch.randn_like(x).shape[0] + x), X),
    case("randint", lambda x: (x, torch.randint(2, 5, (20,)).clamp(2, 4) - torch.randint(5, 6, (20,)).clamp(5, 5) < 0), X),
    case("randint_range", lambda x: ((torch.randint(2, 5, (50,)) >= 2).all(), (torch.randint_like(x, 7) < 7).all()), X),
    case("randperm", lambda x: torch.sort(torch.randperm(6))[0] + x[0, 0].int(), X),
    case("bernoulli", lambda p: torch.bernoulli(p), torch.tensor([0.0, 1.0, 1.0])),
    case("bernoulli_number", lambda x: torch.bernoulli(x, 1.0), X),
    case("multinomial", lambda p: torch.multinomial(p, 1), P),
    case("multinomial_again", lambda p: torch.multinomial(p, 4, replacement=True), P),
    case("multinomial_once", lambda p: torch.sort(torch.multinomial(p, 3))[0], torch.ones(3)),
    case("normal", lambda x: (x, torch.normal(5.0, 0.0, (3,))), X),
    case("uniform", lambda x: x.clone().uniform_(2, 2), X),
]
