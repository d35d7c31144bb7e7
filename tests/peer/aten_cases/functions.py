import torch
from aten_cases import bools, case, floats, ints

X, Y, I, J, B = floats(3, 4), floats(3, 4, seed=1), ints(3, 4), ints(3, 4, seed=2), bools(3, 4)
S = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.0, 2.5])
U = floats(3, 4, low=-0.95, high=0.95)
CASES = [case(f, getattr(torch, f), I, J) for f in "not_equal greater greater_equal less less_equal".split()]
CASES += [case(f"{f}_number", lambda x, f=f: getattr(torch, f)(x, 0.5), X) for f in "not_equal greater greater_equal less less_equal".split()]
CASES += [case(f, getattr(torch, f), S) for f in "isposinf isneginf isreal".split()]
CASES += [
    case("isclose", lambda x: torch.isclose(x, x + 1e-7, rtol=1e-4), X), case("isclose_inf", lambda x, y: torch.isclose(x, y), S, S.flip(0)),
    case("isclose_nan", lambda x: torch.isclose(x, x, equal_nan=True), S), case("greater_bool", torch.greater, B, ~B),
    case("isin", torch.isin, I, torch.tensor([1, 2, 5])), case("isin_number", lambda x: torch.isin(x, 2), I), case("isin_invert", lambda x, t: torch.isin(x, t, invert=True), I, J[0]),
    case("deg2rad", torch.deg2rad, X), case("rad2deg", torch.rad2deg, X), case("hypot", torch.hypot, X, Y), case("hypot_large", torch.hypot, X * 1e30, Y * 1e30),
    case("logaddexp", torch.logaddexp, X, Y), case("logaddexp2", torch.logaddexp2, X, Y), case("copysign", torch.copysign, X, Y), case("copysign_number", lambda x: torch.copysign(x, -1), X),
    case("heaviside", torch.heaviside, X.round(), Y), case("ldexp", torch.ldexp, X, I), case("float_power", lambda x: torch.float_power(x.abs() + 0.1, 1.5), X),
    case("sinc", torch.sinc, torch.tensor([0.0, 0.5, -1.25, 2.0])), case("erfinv", torch.erfinv, U), case("erfinv_ends", torch.erfinv, torch.tensor([1.0, -1.0, 0.0])),
    case("quantile", lambda x: torch.quantile(x, 0.3), X), case("quantile_dim", lambda x: torch.quantile(x, torch.tensor([0.1, 0.5, 1.0]), dim=1, keepdim=True), X),
    case("quantile_nearest", lambda x: torch.quantile(x, 0.4, dim=0, interpolation="nearest"), X), case("quantile_midpoint", lambda x: torch.quantile(x, 0.4, interpolation="midpoint", keepdim=True), X),
    case("quantile_nan", lambda x: torch.quantile(x, 0.4), S),
]
