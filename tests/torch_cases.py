"""The networks that tests/torch_compare_test.py has PyTorch check: settings of config.toml."""
import itertools

import torch_check

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

# Of a GPU: in products of the CUDA backend's own.
FUSED = {
    f"plan fused, {name}": {**settings, "train.plan": "fused"}
    for name, settings in {
        "bars": {**BARS, **HIDDEN},
        "deep": {**BARS, **DEEP, "model.activation": "gelu"},
        "gated": {**BARS, **DEEP, "model.activation": "gated", "train.beta": 0.7},
        "no hidden layers": {**BARS, "model.encoder_hidden": [], "model.decoder_hidden": [],
                             "model.latent": 3},
        "gaussian": {**LINEAR, **DEEP, "model.activation": "tanh"},
        "3 draws": {**BARS, **HIDDEN, "objective.samples": 3},
        "iwae": {**BARS, **DEEP, "model.activation": "silu", "objective.bound": "iwae",
                 "objective.samples": 5},
        "vamp": {**BARS, **HIDDEN, "model.activation": "softplus", "model.prior": "vamp"},
    }.items()
}
