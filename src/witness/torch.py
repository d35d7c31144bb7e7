"""Runs a model in PyTorch for mlconv: what to run comes in on stdin, and what came of it goes out on stdout, as messages of
a letter, a length and bytes. What the model or a library prints goes to stderr."""

import sys

# Not from the folder that this runs in.
sys.path[:] = [p for p in sys.path if p]

import ast, ctypes, io, json, logging, os, re, struct, traceback, warnings, zipfile


class Fault(Exception):
    def __init__(self, stage, why):
        super().__init__(why)
        self.stage, self.why = stage, why


def last_line(error):
    """What is wrong, which tracebacks and PyTorch's own messages have at their end."""
    text = "".join(traceback.format_exception_only(type(error), error))
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]


# NumPy's letters of element types, with PyTorch's names of them, and ours.
TYPES = [
    ("<f2", "float16", "f16"), ("<f4", "float32", "f32"), ("<f8", "float64", "f64"), ("|i1", "int8", "i8"),
    ("<i2", "int16", "i16"), ("<i4", "int32", "i32"), ("<i8", "int64", "i64"), ("|u1", "uint8", "u8"),
    ("<u2", "uint16", "u16"), ("<u4", "uint32", "u32"), ("<u8", "uint64", "u64"), ("|b1", "bool", "bool"),
    ("|V2", "bfloat16", "bf16"),
]


class Arrays:
    """Tensors as an archive of NumPy's arrays, without NumPy, which PyTorch may be installed without."""

    def __init__(self, torch):
        known = [(letters, getattr(torch, name, None), ours) for letters, name, ours in TYPES]
        self.torch, self.types = torch, [row for row in known if row[1] is not None]

    def ours(self, dtype):
        return next((ours for _, theirs, ours in self.types if theirs == dtype), None)

    def read(self, data):
        if data[:8] != b"\x93NUMPY\x01\0":
            raise Fault("Run", "an array is of a form that is not known")
        (length,) = struct.unpack("<H", data[8:10])
        header = ast.literal_eval(data[10:10 + length].decode("latin-1"))
        dtype = next((theirs for letters, theirs, _ in self.types if letters == header["descr"]), None)
        if dtype is None:
            raise Fault("Run", "this PyTorch has no elements of type `%s`" % header["descr"])
        body = bytearray(data[10 + length:])
        if not body:
            return self.torch.empty(header["shape"], dtype=dtype)
        return self.torch.frombuffer(body, dtype=dtype).reshape(header["shape"])

    def write(self, t):
        t = t.detach()
        if t.is_quantized:
            t = t.dequantize()
        if t.layout != self.torch.strided:
            t = t.to_dense()
        t = t.cpu().resolve_conj().resolve_neg().contiguous()
        letters = next((letters for letters, theirs, _ in self.types if theirs == t.dtype), None)
        if letters is None:
            raise Fault("Run", "elements of type %s are compared by nobody" % t.dtype)
        header = repr({"descr": letters, "fortran_order": False, "shape": tuple(t.shape)})
        header = header.encode("latin-1")
        header += b" " * (-(len(header) + 11) % 64) + b"\n"
        body = ctypes.string_at(t.data_ptr(), t.numel() * t.element_size()) if t.numel() else b""
        return b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header + body

    def unpack(self, data):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return [self.read(archive.read(name)) for name in archive.namelist()]

    def pack(self, tensors):
        whole = io.BytesIO()
        with zipfile.ZipFile(whole, "w") as archive:
            for i, t in enumerate(tensors):
                with archive.open("%d.npy" % i, "w", force_zip64=True) as entry:
                    entry.write(self.write(t))
        return whole.getvalue()


class Talk:
    def __init__(self):
        # What else is printed to stdout goes to stderr.
        self.source = os.fdopen(os.dup(0), "rb")
        self.sink = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)

    def say(self, letter, body):
        self.sink.write(letter + struct.pack("<Q", len(body)))
        self.sink.write(body)
        self.sink.flush()

    def fault(self, error, stage):
        fault = {"stage": getattr(error, "stage", stage), "why": getattr(error, "why", None) or last_line(error)}
        self.say(b"F", json.dumps(fault).encode())

    def heard(self):
        """The body of the next question; None at the end."""
        head = self.source.read(9)
        if len(head) < 9 or head[:1] != b"I":
            return None
        (length,) = struct.unpack("<Q", head[1:])
        body = self.source.read(length)
        return body if len(body) == length else None


