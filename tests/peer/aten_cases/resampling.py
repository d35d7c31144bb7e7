import torch
from aten_cases import case, floats

N, F = torch.nn, torch.nn.functional
IMAGES = {1: floats(2, 3, 7), 2: floats(2, 3, 5, 6), 3: floats(1, 2, 4, 3, 5)}
MODES = {1: ["nearest", "nearest-exact", "linear"], 2: ["nearest", "nearest-exact", "bilinear", "bicubic"], 3: ["nearest", "nearest-exact", "trilinear"]}
SIZES = {1: [14, 5, 11, 1], 2: [(10, 12), (3, 4), (7, 13), (1, 1), (5, 9)], 3: [(8, 6, 10), (3, 5, 7)]}
FACTORS = {1: [2.0, 0.6, 1.7], 2: [2.0, (1.5, 2.3), 0.7], 3: [2.0, 1.3]}
CASES = []
for d, modes in MODES.items():
    for mode in modes:
        smooth = not mode.startswith("nearest")
        for corners in [None] + ([True] if smooth else []):
            for kind, all in [("size", SIZES[d]), ("scale_factor", FACTORS[d])]:
                for i, s in enumerate(all):
                    more = {"align_corners": bool(corners)} if smooth else {}
                    name = f"{mode}_{d}d_{kind}_{i}" + ("_corners" if corners else "")
                    f = lambda x, m=mode, k=kind, s=s, more=more: F.interpolate(x, mode=m, **{k: s}, **more)
                    CASES.append(case(name, f, IMAGES[d]))
        CASES.append(case(f"{mode}_{d}d_decomposed", lambda x, m=mode: F.interpolate(x, scale_factor=2, mode=m), IMAGES[d], decompose=True))
        CASES.append(case(f"{mode}_{d}d_size_again", lambda x, m=mode: F.interpolate(x, scale_factor=1.7, mode=m, recompute_scale_factor=True), IMAGES[d]))
for mode in ["bilinear", "bicubic"]:
    for i, s in enumerate(SIZES[2]):
        CASES.append(case(f"{mode}_smooth_{i}", lambda x, m=mode, s=s: F.interpolate(x, size=s, mode=m, antialias=True), IMAGES[2]))
    CASES.append(case(f"{mode}_smooth_factor", lambda x, m=mode: F.interpolate(x, scale_factor=0.45, mode=m, antialias=True), floats(1, 2, 11, 13)))
    CASES.append(case(f"{mode}_smooth_corners", lambda x, m=mode: F.interpolate(x, size=(3, 3), mode=m, antialias=True, align_corners=True), IMAGES[2], refused="antialiasing with corners"))
H, W = torch.export.Dim("h", min=2, max=32), torch.export.Dim("w", min=2, max=32)
for mode in ["nearest", "bilinear"]:
    CASES.append(case(f"{mode}_open", lambda x, m=mode: F.interpolate(x, scale_factor=2, mode=m), IMAGES[2], dynamic=(({2: H, 3: W},),), run=[floats(2, 3, 8, 9)]))
    CASES.append(case(f"{mode}_open_to_size", lambda x, m=mode: F.interpolate(x, size=(9, 7), mode=m), IMAGES[2], dynamic=(({2: H, 3: W},),), run=[floats(2, 3, 8, 9)]))
    CASES.append(case(f"{mode}_like", lambda x, y, m=mode: F.interpolate(x, size=y.shape[2:], mode=m), IMAGES[2], floats(1, 1, 9, 7),
                      dynamic=(({}, {2: H, 3: W}),), run=[IMAGES[2], floats(1, 1, 11, 4)]))
GRIDS = {2: floats(2, 4, 5, 2, low=-1.4, high=1.4), 3: floats(1, 3, 2, 4, 3, low=-1.4, high=1.4)}
for d, modes in {2: ["bilinear", "nearest", "bicubic"], 3: ["bilinear", "nearest"]}.items():
    for mode in modes:
        for outside in ["zeros", "border", "reflection"]:
            for corners in [False, True]:
                CASES.append(case(f"grid_{d}d_{mode}_{outside}" + ("_corners" if corners else ""), lambda x, g, m=mode, o=outside, c=corners:
                                  F.grid_sample(x, g, mode=m, padding_mode=o, align_corners=c), IMAGES[d], GRIDS[d], atol=1e-4))
for corners in [False, True]:
    CASES += [
        case(f"affine_grid_2d_{corners}", lambda t, c=corners: F.affine_grid(t, (2, 3, 4, 5), align_corners=c), floats(2, 2, 3)),
        case(f"affine_grid_3d_{corners}", lambda t, c=corners: F.affine_grid(t, (2, 3, 4, 5, 3), align_corners=c), floats(2, 3, 4)),
    ]
# A factor whose product with the size is a bit less than a whole number: sizes are rounded down in double precision.
LONG = floats(1, 2, 100, 10)
for mode, smooth in [("nearest", False), ("nearest-exact", False), ("bilinear", False), ("bicubic", False), ("bilinear", True), ("bicubic", True)]:
    CASES.append(case(f"{mode}_below_whole" + ("_smooth" if smooth else ""), lambda x, m=mode, s=smooth: F.interpolate(x, scale_factor=(0.29, 0.7), mode=m, antialias=s), LONG))
