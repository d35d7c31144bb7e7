import torch
from torch.ao.quantization.fx import _decomposed  # registers the operators
from aten_cases import bools, case, floats, ints

q = torch.ops.quantized_decomposed
X = floats(4, 6)
W8 = ints(4, 6, low=-127, high=127).to(torch.int8)
W4 = ints(4, 6, low=-8, high=7).to(torch.int8)
SC = floats(4, low=0.01, high=0.1)
ZP = ints(4, low=-3, high=3)


class Weight(torch.nn.Module):
    def __init__(self, f, *buffers):
        super().__init__()
        self.f = f
        for i, b in enumerate(buffers):
            self.register_buffer(f"b{i}", b)

    def forward(self, x):
        return x + self.f(*[getattr(self, f"b{i}") for i in range(len(list(self.buffers())))])


tensor = lambda w: q.dequantize_per_tensor(w, 0.05, 3, -128, 127, torch.int8)
channel = lambda w, s, z: q.dequantize_per_channel(w, s, z, 0, -128, 127, torch.int8)
group = lambda w, s: q.dequantize_per_channel_group(w, s, None, -8, 7, torch.int8, 3, torch.float32)
CASES = [
    case("per_tensor", lambda x: q.dequantize_per_tensor(q.quantize_per_tensor(x, 0.05, 3, -128, 127, torch.int8), 0.05, 3, -128, 127, torch.int8), X),
    case("per_tensor_bytes", lambda x: q.quantize_per_tensor(x, 0.03, 100, 0, 255, torch.uint8), X),
    case("per_tensor_of_tensors", lambda x, s, z: q.quantize_per_tensor.tensor(x, s, z, -128, 127, torch.int8), X, torch.tensor(0.05), torch.tensor(2)),
    case("per_channel", lambda x: q.dequantize_per_channel(q.quantize_per_channel(x, SC, ZP, 0, -128, 127, torch.int8), SC, ZP, 0, -128, 127, torch.int8), X),
    case("weight_per_tensor", Weight(tensor, W8), X), case("weight_per_channel", Weight(channel, W8, SC, ZP), X),
    case("weight_per_channel_17", Weight(channel, W8, SC, ZP), X, target="ios17"), case("weight_per_channel_15", Weight(channel, W8, SC, ZP), X, target="ios15"),
    case("weight_of_4_bits", Weight(channel, W4, SC, ZP), X),
    case("weight_in_groups", Weight(group, W4, floats(4, 2, low=0.01, high=0.1)), X),
    case("fake", lambda x: torch.fake_quantize_per_tensor_affine(x, 0.1, 3, -128, 127), X),
    case("fake_channels", lambda x: torch.fake_quantize_per_channel_affine(x, SC, ZP.int(), 0, -128, 127), X),
    case("choose", lambda x: q.choose_qparams.tensor(x, -128, 127, 1e-5, torch.int8), X),
    case("choose_per_token", lambda x: q.choose_qparams_per_token_asymmetric(x, torch.int8), X),
    case("per_token", lambda x, s, z: q.quantize_per_token(x, s, z, -128, 127, torch.int8), X, floats(4, 1, low=0.02, high=0.1), ints(4, 1)),
]
