#!/usr/bin/env python3
"""Tests of scripts/check_gpu: check_gpu_test.py [FOLDER OF vae].

What it makes of what commands say, with commands that are made up; and, with the program, some of
its checks on the CPU.
"""

import io
import json
import os
import pathlib
import re
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest
from unittest import mock

sys.dont_write_bytecode = True
from script_module import ROOT, load  # noqa: E402

check = load("check_gpu")
PASSED, FAILED, NOT_RUN = check.PASSED, check.FAILED, check.NOT_RUN
PROGRAMS = sys.argv.pop(1) if len(sys.argv) > 1 else None
RAN = "[==========] {} tests from 3 test suites ran. (5 ms total)\n[  PASSED  ] {} tests.\n"


def until(condition, seconds=20):
    """Waits for it."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not so after {seconds} s")
        time.sleep(0.02)


def is_alive(process):
    try:
        state = pathlib.Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return state.rsplit(")", 1)[1].split()[0] != "Z"


def result(rc, output=""):
    return check.Result(rc, output)


class Verdicts(unittest.TestCase):
    def test_of_tests(self):
        for rc, output, verdict in (
                (0, RAN.format(20, 20), PASSED), (0, RAN.format(20, 18), PASSED),
                (0, RAN.format(0, 0), FAILED), (0, "", FAILED), (1, RAN.format(20, 20), FAILED),
                (77, "skipped: no CUDA device", NOT_RUN), (None, "still running", FAILED),
                (-11, "", FAILED)):
            self.assertEqual(check.verdict_of_tests(result(rc, output))[0], verdict, (rc, output))
        self.assertEqual(check.verdict_of_tests(result(0, RAN.format(20, 18)))[1],
                         "18 tests, 2 skipped")

    def test_of_tools(self):
        good, clean = RAN.format(20, 20), "========= ERROR SUMMARY: 0 errors\n"
        hazards = "========= RACECHECK SUMMARY: {0} hazards displayed ({0} errors, 0 warnings)\n"
        for rc, output, verdict in (
                (0, good + clean, PASSED), (0, good + hazards.format(0), PASSED),
                (0, good, FAILED),  # what the tool found is not known
                (0, good + "========= ERROR SUMMARY: 2 errors\n", FAILED),
                (0, good + hazards.format(1), FAILED), (99, good + clean, FAILED),
                (1, clean, FAILED), (77, clean, NOT_RUN), (0, clean, FAILED)):
            self.assertEqual(check.verdict_of_tool(result(rc, output))[0], verdict, (rc, output))
        found = check.verdict_of_tool(result(
            99, "========= COMPUTE-SANITIZER\n========= Invalid __global__ read of size 4 bytes\n"
                "========= ERROR SUMMARY: 1 error\n"))
        self.assertEqual(found, (FAILED, "Invalid __global__ read of size 4 bytes"))

    def test_exit_status(self):
        def of(*verdicts):
            return check.status_of([{"verdict": verdict} for verdict in verdicts])

        self.assertEqual(of(PASSED, NOT_RUN), (0, "1 passed, 0 failed, 1 not run"))
        self.assertEqual(of(PASSED, FAILED)[0], 1)
        self.assertEqual(of(NOT_RUN)[0], 1)  # nothing passed
        self.assertEqual(of()[0], 1)


class MadeUp(unittest.TestCase):
    """Checks whose commands are made up."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        (self.folder / "vae").touch()
        self.commands, self.variables = [], {}
        self.answers = {"--help": result(0, "--precision NAME")}

    def checks(self):
        arguments = check.parse(["--bin", str(self.folder)])
        return check.Checks(arguments, self.folder, self.execute)

    def execute(self, command, timeout, **variables):
        del timeout
        command = [str(part) for part in command]
        self.commands.append(command)
        self.variables = variables  # of the last command
        for key, answer in self.answers.items():
            if key in command:
                return answer(command) if callable(answer) else answer
        return result(0, RAN.format(5, 5) + "========= ERROR SUMMARY: 0 errors\n")

    def report(self, is_ok, rows=1):
        row = {"name": "x", "relative_l2": 1e-7, "gate": 1e-5, "ok": is_ok}
        return "progress\n" + json.dumps({"ok": is_ok, "tensors": [row] * rows})

    def test_compare(self):
        for rc, output, verdict in ((0, self.report(True), PASSED), (1, self.report(False), FAILED),
                                    (1, self.report(True), FAILED),
                                    (0, self.report(True, rows=0), FAILED),
                                    (1, "vae: error: no GPU", FAILED), (None, "", FAILED)):
            self.answers["compare"] = lambda command, rc=rc, output=output: (
                result(0, "--precision") if "--help" in command else result(rc, output))
            self.assertEqual(self.checks().compare("S", "tf32")[0], verdict, (rc, output))
        self.assertIn("tf32", self.commands[-1])
        self.assertIn(str(self.folder / "images.npy"), self.commands[-1])

    def test_what_is_not_a_number_has_failed(self):
        rows = [{"name": "loss", "relative_l2": 1e-7, "gate": 1e-5, "ok": True},
                {"name": "d_z", "relative_l2": None, "gate": 1e-5, "ok": False}]
        self.answers["compare"] = result(1, json.dumps({"ok": False, "tensors": rows}))
        self.assertEqual(self.checks().compare("S", "fp32"), (FAILED, "not a number in d_z"))

    def test_a_check_that_breaks_has_failed_and_the_others_run(self):
        def breaks():
            raise ZeroDivisionError("oops")

        checks = mock.Mock()
        checks.all.return_value = [("a", "x", breaks), ("a", "y", lambda: (PASSED, ""))]
        kept = []
        with mock.patch("sys.stdout", io.StringIO()):
            rows = check.run_checks(
                checks, "", lambda rows: kept.append([row["verdict"] for row in rows]))
        self.assertEqual([row["verdict"] for row in rows], [FAILED, PASSED])
        self.assertEqual(rows[0]["detail"], "ZeroDivisionError: oops")
        self.assertEqual(kept, [[NOT_RUN, NOT_RUN], [FAILED, NOT_RUN], [FAILED, PASSED]])

    def test_an_older_gpu_has_one_precision(self):
        self.assertEqual(check.capability_of("cuda  0: T4, compute capability 7.5, 40"), (7, 5))
        checks = self.checks()
        checks.capability = (7, 5)
        self.answers["compare"] = result(0, self.report(True))
        self.assertEqual(checks.compare("S", "tf32"),
                         (NOT_RUN, "this GPU has no tf32: capability 7.5"))
        self.assertEqual(checks.compare("S", "fp32")[0], PASSED)

    def test_what_runs_out_of_time_ends_with_its_children(self):
        mark = self.folder / "late"
        ended = check.execute(["sh", "-c", f"(sleep 1; touch {mark}) & wait"], 0.2)
        self.assertEqual((ended.rc, ended.output), (None, "ran out of time: 0 s"))
        time.sleep(1.2)
        self.assertFalse(mark.exists())

    def test_what_does_not_end_keeps_no_other_check(self):
        made, popen = [], subprocess.Popen

        def start(*arguments, **settings):
            made.append(popen(*arguments, **settings))
            return made[-1]

        checks = mock.Mock()
        checks.all.return_value = [
            (name, name, lambda: check.verdict_of_tests(check.execute(["sleep", "60"], 0.2)))
            for name in ("a", "b")] + [("c", "c", lambda: (PASSED, ""))]
        begin = time.monotonic()
        # As if a driver kept them.
        with mock.patch.object(check.machine.os, "killpg"), \
                mock.patch.object(check.machine, "ENDING", 0.2), \
                mock.patch.object(subprocess, "Popen", start), \
                mock.patch("sys.stdout", io.StringIO()):
            rows = check.run_checks(checks, "", lambda rows: None)
        self.assertLess(time.monotonic() - begin, 10)
        self.assertEqual([(row["verdict"], row["detail"]) for row in rows],
                         [(FAILED, "ran out of time: 0 s")] * 2 + [(PASSED, "")])
        self.assertEqual([process.poll() for process in made], [None] * 2)
        for process in made:
            check.machine.end_group(process, check.machine.grace())

    def test_without_the_option_there_is_one_precision(self):
        self.answers = {"--help": result(0, ""), "compare": result(0, self.report(True))}
        self.assertEqual(self.checks().compare("S", "bf16")[0], NOT_RUN)
        self.assertEqual(self.checks().compare("S", "fp32")[0], PASSED)
        self.assertNotIn("--precision", self.commands[-1])

    def test_what_is_not_here_is_not_run(self):
        checks = self.checks()
        self.assertEqual(checks.tests()[0], NOT_RUN)
        self.assertEqual(checks.sanitized("*", "memcheck")[0], NOT_RUN)
        (self.folder / "gpu_tests").touch()
        self.assertEqual(checks.tests(), (PASSED, "5 tests"))
        for tool, verdict in ((None, NOT_RUN), ("/x/compute-sanitizer", PASSED)):
            with mock.patch.object(check.machine, "find_tool", return_value=tool):
                self.assertEqual(checks.sanitized("*", "racecheck")[0], verdict)
        self.assertEqual(self.commands[-1][:3], ["/x/compute-sanitizer", "--tool", "racecheck"])
        self.assertEqual(self.variables, {"VAE_SEPARATE_ARRAYS": "1"})
        checks.tests()
        self.assertEqual(self.variables, {})  # as users have them

    def test_variables_are_in_the_environment(self):
        command = ["sh", "-c", "echo $VAE_SEPARATE_ARRAYS $HOME"]
        home = os.environ.get("HOME", "")
        self.assertEqual(check.execute(command, 60, VAE_SEPARATE_ARRAYS="1").last_line(),
                         f"1 {home}".strip())

    def test_what_a_tool_is_to_run_is_there(self):
        sources = "".join(path.read_text() for path in (ROOT / "tests").glob("cuda_*_test.cpp"))
        for word in re.findall(r"\w+", check.SMALL_BACKEND):
            self.assertIn(word, sources)

    def train(self, contents):
        """An answer of `vae train` that leaves one of the checkpoints, in turn."""
        left = list(contents)

        def answer(command):
            out = pathlib.Path(command[command.index("--out") + 1])
            out.mkdir(exist_ok=True)
            metadata, values = left.pop(0)
            table = json.dumps({"__metadata__": metadata, "w": {"dtype": "F32"}}).encode()
            (out / "checkpoint.safetensors").write_bytes(
                struct.pack("<Q", len(table)) + table + values)
            return result(0)

        return answer

    def test_bits(self):
        one, other = b"1234", b"1235"
        for contents, verdict in ((({"seconds": "1"}, one), ({"seconds": "22"}, one)), PASSED), (
                (({}, one), ({}, other)), FAILED), ((({}, b""), ({}, b"")), FAILED):
            self.answers["train"] = self.train(contents)
            checks = self.checks()
            self.assertEqual(checks.runs("fp32", checks.twice)[0], verdict, contents)
        self.answers["train"] = self.train([({}, one), ({}, other), ({}, one)])
        self.assertEqual(checks.runs("fp32", checks.resumed), (PASSED, "4 bytes"))
        for contents, verdict in ((({}, one), ({}, one)), PASSED), (
                (({}, one), ({}, other)), FAILED):
            self.answers["train"], self.commands = self.train(contents), []
            self.assertEqual(checks.runs("fp32", checks.streamed)[0], verdict, contents)
            for command, where in zip(self.commands, ("device", "streamed")):
                self.assertEqual(command[command.index("--data-placement") + 1], where)
        self.answers["train"] = result(1, "vae: error: no GPU")
        self.assertEqual(checks.runs("fp32", checks.twice), (FAILED, "vae: error: no GPU"))


