#!/usr/bin/env python3
"""Tests of what scripts/check_gpu checks: what it makes of what commands say, with commands that
are made up."""

import json
import math
import pathlib
import re
import struct
import sys
import tempfile
import unittest
from unittest import mock

sys.dont_write_bytecode = True
from script_module import ROOT, load  # noqa: E402

load("check_gpu")  # from here on its modules are found
import check_networks  # noqa: E402
import check_table  # noqa: E402
import check_verdicts  # noqa: E402
import checks as all_checks  # noqa: E402
import machine  # noqa: E402
from check_commands import Result  # noqa: E402
from check_program import Program, gpu_of  # noqa: E402
from check_verdicts import FAILED, NOT_RUN, PASSED  # noqa: E402

RAN = "[==========] {} tests from 3 test suites ran. (5 ms total)\n[  PASSED  ] {} tests.\n"
GPU = "cuda  0: NVIDIA H200, compute capability 9.0, 132 multiprocessors, 139.8 GiB"
CLEAN = "========= ERROR SUMMARY: 0 errors\n"


class Verdicts(unittest.TestCase):
    def test_of_tests(self):
        for rc, output, verdict in (
                (0, RAN.format(20, 20), PASSED), (0, RAN.format(20, 18), PASSED),
                (0, RAN.format(0, 0), FAILED), (0, "", FAILED), (1, RAN.format(20, 20), FAILED),
                (77, "skipped: no CUDA device", NOT_RUN), (None, "still running", FAILED),
                (-11, "", FAILED)):
            self.assertEqual(check_verdicts.verdict_of_tests(Result(rc, output))[0], verdict,
                             (rc, output))
        self.assertEqual(check_verdicts.verdict_of_tests(Result(0, RAN.format(20, 18)))[1],
                         "18 tests, 2 skipped")

    def test_tests_that_failed_are_named(self):
        output = ("[==========] Running 3 tests\n[ RUN      ] Gather/0.Large\n"
                  "[  FAILED  ] Gather/0.Large, where TypeParam = unsigned char (5 ms)\n"
                  "[ RUN      ] A.B\n[       OK ] A.B (1 ms)\n[ RUN      ] A.C\n")
        why = check_verdicts.why_tests_failed
        self.assertEqual(why(Result(1, output + "[  FAILED  ] A.C (1 ms)\n[  FAILED  ] 2 tests, "
                                       "listed below:\n[  FAILED  ] A.C\n")),
                         "failed: Gather/0.Large, A.C")
        begun = output.replace("[  FAILED  ]", "[       OK ]")
        self.assertEqual(why(Result(-11, begun)), "ended with status -11 in A.C")
        self.assertEqual(why(Result(None, begun + "ran out of time: 5 s")),
                         "ran out of time: 5 s in A.C")

    def test_of_tools(self):
        good = RAN.format(20, 20)
        hazards = "========= RACECHECK SUMMARY: {0} hazards displayed ({0} errors, 0 warnings)\n"
        for rc, output, verdict in (
                (0, good + CLEAN, PASSED), (0, good + hazards.format(0), PASSED),
                (0, good, FAILED),  # what the tool found is not known
                (0, good + "========= ERROR SUMMARY: 2 errors\n", FAILED),
                (0, good + hazards.format(1), FAILED), (99, good + CLEAN, FAILED),
                (1, CLEAN, FAILED), (77, CLEAN, NOT_RUN), (0, CLEAN, FAILED),
                (None, "ran out of time: 9 s", FAILED)):
            self.assertEqual(check_verdicts.verdict_of_tool(Result(rc, output))[0], verdict,
                             (rc, output))
        found = check_verdicts.verdict_of_tool(Result(
            99, "========= COMPUTE-SANITIZER\n========= Invalid __global__ read of size 4 bytes\n"
                "========= ERROR SUMMARY: 1 error\n"))
        self.assertEqual(found, (FAILED, "Invalid __global__ read of size 4 bytes"))
        self.assertEqual(check_verdicts.verdict_of_tool(Result(None, "ran out of time: 9 s", True)),
                         (NOT_RUN, "no time was left to end it: ran out of time: 9 s"))

    def test_of_refusals(self):
        good = "progress\nvae: error: the device is out of memory; what would fit: less\n"
        self.assertEqual(check_verdicts.refusal(Result(1, good), "what would fit"),
                         ("the device is out of memory; what would fit: less", None))
        for rc, output, part in ((0, good, ""), (-6, good, ""), (None, "", ""), (1, good, "NaN"),
                                 (1, "terminate called", ""), (1, good + good, "")):
            line, wrong = check_verdicts.refusal(Result(rc, output), part)
            self.assertIsNone(line)
            self.assertTrue(wrong)

    def test_of_checkpoints(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "checkpoint"
            for values, is_finite in (([1, -2], True), ([1, math.nan], False), ([math.inf], False),
                                      ([], False)):
                path.write_bytes(struct.pack("<Q", 2) + b"{}"
                                 + struct.pack(f"<{len(values)}f", *values))
                self.assertEqual(check_verdicts.is_finite(path), is_finite, values)


class MadeUp(unittest.TestCase):
    """Checks whose commands are made up."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        (self.folder / "vae").touch()
        self.commands, self.variables = [], {}
        self.answers = {}

    def checks(self, backend="cuda", devices=GPU):
        commands = mock.Mock()
        commands.run = self.execute
        places = {"IMAGES": self.folder / "images.npy", "GROUPS": self.folder / "groups.npy"}
        program = Program(commands, self.folder, backend, devices)
        program.folder, program.places = self.folder, places
        return all_checks.Checks(program)

    def execute(self, command, **variables):
        command = [str(part) for part in command]
        self.commands.append(command)
        self.variables = variables  # of the last command
        for key, answer in self.answers.items():
            if key in command:
                return answer(command) if callable(answer) else answer
        return Result(0, RAN.format(5, 5) + CLEAN)

    def report(self, is_ok, rows=1, **more):
        one = {"name": "x", "relative_l2": 1e-7, "gate": 1e-5, "ok": is_ok}
        return "progress\n" + json.dumps({"ok": is_ok, **more, "tensors": [one] * rows})

    def test_compare(self):
        for rc, output, verdict in ((0, self.report(True), PASSED), (1, self.report(False), FAILED),
                                    (1, self.report(True), FAILED),
                                    (0, self.report(True, rows=0), FAILED),
                                    (1, "vae: error: no GPU", FAILED), (None, "", FAILED)):
            self.answers["compare"] = Result(rc, output)
            self.assertEqual(self.checks().compare("S", "tf32")[0], verdict, (rc, output))
        self.assertIn("tf32", self.commands[-1])
        self.assertIn(str(self.folder / "images.npy"), self.commands[-1])

    def test_gradients_may_be_farther_where_units_lie_on_the_kink(self):
        def report(name, distance):
            rows = [{"name": "loss", "relative_l2": 1e-7, "gate": 1e-6, "ok": True},
                    {"name": name, "relative_l2": distance, "gate": 1e-5, "ok": False}]
            return Result(1, json.dumps({"ok": False, "tensors": rows}))

        for name, distance, network, verdict in (("grad.a", 1e-3, "wide", PASSED),
                                                 ("grad.a", 1e-3, "S", FAILED),
                                                 ("grad.a", 1e-2, "wide", FAILED),
                                                 ("after.a", 1e-3, "wide", FAILED)):
            self.answers["compare"] = report(name, distance)
            self.assertEqual(self.checks().compare(network, "fp32", "epilogue")[0], verdict)

    def test_the_plan_that_was_taken_is_shown(self):
        for asked, taken, verdict in (("cublas", "cublas", PASSED), (None, "cublas", PASSED),
                                      ("cublas", "epilogue in 2 of 6 products", FAILED),
                                      ("fused", "fused", PASSED), ("fused", "cublas", FAILED),
                                      ("epilogue", "epilogue in 2 of 6 products", PASSED)):
            self.answers["compare"] = Result(0, self.report(True, plan=taken))
            got, detail = self.checks().compare("S", "bf16", asked)
            self.assertEqual(got, verdict, (asked, taken))
            self.assertIn(f"plan {taken}", detail)
            self.assertEqual("--plan" in self.commands[-1], asked is not None)

    def test_what_is_not_a_number_has_failed(self):
        rows = [{"name": "loss", "relative_l2": 1e-7, "gate": 1e-5, "ok": True},
                {"name": "d_z", "relative_l2": None, "gate": 1e-5, "ok": False}]
        self.answers["compare"] = Result(1, json.dumps({"ok": False, "tensors": rows}))
        self.assertEqual(self.checks().compare("S", "fp32"), (FAILED, "not a number in d_z"))

    def test_what_a_gpu_or_the_cpu_has_not(self):
        self.assertEqual(gpu_of(GPU), ((9, 0), int(139.8 * 2**30)))
        self.assertEqual(gpu_of("cpu   2 threads"), (None, None))
        checks = self.checks(devices="cuda  0: T4, compute capability 7.5, 40 multiprocessors")
        self.answers["compare"] = Result(0, self.report(True))
        self.assertEqual(checks.compare("S", "tf32"),
                         (NOT_RUN, "this GPU has no tf32: capability 7.5"))
        self.assertEqual(checks.runs.twice("bf16")[0], NOT_RUN)
        self.assertEqual(checks.compare("S", "fp32", "fused"),
                         (NOT_RUN, "this GPU has no fused: capability 7.5"))
        self.assertEqual(checks.compare("S", "fp32")[0], PASSED)
        checks = self.checks(backend="cpu", devices="cpu   2 threads")
        self.assertEqual(checks.compare("S", "fp32", "epilogue"), (NOT_RUN, "the CPU has no "
                                                                           "epilogue"))
        self.assertEqual(checks.runs.model_too_large()[0], NOT_RUN)
        self.assertEqual(checks.runs.data_too_large()[0], NOT_RUN)

    def test_what_is_not_here_is_not_run(self):
        checks = self.checks()
        racecheck = checks.under("racecheck", "kernels", "*", 2)
        self.assertEqual(checks.part_of_tests(0).run()[0], NOT_RUN)
        self.assertEqual(checks.relu_of_nan()[0], NOT_RUN)
        self.assertEqual(racecheck.run()[0], NOT_RUN)
        (self.folder / "gpu_tests").touch()
        self.assertEqual(checks.part_of_tests(3).run(), (PASSED, "5 tests"))
        shards = {"GTEST_TOTAL_SHARDS": "4", "GTEST_SHARD_INDEX": "3"}
        self.assertEqual(self.variables, shards)  # and nothing else: as users have them
        for tool, verdict in ((None, NOT_RUN), ("/x/compute-sanitizer", PASSED)):
            with mock.patch.object(machine, "find_tool", return_value=tool):
                self.assertEqual(racecheck.run()[0], verdict)
        self.assertEqual(self.commands[-1][:3], ["/x/compute-sanitizer", "--tool", "racecheck"])
        self.assertEqual(self.variables,
                         {**shards, "VAE_SEPARATE_ARRAYS": "1", "GTEST_SHARD_INDEX": "2"})

    def test_what_cublaslt_does_not_document(self):
        (self.folder / "gpu_tests").touch()
        says = "ReLU of a NaN, {}, plan {}: {}\n"
        for output, expected in (
                (says.format("fp32", "cublas", "stays NaN")
                 + says.format("tf32", "cublas", "stays NaN")
                 + says.format("bf16", "epilogue", "becomes a number"),
                 (PASSED, "plan cublas: stays NaN (fp32, tf32); plan epilogue: becomes a number "
                          "(bf16)")), ("", (FAILED, "the tests do not say what it becomes"))):
            self.answers["--gtest_filter=*CudaNanTest*"] = Result(0, output + RAN.format(5, 5))
            self.assertEqual(self.checks().relu_of_nan(), expected)
        cut = "cut; losses in tf32 may then miss their gate: docs/reliability.md"
        for output, expected in (("TF32 of a float: cut\n", (PASSED, cut)),
                                 ("TF32 of a float: rounded\n", (PASSED, "rounded")),
                                 ("", (FAILED, "the tests do not say what it becomes"))):
            self.answers["--gtest_filter=MatmulRounding*"] = Result(0, output + RAN.format(1, 1))
            self.assertEqual(self.checks().tf32_of_float(), expected)

    def test_a_tool_is_given_the_options_that_it_has(self):
        usage = "--padding N\n--kernel-name kns=PART of a name"
        for tool, of_usage, expected in (
                ("memcheck", None, ["--report-api-errors", "no"]),
                ("memcheck", usage, ["--report-api-errors", "no", "--padding", "256",
                                     "--kernel-name", "kns=vae"]),
                ("racecheck", usage, ["--kernel-name", "kns=vae"]), ("initcheck", usage, []),
                ("racecheck", "other options", [])):
            self.assertEqual(all_checks.options_of(tool, of_usage), ["--tool", tool, *expected])

    def test_what_a_tool_is_to_run_is_there(self):
        sources = "".join(path.read_text() for path in (ROOT / "tests").glob("*_test.cpp"))
        for filter_of in (all_checks.SMALL, all_checks.SMALL_BACKEND, all_checks.PATHS,
                          all_checks.LARGE, all_checks.NAN_TESTS, all_checks.TF32_TESTS):
            for word in re.findall(r"\w+", filter_of):
                self.assertIn(word, sources)
        # A kernel that cuts arrays into tiles has a test of every way to.
        for source in (ROOT / "kernels").glob("*.cu"):
            if re.search(r"\blaunch_(tiles|biased|likelihood)\w*[<(]", source.read_text()):
                test = ROOT / "tests" / f"{source.stem.replace('_backward', '')}_test.cpp"
                self.assertIn("LaunchPaths", test.read_text(), test)

    def test_checks_have_names_of_their_own_and_the_most_telling_come_first(self):
        every = [f"{one.group}: {one.name}" for one in self.checks().all()]
        self.assertEqual(len(every), len(set(every)))
        self.assertEqual(set(check_table.ABOUT), {name.split(":")[0] for name in every})
        places = [next(i for i, name in enumerate(every) if re.search(pattern, name)) for pattern in
                  ("tests: ", "compare: S, fp32", "runs: two equal.*fp32", "runs: a resumed.*fp32",
                   "compare: S, tf32", "sanitizer: ")]
        self.assertEqual(places, sorted(places))
        for precision in check_networks.PRECISIONS:
            for plan in check_networks.PLANS:
                for name in ("S", "ragged", "wide"):
                    self.assertIn(f"compare: {name}, plan {plan}, {precision}", every)
            self.assertIn(f"compare: I50, plan fused, {precision}", every)
            self.assertNotIn(f"compare: I50, plan epilogue, {precision}", every)

    def train(self, contents):
        """An answer of `vae train` that leaves one of the checkpoints, in turn; `evaluate` and what
        else there is answer as before."""
        left = list(contents)

        def answer(command):
            out = pathlib.Path(command[command.index("--out") + 1])
            out.mkdir(exist_ok=True)
            metadata, values = left.pop(0)
            table = json.dumps({"__metadata__": metadata, "w": {"dtype": "F32"}}).encode()
            for name in ("checkpoint", "best"):
                (out / f"{name}.safetensors").write_bytes(
                    struct.pack("<Q", len(table)) + table + values)
            return Result(0, "")

        return answer

    def test_bits(self):
        one, other = b"1234", b"1235"
        for contents, verdict in ((({"seconds": "1"}, one), ({"seconds": "22"}, one)), PASSED), (
                (({}, one), ({}, other)), FAILED), ((({}, b""), ({}, b"")), FAILED):
            self.answers["train"] = self.train(contents)
            self.assertEqual(self.checks().runs.twice("fp32")[0], verdict, contents)
        runs = self.checks().runs
        self.answers["train"] = self.train([({}, one), ({}, other), ({}, other), ({}, one)])
        self.assertEqual(runs.resumed("fp32"), (PASSED, "4 bytes, of the best epoch 4 bytes"))
        self.answers["train"] = self.train([({}, one), ({}, other), ({}, other), ({}, other)])
        self.assertEqual(runs.resumed("fp32")[0], FAILED)
        for contents, verdict in ((({}, one), ({}, one)), PASSED), (
                (({}, one), ({}, other)), FAILED):
            self.answers["train"], self.commands = self.train(contents), []
            self.assertEqual(runs.streamed("fp32")[0], verdict, contents)
            for command, where in zip(self.commands, ("device", "streamed")):
                self.assertEqual(command[command.index("--data-placement") + 1], where)
        self.answers["train"] = Result(1, "vae: error: no GPU")
        self.assertEqual(runs.twice("fp32"), (FAILED, "vae: error: no GPU"))

    def test_an_epoch_like_the_cpus(self):
        def train(elbo):
            def answer(command):
                out = pathlib.Path(command[command.index("--out") + 1])
                out.mkdir(exist_ok=True)
                (out / "metrics.jsonl").write_text(json.dumps({"split": "test", "elbo": elbo}))
                return Result(0, "")
            return answer

        self.answers["evaluate"] = Result(0, "\n" + json.dumps({"elbo": -263.0}))
        for elbo, verdict in ((-263.4, PASSED), (-264.4, FAILED), (math.nan, FAILED)):
            self.answers["train"], self.commands = train(elbo), []
            runs = self.checks().runs
            for precision in ("fp32", "bf16"):
                self.assertEqual(runs.like_the_cpu(precision)[0], verdict, elbo)
            self.assertEqual([command[1] for command in self.commands],  # the CPU's once
                             ["train", "evaluate", "train", "train"])
        self.answers["train"] = Result(2, "vae: error: Fashion-MNIST is not here: apt-get install "
                                          "dataset-fashion-mnist")
        self.assertEqual(self.checks().runs.like_the_cpu("fp32"),
                         (NOT_RUN, "Fashion-MNIST is not here: apt-get install "
                                   "dataset-fashion-mnist"))
        self.answers["train"] = Result(1, "vae: error: no")
        self.assertEqual(self.checks().runs.like_the_cpu("fp32")[0], FAILED)

    def test_what_does_not_fit(self):
        refusal = "vae: error: the CUDA device is out of memory; what would fit: less; or streamed"

        def answer(first):
            turns = iter([Result(1, first), Result(0, ""), Result(0, "data: streamed from the host"
                                                                 )])
            return lambda command: next(turns)

        for line, verdict in ((refusal, PASSED), (f"{refusal}\n{refusal}", FAILED),
                              ("vae: error: cudaErrorMemoryAllocation", FAILED)):
            self.answers["train"] = answer(line)
            self.assertEqual(self.checks().runs.model_too_large()[0], verdict, line)
            units = self.commands[-1 if verdict == FAILED else -2]
            units = int(units[units.index("--hidden") + 1])
            self.assertGreater(units * 20 * 2**20, 1.9 * 139.8 * 2**30)
            self.answers["train"] = answer(line)
            self.assertEqual(self.checks().runs.data_too_large()[0], verdict, line)
        # Trained, though it cannot.
        self.assertEqual(self.checks().runs.data_too_large()[0], FAILED)

        def leaves_a_folder(command):
            out = pathlib.Path(command[command.index("--out") + 1])
            out.mkdir()
            (out / "config.toml").touch()
            return Result(1, refusal)

        self.answers["train"] = leaves_a_folder
        self.assertEqual(self.checks().runs.model_too_large(),
                         (FAILED, "left a folder: config.toml"))

    def test_steps_that_are_not_finite(self):
        error = "vae: error: the loss is not finite"

        def answer(output, values):
            def train(command):
                out = pathlib.Path(command[command.index("--out") + 1])
                out.mkdir()
                (out / "checkpoint.safetensors").write_bytes(
                    struct.pack("<Q", 2) + b"{}" + struct.pack(f"<{len(values)}f", *values))
                return Result(1, output)
            return train

        skipped = "warning: skipped 46 of 47 steps: no\n"
        for output, values, verdict in ((skipped + error, [1.0], PASSED), (error, [1.0], FAILED),
                                        (skipped, [1.0], FAILED),
                                        (skipped + error, [math.nan], FAILED)):
            self.answers["train"] = answer(output, values)
            self.assertEqual(self.checks().runs.not_finite("bf16", "epilogue")[0], verdict, output)


if __name__ == "__main__":
    unittest.main()
