"""How scripts/check_gpu shows what it found."""

import re

from check_verdicts import FAILED, NOT_RUN, PASSED

ABOUT = {
    "tests": "The tests of kernels and of the backend, on the GPU.",
    "numerics": "What cuBLASLt does not document: what its ReLU makes of a NaN, and how it makes "
                "TF32 of a float. And whether steps that are not finite are skipped.",
    "compare": "`vae compare`: activations, losses and gradients of a step, and parameters after "
               "some, against double on the CPU; the tensor that is nearest to its gate.",
    "runs": "Training runs that must have the same bits, and one that must learn.",
    "Fashion-MNIST": "An epoch, in nats an example, beside the same epoch on the CPU.",
    "memory": "What asks for more memory than the GPU has.",
    "benchmarks": "",
    "sanitizer": "The tests under compute-sanitizer.",
}


def counts_of(rows):
    return {verdict: sum(row["verdict"] == verdict for row in rows)
            for verdict in (PASSED, FAILED, NOT_RUN)}


def closing(rows):
    return ", ".join(f"{count} {verdict.lower()}" for verdict, count in counts_of(rows).items())


def cell(text):
    """Text as it may stand in a cell."""
    return re.sub(r"\s+", " ", str(text)).replace("|", "\\|").replace("<", "&lt;")


def head(record):
    gpu, devices = record["gpu"], record["devices"]
    named = re.search(r"^cuda +\d+: ([^,\n]*)", devices, re.MULTILINE)
    parts = [f"GPU: {gpu.get('name') or (named[1] if named else 'none')}"]
    if "driver_version" in gpu:
        parts.append(f"driver {gpu['driver_version']}")
    parts += re.findall(r"^CUDA driver .*", devices, re.MULTILINE)
    parts += [f"commit {record['commit']}", record["date"]]
    if record.get("seconds"):
        parts.append(f"{record['seconds']:.0f} s, {record['jobs']} checks side by side")
    return "; ".join(parts)


def table(rows):
    lines = ["| check | | what it says | s |", "| --- | --- | --- | --- |"]
    for row in rows:
        verdict = f"**{row['verdict']}**" if row["verdict"] == FAILED else row["verdict"]
        lines.append(f"| {cell(row['name'])} | {verdict} | {cell(row['detail'])} | "
                     f"{row['seconds']:.1f} |")
    return "\n".join(lines)


def markdown(record):
    """Of a record of results, whole or of a run that has not ended."""
    rows = record["checks"]
    ending = "" if record.get("is_complete") else "; the run ended before all of it was begun"
    parts = [head(record), closing(rows) + ending]
    for group in dict.fromkeys(row["group"] for row in rows):
        own = [row for row in rows if row["group"] == group]
        about = ABOUT.get(group)
        parts += [f"### {group}: {closing(own)}", *([about] if about else []), table(own)]
    for row in rows:
        if row.get("output"):
            # A fence that the output has not.
            fence = "`" * max([3, *(len(ticks) + 1 for ticks in
                                    re.findall(r"`{3,}", row["output"]))])
            parts += [f"### What was printed by {row['group']}: {row['name']}",
                      f"{fence}\n{row['output']}\n{fence}"]
    return "\n\n".join(parts) + "\n"