class Program(unittest.TestCase):
    def test_without_a_gpu(self):
        devices = "cpu   2 threads\ncuda  not usable: there is no NVIDIA driver"
        error = io.StringIO()
        with mock.patch.object(check.machine, "describe", return_value={"devices": devices}), \
                mock.patch.object(check.machine, "find_folder", return_value=ROOT), \
                mock.patch("sys.stderr", error):
            self.assertEqual(check.main([]), 2)
        self.assertEqual(error.getvalue(),
                         "check_gpu: there is no GPU to use: there is no NVIDIA driver\n")

    def start(self, folder, vae):
        """The script, with this as its program, in `folder`/bin."""
        program = pathlib.Path(folder) / "bin" / "vae"
        program.parent.mkdir()
        program.write_text("#!/bin/sh\n" + vae)
        program.chmod(0o755)
        return subprocess.Popen(
            [sys.executable, ROOT / "scripts" / "check_gpu", "--backend", "cpu", "--bin",
             program.parent, "--out", pathlib.Path(folder) / "record.json", "--only",
             "compare: (S|I1), fp32"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)

    def test_a_run_that_is_ended_leaves_a_whole_file(self):
        report = json.dumps({"ok": True, "tensors": [
            {"name": "x", "relative_l2": 1e-7, "gate": 1e-5, "ok": True}]})
        for number, status, says in ((signal.SIGKILL, -signal.SIGKILL, ""),
                                     (signal.SIGTERM, 143, "check_gpu: terminated\n"),
                                     (signal.SIGINT, 130, "check_gpu: interrupted\n")):
            with tempfile.TemporaryDirectory() as folder:
                # The second comparison waits, with a child of its own.
                vae = (f"case $* in *--help*) ;; *burda*) (sleep 30; touch {folder}/late) & "
                       f"echo $$ > {folder}/waits; wait ;; *compare*) echo '{report}' ;; esac")
                started = self.start(folder, vae)
                until(lambda folder=folder: (pathlib.Path(folder) / "waits").exists())
                os.kill(started.pid, number)
                _, error = started.communicate(timeout=30)
                self.assertEqual(started.returncode, status, error)
                self.assertEqual(error, says)
                record = json.loads((pathlib.Path(folder) / "record.json").read_text())
                waiting = int((pathlib.Path(folder) / "waits").read_text())
                if number == signal.SIGKILL:
                    os.killpg(waiting, number)
                else:  # what was started has ended too
                    until(lambda waiting=waiting: not is_alive(waiting))
            self.assertFalse(record["is_complete"])
            self.assertEqual([(row["name"], row["verdict"], row["detail"])
                              for row in record["checks"]],
                             [("S, fp32", PASSED, "1 tensors, 1.0e-07 in x"),
                              ("I1, fp32", NOT_RUN, "the run ended before it")])

    def test_what_breaks_outside_of_a_check_is_one_line(self):
        with mock.patch.object(check.machine, "describe", side_effect=ValueError("odd\nmore")), \
                mock.patch.object(check.machine, "find_folder", return_value=ROOT), \
                mock.patch("sys.argv", ["scripts/check_gpu"]), \
                mock.patch("sys.stderr", io.StringIO()) as error:
            self.assertEqual(check.machine.run_script(check.main), 1)
        self.assertRegex(error.getvalue(),
                         r"\Acheck_gpu: error: ValueError: odd \(check_gpu, line \d+\)\n\Z")

    @unittest.skipIf(PROGRAMS is None, "no program was given")
    def test_on_the_cpu(self):
        with tempfile.TemporaryDirectory() as folder:
            out = pathlib.Path(folder) / "record.json"
            ran = subprocess.run(
                [sys.executable, ROOT / "scripts" / "check_gpu", "--backend", "cpu", "--bin",
                 PROGRAMS, "--out", out, "--only",
                 "compare: (deep|gaussian|logistic|onehot|iwae).*fp32|runs: .*fp32"],
                env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
                check=False)
            self.assertEqual(ran.returncode, 0, ran.stdout + ran.stderr)
            record = json.loads(out.read_text())
            self.assertTrue(record["is_complete"])
            self.assertEqual([row["verdict"] for row in record["checks"]], [PASSED] * 12)


if __name__ == "__main__":
    unittest.main()
