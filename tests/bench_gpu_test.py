#!/usr/bin/env python3
"""Tests of scripts/bench_gpu: bench_gpu_test.py [FOLDER OF vae AND vae_step_bench].

What it concludes from numbers, how it ends, and, with the programs and PyTorch, all of it on the
CPU.
"""

import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from unittest import mock

sys.dont_write_bytecode = True
from script_module import ROOT, load  # noqa: E402

bench = load("bench_gpu")
machine = bench.machine
import ours  # noqa: E402  # pylint: disable=wrong-import-position
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
                row("B", [], status="failed", why="ended with status 1: a | b\nc"),
                row("C", [90.0])]
        lines = bench.table(bench.summarize(cell(*rows))).splitlines()
        self.assertEqual(len([line for line in lines if line.startswith("| ")]), 2 + len(rows))
        self.assertTrue(all(line.replace("\\|", "").count("|") == 8 for line in lines if line.startswith("|")))


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
        for wrong in ("S/fp64", "S/tf32/auto", "I1/bf16/cublas", "S/tf32/cublas/epilogue", "S"):
            with mock.patch("sys.stderr", io.StringIO()), self.assertRaises(SystemExit):
                bench.parse(["--cells", wrong])

    def test_a_cell_may_name_a_plan(self):
        arguments = bench.parse(["--cells", "L/bf16,L/bf16/epilogue,I1/tf32/fused",
                                 "--bin", str(ROOT)])
        asked = []

        def benchmark(name, *_):
            asked.append(name)
            return [{"us_per_step": 1.0}]

        for cell in arguments.cells:
            own = ours.Ours(arguments, cell, pathlib.Path("config"), pathlib.Path("folder"),
                            lambda: 60)
            with mock.patch.object(own, "benchmark", side_effect=benchmark):
                own.measure(1)
            asked.append(own.settings[-1])
        self.assertEqual(asked, ["train_step/L/bf16/real_time", "train.plan=auto",
                                 "train_step/L/bf16/epilogue/real_time", "train.plan=epilogue",
                                 "train_step/I1/tf32/fused/real_time", "train.plan=fused"])

    def test_our_library_has_a_version(self):
        self.assertEqual(bench.our_versions("cpu\nCUDA driver 13.0, runtime 13.0, cuBLASLt 130002"),
                         {"cuBLASLt of vae": "130002"})
        self.assertEqual(bench.our_versions("cpu"), {})

    def start(self, folder, *options, first=()):
        """The script, with a program that never ends. `first` is a command that starts it."""
        folder = pathlib.Path(folder)
        for name, does in (("vae", "echo cpu"), ("vae_step_bench", f"""
                case $* in *print-config*) exit 1 ;; esac
                (sleep 3; touch {folder}/late) & echo $$ > {folder}/waits; wait; sleep 60""")):
            (folder / name).write_text("#!/bin/sh\n" + does)
            (folder / name).chmod(0o755)
        return subprocess.Popen(
            [*first, sys.executable, ROOT / "scripts" / "bench_gpu", "--device", "cpu", "--bin",
             folder, "--cells", "S/fp32,I1/fp32", "--python", "/bin/false", "--out",
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
            self.assertFalse(record["is_complete"])
            self.assertEqual([[(row["name"], row["status"]) for row in one["rows"]]
                              for one in record["cells"]], [[("vae", "timed out")]] * 2)
            self.assertIn("timed out", (pathlib.Path(folder) / "record.md").read_text())
            time.sleep(3.5)
            self.assertFalse((pathlib.Path(folder) / "late").exists())

    def test_a_run_that_is_ended_leaves_a_whole_file_and_nothing_running(self):
        for first, numbers, status, says in (
                ([], [signal.SIGTERM], 143, "terminated"),
                ([], [signal.SIGHUP], 129, "hung up"),
                ([], [signal.SIGHUP, signal.SIGHUP], 129, "hung up"),
                (["nohup"], [signal.SIGHUP, signal.SIGTERM], 143, "terminated")):
            with self.subTest(first=first, numbers=numbers):
                self.end_a_run(first, numbers, status, says)

    def end_a_run(self, first, numbers, status, says):
        """That these signals end it so."""
        with tempfile.TemporaryDirectory() as folder:
            started = self.start(folder, first=first)
            waits, until = pathlib.Path(folder) / "waits", time.monotonic() + 30
            while not (waits.exists() and waits.read_text()) and time.monotonic() < until:
                time.sleep(0.05)
            for number in numbers:
                started.send_signal(number)
                time.sleep(0.2 if first else 0)
            _, error = started.communicate(timeout=60)
            self.assertEqual(started.returncode, status, error)
            self.assertEqual(error.splitlines()[-1], f"bench_gpu: {says}")
            self.expect_end_of(int(waits.read_text()))  # the program has ended with it
            record = json.loads((pathlib.Path(folder) / "record.json").read_text())
            self.assertFalse(record["is_complete"])
            self.assertEqual([one["rows"][0]["why"] for one in record["cells"]],
                             ["the run ended before it"] * 2)

    def expect_end_of(self, process):
        """Soon: one that was killed is there until its parent, or who adopted it, has asked."""
        until = time.monotonic() + 10
        while time.monotonic() < until:
            try:
                os.kill(process, 0)
            except ProcessLookupError:
                return
            time.sleep(0.05)
        self.fail(f"process {process} goes on")

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
