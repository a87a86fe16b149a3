"""`vae` as the checks of scripts/check_gpu run it."""

import functools
import pathlib
import re
import tempfile
import threading

from check_verdicts import FAILED, NOT_RUN

UNITS = {"MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def gpu_of(devices):
    """((major, minor), bytes of memory) of the first GPU that `vae devices` names; (None, None)
    without one."""
    line = re.search(r"^cuda +\d+: .*", devices, re.MULTILINE)
    capability = line and re.search(r"compute capability (\d+)\.(\d+)", line[0])
    memory = line and re.search(r", ([\d.]+) (MiB|GiB|TiB)$", line[0])
    return (capability and tuple(map(int, capability.groups())),
            memory and int(float(memory[1]) * UNITS[memory[2]]))


class Program:
    """`devices` is what `vae devices` says. Before it runs it is to be given a folder for what it
    writes, and the places of data that options may name."""

    def __init__(self, commands, binaries, backend, devices=""):
        self.commands, self.bin, self.backend = commands, pathlib.Path(binaries), backend
        self.folder, self.places = None, {}
        self.capability, self.memory = gpu_of(devices)

    def why_not(self, precision, plan=None):
        """Why nothing can be checked in this precision or with this plan; None if it can."""
        if self.backend == "cpu" and (precision != "fp32" or plan is not None):
            return f"the CPU has no {plan or precision}"
        if self.capability is not None and self.capability < (8, 0):
            missing = precision if precision != "fp32" else plan if plan == "fused" else None
            if missing is not None:
                return f"this GPU has no {missing}: capability %d.%d" % self.capability
        return None

    def run(self, *command, **variables):
        parts = [self.places.get(part, part) for part in command]
        return self.commands.run([self.bin / "vae", *parts], **variables)

    def train(self, out, precision, *options, data="IMAGES"):
        """The result of a training run."""
        return self.run("train", "--data", data, "--backend", self.backend, "--out", out,
                        "--precision", precision, *options)

    def trained(self, out, precision, *options, data="IMAGES"):
        """The checkpoint of a training run, which must end well: RuntimeError."""
        result = self.train(out, precision, *options, data=data)
        if result.rc != 0:
            raise RuntimeError(result.last_line())
        return out / "checkpoint.safetensors"


def check_of_runs(check):
    """Makes a method of something that has a program, which gets a folder and a precision and gives
    a verdict and a detail, one that gets the precision: it does not run where the precision cannot,
    and where a run in it fails it has failed."""

    @functools.wraps(check)
    def checked(self, precision="fp32", plan=None):
        why = self.program.why_not(precision, plan)
        if why is not None:
            return NOT_RUN, why
        with tempfile.TemporaryDirectory(dir=self.program.folder) as folder:
            options = (precision,) if plan is None else (precision, plan)
            try:
                return check(self, pathlib.Path(folder), *options)
            except (RuntimeError, OSError, ValueError, KeyError, IndexError) as error:
                return FAILED, str(error)[:160]

    return checked


class Once:
    """What a function gives, for all who ask, from any thread: it is called once."""

    def __init__(self, function):
        self.function, self.lock, self.values = function, threading.Lock(), []

    def __call__(self):
        with self.lock:
            if not self.values:
                self.values.append(self.function())
            return self.values[0]
