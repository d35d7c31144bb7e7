"""Two models of known sizes into which a fault can be planted, as ONNX with names as PyTorch's exporter gives them.

`Transformer` has 24 layers of width 288 with 6 heads, norms in front, and a mask, for 64 tokens; `Cnn` has the layers of ResNet-50,
with 25.5 million weights, for one image of 224 x 224. Weights are random, of a fixed seed, and scaled so that values stay near one.
A fault changes one layer, and no name: the value of a layer is called the same in both.
"""
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
# What is added to scores that a mask excludes, as exporters have it.
MASKED = np.finfo(np.float32).min


class Graph:
    """Nodes and weights in the order in which they are added. Weights are drawn alike whatever fault there is."""

    def __init__(self, seed, fault=None, layer=None):
        self.random = np.random.default_rng(seed)
        self.fault, self.layer = fault, layer
        self.nodes, self.weights = [], {}

    def at(self, layer, *faults):
        """Whether one of these faults is to be planted in this layer."""
        return self.layer == layer and self.fault in faults

    def weight(self, name, values, dtype=np.float32):
        self.weights[name] = np.asarray(values, dtype)
        return name

    def normal(self, shape, deviation):
        return self.random.standard_normal(shape, np.float32) * np.float32(deviation)

    def node(self, name, op, inputs, output=None, **attributes):
        """A node `name`; its value is called after it, unless that is `output`."""
        output = output or f"{name}_output_0"
        self.nodes.append(helper.make_node(op, inputs, [output], name=name, **attributes))
        return output

    def constant(self, name, value, dtype=np.float32):
        value = numpy_helper.from_array(np.asarray(value, dtype))
        return self.node(name, "Constant", [], value=value)

    def model(self, name, inputs, outputs):
        infos = [[helper.make_tensor_value_info(n, t, s) for n, t, s in x] for x in (inputs, outputs)]
        weights = [numpy_helper.from_array(w, n) for n, w in self.weights.items()]
        graph = helper.make_graph(self.nodes, name, *infos, weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


class Transformer:
    name = "transformer"
    layers, width, heads, tokens, words = 24, 288, 6, 64, 1000
    # Of each fault: the part of a layer that it is in, and names of nodes of that part that may be found at fault.
    faults = {
        "epsilon-small": ("mlp_norm",),
        "epsilon-large": ("attn_norm",),
        "transposed": ("attn/q_proj",),
        "bias": ("mlp/fc2",),
        "overflow": ("mlp/scale",),
        "clusters": ("mlp/fc1",),
        # A package may have the transposition within the product that reads it, and the mask within what adds it.
        "heads": ("attn/Reshape_2", "attn/Transpose_2", "attn/MatMul_1"),
        "mask": ("attn/shift", "attn/Add"),
    }

    @staticmethod
    def place(layer, part):
        return f"/layers.{layer}/{part}"

    @classmethod
    def layer_of(cls, random):
        return int(random.integers(2, cls.layers - 2))

    @classmethod
    def sample(cls, random):
        mask = np.ones((1, cls.tokens), np.int64)
        mask[:, -9:] = 0
        return {"input_ids": random.integers(0, cls.words, (1, cls.tokens)), "attention_mask": mask}

    @classmethod
    def build(cls, seed, fault=None, layer=None, masked=MASKED):
        g, width, head = Graph(seed, fault, layer), cls.width, cls.width // cls.heads

        def linear(place, x, inside, outside, gain=1.0):
            w, b = g.normal((inside, outside), gain * inside**-0.5), g.normal(outside, 0.3 * gain)
            here = g.layer is not None and place.startswith(f"/layers.{g.layer}/")
            if here and g.fault == "transposed" and place.endswith("q_proj"):
                w = np.ascontiguousarray(w.T)
            w = g.weight(f"onnx::MatMul_{1000 + len(g.nodes)}", w)
            b = g.weight(place[1:].replace("/", ".") + ".bias", b)
            if here and g.fault == "bias" and place.endswith("fc2"):
                return g.node(f"{place}/MatMul", "MatMul", [x, w], f"{place}/Add_output_0")
            return g.node(f"{place}/Add", "Add", [b, g.node(f"{place}/MatMul", "MatMul", [x, w])])

        def norm(place, x, epsilon=1e-5):
            name = place[1:].replace("/", ".")
            w = g.weight(f"{name}.weight", g.random.uniform(0.7, 1.3, width))
            b = g.weight(f"{name}.bias", g.normal(width, 0.1))
            return g.node(f"{place}/LayerNormalization", "LayerNormalization", [x, w, b], axis=-1, epsilon=epsilon)

        def split(place, n, x, order, interleaved=False):
            suffix = f"_{n}" if n else ""
            sizes = [1, cls.tokens, head, cls.heads] if interleaved else [1, cls.tokens, cls.heads, head]
            if interleaved:
                order = [0, 3, 1, 2]
            shape = g.constant(f"{place}/Constant{suffix}", sizes, np.int64)
            x = g.node(f"{place}/Reshape{suffix}", "Reshape", [x, shape])
            return g.node(f"{place}/Transpose{suffix}", "Transpose", [x], perm=order)

        def attention(i, x, mask):
            place = f"/layers.{i}/attn"
            q, k, v = (linear(f"{place}/{n}_proj", x, width, width) for n in "qkv")
            q, k = split(place, 0, q, [0, 2, 1, 3]), split(place, 1, k, [0, 2, 3, 1])
            v = split(place, 2, v, [0, 2, 1, 3], g.at(i, "heads"))
            scores = g.node(f"{place}/MatMul", "MatMul", [q, k])
            scores = g.node(f"{place}/Div", "Div", [scores, g.constant(f"{place}/Constant_3", head**0.5)])
            if g.at(i, "mask"):
                # Padding is taken to be in front of the tokens, not behind them.
                ends = [g.constant(f"{place}/shift/Constant_{n}", v, np.int64) for n, v in enumerate([[-1], [-1000], [3], [-1]])]
                mask = g.node(f"{place}/shift/Slice", "Slice", [mask, *ends])
            scores = g.node(f"{place}/Add", "Add", [scores, mask])
            scores = g.node(f"{place}/Softmax", "Softmax", [scores], axis=-1)
            y = g.node(f"{place}/MatMul_1", "MatMul", [scores, v])
            y = g.node(f"{place}/Transpose_3", "Transpose", [y], perm=[0, 2, 1, 3])
            shape = g.constant(f"{place}/Constant_4", [1, cls.tokens, width], np.int64)
            return linear(f"{place}/o_proj", g.node(f"{place}/Reshape_3", "Reshape", [y, shape]), width, width, 0.2)

        def mlp(i, x):
            place = f"/layers.{i}/mlp"
            x = linear(f"{place}/fc1", x, width, 4 * width, 1.5)
            if g.at(i, "overflow"):
                for n, factor in enumerate([SCALE, 1 / SCALE]):
                    factor = g.constant(f"{place}/scale/Constant_{n}", factor)
                    x = g.node(f"{place}/scale/Mul_{n}", "Mul", [x, factor])
            act = f"{place}/act"
            erf = g.node(f"{act}/Erf", "Erf", [g.node(f"{act}/Div", "Div", [x, g.constant(f"{act}/Constant", 2**0.5)])])
            one = g.node(f"{act}/Add", "Add", [erf, g.constant(f"{act}/Constant_1", 1.0)])
            y = g.node(f"{act}/Mul", "Mul", [x, one])
            y = g.node(f"{act}/Mul_1", "Mul", [y, g.constant(f"{act}/Constant_2", 0.5)])
            return linear(f"{place}/fc2", y, 4 * width, width, 0.05)

        words = g.weight("embed_tokens.weight", g.normal((cls.words, width), 0.2))
        places = g.weight("embed_positions.weight", g.normal((1, cls.tokens, width), 0.1))
        x = g.node("/Add", "Add", [g.node("/embed_tokens/Gather", "Gather", [words, "input_ids"]), places])
        axes = g.constant("/Constant", [1, 2], np.int64)
        mask = g.node("/Cast", "Cast", [g.node("/Unsqueeze", "Unsqueeze", ["attention_mask", axes])], to=TensorProto.FLOAT)
        mask = g.node("/Sub", "Sub", [g.constant("/Constant_1", 1.0), mask])
        mask = g.node("/Mul", "Mul", [mask, g.constant("/Constant_2", masked)])
        for i in range(cls.layers):
            first = 1e-1 if g.at(i, "epsilon-large") else 1e-5
            second = 1e-3 if g.at(i, "epsilon-small") else 1e-5
            y = attention(i, norm(f"/layers.{i}/attn_norm", x, first), mask)
            x = g.node(f"/layers.{i}/Add", "Add", [x, y])
            x = g.node(f"/layers.{i}/Add_1", "Add", [x, mlp(i, norm(f"/layers.{i}/mlp_norm", x, second))])
        w = g.weight("onnx::MatMul_9999", g.normal((width, 512), width**-0.5))
        g.node("/lm_head/MatMul", "MatMul", [norm("/norm", x), w], "logits")
        inputs = [(n, TensorProto.INT64, [1, cls.tokens]) for n in ("input_ids", "attention_mask")]
        return g.model("transformer", inputs, [("logits", TensorProto.FLOAT, [1, cls.tokens, 512])])


class Cnn:
    name = "cnn"
    # Channels inside and outside of the blocks, blocks, and stride, per stage of ResNet-50.
    stages = [(64, 256, 3, 1), (128, 512, 4, 2), (256, 1024, 6, 2), (512, 2048, 3, 2)]
    faults = {
        "epsilon-small": ("conv2", "bn2"),
        "epsilon-large": ("conv2", "bn2"),
        "transposed": ("conv2", "bn2"),
        "bias": ("conv2", "bn2"),
        "overflow": ("scale",),
        "clusters": ("conv2", "bn2"),
        "reflect": ("conv2", "bn2"),
        "shifted": ("conv2", "bn2"),
    }

    @staticmethod
    def place(layer, part):
        stage, block = layer
        return f"/layer{stage}/layer{stage}.{block}/{part}"

    @classmethod
    def layer_of(cls, random):
        # Blocks behind the first of a stage, whose 3 x 3 convolution keeps the size; the last stage is 7 x 7.
        stage = int(random.integers(1, 5))
        return stage, int(random.integers(1, cls.stages[stage - 1][2]))

    @classmethod
    def sample(cls, random):
        return {"image": random.standard_normal((1, 3, 224, 224), np.float32)}

    @classmethod
    def build(cls, seed, fault=None, layer=None, masked=MASKED):
        g = Graph(seed, fault, layer)

        def conv(place, n, x, power, inside, outside, kernel, stride=1, here=False):
            """A convolution and its batch norm; `power` is the mean square of `x`."""
            # Trained networks have variances far below one in front of norms.
            variance = 0.05
            w = g.normal((outside, inside, kernel, kernel), (variance / (power * inside * kernel * kernel)) ** 0.5)
            fault = g.fault if here else None
            if fault == "transposed":
                w = np.ascontiguousarray(w.swapaxes(0, 1))
            name = place[1:].replace("/", ".")
            w = g.weight(f"{name}conv{n}.weight", w)
            pads = [kernel // 2] * 4
            if fault == "shifted":
                pads = [2, 2, 0, 0]
            if fault == "reflect":
                width = g.constant(f"{place}conv{n}/Constant", [0, 0, 1, 1, 0, 0, 1, 1], np.int64)
                x, pads = g.node(f"{place}conv{n}/Pad", "Pad", [x, width], mode="reflect"), [0] * 4
            x = g.node(f"{place}conv{n}/Conv", "Conv", [x, w], kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads,
                       dilations=[1, 1], group=1)
            norm = {
                "weight": g.random.uniform(0.7, 1.0, outside),
                "bias": g.normal(outside, 0.2),
                "running_mean": g.normal(outside, 0.02),
                "running_var": variance * g.random.uniform(0.7, 1.3, outside),
            }
            if fault == "bias":
                norm["bias"] = np.zeros(outside)
            epsilon = {"epsilon-small": 1e-3, "epsilon-large": 1e-2}.get(fault, 1e-5)
            names = [g.weight(f"{name}bn{n}.{k}", v) for k, v in norm.items()]
            return g.node(f"{place}bn{n}/BatchNormalization", "BatchNormalization", [x, *names], epsilon=epsilon, momentum=0.9)

        # A norm leaves a mean square of about 0.8, of which relu lets half through.
        after, half = 0.8, 0.4
        x = g.node("/relu/Relu", "Relu", [conv("/", 1, "image", 1.0, 3, 64, 7, 2)])
        x = g.node("/maxpool/MaxPool", "MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
        channels, power = 64, 1.2
        for stage, (inside, outside, count, stride) in enumerate(cls.stages, 1):
            for block in range(count):
                place = f"/layer{stage}/layer{stage}.{block}/"
                here = layer == (stage, block)
                stride_here = stride if block == 0 else 1
                y = conv(place, 1, x, power, channels, inside, 1)
                y = g.node(f"{place}relu/Relu", "Relu", [y])
                y = conv(place, 2, y, half, inside, inside, 3, stride_here, here)
                y = g.node(f"{place}relu/Relu_1", "Relu", [y])
                y = conv(place, 3, y, half, inside, outside, 1)
                if block == 0:
                    # The projection is counted as a fourth convolution of its block.
                    x, power = conv(f"{place}downsample/", 0, x, power, channels, outside, 1, stride_here), after
                x, power = g.node(f"{place}Add", "Add", [y, x]), (power + after) / 2 if block == 0 else power + half
                if here and fault == "overflow":
                    for n, factor in enumerate([SCALE, 1 / SCALE]):
                        factor = g.constant(f"{place}scale/Constant_{n}", factor)
                        x = g.node(f"{place}scale/Mul_{n}", "Mul", [x, factor])
                x = g.node(f"{place}relu/Relu_2", "Relu", [x])
                channels = outside
        x = g.node("/Flatten", "Flatten", [g.node("/avgpool/GlobalAveragePool", "GlobalAveragePool", [x])], axis=1)
        w = g.weight("fc.weight", g.normal((1000, channels), channels**-0.5))
        g.node("/fc/Gemm", "Gemm", [x, w, g.weight("fc.bias", g.normal(1000, 0.1))], "logits", transB=1)
        infos = [[("image", TensorProto.FLOAT, [1, 3, 224, 224])], [("logits", TensorProto.FLOAT, [1, 1000])]]
        return g.model("resnet50", *infos)


# What overflows is multiplied by this and then by its inverse: both are exact in half precision, and 4 times it is beyond it.
SCALE = 2.0**14
FAMILIES = {f.name: f for f in (Transformer, Cnn)}