def exactly(t, dtype, name):
    """`t` in the source's own type, where every value stays what it is."""
    cast = t.to(dtype)
    back = cast.to(t.dtype)
    if t.is_floating_point() != cast.is_floating_point() or not ((back == t) | (t != t)).all():
        raise Fault("Run", "input `%s` holds values that %s does not" % (name, dtype))
    return cast


class Model:
    """A model with its buffers, which stay as a run leaves them."""

    def __init__(self, torch, module):
        self.torch, self.module = torch, module
        self.buffers = dict(module.named_buffers())

    def hello(self, arrays):
        tensors = list(self.module.parameters()) + list(self.module.buffers())
        bf16 = any(t.dtype == self.torch.bfloat16 for t in tensors)
        return {"version": self.torch.__version__.split("+")[0], "inputs": [], "outputs": [], "bf16": bf16}

    def run(self, asked, tensors):
        given, buffers = [], self.buffers
        for what, t in zip(asked["inputs"], tensors):
            (kind, name), = what.items()
            if kind != "buffer":
                given.append((kind, name, t.item() if kind == "number" else t))
            elif name in buffers:
                buffers[name].copy_(exactly(t, buffers[name].dtype, name).reshape(buffers[name].shape))
            else:
                raise Fault("Run", "the model has neither an input nor a buffer `%s`" % name)
        returned, out = self.returned(given, asked["returned"]), []
        for what in asked["outputs"]:
            (kind, which), = what.items()
            if kind == "buffer":
                out.append(buffers[which].clone())
            elif kind == "input":
                out.append(self.inputs[which].clone())
            elif kind == "at" and which < len(returned):
                out.append(returned[which])
            else:
                raise Fault("Run", "there is no output %s" % which)
        return out

    def tensor(self, value):
        return value if isinstance(value, self.torch.Tensor) else self.torch.tensor(value)


class Script(Model):
    """TorchScript: arguments in the order of the parameters."""

    def returned(self, given, count):
        args = []
        for kind, _, t in given:
            # Core ML has no 64-bit integers, and PyTorch makes no others unless it is told.
            args.append(t.long() if kind == "input" and t.dtype == self.torch.int32 else t)
        self.inputs = {name: t for (_, name, _), t in zip(given, args)}
        with self.torch.jit.optimized_execution(False):
            result = self.module(*args)
        values, todo = [], [result]
        while todo:
            value = todo.pop()
            if isinstance(value, dict):
                todo.extend(reversed(list(value.values())))
            elif isinstance(value, (list, tuple)):
                todo.extend(reversed(value))
            elif isinstance(value, (self.torch.Tensor, bool, int, float)):
                values.append(value)
        # Numbers that are the same in every run are no outputs of a package.
        tensors = [v for v in values if isinstance(v, self.torch.Tensor)]
        values = tensors if len(values) != count else values
        if len(values) != count:
            raise Fault("Run", "the model returns %d tensors, and the package's are %d" % (len(tensors), count))
        return [self.tensor(v) for v in values]


