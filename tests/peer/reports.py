#!/usr/bin/env python3
"""Reports of real comparisons: they fit their schemas, agree with each other and with the exit status, and are the same twice.

  tests/peer/reports.py [--mlconv PATH] [--jobs N] [--only TEXT] [--every N] [--keep FOLDER] [FOLDER…]

`mlconv verify` and `mlconv diff --bisect` compare packages that agree and that do not, of models and samples of this repository, of
one model of N (20) below the folders, and of packages below them that have several functions, states or classes. Each command runs
twice. The JSON must fit docs/report.schema.json, JUnit tests/report/junit.xsd, and have a case for each output and run, and the second
time there must be the same bytes but for the line of the page with the time. `--keep` leaves NAME.json, NAME.html, NAME.md and NAME.xml for
tests/report/check.mjs. Prints each case that fails; the last line is `N passed, M failed`. Needs onnx, jsonschema and lxml.
"""
import argparse
import glob
import json
import os
import shutil
import subprocess
import sys

import jsonschema
import numpy as np
import onnx
from lxml import etree
from onnx import TensorProto, helper, numpy_helper
from verify import TARGET, sample
from witnessing import Failed, files_below, run_all

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../..")
with open(os.path.join(ROOT, "docs/report.schema.json")) as f:
    SCHEMA = jsonschema.Draft202012Validator(json.load(f))
JUNIT = etree.XMLSchema(etree.parse(os.path.join(ROOT, "tests/report/junit.xsd")))
MODELS = os.path.join(ROOT, "fixtures/models")
FORMS = {"html": "r.html", "markdown": "r.md", "junit": "r.xml"}


def mlconv(args, folder, *words, status=(0,)):
    words = [args.mlconv, *map(str, words)]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=600)
    if done.returncode not in status:
        raise Failed(f"exit {done.returncode} of {' '.join(words)}: {done.stderr[-400:]}")
    return done


def reported(args, folder, name, words, status):
    """Runs a comparison twice and holds what it writes to what is said above."""
    words = [*words, *(f"--{form}={path}" for form, path in FORMS.items()), "--format", "json"]
    texts = []
    for _ in range(2):
        done = mlconv(args, folder, *words, status=(0, 1))
        if done.returncode != status:
            raise Failed(f"exit {done.returncode}, wanted {status}: {done.stderr[-300:]}")
        all_ = {"json": done.stdout}
        for path in FORMS.values():
            with open(os.path.join(folder, path)) as f:
                all_[path[2:]] = f.read()
        texts.append(all_)
    if args.keep:
        for form, text in texts[0].items():
            with open(os.path.join(args.keep, f"{name.replace(' ', '-')}.{form}"), "w") as f:
                f.write(text)
    timeless = lambda form, text: [x for x in text.split("\n") if form != "html" or "<time>" not in x]
    for form in texts[0]:
        if timeless(form, texts[0][form]) != timeless(form, texts[1][form]):
            raise Failed(f"the {form} is another one the second time")
    if texts[0]["html"].count("<time>") != 1:
        raise Failed(f"{texts[0]['html'].count('<time>')} times in the page, wanted 1")
    report = json.loads(texts[0]["json"])
    e = jsonschema.exceptions.best_match(SCHEMA.iter_errors(report))
    if e:
        raise Failed(f"/{'/'.join(map(str, e.absolute_path))} does not fit the schema: {e.message[:300]}")
    if report["pass"] != (status == 0):
        raise Failed(f"exit {status}, and `pass` is {report['pass']}")
    junit(report, texts[0]["xml"])
    names = {o["name"] for o in report["outputs"]}
    for form in ("html", "md"):
        # Names of functions stand in a column of their own.
        if not all(n.split(": ")[-1] in texts[0][form] for n in names):
            raise Failed(f"the {form} does not name all of {names}")
    return f"exit {status}"


def junit(report, text):
    tree = etree.fromstring(text.encode())
    if not JUNIT.validate(tree):
        raise Failed(f"JUnit: {JUNIT.error_log.last_error}")
    cases = tree.findall(".//testcase")
    wanted = len(report["outputs"]) + len(report["runs"])
    if len(cases) != wanted or int(tree.get("tests")) != wanted:
        raise Failed(f"JUnit: {len(cases)} cases, {tree.get('tests')} by its head, of {wanted} outputs and runs")
    bad = sum(not o["pass"] for o in report["outputs"]) + sum(r["judged"] and not r["pass"] for r in report["runs"])
    said = [len(tree.findall(f".//{kind}")) for kind in ("failure", "error")]
    heads = [int(tree.get(kind)) for kind in ("failures", "errors")]
    if said != heads or sum(said) != bad:
        raise Failed(f"JUnit: {said} failures and errors, {heads} by its head, {bad} wanted")


def converted(args, folder, source, *more):
    mlconv(args, folder, "convert", source, "-o", "p.mlpackage", "--no-verify", "--quiet", "--force", *more, status=(0, 1))
    return "p.mlpackage"


def digits(*options, command="verify", status=0, fault=False):
    """The network for digits; with a fault, a bias of the package is another one."""

    def check(args, folder, name):
        shutil.copy(os.path.join(MODELS, "digits_cnn/model.onnx"), os.path.join(folder, "m.onnx"))
        source = "m.onnx"
        if fault:
            model, source = onnx.load(os.path.join(folder, "m.onnx")), "wrong.onnx"
            bias = next(w for w in model.graph.initializer if len(w.dims) == 1 and w.data_type == TensorProto.FLOAT)
            bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(0.5), bias.name))
            onnx.save(model, os.path.join(folder, source))
        package = converted(args, folder, source)
        files = [package, "--against", "m.onnx", "--source-runtime", "lowering"]
        files = files if command == "verify" else ["m.onnx", package, "--bisect"]
        return reported(args, folder, name, [command, *files, *options], status)

    return check


