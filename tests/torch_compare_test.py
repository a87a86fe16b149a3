#!/usr/bin/env python3
"""Runs `vae compare --dump` for many networks and checks each dump against PyTorch.

    torch_compare_test.py VAE BACKEND         dumps of that backend (cpu, cpu-double, cuda)
    torch_compare_test.py VAE planted-errors  proves that torch_check.py finds errors in a dump

Exit status: 0 agreed, 1 not, 77 torch is not installed.
"""

import io
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import torch_check  # noqa: E402  # ends with status 77 where torch is missing
import numpy as np  # noqa: E402

from torch_cases import CASES, FUSED, IMAGES  # noqa: E402


def write_data(folder):
    """Small data sets for likelihoods that the synthetic ones do not suit."""
    random = np.random.RandomState(3)
    data = random.randint(0, 256, (60, 9)).astype(np.uint8)
    data[:, 0], data[:, 1] = 0, 255
    np.save(folder / "bytes.npy", data)
    np.save(folder / "levels.npy", (random.randint(0, 5, (60, 9)) / 4).astype(np.float32))
    # Importance weights have the rounding of recon: counts are such that it is not too large.
    np.save(folder / "counts.npy", np.floor(np.exp(random.uniform(-1, 4, (60, 9)))).astype("<f4"))
    np.save(folder / "onehot.npy", np.eye(3, dtype=np.uint8)[random.randint(0, 3, (60, 4))])


def has_images():
    folder = os.environ.get("VAE_DATA") or "/usr/share/datasets/fashion-mnist"
    return any(pathlib.Path(folder).glob("train-images-idx3-ubyte*"))


def write_config(path, settings):
    """Settings as TOML; JSON's numbers, strings, truth values and lists are TOML's too."""
    lines = []
    for section in ("data", "model", "objective", "train"):
        lines.append(f"[{section}]")
        for key, value in settings.items():
            if key.startswith(section + "."):
                lines.append(f"{key.removeprefix(section + '.')} = {json.dumps(value)}")
    path.write_text("\n".join(lines) + "\n")


def dump(vae, backend, settings, folder):
    """Has the program write a dump; returns its path."""
    config, path = folder / "config.toml", folder / "dump.safetensors"
    write_config(config, settings)
    path.unlink(missing_ok=True)
    command = [vae, "compare", "--config", config, "--backend", backend, "--against", backend,
               "--steps", "1", "--dump", path]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    if result.returncode != 0 or not path.exists():
        raise SystemExit(f"{' '.join(map(str, command))} ends with {result.returncode}:\n"
                         f"{result.stdout}{result.stderr}")
    return path


def check_binary(path):
    """The pixels of a binarized dump are 0 or 1, and both occur."""
    values = np.unique(torch_check.read_safetensors(path)[1]["x"])
    return list(values) == [0.0, 1.0]


def compare_all(vae, backend, folder):
    failed = []
    cases = CASES | (IMAGES if has_images() else {}) | (FUSED if backend == "cuda" else {})
    if not has_images():
        print(f"not checked, as Fashion-MNIST is not there: {', '.join(IMAGES)}")
    for name, settings in cases.items():
        table = io.StringIO()
        path = dump(vae, backend, settings, folder)
        misses = torch_check.check(path, table)
        if settings.get("data.binarize", "none") != "none" and not check_binary(path):
            misses += 1
            table.write("x is not binary   MISS\n")
        print(f"{name}: {table.getvalue().splitlines()[-1]}")
        if misses:
            print(table.getvalue())
            failed.append(name)
    print(f"{len(cases)} networks, {len(failed)} failed {failed or ''}")
    return 1 if failed or not cases else 0


def write_safetensors(path, metadata, tensors):
    """The inverse of torch_check.read_safetensors."""
    header, data = {"__metadata__": metadata}, b""
    for name, value in tensors.items():
        kind = {4: "F32", 8: "F64"}[value.dtype.itemsize]
        header[name] = {"dtype": kind, "shape": list(value.shape),
                        "data_offsets": [len(data), len(data) + value.nbytes]}
        data += value.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


# By case: outputs that must be right, and settings that must matter.
LIKELIHOOD_PLANTS = {
    "shared variance, 4 draws": (
        ["mean", "decoder.out.logvar", "grad.decoder.logvar"], {"sigma_min": 0.301}),
    "variance of each pixel, elbo": (["mean", "decoder.out.logvar"], {"sigma_max": 1.501}),
    "optimal variance": (["mean", "after.decoder.logvar"], {"variance": "shared"}),
    "logistic, 5 levels, elbo": (["mean", "log_scale"], {"levels": 6, "sigma_min": 0.301}),
    "categorical, elbo": (["logits"], {}),
    "onehot, elbo": (["logits"], {"levels": 6}),
    "poisson, bytes, elbo": (["log_rate", "encoder.0.h"], {}),
}


