"""The checks of scripts/check_gpu, in the order in which they begin."""

import functools
import re
from collections import namedtuple

import machine
from check_networks import (KINK_GATES, MOST_TELLING, NETWORKS, PLANS, PRECISIONS, network,
                            planned)
from check_runs import Runs
from check_verdicts import (FAILED, NOT_RUN, PASSED, SKIPPED, TOOL_FOUND, verdict_of_comparison,
                            verdict_of_tests, verdict_of_tool)

TESTS = "gpu_tests"
PARTS = 4  # of the tests: one that breaks the device for its process leaves the others theirs
# What cuBLASLt does not document, by tests that say it in lines of this kind.
NAN_TESTS = "*CudaNanTest*"
NAN_SAYS = r"^ReLU of a NaN, (\w+), plan (.*): (.*)$"
TF32_TESTS = "MatmulRounding*"
TF32_SAYS = r"^TF32 of a float: (.*)$"
# Under a tool every instruction of a kernel takes many times as long, and every launch. So: tests
# of kernels at small shapes, in parts; apart, shapes that reach every way to cut an array into
# tiles, and large ones; and of the whole backend a step, two runs and an evaluation, and of one
# network runs with streamed data.
SMALL = "-*LargeSizes*:*LaunchPaths*:*Cuda*"
PATHS = "*LaunchPaths*"
LARGE = "*LargeSizes*"
SMALL_BACKEND = ("*TraceMatchesTheReference*:*TheSameRunTwice*:*Evaluation*:"
                 "*CudaStreamingTest.PartsOfABatch*/tanh_deep_ragged")
TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")

# A check gives a verdict and a detail.
Check = namedtuple("Check", "group name run")


def options_of(tool, usage):
    """Of compute-sanitizer, whose --help printed this; None if it printed nothing."""
    options, usage = ["--tool", tool], usage or ""
    if tool == "memcheck":
        # Tests call the runtime wrongly on purpose: memcheck is to look at kernels alone.
        options += ["--report-api-errors", "no"]
        if "--padding" in usage:  # neighbours would hide what goes past an allocation
            options += ["--padding", "256"]
    # Ours alone, not cuBLASLt's; but what those write initcheck must see.
    if tool != "initcheck" and "--kernel-name" in usage and "kns" in usage:
        options += ["--kernel-name", "kns=vae"]
    return options