def golden(args, folder, name):
    shutil.copy(os.path.join(MODELS, "digits_cnn/model.onnx"), os.path.join(folder, "m.onnx"))
    package = converted(args, folder, "m.onnx")
    against = ["--against", "m.onnx", "--source-runtime", "lowering"]
    mlconv(args, folder, "verify", package, *against, "--save-golden", "g.safetensors", "--quiet")
    return reported(args, folder, name, ["verify", package, "--golden", "g.safetensors"], 0)


def of_source(path, *options, status=0, command="verify"):
    """A model, on the arrays of the io.npz beside it where there is one."""

    def check(args, folder, name):
        source = os.path.abspath(path)
        has_sample = os.path.exists(os.path.join(os.path.dirname(source), "io.npz"))
        more = ["--sample", os.path.basename(sample(source, folder))] if has_sample else []
        package = converted(args, folder, source, *TARGET, *more)
        files = [package, "--against", source, "--source-runtime", "lowering"] if command == "verify" else [source, package, "--bisect"]
        return reported(args, folder, name, [command, *files, *more, *options], status)

    return check


def of_package(path, command):
    """A package and itself."""

    def check(args, folder, name):
        path_ = os.path.abspath(path)
        files = [path_, "--against", path_] if command == "verify" else [path_, path_, "--bisect"]
        return reported(args, folder, name, [command, *files], 0)

    return check


def overflowing(command, *options):
    """Values beyond half precision, in a package that is rounded to it."""

    def check(args, folder, name):
        great, small = (numpy_helper.from_array(np.float32(x), n) for x, n in ((1e5, "g"), (1e-5, "s")))
        nodes = [helper.make_node("Mul", ["x", "g"], ["a"]), helper.make_node("Relu", ["a"], ["b"]), helper.make_node("Mul", ["b", "s"], ["y"])]
        info = lambda n: helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 8])
        graph = helper.make_graph(nodes, "g", [info("x")], [info("y")], [great, small])
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), os.path.join(folder, "m.onnx"))
        package = converted(args, folder, "m.onnx", "--precision", "fp32")
        return reported(args, folder, name, [command, package, "--against", "m.onnx", "--source-runtime", "lowering", *options], 1)

    return check


def random(args, folder, name):
    nodes = [helper.make_node("RandomUniformLike", ["x"], ["r"], seed=1.0), helper.make_node("Add", ["x", "r"], ["y"])]
    info = lambda n: helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 3])
    graph = helper.make_graph(nodes, "g", [info("x")], [info("y")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), os.path.join(folder, "m.onnx"))
    package = converted(args, folder, "m.onnx")
    return reported(args, folder, name, ["verify", package, "--against", "m.onnx", "--source-runtime", "lowering"], 0)


def cases(args):
    test = os.path.abspath(os.path.join(MODELS, "digits/test.npz"))
    samples = ["--sample", test, "--labels", f"{test}:label"]
    remembering = os.path.join(MODELS, "remembering/decoder.pt2")
    yield "agrees", digits()
    yield "agrees on samples", digits(*samples)
    yield "has thresholds", digits("--tolerance=1,1", "--min-top1=0.5", "--max-kl=1", "--min-cosine=0.5")
    yield "is beyond thresholds", digits("--min-snr=200", "--min-top1=1", "--max-kl=0", status=1)
    yield "has a fault", digits(fault=True, status=1)
    yield "has a fault on samples", digits(*samples, fault=True, status=1)
    yield "differs nowhere", digits(command="diff")
    yield "has a culprit", digits(command="diff", fault=True, status=1)
    yield "was recorded", golden
    yield "remembers", of_source(remembering)
    yield "remembers and is beyond", of_source(remembering, "--min-snr=200", status=1)
    yield "remembers op by op", of_source(remembering, command="diff")
    yield "overflows", overflowing("verify", "--emulate=fp16")
    yield "draws", random
    for folder in args.folders:
        for path in sorted(glob.glob(os.path.join(folder, "*.mlpackage"))):
            if os.path.basename(path) in ("multi.mlpackage", "stateful.mlpackage", "classifier.mlpackage", "lut4g.mlpackage"):
                for command in ("verify", "diff"):
                    yield f"{command} {os.path.basename(path)}", of_package(path, command)
    names = ("model.onnx", "model.pt2", "model.pt")
    for path in files_below(args.folders, names)[::args.every]:
        for command in ("verify", "diff"):
            yield f"{command} {os.path.basename(os.path.dirname(path))} {os.path.basename(path)}", of_source(path, command=command)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mlconv", default="target/release/mlconv")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--only", default="")
    parser.add_argument("--every", type=int, default=20)
    parser.add_argument("--keep")
    parser.add_argument("folders", nargs="*")
    args = parser.parse_args()
    args.mlconv = os.path.abspath(args.mlconv)
    if args.keep:
        args.keep = os.path.abspath(args.keep)
        os.makedirs(args.keep, exist_ok=True)
    made = [(name, lambda a, folder, check=check, name=name: check(a, folder, name)) for name, check in cases(args)]
    return run_all(args, None, [], made, {})


if __name__ == "__main__":
    sys.exit(main())
