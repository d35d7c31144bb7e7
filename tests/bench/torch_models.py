"""Models of known sizes in PyTorch, with random weights of a fixed seed, as their papers and first implementations have them.

`resnet50` (25.6 million weights), `mobilenet_v2` (3.5 million), `vit_b_16` (86 million), `bert_base` (109 million), and
`llama_24`, a decoder of 24 layers of the shape of Llama (330 million): grouped attention with rotary positions, RMS
normalization, gated feed-forward layers.
"""
import torch
import torch.nn.functional as F
from torch import nn


def conv(inside, outside, kernel, stride=1, groups=1, act=None):
    layers = [nn.Conv2d(inside, outside, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(outside)]
    return nn.Sequential(*layers, *([act] if act else []))


class Bottleneck(nn.Module):
    def __init__(self, inside, width, stride):
        super().__init__()
        outside = 4 * width
        self.body = nn.Sequential(
            conv(inside, width, 1, act=nn.ReLU()), conv(width, width, 3, stride, act=nn.ReLU()), conv(width, outside, 1)
        )
        self.short = conv(inside, outside, 1, stride) if stride > 1 or inside != outside else nn.Identity()

    def forward(self, x):
        return F.relu(self.body(x) + self.short(x))


class ResNet50(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(conv(3, 64, 7, 2, act=nn.ReLU()), nn.MaxPool2d(3, 2, 1))
        blocks, inside = [], 64
        for stage, depth in enumerate((3, 4, 6, 3)):
            for i in range(depth):
                blocks.append(Bottleneck(inside, 64 << stage, 2 if i == 0 and stage > 0 else 1))
                inside = 256 << stage
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(inside, 1000)

    def forward(self, image):
        x = self.blocks(self.stem(image))
        return self.head(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


class Inverted(nn.Module):
    def __init__(self, inside, outside, stride, expand):
        super().__init__()
        width = inside * expand
        first = [conv(inside, width, 1, act=nn.ReLU6())] if expand > 1 else []
        self.body = nn.Sequential(*first, conv(width, width, 3, stride, width, nn.ReLU6()), conv(width, outside, 1))
        self.adds = stride == 1 and inside == outside

    def forward(self, x):
        return x + self.body(x) if self.adds else self.body(x)


class MobileNetV2(nn.Module):
    def __init__(self):
        super().__init__()
        blocks, inside = [conv(3, 32, 3, 2, act=nn.ReLU6())], 32
        rows = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
        for expand, outside, depth, stride in rows:
            for i in range(depth):
                blocks.append(Inverted(inside, outside, stride if i == 0 else 1, expand))
                inside = outside
        self.features = nn.Sequential(*blocks, conv(inside, 1280, 1, act=nn.ReLU6()))
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000))

    def forward(self, image):
        return self.head(self.features(image).mean([2, 3]))


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x, mask=None):
        b, n, width = x.shape
        q, k, v = (f(x).view(b, n, self.heads, width // self.heads).transpose(1, 2) for f in (self.q, self.k, self.v))
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(x.transpose(1, 2).reshape(b, n, width))


class Block(nn.Module):
    """A layer of an encoder, with the normalization before or after."""

    def __init__(self, width, heads, before, eps):
        super().__init__()
        self.attention = Attention(width, heads)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width, eps), nn.LayerNorm(width, eps)
        self.before = before

    def forward(self, x, mask=None):
        feed = lambda x: self.down(F.gelu(self.up(x)))
        if self.before:
            x = x + self.attention(self.norm1(x), mask)
            return x + feed(self.norm2(x))
        x = self.norm1(x + self.attention(x, mask))
        return self.norm2(x + feed(x))


class VitB16(nn.Module):
    def __init__(self, width=768):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 16, 16)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, 197, width) * 0.02)
        self.blocks = nn.Sequential(*[Block(width, 12, True, 1e-6) for _ in range(12)])
        self.norm, self.head = nn.LayerNorm(width, 1e-6), nn.Linear(width, 1000)

    def forward(self, image):
        x = self.patches(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        return self.head(self.norm(self.blocks(x))[:, 0])


class BertBase(nn.Module):
    def __init__(self, width=768):
        super().__init__()
        self.words, self.positions, self.kinds = (nn.Embedding(n, width) for n in (30522, 512, 2))
        self.norm = nn.LayerNorm(width, 1e-12)
        self.blocks = nn.ModuleList(Block(width, 12, False, 1e-12) for _ in range(12))
        self.pooler = nn.Linear(width, width)

    def forward(self, input_ids, attention_mask):
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        x = self.norm(self.words(input_ids) + self.positions(places) + self.kinds(torch.zeros_like(input_ids)))
        mask = attention_mask[:, None, None, :] > 0
        for block in self.blocks:
            x = block(x, mask)
        return x, torch.tanh(self.pooler(x[:, 0]))


class RmsNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.weight


class LlamaBlock(nn.Module):
    def __init__(self, width, heads, groups, hidden):
        super().__init__()
        self.size, self.repeats = width // heads, heads // groups
        shapes = [(width, width), (width, groups * self.size), (width, groups * self.size), (width, width)]
        self.q, self.k, self.v, self.o = (nn.Linear(*s, bias=False) for s in shapes)
        self.gate, self.up = (nn.Linear(width, hidden, bias=False) for _ in range(2))
        self.down = nn.Linear(hidden, width, bias=False)
        self.norm1, self.norm2 = RmsNorm(width), RmsNorm(width)

    def forward(self, x, cos, sin, mask):
        b, n, _ = x.shape
        h = self.norm1(x)
        q, k, v = (f(h).view(b, n, -1, self.size).transpose(1, 2) for f in (self.q, self.k, self.v))

        def turn(x):
            a, b = x.chunk(2, -1)
            return x * cos + torch.cat([-b, a], -1) * sin

        k, v = (x.repeat_interleave(self.repeats, 1) for x in (turn(k), v))
        h = F.scaled_dot_product_attention(turn(q), k, v, attn_mask=mask)
        x = x + self.o(h.transpose(1, 2).reshape(b, n, -1))
        h = self.norm2(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Llama24(nn.Module):
    def __init__(self, width=1024, heads=16, groups=4, hidden=2816, words=32000, length=64):
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.blocks = nn.ModuleList(LlamaBlock(width, heads, groups, hidden) for _ in range(24))
        self.norm, self.head = RmsNorm(width), nn.Linear(width, words, bias=False)
        size = width // heads
        angles = torch.outer(torch.arange(length), 10000 ** (-torch.arange(0, size, 2) / size))
        angles = torch.cat([angles, angles], -1)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())
        self.register_buffer("mask", torch.full((length, length), -1e4).triu(1))

    def forward(self, input_ids):
        x = self.words(input_ids)
        for block in self.blocks:
            x = block(x, self.cos, self.sin, self.mask)
        return self.head(self.norm(x))


def image():
    return (torch.rand(1, 3, 224, 224),)


MODELS = {
    "resnet50": (ResNet50, image),
    "mobilenet_v2": (MobileNetV2, image),
    "vit_b_16": (VitB16, image),
    "bert_base": (BertBase, lambda: (torch.randint(0, 30522, (1, 128)), torch.ones(1, 128, dtype=torch.int64))),
    "llama_24": (Llama24, lambda: (torch.randint(0, 32000, (1, 64)),)),
}


def model(name):
    """A model and inputs for it."""
    torch.manual_seed(0)
    make, inputs = MODELS[name]
    return make().eval(), inputs()