class Checks:
    """All checks. What tells the most about the most comes first, for whom time runs out."""

    def __init__(self, program):
        self.program, self.bin = program, program.bin
        self.runs = Runs(program)

    def all(self):
        yield from (self.part_of_tests(part) for part in range(PARTS))
        yield Check("numerics", "ReLU of a NaN", self.relu_of_nan)
        yield Check("numerics", "TF32 of a float", self.tf32_of_float)
        yield from self.comparisons("fp32", MOST_TELLING)
        yield from self.planned_comparisons("fp32")
        yield from self.exact_runs("fp32")
        yield Check("memory", "a model that does not fit", self.runs.model_too_large)
        yield Check("memory", "data that do not fit", self.runs.data_too_large)
        for precision in PRECISIONS[1:]:
            yield from self.comparisons(precision, MOST_TELLING)
            yield from self.planned_comparisons(precision)
            yield from self.exact_runs(precision)
        yield from self.each_precision("Fashion-MNIST", "an epoch", self.runs.like_the_cpu)
        for precision in PRECISIONS:
            for plan in PLANS:
                yield Check("numerics", f"a learning rate of 1e30, plan {plan}, {precision}",
                            functools.partial(self.runs.not_finite, precision, plan))
        yield from self.each_precision("runs", "training", self.runs.learns)
        yield from self.each_precision("runs", "streamed data", self.runs.streamed)
        for precision in PRECISIONS:
            yield from self.comparisons(precision,
                                        [name for name in NETWORKS if name not in MOST_TELLING])
        yield Check("benchmarks", "vae_gpu_bench runs", self.benchmarks)
        for tool in TOOLS:
            yield self.under(tool, "backend", SMALL_BACKEND)
            yield self.under(tool, "every way to cut tiles", PATHS)
            yield from (self.under(tool, "kernels", SMALL, part) for part in range(PARTS))
        yield self.under("memcheck", "large shapes", LARGE)

    @staticmethod
    def each_precision(group, name, check):
        for precision in PRECISIONS:
            yield Check(group, f"{name}, {precision}", functools.partial(check, precision))

    def comparisons(self, precision, names):
        for name in names:
            yield Check("compare", f"{name}, {precision}",
                        functools.partial(self.compare, name, precision))

    def planned_comparisons(self, precision):
        for plan in PLANS:
            for name in planned(plan):
                yield Check("compare", f"{name}, plan {plan}, {precision}",
                            functools.partial(self.compare, name, precision, plan))

    def exact_runs(self, precision):
        yield Check("runs", f"two equal runs, {precision}",
                    functools.partial(self.runs.twice, precision))
        yield Check("runs", f"a resumed run, {precision}",
                    functools.partial(self.runs.resumed, precision))

    def compare(self, name, precision, plan=None):
        why = self.program.why_not(precision, plan)
        if why is not None:
            return NOT_RUN, why
        verdict, detail = verdict_of_comparison(self.program.run(
            "compare", *network(name, precision, plan), "--backend", self.program.backend,
            "--against", "cpu-double", "--precision", precision, "--json"),
            KINK_GATES.get(name, 0))
        # Of epilogues there are those that cuBLASLt has.
        must_be_taken = plan in ("cublas", "fused")
        if verdict == PASSED and must_be_taken and not detail.endswith(f"plan {plan}"):
            return FAILED, f"took another plan: {detail}"
        return verdict, detail

    def run_tests(self, tests=None, part=None, before=(), **variables):
        """(Result, None) of some tests, or (None, a verdict and a detail). `part` is one of PARTS;
        `before` stands before the program."""
        if not (self.bin / TESTS).exists():
            return None, (NOT_RUN, f"{TESTS} is not in {self.bin}")
        if part is not None:
            variables |= {"GTEST_TOTAL_SHARDS": str(PARTS), "GTEST_SHARD_INDEX": str(part)}
        command = [*before, self.bin / TESTS, *([f"--gtest_filter={tests}"] if tests else [])]
        return self.program.commands.run(command, **variables), None

    def part_of_tests(self, part):
        def run():
            result, why = self.run_tests(part=part)
            return why or verdict_of_tests(result)

        return Check("tests", f"{TESTS}, part {part + 1} of {PARTS}", run)

    def what_tests_say(self, tests, pattern):
        """(verdict, detail, what the pattern found in what they printed, which is something where
        they pass)."""
        result, why = self.run_tests(tests)
        if why is not None:
            return *why, []
        found = re.findall(pattern, result.output, re.MULTILINE)
        verdict, detail = verdict_of_tests(result)
        if verdict == PASSED and not found:
            return FAILED, "the tests do not say what it becomes", []
        return verdict, detail, found

    def relu_of_nan(self):
        verdict, detail, found = self.what_tests_say(NAN_TESTS, NAN_SAYS)
        said = {}
        for precision, plan, what in found:
            said.setdefault(f"plan {plan}: {what}", []).append(precision)
        by_plan = "; ".join(f"{what} ({', '.join(of)})" for what, of in said.items())
        return verdict, by_plan if verdict == PASSED else "; ".join(filter(None, (detail, by_plan)))

    def tf32_of_float(self):
        why = self.program.why_not("tf32")
        if why is not None:
            return NOT_RUN, why
        verdict, detail, found = self.what_tests_say(TF32_TESTS, TF32_SAYS)
        if verdict != PASSED:
            return verdict, detail
        of_losses = ("; losses in tf32 may then miss their gate: docs/reliability.md"
                     if "cut" in found[0] else "")
        return verdict, found[0] + of_losses

    def under(self, tool, what, tests, part=None):
        """The check of tests under a tool."""
        def run():
            sanitizer = machine.find_tool("compute-sanitizer")
            if sanitizer is None:
                return NOT_RUN, "compute-sanitizer is not here"
            result, why = self.run_tests(
                tests, part, [sanitizer, *options_of(tool, machine.text_of([sanitizer, "--help"])),
                              "--error-exitcode", TOOL_FOUND],
                VAE_SEPARATE_ARRAYS="1")  # past an array is past an allocation, which a tool sees
            return why or verdict_of_tool(result)

        of = "" if part is None else f", part {part + 1} of {PARTS}"
        return Check("sanitizer", f"{tool}: {what}{of}", run)

    def benchmarks(self):
        program = self.bin / "vae_gpu_bench"
        if not program.exists():
            return NOT_RUN, f"vae_gpu_bench is not in {self.bin}"
        result = self.program.commands.run(
            [program, "--benchmark_min_time=0.01",
             "--benchmark_filter=rows:128/cols:400/|rows:128/latent"])
        if result.rc == SKIPPED:
            return NOT_RUN, result.last_line()
        is_good = result.rc == 0 and "ERROR OCCURRED" not in result.output
        return (PASSED, "") if is_good else (FAILED, result.last_line())
