import torch
from aten_cases import bools, case, floats, ints

X, I, B = floats(3, 4, low=-5, high=5), ints(3, 4, low=-300, high=300), bools(3, 4)
CASES = [
    case("to_int", lambda x: x.int(), X), case("to_long", lambda x: x.long(), X), case("to_bool", lambda x: x.bool(), X.round()),
    case("to_float", lambda x: x.float(), I), case("to_half", lambda x: x.half(), X, rtol=1e-3, atol=1e-3), case("bool_to_float", lambda x: x.float(), B),
    case("bool_to_long", lambda x: x.long(), B), case("int_to_bool", lambda x: x.bool(), I), case("to_double", lambda x: x.double(), X),
    case("to_bytes", lambda x: x.to(torch.uint8), I), case("to_int8", lambda x: x.to(torch.int8), I), case("to_int16", lambda x: x.to(torch.int16), I * 300),
    case("float_to_bytes", lambda x: x.to(torch.uint8), X.abs() * 20), case("bool_to_bytes", lambda x: x.to(torch.uint8), B),
    case("to_other", lambda x, y: x.to(y), I, X), case("type_as", lambda x, y: x.type_as(y), X, I),
    case("to_device", lambda x: x.to("cpu") + 1, X), case("to_same", lambda x: x.to(torch.float32) + 1, X),
    case("to_bfloat", lambda x: x.bfloat16().float(), torch.tensor([1.0, 2.5, -0.5])),
    case("view_dtype", lambda x: x.view(torch.int32), X, refused="same bits"),
    case("decomposed", lambda x: x.to(torch.float16).to(torch.int32), X, decompose=True),
]
