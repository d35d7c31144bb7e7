#!/usr/bin/env python3
"""Models of PyTorch that remember, and models of open sizes: each is exported, converted, run call by call, and compared
with what PyTorch computes.

  torch_states.py --mlconv BIN [--only TEXT] [--keep FOLDER]

A model that remembers is converted with states and with inputs and outputs in their place; a model of open sizes is run at
the least, the greatest, and sizes between. The last line is `N passed, M failed`.
"""
import argparse, collections, copy, dataclasses, os, pathlib, subprocess, sys, tempfile, typing
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.export import Dim

MAX, WIDTH, HEADS, VOCABULARY = 32, 16, 2, 23


def call(*args):
    r = subprocess.run([str(a) for a in args], capture_output=True, text=True, timeout=600)
    if r.returncode:
        raise RuntimeError(f"{args[1]}: {r.stderr.strip()[:600] or r.returncode}")
    return r


class Attention(nn.Module):
    """Attention with a cache of `MAX` positions, which is written in one of several ways."""

    def __init__(self, way, dtype=torch.float32):
        super().__init__()
        self.way = way
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        shape = (1, HEADS, MAX, WIDTH // HEADS)
        self.register_buffer("k_cache", torch.zeros(shape, dtype=dtype), persistent=False)
        self.register_buffer("v_cache", torch.zeros(shape, dtype=dtype), persistent=False)

    def write(self, cache, new, at):
        new = new.to(cache.dtype)
        if self.way == "slice":
            start = at[0].item()
            torch._check(start >= 0)
            torch._check(start + new.shape[2] <= MAX)
            cache[:, :, start:start + new.shape[2]] = new
        elif self.way == "index_copy":
            cache.index_copy_(2, at, new)
        elif self.way == "index_put":
            cache[:, :, at] = new
        elif self.way == "scatter":
            cache.scatter_(2, at.view(1, 1, -1, 1).expand(1, HEADS, at.shape[0], WIDTH // HEADS), new)
        elif self.way == "copy":
            cache.copy_(cache.index_copy(2, at, new))
        return cache

    def forward(self, x, at):
        n = x.shape[1]
        q, k, v = self.qkv(x).view(1, n, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4).unbind(0)
        if self.way == "where":
            places = torch.arange(MAX)
            mine = (places[:, None] == at[None, :]).to(k.dtype)
            keep = mine.sum(1).view(1, 1, MAX, 1) > 0
            # What is assigned to a buffer `torch.export` leaves out of the program.
            self.k_cache.copy_(torch.where(keep, torch.einsum("mn,bhnd->bhmd", mine, k), self.k_cache))
            self.v_cache.copy_(torch.where(keep, torch.einsum("mn,bhnd->bhmd", mine, v), self.v_cache))
            k, v = self.k_cache, self.v_cache
        else:
            k, v = self.write(self.k_cache, k, at), self.write(self.v_cache, v, at)
        mask = torch.arange(MAX)[None, :] <= at[:, None]
        y = F.scaled_dot_product_attention(q, k.to(q.dtype), v.to(q.dtype), attn_mask=mask)
        return self.out(y.transpose(1, 2).reshape(1, n, WIDTH))


class Decoder(nn.Module):
    def __init__(self, way, dtype=torch.float32):
        super().__init__()
        self.embed, self.head = nn.Embedding(VOCABULARY, WIDTH), nn.Linear(WIDTH, VOCABULARY)
        self.layers = nn.ModuleList(Attention(way, dtype) for _ in range(2))

    def forward(self, tokens, input_pos):
        x = self.embed(tokens)
        for layer in self.layers:
            x = x + layer(F.layer_norm(x, (WIDTH,)), input_pos)
        return self.head(x)


class Given(nn.Module):
    """The cache is given and returned."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(VOCABULARY, WIDTH), nn.Linear(WIDTH, VOCABULARY)

    def forward(self, tokens, input_pos, cache):
        x = self.embed(tokens)
        now = cache.index_copy(1, input_pos, x)
        mask = torch.arange(MAX)[None, :] <= input_pos[:, None]
        y = F.scaled_dot_product_attention(x, now, now, attn_mask=mask[None])
        return {"logits": self.head(y), "present": now}


class Written(Given):
    """The cache is given, and written where it lies."""

    def forward(self, tokens, input_pos, cache):
        out = super().forward(tokens, input_pos, cache)
        cache.copy_(out["present"])
        return {"logits": out["logits"]}


def tokens(n, seed=1):
    return torch.randint(0, VOCABULARY, (1, n), generator=torch.Generator().manual_seed(seed))


def splits(total=20):
    """Prompts of every length, each with steps of one token behind it."""
    for prompt in (1, 2, 7, total - 16, total):
        yield [(0, prompt)] + [(i, i + 1) for i in range(prompt, total)][:16]


def decoding(*extra):
    text = tokens(20)
    return [[(text[:, a:b], torch.arange(a, b), *extra) for a, b in split] for split in splits()]


@dataclasses.dataclass
class Case:
    name: str
    model: nn.Module
    runs: list  # of lists of calls, each a tuple of inputs
    dynamic: object = None
    formats: tuple = ("train", "aten")
    states: tuple = ()  # of `--state`
    pairs: dict = dataclasses.field(default_factory=dict)  # inputs that outputs become, if they are no buffers
    shapes: tuple = ()  # of `--input`
    tolerance: float = 1e-4
    half: float = 2e-3  # of states, which hold half precision
    modes: tuple = ("state", "pair")
    outputs: tuple = ()  # names that must be there
    inputs: tuple = ()
    script: object = None  # what is scripted, where that is another model


def sequence():
    return {"tokens": {1: Dim("n", min=1, max=MAX - 8)}, "input_pos": {0: Dim("n", min=1, max=MAX - 8)}}


def cases():
    for way in ("slice", "index_copy", "index_put", "scatter", "copy", "where"):
        yield Case(f"cache-{way}", Decoder(way), decoding(), sequence())
    for way in ("slice", "index_copy"):
        yield Case(f"cache-half-{way}", Decoder(way, torch.float16), decoding(), sequence(), tolerance=2e-3)
    cache = torch.zeros(1, MAX, WIDTH)
    three = {**sequence(), "cache": None}
    yield Case("cache-given", Given(), decoding(cache), three, states=(("cache", "present"),), pairs={"cache": "present"},
               outputs=("logits",))
    yield Case("cache-written", Written(), decoding(cache), three, states=(("cache", "cache_out"),), pairs={"cache": "cache_out"},
               outputs=("logits",))
    yield from scripted()
    yield from open_sizes()


class Recurrent(nn.Module):
    """The first call makes what later ones find."""

    hidden: torch.Tensor

    def __init__(self):
        super().__init__()
        self.cell = nn.GRUCell(4, 6)
        self.hidden = torch.zeros(0)

    def forward(self, x):
        if self.hidden.numel() == 0:
            self.hidden = torch.zeros(x.size(0), 6)
        self.hidden = self.cell(x, self.hidden)
        return self.hidden * 2


class Nothing(nn.Module):
    """What is nothing before the first call."""

    h: typing.Optional[torch.Tensor]
    c: typing.Optional[torch.Tensor]

    def __init__(self):
        super().__init__()
        self.cell = nn.LSTMCell(4, 6)
        self.h = None
        self.c = None

    def forward(self, x):
        h, c = self.h, self.c
        if h is None or c is None:
            h, c = torch.zeros(x.size(0), 6), torch.zeros(x.size(0), 6)
        h, c = self.cell(x, (h, c))
        self.h, self.c = h, c
        return h + c


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("window", torch.zeros(1, 8))
        self.register_buffer("total", torch.zeros(4))

    def forward(self, x):
        self.window[:, :4] = self.window[:, 4:].clone()
        self.window[:, 4:] = x
        self.total += x[0]
        self.total.mul_(0.5)
        return self.window.sum() + self.total


class Counter(nn.Module):
    """A number of Python, and a tuple."""

    def __init__(self):
        super().__init__()
        self.step = 0
        self.pair = (torch.zeros(1, 4), torch.zeros(1, 4))

    def forward(self, x):
        a, b = self.pair
        self.pair = (b + x, a * 0.5)
        self.step = self.step + 1
        return a + b + x + float(self.step)


class Cached(nn.Module):
    """What the first call makes is the same in every later one, so nothing is remembered."""

    angles: typing.Optional[torch.Tensor]

    def __init__(self):
        super().__init__()
        self.angles = None

    def forward(self, x):
        a = self.angles
        if a is None:
            a = torch.arange(x.size(1)).to(x.dtype).cos()
            self.angles = a
        return x * a



class Gate(nn.Module):
    """Memory is written on a condition that the input decides."""

    def __init__(self):
        super().__init__()
        self.register_buffer("last", torch.zeros(1, 4))
        self.register_buffer("sum", torch.zeros(1, 4))

    def forward(self, x):
        if bool(x.sum() > 0):
            self.last = x
            self.sum.add_(x)
        return self.last + self.sum * 2


def scripted():
    g = torch.Generator().manual_seed(3)
    steps = lambda *shape: [[(torch.randn(*shape, generator=g),) for _ in range(5)]]
    for model, shape, names in [
        (Recurrent(), (2, 4), ("hidden",)), (Nothing(), (2, 4), ("c", "h")), (InPlace(), (1, 4), ("total", "window")),
        (Counter(), (1, 4), ("pair_0", "pair_1")), (Cached(), (1, 4), ()), (Gate(), (1, 4), ("last", "sum")),
    ]:
        modes = ("state", "pair") if names else ("pair",)
        yield Case(f"script-{type(model).__name__}", model, steps(*shape), formats=("script",), modes=modes, inputs=names,
                   shapes=("x=" + "x".join(map(str, shape)),))
    yield Case("buffers", InPlace(), steps(1, 4), inputs=("total", "window"))


class Convolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, stride=2), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 5)

    def forward(self, image):
        x = F.max_pool2d(F.relu(self.norm(self.a(image))), 2)
        return self.head(F.relu(self.b(x)).mean((2, 3)))


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.place = nn.Parameter(torch.randn(64, WIDTH) * 0.1)
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(WIDTH, HEADS, 32, 0.0, batch_first=True) for _ in range(2))

    def forward(self, input_ids, attention_mask):
        x = self.embed(input_ids) + self.place[: input_ids.shape[1]]
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=attention_mask == 0)
        mask = attention_mask.unsqueeze(-1).to(x.dtype)
        return {"last_hidden_state": x, "pooled": (x * mask).sum(1) / mask.sum(1).clamp(min=1)}


class Derived(nn.Module):
    """Sizes that follow from others: halves, doubles, sums."""

    def forward(self, x, y):
        b, n = x.shape[0], x.shape[1]
        halves = x.reshape(b, n // 2, 2, -1).mean(2)
        joined = torch.cat([halves, y], 1)
        doubled = joined.repeat_interleave(2, 1)
        return halves, doubled[:, : n + 1], torch.zeros(b, n + 3) + torch.arange(n + 3)


class Automatic(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(2, 4, 5, stride=2, padding=2)

    def forward(self, x):
        y = self.conv(x)
        return F.interpolate(y, scale_factor=2.0), y.flatten(1).softmax(-1), F.pad(x, (1, 2)).unfold(2, 3, 2)


def open_sizes():
    g = torch.Generator().manual_seed(4)
    r = lambda *shape: torch.randn(*shape, generator=g)
    batch = Dim("batch", min=1, max=9)
    yield Case("open-convolution", Convolution(), [[(r(n, 3, 20, 20),)] for n in (2, 1, 3, 9)], {"image": {0: batch}}, modes=("pair",))
    side = Dim("side", min=4, max=12)
    yield Case("open-image", Convolution(), [[(r(2, 3, 4 * n, 4 * n),)] for n in (5, 4, 9, 12)],
               {"image": {2: 4 * side, 3: 4 * side}}, modes=("pair",))

    def text(b, n):
        mask = torch.ones(b, n, dtype=torch.int64)
        mask[:, max(1, n - 2):] = 0
        return torch.randint(0, VOCABULARY, (b, n), generator=g), mask

    size = {0: Dim("batch", min=1, max=5), 1: Dim("sequence", min=1, max=64)}
    yield Case("open-encoder", Encoder(), [[text(*s)] for s in ((2, 7), (1, 1), (5, 64), (3, 33))],
               {"input_ids": size, "attention_mask": size}, modes=("pair",), outputs=("last_hidden_state", "pooled"))
    pairs = Dim("pairs", min=1, max=16)
    yield Case("open-derived", Derived(), [[(r(b, 2 * n, 3), r(b, n, 3))] for b, n in ((2, 5), (1, 1), (4, 16), (3, 8))],
               {"x": {0: Dim("b", max=4), 1: 2 * pairs}, "y": {0: Dim("b", max=4), 1: pairs}}, modes=("pair",))
    yield Case("open-automatic", Automatic(), [[(r(b, 2, n),)] for b, n in ((2, 16), (2, 8), (5, 31), (3, 64))],
               {"x": {0: Dim.AUTO, 2: Dim.DYNAMIC}}, modes=("pair",))
    # Sizes that are asked for, of a file that leaves them open, and of one that says nothing.
    for name, shape, sizes in [("range", "x=[2..5]x2x[8..64]", ((2, 8), (5, 64), (2, 31))), ("choices", "x={2,4}x2x{16,32}", ((2, 16), (4, 32)))]:
        yield Case(f"asked-{name}", Automatic(), [[(r(b, 2, n),)] for b, n in ((2, 16), *sizes)][1:], {"x": {0: Dim.AUTO, 2: Dim.DYNAMIC}},
                   modes=("pair",), shapes=(shape,), formats=("train", "script"))


def flat(result):
    if isinstance(result, torch.Tensor):
        return [result]
    if isinstance(result, dict):
        return [t for v in result.values() for t in flat(v)]
    return [t for v in result for t in flat(v)]


def saved(case, form, path):
    model = copy.deepcopy(case.model).eval()
    # An example of more than one element along each open size.
    example = max(case.runs[0] if len(case.runs) == 1 else [c for run in case.runs for c in run], key=lambda c: c[0].numel() % 997)
    example = tuple(t.clone() for t in example)
    if form == "script":
        torch.jit.save(torch.jit.script(model), path)
        return
    program = torch.export.export(model, example, dynamic_shapes=case.dynamic)
    if form == "aten":
        program = program.run_decompositions()
    torch.export.save(program, path)


def names_of(case):
    import inspect
    return [p for p in inspect.signature(case.model.forward).parameters]


def run(args, case, form, mode, folder):
    path = folder / f"{case.name}-{form}.{'pt' if form == 'script' else 'pt2'}"
    if not path.exists():
        with torch.no_grad():
            saved(case, form, path)
    package = folder / f"{case.name}-{form}-{mode}.mlpackage"
    options = [o for shape in case.shapes for o in ("--input", shape)]
    options += [o for pair in (case.states if mode == "state" else ()) for o in ("--state", "=".join(pair))]
    options += ["--no-state"] if mode == "pair" else []
    call(args.mlconv, "convert", path, "-o", package, "--precision", "fp32", "--target", "ios18", "--quiet", "--force", *options)
    names, worst = names_of(case), 0.0
    with torch.no_grad():
        for calls in case.runs:
            model, memory, held = copy.deepcopy(case.model).eval(), {}, {}
            if form == "script":
                model = torch.jit.load(path).eval()
            for i, inputs in enumerate(calls):
                given = {n: held.get(n, t) for n, t in zip(names, inputs)}
                want = model(*[given[n].clone() if n in case.pairs else given[n] for n in names])
                if case.name == "cache-written":
                    now = given["cache"].clone()
                    want = model(given["tokens"], given["input_pos"], now)
                    held["cache"] = now
                if isinstance(want, dict) and "present" in want:
                    held["cache"] = want.pop("present")
                feed = {n: t.numpy() for n, t in given.items() if not (mode == "state" and n in case.pairs)}
                feed = {n: a.astype(np.int32) if a.dtype == np.int64 else a for n, a in feed.items()}
                feed.update({n: a for n, a in memory.items()})
                sample, out, state = (folder / f for f in ("in.npz", "out.npz", "state.npz"))
                if i == 0:
                    feed.update(first(args, package, feed))
                np.savez(sample, **feed)
                options = ["--state-out", state, *(["--state-in", state] if i else [])] if mode == "state" else []
                call(args.mlconv, "run", package, "--inputs", sample, "--outputs", out, "--quiet", *options)
                with np.load(out) as z:
                    got = collections.OrderedDict((k, z[k]) for k in z.files)
                missing = [n for n in case.outputs if n not in got]
                if missing:
                    return f"no output {missing} among {list(got)}"
                memory = {k[:-4]: v for k, v in got.items() if k.endswith("_out")}
                if mode == "pair":
                    memory.update({i: got[o] for i, o in case.pairs.items()})
                own = [v for k, v in got.items() if not k.endswith("_out") and k not in case.pairs.values()]
                want = [t.to(torch.float32).numpy() if t.is_floating_point() else t.numpy() for t in flat(want)]
                if len(own) != len(want):
                    return f"{len(own)} outputs {list(got)}, wanted {len(want)}"
                for w, o in zip(want, own):
                    if w.shape != o.shape and not (w.shape == () and o.shape == (1,)):
                        return f"shape {o.shape}, wanted {w.shape}"
                    worst = max(worst, float(np.max(np.abs(w - o.reshape(w.shape)), initial=0) / max(1e-6, np.max(np.abs(w), initial=0))))
    limit = case.half if mode == "state" and (case.inputs or case.states or "cache" in case.name) else case.tolerance
    return None if worst <= limit else f"{worst:.3g} apart, of {limit:.0e}"


def first(args, package, feed):
    """What inputs that stand for memory are at first: zeros of the shapes that the package says."""
    import json
    interface = json.loads(call(args.mlconv, "inspect", package, "--format", "json").stdout)
    out = {}
    for port in interface["functions"][0]["ports"]:
        if port["kind"] == "input" and port["name"] not in feed:
            dtype, dims = port["type"].rstrip("]").split("[")
            dtype = {"f32": np.float32, "f16": np.float16, "i32": np.int32}[dtype]
            out[port["name"]] = np.zeros([int(d) for d in dims.split(",") if d], dtype)
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--mlconv", required=True)
    p.add_argument("--only", default="")
    p.add_argument("--keep")
    args = p.parse_args()
    torch.manual_seed(0)
    passed = failed = 0
    with tempfile.TemporaryDirectory() as tmp:
        folder = pathlib.Path(args.keep or tmp)
        os.makedirs(folder, exist_ok=True)
        for case in cases():
            for form in case.formats:
                for mode in case.modes:
                    name = f"{case.name} ({form}, {mode})"
                    if args.only not in name:
                        continue
                    try:
                        why = run(args, case, form, mode, folder)
                    except Exception as e:
                        why = f"{type(e).__name__}: {e}"
                    passed, failed = passed + (why is None), failed + (why is not None)
                    if why:
                        print(f"{name}: {why}", flush=True)
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
