import torch
from aten_cases import bools, case, floats, ints

X, S = floats(4, 6), floats(2, 64)
R = torch.view_as_real
f = torch.fft


class Rotary(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("turns", torch.polar(torch.ones(4, 3), torch.arange(12.0).reshape(4, 3)))

    def forward(self, x):
        return torch.view_as_real(torch.view_as_complex(x.reshape(4, 3, 2)) * self.turns[None]).flatten(-2)


def both(name, g, *inputs, **more):
    return [case(name, g, *inputs, **more), case(f"{name}_decomposed", g, *inputs, decompose=True, **more)]


CASES = [
    *both("fft", lambda x: R(f.fft(x)), X),
    *both("fft_dim_n", lambda x: (R(f.fft(x, n=5, dim=0)), R(f.fft(x, n=4))), X),
    *both("ifft", lambda x: R(f.ifft(f.fft(x, norm="ortho"), norm="ortho")), X, atol=1e-4),
    *both("ifft_norms", lambda x: (R(f.ifft(x).resolve_conj()), R(f.ifft(x, norm="forward").resolve_conj()), R(f.fft(x, norm="forward"))), X),
    *both("rfft", lambda x: R(f.rfft(x)), X),
    *both("rfft_ortho", lambda x: R(f.rfft(x, dim=0, norm="ortho")), X),
    *both("irfft", lambda x: f.irfft(f.rfft(x)), X),
    *both("irfft_odd", lambda x: f.irfft(f.rfft(x, n=5), n=5), X),
    *both("fft2", lambda x: R(f.fft2(x)), X),
    *both("rfft2", lambda x: R(f.rfft2(x, norm="ortho")), X),
    *both("irfft2", lambda x: f.irfft2(f.rfft2(x)), X, atol=1e-4),
    *both("fftn", lambda x: (R(f.fftn(x)), R(f.ifftn(x, dim=(0,))), R(f.rfftn(x))), X),
    *both("irfftn", lambda x: f.irfftn(f.rfftn(x), s=(4, 6)), X, atol=1e-4),
    *both("parts", lambda x: (f.fft(x).real, f.fft(x).imag, f.fft(x).abs(), f.rfft(x + 4).angle()[:, 1:3]), X),
    *both("arithmetic", lambda x: R(torch.complex(x, x + 1) * f.fft(x) + (2 + 1j) - x), X, formats="pt2"),
    *both("quotient", lambda x: R(torch.complex(x, x + 1) / torch.complex(x + 5, x) / 2), X),
    *both("conj", lambda x: R(torch.complex(x, x + 1).conj() * 2), X),
    *both("polar", lambda x: R(torch.polar(x.abs(), x)), X),
    *both("shapes", lambda x: R(torch.view_as_complex(x.reshape(4, 3, 2)).transpose(0, 1)[1:].reshape(-1)), X),
    *both("cat", lambda x: R(torch.cat([f.fft(x), f.ifft(x)], 1).unsqueeze(0)), X),
    *both("padded_by_number", lambda x: R(torch.constant_pad_nd(f.fft(x), [1, 2], 1.0)), X),
    case("chosen", lambda x: R(torch.where(x > 0, f.fft(x), 1.0)), X),
    case("diff_of_real", lambda x: R(torch.diff(f.fft(x), append=torch.ones(4, 1))), X, refused="complex numbers", formats="pt2"),
    *both("matmul", lambda x: R(torch.exp(torch.complex(x * 0.1, x)).square()), X),
    case("rotary", Rotary(), X, formats="pt2"),
    case("shift", lambda x: (f.fftshift(x), f.ifftshift(x[:, :5], dim=1)), X),
    case("stft", lambda x: R(torch.stft(x, 16, 4, window=torch.hann_window(16), center=False, return_complex=True)), S),
    case("stft_magnitude", lambda x: torch.stft(x, 16, 4, win_length=12, window=torch.hann_window(12), center=False, normalized=True, return_complex=True).abs(), S),
    case("stft_twosided", lambda x: R(torch.stft(x, 16, 8, window=torch.ones(16), center=False, onesided=False, return_complex=True)), S),
    case("istft", lambda x: torch.istft(torch.complex(x[:1, :45].reshape(1, 9, 5), x[1:, :45].reshape(1, 9, 5)), 16, 4, window=torch.hann_window(16)), S, atol=1e-4),
    case("istft_length", lambda x: torch.istft(torch.complex(x[0, :45].reshape(9, 5), x[1, :45].reshape(9, 5)), 16, 4, window=torch.hann_window(16), length=20), S, atol=1e-4),
    case("angle", torch.angle, torch.tensor([1.0, -2.0, 0.0])),
    case("complex_output", lambda x: f.fft(x), X, refused="view_as_real"),
    case("complex_input", lambda x: x.abs(), torch.complex(X, X), refused="view_as_complex", formats="pt2"),
    case("complex_sort", lambda x: R(torch.tan(torch.complex(x, x))), X, refused="complex numbers"),
]
