#!/usr/bin/env python3
"""Tests of scripts/bench_gpu: bench_gpu_test.py [FOLDER OF vae AND vae_step_bench].

What it concludes from numbers, what becomes of peers that fail, and, with the programs and PyTorch,
all of it on the CPU.
"""

import importlib.machinery
import importlib.util
import io
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import textwrap
import unittest
from unittest import mock

sys.dont_write_bytecode = True
ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "bench" / "peers"))
import workload  # noqa: E402


def load(name):
    """A script, which has no .py, as a module."""
    loader = importlib.machinery.SourceFileLoader(name, str(ROOT / "scripts" / name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    loader.exec_module(module)
    return module


bench = load("bench_gpu")
machine, peers = bench.machine, bench.peers
PROGRAMS = pathlib.Path(sys.argv.pop(1)) if len(sys.argv) > 1 else None


def row(name, microseconds, **values):
    return {**bench.new_row(name), "microseconds": microseconds, "trained": [100, 300.0], **values}


def cell(*rows):
    return {"cell": "S/tf32", "rows": list(rows)}


class Conclusions(unittest.TestCase):
    def test_ratio_is_to_the_fastest_peer(self):
        done = bench.summarize(cell(row("vae", [20.0, 22.0, 21.0]), row("A", [40.0, 42.0, 44.0]),
                                    row("B", [84.0])))
        ratios = [one["ratio"] for one in done["rows"]]
        self.assertEqual(ratios, [2.0, 1.0, 0.5])
        self.assertEqual(done["rows"][0]["quartiles"], [20.5, 21.5])

    def test_a_peer_that_wins_shows(self):
        done = bench.summarize(cell(row("vae", [30.0]), row("A", [15.0])))
        self.assertEqual(done["rows"][0]["ratio"], 0.5)
        self.assertIn("| vae | 30.0 | 30.0 to 30.0 | 0.50 |", bench.table(done))

    def test_other_work_is_not_the_fastest(self):
        fast = row("A", [1.0], status="different loss", why="1, not 2")
        done = bench.summarize(cell(row("vae", [30.0]), fast, row("B", [60.0])))
        self.assertEqual(done["fastest_peer"], 60.0)
        self.assertNotIn("ratio", done["rows"][1])
        self.assertIn("| A | different loss: 1, not 2 | – | – |", bench.table(done))

    def test_training_otherwise_is_other_work(self):
        done = bench.summarize(cell(row("vae", [30.0], trained=[100, 300.0]),
                                    row("A", [1.0], trained=[100, 330.0]),
                                    row("B", [2.0], trained=[100, float("nan")]),
                                    row("C", [60.0], trained=[100, 301.0])))
        self.assertEqual([one["status"] for one in done["rows"]],
                         ["ok", "different loss", "different loss", "ok"])
        self.assertEqual(done["rows"][0]["ratio"], 2.0)

    def test_what_was_not_seen_to_train_has_no_ratio(self):
        done = bench.summarize(cell(row("vae", [30.0]), row("A", [15.0], trained=None),
                                    row("B", [60.0])))
        self.assertEqual(done["rows"][1]["status"], "not checked")
        self.assertEqual(done["fastest_peer"], 60.0)
        self.assertIn("| A (not checked: whether it trains is not known) | 15.0 | 15.0 to 15.0 | – "
                      "|", bench.table(done))

    def test_nothing_measured_has_failed(self):
        done = bench.summarize(cell(row("vae", [30.0]), row("A", [])))
        self.assertEqual(done["rows"][1]["status"], "failed")
        self.assertNotIn("ratio", done["rows"][0])  # there is no peer to compare with

    def test_every_row_is_in_the_table(self):
        rows = [row("vae", [30.0]), row("A", [], status="skipped", why="no JAX"),
                row("B", [], status="failed", why="ended with status 1"), row("C", [90.0])]
        lines = bench.table(bench.summarize(cell(*rows))).splitlines()
        self.assertEqual(len([line for line in lines if line.startswith("| ")]), 2 + len(rows))
        self.assertTrue(all(line.count("|") == 8 for line in lines if line.startswith("|")))


class Equality(unittest.TestCase):
    def test_loss_by_precision(self):
        given = mock.Mock(spec=workload.Workload)
        given.loss.return_value = 500.0
        for loss, precision, is_equal in ((500.004, "fp32", True), (500.01, "fp32", False),
                                          (500.04, "tf32", True), (500.9, "bf16", True),
                                          (501.1, "bf16", False), (float("nan"), "bf16", False)):
            self.assertEqual(workload.Workload.is_equal(given, loss, precision), is_equal, loss)

    def test_config(self):
        text = ('# c\n[model]\n# help\nencoder_hidden = [400, 20]\nlikelihood = "x"\n'
                '[train]\nema = 0.0')
        self.assertEqual(workload.read_config(text), {
            "model": {"encoder_hidden": [400, 20], "likelihood": "x"}, "train": {"ema": 0.0}})

    def test_images(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "x.npy"
            workload.write_images(path, (3, 2, 2, 1), bytes(range(12)))
            self.assertEqual(path.read_bytes()[:128].count(b"\n"), 1)
            self.assertEqual((path.stat().st_size - 12) % 64, 0)
            self.assertEqual(workload.read_images(path), (3, 4, bytearray(range(12))))


FAKE = """
    import os, sys, time
    sys.path.insert(0, sys.argv[1])
    import workload
    class Peer:
        def versions(self):
            print("whatever libraries print")
            return {"fake": "1"}
        def prepare(self, variant):
            if variant == "absent": raise workload.NotHere("no such thing")
            if variant == "broken": raise ValueError("wrong\\nsecond line")
            if variant == "dies": os._exit(3)
            if variant == "hangs": time.sleep(100)
            return variant
    workload.serve(Peer)
"""


class Processes(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        script = pathlib.Path(folder.name) / "fake.py"
        script.write_text(textwrap.dedent(FAKE))
        self.peer = peers.PeerProcess([sys.executable, script, ROOT / "bench" / "peers"])
        self.addCleanup(self.peer.close)
        self.assertEqual(self.peer.answer(60), {"versions": {"fake": "1"}})

    def failure(self, variant, timeout=60):
        with self.assertRaises(peers.PeerError) as caught:
            self.peer.ask(timeout, "prepare", variant=variant)
        return str(caught.exception), caught.exception.is_skip

    def test_answers_and_failures(self):
        self.assertEqual(self.peer.ask(60, "prepare", variant="good")[0], "good")
        self.assertEqual(self.failure("absent"), ("no such thing", True))
        self.assertEqual(self.failure("broken"), ("ValueError: wrong", False))
        self.assertEqual(self.peer.ask(60, "prepare", variant="good")[0], "good")
        self.assertEqual(self.failure("dies"), ("ended with status 3", False))
        self.assertEqual(self.failure("good"), ("ended with status 3", False))

    def test_a_peer_that_hangs_is_ended(self):
        self.assertEqual(self.failure("hangs", timeout=1), ("no answer in 1 s", False))
        self.assertFalse(self.peer.is_alive())


class FakeProcess:
    """A peer's process that ends when it is asked to prepare "hangs"."""

    made = 0

    def __init__(self, command, log=None):
        del command, log
        FakeProcess.made += 1
        self.asked, self.alive = [], True

    def answer(self, timeout):
        del timeout
        return {"versions": {"fake": "1"}}

    def ask(self, timeout, do, variant, **arguments):
        del timeout, arguments
        self.asked.append((do, variant))
        if variant == "hangs":
            self.alive = False
            raise peers.PeerError("no answer in 1 s")
        return [1.0], 0.5

    def is_alive(self):
        return self.alive

    def close(self):
        self.alive = False


class Turns(unittest.TestCase):
    def test_what_ended_with_another_is_prepared_again(self):
        with tempfile.TemporaryDirectory() as folder, \
                mock.patch.object(peers, "PeerProcess", FakeProcess):
            arguments = mock.Mock(chunk=None, device="cpu", bin=pathlib.Path(folder))
            folder = pathlib.Path(folder)
            one = bench.Cell(arguments, "S/fp32", folder, folder / "images.npy", deadline=0)
            self.addCleanup(one.log.close)
            good, bad = one.contender("pytorch", "good"), one.contender("pytorch", "hangs")
            apart = one.contender("pytorch", "compile, max-autotune")
            good.prepare()
            apart.prepare()
            self.assertEqual(FakeProcess.made, 2)
            with self.assertRaises(peers.PeerError):
                bad.prepare()
            self.assertEqual(good.measure(0.1), [1.0])
            self.assertEqual(FakeProcess.made, 3)
            process = one.processes["pytorch", ""]
            self.assertEqual(process.asked, [("prepare", "good"), ("measure", "good")])
            good.measure(0.1)
            self.assertEqual(process.asked[2:], [("measure", "good")])


class Program(unittest.TestCase):
    def test_without_a_gpu_it_says_so(self):
        error = io.StringIO()
        with mock.patch.object(machine, "has_gpu", return_value=False), \
                mock.patch.object(machine, "find_folder", return_value=ROOT), \
                mock.patch("sys.stderr", error):
            self.assertEqual(bench.main([]), 2)
        self.assertIn("there is no NVIDIA GPU here", error.getvalue())
        self.assertEqual(error.getvalue().count("\n"), 1)

    def test_wrong_cells(self):
        with mock.patch("sys.stderr", io.StringIO()), self.assertRaises(SystemExit):
            bench.parse(["--cells", "S/fp64"])

    @unittest.skipIf(PROGRAMS is None, "no programs were given")
    def test_on_the_cpu(self):
        python = bench.find_python(None)
        if machine.text_of([python, "-c", "import torch"]) is None:
            self.skipTest("no PyTorch")
        with tempfile.TemporaryDirectory() as folder:
            out = pathlib.Path(folder) / "record.json"
            result = subprocess.run(
                [sys.executable, ROOT / "scripts" / "bench_gpu", "--device", "cpu", "--bin",
                 PROGRAMS, "--cells", "S/fp32", "--examples", "2000", "--budget", "200",
                 "--seconds", "0.05", "--rounds", "1", "--python", python, "--out", out,
                 "--variants", "eager, fused Adam", "--variants", "eager, foreach Adam",
                 "--variants", "eager, captured"],
                env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
                check=False)
            self.assertEqual(result.returncode, 0, result.stderr)
            record = json.loads(out.read_text())
            rows = {one["name"]: one for one in record["cells"][0]["rows"]}
            self.assertEqual(rows["vae"]["status"], "ok")
            self.assertEqual(rows["PyTorch eager, foreach Adam"]["status"], "ok", rows)
            self.assertEqual(rows["PyTorch eager, captured"]["status"], "skipped")
            self.assertIn("torch", record["versions"])
            self.assertIn("| vae | ", out.with_suffix(".md").read_text())


if __name__ == "__main__":
    unittest.main()
