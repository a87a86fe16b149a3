"""The networks that scripts/check_gpu compares, and the data that it makes for them."""

import pathlib
import random

import machine
from workload import write_images

PRECISIONS = ("fp32", "tf32", "bf16")
PLANS = ("cublas", "epilogue", "fused")

BARS = ["--data", "synthetic:bars", "--hidden", "33,17", "--latent", "5", "--batch", "21"]
# In bf16 a unit that ReLU takes on the one side alone must not weigh more than the gate.
BARS_IN_BF16 = ["--data", "synthetic:bars", "--hidden", "129,65", "--latent", "5", "--batch", "85"]
LINEAR = ["--data", "synthetic:linear-gaussian", "--likelihood", "gaussian", "--hidden", "33,17",
          "--latent", "3", "--activation", "tanh", "--batch", "37"]
BURDA = ["--config", str(machine.ROOT / "presets" / "burda2016-iwae.toml"), "--data", "IMAGES"]
SMALL_NETWORK = ["--hidden", "33", "--latent", "3", "--activation", "tanh", "--batch", "67"]


def settings(*assignments):
    return [part for assignment in assignments for part in ("--set", assignment)]


# What `vae compare` is given. IMAGES and GROUPS are data that are made on the spot. Those that tell
# the most come first.
NETWORKS = {
    "S": ["--data", "IMAGES"],
    "I1": [*BURDA, *settings("objective.samples=1")],
    # Adam takes rounding for a gradient where 50 draws leave a bias almost none.
    "I50": [*BURDA, *settings("objective.samples=50", "train.optimizer=sgd")],
    "deep, ragged": ["--data", "synthetic:bars", "--hidden", "50,31,17", "--latent", "3",
                     "--activation", "gelu", "--batch", "101"],
    "gated": ["--data", "synthetic:bars", "--hidden", "50,31", "--latent", "3", "--activation",
              "gated", "--batch", "37"],
    "full covariance": [*BARS, "--posterior", "full"],
    "mixture prior": [*BARS, "--prior", "mixture", *settings("model.prior_components=37")],
    # At its full weight the prior's gradient cancels where the posterior is next to it.
    "vamp prior": [*BARS, "--prior", "vamp", "--beta", "0.5",
                   *settings("model.prior_components=37")],
    "gaussian": LINEAR,
    "gaussian, shared variance": [*LINEAR, *settings("model.variance=shared")],
    # The loss has the squares of the means' errors over sigma²: a smaller one, and TF32 shows in it.
    "gaussian, variance of each pixel": [*LINEAR, *settings("model.variance=pixel",
                                                            "model.sigma_min=0.8")],
    "gaussian, optimal variance": [*LINEAR, *settings("model.variance=optimal")],
    "logistic": ["--data", "IMAGES", "--likelihood", "logistic", "--hidden", "50", "--batch", "33"],
    "categorical": ["--data", "synthetic:bars", "--likelihood", "categorical",
                    *settings("model.levels=2"), *SMALL_NETWORK],
    "onehot": ["--data", "GROUPS", "--likelihood", "onehot", *settings("model.levels=3"),
               *SMALL_NETWORK],
    "poisson": ["--data", "IMAGES", "--likelihood", "poisson", "--hidden", "50", "--batch", "33"],
    "sampled kl": [*BARS, *settings("objective.kl=sampled", "objective.samples=3")],
    "iwae": [*BARS, *settings("objective.bound=iwae", "objective.samples=50")],
    "dreg": [*BARS, *settings("objective.bound=iwae", "objective.samples=7",
                              "objective.gradient=dreg")],
    "score function": [*BARS, *settings("objective.gradient=score", "objective.samples=4",
                                        "objective.baseline=leave-one-out")],
    "score function, running mean": [*BARS, *settings("objective.gradient=score",
                                                      "objective.baseline=running-mean")],
    "free bits": [*BARS, *settings("objective.free_bits=0.0118")],
    "adamw": [*BARS, *settings("train.optimizer=adamw", "train.weight_decay=0.01")],
    "adagrad": [*BARS, *settings("train.optimizer=adagrad")],
    "momentum": [*BARS, *settings("train.optimizer=sgd", "train.momentum=0.9")],
    "clipped, averaged": [*BARS, *settings("train.clip_norm=1", "train.ema=0.9")],
}
MOST_TELLING = ("S", "I1", "I50", "deep, ragged")
# Of ReLU, whose hidden layers have every plan. Those above take that of auto.
PLANNED = {
    "S": NETWORKS["S"],
    "ragged": BARS,
    "wide": ["--data", "IMAGES", "--hidden", "1024,1024", "--latent", "64", "--batch", "1024",
             *settings("train.optimizer=sgd")],
}
# Of other activations, whose plans are that of auto and this one.
FUSED = ("I1", "I50", "deep, ragged", "gated")
# Before parameters are compared. In the narrower types rounding is amplified from step to step.
STEPS = {"fp32": 20, "tf32": 2, "bf16": 1}
MOST_STEPS = {"wide": 2}  # the reference, in double on the CPU, takes long
# Of gradients, where it is more than the precision's own: among millions of units some lie so near
# to ReLU's kink that they are on for one side alone. One such moves a gradient by 2e-4; what is
# wrong moves it by far more.
KINK_GATES = {"wide": 2e-3}


def planned(plan):
    """The networks that are compared with a plan."""
    return (*PLANNED, *(FUSED if plan == "fused" else ()))


def network(name, precision, plan=None):
    """The options of a network, sized for the precision."""
    options = (NETWORKS | PLANNED)[name]
    if precision == "bf16" and options[:len(BARS)] == BARS:
        options = BARS_IN_BF16 + options[len(BARS):]
    steps = min(STEPS[precision], MOST_STEPS.get(name, STEPS[precision]))
    return [*options, "--steps", steps, *(["--plan", plan] if plan else [])]


def rectangle(generator, side=28):
    """An image of side × side bytes that differ from image to image in place, size and light."""
    top, left = generator.randrange(side // 2), generator.randrange(side // 2)
    height, width = (generator.randrange(side // 4, side // 2) for _ in range(2))
    light = generator.randrange(100, 256)
    pixels = bytearray(side * side)
    for row in range(top, top + height):
        pixels[row * side + left:row * side + left + width] = bytes([light]) * width
    return bytes(pixels)


def make_data(folder):
    """{IMAGES, GROUPS: an .npy file that is written to the folder}."""
    folder = pathlib.Path(folder)
    places = {"IMAGES": folder / "images.npy", "GROUPS": folder / "groups.npy"}
    generator = random.Random(1)
    images = b"".join(rectangle(generator) for _ in range(2000))
    write_images(places["IMAGES"], (2000, 28, 28, 1), images)
    groups = b"".join(generator.choice((b"\1\0\0", b"\0\1\0", b"\0\0\1")) for _ in range(8000))
    write_images(places["GROUPS"], (200, 120), groups)
    return places


def make_empty_images(path, examples):
    """Writes that many black images of 28 × 28, as a file that takes no room on the disk. OSError
    where that cannot be."""
    write_images(path, (examples, 28, 28, 1), b"")
    with open(path, "r+b") as file:
        file.seek(0, 2)
        file.truncate(file.tell() + examples * 28 * 28)
    if path.stat().st_blocks * 512 > 1 << 20:
        raise OSError(f"{path.parent} has no sparse files")
