#!/usr/bin/env python3
"""Checks what `vae compare --dump FILE` wrote against PyTorch: torch_check.py FILE...

From the dump's parameters, x and epsilon alone it rebuilds the network in torch, in double,
recomputes every activation, what the decoder's outputs mean, recon, kl and the loss with
torch.distributions, all gradients by autograd, one step of the optimiser by torch.optim and the
parameters' average, and compares tensor by tensor. Nothing of our own code takes part but the
file. Each tensor's relative L2 error must be within the gate of the dump's precision; a NaN, a
missing tensor and a tensor that nothing here recomputes are misses.

Exit status: 0 all within the gates, 1 a miss or an unreadable dump, 77 torch is not installed.
"""

import itertools
import json
import math
import sys
import tomllib

try:
    import numpy as np
    import torch
    from torch.distributions import (
        Categorical, Independent, MixtureSameFamily, MultivariateNormal, Normal, kl_divergence,
    )
except ModuleNotFoundError as error:
    print(f"skipped: {error}; on Debian: apt-get install python3-torch python3-numpy")
    sys.exit(77)

import torch_likelihood  # noqa: E402  # which needs torch

NUMPY_TYPE = {"F32": np.dtype("<f4"), "F64": np.dtype("<f8")}
# Rounding of a float network of these depths against double stays about ten times below. The loss
# is one mean over thousands of terms, whose errors cancel. In double only the order of sums
# differs.
GATE = {"F32": 1e-5, "F64": 1e-10}
LOSS_GATE = {"F32": 1e-6, "F64": 1e-10}
# Of the step that was taken, after − before: with Adam and Adagrad an element's first step is
# lr·g/(|g| + eps) whatever the size of g, so where g is little more than rounding, so is the step.
STEP_GATE = {"F32": 1e-3, "F64": 1e-7}
ACTIVATIONS = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "softplus": torch_likelihood.softplus,
    "gelu": torch.nn.functional.gelu,
    "silu": torch.nn.functional.silu,
    "gated": lambda x: x,  # the gate is in the layer
}


class DumpError(Exception):
    """The dump cannot be checked; the message says why."""


def read_safetensors(path):
    """Returns (metadata, {name: array}, dtype name) of a file whose tensors share one type."""
    with open(path, "rb") as file:
        content = file.read()
    size = int.from_bytes(content[:8], "little")
    if len(content) < 8 or size > len(content) - 8:
        raise DumpError("truncated: no whole header")
    try:
        header = json.loads(content[8 : 8 + size])
    except ValueError as error:
        raise DumpError(f"the header is not JSON: {error}") from error
    metadata = header.pop("__metadata__", {})
    kinds = {entry["dtype"] for entry in header.values()}
    if len(kinds) != 1 or not kinds <= NUMPY_TYPE.keys():
        raise DumpError(f"tensors must all be F32 or all F64, not {sorted(kinds)}")
    kind = kinds.pop()
    data = content[8 + size :]
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        count = math.prod(entry["shape"])
        if end > len(data) or end - begin != count * NUMPY_TYPE[kind].itemsize:
            raise DumpError(f"{name}: its bytes do not match its shape, or lie past the end")
        tensors[name] = np.frombuffer(data[begin:end], NUMPY_TYPE[kind]).reshape(entry["shape"])
    return metadata, tensors, kind


class Gated(torch.nn.Linear):
    """(W x + b) * sigmoid(V x + c)."""

    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.gate = torch.nn.Linear(inputs, outputs)

    def forward(self, x):
        return super().forward(x) * torch.sigmoid(self.gate(x))


