#!/usr/bin/env python3
"""Compresses a model of several gigabytes: time, memory and throughput, beside those of `cp`.

  tests/bench/scale.py [--mlconv PATH] [--gigabytes 4] [--schemes int4-b32,pal4-g16] [--jobs 1,2] [--package] [--json FILE]

The model is ONNX with its weights in a file beside it, in half precision: an embedding and layers of the sizes of a language
model of seven billion weights, as many as the size asks for. Each number of threads must give the same bytes. coremltools
compresses one such weight, and what the whole would take is worked out from that. All that is made is removed at the end.

The exit status is 1 where memory exceeds `--peak`, or the bytes differ.
"""
import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

here = os.path.dirname(os.path.abspath(__file__))
WIDTH, INNER, WORDS, TOKENS = 4096, 11008, 32000, 16
# Of one layer: the op that reads each weight, and its shape. A Gemm has its weight transposed.
LAYER = [("MatMul", (WIDTH, WIDTH))] * 4 + [("MatMul", (WIDTH, INNER))] * 2 + [("Gemm", (WIDTH, INNER))]


def make(folder, gigabytes):
    import numpy as np
    import onnx
    from onnx import TensorProto, helper

    layer = sum(a * b for _, (a, b) in LAYER) * 2
    layers = max(1, round((float(gigabytes) * 1e9 - WORDS * WIDTH * 2) / layer))
    random = np.random.default_rng(0)
    nodes, weights = [], []
    with open(os.path.join(folder, "model.bin"), "wb") as f:

        def weight(name, shape):
            t = TensorProto(name=name, data_type=TensorProto.FLOAT16, dims=shape)
            t.data_location = TensorProto.EXTERNAL
            start = f.tell()
            # A tenth of a gigabyte at most is in memory.
            rows = max(1, (1 << 24) // shape[1])
            for at in range(0, shape[0], rows):
                part = random.standard_normal((min(rows, shape[0] - at), shape[1]), dtype=np.float32)
                part *= 0.02
                f.write(part.astype(np.float16).tobytes())
            for key, value in (("location", "model.bin"), ("offset", start), ("length", f.tell() - start)):
                t.external_data.add(key=key, value=str(value))
            weights.append(t)
            return name

        def emit(op, inputs, **attributes):
            name = f"{op.lower()}_{len(nodes)}"
            nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
            return name

        x = emit("Gather", [weight("embedding", (WORDS, WIDTH)), "ids"])
        for i in range(layers):
            for n, (op, shape) in enumerate(LAYER):
                w = weight(f"layer{i}.{n}", shape)
                if op == "Gemm":
                    x = emit("Add", [residual, emit("Gemm", [x, w], transB=1)])
                elif shape[1] == WIDTH:
                    x = emit("Tanh", [emit("MatMul", [x, w])])
                elif n == 4:
                    residual, gate = x, emit("Sigmoid", [emit("MatMul", [x, w])])
                else:
                    x = emit("Mul", [gate, emit("MatMul", [x, w])])
    nodes.append(helper.make_node("Identity", [x], ["out"]))
    graph = helper.make_graph(
        nodes,
        "language",
        [helper.make_tensor_value_info("ids", TensorProto.INT32, [TOKENS])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT16, [TOKENS, WIDTH])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, os.path.join(folder, "model.onnx"))


def make_slice(path):
    """A package with one weight, for coremltools."""
    import coremltools as ct
    import numpy as np
    from coremltools.converters.mil.mil import Builder as mb
    from coremltools.converters.mil.mil import types

    w = (np.random.default_rng(0).standard_normal((WIDTH, WIDTH), dtype=np.float32) * 0.02).astype(np.float16)

    @mb.program(input_specs=[mb.TensorSpec(shape=(TOKENS, WIDTH), dtype=types.fp16)], opset_version=ct.target.iOS18)
    def program(x):
        return mb.linear(x=x, weight=w)

    ct.convert(
        program,
        minimum_deployment_target=ct.target.iOS18,
        pass_pipeline=ct.PassPipeline.EMPTY,
        skip_model_load=True,
    ).save(path)


def run(command):
    """Seconds, peak of resident memory, and peak of that which is not mapped from files, in bytes.

    The second is sampled, so a short peak may be missed.
    """
    with tempfile.TemporaryFile("w+") as errors:
        start = time.perf_counter()
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        own = 0
        while True:
            pid, status, usage = os.wait4(child.pid, os.WNOHANG)
            if pid:
                break
            try:
                with open(f"/proc/{child.pid}/status", encoding="ascii") as f:
                    own = max([own, *(int(line.split()[1]) * 1024 for line in f if line.startswith("RssAnon"))])
            except OSError:
                pass
            time.sleep(0.02)
        seconds = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        errors.seek(0)
        if child.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} ended with {child.returncode}: {errors.read()[-2000:]}")
    return seconds, usage.ru_maxrss * 1024, own


def files(path):
    if os.path.isfile(path):
        return [path]
    return sorted(os.path.join(folder, f) for folder, _, names in os.walk(path) for f in names)


