import torch
from aten_cases import case, floats

N = torch.nn
X = floats(5, 2, 3)


class Flat(torch.nn.Module):
    """A layer whose states are results too."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, *args):
        if len(args) == 3:
            args = (args[0], (args[1], args[2]))
        return self.layer(*args)


CASES = []
for kind in ["LSTM", "GRU", "RNN"]:
    def layer(*args, kind=kind, **more):
        torch.manual_seed(3)
        return Flat(getattr(N, kind)(*args, **more))

    low, states = kind.lower(), 2 if kind == "LSTM" else 1
    CASES += [
        case(f"{low}", layer(3, 4), X),
        case(f"{low}_ios15", layer(3, 4), X, target="ios15"),
        case(f"{low}_half", layer(3, 4).half(), X.half(), rtol=1e-2, atol=1e-2),
        case(f"{low}_stacked", layer(3, 4, num_layers=3, dropout=0.5), X),
        case(f"{low}_both", layer(3, 4, bidirectional=True), X),
        case(f"{low}_both_stacked", layer(3, 4, num_layers=2, bidirectional=True, batch_first=True), X),
        case(f"{low}_without_bias", layer(3, 4, bias=False, batch_first=True), X),
        case(f"{low}_states", layer(3, 4, num_layers=2), X, *[floats(2, 2, 4, seed=i) for i in range(states)]),
        case(f"{low}_single", layer(3, 4), X[:, 0]),
        case(f"{low}_cell", Flat(getattr(N, kind + "Cell")(3, 4)), X[0], *[floats(2, 4, seed=i) for i in range(states)]),
        case(f"{low}_cell_alone", Flat(getattr(N, kind + "Cell")(3, 4, bias=False)), X[0]),
    ]
CASES += [
    case("rnn_relu", Flat(N.RNN(3, 4, nonlinearity="relu", bidirectional=True)), X),
    case("rnn_relu_cell", Flat(N.RNNCell(3, 4, nonlinearity="relu")), X[0]),
    case("lstm_projected", Flat(N.LSTM(3, 4, proj_size=2)), X),
    case("lstm_projected_both", Flat(N.LSTM(3, 4, num_layers=2, bidirectional=True, proj_size=2, batch_first=True)), X),
    case("lstm_projected_states", Flat(N.LSTM(3, 4, proj_size=2)), X, floats(1, 2, 2), floats(1, 2, 4)),
]


class Packed(torch.nn.Module):
    """A layer on sequences of these lengths."""

    def __init__(self, layer, lengths, **more):
        super().__init__()
        self.layer, self.lengths, self.more = layer, lengths, more

    def forward(self, x):
        first = self.layer.batch_first
        packed = torch.nn.utils.rnn.pack_padded_sequence(x, self.lengths, batch_first=first, enforce_sorted=self.lengths == sorted(self.lengths, reverse=True))
        y, state = self.layer(packed)
        y, lengths = torch.nn.utils.rnn.pad_packed_sequence(y, batch_first=first, **self.more)
        return y, state, lengths


Y = floats(3, 5, 3)
CASES += [
    case("packed_lstm", Packed(N.LSTM(3, 4, batch_first=True), [5, 3, 1]), Y, formats="pt"),
    case("packed_lstm_both", Packed(N.LSTM(3, 4, 2, batch_first=True, bidirectional=True), [5, 3, 1]), Y, formats="pt"),
    case("packed_gru_in_any_order", Packed(N.GRU(3, 4, batch_first=True), [2, 5, 4]), Y, formats="pt"),
    case("packed_rnn_time_first", Packed(N.RNN(3, 4), [4, 4, 2, 1, 1]), Y, formats="pt"),
    case("packed_alike", Packed(N.GRU(3, 4, batch_first=True), [4, 4, 4]), Y, formats="pt"),
    case("packed_padding", Packed(N.LSTM(3, 4, batch_first=True), [4, 3, 1], padding_value=-1.0, total_length=7), Y, formats="pt"),
]
