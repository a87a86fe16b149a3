"""`vae` as one of those that take turns in scripts/bench_gpu: its programs, and what they print."""

import json
import subprocess

import machine
import peers

LONGEST = 300  # seconds of one command
LEAST = 10  # seconds for whatever is begun


def split_cell(cell):
    """Its workload, precision and plan; "" for the plan that `auto` takes."""
    workload, precision, plan = (cell.split("/") + ["", ""])[:3]
    return workload, precision, plan


def plans_of(workload):
    """The plans that a cell can name beside that of `auto`, which is `cublas` where hidden layers are
    not ReLU."""
    return ("cublas", "epilogue", "fused") if workload in ("S", "L") else ("fused",)


def metrics_of(run, split):
    """The rows of a run's folder that are of this split, in the order of epochs."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["split"] == split]


class Ours:
    """`vae` as one of those that take turns, through vae_step_bench."""

    longest = LONGEST  # of one that trains for whole epochs it is more

    def __init__(self, arguments, cell, config, folder, left):
        """left() is how many seconds its cell still has."""
        self.arguments, self.config, self.folder = arguments, config, folder
        self.left = left
        self.workload, self.precision, self.plan = split_cell(cell)
        # A cache of its own: what `vae devices --tune` once found here, algorithms and plans, is
        # not in these numbers, and "auto" counts.
        self.environment = {**machine.environment(), "XDG_CACHE_HOME": str(folder / "cache")}
        self.settings = ([] if arguments.device == "cpu"
                         else ["--set", f"train.precision={self.precision}",
                               "--set", f"train.plan={self.plan or 'auto'}"])

    def run(self, program, *command, check=True):
        limit = max(LEAST, min(self.longest, self.left()))
        try:
            result = machine.run_in_session((self.arguments.bin / program, *command), limit,
                                            env=self.environment)
        except subprocess.TimeoutExpired:
            raise peers.PeerError(f"{program} still runs after {limit:.0f} s",
                                  is_timeout=True) from None
        if check and result.returncode != 0:
            said = machine.last_lines(result.stderr.strip() or result.stdout)
            raise peers.PeerError(f"{program} ends with {result.returncode}: {said}")
        return result

    def dump(self, images):
        """Our first batch, parameters and loss. What compare says is another script's matter."""
        path = self.folder / "dump.safetensors"
        backend = self.arguments.device
        result = self.run("vae", "compare", "--config", self.config, *self.settings, "--data",
                          images, "--backend", backend, "--against", backend, "--steps", 1,
                          "--dump", path, check=False)
        if not path.exists():
            said = machine.last_lines(result.stderr.strip() or result.stdout)
            raise peers.PeerError(f"no dump: {said}")
        return path

    def benchmark(self, name, *options):
        """The runs of the one benchmark whose name is this regular expression."""
        result = self.run("vae_step_bench", f"--backend={self.arguments.device}",
                          "--benchmark_format=json", f"--benchmark_filter=^{name}$", *options)
        runs = [run for run in json.loads(result.stdout)["benchmarks"]
                if run["run_type"] == "iteration"]
        for run in runs:
            if run.get("error_occurred"):
                raise peers.PeerError(run.get("error_message", "failed"))
        if not runs:
            raise peers.PeerError(f"vae_step_bench has no {name}")
        return runs

    def prepare(self):
        """Seconds from nothing but a GPU's context to the first step's loss."""
        run = self.benchmark(f"start_up/{self.workload}/.*")[0]
        return run["real_time"] / {"ms": 1e3, "us": 1e6, "s": 1}[run["time_unit"]]

    def measure(self, seconds):
        """Microseconds a step, of several repetitions."""
        repetitions = 5
        kind = ("" if self.arguments.device == "cpu" else
                f"/{self.precision}" + (self.plan and f"/{self.plan}"))
        runs = self.benchmark(f"train_step/{self.workload}{kind}/real_time",
                              f"--benchmark_repetitions={repetitions}",
                              f"--benchmark_min_time={seconds / repetitions}")
        return [run["us_per_step"] for run in runs]

    def train(self, images, steps):
        """[steps, mean loss] of the first steps."""
        out = self.folder / "run"
        self.run("vae", "train", "--config", self.config, *self.settings, "--data", images,
                 "--backend", self.arguments.device, "--steps", steps, "--out", out)
        rows = metrics_of(out, "train")
        if any(row["loss"] is None for row in rows):  # what is not finite is null
            raise peers.PeerError("its mean loss is not finite")
        examples = sum(row["examples"] for row in rows)
        return [rows[-1]["step"], sum(row["loss"] * row["examples"] for row in rows) / examples]
