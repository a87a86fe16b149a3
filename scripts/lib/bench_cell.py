"""One cell of scripts/bench_gpu: a workload in a precision. `vae` and its peers are prepared one
after another and then measured in turn, never two of them at once."""

import subprocess
import sys
import time

import machine
import peers
from ours import LEAST, Ours, split_cell
from speed_table import OURS, new_row
from time_limit import OutOfTime

# height, width, channels; examples so that nine tenths of them are the training split
SHAPES = {"S": (66666, 28, 28, 1), "I1": (66666, 28, 28, 1), "I50": (66666, 28, 28, 1),
          "L": (18204, 32, 32, 3)}
# In the order in which they are prepared: the ones that matter most before time is up.
TORCH = ("compile, captured", "eager, fused Adam", "compile, reduce-overhead", "eager, captured",
         "eager, foreach Adam", "compile, default", "compile, max-autotune",
         "compile max-autotune, captured")
JAX = ("jit(lax.scan)",)
# How many steps must lose as much as ours; of L few, since its epochs are of two and each ends in a
# checkpoint.
TRAINED_STEPS = {"S": 100, "I1": 100, "I50": 100, "L": 2}


class Contender:
    """One that takes turns: prepare() gives its result and the seconds that it took,
    measure(seconds) the microseconds a step of several windows, train() [steps, mean loss]."""

    def __init__(self, name):
        self.row = new_row(name)
        self.ours = None  # our loss of our first batch, as a peer read it

    def fail(self, error):
        self.row["status"] = ("skipped" if error.is_skip else
                              "timed out" if error.is_timeout else "failed")
        self.row["why"] = str(error)

    def is_in(self):
        return self.row["status"] == "ok"


class OursInTurn(Contender):
    """`vae`."""

    def __init__(self, cell):
        super().__init__(OURS)
        self.cell, self.measure = cell, cell.ours.measure

    def prepare(self):
        return None, self.cell.ours.prepare()

    def train(self):
        return self.cell.ours.train(self.cell.images, TRAINED_STEPS[self.cell.workload])


class PeerInTurn(Contender):
    """One way to run a peer."""

    def __init__(self, cell, peer, variant):
        super().__init__(f"{'PyTorch' if peer == 'pytorch' else 'JAX'} {variant}")
        self.cell, self.variant = cell, variant
        # What is compiled or captured is alone: others' code does not change its, and a capture
        # that fails, or a process that is ended, takes nothing with it.
        is_alone = "compile" in variant or "captured" in variant
        self.key = (peer, variant if is_alone else "")
        self.prepared_in = None  # the process

    def ask(self, do, **arguments):
        kept = self.cell.reserve() if do == "prepare" else 0
        process, started = self.cell.process(self.key, self.cell.left() - kept)
        if started is not None:
            self.row["start_seconds"] = started
        if do != "prepare" and process is not self.prepared_in:
            self.prepare()
        try:
            return process.ask(max(LEAST, self.cell.left() - kept), do, variant=self.variant,
                               **arguments)
        except peers.PeerError as error:
            if not error.is_skip:  # an error on a GPU stays with its process
                process.close()
            raise

    def prepare(self):
        answer = self.ask("prepare")
        self.prepared_in = self.cell.processes[self.key]
        return answer

    def measure(self, seconds):
        return self.ask("measure", seconds=seconds)[0]

    def train(self):
        return self.ask("train", steps=TRAINED_STEPS[self.cell.workload])[0]


