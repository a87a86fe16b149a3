#!/usr/bin/env python3
"""Tests of scripts/check_gpu: check_gpu_test.py [FOLDER OF vae].

How it runs checks, and its files; and, with the program, some of its checks on the CPU and with the
emulated module. What it checks: checks_test.py.
"""

import io
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from unittest import mock

sys.dont_write_bytecode = True
from script_module import ROOT, load  # noqa: E402

check = load("check_gpu")  # from here on its modules are found
import check_table  # noqa: E402
import check_verdicts  # noqa: E402
import checks as all_checks  # noqa: E402
from check_commands import Commands, Result, text_of  # noqa: E402
from check_program import Once  # noqa: E402

PASSED, FAILED, NOT_RUN = check.PASSED, check.FAILED, check.NOT_RUN
PROGRAMS = sys.argv.pop(1) if len(sys.argv) > 1 and not sys.argv[1].startswith("-") else None
EMULATED = "libvae_cuda_emulated.so"
GPU = "cuda  0: NVIDIA H200, compute capability 9.0, 132 multiprocessors, 139.8 GiB"


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


def row(group="a", name="x", verdict=PASSED, detail="", **more):
    return {"group": group, "name": name, "verdict": verdict, "detail": detail, "seconds": 1.25,
            **more}


class Table(unittest.TestCase):
    record = {"gpu": {"name": "NVIDIA H200", "driver_version": "580.1"}, "commit": "abc",
              "devices": f"cpu   2 threads\n{GPU}\nCUDA driver 13.0, runtime 13.0, cuBLASLt 130100",
              "date": "2026-01-01", "is_complete": True, "seconds": 61.2, "jobs": 4,
              "checks": [row("compare", "S, fp32", detail="1 | 2\n3"), row("other"),
                         row("compare", "I1", FAILED, "3 missed", output="$ vae\n```\nodd")]}

    def test_groups_figures_and_what_failed(self):
        text = check_table.markdown(self.record)
        self.assertTrue(text.startswith(
            "GPU: NVIDIA H200; driver 580.1; CUDA driver 13.0, runtime 13.0, cuBLASLt 130100; "
            "commit abc; 2026-01-01; 61 s, 4 checks side by side\n\n2 passed, 1 failed, 0 not run"
            "\n\n### compare: 1 passed, 1 failed, 0 not run\n"), text)
        self.assertIn("| S, fp32 | passed | 1 \\| 2 3 | 1.2 |\n"
                      "| I1 | **FAILED** | 3 missed | 1.2 |\n\n### other", text)
        self.assertIn("printed by compare: I1\n\n````\n$ vae\n```\nodd\n````\n", text)

    def test_of_a_run_that_was_ended(self):
        text = check_table.markdown({**self.record, "gpu": {}, "is_complete": False})
        self.assertIn("GPU: NVIDIA H200; CUDA", text)
        self.assertIn("the run ended before all of it was begun", text)

    def test_of_a_file(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "record.json"
            path.write_text(json.dumps(self.record), encoding="utf-8")
            with mock.patch("sys.stdout", io.StringIO()) as output:
                self.assertEqual(check.main(["--table", str(path)]), 0)
            self.assertEqual(output.getvalue(), check_table.markdown(self.record))
            for text in ("{}", "[]", "no JSON", "{\"checks\": 3}"):
                path.write_text(text, encoding="utf-8")
                with mock.patch("sys.stderr", io.StringIO()) as error:
                    self.assertEqual(check.main(["--table", str(path)]), 2, text)
                self.assertEqual(error.getvalue(), f"check_gpu: {path} is no file that check_gpu "
                                                   "has written\n")
            with mock.patch("sys.stderr", io.StringIO()) as error:
                self.assertEqual(check.main(["--table", f"{folder}/none"]), 2)
            self.assertIn("No such file", error.getvalue())


class SideBySide(unittest.TestCase):
    """What runs the checks."""

    def run_checks(self, *checks, **settings):
        """(rows, the verdicts that were kept each time, what was printed)."""
        kept = []
        with mock.patch("sys.stdout", io.StringIO()) as output:
            rows = check.run_checks(
                checks, settings.pop("commands", Commands(900)),
                lambda rows: kept.append([one["verdict"] for one in rows]), **settings)
        return rows, kept, output.getvalue()

    @staticmethod
    def a_check(name, run=lambda: (PASSED, "")):
        return all_checks.Check("a", name, run)

    def test_a_check_that_breaks_has_failed_and_the_others_run(self):
        def breaks():
            raise ZeroDivisionError("oops")

        rows, kept, _ = self.run_checks(self.a_check("x", breaks), self.a_check("y"))
        self.assertEqual([one["verdict"] for one in rows], [FAILED, PASSED])
        self.assertEqual(rows[0]["detail"], "ZeroDivisionError: oops")
        self.assertEqual(kept, [[NOT_RUN, NOT_RUN], [FAILED, NOT_RUN], [FAILED, PASSED]])

    def test_jobs_run_at_once_and_rows_stay_in_order(self):
        meeting = threading.Barrier(3, timeout=20)
        checks = [self.a_check(name, lambda: (PASSED, str(meeting.wait() >= 0))) for name in "xyz"]
        rows, _, output = self.run_checks(*checks, jobs=3)
        self.assertEqual([(one["name"], one["detail"]) for one in rows],
                         [("x", "True"), ("y", "True"), ("z", "True")])
        self.assertEqual(output.count("passed"), 3)

    def test_with_one_job_there_is_one_after_the_other(self):
        running, most = [], []

        def run():
            running.append(1)
            most.append(len(running))
            time.sleep(0.05)
            running.pop()
            return PASSED, ""

        self.run_checks(*(self.a_check(name, run) for name in "xyz"))
        self.assertEqual(most, [1, 1, 1])

    def test_what_is_not_begun_in_time_is_not_run(self):
        end = time.monotonic() + 0.2
        rows, _, _ = self.run_checks(self.a_check("x", lambda: (time.sleep(0.3), (PASSED, ""))[1]),
                                     self.a_check("y"), end=end)
        self.assertEqual([(one["verdict"], one["detail"]) for one in rows],
                         [(PASSED, ""), (NOT_RUN, "no time was left")])

    def test_what_still_runs_after_the_budget_is_ended(self):
        for limit, is_over in ((60, True), (0.2, False)):
            commands = Commands(limit, time.monotonic() - 59.9)
            ended = commands.run(["sleep", "30"])
            self.assertEqual((ended.rc, ended.is_over), (None, is_over))
            self.assertLess(float(re.search(r"time: (\d+) s", ended.output)[1]), 2)

    def test_what_failed_is_kept_with_what_it_printed(self):
        commands = Commands(60)

        def fails():
            commands.run(["sh", "-c", "echo one; exit 3"])
            return FAILED, ""

        rows, _, _ = self.run_checks(self.a_check("x", fails), self.a_check("y"), commands=commands)
        self.assertEqual(rows[0]["output"], "$ sh -c echo one; exit 3\none\n[status 3]")
        self.assertNotIn("output", rows[1])
        self.assertEqual(text_of([(["a"], Result(0, "xxyyyyyyyz"))], most=4),
                         "$ a\nxx\n…\nyz\n[status 0]")
        tests = ("[ RUN      ] A.B\n[       OK ] A.B (1 ms)\n[ RUN      ] A.C\nodd\n"
                 "[  FAILED  ] A.C (1 ms)\n[ RUN      ] A.D\n[       OK ] A.D (0 ms)\nend")
        self.assertEqual(text_of([(["a"], Result(1, tests))]), "$ a\n[ RUN      ] A.C\nodd\n"
                         "[  FAILED  ] A.C (1 ms)\nend\n[status 1]")

    def test_what_all_need_is_made_once(self):
        made = []

        def make():
            time.sleep(0.05)
            made.append(1)
            return len(made)

        once = Once(make)
        rows, _, _ = self.run_checks(*(self.a_check(name, lambda: (PASSED, once()))
                                       for name in "xyz"), jobs=3)
        self.assertEqual([one["detail"] for one in rows], [1, 1, 1])

    def test_what_runs_out_of_time_ends_with_its_children(self):
        with tempfile.TemporaryDirectory() as folder:
            mark = pathlib.Path(folder) / "late"
            ended = Commands(0.2).run(["sh", "-c", f"echo begun; (sleep 1; touch {mark}) & wait"])
            self.assertEqual((ended.rc, ended.is_over), (None, False))
            self.assertEqual(ended.output, "begun\n\nran out of time: 0 s")
            time.sleep(1.2)
            self.assertFalse(mark.exists())

    def test_what_does_not_end_keeps_no_other_check(self):
        made, popen = [], subprocess.Popen

        def start(*arguments, **settings):
            made.append(popen(*arguments, **settings))
            return made[-1]

        commands = Commands(0.2)
        checks = [self.a_check(name, lambda: check_verdicts.verdict_of_tests(
            commands.run(["sleep", "60"]))) for name in "xy"]
        begin = time.monotonic()
        # As if a driver kept them.
        with mock.patch.object(check.machine.os, "killpg"), \
                mock.patch.object(check.machine, "ENDING", 0.2), \
                mock.patch.object(subprocess, "Popen", start):
            rows, _, _ = self.run_checks(*checks, self.a_check("z"), commands=commands)
        self.assertLess(time.monotonic() - begin, 10)
        self.assertEqual([(one["verdict"], one["detail"]) for one in rows],
                         [(FAILED, "ran out of time: 0 s")] * 2 + [(PASSED, "")])
        self.assertEqual([process.poll() for process in made], [None] * 2)
        for process in made:
            check.machine.end_group(process, check.machine.grace())

    def test_variables_are_in_the_environment(self):
        command = ["sh", "-c", "echo $VAE_SEPARATE_ARRAYS $THREADS $HOME"]
        home = os.environ.get("HOME", "")
        self.assertEqual(Commands(60, THREADS="3").run(command, VAE_SEPARATE_ARRAYS="1")
                         .last_line(), f"1 3 {home}".strip())


class Script(unittest.TestCase):
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
             program.parent, "--out", pathlib.Path(folder) / "record.json", "--jobs", "1", "--only",
             "compare: (S|I1), fp32"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
            env={**os.environ, "TMPDIR": str(folder)})  # what is killed removes nothing

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

    def test_bad_requests(self):
        for options, says in ((["--jobs", "0"], "--jobs"), (["--budget", "0"], "--budget"),
                              (["--limit", "nan"], "--limit"), (["--only", "("], "--only"),
                              (["--jobs", "x"], "--jobs"), (["--out", "a.md"], "--out")):
            with mock.patch("sys.stderr", io.StringIO()) as error, \
                    self.assertRaises(SystemExit) as ended:
                check.main(options)
            self.assertEqual(ended.exception.code, 2)
            self.assertIn(says, error.getvalue().splitlines()[-1])

    def test_that_no_check_is_chosen_is_said_before_a_file_is_written(self):
        with tempfile.TemporaryDirectory() as folder:
            (pathlib.Path(folder) / "vae").touch()
            record = {"devices": GPU, "cores": 2, "gpu": {}, "commit": "abc"}
            with mock.patch.object(check.machine, "describe", return_value=record), \
                    mock.patch("sys.stderr", io.StringIO()) as error:
                self.assertEqual(check.main(["--bin", folder, "--only", "nothing", "--out",
                                             f"{folder}/record.json"]), 2)
            self.assertEqual(error.getvalue(), "check_gpu: no check is called nothing\n")
            self.assertEqual(os.listdir(folder), ["vae"])

    def test_a_gpu_of_one_process_gets_one(self):
        for mode, jobs in (("Exclusive_Process", 1), ("Default", 3)):
            with tempfile.TemporaryDirectory() as folder:
                (pathlib.Path(folder) / "vae").touch()
                record = {"devices": GPU, "cores": 2, "commit": "abc", "date": "today",
                          "gpu": {"compute_mode": mode}}
                with mock.patch.object(check.machine, "describe", return_value=record), \
                        mock.patch.object(check, "check_all") as check_all, \
                        mock.patch("sys.stdout", io.StringIO()), \
                        mock.patch("sys.stderr", io.StringIO()):
                    check.main(["--bin", folder, "--jobs", "3", "--out", f"{folder}/record.json"])
            self.assertEqual(check_all.call_args[0][3], jobs)

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
            verdicts = {one["name"]: one["verdict"] for one in record["checks"]}
            self.assertEqual(verdicts.pop("deep, ragged, plan fused, fp32"), "not run")
            self.assertEqual(list(verdicts.values()), [PASSED] * 12)
            self.assertEqual(out.with_suffix(".md").read_text(), check_table.markdown(record))

    @unittest.skipIf(PROGRAMS is None or not (pathlib.Path(PROGRAMS) / EMULATED).exists(),
                     "no emulated module was given")
    def test_emulated(self):
        with tempfile.TemporaryDirectory() as folder:
            programs = pathlib.Path(folder) / "bin"
            programs.mkdir()
            of = pathlib.Path(PROGRAMS).resolve()
            (programs / "vae").symlink_to(of / "vae")
            (programs / "gpu_tests").symlink_to(of / "backend_tests_emulated")
            out = pathlib.Path(folder) / "record.json"
            ran = subprocess.run(
                [sys.executable, ROOT / "scripts" / "check_gpu", "--bin", programs, "--out", out,
                 "--jobs", "2", "--only", "numerics|memory|compare: ragged, plan|no such"],
                env={**os.environ, "XDG_CACHE_HOME": "/nowhere",
                     "VAE_CUDA_MODULE": str(of / EMULATED),
                     "VAE_EMULATION_MEMORY": str(2**30)},
                capture_output=True, text=True, check=False)
            self.assertEqual(ran.returncode, 0, ran.stdout + ran.stderr)
            record = json.loads(out.read_text())
            self.assertEqual([one["verdict"] for one in record["checks"]], [PASSED] * 22)
            details = {one["name"]: one["detail"] for one in record["checks"]}
            self.assertRegex(details["ragged, plan epilogue, bf16"], "plan epilogue$")
            self.assertRegex(details["ragged, plan fused, tf32"], "plan fused$")
            self.assertRegex(details["a model that does not fit"], "what would fit: train.micro_b")
            self.assertRegex(details["ReLU of a NaN"], "plan epilogue: .*bf16")
            self.assertEqual(details["TF32 of a float"], "rounded to the nearest")


if __name__ == "__main__":
    unittest.main()