class Network(torch.nn.Module):
    """The autoencoder of the dump's configuration, as one would write it in torch."""

    def __init__(self, model, objective, pixels):
        super().__init__()
        self.model = model
        self.objective = objective
        self.activation = ACTIVATIONS[model["activation"]]
        widths = [pixels, *model["encoder_hidden"]]
        self.encoder = torch.nn.ModuleDict(self.chain(widths))
        self.encoder["mu"] = torch.nn.Linear(widths[-1], model["latent"])
        self.encoder["logvar"] = torch.nn.Linear(widths[-1], model["latent"])
        if self.is_full():
            pairs = model["latent"] * (model["latent"] - 1) // 2
            self.encoder["tril"] = torch.nn.Linear(widths[-1], pairs)
        widths = [model["latent"], *model["decoder_hidden"]]
        self.decoder = torch.nn.ModuleDict(self.chain(widths))
        self.decoder["out"] = torch.nn.Linear(
            widths[-1], torch_likelihood.output_count(model, pixels))
        if torch_likelihood.has_logvar(model):
            self.decoder.register_parameter("logvar", torch.nn.Parameter(torch.zeros(1)))
        count = model["prior_components"]
        self.prior = torch.nn.ParameterDict({
            "normal": {},
            "mixture": {"mean": torch.zeros(count, model["latent"]),
                        "logvar": torch.zeros(count, model["latent"]),
                        "logits": torch.zeros(count)},
            "vamp": {"pseudo_inputs": torch.zeros(count, pixels)},
        }[model["prior"]])

    def is_full(self):
        """Whether q(z|x) has more than a diagonal covariance."""
        return self.model["posterior"] == "full" and self.model["latent"] > 1

    def scale_tril(self, h, logvar, values):
        """The Cholesky factor of the covariance, [examples, latent, latent]."""
        factor = torch.diag_embed(torch.exp(0.5 * logvar))
        if self.is_full():
            values["tril"] = self.encoder["tril"](h)
            rows, columns = torch.tril_indices(self.model["latent"], self.model["latent"], -1)
            factor[:, rows, columns] = values["tril"]
        return factor

    def chain(self, widths):
        """Layers named by their index."""
        layer = Gated if self.model["activation"] == "gated" else torch.nn.Linear
        return {str(i): layer(a, b) for i, (a, b) in enumerate(zip(widths, widths[1:]))}

    def hidden(self, side, name, h, values):
        """Runs the hidden layers of one side and records each output."""
        i = 0
        while str(i) in side:
            h = self.activation(side[str(i)](h))
            values[f"{name}.{i}.h"] = h
            i += 1
        return h

    def posterior(self, x, values):
        """mu and the clamped logvar of q(z|x), and what the heads see."""
        h = self.hidden(self.encoder, "encoder", x, values)
        bounds = self.model["logvar_min"], self.model["logvar_max"]
        return self.encoder["mu"](h), torch.clamp(self.encoder["logvar"](h), *bounds), h

    def log_prior(self, z):
        """log p(z): of the last dimension."""
        if self.model["prior"] == "normal":
            return Normal(0.0, 1.0).log_prob(z).sum(-1)
        if self.model["prior"] == "vamp":
            mean, logvar, _ = self.posterior(self.prior["pseudo_inputs"], {})
            logits = torch.zeros(len(mean), dtype=mean.dtype)
        else:
            bounds = self.model["logvar_min"], self.model["logvar_max"]
            mean, logvar = self.prior["mean"], torch.clamp(self.prior["logvar"], *bounds)
            logits = self.prior["logits"]
        components = Independent(Normal(mean, torch.exp(0.5 * logvar)), 1)
        return MixtureSameFamily(Categorical(logits=logits), components).log_prob(z)

    def forward(self, x, epsilon, beta):
        """All values of one step by their name in the dump, and what is differentiated."""
        values = {}
        mu, logvar, h = self.posterior(torch_likelihood.encoder_input(self.model, x), values)
        values |= {"mu": mu, "logvar": logvar}
        factor = self.scale_tril(h, logvar, values)
        posterior = MultivariateNormal(mu, scale_tril=factor)
        if self.is_full():
            identity = torch.eye(mu.shape[1], dtype=mu.dtype)
            standard = MultivariateNormal(torch.zeros_like(mu[0]), scale_tril=identity)
            closed_kl = kl_divergence(posterior, standard)[:, None]
        else:
            closed_kl = kl_divergence(Normal(mu, torch.exp(0.5 * logvar)), Normal(0.0, 1.0))
        if epsilon.dim() == 3:  # [examples, draws, latent]
            x, mu, factor = x[:, None], mu[:, None], factor[:, None]
            posterior = MultivariateNormal(mu, scale_tril=factor)
        z = mu + (factor @ epsilon[..., None])[..., 0]
        values["z"] = z
        if self.objective["gradient"] == "score":
            z = z.detach()
        if self.objective["gradient"] == "dreg":
            # The path derivative alone. At beta = 1 each draw's is weighted once more (Tucker et al.
            # 2019); else log w has beta times the score that becomes a part of it.
            posterior = MultivariateNormal(mu.detach(), scale_tril=factor.detach())
            z.register_hook(lambda d_z: d_z * self.dreg_weights[..., None])
        recon = self.recon(z, x, values)
        log_q, log_p = posterior.log_prob(z), self.log_prior(z)
        if epsilon.dim() == 2:
            recon, log_q, log_p = recon[:, None], log_q[:, None], log_p[:, None]
        return values, self.losses(recon, log_q, log_p, closed_kl, beta)

    def recon(self, z, x, values):
        """−log p(x|z) of each draw."""
        h = self.hidden(self.decoder, "decoder", z, values)
        output = self.decoder["out"](h)
        logvar = getattr(self.decoder, "logvar", None)
        log_p = torch_likelihood.log_likelihood(self.model, output, x, values, logvar)
        return -log_p.sum(dim=-1)

    def losses(self, recon, log_q, log_p, closed_kl, beta):
        """recon.draws, log_ratio, recon, kl, loss, and the surrogate whose gradient is wanted, from
        [examples, draws]; closed_kl is [examples, latent], or [examples, 1] of a full covariance."""
        is_sampled = is_kl_sampled(self.model, self.objective)
        ratio = log_q - log_p
        kl = ratio.mean(1) if is_sampled else closed_kl.sum(1)
        values = {
            "recon.draws": recon, "log_ratio": ratio, "recon": recon.mean(1), "kl": kl,
        }
        log_w = -recon - beta * ratio
        if self.objective["bound"] == "iwae":
            loss = (math.log(log_w.shape[1]) - torch.logsumexp(log_w, 1)).mean()
            self.dreg_weights = 1 - beta * (1 - torch.softmax(log_w, 1).detach())
            return values | {"loss": loss, "surrogate": loss}
        kl_term = kl.mean()
        if self.objective["free_bits"] > 0:
            kl_term = self.floored(closed_kl)
        loss = recon.mean() + beta * kl_term
        surrogate = loss
        if self.objective["gradient"] == "score":
            signal = (-log_w if is_sampled else recon).detach()
            if self.objective["baseline"] == "leave-one-out":
                others = (signal.sum(1, keepdim=True) - signal) / (signal.shape[1] - 1)
                signal = signal - others
            # z does not move with the encoder here. The KL term's own part, if it is sampled, is
            # the score of its draws, whose mean is zero: it is left out, but for what the prior
            # has learned.
            surrogate = (recon.mean(1) + (signal * log_q).mean(1)).mean()
            surrogate = surrogate + beta * (-log_p.mean() if is_sampled else kl_term)
        return values | {"loss": loss, "surrogate": surrogate}

    def floored(self, closed_kl):
        """The KL term under free bits, from [examples, latent] (Kingma et al. 2016)."""
        nats = self.objective["free_bits"]
        if self.objective["free_bits_per"] == "total":
            return closed_kl.sum(1).mean().clamp(min=nats)
        return closed_kl.mean(0).clamp(min=nats).sum()


