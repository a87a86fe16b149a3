"""Images as files that `vae` and its peers both read: mnist:DIR, with one test set for all.

Where pixels are binarised, those of the test set are made black and white here, once: nobody's
generator then decides what is evaluated.
"""

import os
import pathlib
import random

import workload

PACKAGED = pathlib.Path("/usr/share/datasets/fashion-mnist")
NAMES = "train-images-idx3-ubyte", "t10k-images-idx3-ubyte"


def one_of(folder, name):
    """The file of this name, plain or gzipped; None without it."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.exists()), None)


def fashion_mnist_folder():
    """Where `vae` looks for it too."""
    named = os.environ.get("VAE_DATA")
    places = [pathlib.Path(named), pathlib.Path(named) / "fashion-mnist"] if named else [PACKAGED]
    for place in places:
        if one_of(place, NAMES[0]):
            return place
    raise ValueError("Fashion-MNIST is not there: apt-get install dataset-fashion-mnist, set "
                     "VAE_DATA to the folder of its files, or name other data with --data")


def splits_of(spec):
    """[(shape, bytes) of the training split, the same of the test split]: fashion-mnist, mnist:DIR,
    or an .npy or IDX file of bytes, whose last tenth is for tests. A ValueError or OSError is one
    line."""
    if spec == "fashion-mnist" or spec.startswith("mnist:"):
        folder = (fashion_mnist_folder() if spec == "fashion-mnist"
                  else pathlib.Path(spec[len("mnist:"):]))
        paths = [one_of(folder, name) for name in NAMES]
        if None in paths:
            raise ValueError(f"{folder}: no {NAMES[paths.index(None)]} there (plain or .gz)")
        splits = [workload.read_array(path) for path in paths]
        if splits[0][0][1:] != splits[1][0][1:]:
            raise ValueError(f"{folder}: images of the two splits have different sizes")
        return splits
    (count, *sizes), values = workload.read_array(spec)
    test = count // 10
    if test == 0:
        raise ValueError(f"{spec}: {count} examples have no tenth for tests")
    at = len(values) // count * (count - test)
    return [((count - test, *sizes), values[:at]), ((test, *sizes), values[at:])]


def binarized(values):
    """Each byte b becomes 255 with probability b/255, else 0; always the same."""
    draw = random.Random(1).random
    return bytes(255 if 255 * draw() < value else 0 for value in values)


def write_splits(spec, folder, binarizes):
    """Writes them into the folder as mnist:DIR has them; (their paths, how many examples each
    has)."""
    splits = splits_of(spec)
    paths = [folder / name for name in NAMES]
    for path, (shape, values), is_test in zip(paths, splits, (False, True)):
        workload.write_idx(path, shape, binarized(values) if binarizes and is_test else values)
    return paths, [shape[0] for shape, _ in splits]
