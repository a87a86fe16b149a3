#!/usr/bin/env python3
"""Tests of what bench/peers and whoever talks to them have in common, and of how processes are
ended: that it takes a bounded time, whoever does not go."""

import contextlib
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
sys.path[:0] = [str(ROOT / "scripts" / "lib"), str(ROOT / "bench" / "peers")]
import machine  # noqa: E402
import peers  # noqa: E402
import workload  # noqa: E402


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
            if variant == "dies and says why":
                print("CUDA error | 700\\n\\nabort" + 300 * "t", file=sys.stderr)
                os._exit(3)
            if variant == "hangs":
                subprocess.Popen(["sh", "-c", f"sleep 2; touch {sys.argv[2]}"])
                time.sleep(100)
            if variant == "leaves one":
                subprocess.Popen(["sleep", "5"], start_new_session=True)
            if variant == "closes":
                os.closerange(1, 100)
                time.sleep(100)
            return variant
    workload.serve(Peer)
"""


@contextlib.contextmanager
def unkillable(*processes):
    """In here nobody ends: as if a driver kept them all. Waiting is cut short."""
    try:
        with mock.patch.object(machine.os, "killpg"), mock.patch.object(machine, "ENDING", 0.3):
            yield
    finally:
        for process in processes:
            machine.end_group(process, machine.grace())


class Took:
    """Asserts that what goes on with it takes so many seconds at most."""

    def __init__(self, test, most):
        self.test, self.most, self.begin = test, most, 0

    def __enter__(self):
        self.begin = time.monotonic()

    def __exit__(self, kind, *error):
        if kind is None:
            self.test.assertLess(time.monotonic() - self.begin, self.most)


class Processes(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        script = pathlib.Path(folder.name) / "fake.py"
        script.write_text(textwrap.dedent(FAKE))
        self.late = pathlib.Path(folder.name) / "late"
        self.command = [sys.executable, script, ROOT / "bench" / "peers", self.late]
        self.peer = peers.PeerProcess(self.command)
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

    def test_why_one_has_ended_is_in_its_log(self):
        with open(self.late.with_name("log"), "w", encoding="utf-8") as log:
            os.write(log.fileno(), b"of another\n")
            for variant, said in (("dies", "whatever libraries print"), ("dies and says why", (
                    "CUDA error | 700 / abort" + 195 * "t"))):
                self.peer = peers.PeerProcess(self.command, log=log)
                self.addCleanup(self.peer.close)
                self.peer.answer(60)
                self.assertEqual(self.failure(variant), (f"ended with status 3: {said}", False))

    def test_a_peer_that_hangs_is_ended_with_its_children(self):
        with self.assertRaises(peers.PeerError) as caught:
            self.peer.ask(1, "prepare", variant="hangs")
        self.assertEqual(str(caught.exception), "no answer in 1 s")
        self.assertTrue(caught.exception.is_timeout)
        self.assertFalse(self.peer.is_alive())
        time.sleep(2)
        self.assertFalse(self.late.exists())

    def test_one_that_does_not_end_is_waited_for_once_and_not_used_again(self):
        with unkillable(self.peer.process):
            with Took(self, 3), self.assertRaises(peers.PeerError):
                self.peer.ask(1, "prepare", variant="hangs")
            self.assertIsNone(self.peer.process.poll())
            self.assertFalse(self.peer.is_alive())
            with Took(self, 0.2):
                self.peer.close()

    def test_one_that_talks_no_more_is_not_waited_for(self):
        with unkillable(self.peer.process), Took(self, 3):
            self.assertEqual(self.failure("closes"), ("talks no more, but has not ended", False))

    def test_a_pipe_that_somebody_else_holds_does_not_keep_us(self):
        self.assertEqual(self.peer.ask(60, "prepare", variant="leaves one")[0], "leaves one")
        with mock.patch.object(machine, "ENDING", 0.3), Took(self, 3):
            self.peer.close()
        self.assertFalse(self.peer.is_alive())

    def test_all_of_them_are_waited_for_until_the_same_time(self):
        others = [peers.PeerProcess(["sleep", "60"]) for _ in range(8)]
        processes = [other.process for other in others]
        with unkillable(*processes), Took(self, 2):
            deadline = machine.grace()
            for other in others:
                other.close(deadline)
            self.assertTrue(all(process.poll() is None for process in processes))


class Records(unittest.TestCase):
    def test_they_are_json_whatever_was_measured(self):
        def refuse(text):
            raise ValueError(text)

        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "record.json"
            machine.write_record(path, {"a": float("nan"), "b": [1.5, (float("inf"), "x")],
                                        "c": {"d": -float("inf"), "e": True}, "f": 3})
            self.assertEqual(json.loads(path.read_text(), parse_constant=refuse),
                             {"a": None, "b": [1.5, [None, "x"]], "c": {"d": None, "e": True},
                              "f": 3})


class Sessions(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.late = pathlib.Path(folder.name) / "late"

    def test_what_has_outlived_the_command_ends_too(self):
        command = ["sh", "-c", f"(sleep 1; touch {self.late}) & exit 0"]
        with self.assertRaises(subprocess.TimeoutExpired):
            machine.run_in_session(command, 0.3)
        time.sleep(1.3)
        self.assertFalse(self.late.exists())

    def test_what_does_not_end_is_waited_for_once(self):
        made, popen = [], subprocess.Popen

        def start(*arguments, **settings):
            made.append(popen(*arguments, **settings))
            return made[-1]

        with unkillable(), mock.patch.object(subprocess, "Popen", start):
            with Took(self, 2), self.assertRaises(subprocess.TimeoutExpired):
                machine.run_in_session(["sleep", "60"], 0.3)
            self.assertIsNone(made[0].poll())
        machine.end_group(made[0], machine.grace())
        self.assertTrue(made[0].stdout.closed and made[0].stderr.closed)

    def test_what_a_command_prints(self):
        self.assertEqual(machine.text_of(["sh", "-c", "echo x; echo y >&2"]), "x")
        self.assertIsNone(machine.text_of(["sh", "-c", "echo x; exit 1"]))
        self.assertIsNone(machine.text_of([self.late]))


if __name__ == "__main__":
    unittest.main()