class Cell:
    """Measured until its share of the time is over."""

    def __init__(self, arguments, cell, folder, images, deadline, starts):
        """`images` is where those of the workload are, or will be: other cells have the same.
        `starts` is a peers.Starts, which all cells share."""
        self.arguments, self.cell, self.folder = arguments, cell, folder
        self.started, self.deadline, self.starts = time.monotonic(), deadline, starts
        self.processes, self.versions = {}, {}
        self.log = open(folder / "peers.log", "w", encoding="utf-8")  # pylint: disable=R1732
        self.workload, self.precision, _ = split_cell(cell)
        self.config, self.images = folder / "config.toml", images
        self.ours = Ours(arguments, cell, self.config, folder, self.left)
        self.contenders, self.rounds, self.gpu_after = [], 0, {}
        self.active = None  # the contender that is at work

    def left(self):
        return self.deadline - time.monotonic()

    def reserve(self):
        """Seconds that are kept for the turns and for what follows them."""
        return 0.35 * (self.deadline - self.started)

    def peer_command(self, name):
        options = [] if self.arguments.chunk is None else ["--chunk", self.arguments.chunk]
        return [self.arguments.python, peers.PEERS / f"{name}.py", "--dump",
                self.folder / "dump.safetensors", "--images", self.images, "--precision",
                self.precision, "--device", self.arguments.device, *options]

    def make_inputs(self):
        settings = self.ours.run("vae_step_bench", f"--print-config={self.workload}").stdout
        self.config.write_text(settings, encoding="utf-8")
        if not self.images.exists():
            partial = self.folder / "images.npy"
            self.make_images(partial)
            partial.rename(self.images)
        return self.ours.dump(self.images)

    def make_images(self, path):
        self.starts.check("pytorch", self.cell)
        shape = list(SHAPES[self.workload])
        if self.arguments.examples is not None:
            shape[0] = self.arguments.examples
        limit = max(LEAST, min(120, self.left()))
        command = [self.arguments.python, peers.PEERS / "pytorch.py", "--make-images", path,
                   "--shape", *shape]
        try:
            made = machine.run_in_session(command, limit, env=machine.python_environment())
        except subprocess.TimeoutExpired:
            raise peers.PeerError(f"making images: more than {limit:.0f} s",
                                  is_timeout=True) from None
        if made.returncode != 0:
            raise self.starts.remember("pytorch", None, peers.PeerError(
                f"no PyTorch: {machine.last_lines(made.stderr)}", is_skip=True))

    def process(self, key, seconds):
        """The process of a peer, and how long it took to start; None if it was there."""
        process = self.processes.get(key)
        if process is not None and process.is_alive():
            return process, None
        if process is not None:  # its compilers may have outlived it
            process.close()
        begin, name = time.monotonic(), key[0]
        process, self.versions[name] = self.starts.start(
            name, self.cell, self.peer_command(name), self.log, max(LEAST, seconds))
        self.processes[key] = process
        return process, time.monotonic() - begin

    def peer_contenders(self):
        wanted = self.arguments.variants
        chosen = [("pytorch", variant) for variant in TORCH] + [("jax_scan", v) for v in JAX]
        chosen.insert(2, chosen.pop())  # JAX after the two that matter most
        return [PeerInTurn(self, peer, variant) for peer, variant in chosen
                if wanted is None or variant in wanted]

    def during(self, contender, do):
        """Does it; what it raises is the contender's."""
        self.active = contender
        try:
            do(contender)
        except peers.PeerError as error:
            contender.fail(error)
        self.active = None

    def prepare_peer(self, contender):
        result, contender.row["warm_up_seconds"] = contender.prepare()
        contender.row["loss"], contender.ours = result["loss"], result["ours"]
        if not result["is_equal"]:
            contender.row |= {"status": "different loss", "why":
                              f"{result['loss']:.6g}, not {result['ours']:.6g}"}

    @staticmethod
    def prepare_ours(contender):
        contender.row["warm_up_seconds"] = contender.prepare()[1]

    def prepare_all(self):
        """Ours and those of the peers for which there is time."""
        ours = OursInTurn(self)
        self.contenders.append(ours)
        self.during(ours, self.prepare_ours)
        try:
            self.make_inputs()
        except peers.PeerError as error:
            self.contenders.append(Contender("peers"))
            self.contenders[-1].fail(error)
            return
        others = self.peer_contenders()
        self.contenders += others
        for other in others:
            if self.left() < self.reserve():
                other.row |= {"status": "skipped", "why": "no time was left to prepare it"}
            else:
                self.during(other, self.prepare_peer)
            ours.row["loss"] = ours.row["loss"] or other.ours
            say(f"{self.cell}: prepared {other.row['name']}: {other.row['status']} "
                f"{other.row['why']}")

    def take_turn(self, contender):
        contender.row["microseconds"] += contender.measure(self.arguments.seconds)

    def take_turns(self):
        longest = 0.0
        learning = 0.1 * (self.deadline - self.started)  # kept for it
        while self.rounds < self.arguments.rounds and (
                self.rounds < 1 or self.left() > longest + learning):
            begin = time.monotonic()
            racing = [one for one in self.contenders if one.is_in()]
            for contender in racing if self.rounds % 2 == 0 else reversed(racing):
                self.during(contender, self.take_turn)
            longest = max(longest, time.monotonic() - begin)
            self.rounds += 1

    def learn(self, contender):
        """That it trains at all: the mean loss of its first steps."""
        try:
            contender.row["trained"] = contender.train()
        except peers.PeerError as error:
            contender.row["why"] = f"cannot train: {error}"

    def measure(self):
        self.prepare_all()
        self.take_turns()
        self.gpu_after = machine.gpu()  # its clocks while it is warm
        for contender in self.contenders:
            if contender.is_in() and self.images.exists() and self.left() > 0:
                self.during(contender, self.learn)

    def run(self, limit):
        """Whether it came to its end before the TimeLimit. Whatever breaks is a row, and all of
        what was measured before is in result()."""
        try:
            with limit:
                self.measure()
            return True
        except OutOfTime as error:
            self.stop("timed out", str(error))
            return False
        except Exception as error:  # pylint: disable=broad-except  # the other cells go on
            self.stop("failed", f"{type(error).__name__}: {error}"[:200])
            return True
        finally:
            self.close()

    def stop(self, status, why):
        """Whoever was at work has ended so, or ours if it was nobody."""
        if not self.contenders:
            self.contenders.append(Contender(OURS))
        (self.active or self.contenders[0]).row |= {"status": status, "why": why}
        for one in self.contenders:
            if one.is_in() and not one.row["microseconds"]:
                one.row |= {"status": "skipped", "why": "the cell ended before its turn"}

    def result(self):
        return {"cell": self.cell, "rounds": self.rounds, "versions": self.versions,
                "gpu_after": self.gpu_after, "rows": [one.row for one in self.contenders]}

    def close(self):
        """Ends all processes, and waits for all of them together."""
        for process in self.processes.values():
            process.kill()
        deadline = machine.grace()
        for process in self.processes.values():
            process.close(deadline)
        self.log.close()


def say(text):
    print(text, file=sys.stderr, flush=True)
