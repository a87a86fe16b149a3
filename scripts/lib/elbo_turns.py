"""The sides of scripts/bench_elbo: `vae` and the ways to run PyTorch train in turn, seed by seed,
for the same epochs from the same parameters, never two of them at once."""

import math
import shutil
import sys
import time

import machine
import peers
from cpu_settings import environment, peer_settings
from equal_work import OURS, TERMS, disagreement, new_side
from ours import LEAST, Ours, metrics_of
from time_limit import OutOfTime

TRIED = 120  # seconds at most for one setting of a CPU


def say(text):
    print(text, file=sys.stderr, flush=True)


class OtherWork(Exception):
    """A side does not do what it is compared for; the status says what is different."""

    def __init__(self, status, why):
        super().__init__(why)
        self.status = status


def check_loss(answer):
    if not answer["is_equal"]:
        raise OtherWork("different loss", f"{answer['loss']:.6g} of our first batch, not "
                        f"{answer['ours']:.6g}")


def check_finite(run):
    """Returns it; of what is not finite there is no mean, and no number in JSON."""
    for term in TERMS:
        for i, value in enumerate(run[term]):
            if not math.isfinite(value):
                raise OtherWork("failed", f"not finite: {term} is {value} after epoch {i + 1}")
    return run


class OurRun(Ours):
    """`vae` with one seed, in a folder of its own."""

    longest = float("inf")

    def __init__(self, arguments, seed, config, folder, left):
        super().__init__(arguments, f"{arguments.workload}/{arguments.precision}", config, folder,
                         left)
        for setting in [*arguments.set, f"train.seed={seed}"]:
            self.settings += ["--set", setting]
        if arguments.device == "cpu":
            self.environment = environment(OMP_NUM_THREADS=arguments.threads)

    def train_epochs(self, data, epochs):
        """The run, by epoch as metrics.jsonl has it. Whatever the program does but train and
        evaluate is apart: its start, checkpoints, pictures."""
        begin = time.monotonic()
        self.run("vae", "train", "--config", self.config, *self.settings, "--data", data,
                 "--backend", self.arguments.device, "--epochs", epochs, "--out", self.out())
        wall = time.monotonic() - begin
        trained, tested = (metrics_of(self.out(), split) for split in ("train", "test"))
        if not len(trained) == len(tested) == epochs or any(row["skipped"] for row in trained):
            raise OtherWork("different work", f"{len(trained)} epochs were trained and "
                            f"{len(tested)} evaluated, of {epochs}, or steps were skipped")
        seconds = [sum(row["seconds"] for row in trained[: i + 1]) for i in range(epochs)]
        return {"seconds": seconds, "elbo": [-row["elbo"] for row in tested],
                "recon": [row["recon"] for row in tested], "kl": [row["kl"] for row in tested],
                "examples": tested[-1]["examples"], "steps": trained[-1]["step"],
                "apart_seconds": wall - seconds[-1] - sum(row["seconds"] for row in tested)}

    def out(self):
        return self.folder / "run"


class OurSide:
    """`vae` in turn."""

    def __init__(self):
        self.row = new_side(OURS)

    def train(self, run, dump, arguments):
        del dump  # its parameters are those that the seed makes
        return check_finite(run.train_epochs(arguments.mnist, arguments.epochs))

    def close(self, deadline=None):
        """Nothing is left running between its turns."""