def given(tensors, name):
    """What the computation starts from: x, epsilon or a parameter, in double."""
    if name not in tensors:
        raise DumpError(f"the dump has no {name}")
    if not np.isfinite(tensors[name]).all():
        raise DumpError(f"{name} has values that are not finite")
    return torch.tensor(tensors[name], dtype=torch.float64)


def is_kl_sampled(model, objective):
    """Whether kl is the mean of the draws' log q(z|x) − log p(z)."""
    return objective["kl"] == "sampled" or model["prior"] != "normal"


def uses_ratio(config):
    """Whether log q(z|x) − log p(z) of the draws is part of the loss."""
    objective = config["objective"]
    return objective["bound"] == "iwae" or is_kl_sampled(config["model"], objective)


def optimizer_of(train, learning_rate, parameters):
    """The optimiser of the dump's configuration, with its own settings alone."""
    common = {"lr": learning_rate, "weight_decay": train["weight_decay"]}
    adam = {"betas": (train["adam_beta1"], train["adam_beta2"]), "eps": train["adam_epsilon"]}
    if train["optimizer"] == "adam":
        return torch.optim.Adam(parameters, **common, **adam)
    if train["optimizer"] == "adamw":
        return torch.optim.AdamW(parameters, **common, **adam)
    if train["optimizer"] == "adagrad":
        return torch.optim.Adagrad(parameters, **common, eps=train["adagrad_epsilon"])
    if train["optimizer"] == "sgd":
        return torch.optim.SGD(parameters, **common, momentum=train["momentum"])
    raise DumpError(f"torch has no optimiser {train['optimizer']}")


def rescale_gradients(train, parameters):
    """What the configuration asks to be done to gradients before the step."""
    norm = torch.linalg.vector_norm
    if train["normalize_gradients"]:
        for parameter in parameters:
            parameter.grad /= norm(parameter.grad) + 1e-7
    if train["clip_norm"] > 0:
        # clip_grad_norm_ divides by 1e-6 more than the norm; this is without.
        whole = norm(torch.stack([norm(parameter.grad) for parameter in parameters]))
        for parameter in parameters:
            parameter.grad *= min(1.0, train["clip_norm"] / whole.item())


