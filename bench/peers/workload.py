"""What every peer is given: a network with its settings, first batch and loss, and the images.

The network comes from what `vae compare --dump` writes, so that a peer starts from our parameters
and can be held to our loss on our batch and noise. Nothing here needs more than Python itself.
"""

import ast
import ctypes
import gzip
import json
import math
import os
import re
import struct
import sys
import time
import traceback

TOLERANCE = {"fp32": 1e-5, "tf32": 1e-4, "bf16": 2e-3}  # of the loss of one batch, relative


def read_table(file):
    """(metadata, {name: entry}) of a safetensors file, which then is where the tensors begin."""
    (length,) = struct.unpack("<Q", file.read(8))
    table = json.loads(file.read(length))
    return table.pop("__metadata__", {}), table


def read_safetensors(path):
    """(metadata, {name: (shape, bytes of float32)}) of the parameters, the batch and the loss. The
    rest of a dump may be gigabytes."""
    tensors = {}
    with open(path, "rb") as file:
        metadata, table = read_table(file)
        begin = file.tell()
        for name, entry in table.items():
            if not re.fullmatch(r"x|epsilon|loss|(encoder|decoder).*\.(weight|bias)", name):
                continue
            if entry["dtype"] != "F32":
                raise ValueError(f"{path}: {name} is {entry['dtype']}: dump a backend in float")
            first, last = entry["data_offsets"]
            file.seek(begin + first)
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
    """(examples, pixels, bytes) of a file that read_array reads."""
    (examples, *shape), values = read_array(path)
    return examples, math.prod(shape), values


def read_array(path):
    """(shape, bytes) of an .npy or IDX file of bytes, gzipped or not. A ValueError says what is
    wrong with it."""
    with open(path, "rb") as file:
        values = bytearray(file.read())
    if values[:2] == b"\x1f\x8b":
        values = bytearray(gzip.decompress(values))
    try:
        if values[:6] == b"\x93NUMPY":
            shape, first = npy_header(values)
        elif values[:3] == b"\0\0\x08" and 2 <= values[3] <= 4:
            first = 4 + 4 * values[3]
            shape = struct.unpack(f">{values[3]}I", values[4:first])
        else:
            raise ValueError("neither an .npy nor an IDX file of bytes")
    except (IndexError, KeyError, SyntaxError, struct.error):
        raise ValueError(f"{path}: its header cannot be read") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    size = math.prod(shape)
    if len(shape) < 2 or size == 0 or size > len(values) - first:
        raise ValueError(f"{path}: {len(values) - first} bytes are not images of shape {shape}")
    return shape, values[first : first + size]


def npy_header(values):
    """(shape, where the values begin) of an .npy file."""
    first = 10 if values[6] == 1 else 12
    (length,) = struct.unpack("<H" if first == 10 else "<I", values[8:first])
    header = ast.literal_eval(values[first : first + length].decode("latin1"))
    if header["descr"] not in ("|u1", "u1") or header["fortran_order"]:
        raise ValueError("not bytes in row-major order")
    return header["shape"], first + length


def write_images(path, shape, values):
    """Writes bytes as an .npy file of uint8."""
    header = repr({"descr": "|u1", "fortran_order": False, "shape": tuple(shape)})
    header += " " * (-(len(header) + 11) % 64) + "\n"
    with open(path, "wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode())
        file.write(values)


def write_idx(path, shape, values):
    """Writes bytes as an IDX file."""
    with open(path, "wb") as file:
        file.write(bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape))
        file.write(values)


class Workload:
    """A network and its training as a dump has them, and images that stay on the device."""

    def __init__(self, dump, images, test_images=None):
        """Without `test_images` they are the last tenth of the others, as vae has them."""
        metadata, self.tensors = read_safetensors(dump)
        self.config = config = read_config(metadata["config"])
        self.model, self.objective = config["model"], config["objective"]
        self.train, self.binarize = config["train"], config["data"]["binarize"] == "dynamic"
        self.beta = float(metadata["beta"])
        self.learning_rate = float(metadata["learning_rate"])
        self.batch, self.samples = self.train["batch"], self.objective["samples"]
        self.is_iwae = self.objective["bound"] == "iwae"
        self.examples, self.pixels, self.bytes = read_images(images)
        if test_images is None:
            self.examples -= self.examples // 10
            self.test_bytes = self.bytes[self.examples * self.pixels :]
        else:
            self.test_bytes = read_images(test_images)[2]
        self.check()

    def take(self, dump):
        """The first batch, parameters and loss of another dump, of which nothing else differs but
        its seed."""
        metadata, tensors = read_safetensors(dump)
        config = read_config(metadata["config"])
        config["train"] |= {"seed": self.train["seed"]}
        if config != self.config:
            raise ValueError(f"{dump} has other settings than the dump before it")
        self.tensors = tensors

    def check(self):
        """Peers are written for what is measured, not for everything that vae does."""
        expected = [(self.model, "likelihood", ["bernoulli"]), (self.model, "prior", ["normal"]),
                    (self.model, "posterior", ["diagonal"]), (self.train, "optimizer", ["adam"]),
                    (self.model, "activation", ["relu", "tanh"]), (self.train, "ema", [0]),
                    (self.train, "weight_decay", [0]), (self.objective, "free_bits", [0]),
                    (self.train, "clip_norm", [0]), (self.objective, "gradient", ["pathwise"]),
                    (self.train, "schedule", ["constant"]), (self.train, "warmup_steps", [0]),
                    (self.train, "beta_schedule", ["constant"]),
                    (self.train, "normalize_gradients", [False]),
                    (self.objective, "kl", ["analytic"]), (self.config["data"], "validation", [0]),
                    (self.config["data"], "binarize", ["none", "dynamic"])]
        for section, key, values in expected:
            if section[key] not in values:
                raise ValueError(f"no peer has {key} = {section[key]}")
        if not self.is_iwae and self.samples != 1:
            raise ValueError("no peer has an ELBO of several draws")

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


def blas_libraries():
    """The shared objects that matrix products run in, as mapped into this process."""
    with open("/proc/self/maps", encoding="utf-8") as maps:
        paths = {line.split()[-1] for line in maps
                 if "cublas" not in line and ("blas" in line or "mkl" in line)}
    return sorted(os.path.realpath(path) for path in paths)


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
