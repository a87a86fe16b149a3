"""Checks of scripts/check_gpu that train: what must have the same bits, what must be learned, and
what happens where something does not fit or is not a number."""

import json
import re
import tempfile

from check_networks import make_empty_images, settings
from check_program import Once, check_of_runs
from check_verdicts import FAILED, NOT_RUN, PASSED, is_finite, refusal, verdict_of_bits
from ours import metrics_of

# Nats of the test -elbo after an epoch that a GPU may be from the CPU. Both have the same order and
# noise, and precisions lie up to .3 apart (docs/performance.md), as much as another seed makes; a
# gradient that is wrong costs tens.
NATS = 1.0
# Needs 20 bytes and more a unit and example, of the most examples that a batch may have.
LARGEST_BATCH = 2**20
BYTES_A_UNIT = 20 * LARGEST_BATCH
SMALL_DATA = "synthetic:bars"
TINY = ["--hidden", "9", "--latent", "2", "--steps", 3]


class Runs:
    """Each a method of a precision that gives a verdict and a detail."""

    def __init__(self, program):
        self.program = program
        self.on_the_cpu = Once(self.train_on_the_cpu)

    @check_of_runs
    def twice(self, folder, precision):
        first = self.program.trained(folder / "a", precision, "--steps", 40)
        second = self.program.trained(folder / "b", precision, "--steps", 40)
        return verdict_of_bits(first, second)

    @check_of_runs
    def resumed(self, folder, precision):
        # Of three epochs of 15 steps, stopped within the second and at its end. With an average of
        # the parameters, and the best epoch kept.
        options = settings("train.ema=0.9", "train.patience=9")
        whole = self.program.trained(folder / "a", precision, "--steps", 45, *options)
        self.program.trained(folder / "b", precision, "--steps", 22, *options)
        self.program.trained(folder / "b", precision, "--steps", 30, "--resume")
        parts = self.program.trained(folder / "b", precision, "--steps", 45, "--resume")
        verdict, detail = verdict_of_bits(whole, parts)
        if verdict != PASSED:
            return verdict, detail
        best, best_detail = verdict_of_bits(*(one.with_name("best.safetensors")
                                              for one in (whole, parts)))
        return best, f"{detail}, of the best epoch {best_detail}"

    @check_of_runs
    def streamed(self, folder, precision):
        # Windows of four steps: several in an epoch, and the last one is smaller.
        first, second = (self.program.trained(folder / where, precision, "--steps", 40,
                                              "--data-placement", where,
                                              *settings("train.graph_steps=4"))
                         for where in ("device", "streamed"))
        return verdict_of_bits(first, second)

    @check_of_runs
    def learns(self, folder, precision):
        run = folder / "run"
        self.program.trained(run, precision, "--epochs", 4)
        losses = [row["loss"] for row in metrics_of(run, "train")]
        for command in (["evaluate", run, "--importance-samples", 8, "--importance-examples", 50],
                        ["sample", run, "--out", folder / "samples.npy"]):
            result = self.program.run(*command, "--backend", self.program.backend)
            if result.rc != 0:
                return FAILED, f"vae {command[0]}: {result.last_line()}"
        detail = "loss " + " to ".join(f"{loss:.2f}" for loss in (losses[0], losses[-1]))
        return (PASSED if losses[-1] < 0.9 * losses[0] else FAILED), detail

    def train_on_the_cpu(self):
        """(test -elbo, None) after an epoch on the CPU, or (None, a verdict and a detail)."""
        with tempfile.TemporaryDirectory(dir=self.program.folder) as folder:
            result = self.program.run("train", "--data", "fashion-mnist", "--epochs", 1, "--seed",
                                      1, "--backend", "cpu", "--out", f"{folder}/cpu")
            if result.rc == 0:
                return self.test_elbo(f"{folder}/cpu"), None
        if result.rc == 2 and "fashion" in result.output.lower():  # which package has it
            return None, (NOT_RUN, result.last_line().replace("vae: error: ", ""))
        return None, (FAILED, f"on the CPU: {result.last_line()}")

    def test_elbo(self, run):
        result = self.program.run("evaluate", run, "--split", "test", "--json", "--backend", "cpu")
        if result.rc != 0:
            raise RuntimeError(result.last_line())
        return -json.loads(result.output.splitlines()[-1])["elbo"]

    @check_of_runs
    def like_the_cpu(self, folder, precision):
        reference, why = self.on_the_cpu()
        if why is not None:
            return why
        self.program.trained(folder / "run", precision, "--epochs", 1, "--seed", 1,
                             data="fashion-mnist")
        ours = -metrics_of(folder / "run", "test")[-1]["elbo"]
        is_near = abs(ours - reference) <= NATS  # not of a NaN
        return (PASSED if is_near else FAILED,
                f"test -elbo {ours:.2f}, of the CPU {reference:.2f}; gate {NATS:.0f}")

    def refused(self, out, result, *parts):
        """What must be so after a run that did not fit: a verdict and a detail."""
        line, wrong = refusal(result, *parts)
        if wrong is not None:
            return FAILED, wrong
        if out.exists():
            return FAILED, f"left a folder: {', '.join(path.name for path in out.iterdir())}"
        self.program.trained(out, "fp32", *TINY, data=SMALL_DATA)  # the next one is none the worse
        return PASSED, line

    @check_of_runs
    def model_too_large(self, folder, precision):
        if self.program.memory is None:
            return NOT_RUN, "the device's memory is not known"
        units = max(2 * self.program.memory // BYTES_A_UNIT, 64)
        result = self.program.train(folder / "run", precision, "--hidden", units, "--batch",
                                    LARGEST_BATCH, "--steps", 1, data=SMALL_DATA)
        verdict, detail = self.refused(folder / "run", result, "out of memory", "what would fit: ")
        return verdict, detail[detail.find("what would fit"):] if verdict == PASSED else detail

    @check_of_runs
    def data_too_large(self, folder, precision):
        if self.program.memory is None:
            return NOT_RUN, "the device's memory is not known"
        images = folder / "images.npy"
        try:
            make_empty_images(images, int(1.1 * self.program.memory) // (28 * 28))
        except OSError as error:
            return NOT_RUN, f"no file that large can be made: {error}"[:160]
        options = ["--binarize", *settings("data.validation=64"), *TINY]
        result = self.program.train(folder / "run", precision, *options, "--data-placement",
                                    "device", data=images)
        verdict, detail = self.refused(folder / "run", result, "out of memory", "streamed")
        if verdict != PASSED:
            return verdict, detail
        result = self.program.train(folder / "streamed", precision, *options, data=images)
        if result.rc != 0 or "streamed from the host" not in result.output:
            return FAILED, f"not streamed: {result.last_line()}"
        return PASSED, f"{images.stat().st_size / 2**30:.1f} GiB: refused, and streamed by auto"

    @check_of_runs
    def not_finite(self, folder, precision, plan):
        # Its first step makes numbers of 1e30 of all parameters.
        result = self.program.train(
            folder / "run", precision, "--plan", plan, "--hidden", "40,40", "--learning-rate",
            "1e30", "--steps", 100, data=SMALL_DATA)
        _, wrong = refusal(result)
        if wrong is not None:
            return FAILED, wrong
        skipped = re.search(r"warning: (skipped \d+ of \d+ steps.*)", result.output)
        if skipped is None:
            return FAILED, f"no step was skipped: {result.last_line()}"
        checkpoint = folder / "run" / "checkpoint.safetensors"
        if not is_finite(checkpoint):
            return FAILED, "the checkpoint has numbers that are not finite"
        return PASSED, skipped[1][:160]