class PeerSide:
    """One way to run PyTorch, in a process of its own that stays for all seeds."""

    def __init__(self, variant, command, env, log, left):
        self.row = new_side(f"PyTorch {variant}")
        self.variant, self.command, self.env, self.log = variant, command, env, log
        self.left, self.process = left, None

    def ask(self, do, limit=float("inf"), **arguments):
        """(result, seconds)."""
        limit = max(LEAST, min(limit, self.left()))
        return self.process.ask(limit, do, variant=self.variant, **arguments)

    def start(self, limit, epochs=True):
        """Versions; it is ready for its turns then, after so many seconds at most."""
        begin = time.monotonic()
        limit = max(LEAST, min(limit, self.left()))
        self.process = peers.PeerProcess(self.command, log=self.log, env=self.env)
        versions = self.process.answer(limit)["versions"]
        self.row["start_seconds"] = time.monotonic() - begin
        answer, self.row["warm_up_seconds"] = self.process.ask(
            limit - self.row["start_seconds"], "prepare", variant=self.variant, epochs=epochs)
        check_loss(answer)
        return versions

    def train(self, run, dump, arguments):
        """As OurRun.train_epochs. Start and warm-up are the side's, once, not the run's."""
        del run
        began, apart = self.ask("begin", dump=str(dump))
        check_loss(began)
        epochs = [self.ask("epoch")[0] for _ in range(arguments.epochs)]
        seconds = [sum(epoch["seconds"] for epoch in epochs[: i + 1]) for i in range(len(epochs))]
        return check_finite({
            "seconds": seconds, "elbo": [epoch["recon"] + epoch["kl"] for epoch in epochs],
            "recon": [epoch["recon"] for epoch in epochs], "kl": [epoch["kl"] for epoch in epochs],
            "examples": epochs[-1]["examples"], "steps": sum(epoch["steps"] for epoch in epochs),
            "apart_seconds": apart})

    def check_definition(self, run, checkpoint, precision):
        """Whether by this peer's code our parameters have the test recon and kl that we say."""
        theirs = self.ask("evaluate", checkpoint=str(checkpoint))[0]
        last = {term: run[term][-1] for term in ("recon", "kl")}
        different = disagreement(last, theirs, precision)
        if different is not None:
            raise OtherWork("different definition", different)
        return theirs

    def close(self, deadline=None):
        if self.process is not None:
            self.process.close(deadline)

    def kill(self):
        if self.process is not None:
            self.process.kill()


