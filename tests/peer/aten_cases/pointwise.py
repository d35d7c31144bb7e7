import torch
from aten_cases import bools, case, floats, ints

X, Y, I, J, B = floats(3, 4), floats(3, 4, seed=1), ints(3, 4), ints(3, 4, low=1, seed=1), bools(3, 4)
U = floats(3, 4, low=-0.9, high=0.9)
P = floats(3, 4, low=0.1, high=5.0)
S = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 1e-8, -1e-8, 2.5])

UNARY = "abs ceil cos cosh erf erfc exp exp2 expm1 floor frac isfinite isinf isnan neg round sgn sign signbit sin sinh square tan tanh trunc logical_not".split()
CASES = [case(f, getattr(torch, f), X) for f in UNARY]
CASES += [case(f"{f}_special", getattr(torch, f), S) for f in "abs ceil isfinite isinf isnan sign square trunc relu nan_to_num".split()]
CASES += [case(f"{f}_int", getattr(torch, f), I) for f in "abs neg sign square cos exp bitwise_not floor round".split()]
CASES += [case(f, getattr(torch, f), U) for f in "acos asin atan atanh asinh".split()]
CASES += [case(f, getattr(torch, f), P) for f in "log log2 log10 log1p sqrt rsqrt reciprocal".split()]
CASES += [case("acosh", torch.acosh, P + 1), case("log1p_small", torch.log1p, X * 1e-6), case("expm1_small", torch.expm1, X * 1e-6)]
for f in "add sub mul div maximum minimum atan2 eq ne lt le gt ge fmod remainder".split():
    g = getattr(torch, f)
    CASES += [case(f, g, X, Y), case(f"{f}_broadcast", g, X, Y[:1]), case(f"{f}_mixed", g, X, J)]
    if f != "atan2":
        CASES.append(case(f"{f}_int", g, I, J))
CASES += [case(f"{f}_bool", getattr(torch, f), B, ~B) for f in "add mul logical_and logical_or logical_xor eq ne lt bitwise_and bitwise_or bitwise_xor".split()]
CASES += [
    case("add_alpha", lambda x, y: torch.add(x, y, alpha=2.5), X, Y),
    case("sub_alpha", lambda x, y: torch.sub(x, y, alpha=3), I, J),
    case("rsub", lambda x: 2.0 - x, X),
    case("add_number", lambda x: x + 1, I),
    case("add_float_to_int", lambda x: x + 1.5, I),
    case("scalar_tensor_keeps_type", lambda x, y: x * y, X.half(), torch.tensor(2.0)),
    case("floor_divide", lambda x, y: x // y, I, J),
    case("floor_divide_float", lambda x, y: x // y, X, P),
    case("div_trunc", lambda x, y: torch.div(x, y, rounding_mode="trunc"), X, P),
    case("div_floor", lambda x, y: torch.div(x, y, rounding_mode="floor"), I, J),
    case("pow_number", lambda x: x**3, X),
    case("pow_half", lambda x: x**0.5, P),
    case("pow_tensor", torch.pow, P, Y),
    case("number_pow", lambda x: 2.0**x, X),
    case("clamp", lambda x: x.clamp(-1, 1), X),
    case("clamp_low", lambda x: x.clamp(min=0.5), X),
    case("clamp_int", lambda x: x.clamp(-2, 3), I),
    case("clamp_int_float", lambda x: x.clamp(-2.5, 3), I),
    case("clamp_tensor", lambda x, y: x.clamp(max=y), X, Y),
    case("hardtanh", torch.nn.functional.hardtanh, X),
    case("where", torch.where, B, X, Y),
    case("where_number", lambda b, x: torch.where(b, x, 0.0), B, X),
    case("where_mixed", torch.where, B, X, I),
    case("masked_fill", lambda x, b: x.masked_fill(b, -1e4), X, B),
    case("lerp", lambda x, y: torch.lerp(x, y, 0.25), X, Y),
    case("addcmul", lambda x, y: torch.addcmul(x, x, y, value=0.5), X, Y),
    case("addcdiv", lambda x, y: torch.addcdiv(x, x, y, value=0.5), X, P),
    case("nan_to_num_values", lambda x: torch.nan_to_num(x, 1.0, 2.0, -3.0), S),
    case("round_decimals", lambda x: torch.round(x, decimals=2), X),
    case("xlogy", torch.xlogy, X.clamp(min=0), P),
    case("logit", lambda x: torch.logit(x, eps=1e-3), U.abs()),
    case("in_place", lambda x, y: x.clone().add_(y).mul_(2).relu_(), X, Y),
    case("in_place_view", lambda x, y: (lambda z: (z[0].add_(1), z[:, 1:3].mul_(2), z)[-1])(x.clone()), X, Y),
    case("in_place_through_transpose", lambda x: (lambda z: (z.t()[1].fill_(7), z)[-1])(x.clone()), X),
]
NO = torch.tensor([[True, False], [False, False]])
CASES += [
    case("of_bools", lambda x: (x.sign(), x.sgn(), x.square(), x.signbit()), NO),
    case("heaviside_bools", torch.heaviside, NO, ~NO),
    case("outer_bools", torch.outer, NO[0], NO[1].logical_not()),
    case("pow_in_place", lambda x: x.abs().pow_(x.abs()), floats(3, 4)),
    case("transpose_in_place", lambda x: (x + 1).transpose_(0, 1) * 2, floats(3, 4)),
]
