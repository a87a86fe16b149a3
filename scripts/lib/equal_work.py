"""What scripts/bench_elbo concludes: whether two sides reach the same test ELBO, and how long each
takes to a fixed one.

A side is {"name", "status", "why", "start_seconds", "warm_up_seconds", "runs"}, a run, of one seed,
{"seed", "seconds", "elbo", "recon", "kl", "steps", "apart_seconds", …}: by epoch, the seconds of
training since the run's first step, and minus ELBO and its two terms of the test split in nats per
example.
"""

import math
import statistics

import student
from check_table import cell

OURS = "vae"
# The probability with which a whole run may say of sides that are equal that they are not: 5 %.
# Most of it is the ELBO's, which is the question. Another optimiser or loss may come to the same
# ELBO by other terms; those are only to show that, and leave it the little that they need.
LEVELS = {"elbo": 0.04, "recon": 0.005, "kl": 0.005}
TERMS = tuple(LEVELS)
PASS_ERRORS = 4  # that two evaluations of the same parameters may differ by
# And what rounding makes of the mean, relative. kl is of squares of what the encoder makes of x,
# and factors of TF32 may be cut off on one side and rounded on the other.
ROUNDING = {"fp32": {"recon": 1e-5, "kl": 1e-4}, "tf32": {"recon": 1e-4, "kl": 5e-3},
            "bf16": {"recon": 2e-3, "kl": 2e-2}}


def new_side(name):
    return {"name": name, "status": "ok", "why": "", "start_seconds": None,
            "warm_up_seconds": None, "runs": []}


def compare(ours, theirs, level):
    """Of the final values of two sides, one a seed, Student's test of two samples: the difference
    of the means, the pooled standard deviation over seeds, the standard error that this makes, and
    how large a difference may be: equal sides exceed it with a probability of `level`."""
    first, second = len(ours), len(theirs)
    freedom = first + second - 2
    pooled = math.sqrt(((first - 1) * statistics.variance(ours)
                        + (second - 1) * statistics.variance(theirs)) / freedom)
    difference = statistics.mean(theirs) - statistics.mean(ours)
    error = pooled * math.sqrt(1 / first + 1 / second)
    allowed = student.quantile(level, freedom) * error
    return {"difference": difference, "standard_error": error, "pooled_deviation": pooled,
            "allowed": allowed, "is_equal": abs(difference) <= allowed}


def compare_all(ours, theirs, peers):
    """By term, as one of so many peers, over which the levels are divided (Bonferroni: however the
    comparisons hang together, and all of them have our side, the probability that one or more of
    them is wrong is at most the sum of theirs). None where a side has but one seed, and so no
    spread."""
    if min(len(ours["elbo"]), len(theirs["elbo"])) < 2:
        return None
    return {term: compare(ours[term], theirs[term], level / peers)
            for term, level in LEVELS.items()}


def disagreement(ours, theirs, precision):
    """None if a peer's evaluation of our parameters (by term, the mean of some passes and the
    standard error of one) is ours, of one pass, but for draws and rounding; else what differs."""
    for term, of_rounding in ROUNDING[precision].items():
        mean, error = theirs[term]["mean"], theirs[term]["error"]
        gate = (PASS_ERRORS * error * math.sqrt(1 + 1 / theirs["passes"])
                + of_rounding * abs(ours[term]))
        if not abs(mean - ours[term]) <= gate:
            return (f"of our parameters it makes a test {term} of {mean:.6g}, not "
                    f"{ours[term]:.6g} ± {gate:.2g}")
    return None


def time_to(target, seconds, values):
    """When the curve, linear between epochs, first is at the target or below; None if never. It has
    no point before the first epoch's end, which so stands for all of that epoch."""
    for i, value in enumerate(values):
        if not value <= target:
            continue
        if i == 0:
            return seconds[0]
        share = (values[i - 1] - target) / (values[i - 1] - value)
        return seconds[i - 1] + share * (seconds[i] - seconds[i - 1])
    return None


def finals_of(side):
    return {term: [run[term][-1] for run in side["runs"]] for term in TERMS}


def is_equal(against):
    return against is not None and all(one["is_equal"] for one in against.values())


def spread(values):
    return {"mean": statistics.mean(values),
            "deviation": statistics.stdev(values) if len(values) > 1 else None}


def epoch_seconds(run):
    return [after - before for before, after in zip([0, *run["seconds"]], run["seconds"])]


def default_target(sides):
    """The worse side's mean final value, and a thousandth of it or, if that is more, its deviation
    above it, so that about every seed of every side gets there. Sides that end elsewhere do not
    count, unless there are no others."""
    summaries = [side["summary"] for side in sides if side.get("summary")]
    equal = [one for one in summaries
             if one["against_ours"] is None or is_equal(one["against_ours"])]
    finals = [one["elbo"] for one in (equal if len(equal) > 1 else summaries)]
    worst = max(finals, key=lambda final: final["mean"], default=None)
    return worst and worst["mean"] + max(1e-3 * abs(worst["mean"]), worst["deviation"] or 0)


