#!/usr/bin/env python3
"""Runs `vae compare --dump` for many networks and checks each dump against PyTorch.

    torch_compare_test.py VAE BACKEND         dumps of that backend (cpu, cpu-double, cuda)
    torch_compare_test.py VAE planted-errors  proves that torch_check.py finds errors in a dump

Exit status: 0 agreed, 1 not, 77 torch is not installed.
"""

import io
import itertools
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

BARS = {"data.source": "synthetic:bars", "train.batch": 32}
LINEAR = {
    "data.source": "synthetic:linear-gaussian",
    "model.likelihood": "gaussian",
    "model.sigma": 0.5,
    "train.batch": 33,
}
HIDDEN = {"model.encoder_hidden": [37], "model.decoder_hidden": [41], "model.latent": 5}
DEEP = {"model.encoder_hidden": [24, 17], "model.decoder_hidden": [19, 23, 29], "model.latent": 3}

# What the optimisers' settings add to a network. Some rates are large, so that the step is told
# from the rounding of the parameters, and the second decay so that it is told from the gradient.
SGD = {"train.optimizer": "sgd", "train.learning_rate": 0.05}
OPTIMIZERS = {
    "adam, decay": {"train.weight_decay": 0.1},
    "adamw": {"train.optimizer": "adamw", "train.weight_decay": 0.5},
    "adagrad": {"train.optimizer": "adagrad", "train.learning_rate": 0.01},
    "adagrad, decay, other epsilon": {
        "train.optimizer": "adagrad", "train.weight_decay": 0.5, "train.adagrad_epsilon": 0.01,
        "train.learning_rate": 0.05,
    },
    "sgd": SGD,
    "sgd, no momentum, decay": {**SGD, "train.momentum": 0.0, "train.weight_decay": 2.0},
    "sgd, clipped": {**SGD, "train.clip_norm": 0.5},
    "sgd, a limit that is not reached": {**SGD, "train.clip_norm": 1e6},
    "sgd, normalized": {**SGD, "train.normalize_gradients": True},
    "adam, normalized, clipped, average": {
        "train.normalize_gradients": True, "train.clip_norm": 1e-6, "train.ema": 0.5,
    },
    "sgd, all at once": {
        **SGD, "train.weight_decay": 0.5, "train.normalize_gradients": True,
        "train.clip_norm": 1.5, "train.ema": 0.6,
    },
}

# Of each likelihood: settings, with data that write_data makes. Bounds so narrow that they matter.
BOUNDS = {"model.sigma_min": 0.3, "model.sigma_max": 1.5}
LIKELIHOODS = {
    "shared variance": {**LINEAR, **BOUNDS, "model.variance": "shared"},
    "variance of each pixel": {**LINEAR, **BOUNDS, "model.variance": "pixel"},
    "logistic, bytes": {**BOUNDS, "data.source": "bytes.npy", "model.likelihood": "logistic"},
    "logistic, 5 levels": {
        **BOUNDS, "data.source": "levels.npy", "model.likelihood": "logistic", "model.levels": 5},
    "categorical": {
        "data.source": "levels.npy", "model.likelihood": "categorical", "model.levels": 5},
    "onehot": {"data.source": "onehot.npy", "model.likelihood": "onehot", "model.levels": 3},
    "poisson, bytes": {"data.source": "bytes.npy", "model.likelihood": "poisson"},
    "poisson, floats": {"data.source": "counts.npy", "model.likelihood": "poisson"},
}
OBJECTIVES_OF_ALL = {
    "elbo": {},
    "4 draws": {"samples": 4},
    "iwae": {"bound": "iwae", "samples": 5},
    "dreg": {"bound": "iwae", "gradient": "dreg", "samples": 5},
    "score": {"gradient": "score", "baseline": "leave-one-out", "samples": 3},
}
OPTIMAL = {**LINEAR, "model.variance": "optimal", "model.sigma_min": 0.01}
LIKELIHOOD_CASES = {
    **{
        f"{name}, {objective}": {
            **settings, **HIDDEN, "model.activation": "tanh", "train.batch": 31, "train.beta": 0.7,
            **{f"objective.{key}": value for key, value in added.items()}}
        for (name, settings), (objective, added) in itertools.product(
            LIKELIHOODS.items(), OBJECTIVES_OF_ALL.items())
    },
    "optimal variance": {**OPTIMAL, **HIDDEN},
    "optimal variance, 4 draws": {**OPTIMAL, **HIDDEN, "objective.samples": 4},
    "optimal variance, sampled kl, average": {
        **OPTIMAL, **HIDDEN, "objective.samples": 3, "objective.kl": "sampled", "train.ema": 0.5},
    "optimal variance at its floor": {
        **OPTIMAL, **HIDDEN, "model.sigma_min": 5.0, "model.sigma_max": 10.0},
    "poisson, biases from the data, gated": {
        **LIKELIHOODS["poisson, bytes"], **DEEP, "model.activation": "gated", "train.batch": 31,
        "model.data_bias": True},
    "categorical, biases from the data, no hidden layers": {
        **LIKELIHOODS["categorical"], "model.encoder_hidden": [], "model.decoder_hidden": [],
        "train.batch": 31, "model.data_bias": True},
}