def recompute(metadata, tensors):
    """{name: array in double} of everything that torch can say about the dump."""
    for name in ("config", "beta", "learning_rate", "steps"):
        if name not in metadata:
            raise DumpError(f"the metadata has no {name}")
    config = tomllib.loads(metadata["config"])
    train = config["train"]
    x, epsilon = given(tensors, "x"), given(tensors, "epsilon")
    network = Network(config["model"], config["objective"], x.shape[1]).double()
    parameters = dict(network.named_parameters())
    with torch.no_grad():
        for name, parameter in parameters.items():
            value = given(tensors, name)
            if value.shape != parameter.shape:
                raise DumpError(f"{name}: shape {tuple(value.shape)}, not {parameter.shape}")
            parameter.copy_(value)
    optimizer = optimizer_of(train, float(metadata["learning_rate"]), network.parameters())
    expected, losses = network(x, epsilon, float(metadata["beta"]))
    losses.pop("surrogate").backward()
    expected |= losses
    if "recon.draws" not in tensors and epsilon.dim() == 2 and not uses_ratio(config):
        del expected["recon.draws"], expected["log_ratio"]  # of one draw, whose recon is there
    for parameter in parameters.values():
        if parameter.grad is None:  # decoder.logvar of the optimal variance
            parameter.grad = torch.zeros_like(parameter)
    expected |= {f"grad.{name}": p.grad.clone() for name, p in parameters.items()}
    if int(metadata["steps"]) == 1:
        before = {name: p.detach().clone() for name, p in parameters.items()}
        rescale_gradients(train, list(parameters.values()))
        optimizer.step()
        for name, parameter in parameters.items():
            after = parameter
            if name == "decoder.logvar" and config["model"]["variance"] == "optimal":
                after = expected["decoder.out.logvar"]  # whatever the optimiser did
            expected[f"after.{name}"] = after
            expected[f"step.{name}"] = after - before[name]
            if train["ema"] > 0:
                average = torch.lerp(before[name], after, 1 - train["ema"])
                expected[f"after.ema.{name}"] = average
                expected[f"step.ema.{name}"] = average - before[name]
    return {name: value.detach().numpy() for name, value in expected.items()}, list(parameters)


def relative_error(ours, theirs):
    """Relative L2 error, NaN or infinity where the two cannot be compared."""
    if ours is None or ours.size == 0 or (ours.shape or (1,)) != (theirs.shape or (1,)):
        return math.nan
    difference = np.linalg.norm(ours.astype(np.float64).ravel() - theirs.ravel())
    scale = np.linalg.norm(theirs)
    if scale == 0.0:
        return 0.0 if difference == 0.0 else math.inf
    return float(difference / scale)


def check(path, out=sys.stdout):
    """Prints a table of all tensors of a dump; returns the number of misses."""
    metadata, tensors, kind = read_safetensors(path)
    expected, parameters = recompute(metadata, tensors)
    steps = int(metadata["steps"])
    tensors = dict(tensors)
    if steps == 1:
        for name, prefix in itertools.product(parameters, ("", "ema.")):
            after = tensors.get(f"after.{prefix}{name}")
            if after is not None and after.shape == tensors[name].shape:
                tensors[f"step.{prefix}{name}"] = after.astype(np.float64) - tensors[name]
    misses = 0
    print(f"{path} ({kind})\n{'tensor':<34}{'shape':<16}{'relative L2':>12}{'gate':>10}", file=out)
    for name, theirs in expected.items():
        ours = tensors.get(name)
        error = relative_error(ours, theirs)
        gates = LOSS_GATE if name == "loss" else STEP_GATE if name.startswith("step.") else GATE
        good = error <= gates[kind]  # false for NaN
        misses += not good
        shape = "missing" if ours is None else "x".join(map(str, ours.shape)) or "1"
        verdict = "" if good else "   MISS"
        print(f"{name:<34}{shape:<16}{error:>12.2e}{gates[kind]:>10.0e}{verdict}", file=out)
    known = {"x", "epsilon", *parameters, *expected}
    if steps != 1:
        known |= {f"after.{prefix}{name}" for name in parameters for prefix in ("", "ema.")}
        print(f"after.*: not compared, the dump has the first batch of {steps} only", file=out)
    for name in tensors.keys() - known:
        print(f"{name:<34}nothing here recomputes it   MISS", file=out)
        misses += 1
    for name in known & tensors.keys():
        if not np.isfinite(tensors[name]).all():
            print(f"{name:<34}has values that are not finite   MISS", file=out)
            misses += 1
    compared = len(expected)
    print(f"{compared} tensors compared with torch {torch.__version__}, {misses} misses", file=out)
    return misses if compared else 1


def main(paths):
    if not paths:
        print(__doc__)
        return 1
    misses = 0
    for path in paths:
        try:
            misses += check(path)
        except (DumpError, OSError, KeyError, ValueError, TypeError) as error:
            print(f"{path}: cannot be checked: {error!r}")
            misses += 1
    return 1 if misses else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
