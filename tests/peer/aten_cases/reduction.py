import torch
from aten_cases import bools, case, floats, ints

X, I, B = floats(3, 4, 5), ints(3, 4, 5), bools(3, 4, 5)
S0, N = torch.tensor(2.5), torch.tensor([[1.0, float("nan"), 3.0, 2.0], [4.0, 1.0, 7.0, 2.0]])
T = torch.tensor([[1, 3, 3, 0], [2, 2, 1, 2]])
CASES = []
for f in "sum mean prod amax amin var std".split():
    g = getattr(torch, f)
    CASES.append(case(f"{f}_dim", lambda x, g=g: g(x, dim=1), X))
    CASES.append(case(f"{f}_keep", lambda x, g=g: g(x, dim=-1, keepdim=True), X))
    if f != "prod":
        CASES.append(case(f"{f}_dims", lambda x, g=g: g(x, dim=(0, -1)), X))
    CASES.append(case(f"{f}_half", lambda x, g=g: g(x, dim=1), X.half() / 4, rtol=5e-3, atol=5e-3))
for f in "sum mean prod max min var std any all median argmax argmin aminmax count_nonzero".split():
    CASES.append(case(f"{f}_all", getattr(torch, f), X))
for f in "sum prod max min any all median argmax argmin count_nonzero amax".split():
    CASES.append(case(f"{f}_int", getattr(torch, f), I.clamp(-2, 2)))
for f in "sum max min any all argmax count_nonzero".split():
    CASES.append(case(f"{f}_bool", getattr(torch, f), B.int() if f == "argmax" else B))
for f in "sum mean prod max min any all argmax argmin amax aminmax count_nonzero".split():
    CASES.append(case(f"{f}_scalar", getattr(torch, f), S0))
for f in "max min median".split():
    g = getattr(torch, f)
    CASES += [case(f"{f}_dim", lambda x, g=g: g(x, 1), X), case(f"{f}_dim_keep", lambda x, g=g: g(x, -1, True), X),
              case(f"{f}_dim_scalar", lambda x, g=g: g(x, 0), S0)]
for f in "any all".split():
    g = getattr(torch, f)
    CASES += [case(f"{f}_dim", lambda x, g=g: g(x, 1), B), case(f"{f}_dims", lambda x, g=g: g(x, (0, 2), keepdim=True), B),
              case(f"{f}_float", lambda x, g=g: g(x, 1), N), case(f"{f}_bytes", lambda x, g=g: g(x, 1), B.to(torch.uint8))]
CASES += [
    case("sum_dtype", lambda x: x.sum(dtype=torch.float32), I),
    case("sum_bool_dim", lambda x: x.sum(1), B),
    case("sum_scalar_dim", lambda x: x.sum(0), S0),
    case("mean_dtype", lambda x: x.mean(dtype=torch.float32), I),
    case("max_ties", lambda x: torch.max(x, 1), T),
    case("min_ties", lambda x: torch.min(x, 1), T),
    case("argmax_dim", lambda x: x.argmax(1), X),
    case("argmax_keep", lambda x: x.argmax(1, keepdim=True), X),
    case("argmin_ties", lambda x: x.argmin(1), T),
    case("argmax_all_keep", lambda x: torch.argmax(x, keepdim=True), X),
    case("amax_nan", lambda x: torch.amax(x, 1), N),
    case("aminmax_dim", lambda x: torch.aminmax(x, dim=1, keepdim=True), X),
    case("var_biased", lambda x: torch.var(x, 1, unbiased=False), X),
    case("var_all_biased", lambda x: torch.var(x, False), X),
    case("var_correction", lambda x: torch.var(x, dim=(0, 1), correction=2, keepdim=True), X),
    case("std_correction", lambda x: torch.std(x, dim=1, correction=0), X),
    case("var_mean", lambda x: torch.var_mean(x, dim=1), X),
    case("std_mean", lambda x: torch.std_mean(x, dim=(1, 2), keepdim=True), X),
    case("var_of_one", lambda x: torch.var(x[:1], dim=0), X),
    case("logsumexp", lambda x: torch.logsumexp(x, 1), X),
    case("logsumexp_large", lambda x: torch.logsumexp(x * 100, (0, 1), keepdim=True), X),
    case("count_nonzero_dim", lambda x: torch.count_nonzero(x, 1), I.clamp(0, 2)),
    case("count_nonzero_dims", lambda x: torch.count_nonzero(x, (0, 2)), I.clamp(0, 2)),
    case("nansum", lambda x: torch.nansum(x), N),
    case("nansum_dim", lambda x: torch.nansum(x, 1, keepdim=True), N),
    case("nanmean", lambda x: torch.nanmean(x, 1), N),
    case("median_nan", lambda x: torch.median(x, 1), N),
    case("nanmedian", lambda x: torch.nanmedian(x), N),
    case("nanmedian_dim", lambda x: torch.nanmedian(x, 1)[0], N),
    case("trace", torch.trace, floats(3, 5)),
    case("var_dynamic", lambda x: torch.var_mean(x, dim=0), floats(4, 3), dynamic=(({0: torch.export.Dim("n", min=2, max=64)},),), run=(floats(7, 3),)),
    case("mean_dynamic", lambda x: x.mean(0), floats(4, 3), dynamic=(({0: torch.export.Dim("n", min=2, max=64)},),), run=(floats(9, 3),)),
]
