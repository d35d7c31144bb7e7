"""What the checks of witnesses share: how a report is read, and how cases run."""
import concurrent.futures
import os
import re
import subprocess
import tempfile

import numpy as np


class Failed(Exception):
    pass


def code_of(done):
    """The code of the first error of a run, and its line."""
    line = next((line for line in done.stderr.splitlines() if line.startswith("error[")), "")
    return line[6:11], line


def describe(parity):
    """The outputs of a comparison that differ."""

    def say(o):
        far = f"max abs {o['max_abs']:.3g}, SNR {o['snr_db']} dB, {o['unequal']} unequal, {o['non_finite']} not finite alike"
        return f"{o['name']} {o['ty']}: {o['mismatch'] or far}"

    bad = [say(o) for o in parity["outputs"] if not o["pass"]]
    return "; ".join(bad) + f" (our lowering agrees with the package: {parity['lowering_agrees']})"


def sample_beside(path, folder):
    """Options for the arrays `in_…` of an io.npz beside a model, in their order; none where there are none."""
    io = os.path.join(os.path.dirname(path), "io.npz")
    if not os.path.exists(io):
        return []
    with np.load(io) as z:
        names = sorted((k for k in z.files if re.fullmatch(r"in_\d+", k)), key=lambda k: int(k[3:]))
        arrays = {f"in_{i:03}": z[k] for i, k in enumerate(names)}
    if not arrays:
        return []
    sample = os.path.join(folder, "in.npz")
    np.savez(sample, **arrays)
    return ["--sample", sample]


def files_below(folders, suffixes):
    return sorted(os.path.join(root, f) for top in folders for root, _, files in os.walk(top) for f in files
                  if f.endswith(suffixes))


def run_all(args, found, paths, made, exceptions):
    """Runs `found(args, path)` for paths and the checks of `made`, each in a folder of its own, those that `args.only` names.
    A case that `exceptions` has a part of the name of must fail. The result is whether something did that must not."""
    cases = [(p, lambda p=p: found(args, p)) for p in paths if args.only in p]

    def of_made(check):
        with tempfile.TemporaryDirectory() as folder:
            return check(args, folder) or "made"

    cases += [(name, lambda c=check: of_made(c)) for name, check in made if args.only in name]
    counts, failed = {}, 0
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for (name, _), job in zip(cases, [pool.submit(run) for _, run in cases]):
            excepted = next((why for part, why in exceptions.items() if part in name), None)
            try:
                kind = job.result()
                if excepted:
                    raise Failed(f"agrees now; it is listed as: {excepted}")
            except Exception as e:
                if excepted and "listed as" not in str(e) and isinstance(e, (Failed, subprocess.TimeoutExpired)):
                    kind = "excepted"
                else:
                    failed += 1
                    print(f"{name}: {e if isinstance(e, Failed) else repr(e)}", flush=True)
                    continue
            counts[kind] = counts.get(kind, 0) + 1
    print(", ".join(f"{n} {kind}" for kind, n in sorted(counts.items())))
    print(f"{sum(counts.values())} passed, {failed} failed")
    return bool(failed)
