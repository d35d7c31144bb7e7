"""ONNX models of known sizes, in single precision, with random weights of a fixed seed.

`resnet50` has the layers of ResNet-50 with batch norms, for one image of 224 x 224. `transformer-N` has N layers of an encoder of
width 768 with 12 heads, as exporters of PyTorch write it, for 128 tokens that are embedded already; `transformer-N-W` is one of
width W.
"""

# Channels inside and outside of the blocks, blocks, and stride, per stage of ResNet-50.
STAGES = [(64, 256, 3, 1), (128, 512, 4, 2), (256, 1024, 6, 2), (512, 2048, 3, 2)]
WIDTH, HEADS, TOKENS = 768, 12, 128
OPSET = 17


def blocks():
    """Of each block of ResNet-50: channels of its input, inside and of its output, and stride; and whether it begins a stage."""
    channels = 64
    for inside, outside, count, stride in STAGES:
        for block in range(count):
            yield channels, inside, outside, stride if block == 0 else 1, block == 0
            channels = outside


class Graph:
    """Nodes and weights in the order in which they are added."""

    def __init__(self):
        import numpy as np

        self.random, self.nodes, self.weights = np.random.default_rng(0), [], []

    def weight(self, name, values, dtype="float32"):
        import numpy as np
        from onnx import numpy_helper

        name = f"{name}_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def normal(self, name, shape, deviation):
        return self.weight(name, self.random.standard_normal(shape) * deviation)

    def emit(self, op, inputs, **attributes):
        from onnx import helper

        name = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def save(self, path, name, inputs, outputs):
        """Writes the model; `outputs` are pairs of a value and its shape."""
        import onnx
        from onnx import TensorProto, helper

        infos = [[helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in x] for x in (inputs, outputs)]
        graph = helper.make_graph(self.nodes, name, *infos, self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
        onnx.save(model, path)


def resnet50(path):
    g = Graph()

    def conv(x, inside, outside, kernel, stride=1, relu=True):
        w = g.normal("w", (outside, inside, kernel, kernel), (2 / (inside * kernel * kernel)) ** 0.5)
        x = g.emit("Conv", [x, w], kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[kernel // 2] * 4)
        norm = [g.random.uniform(0.5, 1, outside), g.random.normal(0, 0.1, outside), g.random.normal(0, 0.1, outside)]
        names = [g.weight(k, v) for k, v in zip(("gamma", "beta", "mean"), norm)]
        x = g.emit("BatchNormalization", [x, *names, g.weight("variance", g.random.uniform(0.5, 1, outside))])
        return g.emit("Relu", [x]) if relu else x

    x = conv("image", 3, 64, 7, 2)
    x = g.emit("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    for channels, inside, outside, stride, first in blocks():
        y = conv(x, channels, inside, 1)
        y = conv(y, inside, inside, 3, stride)
        y = conv(y, inside, outside, 1, relu=False)
        short = conv(x, channels, outside, 1, stride, relu=False) if first else x
        x = g.emit("Relu", [g.emit("Add", [y, short])])
    x = g.emit("Flatten", [g.emit("GlobalAveragePool", [x])])
    w = g.normal("fc", (1000, outside), outside**-0.5)
    y = g.emit("Gemm", [x, w, g.weight("fc_bias", [0] * 1000)], transB=1)
    g.save(path, "resnet50", [("image", [1, 3, 224, 224])], [(y, [1, 1000])])


def transformer(path, layers, width=WIDTH):
    g = Graph()

    def linear(x, inside, outside):
        x = g.emit("MatMul", [x, g.normal("w", (inside, outside), 0.5 * inside**-0.5)])
        return g.emit("Add", [g.normal("b", (outside,), 0.02), x])

    def norm(x):
        mean = g.emit("ReduceMean", [x], axes=[-1])
        far = g.emit("Sub", [x, mean])
        squares = g.emit("ReduceMean", [g.emit("Pow", [far, g.weight("two", 2.0)])], axes=[-1])
        root = g.emit("Sqrt", [g.emit("Add", [squares, g.weight("epsilon", 1e-5)])])
        scaled = g.emit("Mul", [g.emit("Div", [far, root]), g.weight("gamma", g.random.uniform(0.5, 1.5, width))])
        return g.emit("Add", [scaled, g.normal("beta", (width,), 0.02)])

    def heads(x, order):
        shape = g.weight("shape", [1, TOKENS, HEADS, width // HEADS], "int64")
        return g.emit("Transpose", [g.emit("Reshape", [x, shape])], perm=order)

    def attention(x):
        q, k, v = (linear(x, width, width) for _ in range(3))
        scores = g.emit("MatMul", [heads(q, [0, 2, 1, 3]), heads(k, [0, 2, 3, 1])])
        scores = g.emit("Softmax", [g.emit("Div", [scores, g.weight("root", (width / HEADS) ** 0.5)])], axis=-1)
        y = g.emit("Transpose", [g.emit("MatMul", [scores, heads(v, [0, 2, 1, 3])])], perm=[0, 2, 1, 3])
        return linear(g.emit("Reshape", [y, g.weight("shape", [1, TOKENS, width], "int64")]), width, width)

    def gelu(x):
        erf = g.emit("Erf", [g.emit("Div", [x, g.weight("root", 2**0.5)])])
        return g.emit("Mul", [g.emit("Mul", [x, g.emit("Add", [erf, g.weight("one", 1.0)])]), g.weight("half", 0.5)])

    x = "tokens"
    for _ in range(layers):
        x = g.emit("Add", [x, attention(norm(x))])
        x = g.emit("Add", [x, linear(gelu(linear(norm(x), width, 4 * width)), 4 * width, width)])
    x = norm(x)
    g.save(path, f"transformer-{layers}", [("tokens", [1, TOKENS, width])], [(x, [1, TOKENS, width])])


def make(model, path):
    """Writes the model of this name."""
    if model == "resnet50":
        return resnet50(path)
    return transformer(path, *map(int, model.split("-")[1:]))
