#!/usr/bin/env python3
"""Tests of how the sides of scripts/bench_elbo take turns, with peers that are made up, and, with
PyTorch, that an epoch of bench/peers/pytorch.py has every example once."""

import contextlib
import importlib.util
import io
import pathlib
import sys
import tempfile
import time
import types
import unittest
from unittest import mock

sys.dont_write_bytecode = True
ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "scripts" / "lib"), str(ROOT / "bench" / "peers")]
import elbo_turns  # noqa: E402
import equal_work  # noqa: E402
import peers  # noqa: E402
from time_limit import TimeLimit  # noqa: E402


class FakeProcess:
    """A peer that is made up. It says what it is asked in `asked`, and "hangs" runs over in its
    second seed."""

    asked, limits, start_takes = [], [], 0

    def __init__(self, command, log=None, env=None):
        del log, env
        self.command, self.begun, self.variant = command, 0, None

    def answer(self, timeout):
        FakeProcess.limits.append(timeout)
        time.sleep(FakeProcess.start_takes)
        return {"versions": {"fake": "1"}}

    def ask(self, timeout, do, variant, **arguments):
        del arguments
        if do == "prepare":
            FakeProcess.limits.append(timeout)
        if do == "prepare" and variant == "compiles for ever":
            raise peers.PeerError("no answer in 1 s", is_timeout=True)
        self.begun += do == "begin"
        if do in ("prepare", "begin"):
            FakeProcess.asked.append((do, variant))
        if variant == "absent":
            raise peers.PeerError("no such Adam", is_skip=True)
        if variant == "hangs" and self.begun == 2:
            raise peers.PeerError("no answer in 1 s", is_timeout=True)
        recon = float("nan") if variant == "diverges" and self.begun == 2 else 230.0 + self.begun
        return {"prepare": {"is_equal": True}, "begin": {"is_equal": True},
                "epoch": {"seconds": 1.0, "recon": recon, "kl": 10.0, "steps": 2,
                          "examples": 5},
                "evaluate": {"passes": 2, "recon": {"mean": 230.0, "error": 1.0},
                             "kl": {"mean": 10.0, "error": 0.0}}}[do], 0.01

    def kill(self):
        FakeProcess.asked.append(("kill", self.variant))

    def close(self, deadline=None):
        """Nothing runs."""


class FakeRun:
    """`vae` likewise, with the same terms in every run."""

    def __init__(self, arguments, seed, config, folder, left):
        del arguments, config, left
        self.seed, self.folder = seed, folder

    def run(self, *command):
        del command
        return types.SimpleNamespace(stdout="")

    def dump(self, data):
        del data
        path = self.folder / "dump"
        path.touch()
        return path

    def train_epochs(self, data, epochs):
        del data
        FakeProcess.asked.append(("begin", "vae"))
        return {"seconds": [1.0] * epochs, "elbo": [240.0] * epochs, "recon": [230.0] * epochs,
                "kl": [10.0] * epochs, "examples": 5, "steps": 2 * epochs, "apart_seconds": 1.0}

    def out(self):
        return self.folder


