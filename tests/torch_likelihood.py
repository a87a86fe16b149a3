"""p(x|z) of each likelihood by torch.distributions, for torch_check.py: what the decoder's outputs
mean by their name in the dump, and log p of each pixel or group."""

import math

import torch
from torch.distributions import Bernoulli, Categorical, Normal, OneHotCategorical, Poisson


def has_scales(model):
    """Whether a pixel has a second output; all of them stand behind the first ones."""
    return model["likelihood"] == "logistic" or (
        model["likelihood"] == "gaussian" and model["variance"] == "pixel")


def has_logvar(model):
    """Whether there is a parameter decoder.logvar."""
    return model["likelihood"] == "gaussian" and model["variance"] in ("shared", "optimal")


def output_count(model, pixels):
    """How many outputs the decoder has."""
    if model["likelihood"] == "categorical":
        return pixels * model["levels"]
    return 2 * pixels if has_scales(model) else pixels


def encoder_input(model, x):
    """What the encoder sees."""
    return torch.log2(1 + x) / 8 if model["likelihood"] == "poisson" else x


def softplus(x):
    """Far past torch's default threshold, from where it returns its argument."""
    return torch.nn.functional.softplus(x, threshold=50.0)


def bounded(model, raw):
    """A learned log-variance or log-scale between its bounds (Chua et al. 2018)."""
    power = 1 if model["likelihood"] == "logistic" else 2
    least, most = (power * math.log(model[name]) for name in ("sigma_min", "sigma_max"))
    return least + softplus(most - softplus(most - raw) - least)


def bernoulli(model, output, x, values, logvar):
    values["logits"] = output
    # Without validation log_prob also takes grey pixels, as soft targets.
    return Bernoulli(logits=output, validate_args=False).log_prob(x)


def gaussian(model, output, x, values, logvar):
    if model["variance"] == "fixed":
        values["mean"] = output
        return Normal(output, model["sigma"]).log_prob(x)
    mean = output
    if model["variance"] == "pixel":
        mean, raw = output.chunk(2, dim=-1)
        logvar = bounded(model, raw)
    elif model["variance"] == "shared":
        logvar = bounded(model, logvar)
    else:
        # The best of this batch (Rybkin et al. 2021). No gradient goes through it: there is none
        # at an optimum.
        best = ((mean - x) ** 2).mean().log().detach()
        logvar = best.clamp(min=2 * math.log(model["sigma_min"])).view(1)
    values |= {"mean": mean, "decoder.out.logvar": logvar}
    return Normal(mean, torch.exp(0.5 * logvar)).log_prob(x)


def logistic(model, output, x, values, logvar):
    """The mass between the two edges of a level, taken where both distribution functions are
    small."""
    mean, raw = output.chunk(2, dim=-1)
    log_scale = bounded(model, raw)
    values |= {"mean": mean, "log_scale": log_scale}
    half = 0.5 / (model["levels"] - 1)
    infinity = torch.full_like(x, math.inf)
    upper = torch.where(x > 1 - half, infinity, (x + half - mean) / log_scale.exp())
    lower = torch.where(x < half, -infinity, (x - half - mean) / log_scale.exp())
    is_right = x > mean
    above = torch.where(is_right, torch.sigmoid(-lower), torch.sigmoid(upper))
    below = torch.where(is_right, torch.sigmoid(-upper), torch.sigmoid(lower))
    return torch.log(above - below)


def categorical(model, output, x, values, logvar):
    values["logits"] = output
    logits = output.view(*x.shape, model["levels"])
    return Categorical(logits=logits).log_prob(torch.round(x * (model["levels"] - 1)))


def onehot(model, output, x, values, logvar):
    values["logits"] = output
    groups = output.shape[:-1] + (-1, model["levels"])
    return OneHotCategorical(logits=output.view(groups)).log_prob(x.reshape(groups))


def poisson(model, output, x, values, logvar):
    values["log_rate"] = output
    return Poisson(torch.exp(output)).log_prob(x)


def log_likelihood(model, output, x, values, logvar):
    """log p(x | output) with one more dimension than examples; logvar is decoder.logvar or None.
    Records what the outputs mean in `values`."""
    likelihoods = {
        "bernoulli": bernoulli, "gaussian": gaussian, "logistic": logistic,
        "categorical": categorical, "onehot": onehot, "poisson": poisson,
    }
    x = x.expand(*output.shape[:-1], x.shape[-1])
    return likelihoods[model["likelihood"]](model, output, x, values, logvar)
