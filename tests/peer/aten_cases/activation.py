import torch
from aten_cases import case, floats, ints

N, F = torch.nn, torch.nn.functional
X, I = floats(3, 4, 5), ints(3, 4)
S = torch.tensor([float("inf"), -float("inf"), 0.0, -0.0, 1e-8, -30.0, 30.0, 100.0, -100.0, 20.5])
INF = float("inf")
PLAIN = "relu relu6 gelu silu mish selu elu celu leaky_relu rrelu hardswish hardsigmoid hardshrink softshrink softplus softsign logsigmoid tanhshrink sigmoid glu".split()
CASES = [case(f, lambda x, f=f: getattr(F, f)(x), X if f != "glu" else X[..., :4]) for f in PLAIN]
CASES += [case(f"{f}_far", lambda x, f=f: getattr(F, f)(x), S) for f in "relu relu6 hardsigmoid hardshrink softplus logsigmoid sigmoid elu leaky_relu".split()]
CASES += [case(f"{f}_half", lambda x, f=f: getattr(F, f)(x), X.half(), rtol=5e-3, atol=5e-3) for f in "relu gelu silu softplus hardswish elu selu mish".split()]
CASES += [
    case("relu_int", torch.relu, I), case("relu6_int", F.relu6, I), case("sigmoid_int", torch.sigmoid, I),
    case("gelu_tanh", lambda x: F.gelu(x, approximate="tanh"), X),
    case("elu_alpha", lambda x: F.elu(x, alpha=0.3), X),
    case("elu_all", lambda x: torch.ops.aten.elu(x, 0.3, 2.0, 0.5), X),
    case("celu_alpha", lambda x: F.celu(x, alpha=0.3), X),
    case("celu_negative", lambda x: F.celu(x, alpha=-0.7), X),
    case("leaky_relu_slope", lambda x: F.leaky_relu(x, 0.3), X),
    case("rrelu_training", lambda x: F.rrelu(x, training=True), X, refused="at random"),
    case("prelu", N.PReLU(4, 0.3), X),
    case("prelu_image", N.PReLU(4, 0.3), floats(2, 4, 3, 3)),
    case("prelu_one", N.PReLU(), X),
    case("prelu_flat", N.PReLU(5), X[0]),
    case("prelu_decomposed", N.PReLU(4, 0.3), X, decompose=True),
    case("prelu_computed", F.prelu, X, floats(4)),
    case("hardshrink_nan", lambda x: F.hardshrink(x, 1.0), torch.tensor([float("nan"), 1.0, -1.0, 2.0])),
    case("softshrink_wide", lambda x: F.softshrink(x, 1.5), X),
    case("softplus_beta", lambda x: F.softplus(x, beta=3.0), X),
    case("softplus_threshold", lambda x: F.softplus(x, beta=2.0, threshold=1.0), X),
    case("threshold", lambda x: F.threshold(x, 0.5, -7.0), X),
    case("threshold_int", lambda x: F.threshold(x, 1, -7), I),
    case("glu_dim", lambda x: F.glu(x, dim=1), X),
    case("logsigmoid_decomposed", F.logsigmoid, X, decompose=True),
    case("softmax", lambda x: F.softmax(x, dim=1), X),
    case("softmax_int", lambda x: F.softmax(x, dim=-1, dtype=torch.float32), I),
    case("softmax_number", lambda x: F.softmax(x, dim=0), torch.tensor(2.0)),
    case("softmax_decomposed", lambda x: F.softmax(x, dim=1), X, decompose=True),
    case("softmax_half_to_float", lambda x: F.softmax(x, dim=1, dtype=torch.float32), X.half(), rtol=1e-3, atol=1e-3),
    case("softmin", lambda x: F.softmin(x, dim=1), X),
    case("safe_softmax", lambda x: torch.ops.aten._safe_softmax(x, -1), torch.stack([X[0, 0], X[0, 1] - INF])),
    case("log_softmax", lambda x: F.log_softmax(x, dim=1), X),
    case("log_softmax_far", lambda x: F.log_softmax(x * 100, dim=-1), X),
    case("log_softmax_decomposed", lambda x: F.log_softmax(x, dim=1), X, decompose=True),
    case("dropout", N.Dropout(0.5), X), case("dropout_2d", N.Dropout2d(0.5), floats(2, 4, 3, 3)), case("alpha_dropout", N.AlphaDropout(0.5), X),
    case("feature_alpha_dropout", N.FeatureAlphaDropout(0.5), floats(2, 4, 3, 3)),
    case("dropout_decomposed", N.Dropout(0.5), X, decompose=True),
    case("dropout_in_place", lambda x: F.dropout(x + 1, 0.5, training=False, inplace=True), X),
    case("native_dropout", lambda x: torch.native_dropout(x, 0.5, False), X),
    case("dropout_training", lambda x: F.dropout(x, 0.5, training=True), X, refused="dropout while training"),
    case("dropout_of_nothing", lambda x: F.dropout(x, 0.0, training=True), X),
]
CASES += [
    case("softmax_slope", lambda g, y: torch.ops.aten._softmax_backward_data(g, y.softmax(1), 1, torch.float32), floats(3, 4), floats(3, 4, seed=1)),
    case("log_softmax_slope", lambda g, y: torch.ops.aten._log_softmax_backward_data(g, y.log_softmax(-1), -1, torch.float32), floats(3, 4), floats(3, 4, seed=1)),
]
