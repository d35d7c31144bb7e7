import torch
from aten_cases import case, floats, ints

N = torch.nn


def conv(name, layer, *shape, **more):
    return case(name, layer, floats(*shape), **more)


CASES = [
    conv("conv1d", N.Conv1d(3, 4, 3), 2, 3, 8),
    conv("conv1d_strided", N.Conv1d(3, 4, 3, stride=2, padding=1), 2, 3, 9),
    conv("conv1d_dilated", N.Conv1d(3, 4, 3, dilation=2, padding=2), 2, 3, 9),
    conv("conv1d_single", N.Conv1d(3, 4, 3), 3, 8),
    conv("conv1d_same", N.Conv1d(3, 4, 4, padding="same"), 2, 3, 8),
    conv("conv1d_valid", N.Conv1d(3, 4, 4, padding="valid", stride=2), 2, 3, 8),
    conv("conv1d_circular", N.Conv1d(3, 4, 3, padding=1, padding_mode="circular"), 2, 3, 8),
    conv("conv2d", N.Conv2d(3, 4, 3, padding=1), 2, 3, 6, 7),
    conv("conv2d_groups", N.Conv2d(4, 6, 3, groups=2), 2, 4, 6, 7),
    conv("conv2d_depthwise", N.Conv2d(4, 4, (3, 2), groups=4, bias=False, stride=(2, 1)), 2, 4, 6, 7),
    conv("conv2d_same", N.Conv2d(3, 4, (4, 3), padding="same", dilation=(1, 2)), 2, 3, 6, 7),
    conv("conv2d_reflect", N.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), 2, 3, 6, 7),
    conv("conv2d_replicate", N.Conv2d(3, 4, 3, padding=1, padding_mode="replicate"), 2, 3, 6, 7),
    conv("conv2d_single", N.Conv2d(3, 4, 3), 3, 6, 7),
    conv("conv2d_decomposed", N.Conv2d(3, 4, 3), 2, 3, 6, 7, decompose=True),
    conv("conv3d", N.Conv3d(2, 3, 2, padding=(1, 0, 1)), 1, 2, 4, 5, 4),
    conv("conv_transpose1d", N.ConvTranspose1d(3, 4, 3, stride=2), 2, 3, 5),
    conv("conv_transpose1d_extra", N.ConvTranspose1d(3, 4, 3, stride=2, padding=1, output_padding=1), 2, 3, 5),
    conv("conv_transpose2d", N.ConvTranspose2d(4, 6, 3, stride=2, padding=1), 2, 4, 5, 4),
    conv("conv_transpose2d_groups", N.ConvTranspose2d(4, 6, 3, stride=2, groups=2, bias=False), 2, 4, 5, 4),
    conv("conv_transpose2d_dilated", N.ConvTranspose2d(4, 6, 2, dilation=2), 2, 4, 5, 4),
    conv("conv_transpose2d_extra", N.ConvTranspose2d(4, 6, 3, stride=3, output_padding=(2, 1)), 2, 4, 5, 4),
    conv("conv_transpose2d_decomposed", N.ConvTranspose2d(4, 6, 3, stride=2, padding=1), 2, 4, 5, 4, decompose=True),
    conv("conv_transpose3d", N.ConvTranspose3d(2, 3, 2, stride=2), 1, 2, 3, 4, 3),
    case("conv2d_computed_weight", torch.nn.functional.conv2d, floats(2, 3, 6, 7), floats(4, 3, 3, 3), floats(4)),
    case("conv2d_open", N.Conv2d(3, 4, 3, padding=1, stride=2), floats(2, 3, 6, 8), run=[floats(2, 3, 10, 12)],
         dynamic=({2: torch.export.Dim("h", min=4, max=32), 3: torch.export.Dim("w", min=4, max=32)},)),
    case("conv_tbc", torch.conv_tbc, floats(8, 2, 3), floats(3, 3, 4), floats(4)),
    case("conv_tbc_padded", lambda x, w, b: torch.conv_tbc(x, w, b, 1), floats(8, 2, 3), floats(3, 3, 4), floats(4)),
    conv("unfold", N.Unfold((2, 3)), 2, 3, 5, 6),
    conv("unfold_all", N.Unfold((2, 3), dilation=(2, 1), padding=1, stride=2), 2, 3, 7, 6),
    conv("unfold_single", N.Unfold(2), 3, 5, 6),
    conv("fold", N.Fold((5, 6), (2, 3)), 2, 18, 16),
    conv("fold_strided", N.Fold((6, 6), 2, stride=2), 2, 12, 9),
    conv("fold_all", N.Fold((7, 6), (2, 3), dilation=(2, 1), padding=1, stride=2), 2, 18, 12),
    conv("fold_single", N.Fold((5, 6), (2, 3)), 18, 16),
]
CASES += [
    case("weight_given_dilated", lambda x, w: torch.nn.functional.conv1d(x, w, dilation=3), floats(1, 2, 12), floats(4, 2, 3)),
    case("weight_given_dilated_2d", lambda x, w, b: torch.nn.functional.conv2d(x, w, b, padding=2, dilation=(2, 3)), floats(1, 2, 9, 9), floats(4, 2, 2, 3), floats(4)),
    case("weight_given_same", lambda x, w: torch.nn.functional.conv2d(x, w, padding="same", dilation=2), floats(1, 2, 8, 9), floats(4, 2, 3, 2)),
    case("weight_given_3d", lambda x, w: torch.nn.functional.conv3d(x, w, dilation=2), floats(1, 1, 5, 6, 7), floats(2, 1, 2, 2, 3)),
    case("of_ints", lambda x, w: torch.nn.functional.conv1d(x, w), ints(1, 2, 7), ints(3, 2, 2)),
]
