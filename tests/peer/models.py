"""A small model with a weight of every kind that compression knows, and sizes of which some divide and some do not."""


def make(path, target):
    import coremltools as ct
    import numpy as np
    from coremltools.converters.mil.mil import Builder as mb
    from coremltools.converters.mil.mil import types

    random = np.random.default_rng(7)

    def w(*shape):
        scales = np.exp(random.normal(0, 0.5, shape[0])).reshape(-1, *[1] * (len(shape) - 1))
        return (random.standard_t(4, shape) * scales * 0.1).astype(np.float16)

    specs = [
        mb.TensorSpec(shape=(1, 32, 8, 8), dtype=types.fp16),
        mb.TensorSpec(shape=(1, 6), dtype=types.int32),
        mb.TensorSpec(shape=(1, 16, 12), dtype=types.fp16),
        mb.TensorSpec(shape=(1, 8, 3, 4, 4), dtype=types.fp16),
    ]

    @mb.program(input_specs=specs, opset_version=target)
    def program(image, ids, line, volume):
        x = mb.conv(x=image, weight=w(64, 32, 3, 3), bias=w(64), pad_type="same", name="conv")
        # Groups: an output channel reads fewer input channels.
        x = mb.conv(x=mb.relu(x=x), weight=w(64, 16, 1, 1), groups=4, pad_type="valid", name="grouped")
        x = mb.conv_transpose(x=x, weight=w(64, 48, 2, 2), strides=[2, 2], pad_type="valid", name="transposed")
        # 50 is no multiple of any usual block, and 48 is not of all.
        x = mb.conv(x=x, weight=w(50, 48, 1, 1), pad_type="valid", name="odd")
        x = mb.reduce_mean(x=x, axes=[2, 3], keep_dims=False)
        x = mb.linear(x=x, weight=w(96, 50), bias=w(96), name="linear")
        x = mb.matmul(x=x, y=w(96, 64), name="columns")
        x = mb.matmul(x=x, y=w(32, 64), transpose_y=True, name="rows")
        # Few elements more than a whole number of bytes holds, whatever the bits.
        x = mb.linear(x=x, weight=w(11, 32), name="few")
        words = mb.gather(x=w(120, 32), indices=ids, axis=0, name="table")
        # An lstm computes in single precision, so this has weights of that too.
        single = lambda *shape: w(*shape).astype(np.float32)
        words = mb.cast(x=mb.transpose(x=words, perm=[1, 0, 2]), dtype="fp32")
        words = mb.lstm(
            x=words,
            initial_h=np.zeros((1, 24), np.float32),
            initial_c=np.zeros((1, 24), np.float32),
            weight_ih=single(96, 32),
            weight_hh=single(96, 24),
            bias=single(96),
            output_sequence=True,
        )[0]
        line = mb.conv(x=line, weight=w(32, 16, 3), pad_type="valid", name="conv1d")
        volume = mb.conv(x=volume, weight=w(16, 8, 2, 2, 2), pad_type="valid", name="conv3d")
        return (
            mb.softmax(x=x, axis=-1, name="out"),
            mb.identity(x=words, name="states"),
            mb.relu(x=line, name="out1d"),
            mb.relu(x=volume, name="out3d"),
        )

    ct.convert(
        program,
        convert_to="mlprogram",
        minimum_deployment_target=target,
        pass_pipeline=ct.PassPipeline.EMPTY,
        skip_model_load=True,
    ).save(path)
