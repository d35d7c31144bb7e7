"""Models of known sizes, as packages of half precision for iOS 18, with random weights of a fixed seed.

`resnet50` has the layers of ResNet-50, with 25.5 million weights; `bert` has those of the encoder of BERT-base, with 109
million, of which 24 million are tables of embeddings. Behind a dash stands how the weights are distributed: `normal`, or
`heavy`, which is Student's t with 3 degrees of freedom, where output channels differ in scale as those of trained models do.
"""
import os

from sources import HEADS, TOKENS, WIDTH, blocks

LAYERS, WORDS, POSITIONS = 12, 30522, 512
KINDS = ["normal", "heavy"]


class Weights:
    """Draws weights one after the other, so that a model is the same whenever it is made."""

    def __init__(self, kind):
        import numpy as np

        self.random, self.heavy = np.random.default_rng(0), kind == "heavy"

    def draw(self, shape, deviation):
        import numpy as np

        if not self.heavy:
            w = self.random.standard_normal(shape, dtype=np.float32) * deviation
        else:
            # A t of 3 degrees of freedom deviates by the root of 3.
            w = self.random.standard_t(3, shape).astype(np.float32) * (deviation / 3**0.5)
            scales = np.exp(self.random.normal(0, 0.7, shape[0])).astype(np.float32)
            w *= scales.reshape(-1, *[1] * (len(shape) - 1))
        return np.clip(w, -60000, 60000).astype(np.float16)

    def conv(self, outside, inside, kernel):
        return self.draw((outside, inside, kernel, kernel), (2 / (inside * kernel * kernel)) ** 0.5)

    def bias(self, n):
        import numpy as np

        return self.random.normal(0, 0.1, n).astype(np.float16)


def resnet50(mb, types, weights):
    spec = mb.TensorSpec(shape=(1, 3, 224, 224), dtype=types.fp16)

    def conv(x, inside, outside, kernel, stride=1, relu=True):
        pad = dict(pad_type="custom", pad=[kernel // 2] * 4) if kernel > 1 else dict(pad_type="valid")
        w, b = weights.conv(outside, inside, kernel), weights.bias(outside)
        x = mb.conv(x=x, weight=w, bias=b, strides=[stride] * 2, **pad)
        return mb.relu(x=x) if relu else x

    def body(x):
        x = conv(x, 3, 64, 7, 2)
        x = mb.max_pool(x=x, kernel_sizes=[3, 3], strides=[2, 2], pad_type="custom", pad=[1] * 4)
        for channels, inside, outside, stride, first in blocks():
            y = conv(x, channels, inside, 1)
            y = conv(y, inside, inside, 3, stride)
            y = conv(y, inside, outside, 1, relu=False)
            short = conv(x, channels, outside, 1, stride, relu=False) if first else x
            x = mb.relu(x=mb.add(x=y, y=short))
        x = mb.reshape(x=mb.reduce_mean(x=x, axes=[2, 3], keep_dims=False), shape=[1, outside])
        return mb.linear(x=x, weight=weights.draw((1000, outside), outside**-0.5), bias=weights.bias(1000), name="out")

    return [spec], body


def bert(mb, types, weights):
    import numpy as np

    specs = [mb.TensorSpec(shape=(1, TOKENS), dtype=types.int32) for _ in range(2)]

    def linear(x, outside, inside):
        return mb.linear(x=x, weight=weights.draw((outside, inside), 0.02), bias=weights.bias(outside))

    def norm(x):
        gamma = (1 + weights.bias(WIDTH)).astype(np.float16)
        return mb.layer_norm(x=x, axes=[-1], gamma=gamma, beta=weights.bias(WIDTH), epsilon=np.float16(1e-5))

    def heads(x):
        x = mb.reshape(x=x, shape=[1, TOKENS, HEADS, WIDTH // HEADS])
        return mb.transpose(x=x, perm=[0, 2, 1, 3])

    def layer(x):
        q, k, v = (heads(linear(x, WIDTH, WIDTH)) for _ in range(3))
        scores = mb.mul(x=mb.matmul(x=q, y=k, transpose_y=True), y=np.float16((WIDTH // HEADS) ** -0.5))
        y = mb.matmul(x=mb.softmax(x=scores, axis=-1), y=v)
        y = mb.reshape(x=mb.transpose(x=y, perm=[0, 2, 1, 3]), shape=[1, TOKENS, WIDTH])
        x = norm(mb.add(x=x, y=linear(y, WIDTH, WIDTH)))
        y = mb.gelu(x=linear(x, 4 * WIDTH, WIDTH), mode="EXACT")
        return norm(mb.add(x=x, y=linear(y, WIDTH, 4 * WIDTH)))

    def body(words, positions):
        def embed(ids, rows):
            return mb.gather(x=weights.draw((rows, WIDTH), 0.02), indices=ids, axis=0, validate_indices=False)

        x = norm(mb.add(x=embed(words, WORDS), y=embed(positions, POSITIONS)))
        for _ in range(LAYERS):
            x = layer(x)
        return mb.identity(x=x, name="out")

    return specs, body


MODELS = {"resnet50": resnet50, "bert": bert}


def make(model, folder):
    """The path of the package of `model`, such as `bert-heavy`; it is made where it is not there yet."""
    path = os.path.join(folder, f"{model}.mlpackage")
    if os.path.exists(path):
        return path
    import coremltools as ct
    from coremltools.converters.mil.mil import Builder as mb
    from coremltools.converters.mil.mil import types

    name, kind = model.split("-")
    specs, body = MODELS[name](mb, types, Weights(kind))
    program = mb.program(input_specs=specs, opset_version=ct.target.iOS18)(body)
    made = ct.convert(
        program,
        convert_to="mlprogram",
        minimum_deployment_target=ct.target.iOS18,
        pass_pipeline=ct.PassPipeline.EMPTY,
        skip_model_load=True,
    )
    made.save(path)
    return path
