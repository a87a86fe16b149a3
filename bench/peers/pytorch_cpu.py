#!/usr/bin/env python3
"""Trains the default network in PyTorch eager on the CPU and prints its speed as one JSON object.

The same work as `vae train` on Fashion-MNIST: 784-400-20-400-784 with ReLU, Bernoulli likelihood
on grey pixels, one sample, batch 128, shuffled epochs, Adam. Written to be fast: pixels are float
tensors in memory, the loss is never read back, and gradients are dropped, not zeroed.
Started by scripts/bench_cpu, which chooses the settings and the BLAS library.
"""

import argparse
import gzip
import json
import pathlib
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional

BATCH = 128


class Vae(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(784, 400), nn.ReLU())
        self.heads = nn.Linear(400, 40)  # mu and logvar as one product
        self.decoder = nn.Sequential(nn.Linear(20, 400), nn.ReLU(), nn.Linear(400, 784))

    def loss(self, x):
        mu, logvar = self.heads(self.encoder(x)).chunk(2, dim=1)
        logvar = logvar.clamp(-10.0, 10.0)
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
        recon = functional.binary_cross_entropy_with_logits(self.decoder(z), x, reduction="sum")
        kl = 0.5 * (mu * mu + torch.expm1(logvar) - logvar).sum()
        return (recon + kl) / x.shape[0]


def load_images(path):
    with gzip.open(path) as file:
        data = np.frombuffer(file.read(), np.uint8, offset=16)
    return torch.from_numpy(data.reshape(-1, 784).astype(np.float32) / 255.0)


def blas_library():
    """The shared object that matrix products run in, as mapped into this process."""
    paths = {line.split()[-1] for line in open("/proc/self/maps", encoding="utf-8")
             if "blas" in line or "mkl" in line}
    return sorted(str(pathlib.Path(path).resolve()) for path in paths)


def train_epoch(model, optimizer, images, steps):
    """Returns (examples per second, mean loss of the last batch)."""
    begin = time.perf_counter()
    order = torch.randperm(images.shape[0])
    examples = 0
    for first in range(0, images.shape[0], BATCH)[:steps]:
        x = images[order[first : first + BATCH]]
        loss = model.loss(x)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        examples += x.shape[0]
    return examples / (time.perf_counter() - begin), loss.item()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", required=True, help="train-images-idx3-ubyte.gz")
    parser.add_argument("--threads", type=int, required=True, help="of ATen")
    parser.add_argument("--foreach", action="store_true", help="Adam over lists of tensors")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10**9, help="at most this many an epoch")
    arguments = parser.parse_args()

    torch.manual_seed(1)
    torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)
    images = load_images(arguments.images)
    model = Vae()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, foreach=arguments.foreach)
    epochs = [train_epoch(model, optimizer, images, arguments.steps)
              for _ in range(arguments.epochs)]
    print(json.dumps({
        "examples_per_second": [speed for speed, _ in epochs],
        "last_loss": epochs[-1][1],
        "torch": torch.__version__,
        "blas": blas_library(),
    }))


if __name__ == "__main__":
    main()