class Turns:
    """All seeds of all sides."""

    def __init__(self, arguments, folder, record, keep):
        """`folder` is for whatever is written, arguments.began when the script did. keep() is
        called whenever there is more in the record."""
        self.arguments, self.folder, self.record, self.keep = arguments, folder, record, keep
        self.log = open(folder / "peers.log", "w", encoding="utf-8")  # pylint: disable=R1732
        self.config = folder / "config.toml"
        self.ours, self.others, self.active = OurSide(), [], None
        self.too_late = []  # peers that could not be prepared in time
        record["sides"] = [self.ours.row]

    def left(self, of="limit"):
        return self.arguments.began + getattr(self.arguments, of) - time.monotonic()

    def own_run(self, seed):
        folder = self.folder / f"seed{seed}"
        folder.mkdir(exist_ok=True)
        return OurRun(self.arguments, seed, self.config, folder, self.left)

    def during(self, side, do, *arguments):
        """What do() returns; None, and the side is out, if it fails."""
        if side.row["status"] != "ok":
            return None
        self.active = side  # and stays it when time is over
        try:
            result = do(*arguments)
            self.active = None
            return result
        except peers.PeerError as error:
            status = ("skipped" if error.is_skip else "timed out" if error.is_timeout
                      else "failed")
            side.row |= {"status": status, "why": str(error)}
        except OtherWork as error:
            side.row |= {"status": error.status, "why": str(error)}
        self.active = None
        side.close()
        say(f"{side.row['name']}: {side.row['status']}: {side.row['why']}")
        return None

    def peer_command(self, dump, threads):
        options = [] if self.arguments.chunk is None else ["--chunk", self.arguments.chunk]
        images, test = self.arguments.paths
        return [self.arguments.python, peers.PEERS / "pytorch.py", "--dump", dump, "--images",
                images, "--test-images", test, "--precision", self.arguments.precision, "--device",
                self.arguments.device, "--threads", threads, *options]

    def peer_side(self, variant, dump, threads=0, env=None):
        return PeerSide(variant, self.peer_command(dump, threads), env, self.log, self.left)

    def fastest_on_cpu(self, dump):
        """The PeerSide of the fastest setting, of those that --variants leaves; None if none
        runs."""
        best, trials, failed = None, self.record["trials"], None
        settings = peer_settings(self.arguments.threads)
        for name, (env, threads, variant) in settings.items():
            if variant not in self.arguments.variants:
                continue
            if self.arguments.trial == 0:
                best = name
                break
            tried = self.peer_side(variant, dump, threads, env)
            try:
                tried.start(TRIED, epochs=False)
                windows, _ = tried.ask("measure", TRIED, seconds=self.arguments.trial)
                trials[name] = min(windows)
                say(f"{min(windows):>10.0f} us a step   {name}")
                best = name if best is None or trials[name] < trials[best] else best
            except (peers.PeerError, OtherWork) as error:
                failed = (tried, error)
                say(f"{name}: {error}")
            finally:
                tried.close()
        if best is None:  # it is a row, though it never ran
            self.others.append(failed[0])
            failed[0].row |= {"status": "failed", "why": str(failed[1])}
            return None
        self.record["peer_setting"] = best
        env, threads, variant = settings[best]
        return self.peer_side(variant, dump, threads, env)

    def start_peers(self, dump):
        if self.arguments.device == "cpu":
            side = self.fastest_on_cpu(dump)
            self.others += [side] if side is not None else []
        else:
            self.others += [self.peer_side(variant, dump) for variant in self.arguments.variants]
        self.record["sides"] += [side.row for side in self.others]
        half = 0.5 * self.arguments.budget  # is kept for training
        for side in self.others:
            time_left, was_ok = self.left("budget") - half, side.row["status"] == "ok"
            if was_ok and time_left <= 0:
                side.row |= {"status": "skipped", "why": "no time was left to prepare it"}
            self.record["versions"] |= self.during(side, side.start, time_left) or {}
            if was_ok and (time_left <= 0 or side.row["status"] == "timed out"):
                self.too_late.append(side)
            say(f"prepared {side.row['name']}: {side.row['status']}")

    def take_turn(self, seed):
        """Each side trains once; then the peers evaluate what ours has become."""
        run = self.own_run(seed)
        dump = self.during(self.ours, run.dump, self.arguments.mnist)
        sides = [self.ours, *self.others]
        done = {}
        for side in sides if seed % 2 == 1 else reversed(sides):
            if dump is not None:
                done[side] = self.during(side, side.train, run, dump, self.arguments)
        ours = done.get(self.ours)
        for side in self.others:
            result = done.get(side)
            if result is None or ours is None:
                continue
            checkpoint = run.out() / "checkpoint.safetensors"
            result["ours_by_it"] = self.during(side, side.check_definition, ours, checkpoint,
                                               self.arguments.precision)
            if any(result[key] != ours[key] for key in ("steps", "examples")):
                side.row |= {"status": "different work", "why": "another number of steps, or of "
                             "test examples"}
        for side, result in done.items():
            if result is not None:
                side.row["runs"].append({"seed": seed} | result)
        shutil.rmtree(run.folder, ignore_errors=True)

    def has_peers(self):
        return any(side.row["status"] == "ok" for side in self.others)

    def train_all(self):
        """Why it is not complete; None if it is."""
        config = self.own_run(1).run("vae_step_bench", f"--print-config={self.arguments.workload}")
        self.config.write_text(config.stdout, encoding="utf-8")
        dump = self.during(self.ours, self.own_run(1).dump, self.arguments.mnist)
        if dump is None:
            return "vae could not begin"
        self.start_peers(dump)
        if not self.has_peers():
            return "no peer could begin"
        longest = 0
        for seed in range(1, self.arguments.seeds + 1):
            if self.left("budget") < longest:
                return f"no time was left for seed {seed}"
            begin = time.monotonic()
            self.take_turn(seed)
            longest = max(longest, time.monotonic() - begin)
            self.keep()
            say(f"seed {seed} of {self.arguments.seeds}: " + "; ".join(
                f"{side.row['name']} {side.row['runs'][-1]['elbo'][-1]:.3f} after "
                f"{side.row['runs'][-1]['seconds'][-1]:.2f} s"
                for side in [self.ours, *self.others] if side.row["runs"]))
            if self.ours.row["status"] != "ok":
                return f"vae could not train with seed {seed}"
            if not self.has_peers():
                return f"no peer is left after seed {seed}"
        if self.too_late:
            return "no time was left to prepare " + ", ".join(
                side.row["name"] for side in self.too_late)
        return None

    def run(self, limit):
        """Fills in the record; whether all seeds of all peers that can run are in it: nothing was
        cut off, or not begun for want of time."""
        try:
            with limit:
                why = self.train_all()
        except OutOfTime as error:
            why = str(error)
            (self.active or self.ours).row |= {"status": "timed out", "why": why}
        except peers.PeerError as error:  # before there was a side to have it
            why = str(error)
            self.ours.row |= {"status": "failed", "why": why}
        finally:
            self.close()
        self.record |= {"is_complete": why is None, "why": why or "", "gpu_after": machine.gpu()}

    def close(self):
        """Ends all processes, and waits for all of them together."""
        for side in self.others:
            side.kill()
        deadline = machine.grace()
        for side in self.others:
            side.close(deadline)
        self.log.close()
