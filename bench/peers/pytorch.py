#!/usr/bin/env python3
"""PyTorch as a peer: the same network from the same parameters, in each way that it can be run.

Written to be fast: images and their order stay on the device, pixels are binarised there, both
heads are one product, gradients are dropped, not zeroed, and no loss is read back before the end.
Started by scripts/bench_gpu, scripts/bench_cpu and scripts/bench_elbo, which talk to it through its
standard input (see serve in workload.py). `--make-images FILE` writes a data set instead and ends.
"""

import argparse
import contextlib
import os
import sys
import time

import torch

import workload
from pytorch_network import Network, from_bytes

# How a step is run: which Adam, what torch.compile is told, and whether steps are captured.
VARIANTS = {
    "eager, for-loop Adam": {"adam": {"foreach": False}},
    "eager, foreach Adam": {"adam": {"foreach": True}},
    "eager, fused Adam": {"adam": {"fused": True}},
    "compile, default": {"compile": "default", "adam": {"foreach": True}},
    "compile, reduce-overhead": {"compile": "reduce-overhead", "adam": {"foreach": True}},
    "compile, max-autotune": {"compile": "max-autotune", "adam": {"foreach": True}},
    "eager, captured": {"adam": {"fused": True}, "captured": True},
    "compile, captured": {"compile": "default", "adam": {"foreach": True}, "captured": True},
    "compile max-autotune, captured": {
        "compile": "max-autotune-no-cudagraphs", "adam": {"foreach": True}, "captured": True},
}
WINDOWS = 10  # of a measurement
EVALUATED = 4096  # rows at once
PASSES = 2  # over the test examples, to see what the draws of z make of the result


class Order:
    """Rows of the images in an order that is drawn anew for each epoch, on the device. next()
    leaves out an epoch's last batch, which is smaller; epoch() does not."""

    def __init__(self, given, device):
        self.count, self.device, self.at = given.examples, device, given.examples
        self.permutation = None

    def next(self, rows):
        if self.at + rows > self.count:
            self.permutation, self.at = torch.randperm(self.count, device=self.device), 0
        self.at += rows
        return self.permutation[self.at - rows : self.at]

    def epoch(self):
        return torch.randperm(self.count, device=self.device)


class Stepper:
    """One way to train: step() after step(), or captured, many at once."""

    def __init__(self, peer, settings, copies_batch=False):
        given, device = peer.given, peer.device
        self.copies_batch = copies_batch
        self.peer, self.is_captured = peer, settings.get("captured", False)
        self.mode = settings.get("compile")
        self.network = Network(given, device)
        self.total = torch.zeros((), device=device)
        self.order = Order(given, device)
        if self.is_captured and not peer.is_gpu:
            raise workload.NotHere("CUDA graphs need a GPU")
        self.optimizer = self.adam(settings["adam"])
        self.loss_of, self.batch_of = self.network, peer.batch_of
        self.update = self.optimizer.step
        if self.mode is not None:
            self.compile()
        self.steps_at_once = peer.chunk if self.is_captured else 1
        self.graph = self.graph_of_rest = None

    def adam(self, which):
        train = self.peer.given.train
        settings = dict(lr=self.peer.given.learning_rate, eps=train["adam_epsilon"],
                        betas=(train["adam_beta1"], train["adam_beta2"]), **which)
        if self.peer.is_gpu and (self.is_captured or self.mode is not None):
            settings["capturable"] = True
        try:
            return torch.optim.Adam(self.network.values, **settings)
        except (TypeError, RuntimeError) as error:
            raise workload.NotHere(f"no such Adam: {workload.one_line(error)}") from error

    def compile(self):
        if not hasattr(torch, "compile"):
            raise workload.NotHere(f"PyTorch {torch.__version__} has no torch.compile")
        self.peer.fix_images()
        how = {"mode": None if self.mode == "default" else self.mode, "dynamic": False}
        self.loss_of = torch.compile(self.network, fullgraph=True, **how)
        self.batch_of = torch.compile(self.peer.batch_of, fullgraph=True, **how)
        self.update = torch.compile(self.optimizer.step, **how)

    def loss(self, x, epsilon):
        """Of one batch, in the code that trains: its gradient is computed too, and dropped."""
        with self.peer.autocast():
            loss = self.loss_of(x, epsilon)
        loss.backward()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item()

    def step(self, rows):
        if self.mode is not None and hasattr(torch, "compiler"):
            torch.compiler.cudagraph_mark_step_begin()
        x, epsilon = self.batch_of(rows)
        if self.copies_batch:
            x, epsilon = x.clone(), epsilon.clone()
        with self.peer.autocast():
            loss = self.loss_of(x, epsilon)
        loss.backward()
        self.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.total += loss.detach()

    def capture(self):
        self.rows, self.graph = self.captured(self.peer.given.batch * self.steps_at_once)

    def captured(self, count):
        """So many rows, and a graph of the steps over them, of which the last one may be smaller.
        The documented recipe: some steps on a side stream, then capture."""
        rows = self.order.next(count).clone()
        batches = rows.split(self.peer.given.batch)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for batch in (batches[0], batches[-1]):
                for _ in range(3):
                    self.step(batch)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for batch in batches:
                self.step(batch)
        return rows, graph

    def prepare_epochs(self):
        """For what run() leaves out: an epoch's last batch, and, where steps are captured, those
        after the last whole graph, which have one of their own."""
        rest = self.peer.given.examples % (self.peer.given.batch * self.steps_at_once)
        if rest == 0:
            return
        if self.is_captured:
            self.rest, self.graph_of_rest = self.captured(rest)
        else:
            for _ in range(3):
                self.step(self.order.next(rest))

    def epoch(self):
        """Every example once."""
        for rows in self.order.epoch().split(self.peer.given.batch * self.steps_at_once):
            if self.graph is None:
                self.step(rows)
            elif rows.numel() == self.rows.numel():
                self.rows.copy_(rows)
                self.graph.replay()
            else:
                self.rest.copy_(rows)
                self.graph_of_rest.replay()

    def run(self, steps):
        """At least so many steps; returns how many. Before there is a graph, each is by itself:
        every one that is compiled has the one shape of a batch."""
        done, batch = 0, self.peer.given.batch
        while done < steps:
            if self.graph is None:
                self.step(self.order.next(batch))
                done += 1
            else:
                self.rows.copy_(self.order.next(batch * self.steps_at_once))
                self.graph.replay()
                done += self.steps_at_once
        return done

    def reset(self):
        """Back to our parameters and to no moments, where they are."""
        self.network.reset()
        for state in self.optimizer.state.values():
            for value in state.values():
                value.zero_()
        self.total.zero_()