CASES = {
    **LIKELIHOOD_CASES,
    **{
        f"{data}, {activation}": {**settings, **HIDDEN, "model.activation": activation}
        for (data, settings), activation in itertools.product(
            (("bars", BARS), ("linear-gaussian", LINEAR)), torch_check.ACTIVATIONS
        )
    },
    "no hidden layers": {
        **LINEAR, "model.encoder_hidden": [], "model.decoder_hidden": [], "model.latent": 2
    },
    "deep, beta, other Adam": {
        **BARS, **DEEP, "model.activation": "silu", "train.beta": 2.5, "train.adam_beta1": 0.8,
        "train.adam_beta2": 0.99, "train.adam_epsilon": 1e-4, "train.learning_rate": 0.01,
    },
    "deep, gated": {**BARS, **DEEP, "model.activation": "gated", "model.data_bias": True},
    "the first step of schedules": {
        **BARS, **HIDDEN, "train.warmup_steps": 4, "train.beta_schedule": "linear",
    },
    "one example, he": {**BARS, **HIDDEN, "train.batch": 1, "model.initialization": "he"},
    # A range so narrow that many log-variances lie outside, where the gradient is zero.
    "clamped log-variance": {
        **BARS, **HIDDEN, "model.logvar_min": -0.05, "model.logvar_max": 0.05,
        "model.initialization": "glorot",
    },
    # Every objective, on either data.
    **{
        f"{name}, {data}": {**settings, **HIDDEN, "model.activation": "tanh", "train.beta": 0.7,
                            **{f"objective.{key}": value for key, value in objective.items()}}
        for (data, settings), (name, objective) in itertools.product(
            (("bars", BARS), ("linear-gaussian", LINEAR)),
            {
                "4 draws": {"samples": 4},
                "sampled kl": {"kl": "sampled"},
                "sampled kl, 3 draws": {"kl": "sampled", "samples": 3},
                "iwae": {"bound": "iwae", "samples": 5},
                "iwae of 1": {"bound": "iwae"},
                "dreg": {"bound": "iwae", "gradient": "dreg", "samples": 5, "kl": "sampled"},
                "score": {"gradient": "score"},
                "score, sampled kl": {"gradient": "score", "kl": "sampled",
                                      "baseline": "running-mean"},
                "free bits": {"free_bits": 0.02},
                "free bits, 3 draws": {"free_bits": 0.1, "samples": 3},
                "free bits in total": {"free_bits": 0.1, "free_bits_per": "total"},
                "free bits in total, none left": {"free_bits": 50, "free_bits_per": "total"},
                "free bits, score": {"free_bits": 0.02, "gradient": "score", "samples": 2},
                "score, leave one out": {"gradient": "score", "baseline": "leave-one-out",
                                         "samples": 3, "kl": "sampled"},
            }.items(),
        )
    },
    # Learned priors, with every objective.
    **{
        f"{prior}, {name}, {data}": {
            **settings, **HIDDEN, "model.activation": "tanh", "train.beta": 0.7,
            "model.prior": prior, "model.prior_components": 7,
            **{f"objective.{key}": value for key, value in objective.items()}}
        for (data, settings), prior, (name, objective) in itertools.product(
            (("bars", BARS), ("linear-gaussian", LINEAR)),
            ("mixture", "vamp"),
            {
                "elbo": {},
                "3 draws": {"samples": 3},
                "iwae": {"bound": "iwae", "samples": 5},
                "dreg": {"bound": "iwae", "gradient": "dreg", "samples": 5},
                "score": {"gradient": "score", "samples": 2},
            }.items(),
        )
    },
    "mixture, wide, average": {
        **BARS, **DEEP, "model.prior": "mixture", "model.prior_components": 70, "train.ema": 0.5,
    },
    "vamp, gated": {**BARS, **DEEP, "model.prior": "vamp", "model.activation": "gated"},
    "vamp, no hidden layers": {
        **LINEAR, "model.encoder_hidden": [], "model.decoder_hidden": [], "model.latent": 2,
        "model.prior": "vamp", "model.prior_components": 40,
    },
    # Components' log-variances lie outside the range, where the gradient is zero.
    "vamp, clamped log-variance": {
        **BARS, **HIDDEN, "model.logvar_min": -0.05, "model.logvar_max": 0.05,
        "model.initialization": "glorot", "model.prior": "vamp",
    },
    # A full covariance.
    **{
        f"full covariance, {name}": {**settings, "model.posterior": "full",
                                     "model.activation": "tanh", "train.beta": 0.7}
        for name, settings in {
            "bars": {**BARS, **HIDDEN},
            "of 1": {**BARS, **HIDDEN, "model.latent": 1},
            "of 2, deep": {**BARS, **DEEP, "model.latent": 2},
            "of 33": {**LINEAR, **HIDDEN, "model.latent": 33},
            "no hidden layers": {**LINEAR, "model.encoder_hidden": [], "model.decoder_hidden": [],
                                 "model.latent": 3},
            "clamped": {**BARS, **HIDDEN, "model.logvar_min": -0.05, "model.logvar_max": 0.05},
            "3 draws": {**LINEAR, **HIDDEN, "objective.samples": 3},
            "sampled kl": {**BARS, **HIDDEN, "objective.kl": "sampled"},
            "sampled kl, 3 draws": {**LINEAR, **HIDDEN, "objective.kl": "sampled",
                                    "objective.samples": 3},
            "iwae": {**BARS, **HIDDEN, "objective.bound": "iwae", "objective.samples": 5},
            "dreg": {**LINEAR, **HIDDEN, "objective.bound": "iwae", "objective.samples": 5,
                     "objective.gradient": "dreg"},
            "score": {**BARS, **HIDDEN, "objective.gradient": "score", "objective.samples": 3,
                      "objective.baseline": "leave-one-out"},
            "score, sampled kl": {**BARS, **HIDDEN, "objective.gradient": "score",
                                  "objective.kl": "sampled"},
            "free bits in total": {**LINEAR, **HIDDEN, "objective.free_bits": 0.1,
                                   "objective.free_bits_per": "total"},
        }.items()
    },
    **{
        f"bars, {name}": {**BARS, **HIDDEN, "model.activation": "tanh", **settings}
        for name, settings in OPTIMIZERS.items()
    },
}
# Real images, where they are: grey, and drawn anew.
IMAGES = {
    "fashion-mnist grey": {"data.source": "fashion-mnist", "train.batch": 128},
    "fashion-mnist binarized": {
        "data.source": "fashion-mnist", "data.binarize": "dynamic", "train.batch": 128,
        "model.encoder_hidden": [100], "model.decoder_hidden": [100], "model.activation": "tanh",
    },
}


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
    cases = CASES | (IMAGES if has_images() else {})
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
