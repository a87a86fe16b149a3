#!/usr/bin/env python3
"""JAX as a peer: the same network from the same parameters, many steps in one jit(lax.scan).

Images and their order stay on the device, as does everything else between two calls. Started by
scripts/bench_gpu, which talks to it through its standard input (see serve in workload.py).
"""

import argparse
import functools
import math
import os
import sys
import time

import workload

# Before JAX is there: not all memory at once, and no GPU where none is asked for.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

VARIANT = "jit(lax.scan)"
PRODUCTS = {"fp32": "highest", "tf32": "tensorfloat32", "bf16": "bfloat16"}
WINDOWS = 10


class Peer:
    """What serve() asks."""

    def __init__(self, arguments):
        if arguments.device == "cpu":
            os.environ["JAX_PLATFORMS"] = "cpu"
        try:
            import jax  # pylint: disable=import-outside-toplevel
            import numpy  # pylint: disable=import-outside-toplevel
        except ImportError as error:
            raise workload.NotHere(f"no JAX: {error}") from error
        self.jax, self.numpy, self.np = jax, jax.numpy, numpy
        if arguments.device == "cuda" and jax.default_backend() != "gpu":
            raise workload.NotHere(f"JAX {jax.__version__} sees no GPU")
        jax.config.update("jax_default_matmul_precision", PRODUCTS[arguments.precision])
        self.precision = arguments.precision
        self.given = workload.Workload(arguments.dump, arguments.images)
        self.chunk = max(1, min(arguments.chunk, self.given.examples // self.given.batch))
        images = numpy.frombuffer(self.given.bytes, numpy.uint8).reshape(-1, self.given.pixels)
        self.images = jax.numpy.asarray(images[: self.given.examples])
        self.key = jax.random.PRNGKey(1)
        self.at = self.given.examples
        self.permutation = None
        self.compiled = self.state = None

    def versions(self):
        return {"jax": self.jax.__version__, "device": str(self.jax.devices()[0]),
                "cuBLASLt of JAX": workload.cublaslt_version()}

    def array(self, name):
        shape, values = self.given.tensors[name]
        return self.np.frombuffer(values, self.np.float32).reshape(shape)

    def parameters(self):
        """Pairs of weight and bias: the encoder's, the heads' as one, the decoder's."""
        pairs = [tuple(map(self.array, pair)) for pair in self.given.layers("encoder")]
        pairs.append(tuple(self.np.concatenate([self.array(f"encoder.{head}.{kind}")
                                                for head in ("mu", "logvar")])
                           for kind in ("weight", "bias")))
        pairs += [tuple(map(self.array, pair)) for pair in self.given.layers("decoder")]
        pairs.append((self.array("decoder.out.weight"), self.array("decoder.out.bias")))
        return self.jax.tree_util.tree_map(self.numpy.asarray, pairs)

    def linear(self, h, pair):
        """bf16: operands and result rounded, as in PyTorch's autocast; so are those of the backward
        products, which take their type from the result's."""
        weight, bias = pair
        if self.precision == "bf16":
            h, weight = (value.astype(self.numpy.bfloat16) for value in (h, weight))
        product = self.jax.lax.dot_general(h, weight, (((1,), (1,)), ((), ())))
        return product.astype(self.numpy.float32) + bias

    def loss(self, parameters, x, epsilon):
        """The mean loss over the batch x[B, pixels] with epsilon[B, draws, latent]."""
        np, given = self.numpy, self.given
        activation = {"relu": self.jax.nn.relu, "tanh": np.tanh}[given.model["activation"]]
        encoder = len(given.layers("encoder"))
        h = x
        for pair in parameters[:encoder]:
            h = activation(self.linear(h, pair))
        mu, logvar = np.split(self.linear(h, parameters[encoder]), 2, axis=1)
        logvar = np.clip(logvar, given.model["logvar_min"], given.model["logvar_max"])
        z = mu[:, None] + np.exp(0.5 * logvar)[:, None] * epsilon
        h = z.reshape(-1, z.shape[-1])
        for pair in parameters[encoder + 1 : -1]:
            h = activation(self.linear(h, pair))
        logits = self.linear(h, parameters[-1]).reshape(*epsilon.shape[:2], -1)
        cross = np.maximum(logits, 0) - logits * x[:, None] + np.log1p(np.exp(-np.abs(logits)))
        recon = cross.sum(-1)
        if given.is_iwae:
            ratio = 0.5 * (z * z - epsilon * epsilon - logvar[:, None]).sum(-1)
            log_w = -recon - given.beta * ratio
            return (math.log(given.samples) - self.jax.nn.logsumexp(log_w, 1)).mean()
        kl = 0.5 * (mu * mu + np.expm1(logvar) - logvar).sum()
        return (recon.sum() + given.beta * kl) / x.shape[0]

    def adam(self, carry, gradients):
        """Our Adam: bias corrections of the step, epsilon outside the root."""
        np, train, tree = self.numpy, self.given.train, self.jax.tree_util.tree_map
        parameters, first, second, step = carry
        decay1, decay2 = train["adam_beta1"], train["adam_beta2"]
        step = step + 1
        first = tree(lambda m, g: decay1 * m + (1 - decay1) * g, first, gradients)
        second = tree(lambda v, g: decay2 * v + (1 - decay2) * g * g, second, gradients)
        rate = self.given.learning_rate / (1 - decay1**step)
        correction = 1 - decay2**step
        parameters = tree(
            lambda p, m, v: p - rate * m / (np.sqrt(v / correction) + train["adam_epsilon"]),
            parameters, first, second)
        return parameters, first, second, step

    def steps(self, state, images, rows):
        """One step for each of rows[steps, batch]."""
        random, given = self.jax.random, self.given
        shape = (given.batch, given.samples, given.model["latent"])

        def step(state, of_step):
            carry, key, total = state
            key, of_pixels, of_z = random.split(key, 3)
            x = images[of_step].astype(self.numpy.float32) / 255
            if given.binarize:
                x = (random.uniform(of_pixels, x.shape) < x).astype(self.numpy.float32)
            epsilon = random.normal(of_z, shape)
            loss, gradients = self.jax.value_and_grad(self.loss)(carry[0], x, epsilon)
            return (self.adam(carry, gradients), key, total + loss), None

        return self.jax.lax.scan(step, state, rows)[0]

    def start(self):
        parameters = self.parameters()
        zeros = functools.partial(self.jax.tree_util.tree_map, self.numpy.zeros_like)
        carry = (parameters, zeros(parameters), zeros(parameters), self.numpy.float32(0))
        # A key of its own: the scan is given the memory of its state for good.
        self.key, key = self.jax.random.split(self.key)
        self.state = (carry, key, self.numpy.float32(0))

    def next_rows(self):
        """[chunk, batch]; an epoch's last rows, too few for a chunk, are left out."""
        count = self.chunk * self.given.batch
        if self.at + count > self.given.examples:
            self.key, key = self.jax.random.split(self.key)
            self.permutation = self.jax.random.permutation(key, self.given.examples)
            self.at = 0
        self.at += count
        rows = self.jax.lax.dynamic_slice(self.permutation, (self.at - count,), (count,))
        return rows.reshape(self.chunk, self.given.batch)

    def run(self, steps):
        """At least so many steps, waited for; returns how many."""
        done = 0
        while done < steps:
            self.state = self.compiled(self.state, self.images, self.next_rows())
            done += self.chunk
        self.jax.block_until_ready(self.state)
        return done

    def prepare(self, variant):
        if variant != VARIANT:
            raise workload.NotHere(f"no variant {variant}")
        x, epsilon = self.array("x"), self.array("epsilon")
        epsilon = epsilon.reshape(x.shape[0], self.given.samples, -1)
        loss = float(self.jax.jit(self.loss)(self.parameters(), x, epsilon))
        self.compiled = self.jax.jit(self.steps, donate_argnums=0)
        self.start()
        self.run(1)
        return {"loss": loss, "ours": self.given.loss(),
                "is_equal": self.given.is_equal(loss, self.precision)}

    def window(self, steps):
        begin = time.perf_counter()
        done = self.run(steps)
        return 1e6 * (time.perf_counter() - begin) / done

    def measure(self, variant, seconds):
        del variant
        self.window(1)
        second = self.window(1)
        steps = max(self.chunk, int(seconds / WINDOWS / (second * 1e-6)))
        return [self.window(steps) for _ in range(WINDOWS)]

    def train(self, variant, steps):
        """The mean loss of at least so many first steps, as [steps, mean]."""
        del variant
        self.start()
        done = self.run(steps)
        return [done, float(self.state[2]) / done]

    def variants(self):
        return [VARIANT]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dump", required=True, help="what `vae compare --dump` wrote")
    parser.add_argument("--images", required=True, help=".npy file of uint8")
    parser.add_argument("--precision", choices=workload.TOLERANCE, default="fp32")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--chunk", type=int, default=50, help="steps in a scan")
    arguments = parser.parse_args()
    workload.serve(lambda: Peer(arguments))


if __name__ == "__main__":
    sys.exit(main())
