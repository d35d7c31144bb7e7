import torch
from aten_cases import case, floats, ints

N, F = torch.nn, torch.nn.functional
X, Z, S = floats(2, 3, 7, 8), floats(2, 3, 9), floats(2, 2, 4, 5, 6)
T = floats(2, 3, 7, 8).round()  # with ties
A = torch.ops.aten


def pool(name, f, x, **more):
    return case(name, f, x, **more)


CASES = [
    pool("avg_1d", N.AvgPool1d(3), Z),
    pool("avg_1d_padded", N.AvgPool1d(3, stride=2, padding=1), Z),
    pool("avg_2d", N.AvgPool2d(2), X),
    pool("avg_2d_ceil", N.AvgPool2d(3, stride=2, padding=1, ceil_mode=True), X),
    pool("avg_2d_ceil_inside", N.AvgPool2d(3, stride=2, padding=1, ceil_mode=True, count_include_pad=False), X),
    pool("avg_2d_inside", N.AvgPool2d((3, 2), stride=(1, 2), padding=(1, 1), count_include_pad=False), X),
    pool("avg_2d_divisor", N.AvgPool2d(3, stride=2, padding=1, divisor_override=5), X),
    pool("avg_2d_single", N.AvgPool2d(2), X[0]),
    pool("avg_3d", N.AvgPool3d(2, padding=1), S),
    pool("avg_3d_divisor", N.AvgPool3d(2, ceil_mode=True, divisor_override=3), S),
    pool("max_1d", N.MaxPool1d(3, stride=2), Z),
    pool("max_1d_dilated", N.MaxPool1d(3, stride=2, dilation=2, padding=1), Z),
    pool("max_2d", N.MaxPool2d(2), X),
    pool("max_2d_padded", N.MaxPool2d(3, stride=2, padding=1), X),
    pool("max_2d_ceil", N.MaxPool2d(3, stride=2, padding=1, ceil_mode=True), X),
    pool("max_2d_dilated", N.MaxPool2d(3, stride=2, dilation=2, padding=1), X),
    pool("max_2d_single", N.MaxPool2d(2), X[0]),
    pool("max_2d_decomposed", N.MaxPool2d(3, stride=2, padding=1), X, decompose=True),
    pool("max_3d", N.MaxPool3d(2), S),
    pool("max_1d_places", lambda x: F.max_pool1d(x, 3, 2, return_indices=True), Z),
    pool("max_2d_places", lambda x: F.max_pool2d(x, 3, 2, 1, return_indices=True), T),
    pool("max_2d_places_ceil", lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True, return_indices=True), T),
    pool("max_2d_places_single", lambda x: F.max_pool2d(x, 3, 2, 1, return_indices=True), T[0]),
    pool("max_3d_places", lambda x: F.max_pool3d(x, 2, return_indices=True), S),
    pool("max_2d_open", N.MaxPool2d(3, stride=2, padding=1), X, run=[floats(2, 3, 9, 11)],
         dynamic=({2: torch.export.Dim("h", min=4, max=32), 3: torch.export.Dim("w", min=4, max=32)},)),
    pool("avg_2d_open", N.AvgPool2d(2), X, run=[floats(2, 3, 9, 11)],
         dynamic=({2: torch.export.Dim("h", min=4, max=32), 3: torch.export.Dim("w", min=4, max=32)},)),
]
for d, x, sizes in [(1, Z, [1, 3, 4, 9, 12]), (2, X, [1, (7, 4), (3, 5), (1, 8), (9, 3), (None, 4)]), (3, S, [1, (2, 5, 3), (3, 2, 4)])]:
    for s in sizes:
        name = f"{d}d_" + "_".join(str(i) for i in (s if isinstance(s, tuple) else (s,)))
        CASES.append(pool(f"adaptive_avg_{name}", getattr(N, f"AdaptiveAvgPool{d}d")(s), x))
        CASES.append(pool(f"adaptive_max_{name}", getattr(N, f"AdaptiveMaxPool{d}d")(s), x))
        CASES.append(pool(f"adaptive_max_places_{name}", getattr(N, f"AdaptiveMaxPool{d}d")(s, return_indices=True), x.round()))
CASES += [
    pool("adaptive_avg_2d_single", N.AdaptiveAvgPool2d((3, 5)), X[0]),
    pool("adaptive_max_2d_single", N.AdaptiveMaxPool2d((3, 5), return_indices=True), X[0]),
    pool("adaptive_avg_2d_open", N.AdaptiveAvgPool2d(1), X, run=[floats(2, 3, 9, 11)],
         dynamic=({2: torch.export.Dim("h", min=4, max=32), 3: torch.export.Dim("w", min=4, max=32)},)),
    pool("adaptive_avg_2d_decomposed", N.AdaptiveAvgPool2d((3, 5)), X, decompose=True),
    pool("lp_1d", N.LPPool1d(2, 3), Z.abs()),
    pool("lp_2d", N.LPPool2d(3, 3, stride=2), X.abs()),
    pool("max_unpool_1d", lambda x: F.max_unpool1d(*F.max_pool1d(x, 3, return_indices=True), 3), Z),
    pool("max_unpool_2d", lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2, output_size=(7, 8)), X),
    pool("max_unpool_3d", lambda x: F.max_unpool3d(*F.max_pool3d(x, 2, return_indices=True), 2, output_size=(4, 5, 6)), S),
]


def slopes(x, *args):
    y, places = torch.ops.aten.max_pool2d_with_indices(x, *args)
    return torch.ops.aten.max_pool2d_with_indices_backward(y * 2, x, *args, places)


CASES += [
    case("slopes", lambda x: slopes(x, [2, 2], [2, 2], [0, 0], [1, 1], False), floats(2, 3, 6, 8)),
    case("slopes_shared", lambda x: slopes(x, [3, 3], [1, 1], [1, 1], [1, 1], True), floats(3, 5, 7)),
    case("mean_of_ints", lambda x: torch.nn.functional.avg_pool2d(x, 2), ints(1, 2, 4, 6)),
]
