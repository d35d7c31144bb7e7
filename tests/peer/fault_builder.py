"""The models of `fault_models.py` as packages that coremltools writes: node by node with its builder, then through its passes."""
import re

import coremltools as ct
import numpy as np
from coremltools.converters.mil.mil import Builder as mb
from coremltools.converters.mil.mil import types
from onnx import numpy_helper


def legal(name):
    return re.sub(r"[^A-Za-z0-9_]", "_", name)


def conv(x, w, pads, strides, kernel_shape, dilations, group, name):
    before_and_after = [p for pair in zip(pads[:len(pads) // 2], pads[len(pads) // 2:]) for p in pair]
    return mb.conv(x=x, weight=w, pad_type="custom", pad=before_and_after, strides=strides, dilations=dilations, groups=group,
                   name=name)


def pool(x, kernel_shape, strides, pads, name):
    return mb.max_pool(x=x, kernel_sizes=kernel_shape, strides=strides, pad_type="custom", pad=[pads[0]] * 4, name=name)


def cut(x, starts, ends, axes, steps, name):
    """A slice along one axis, counted from its end and back."""
    (axis,), (step,) = axes.tolist(), steps.tolist()
    if (starts.tolist(), step, axis) != ([-1], -1, 3):
        raise NotImplementedError("slices but for one that reverses the last axis")
    return mb.reverse(x=x, axes=[axis], name=name)


# What each operator is, of its inputs and attributes, and a name for the result.
OPERATORS = {
    "Add": lambda a, b, name: mb.add(x=a, y=b, name=name),
    "Sub": lambda a, b, name: mb.sub(x=a, y=b, name=name),
    "Mul": lambda a, b, name: mb.mul(x=a, y=b, name=name),
    "Div": lambda a, b, name: mb.real_div(x=a, y=b, name=name),
    "Erf": lambda x, name: mb.erf(x=x, name=name),
    "Relu": lambda x, name: mb.relu(x=x, name=name),
    "Cast": lambda x, to, name: mb.cast(x=x, dtype="fp32", name=name),
    "Unsqueeze": lambda x, axes, name: mb.expand_dims(x=x, axes=axes.tolist(), name=name),
    "Gather": lambda x, i, name: mb.gather(x=x, indices=i, axis=0, validate_indices=False, name=name),
    "MatMul": lambda a, b, name: mb.matmul(x=a, y=b, name=name),
    "Gemm": lambda x, w, b, transB, name: mb.linear(x=x, weight=w, bias=b, name=name),
    "Softmax": lambda x, axis, name: mb.softmax(x=x, axis=axis, name=name),
    "Reshape": lambda x, shape, name: mb.reshape(x=x, shape=shape.tolist(), name=name),
    "Transpose": lambda x, perm, name: mb.transpose(x=x, perm=perm, name=name),
    "LayerNormalization": lambda x, w, b, axis, epsilon, name: mb.layer_norm(
        x=x, axes=[axis], gamma=w, beta=b, epsilon=np.float32(epsilon), name=name),
    "BatchNormalization": lambda x, w, b, mean, variance, epsilon, momentum, name: mb.batch_norm(
        x=x, mean=mean, variance=variance, gamma=w, beta=b, epsilon=np.float32(epsilon), name=name),
    "Conv": conv,
    "Pad": lambda x, pads, mode, name: mb.pad(x=x, pad=[0, 0, 0, 0, 1, 1, 1, 1], mode=mode.decode(), name=name),
    "MaxPool": pool,
    "GlobalAveragePool": lambda x, name: mb.reduce_mean(x=x, axes=[2, 3], keep_dims=True, name=name),
    "Flatten": lambda x, axis, name: mb.reshape(x=x, shape=[1, -1], name=name),
    "Slice": cut,
}


def build(model, path):
    """Writes the package of an ONNX model, in half precision for iOS 17."""
    graph = model.graph
    (output,) = [o.name for o in graph.output]
    specs = []
    for value in graph.input:
        dtype = types.int32 if value.type.tensor_type.elem_type == 7 else types.fp32
        specs.append(mb.TensorSpec(shape=[d.dim_value for d in value.type.tensor_type.shape.dim], dtype=dtype))

    def body(*inputs):
        values = {v.name: x for v, x in zip(graph.input, inputs)}
        values |= {w.name: numpy_helper.to_array(w) for w in graph.initializer}
        for node in graph.node:
            attributes = {a.name: value_of(a) for a in node.attribute}
            if node.op_type == "Constant":
                values[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
                continue
            operands = [values[i] for i in node.input]
            name = output if node.output[0] == output else legal(node.output[0])
            values[node.output[0]] = OPERATORS[node.op_type](*operands, **attributes, name=name)
        return values[output]

    # The builder names inputs by the parameters of the function that it is given.
    names = [v.name for v in graph.input]
    scope = {"body": body}
    exec(f"def program({', '.join(names)}):\n    return body({', '.join(names)})", scope)
    program = mb.program(input_specs=specs, opset_version=ct.target.iOS17)(scope["program"])
    made = ct.convert(program, convert_to="mlprogram", minimum_deployment_target=ct.target.iOS17, skip_model_load=True)
    made.save(path)


def value_of(attribute):
    from onnx import helper

    return helper.get_attribute_value(attribute)
