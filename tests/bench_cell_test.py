#!/usr/bin/env python3
"""Tests of how scripts/bench_gpu measures cells, with peers that are made up: whose turn it is, and
what is kept of a cell in which something fails or time runs out."""

import contextlib
import io
import pathlib
import signal
import sys
import tempfile
import time
import unittest
from unittest import mock

sys.dont_write_bytecode = True
from script_module import load  # noqa: E402

bench = load("bench_gpu")
machine, peers = bench.machine, bench.peers
import bench_cell  # noqa: E402  # pylint: disable=wrong-import-position
from time_limit import OutOfTime, TimeLimit  # noqa: E402  # pylint: disable=wrong-import-position


class FakeProcess:
    """A peer's process, of which one at most is at work. It takes a while to start, says how long
    it took to prepare, runs over when it is asked to prepare "hangs", and with "none" as its
    program ends before it has said anything."""

    made, at_work = [], 0

    def __init__(self, command, log=None):
        del log
        self.command, self.asked, self.alive = command, [], True
        self.ends = []  # how it was ended
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
                return {"prepare": {"loss": 1.0, "ours": 1.0, "is_equal": True},
                        "measure": [1.0], "train": [100, 1.0]}[do], 0.01
            self.alive = False
        raise peers.PeerError("no answer in 1 s", is_timeout=True)

    def is_alive(self):
        return self.alive

    def kill(self):
        self.ends.append("kill")
        self.alive = False

    def close(self, deadline=None):
        self.ends.append(deadline)
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
        self.starts, self.limit = peers.Starts(), TimeLimit(600)

    def cell(self, name="S/fp32", python="python", deadline=0):
        arguments = mock.Mock(chunk=None, device="cpu", bin=self.folder, python=python, rounds=2,
                              variants=None, seconds=0.1)
        one = bench_cell.Cell(arguments, name, self.folder, self.folder / "images.npy", deadline,
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
            self.assertTrue(one.run(self.limit))
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
                    self.assertTrue(one.run(self.limit))
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
            self.assertTrue(one.run(self.limit))
            self.assertEqual([(row["status"], row["why"]) for row in one.result()["rows"]],
                             [("ok", ""), ("skipped", "no PyTorch: No module named torch")])
        self.assertEqual((self.folder / "python.runs").read_text(), "x\n")

    def test_what_was_measured_before_something_breaks_is_kept(self):
        for error, status, goes_on in ((ValueError("x"), "failed", True),
                                       (OutOfTime("all of 9 s"), "timed out", False)):
            one = self.cell(deadline=time.monotonic() + 60)
            one.ours.measure.side_effect = [[1.0], error]
            with mock.patch("sys.stderr", io.StringIO()):
                self.assertEqual(one.run(self.limit), goes_on)
            rows = bench.summarize(one.result())["rows"]
            self.assertEqual((rows[0]["status"], rows[0]["median"]), (status, 1.0))
            self.assertEqual(rows[1]["status"], "not checked")
            self.assertFalse(any(process.alive for process in FakeProcess.made))

    def test_what_ended_by_itself_is_closed_before_another_starts(self):
        one = self.cell()
        key = ("pytorch", "")
        first, _ = one.process(key, 1)
        first.alive = False
        second, _ = one.process(key, 1)
        self.assertIsNot(first, second)
        self.assertEqual((first.ends, second.ends), ([None], []))

    def test_all_are_killed_before_one_is_waited_for_and_all_until_the_same_time(self):
        one = self.cell()
        for variant in ("", "captured", "compile, default"):
            one.process(("pytorch", variant), 1)
        killed = []

        def close(process, deadline=None):
            killed.append([list(other.ends) for other in FakeProcess.made])
            process.ends.append(deadline)

        with mock.patch.object(FakeProcess, "close", close):
            one.close()
        self.assertEqual(killed[0], [["kill"]] * 3)
        deadlines = {process.ends[1] for process in FakeProcess.made}
        self.assertEqual(len(deadlines), 1)
        self.assertLessEqual(deadlines.pop(), machine.grace())

    def measure(self, *names):
        """The record of cells that are measured in turn."""
        record = {"versions": {}, "cells": [None] * len(names)}
        arguments, end, keep = mock.Mock(cells=names), time.monotonic() + 60, mock.Mock()
        with mock.patch.object(bench, "Cell", lambda _, name, *__: self.cell(name, deadline=end)), \
                mock.patch("sys.stderr", io.StringIO()), mock.patch("sys.stdout", io.StringIO()):
            bench.measure(arguments, pathlib.Path(tempfile.mkdtemp(dir=self.folder)), end,
                          self.limit, record, keep)
        self.assertEqual(keep.call_count, len(names))
        return record

    def statuses(self, record):
        """Of `vae` in each cell."""
        return [one["rows"][0]["status"] for one in record["cells"]]

    def test_time_that_runs_out_after_a_cell_takes_nothing_from_it(self):
        def over(*_, **__):
            signal.raise_signal(signal.SIGALRM)
            time.sleep(0.01)

        for late in (mock.patch.object(FakeProcess, "close", over),
                     mock.patch.object(bench.shutil, "rmtree", over)):
            for names, statuses in ((["S/fp32"], ["ok"]),
                                    (["S/fp32", "I1/fp32"], ["ok", "timed out"])):
                self.limit = TimeLimit(600)
                with late:
                    record = self.measure(*names)
                self.assertEqual(self.statuses(record), statuses)
                self.assertEqual(record["cells"][0]["rows"][0]["median"], 1.0)
                self.assertEqual([row["status"] for row in record["cells"][0]["rows"]], ["ok"] * 10)
                self.assertEqual(record["is_complete"], len(names) == 1)

    def test_a_cell_that_time_cuts_off_is_not_complete(self):
        self.assertTrue(self.measure("S/fp32")["is_complete"])

        def late(process, timeout, do, **arguments):
            if do == "measure":
                signal.raise_signal(signal.SIGALRM)
            return ask(process, timeout, do, **arguments)

        ask = FakeProcess.ask
        with mock.patch.object(FakeProcess, "ask", late):
            record = self.measure("S/fp32")
        self.assertFalse(record["is_complete"])
        self.assertEqual(self.statuses(record), ["ok"])
        self.assertEqual(record["cells"][0]["rows"][1]["status"], "timed out")


class Limit(unittest.TestCase):
    def test_it_ends_what_goes_on_with_it_and_nothing_else(self):
        limit = TimeLimit(0)
        time.sleep(0.3)
        self.assertTrue(limit.is_over)
        with self.assertRaises(OutOfTime), limit:
            self.fail("went on")
        limit = TimeLimit(0)
        with self.assertRaises(OutOfTime), limit:
            time.sleep(20)


if __name__ == "__main__":
    unittest.main()
