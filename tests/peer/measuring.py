"""The time and the memory of a program."""
import subprocess
import sys
import tempfile

from witnessing import Failed

# A process begins with the memory of the one that starts it, which counts for its greatest: a small one starts what is measured.
MEASURE = """
import os, subprocess, sys, time
begun = time.monotonic()
child = subprocess.Popen(sys.argv[2:])
_, status, used = os.wait4(child.pid, 0)
with open(sys.argv[1], "w") as f:
    print(os.waitstatus_to_exitcode(status), time.monotonic() - begun, used.ru_maxrss * 1024, file=f)
"""


def measured(words):
    """The exit status and what is printed, with seconds and the greatest resident memory in bytes."""
    with tempfile.NamedTemporaryFile("r") as said:
        words = [sys.executable, "-I", "-S", "-c", MEASURE, said.name, *map(str, words)]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            raise Failed(done.stderr[-300:])
        status, seconds, memory = said.read().split()
    return int(status), done.stdout, done.stderr, float(seconds), int(memory)
