"""Cases of aten.py, by family."""
import torch


def case(name, f, *inputs, **more):
    return {"name": name, "f": f, "inputs": inputs, **more}


def floats(*shape, low=-3.0, high=3.0, seed=0):
    g = torch.Generator().manual_seed(seed + sum(shape))
    return torch.rand(*shape, generator=g) * (high - low) + low


def ints(*shape, low=-9, high=9, seed=0, dtype=torch.int64):
    g = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randint(low, high + 1, shape, generator=g).to(dtype)


def bools(*shape, seed=0):
    return ints(*shape, low=0, high=1, seed=seed).bool()