def summarize(record):
    """Adds each side's summary, and the target, to a record whose seeds are not all there yet. What
    did other work, or has no whole run, has none."""
    sides = record["sides"]
    ours = next((side for side in sides if side["name"] == OURS and side["runs"]), None)
    for side in sides:
        side.pop("summary", None)
        if not side["runs"] or side["status"].startswith("different"):
            continue
        record["steps_per_epoch"] = side["runs"][0]["steps"] // record["epochs"]
        finals = finals_of(side)
        seconds = statistics.median(s for run in side["runs"] for s in epoch_seconds(run))
        side["summary"] = {term: spread(values) for term, values in finals.items()} | {
            "against_ours": None, "epoch_seconds": seconds,
            "step_microseconds": 1e6 * seconds / record["steps_per_epoch"],
            "apart_seconds": statistics.median(run["apart_seconds"] for run in side["runs"])}
    others = [side for side in sides if side is not ours and "summary" in side]
    for side in others if ours is not None and "summary" in ours else []:
        side["summary"]["against_ours"] = compare_all(finals_of(ours), finals_of(side),
                                                      len(others))
    record["target"] = (default_target(sides) if record["asked_target"] is None
                        else record["asked_target"])
    for side in sides:
        if "summary" in side:
            times = [time_to(record["target"], run["seconds"], run["elbo"])
                     for run in side["runs"]]
            reached = [time for time in times if time is not None]
            side["summary"] |= {"times_to_target": times, "time_to_target": (
                statistics.median(reached) if reached else None)}
    return record


def verdict(side):
    """In words."""
    against = side["summary"]["against_ours"]
    if side["name"] == OURS:
        return "–"
    if against is None:
        return "one seed has no spread" if len(side["runs"]) < 2 else "not compared"
    if is_equal(against):
        return "equal within the spread"
    return "NOT EQUAL: " + ", ".join(
        f"{'−' if term == 'elbo' else ''}{term}" for term, one in against.items()
        if not one["is_equal"])


def ratio(ours, theirs):
    return "–" if not ours or not theirs else f"{theirs / ours:.2f}"


def with_deviation(values):
    deviation = "" if values["deviation"] is None else f" ± {values['deviation']:.2f}"
    return f"{values['mean']:.2f}{deviation}"


def rows_of(record, columns):
    """Of every side, those without a summary too: columns(summary, side) gives texts."""
    rows = []
    for side in record["sides"]:
        status = ("no run" if side["status"] == "ok" else
                  f"{side['status']}: {side['why']}".strip())
        has_numbers = "summary" in side
        note = f" ({status})" if has_numbers and side["status"] != "ok" else ""
        cells = columns(side["summary"], side) if has_numbers else [status]
        rows.append("| " + " | ".join(map(cell, [side["name"] + note, *cells])) + " |")
    return rows


def quality_table(record):
    def columns(summary, side):
        against = summary["against_ours"]
        return [*(with_deviation(summary[term]) for term in TERMS),
                "–" if against is None else "; ".join(
                    f"{one['difference']:+.3f} ± {one['standard_error']:.3f}"
                    for one in against.values()),
                verdict(side), str(len(side["runs"]))]

    return ["| | test −elbo, mean ± deviation over seeds | recon | kl | minus those of vae ± "
            "standard error | | seeds |", "| --- |" + " --- |" * 6, *rows_of(record, columns)]


def speed_table(record):
    ours = next((side["summary"] for side in record["sides"]
                 if side["name"] == OURS and "summary" in side), {})

    def columns(summary, side):
        times = summary["times_to_target"]
        reached = sum(time is not None for time in times)
        time = summary["time_to_target"]
        apart = [side["start_seconds"], side["warm_up_seconds"]]
        return [f"{summary['step_microseconds']:.1f}", f"{summary['epoch_seconds']:.3f}",
                ratio(ours.get("epoch_seconds"), summary["epoch_seconds"]),
                "never" if time is None else f"{time:.3f} ({reached} of {len(times)})",
                ratio(ours.get("time_to_target"), time),
                f"{summary['apart_seconds']:.2f}" if side["name"] == OURS else
                " + ".join("–" if one is None else f"{one:.2f}" for one in apart)]

    target = "–" if record["target"] is None else f"{record['target']:.2f}"
    return ["| | µs a step | s an epoch, median | this / vae | s of training to a test −elbo of "
            f"{target}, median (seeds that reach it) | this / vae | apart, s |",
            "| --- |" + " --- |" * 6, *rows_of(record, columns)]


def curve_table(record):
    """Means over seeds of the seconds and the test −elbo after each epoch."""
    sides = [side for side in record["sides"] if "summary" in side]
    if not sides:
        return []
    lines = ["| epoch | " + " | ".join(f"{side['name']}: s, −elbo" for side in sides) + " |",
             "| --- |" + " --- |" * len(sides)]
    for i in range(record["epochs"]):
        cells = [", ".join(f"{statistics.mean(run[key][i] for run in side['runs']):.{digits}f}"
                           for key, digits in (("seconds", 3), ("elbo", 2))) for side in sides]
        lines.append(f"| {i + 1} | " + " | ".join(cells) + " |")
    return lines


def markdown(record):
    gpu = record["gpu"]
    where = (f"GPU: {gpu.get('name', 'none')}, driver {gpu.get('driver_version', 'unknown')}"
             if record["device"] == "cuda" else
             f"{record['cpu']}, {record['threads']} threads"
             + (f", PyTorch: {record['peer_setting']}" if "peer_setting" in record else ""))
    head = [f"{where}; commit {record['commit']}; {record['date']}; "
            + "; ".join(f"{key} {value}" for key, value in record["versions"].items()),
            f"### {record['workload']}/{record['precision']}: {record['epochs']} epochs of "
            f"{record['steps_per_epoch'] or '–'} steps, {record['data']}, "
            f"{record['test_examples']} test examples" + ("" if record["is_complete"] else
                                                          f" (not complete: {record['why']})")]
    tables = [quality_table(record), speed_table(record), curve_table(record)]
    return "\n\n".join(head + ["\n".join(table) for table in tables if table]) + "\n"
