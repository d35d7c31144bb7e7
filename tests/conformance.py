#!/usr/bin/env python3
"""Holds the results of a suite against the list of known exceptions.

  conformance.py RESULTS.json [--exceptions fixtures/conformance/onnx.toml] [--bless]

RESULTS.json maps each case to `[status, detail]`, where the status is `pass` or why it failed. The list holds one line
for each case that is known to fail: `case = "reason"`. A case that fails and is not on the list is a failure, and so is
one that is on the list and passes: then its line must go. `--bless` writes the list as the results are; reasons that
stand there stay for the cases that still fail. The last line is `N passed, M failed`; known exceptions are neither.
"""
import argparse
import json
import os
import re
import sys
import tomllib

HEADER = """\
# Cases of a suite that do not pass, each with the reason. Everything else must pass.
# `python3 tests/conformance.py RESULTS.json --bless` writes this list; read what it changes.

"""
LONGEST = 160


def reason(status, detail):
    """The first line of a failure's message, without places that differ from run to run."""
    line = (detail or "").strip().splitlines()[0].strip() if (detail or "").strip() else ""
    line = re.sub(r"/\S*/", "", line)
    line = re.sub(r"^error\[([A-Z]\d+)\]: ", r"\1: ", line)
    line = " ".join(f"{status}: {line}".split()) if status != "convert" else " ".join(line.split())
    line = line or status
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


def quoted(text):
    return json.dumps(text, ensure_ascii=False)


def write(path, exceptions):
    lines = [f"{quoted(case)} = {quoted(why)}\n" for case, why in sorted(exceptions.items())]
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        f.write(HEADER + "".join(lines))


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("results")
    p.add_argument("--exceptions", default=os.path.join(here, "..", "fixtures", "conformance", "onnx.toml"))
    p.add_argument("--bless", action="store_true", help="write the list of exceptions as the results are")
    args = p.parse_args()
    with open(args.results, encoding="utf-8") as f:
        results = json.load(f)
    known = {}
    if os.path.exists(args.exceptions):
        with open(args.exceptions, "rb") as f:
            known = tomllib.load(f)
    failing = {case: reason(*outcome) for case, outcome in results.items() if outcome[0] != "pass"}
    if args.bless:
        write(args.exceptions, {case: known.get(case, why) for case, why in failing.items()})
        print(f"{len(failing)} exceptions written")
        known = failing
    bad = []
    bad += [f"{case}: fails and is not on the list: {failing[case]}" for case in sorted(set(failing) - set(known))]
    bad += [f"{case}: passes; take it off the list" for case in sorted(set(known) & set(results) - set(failing))]
    bad += [f"{case}: on the list, but no case of the suite" for case in sorted(set(known) - set(results))]
    print("\n".join(bad), end="\n" if bad else "")
    share = 100 * (len(results) - len(failing)) / max(1, len(results))
    print(f"{share:.2f} % of {len(results)} cases pass, {len(set(failing) & set(known))} are known exceptions")
    print(f"{len(set(results) - set(failing) - set(known))} passed, {len(bad)} failed")
    sys.exit(bool(bad))


main()