def planted_errors(vae, folder):
    """Each error planted in a good dump must be found, and the good dump must pass."""
    path = folder / "planted.safetensors"
    good = torch_check.read_safetensors(dump(vae, "cpu", CASES["bars, tanh"], folder))
    adamw = torch_check.read_safetensors(dump(vae, "cpu", CASES["bars, adamw"], folder))
    all_at_once = torch_check.read_safetensors(
        dump(vae, "cpu", CASES["bars, sgd, all at once"], folder))
    full = torch_check.read_safetensors(
        dump(vae, "cpu", CASES["full covariance, sampled kl"], folder))
    floored = torch_check.read_safetensors(dump(vae, "cpu", CASES["free bits, bars"], folder))

    def verdict(change_tensors=None, change_metadata=None, cut=0, of=good):
        metadata, tensors, _ = of
        changed = {name: value.copy() for name, value in tensors.items()}
        data = dict(metadata)
        if change_tensors:
            change_tensors(changed)
        if change_metadata:
            change_metadata(data)
        write_safetensors(path, data, changed)
        if cut:
            path.write_bytes(path.read_bytes()[:-cut])
        try:
            return torch_check.check(path, io.StringIO())
        except (torch_check.DumpError, ValueError):
            return 1

    def scale(name, factor):
        return lambda all: all[name].__imul__(np.float32(factor))

    def put(name, value):
        return lambda all: all[name].ravel().__setitem__(-1, value)

    def setting(key, value):
        """Another setting in the metadata than the dump was made with."""
        def change(data):
            changed = re.sub(rf"(?m)^{key} = .*$", f"{key} = {json.dumps(value)}", data["config"])
            if changed == data["config"]:
                raise SystemExit(f"the dump's configuration has no other {key}")
            data["config"] = changed
        return change

    plants = {}
    goods = [good, adamw, all_at_once, full, floored]
    tensors = good[1]
    computed = [name for name in tensors if name not in ("x", "epsilon")]
    for name, (outputs, settings) in LIKELIHOOD_PLANTS.items():
        dumped = torch_check.read_safetensors(dump(vae, "cpu", CASES[name], folder))
        goods.append(dumped)
        for output in outputs:
            plants[f"{name}: {output} missing"] = {
                "change_tensors": lambda all, output=output: all.pop(output), "of": dumped}
            plants[f"{name}: {output} 0.01 % off"] = {
                "change_tensors": scale(output, 1.0001), "of": dumped}
        for key, value in settings.items():
            plants[f"{name}: another {key}"] = {
                "change_metadata": setting(key, value), "of": dumped}
    for name in computed:
        plants[f"{name} missing"] = {"change_tensors": lambda all, name=name: all.pop(name)}
        plants[f"{name} NaN"] = {"change_tensors": put(name, np.nan)}
        if name.startswith("after."):
            plants[f"{name} without the step"] = {
                "change_tensors": lambda all, name=name: all.update(
                    {name: all[name.removeprefix("after.")].copy()})}
        if tensors[name].ndim == 2:
            plants[f"{name} transposed in shape alone"] = {
                "change_tensors": lambda all, name=name: all.update(
                    {name: all[name].reshape(all[name].shape[::-1])})}
        if name in ("recon", "kl", "loss", "mu", "logvar", "z") or name.startswith("grad."):
            plants[f"{name} 0.01 % off"] = {"change_tensors": scale(name, 1.0001)}
    plants |= {
        "x changed": {"change_tensors": put("x", 0.5)},
        "epsilon changed": {"change_tensors": put("epsilon", 3.0)},
        "gradient of a mean, not of a sum": {
            "change_tensors": lambda all: [
                scale(n, 1.0 / 64)(all) for n in all if n.startswith("grad.")]},
        "mu and logvar swapped": {
            "change_tensors": lambda all: all.update(mu=all["logvar"], logvar=all["mu"])},
        "a tensor nobody knows": {
            "change_tensors": lambda all: all.update(other=np.ones(3, np.float32))},
        "another beta": {"change_metadata": lambda data: data.update(beta="1.01")},
        "another learning rate": {"change_metadata": lambda data: data.update(learning_rate="0.002")},
        "another activation": {
            "change_metadata": lambda data: data.update(
                config=data["config"].replace('"tanh"', '"silu"'))},
        **{
            f"another {key}": {"change_metadata": setting(key, value), "of": all_at_once}
            for key, value in {
                "optimizer": "adagrad", "weight_decay": 0.501, "normalize_gradients": False,
                "clip_norm": 1.505, "ema": 0.601,
            }.items()
        },
        "weight decay of the other kind": {
            "change_metadata": setting("optimizer", "adam"), "of": adamw},
        "no average": {
            "change_tensors": lambda all: all.pop("after.ema.encoder.0.bias"), "of": all_at_once},
        "an average that is the parameter": {
            "change_tensors": lambda all: all.update(
                {"after.ema.encoder.0.bias": all["after.encoder.0.bias"].copy()}),
            "of": all_at_once},
        **{
            f"{name} of a full covariance 0.01 % off": {
                "change_tensors": scale(name, 1.0001), "of": full}
            for name in ("tril", "z", "kl", "log_ratio", "grad.encoder.tril.weight",
                         "grad.encoder.tril.bias", "grad.encoder.logvar.bias")
        },
        "another floor": {"change_metadata": setting("free_bits", 0.0201), "of": floored},
        "no floor": {"change_metadata": setting("free_bits", 0), "of": floored},
        "a floor of another kind": {
            "change_metadata": setting("free_bits_per", "total"), "of": floored},
        "truncated": {"cut": 100},
        "no header": {"cut": 10**9},
    }
    failed = [name for name, plant in plants.items() if verdict(**plant) == 0]
    if any(verdict(of=dumped) != 0 for dumped in goods):
        failed.append("a good dump does not pass")
    print(f"{len(plants)} planted errors, not found: {failed or 'none'}")
    return 1 if failed or not computed else 0


def main(vae, what):
    with tempfile.TemporaryDirectory() as folder:
        write_data(pathlib.Path(folder))
        if what == "planted-errors":
            return planted_errors(vae, pathlib.Path(folder))
        return compare_all(vae, what, pathlib.Path(folder))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
