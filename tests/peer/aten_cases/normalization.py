import torch
from aten_cases import case, floats

N = torch.nn


def with_statistics(layer):
    g = torch.Generator().manual_seed(5)
    for name, t in list(layer.named_parameters()) + list(layer.named_buffers()):
        if t.dtype.is_floating_point:
            t.data.copy_(torch.rand(t.shape, generator=g) + 0.5)
    return layer.eval()


F = torch.nn.functional
X, Z, S = floats(2, 4, 5, 3), floats(2, 4, 5), floats(2, 4, 3, 2, 3)
CASES = [
    case("batch_norm_1d", with_statistics(N.BatchNorm1d(4)), floats(3, 4)),
    case("batch_norm_sequence", with_statistics(N.BatchNorm1d(4)), Z),
    case("batch_norm_2d", with_statistics(N.BatchNorm2d(4)), X),
    case("batch_norm_3d", with_statistics(N.BatchNorm3d(4)), S),
    case("batch_norm_plain", with_statistics(N.BatchNorm2d(4, affine=False, eps=1e-2)), X),
    case("batch_norm_own", N.BatchNorm2d(4, track_running_stats=False), X),
    case("batch_norm_decomposed", with_statistics(N.BatchNorm2d(4)), X, decompose=True),
    case("batch_norm_own_decomposed", N.BatchNorm2d(4, track_running_stats=False), X, decompose=True),
    case("batch_norm_training", lambda x, m, v: F.batch_norm(x, m, v, training=True), X, floats(4), floats(4).abs()),
    case("native_batch_norm_training", lambda x: torch.native_batch_norm(x, None, None, None, None, True, 0.1, 1e-5), X),
    case("layer_norm", with_statistics(N.LayerNorm(3)), X),
    case("layer_norm_axes", with_statistics(N.LayerNorm((5, 3))), X),
    case("layer_norm_plain", N.LayerNorm((5, 3), elementwise_affine=False), X),
    case("layer_norm_no_bias", with_statistics(N.LayerNorm(3, bias=False, eps=1e-2)), X),
    case("layer_norm_computed", lambda x, w, b: F.layer_norm(x, (3,), w, b), X, floats(3), floats(3)),
    case("layer_norm_decomposed", with_statistics(N.LayerNorm(3)), X, decompose=True),
    case("native_layer_norm", lambda x: torch.native_layer_norm(x, (5, 3), None, None, 1e-5), X),
    case("layer_norm_open", with_statistics(N.LayerNorm(3)), Z.transpose(1, 2)[..., :3].contiguous(),
         dynamic=({1: torch.export.Dim("n", max=9)},), run=[floats(2, 8, 3)]),
    case("group_norm", with_statistics(N.GroupNorm(2, 4)), X),
    case("group_norm_plain", N.GroupNorm(2, 4, affine=False), S),
    case("group_norm_flat", with_statistics(N.GroupNorm(2, 4)), floats(3, 4)),
    case("group_norm_decomposed", with_statistics(N.GroupNorm(2, 4)), X, decompose=True),
    case("native_group_norm", lambda x: torch.native_group_norm(x, None, None, 2, 4, 15, 2, 1e-5), X),
    case("instance_norm_1d", with_statistics(N.InstanceNorm1d(4, affine=True)), Z),
    case("instance_norm_2d", N.InstanceNorm2d(4), X),
    case("instance_norm_3d", with_statistics(N.InstanceNorm3d(4, affine=True)), S),
    case("instance_norm_kept", with_statistics(N.InstanceNorm2d(4, affine=True, track_running_stats=True)), X),
    case("rms_norm", with_statistics(N.RMSNorm(3)), X),
    case("rms_norm_axes", with_statistics(N.RMSNorm((5, 3), eps=1e-2)), X),
    case("rms_norm_plain", N.RMSNorm(3, elementwise_affine=False), X),
    case("rms_norm_decomposed", with_statistics(N.RMSNorm(3)), X, decompose=True),
    case("local_response_norm", N.LocalResponseNorm(3), X),
    case("local_response_norm_even", N.LocalResponseNorm(2, alpha=0.1, k=2.0), Z),
]
