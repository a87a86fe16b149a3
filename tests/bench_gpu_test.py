#!/usr/bin/env python3
"""Tests of scripts/bench_gpu: bench_gpu_test.py [FOLDER OF vae AND vae_step_bench].

What it concludes from numbers, what becomes of peers that fail, and, with the programs and PyTorch,
all of it on the CPU.
"""

import contextlib
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
import time
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
import bench_cell  # noqa: E402  # pylint: disable=wrong-import-position
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
    import os, subprocess, sys, time
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
            if variant == "hangs":
                subprocess.Popen(["sh", "-c", f"sleep 2; touch {sys.argv[2]}"])
                time.sleep(100)
            return variant
    workload.serve(Peer)
"""


class Processes(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        script = pathlib.Path(folder.name) / "fake.py"
        script.write_text(textwrap.dedent(FAKE))
        self.late = pathlib.Path(folder.name) / "late"
        self.peer = peers.PeerProcess([sys.executable, script, ROOT / "bench" / "peers", self.late])
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

    def test_a_peer_that_hangs_is_ended_with_its_children(self):
        with self.assertRaises(peers.PeerError) as caught:
            self.peer.ask(1, "prepare", variant="hangs")
        self.assertEqual(str(caught.exception), "no answer in 1 s")
        self.assertTrue(caught.exception.is_timeout)
        self.assertFalse(self.peer.is_alive())
        time.sleep(2)
        self.assertFalse(self.late.exists())


class FakeProcess:
    """A peer's process, of which one at most is at work. It takes a while to start, says how long
    it took to prepare, runs over when it is asked to prepare "hangs", and with "none" as its
    program ends before it has said anything."""

    made, at_work = [], 0

    def __init__(self, command, log=None):
        del log
        self.command, self.asked, self.alive = command, [], True
        FakeProcess.made.append(self)

    @classmethod
    @contextlib.contextmanager
    def work(cls):
        assert cls.at_work == 0, "two at once"
        cls.at_work += 1
        yield
        cls.at_work -= 1

    def answer(self, timeout):
        del timeout
        if self.command[0] == "none":
            raise peers.PeerError("ended with status 1")
        if self.command[0] == "odd network":
            raise peers.PeerError("no such network", is_answer=True)
        with self.work():
            time.sleep(0.1)
        return {"versions": {"fake": "1"}}

    def ask(self, timeout, do, variant, **arguments):
        del timeout, arguments
        with self.work():
            self.asked.append((do, variant))
            if variant != "hangs":
                return ({"loss": 1.0, "ours": 1.0, "is_equal": True} if do == "prepare"
                        else [1.0]), 0.01
            self.alive = False
        raise peers.PeerError("no answer in 1 s", is_timeout=True)

    def is_alive(self):
        return self.alive

    def close(self):
        self.alive = False


class Turns(unittest.TestCase):
    def setUp(self):
        FakeProcess.made, FakeProcess.at_work = [], 0
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        (self.folder / "images.npy").touch()
        fakes = mock.patch.object(peers, "PeerProcess", FakeProcess)
        fakes.start()
        self.addCleanup(fakes.stop)
        self.starts = peers.Starts()

    def cell(self, name="S/fp32", python="python", deadline=0):
        arguments = mock.Mock(chunk=None, device="cpu", bin=self.folder, python=python, rounds=2,
                              variants=None, seconds=0.1)
        one = bench.Cell(arguments, name, self.folder, self.folder / "images.npy", deadline,
                         self.starts)
        one.make_inputs, one.ours = mock.Mock(), mock.Mock()
        one.ours.prepare.return_value = 0.5
        one.ours.measure.return_value, one.ours.train.return_value = [1.0], [100, 1.0]
        self.addCleanup(one.close)
        return one

    def test_what_ended_with_another_is_prepared_again(self):
        one = self.cell()
        good, bad, apart = (bench_cell.PeerInTurn(one, "pytorch", variant)
                            for variant in ("good", "hangs", "compile, max-autotune"))
        good.prepare()
        apart.prepare()
        self.assertEqual(len(FakeProcess.made), 2)
        one.during(bad, bench_cell.PeerInTurn.prepare)
        self.assertEqual((bad.row["status"], bad.row["why"]), ("timed out", "no answer in 1 s"))
        self.assertEqual(good.measure(0.1), [1.0])
        self.assertEqual(len(FakeProcess.made), 3)
        process = one.processes["pytorch", ""]
        self.assertEqual(process.asked, [("prepare", "good"), ("measure", "good")])
        good.measure(0.1)
        self.assertEqual(process.asked[2:], [("measure", "good")])

    def test_peers_start_one_after_another_and_in_nobodys_time(self):
        one = self.cell(deadline=time.monotonic() + 60)
        with mock.patch("sys.stderr", io.StringIO()):
            self.assertTrue(one.run())
        rows = one.result()["rows"]
        self.assertEqual([row["status"] for row in rows], ["ok"] * 10)
        self.assertTrue(all(row["microseconds"] == [1.0, 1.0] for row in rows))
        self.assertTrue(all(row["warm_up_seconds"] == 0.01 for row in rows[1:]))
        # Those that are eager share a process, which the first one of them has started.
        started = [row["start_seconds"] for row in rows[1:] if row["start_seconds"] is not None]
        self.assertEqual(len(started), len(FakeProcess.made))
        self.assertTrue(all(seconds >= 0.1 for seconds in started))
        asked = [do for process in FakeProcess.made for do, _ in process.asked]
        self.assertEqual(asked.count("prepare"), 9)

    def test_a_peer_that_cannot_start_is_not_tried_again(self):
        for python, made in (("none", 2), ("odd network", 4)):
            FakeProcess.made = []
            self.starts = peers.Starts()
            for name in ("S/fp32", "I1/fp32"):
                one = self.cell(name, python, deadline=time.monotonic() + 60)
                with mock.patch("sys.stderr", io.StringIO()):
                    self.assertTrue(one.run())
                rows = one.result()["rows"]
                self.assertEqual([row["status"] for row in rows], ["ok"] + ["failed"] * 9)
            # PyTorch and JAX once; for each network where it may be that one's fault.
            self.assertEqual(len(FakeProcess.made), made)

    def test_without_pytorch_images_are_not_tried_again(self):
        for name in ("S/fp32", "I1/fp32"):
            one = self.cell(name, python=self.folder / "python", deadline=time.monotonic() + 60)
            (self.folder / "images.npy").unlink(missing_ok=True)
            (self.folder / "python").write_text("#!/bin/sh\necho x >> \"$0.runs\"\n"
                                                "echo No module named torch >&2; exit 1\n")
            (self.folder / "python").chmod(0o755)
            one.make_inputs = lambda one=one: one.make_images(self.folder / "made.npy")
            one.arguments.examples = 10
            self.assertTrue(one.run())
            self.assertEqual([(row["status"], row["why"]) for row in one.result()["rows"]],
                             [("ok", ""), ("skipped", "no PyTorch: No module named torch")])
        self.assertEqual((self.folder / "python.runs").read_text(), "x\n")

    def test_what_was_measured_before_something_breaks_is_kept(self):
        for error, status, goes_on in ((ValueError("x"), "failed", True),
                                       (bench.OutOfTime("all of 9 s"), "timed out", False)):
            one = self.cell(deadline=time.monotonic() + 60)
            one.ours.measure.side_effect = [[1.0], error]
            with mock.patch("sys.stderr", io.StringIO()):
                self.assertEqual(one.run(), goes_on)
            rows = bench.summarize(one.result())["rows"]
            self.assertEqual((rows[0]["status"], rows[0]["median"]), (status, 1.0))
            self.assertEqual(rows[1]["status"], "not checked")
            self.assertFalse(any(process.alive for process in FakeProcess.made))


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
        for wrong in ("S/fp64", "S/tf32/fused", "S/tf32/cublas/epilogue", "S"):
            with mock.patch("sys.stderr", io.StringIO()), self.assertRaises(SystemExit):
                bench.parse(["--cells", wrong])

    def test_a_cell_may_name_a_plan(self):
        arguments = bench.parse(["--cells", "L/bf16,L/bf16/epilogue", "--bin", str(ROOT)])
        asked = []

        def benchmark(name, *_):
            asked.append(name)
            return [{"us_per_step": 1.0}]

        for cell in arguments.cells:
            ours = bench_cell.Ours(arguments, cell, pathlib.Path("config"), pathlib.Path("folder"),
                        lambda: 60)
            with mock.patch.object(ours, "benchmark", side_effect=benchmark):
                ours.measure(1)
            asked.append(ours.settings[-1])
        self.assertEqual(asked, ["train_step/L/bf16/real_time", "train.plan=auto",
                                 "train_step/L/bf16/epilogue/real_time", "train.plan=epilogue"])

    def test_our_library_has_a_version(self):
        self.assertEqual(bench.our_versions("cpu\nCUDA driver 13.0, runtime 13.0, cuBLASLt 130002"),
                         {"cuBLASLt of vae": "130002"})
        self.assertEqual(bench.our_versions("cpu"), {})

    def start(self, folder, *options):
        """The script, with a program that never ends."""
        folder = pathlib.Path(folder)
        for name, does in (("vae", "echo cpu"), ("vae_step_bench", f"""
                case $* in *print-config*) exit 1 ;; esac
                (sleep 3; touch {folder}/late) & touch {folder}/waits; wait; sleep 60""")):
            (folder / name).write_text("#!/bin/sh\n" + does)
            (folder / name).chmod(0o755)
        return subprocess.Popen(
            [sys.executable, ROOT / "scripts" / "bench_gpu", "--device", "cpu", "--bin", folder,
             "--cells", "S/fp32,I1/fp32", "--python", "/bin/false", "--out",
             folder / "record.json", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True)

    def test_all_of_it_has_a_limit(self):
        with tempfile.TemporaryDirectory() as folder:
            begin = time.monotonic()
            started = self.start(folder, "--limit", "2")
            _, error = started.communicate(timeout=60)
            self.assertLess(time.monotonic() - begin, 12)
            self.assertEqual(started.returncode, 1, error)
            record = json.loads((pathlib.Path(folder) / "record.json").read_text())
            self.assertTrue(record["is_complete"])
            self.assertEqual([[(row["name"], row["status"]) for row in one["rows"]]
                              for one in record["cells"]], [[("vae", "timed out")]] * 2)
            self.assertIn("timed out", (pathlib.Path(folder) / "record.md").read_text())
            time.sleep(3.5)
            self.assertFalse((pathlib.Path(folder) / "late").exists())

    def test_a_run_that_is_ended_leaves_a_whole_file(self):
        with tempfile.TemporaryDirectory() as folder:
            started = self.start(folder)
            until = time.monotonic() + 30
            while not (pathlib.Path(folder) / "waits").exists() and time.monotonic() < until:
                time.sleep(0.05)
            started.terminate()
            _, error = started.communicate(timeout=60)
            self.assertEqual(started.returncode, 143, error)
            record = json.loads((pathlib.Path(folder) / "record.json").read_text())
            self.assertFalse(record["is_complete"])
            self.assertEqual([one["rows"][0]["why"] for one in record["cells"]],
                             ["the run ended before it"] * 2)

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
