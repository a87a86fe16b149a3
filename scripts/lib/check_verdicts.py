"""What scripts/check_gpu makes of what commands print and write: a verdict and a detail."""

import array
import json
import math
import re
import sys

from workload import read_table

PASSED, FAILED, NOT_RUN = "passed", "FAILED", "not run"
SKIPPED = 77  # what a test program ends with where there is no GPU
TOOL_FOUND = 99  # what a tool is told to end with when it has found something


def why_tests_failed(result):
    """The tests that failed by name, or the one in which the program ended."""
    names = re.findall(r"^\[  FAILED  \] ([A-Za-z_][\w/.]*)(?:,| \(|$)", result.output,
                       re.MULTILINE)
    if names:
        return f"failed: {', '.join(dict.fromkeys(names))}"[:160]
    begun = re.findall(r"^\[ RUN      \] (\S+)", result.output, re.MULTILINE)
    where = f" in {begun[-1]}" if begun and "[==========] Running" in result.output else ""
    ending = result.last_line() if result.rc is None else f"ended with status {result.rc}"
    return f"{ending}{where}" if where else result.last_line()


def verdict_of_tests(result):
    """Of a test program: that no test ran is no pass."""
    ran = re.search(r"\[==========\] (\d+) tests? from .* ran", result.output)
    passed = re.search(r"\[  PASSED  \] (\d+) tests?", result.output)
    if result.rc == SKIPPED:
        return NOT_RUN, result.last_line()
    if result.rc != 0:
        return FAILED, why_tests_failed(result)
    if ran is None or passed is None or int(passed[1]) == 0:
        return FAILED, "no test ran"
    skipped = int(ran[1]) - int(passed[1])
    return PASSED, f"{passed[1]} tests" + (f", {skipped} skipped" if skipped else "")


def verdict_of_tool(result):
    """Of tests under compute-sanitizer: as without it, and it must have found nothing, and said so
    of what it looked at. A tool is slow: that there was no time for it says nothing."""
    verdict, detail = verdict_of_tests(result)
    errors = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: (\d+) (?:error|hazard)", result.output)
    if any(int(count) > 0 for count in errors) or result.rc == TOOL_FOUND:
        found = re.search(r"========= (?!COMPUTE-SANITIZER)(.+)", result.output)
        return FAILED, found[1][:160] if found else result.last_line()
    if result.is_over:
        return NOT_RUN, f"no time was left to end it: {result.last_line()}"
    if verdict == PASSED and not errors:
        return FAILED, "the tool gave no summary"
    return verdict, detail


def verdict_of_comparison(result, gradients=0):
    """Of `vae compare --json`. `gradients` is a gate for those, where it is more than theirs."""
    try:
        report = json.loads(result.output.splitlines()[-1])
        tensors = report["tensors"]
    except (IndexError, KeyError, TypeError, ValueError):
        return FAILED, result.last_line()
    plan = f", plan {report['plan']}" if "plan" in report else ""
    not_finite = [row["name"] for row in tensors if row["relative_l2"] is None]
    if not_finite:  # JSON has no NaN
        return FAILED, f"not a number in {', '.join(not_finite)[:140]}{plan}"
    worst = max(tensors, key=lambda row: row["relative_l2"] / row["gate"], default=None)
    missed = [row for row in tensors if not row["ok"]]
    far = [f"{row['name']} {row['relative_l2']:.1e} (gate {row['gate']:.0e})" for row in missed
           if not (row["name"].startswith("grad.") and row["relative_l2"] <= gradients)]
    if worst is None or far or (result.rc, report["ok"]) != (1 if missed else 0, not missed):
        return FAILED, f"{len(far)} of {len(tensors)} missed{plan}: {', '.join(far)[:200]}"
    distance = f"{worst['relative_l2']:.1e} in {worst['name']}"
    allowed = f" (gradients up to {gradients:.0e})" if missed else ""
    return PASSED, f"{len(tensors)} tensors, {distance}{allowed}{plan}"


def refusal(result, *parts):
    """(what the one line says with which `vae` refused, None), or (None, what is wrong with how it
    ended): not status 1 or 2, several lines, or without one of the parts."""
    lines = [line for line in result.output.splitlines() if line.startswith("vae: ")]
    if result.rc not in (1, 2):
        return None, f"status {result.rc}: {result.last_line()}"
    if len(lines) != 1 or not lines[0].startswith("vae: error: "):
        return None, f"{len(lines)} lines of errors: {result.last_line()}"
    for part in parts:
        if part not in lines[0]:
            return None, f"does not say \"{part}\": {lines[0]}"[:160]
    return lines[0].partition("vae: error: ")[2], None


def tensors_of(path):
    """(table without the metadata, which has times; the tensors' bytes) of a checkpoint."""
    with open(path, "rb") as file:
        return read_table(file)[1], file.read()


def verdict_of_bits(first, second):
    """Of two checkpoints, which must have the same."""
    (table, data), (other_table, other_data) = tensors_of(first), tensors_of(second)
    if not data or table != other_table:
        return FAILED, "the checkpoints have other tensors"
    if data != other_data:
        differing = sum(a != b for a, b in zip(data, other_data))
        return FAILED, f"{differing} of {len(data)} bytes of the checkpoints differ"
    return PASSED, f"{len(data)} bytes"


def is_finite(checkpoint):
    """Whether all its numbers are, of which there is at least one."""
    values = array.array("f")
    values.frombytes(tensors_of(checkpoint)[1])
    if sys.byteorder == "big":
        values.byteswap()
    return len(values) > 0 and all(map(math.isfinite, values))
