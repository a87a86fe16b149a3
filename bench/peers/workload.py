"""What every peer is given: a network with its settings, first batch and loss, and the images.

The network comes from what `vae compare --dump` writes, so that a peer starts from our parameters
and can be held to our loss on our batch and noise. Nothing here needs more than Python itself.
"""

import ast
import ctypes
import json
import math
import os
import re
import struct
import sys
import time
import traceback

HEADER = 8  # bytes in which a safetensors file says how long its table is
TOLERANCE = {"fp32": 1e-5, "tf32": 1e-4, "bf16": 2e-3}  # of the loss of one batch, relative


def read_safetensors(path):
    """(metadata, {name: (shape, bytes of float32)}) of the parameters, the batch and the loss. The
    rest of a dump may be gigabytes."""
    tensors = {}
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(HEADER))
        table = json.loads(file.read(length))
        metadata = table.pop("__metadata__", {})
        for name, entry in table.items():
            if not re.fullmatch(r"x|epsilon|loss|(encoder|decoder).*\.(weight|bias)", name):
                continue
            if entry["dtype"] != "F32":
                raise ValueError(f"{path}: {name} is {entry['dtype']}: dump a backend in float")
            first, last = entry["data_offsets"]
            file.seek(HEADER + length + first)
            tensors[name] = (entry["shape"], bytearray(file.read(last - first)))
    return metadata, tensors


def read_config(text):
    """{section: {key: value}} of the TOML that vae writes, whose values are JSON's too."""
    config, section = {}, {}
    for line in text.splitlines():
        line = line.strip()
        if line.startswith("["):
            section = config.setdefault(line.strip("[]"), {})
        elif line and not line.startswith("#"):
            key, value = line.split("=", 1)
            section[key.strip()] = json.loads(value)
    return config


def read_images(path):
    """(examples, pixels, bytes) of an .npy file of uint8."""
    with open(path, "rb") as file:
        magic = file.read(8)
        if magic[:6] != b"\x93NUMPY":
            raise ValueError(f"{path} is no .npy file")
        (length,) = struct.unpack("<H" if magic[6] == 1 else "<I", file.read(2 if magic[6] == 1
                                                                             else 4))
        header = ast.literal_eval(file.read(length).decode("latin1"))
        if header["descr"] not in ("|u1", "u1") or header["fortran_order"]:
            raise ValueError(f"{path}: not bytes in row-major order")
        examples, *shape = header["shape"]
        return examples, math.prod(shape), bytearray(file.read())


def write_images(path, shape, values):
    """Writes bytes as an .npy file of uint8."""
    header = repr({"descr": "|u1", "fortran_order": False, "shape": tuple(shape)})
    header += " " * (-(len(header) + 11) % 64) + "\n"
    with open(path, "wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode())
        file.write(values)


class Workload:
    """A network and its training as a dump has them, and images that stay on the device."""

    def __init__(self, dump, images):
        metadata, self.tensors = read_safetensors(dump)
        config = read_config(metadata["config"])
        self.model, self.objective = config["model"], config["objective"]
        self.train, self.binarize = config["train"], config["data"]["binarize"] == "dynamic"
        self.beta = float(metadata["beta"])
        self.learning_rate = float(metadata["learning_rate"])
        self.batch, self.samples = self.train["batch"], self.objective["samples"]
        self.is_iwae = self.objective["bound"] == "iwae"
        examples, self.pixels, self.bytes = read_images(images)
        self.examples = examples - examples // 10  # vae keeps the last tenth of a file for tests
        self.check()

    def check(self):
        """Peers are written for what is measured, not for everything that vae does."""
        expected = [(self.model, "likelihood", ["bernoulli"]), (self.model, "prior", ["normal"]),
                    (self.model, "posterior", ["diagonal"]), (self.train, "optimizer", ["adam"]),
                    (self.model, "activation", ["relu", "tanh"]), (self.train, "ema", [0]),
                    (self.train, "weight_decay", [0]), (self.objective, "free_bits", [0]),
                    (self.train, "clip_norm", [0]), (self.objective, "gradient", ["pathwise"])]
        for section, key, values in expected:
            if section[key] not in values:
                raise ValueError(f"no peer has {key} = {section[key]}")
        if not self.is_iwae and (self.samples != 1 or self.objective["kl"] != "analytic"):
            raise ValueError("no peer has an ELBO of several draws or with a sampled KL term")

    def layers(self, side):
        """Names of the weights and biases of a side's hidden layers, in order."""
        count = len(self.model[f"{side}_hidden"])
        return [(f"{side}.{i}.weight", f"{side}.{i}.bias") for i in range(count)]

    def loss(self):
        """Ours, of the dump's batch."""
        return struct.unpack("<f", self.tensors["loss"][1])[0]

    def is_equal(self, loss, precision):
        """Whether it is our loss, but for rounding; a NaN is not."""
        return abs(loss - self.loss()) <= TOLERANCE[precision] * abs(self.loss())


def serve(open_peer):
    """Answers requests, a JSON object a line, on standard input until it ends.

    open_peer() returns an object with versions(), prepare(variant) -> loss of the dump's batch,
    measure(variant, seconds) -> microseconds a step of several windows, and
    train(variant, steps) -> mean loss of the first steps from our parameters.
    Standard output is for answers alone: whatever libraries print goes to standard error.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(value):
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    try:
        peer = open_peer()
        answer({"versions": peer.versions()})
    except NotHere as error:
        answer({"skipped": str(error)})
        return
    except Exception as error:  # pylint: disable=broad-except  # whatever it is, it is the answer
        answer({"error": one_line(error)})
        return
    for line in sys.stdin:
        request = json.loads(line)
        begin = time.perf_counter()
        try:
            result = getattr(peer, request.pop("do"))(**request)
            answer({"result": result, "seconds": time.perf_counter() - begin})
        except NotHere as error:
            answer({"skipped": str(error)})
        except Exception as error:  # pylint: disable=broad-except
            traceback.print_exc()
            answer({"error": one_line(error)})


def cublaslt_version():
    """Of the library that this process has loaded; "unknown" without one."""
    with open("/proc/self/maps", encoding="utf-8") as maps:
        paths = {line.split()[-1] for line in maps if "/libcublasLt.so" in line}
    for path in paths:
        get = ctypes.CDLL(path).cublasLtGetVersion
        get.restype = ctypes.c_size_t
        return str(get())
    return "unknown"


class NotHere(Exception):
    """This machine, or this version of the framework, has no such thing."""


def one_line(error):
    text = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {text[0][:200]}"
