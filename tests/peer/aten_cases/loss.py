import torch
from aten_cases import bools, case, floats, ints

F = torch.nn.functional
X, Y, C = floats(4, 5), floats(4, 5, seed=1), ints(4, low=0, high=4)
P, Q = floats(4, 5, low=0.01, high=0.99), floats(4, 5, low=0, high=1, seed=1)
W = floats(5, low=0.1, high=2)
IM, CIM = floats(2, 5, 3, 4), ints(2, 3, 4, low=0, high=4)
SKIP = torch.where(ints(4, low=0, high=1).bool(), C, torch.tensor(-100))
SKIP[0] = 1
ONES = bools(4, 5).float() * 2 - 1
CASES = []
for r in ["none", "mean", "sum"]:
    def c(name, f, *inputs, r=r, **more):
        CASES.append(case(f"{name}_{r}", lambda *t: f(*t, reduction=r), *inputs, **more))

    c("nll", F.nll_loss, F.log_softmax(X, 1), C)
    c("nll_weighted", lambda x, c, w, reduction: F.nll_loss(x, c, weight=w, reduction=reduction), X, C, W)
    c("nll_ignored", F.nll_loss, X, SKIP)
    c("nll_ignored_2", lambda x, c, reduction: F.nll_loss(x, c, ignore_index=2, reduction=reduction), X, C)
    c("nll_image", F.nll_loss, IM, CIM)
    c("nll_single", F.nll_loss, X[0], C[0])
    c("cross_entropy", F.cross_entropy, X, C)
    c("cross_entropy_image", F.cross_entropy, IM, CIM)
    c("cross_entropy_weighted", lambda x, c, w, reduction: F.cross_entropy(x, c, weight=w, reduction=reduction), X, SKIP, W)
    c("cross_entropy_ignored", F.cross_entropy, X, SKIP)
    c("mse", F.mse_loss, X, Y)
    c("l1", F.l1_loss, X, Y)
    c("smooth_l1", lambda x, y, reduction: F.smooth_l1_loss(x, y, beta=0.7, reduction=reduction), X, Y)
    c("huber", lambda x, y, reduction: F.huber_loss(x, y, delta=0.7, reduction=reduction), X, Y)
    c("bce", F.binary_cross_entropy, P, Q)
    c("bce_weighted", lambda x, y, w, reduction: F.binary_cross_entropy(x, y, w, reduction=reduction), P, Q, W)
    c("bce_logits", F.binary_cross_entropy_with_logits, X, Q)
    c("bce_logits_weighted", lambda x, y, w, reduction: F.binary_cross_entropy_with_logits(x, y, w, pos_weight=w, reduction=reduction), X, Q, W)
    c("kl_div", F.kl_div, X, Q)
    c("kl_div_log", lambda x, y, reduction: F.kl_div(x, y, log_target=True, reduction=reduction), X, Y)
    c("poisson", F.poisson_nll_loss, X, Q)
    c("soft_margin", F.soft_margin_loss, X, ONES)
    c("hinge", F.hinge_embedding_loss, X, ONES)
    c("ranking", lambda x, y, t, reduction: F.margin_ranking_loss(x, y, t, margin=0.5, reduction=reduction), X, Y, ONES)
    c("cosine", lambda x, y, t, reduction: F.cosine_embedding_loss(x, y, t, margin=0.2, reduction=reduction), X, Y, ONES[:, 0].contiguous())
    c("triplet", F.triplet_margin_loss, X, Y, P)
CASES += [
    case("cross_entropy_shares", lambda x, y: F.cross_entropy(x, y.softmax(1)), X, Y),
    case("cross_entropy_shares_smooth", lambda x, y: F.cross_entropy(x, y.softmax(1), label_smoothing=0.1), X, Y),
    case("cross_entropy_smooth", lambda x, c: F.cross_entropy(x, c, label_smoothing=0.1), X, C),
    case("cross_entropy_smooth_all", lambda x, c, w: F.cross_entropy(x, c, weight=w, label_smoothing=0.1), X, SKIP, W),
    case("cross_entropy_smooth_none", lambda x, c: F.cross_entropy(x, c, label_smoothing=0.1, reduction="none"), IM, CIM),
    case("triplet_swapped", lambda a, b, c: F.triplet_margin_loss(a, b, c, p=1, swap=True), X, Y, P),
    case("cross_entropy_decomposed", F.cross_entropy, X, C, decompose=True),
    case("bce_ends", lambda x, y: F.binary_cross_entropy(x, y), torch.tensor([0.0, 1.0, 1.0, 0.0]), torch.tensor([0.0, 1.0, 0.0, 1.0])),
]
LABELS = torch.tensor([[2, 0, -1, 1], [-1, 3, 3, 3], [1, 2, 3, 0]])
F_ = torch.nn.functional
CASES += [
    case("multi_margin", lambda x, t: F_.multi_margin_loss(x, t), floats(3, 4), torch.tensor([1, 0, 3])),
    case("multi_margin_square", lambda x, t, w: F_.multi_margin_loss(x, t, 2, 0.5, w, reduction="none"), floats(3, 4), torch.tensor([1, 0, 3]), floats(4, low=0)),
    case("multi_margin_one", lambda x, t: F_.multi_margin_loss(x, t, reduction="sum"), floats(4), torch.tensor(2)),
    case("multilabel_margin", lambda x, t: F_.multilabel_margin_loss(x, t, reduction="none"), floats(3, 4), LABELS),
    case("multilabel_margin_mean", lambda x, t: F_.multilabel_margin_loss(x, t), floats(3, 4), LABELS),
    case("multilabel_margin_one", lambda x, t: F_.multilabel_margin_loss(x, t), floats(4), LABELS[0]),
    case("poisson_full", lambda x, t: F_.poisson_nll_loss(x, t, full=True), floats(3, 4), floats(3, 4, low=0, high=5)),
]
