import torch
from aten_cases import bools, case, floats, ints

I, J, B = ints(3, 4, low=-70000, high=70000), ints(3, 4, low=-70000, high=70000, seed=3), bools(3, 4)
U, V = ints(3, 4, low=0, high=255).to(torch.uint8), ints(3, 4, low=0, high=255, seed=2).to(torch.uint8)
S = ints(3, 4, low=0, high=7, seed=4)
CASES = []
for f in "bitwise_and bitwise_or bitwise_xor".split():
    g = getattr(torch, f)
    CASES += [case(f, g, I, J), case(f"{f}_number", lambda x, g=g: g(x, 12), I), case(f"{f}_bytes", g, U, V), case(f"{f}_bool", g, B, ~B),
              case(f"{f}_mixed", g, U, I), case(f"{f}_broadcast", g, I, J[:1])]
CASES += [
    case("not", torch.bitwise_not, I), case("not_bytes", torch.bitwise_not, U), case("not_bool", torch.bitwise_not, B),
    case("operators", lambda x, y: ((x & y) | 3) ^ ~y, I, J),
    case("left_shift", lambda x, s: x << s, I, S), case("left_shift_number", lambda x: x << 3, I), case("left_shift_bytes", lambda x: x << 3, U),
    case("right_shift", lambda x, s: x >> s, I, S), case("right_shift_number", lambda x: torch.bitwise_right_shift(x, 2), I),
    case("gcd", torch.gcd, I, J), case("lcm", torch.lcm, S + 1, S.flip(0) + 2),
]
