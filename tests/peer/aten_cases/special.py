import torch
from aten_cases import case, floats, ints

S = torch.special
X, POSITIVE = floats(4, 5), floats(4, 5, low=0.1, high=9)
# Where functions have poles, or change how they are computed.
EDGES = torch.tensor([0.0, 0.5, 1.0, 2.0, 3.7, 3.8, 7.9, 8.1, 20.0, -0.5, -2.5, -8.5])
CASES = [case(name, f, EDGES) for name, f in [
    ("lgamma", torch.lgamma), ("digamma", torch.digamma), ("i0", torch.i0), ("i0e", S.i0e), ("i1", S.i1), ("i1e", S.i1e),
    ("bessel_j0", S.bessel_j0), ("bessel_j1", S.bessel_j1), ("ndtr", S.ndtr), ("log_ndtr", S.log_ndtr), ("entr", S.entr),
]]
CASES += [
    case("lgamma_poles", torch.lgamma, torch.tensor([0.0, -1.0, -2.0])),
    case("digamma_poles", torch.digamma, torch.tensor([0.0, -1.0, -2.0])),
    case("lgamma_ints", torch.lgamma, ints(3, 4, low=1, high=30)),
    case("digamma_0d", torch.digamma, torch.tensor(2.5)),
    case("mvlgamma", lambda x: torch.mvlgamma(x, 3), POSITIVE + 2),
    case("erfcx", S.erfcx, X),
    case("ndtri", S.ndtri, floats(4, 5, low=0.01, high=0.99), rtol=1e-3),
    case("xlog1py", S.xlog1py, X, POSITIVE),
    case("xlog1py_zero", S.xlog1py, torch.tensor([0.0, 0.0, 2.0]), torch.tensor([-1.0, 3.0, 0.5])),
    case("xlog1py_number", lambda x: S.xlog1py(2, x), POSITIVE),
    case("xlog1py_by_number", lambda x: S.xlog1py(x, 2), X),
    case("xlogy_number", lambda x: torch.xlogy(2, x), POSITIVE),
    case("xlogy_by_number", lambda x: torch.xlogy(x, 2.5), X),
    case("special_xlogy", S.xlogy, X, POSITIVE),
    case("aliases", lambda x: (S.expm1(x), S.exp2(x), S.erfc(x), S.round(x), S.round(x, decimals=1)), X),
    case("aliases_positive", lambda x: (S.log1p(x), S.logit(x / 10), S.gammaln(x), S.psi(x)), POSITIVE),
    case("half", lambda x: torch.i0(x), X.half(), rtol=1e-2, atol=1e-2),
]
for name in ["chebyshev_polynomial_t", "chebyshev_polynomial_u", "hermite_polynomial_h", "hermite_polynomial_he",
             "legendre_polynomial_p", "laguerre_polynomial_l"]:
    f = getattr(S, name)
    CASES += [case(f"{name}_{n}", lambda x, f=f, n=n: f(x, n), floats(3, 4, low=-1, high=1)) for n in (0, 1, 4)]
