import torch
from aten_cases import bools, case, floats, ints

N, F = torch.nn, torch.nn.functional
X, Z, S = floats(2, 3, 5, 6), floats(2, 3, 7), floats(1, 2, 4, 5, 6)
CASES = [
    case("constant", lambda x: F.pad(x, (1, 2)), X), case("constant_value", lambda x: F.pad(x, (1, 2, 0, 3), value=-1.5), X),
    case("constant_cut", lambda x: F.pad(x, (-1, 2, 1, -2)), X), case("constant_all", lambda x: F.pad(x, (1, 0, 0, 1, 2, 0, 1, 1)), X),
    case("constant_int", lambda x: F.pad(x, (1, 2), value=7), ints(3, 4)), case("constant_bool", lambda x: F.pad(x, (1, 2), value=True), bools(3, 4)),
    case("constant_infinite", lambda x: F.pad(x, (1, 2), value=-float("inf")), X),
    case("constant_open", lambda x: F.pad(x, (1, 2)), Z, dynamic=(({2: torch.export.Dim("n", max=30)},),), run=[floats(2, 3, 11)]),
    case("replicate_cut_far", lambda x: F.pad(x, (-6, 8), mode="replicate"), Z), case("reflect_open", lambda x: F.pad(x, (1, 2), mode="reflect"), Z, dynamic=(({2: torch.export.Dim("n", min=4, max=30)},),), run=[floats(2, 3, 11)]),
    case("pixel_shuffle", N.PixelShuffle(2), floats(2, 8, 3, 4)), case("pixel_shuffle_single", N.PixelShuffle(2), floats(8, 3, 4)),
    case("pixel_shuffle_5d", N.PixelShuffle(2), floats(2, 1, 8, 3, 4)), case("pixel_shuffle_int", N.PixelShuffle(2), ints(1, 4, 3, 4)),
    case("pixel_unshuffle", N.PixelUnshuffle(2), floats(2, 3, 4, 6)), case("pixel_unshuffle_single", N.PixelUnshuffle(3), floats(2, 6, 3)),
    case("pixel_unshuffle_ios15", N.PixelUnshuffle(2), floats(2, 3, 4, 6), target="ios15"),
    case("channel_shuffle", N.ChannelShuffle(3), floats(2, 6, 4, 5)), case("channel_shuffle_decomposed", N.ChannelShuffle(2), floats(2, 6, 4, 5), decompose=True),
]
for mode in ["reflect", "replicate", "circular"]:
    for name, x, pads in [("1d", Z, (2, 1)), ("2d", X, (2, 1, 3, 0)), ("3d", S, (2, 1, 3, 0, 1, 2)), ("2d_single", X[0], (1, 2, 2, 1)), ("1d_far", Z, (6, 5))]:
        CASES.append(case(f"{mode}_{name}", lambda x, m=mode, p=pads: F.pad(x, p, mode=m), x))
        CASES.append(case(f"{mode}_{name}_decomposed", lambda x, m=mode, p=pads: F.pad(x, p, mode=m), x, decompose=True))
    CASES.append(case(f"{mode}_cut", lambda x, m=mode: F.pad(x, (-1, 2), mode=m), Z))