class Program(Model):
    """What torch.export saved: arguments by the names that its graph has for them."""

    def __init__(self, torch, program):
        super().__init__(torch, program.module())
        from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind

        signature = program.graph_signature
        values = {n.name: n.meta.get("val") for n in program.graph.nodes}
        self.bf16 = any(isinstance(v, torch.Tensor) and v.dtype == torch.bfloat16 for v in values.values())
        is_constant = lambda spec: isinstance(spec.arg, ConstantArgument)
        self.takes = [(spec.arg.name, spec.arg.value if is_constant(spec) else None, is_constant(spec), values.get(spec.arg.name))
                      for spec in signature.input_specs if spec.kind == InputKind.USER_INPUT]
        outputs = [spec for spec in signature.output_specs if spec.kind == OutputKind.USER_OUTPUT]
        # A result that is None is no output.
        self.kept = [not (is_constant(spec) and spec.arg.value is None) for spec in outputs]
        self.in_spec = program.call_spec.in_spec

    def hello(self, arrays):
        def slot(name, value):
            is_tensor = isinstance(value, self.torch.Tensor)
            shape = [n if isinstance(n, int) else -1 for n in value.shape] if is_tensor else []
            return {"name": name, "dtype": arrays.ours(value.dtype) if is_tensor else None, "shape": shape, "optional": False}

        inputs = [slot(name, value) for name, _, constant, value in self.takes if not constant]
        return dict(super().hello(arrays), inputs=inputs, bf16=self.bf16)

    def returned(self, given, count):
        from torch.utils import _pytree

        given, flat, self.inputs = {name: t for _, name, t in given}, [], {}
        for name, constant, is_constant, value in self.takes:
            is_tensor = isinstance(value, self.torch.Tensor)
            if is_constant:
                flat.append(constant)
            elif name in given:
                flat.append(exactly(given[name], value.dtype, name) if is_tensor else given[name].item())
                self.inputs[name] = flat[-1]
            elif is_tensor and 0 in [n for n in value.shape if isinstance(n, int)]:
                # A package leaves out what has no elements.
                flat.append(self.torch.empty([n if isinstance(n, int) else 1 for n in value.shape], dtype=value.dtype))
            else:
                raise Fault("Run", "there is no array for input `%s`" % name)
        args, kwargs = _pytree.tree_unflatten(flat, self.in_spec)
        leaves = _pytree.tree_leaves(self.module(*args, **kwargs))
        if len(leaves) == len(self.kept):
            leaves = [leaf for leaf, kept in zip(leaves, self.kept) if kept]
        if len(leaves) != count:
            raise Fault("Run", "the model returns %d tensors, and the package's are %d" % (len(leaves), count))
        return [self.tensor(leaf) for leaf in leaves]


def opened(torch, kind, path):
    try:
        # Its operators, where a model has any.
        import torchvision
    except Exception:
        pass
    if kind == "torchscript":
        return Script(torch, torch.jit.load(path, map_location="cpu"))
    if not hasattr(getattr(torch, "export", None), "load"):
        raise Fault("Library", "PyTorch %s has no `torch.export.load`, which exported programs need" % torch.__version__)
    try:
        # The operators of quantized programs.
        import torch.ao.quantization.fx._decomposed
    except Exception:
        pass
    # The error that it raises may be another one than that which it logs before.
    reasons = []

    class Reasons(logging.Handler):
        def emit(self, record):
            if record.exc_info:
                reasons.append(record.exc_info[1])

    logging.getLogger("torch.export").addHandler(Reasons())
    for _ in range(MOST_CONTAINERS):
        try:
            # As a file, whatever its name ends in.
            with open(path, "rb") as file:
                return Program(torch, torch.export.load(file))
        except Exception as error:
            reason = reasons[0] if reasons else error
            container = UNKNOWN_CONTAINER.search(str(reason))
            if container is None:
                raise reason
            stand_in(container[1])
            reasons.clear()
    raise reason


# Classes of what models take and return, such as those of transformers, which this process does not know.
UNKNOWN_CONTAINER = re.compile(r"Deserializing (\S+) in pytree failed")
MOST_CONTAINERS = 64


def stand_in(name):
    """A list in the place of a class: what is compared is in it, and the rest of the class is not needed."""
    from torch.utils import _pytree

    kind = type("StandIn", (list,), {})
    _pytree.register_pytree_node(
        kind,
        lambda values: (list(values), None),
        lambda values, context: kind(values),
        serialized_type_name=name,
        to_dumpable_context=lambda context: context,
        from_dumpable_context=lambda context: context,
    )


def main():
    options = dict(zip(sys.argv[1:5:2], sys.argv[2:5:2]))
    warnings.simplefilter("ignore")
    talk, stage = Talk(), "Library"
    try:
        import torch

        torch.set_num_threads(int(options["--threads"]))
        arrays, stage = Arrays(torch), "Model"
        model = opened(torch, options["--format"], sys.argv[-1])
        hello = json.dumps(model.hello(arrays)).encode()
    except BaseException as error:
        return talk.fault(error, stage)
    talk.say(b"H", hello)
    while True:
        body = talk.heard()
        if body is None:
            return
        try:
            names, _, archive = body.partition(b"\n")
            del body
            with torch.no_grad():
                found = arrays.pack(model.run(json.loads(names), arrays.unpack(archive)))
        except BaseException as error:
            talk.fault(error, "Run")
        else:
            talk.say(b"O", found)


main()
