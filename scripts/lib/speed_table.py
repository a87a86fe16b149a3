"""What scripts/bench_gpu concludes from its measurements, and how it shows them."""

import statistics

import check_table

OURS = "vae"
TRAINING_TOLERANCE = 0.05  # of the mean loss of the first steps: another order, other noise


def new_row(name):
    return {"name": name, "status": "ok", "why": "", "start_seconds": None,
            "warm_up_seconds": None, "loss": None, "trained": None, "microseconds": []}


def summarize(cell):
    """Adds medians, quartiles and ratios to a cell's rows. The fastest peer is the fastest of those
    that do the same work; a row's ratio is its time divided into that one's."""
    ours = next((row for row in cell["rows"] if row["name"] == OURS), None)
    for row in cell["rows"]:
        values = row["microseconds"]
        if not values:
            if row["status"] == "ok":
                row |= {"status": "failed", "why": "nothing was measured"}
            continue
        row["median"] = statistics.median(values)
        row["quartiles"] = (statistics.quantiles(values, n=4, method="inclusive")[::2]
                            if len(values) > 1 else [values[0], values[0]])
        if row is ours or row["status"] != "ok":
            continue
        if not row["trained"] or ours is None or not ours["trained"]:
            row |= {"status": "not checked", "why": row["why"] or "whether it trains is not known"}
        else:
            mean, wanted = row["trained"][1], ours["trained"][1]
            if not abs(mean - wanted) <= TRAINING_TOLERANCE * abs(wanted):
                row |= {"status": "different loss", "why": f"a mean of {mean:.6g} over its first "
                        f"steps, not {wanted:.6g}"}
    peer_medians = [row["median"] for row in cell["rows"]
                    if row["name"] != OURS and row["status"] == "ok"]
    cell["fastest_peer"] = min(peer_medians, default=None)
    for row in cell["rows"]:
        if "median" in row and row["status"] == "ok" and cell["fastest_peer"] is not None:
            row["ratio"] = cell["fastest_peer"] / row["median"]
    return cell


def table(cell):
    """A cell as Markdown: every row, losing ones and those that could not be measured too."""
    lines = [f"### {cell['cell']}", "",
             "| | µs a step, median | quartiles | fastest peer / this | warm-up, s | loss of the "
             "first batch | mean loss of the first steps |", "| --- |" + " --- |" * 6]
    for row in cell["rows"]:
        # The times of one that does other work would only mislead.
        is_checked = row["status"] != "not checked"
        is_shown = "median" in row and (row["status"] == "ok" or not is_checked)
        columns = [row["name"] if is_checked else f"{row['name']} (not checked: {row['why']})"]
        if is_shown:
            low, high = row["quartiles"]
            ratio = f"{row['ratio']:.2f}" if "ratio" in row else "–"
            columns += [f"{row['median']:.1f}", f"{low:.1f} to {high:.1f}", ratio]
        else:
            columns += [f"{row['status']}: {row['why']}", "–", "–"]
        warm_up, trained = row["warm_up_seconds"], row["trained"]
        columns.append("–" if warm_up is None else f"{warm_up:.2f}")
        columns.append("–" if row["loss"] is None else f"{row['loss']:.4f}")
        columns.append(f"{trained[1]:.2f} ({trained[0]})" if trained else "–")
        lines.append("| " + " | ".join(map(check_table.cell, columns)) + " |")
    return "\n".join(lines)


def markdown(record):
    gpu = record["gpu"]
    head = [f"GPU: {gpu.get('name', 'none')}, driver {gpu.get('driver_version', 'unknown')}; "
            f"commit {record['commit']}; {record['date']}; "
            + "; ".join(f"{key} {value}" for key, value in record["versions"].items())]
    return "\n\n".join(head + [table(cell) for cell in record["cells"]]) + "\n"