class Peer:
    """What serve() asks."""

    def __init__(self, arguments):
        self.device = torch.device(arguments.device)
        self.is_gpu = self.device.type == "cuda"
        self.precision, self.chunk = arguments.precision, arguments.chunk
        self.given = workload.Workload(arguments.dump, arguments.images, arguments.test_images)
        torch.manual_seed(1)
        self.choose_arithmetic(arguments.threads)
        self.images = self.on_device(self.given.bytes)[: self.given.examples]
        self.test = self.on_device(self.given.test_bytes)
        # A graph of steps takes its rows from one epoch.
        self.chunk = max(1, min(self.chunk, self.given.examples // self.given.batch))
        self.steppers = {}

    def on_device(self, values):
        images = torch.frombuffer(values, dtype=torch.uint8)
        return images.view(-1, self.given.pixels).to(self.device)

    def choose_arithmetic(self, threads):
        torch.set_float32_matmul_precision("highest" if self.precision == "fp32" else "high")
        if self.is_gpu:
            torch.backends.cuda.matmul.allow_tf32 = self.precision != "fp32"
        else:
            torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
            torch.set_flush_denormal(True)

    def autocast(self):
        """bfloat16 in the products, with weights, moments and losses in float32."""
        if self.precision != "bf16":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def versions(self):
        versions = {"torch": torch.__version__}
        if self.is_gpu:
            versions |= {"cuda": torch.version.cuda, "gpu": torch.cuda.get_device_name(),
                         "capability": "%d.%d" % torch.cuda.get_device_capability(),
                         "cuBLASLt of PyTorch": workload.cublaslt_version()}
        else:
            versions["blas"] = workload.blas_libraries()
        return versions

    def batch_of(self, rows):
        """x[B, pixels] and epsilon[B, draws, latent] of a step."""
        x = self.images[rows].float() / 255
        if self.given.binarize:
            x = (torch.rand_like(x) < x).float()
        shape = (rows.shape[0], self.given.samples, self.given.model["latent"])
        return x, torch.randn(shape, device=self.device)

    def dumped_batch(self):
        x = from_bytes(*self.given.tensors["x"]).to(self.device)
        epsilon = from_bytes(*self.given.tensors["epsilon"]).to(self.device)
        return x, epsilon.view(x.shape[0], self.given.samples, -1)

    def fix_images(self):
        """Tells the graphs of torch.compile that the images stay where they are, lest each step
        copies all of them."""
        mark = getattr(torch._dynamo, "mark_static_address", None)  # pylint: disable=W0212
        if mark is not None:
            mark(self.images)

    def synchronize(self):
        if self.is_gpu:
            torch.cuda.synchronize()

    def prepare(self, variant, epochs=False):
        """`epochs`: also for whole ones."""
        try:
            return self.prepare_once(variant, epochs, copies_batch=False)
        except RuntimeError as error:
            # Some versions take back a batch that one of their own graphs made.
            if "overwritten" not in str(error):
                raise
            return self.prepare_once(variant, epochs, copies_batch=True)

    def prepare_once(self, variant, epochs, copies_batch):
        stepper = Stepper(self, VARIANTS[variant], copies_batch)
        loss = stepper.loss(*self.dumped_batch())
        stepper.run(3)  # the optimiser makes its state in the first
        if stepper.is_captured:
            stepper.capture()
        stepper.run(stepper.steps_at_once)
        if epochs:
            stepper.prepare_epochs()
        self.synchronize()
        self.steppers[variant] = stepper
        return self.verdict(loss)

    def verdict(self, loss):
        return {"loss": loss, "ours": self.given.loss(),
                "is_equal": self.given.is_equal(loss, self.precision)}

    def window(self, stepper, steps):
        """Microseconds a step."""
        if not self.is_gpu:
            begin = time.perf_counter()
            done = stepper.run(steps)
            return 1e6 * (time.perf_counter() - begin) / done
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        done = stepper.run(steps)
        stop.record()
        stop.synchronize()
        return 1e3 * start.elapsed_time(stop) / done

    def measure(self, variant, seconds):
        """Windows that take so long together, after two that are not counted: the first may still
        compile, the second says how many steps a window has."""
        stepper = self.steppers[variant]
        steps = max(1, stepper.steps_at_once)
        self.window(stepper, steps)
        second = self.window(stepper, steps)
        steps = max(steps, int(seconds / WINDOWS / (second * 1e-6)))
        return [self.window(stepper, steps) for _ in range(WINDOWS)]

    def train(self, variant, steps):
        """The mean loss of at least so many first steps, as [steps, mean]."""
        stepper = self.steppers[variant]
        stepper.reset()
        done = stepper.run(steps)
        return [done, stepper.total.item() / done]

    def begin(self, variant, dump):
        """Back to no step, with the parameters of another dump of the same network; its loss. Noise
        and order go on where they are: those of each beginning are others."""
        stepper = self.steppers[variant]
        self.given.take(dump)
        stepper.network.take_initial()
        stepper.reset()
        return self.verdict(stepper.loss(*self.dumped_batch()))

    def epoch(self, variant):
        """Seconds of the next one's training, and the test examples' recon and kl after it."""
        stepper = self.steppers[variant]
        self.synchronize()
        begin = time.perf_counter()
        stepper.epoch()
        self.synchronize()
        seconds = time.perf_counter() - begin
        means = self.test_terms(stepper.network).mean(1)
        return {"seconds": seconds, "recon": means[0].item(), "kl": means[1].item(),
                "steps": -(-self.given.examples // self.given.batch), "examples": len(self.test)}

    def evaluate(self, variant, checkpoint):
        """Of the test examples under a checkpoint of ours, by name: the mean over the passes and
        the standard error, from the draws of z, of one pass."""
        network = self.steppers[variant].network
        before = [value.detach().clone() for value in network.values]
        network.load(workload.read_safetensors(checkpoint)[1])
        passes = torch.stack([self.test_terms(network) for _ in range(PASSES)])  # [passes, 2, N]
        network.assign(before)
        means = passes.mean((0, 2)).tolist()
        errors = (passes.var(0).sum(1).sqrt() / passes.shape[2]).tolist()
        return {"passes": PASSES} | {
            name: {"mean": mean, "error": error}
            for name, mean, error in zip(("recon", "kl"), means, errors)}

    def test_terms(self, network):
        """recon and kl of each test example, [2, N] in double, in the precision that trains."""
        parts, rows = [], max(1, EVALUATED // self.given.samples)
        for images in self.test.split(rows):
            shape = (len(images), self.given.samples, self.given.model["latent"])
            with self.autocast():
                parts.append(network.terms(images.float() / 255,
                                           torch.randn(shape, device=self.device)))
        return torch.cat(parts, 1).double()

    def variants(self):
        return list(VARIANTS)


def make_images(path, examples, height, width, channels):
    """Blurred spots at random places on a grey ground, so that there is something to learn."""
    torch.manual_seed(1)
    across = [torch.arange(size, dtype=torch.float32) for size in (height, width)]
    rows = []
    for first in range(0, examples, 4096):
        count = min(4096, examples - first)
        spots = []
        for at in across:
            centre, spread = torch.rand(2, count, channels, 1)
            size = at.numel()
            spots.append(torch.exp(-(((at - size * centre) / (size * (0.1 + 0.2 * spread))) ** 2)))
        # [count, channels, height, width]
        image = spots[0][:, :, :, None] * spots[1][:, :, None, :]
        rows.append((255 * (0.05 + 0.9 * image)).permute(0, 2, 3, 1).to(torch.uint8))
    values = torch.cat(rows)
    buffer = bytearray(values.numel())  # NumPy may not be there
    torch.frombuffer(buffer, dtype=torch.uint8).copy_(values.flatten())
    workload.write_images(path, values.shape, buffer)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dump", help="what `vae compare --dump` wrote")
    parser.add_argument("--images", help=".npy or IDX file of bytes")
    parser.add_argument("--test-images", help="likewise; the last tenth of the others without it")
    parser.add_argument("--precision", choices=workload.TOLERANCE, default="fp32")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--chunk", type=int, default=50, help="steps in a captured graph")
    parser.add_argument("--threads", type=int, default=0, help="of the CPU; 0: all")
    parser.add_argument("--make-images", metavar="FILE")
    parser.add_argument("--shape", type=int, nargs=4, metavar="N", help="of the images to make: "
                        "examples, height, width, channels")
    arguments = parser.parse_args()
    if arguments.make_images:
        make_images(arguments.make_images, *arguments.shape)
        return
    workload.serve(lambda: Peer(arguments))


if __name__ == "__main__":
    sys.exit(main())