class Turns(unittest.TestCase):
    def run_turns(self, *variants, **changes):
        """The record, and who did what."""
        FakeProcess.asked, FakeProcess.limits = [], []
        kept = []
        arguments = types.SimpleNamespace(**{
            "device": "cuda", "variants": variants, "seeds": 3, "epochs": 2, "budget": 100,
            "limit": 100, "began": time.monotonic(), "precision": "fp32", "workload": "S",
            "chunk": None, "python": "python", "paths": ["a", "b"], "mnist": "mnist:x", **changes})
        done = {"versions": {}, "epochs": 2, "asked_target": None}
        with tempfile.TemporaryDirectory() as folder, \
                mock.patch.object(peers, "PeerProcess", FakeProcess), \
                mock.patch.object(elbo_turns, "OurRun", FakeRun), \
                contextlib.redirect_stderr(io.StringIO()):
            elbo_turns.Turns(arguments, pathlib.Path(folder), done,
                             lambda: kept.append(len(done["sides"][0]["runs"]))).run(
                                 TimeLimit(600))
        self.assertEqual(kept, [*range(1, len(done["sides"][0]["runs"]) + 1)])
        return equal_work.summarize(done), FakeProcess.asked

    def test_in_turn_seed_by_seed(self):
        done, asked = self.run_turns("A", "B")
        self.assertTrue(done["is_complete"])
        turns = [who for what, who in asked if what == "begin"]
        self.assertEqual(turns, ["vae", "A", "B", "B", "A", "vae", "vae", "A", "B"])
        self.assertEqual([who for what, who in asked if what == "prepare"], ["A", "B"])
        self.assertEqual(len([what for what, _ in asked if what == "kill"]), 2)
        self.assertEqual([[run["seed"] for run in one["runs"]] for one in done["sides"]],
                         [[1, 2, 3]] * 3)
        self.assertEqual(done["sides"][1]["runs"][0]["seconds"], [1.0, 2.0])
        self.assertEqual(done["versions"], {"fake": "1"})

    def test_one_that_fails_takes_nobody_along(self):
        done, _ = self.run_turns("A", "hangs", "absent")
        self.assertTrue(done["is_complete"])
        self.assertEqual([(one["status"], len(one["runs"])) for one in done["sides"]],
                         [("ok", 3), ("ok", 3), ("timed out", 1), ("skipped", 0)])

    def test_half_of_the_budget_is_kept_for_training(self):
        with mock.patch.object(FakeProcess, "start_takes", 0.3):
            done, _ = self.run_turns("A", "B", budget=100, limit=1000)
        self.assertTrue(done["is_complete"])
        # Of A: its start and its preparation end at the same time, and B's too.
        for limit, spent in zip(FakeProcess.limits, (0, 0.3, 0.3, 0.6)):
            self.assertAlmostEqual(limit, 50 - spent, delta=0.2)

    def test_a_peer_that_is_not_prepared_in_time_is_missing(self):
        done, _ = self.run_turns("A", "compiles for ever")
        self.assertEqual([(one["status"], len(one["runs"])) for one in done["sides"]],
                         [("ok", 3), ("ok", 3), ("timed out", 0)])
        self.assertEqual((done["is_complete"], done["why"]), (
            False, "no time was left to prepare PyTorch compiles for ever"))
        with mock.patch.object(FakeProcess, "start_takes", 1.2):
            done, _ = self.run_turns("A", "B", budget=2, seeds=1)
        self.assertEqual([one["status"] for one in done["sides"]], ["ok", "ok", "skipped"])
        self.assertEqual((done["is_complete"], done["why"]), (
            False, "no time was left to prepare PyTorch B"))

    def test_what_is_not_finite_has_failed(self):
        done, _ = self.run_turns("A", "diverges")
        side = done["sides"][2]
        self.assertEqual((side["status"], side["why"], len(side["runs"])),
                         ("failed", "not finite: elbo is nan after epoch 1", 1))
        self.assertEqual(len(done["sides"][1]["runs"]), 3)

    def test_without_a_peer_nothing_goes_on(self):
        done, asked = self.run_turns("absent")
        self.assertEqual((done["is_complete"], done["why"]), (False, "no peer could begin"))
        self.assertNotIn(("begin", "vae"), asked)

    def test_a_seed_for_which_there_is_no_time(self):
        train = FakeRun.train_epochs

        def slowly(*arguments):
            time.sleep(0.4)
            return train(*arguments)

        with mock.patch.object(FakeRun, "train_epochs", slowly):
            done, _ = self.run_turns("A", budget=1)
        self.assertFalse(done["is_complete"])
        self.assertIn("no time was left for seed", done["why"])
        self.assertIn(len(done["sides"][1]["runs"]), (1, 2))


@unittest.skipIf(importlib.util.find_spec("torch") is None, "no PyTorch")
class Epochs(unittest.TestCase):
    """bench/peers/pytorch.py, with graphs that are made up where there is no GPU."""

    def test_every_example_once_in_graphs_too(self):
        import pytorch  # pylint: disable=import-outside-toplevel,import-error
        import torch  # pylint: disable=import-outside-toplevel,import-error
        torch.manual_seed(1)  # with which no order comes twice
        for examples, at_once in ((22, 1), (22, 2), (24, 2), (20, 1), (7, 1), (3, 1)):
            seen = []
            stepper = object.__new__(pytorch.Stepper)
            stepper.peer = types.SimpleNamespace(
                given=types.SimpleNamespace(batch=4, examples=examples))
            stepper.order = pytorch.Order(stepper.peer.given, torch.device("cpu"))
            stepper.steps_at_once, stepper.is_captured = at_once, at_once > 1
            stepper.graph = stepper.graph_of_rest = None
            stepper.step = lambda rows, seen=seen: seen.append(rows.tolist())

            def captured(count, stepper=stepper):
                rows = stepper.order.next(count).clone()
                return rows, types.SimpleNamespace(
                    replay=lambda: [stepper.step(batch) for batch in rows.split(4)])

            stepper.captured = captured
            if stepper.is_captured:
                stepper.capture()
            stepper.prepare_epochs()
            first = None
            for _ in range(2):
                seen.clear()
                stepper.epoch()
                self.assertEqual(sorted(sum(seen, [])), list(range(examples)))
                self.assertEqual(len(seen), -(-examples // 4))
                self.assertNotEqual(seen, first)
                first = list(seen)


if __name__ == "__main__":
    unittest.main()