def digest(path):
    """A hash of all files of a package, with their places."""
    whole = hashlib.sha256()
    for f in files(path):
        whole.update(os.path.relpath(f, path).encode())
        with open(f, "rb") as opened:
            while part := opened.read(1 << 22):
                whole.update(part)
    return whole.hexdigest()


def size(path):
    return sum(os.path.getsize(f) for f in files(path))


def measure(args, folder, source, weights):
    """Rows of the table for one source: `cp`, then each scheme with each number of threads."""
    rows, faults = [], []
    read = sum(map(size, weights))

    def row(what, got, written):
        seconds, peak, own = got
        rows.append(
            {
                "what": what,
                "seconds": seconds,
                "mb_per_second": read / 1e6 / seconds,
                "read": read,
                "written": written,
                "peak": peak,
                "own": own,
            }
        )
        print(
            f"{what:<34} {seconds:8.2f} s {read / 1e6 / seconds:8.0f} MB/s {written / 1e6:8.0f} MB written "
            f"{peak / 1e6:7.0f} MB peak {own / 1e6:7.0f} MB own",
            flush=True,
        )

    copy, out = os.path.join(folder, "copy"), os.path.join(folder, "out.mlpackage")
    for _ in range(2):
        os.sync()
        got = run(["cp", "-r", *weights, copy])
        written = size(copy)
        (shutil.rmtree if os.path.isdir(copy) else os.remove)(copy)
        row("cp", got, written)
    for scheme in args.schemes.split(","):
        hashes = set()
        for jobs in args.jobs.split(","):
            shutil.rmtree(out, ignore_errors=True)
            os.sync()
            command = [args.mlconv, "compress", source, "-o", out, "--preset", scheme, "--no-verify", "--quiet"]
            got = run([*command, "--jobs", jobs])
            row(f"{os.path.basename(source)} {scheme}, {jobs} threads", got, size(out))
            if got[1] > args.peak * 1e6:
                faults.append(f"{scheme} with {jobs} threads has a peak of {got[1] / 1e6:.0f} MB")
            hashes.add(digest(out))
        if len(hashes) > 1:
            faults.append(f"{scheme}: numbers of threads give different bytes")
        shutil.rmtree(out, ignore_errors=True)
    return rows, faults


def peer(args, folder, read):
    """How fast coremltools compresses one weight, and what the whole model would take at that."""
    rows = []
    package, out = os.path.join(folder, "slice.mlpackage"), os.path.join(folder, "peer.mlpackage")
    subprocess.run([sys.executable, __file__, "--make-slice", package], check=True, capture_output=True)
    for scheme in args.schemes.split(","):
        command = [sys.executable, os.path.join(here, "compress.py"), "--peer-process", package, scheme, out]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        seconds = json.loads(done.stdout.splitlines()[-1])["seconds"]
        shutil.rmtree(out, ignore_errors=True)
        rate = size(package) / seconds
        rows.append({"what": f"coremltools {scheme}", "mb_per_second": rate / 1e6, "extrapolated_seconds": read / rate})
        print(
            f"coremltools {scheme}: {seconds:.1f} s for {size(package) / 1e6:.0f} MB, {rate / 1e6:.2f} MB/s; "
            f"{read / rate:.0f} s for all, extrapolated",
            flush=True,
        )
    return rows


def main():
    if sys.argv[1:2] == ["--make"]:
        return make(*sys.argv[2:])
    if sys.argv[1:2] == ["--make-slice"]:
        return make_slice(*sys.argv[2:])
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--mlconv", default="target/release/mlconv")
    p.add_argument("--gigabytes", type=float, default=4)
    p.add_argument("--schemes", default="int4-b32,pal4-g16")
    p.add_argument("--jobs", default="1,2")
    p.add_argument("--package", action="store_true", help="convert it first, and compress the package as well")
    p.add_argument("--no-peer", action="store_true", help="leave coremltools out")
    p.add_argument("--peak", type=float, default=1000, metavar="MB", help="memory that mlconv may take")
    p.add_argument("--folder", default="target/bench", help="a folder on a disk with three times the room")
    p.add_argument("--json", metavar="FILE", help="write all figures there")
    args = p.parse_args()
    os.makedirs(args.folder, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        # In a process of its own, as this one's memory would count as that of its children.
        subprocess.run([sys.executable, __file__, "--make", folder, str(args.gigabytes)], check=True)
        source, weights = (os.path.join(folder, f"model.{e}") for e in ("onnx", "bin"))
        rows, faults = measure(args, folder, source, [weights])
        read = size(weights)
        if args.package:
            package = os.path.join(folder, "model.mlpackage")
            command = [args.mlconv, "convert", source, "-o", package, "--no-verify", "--quiet", "--target", "ios18"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            more, other = measure(args, folder, package, [package])
            rows, faults = rows + more, faults + other
        if not args.no_peer:
            rows += peer(args, folder, read)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as f:
            json.dump(rows, f, indent=1)
    for fault in faults:
        print(fault)
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
