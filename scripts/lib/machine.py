"""What scripts/bench_gpu and scripts/check_gpu share: where the programs are, and what this machine
and this tree are. Python 3.9 or newer, nothing else."""

import argparse
import contextlib
import datetime
import json
import math
import os
import pathlib
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
import traceback

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
# An archive has its programs in bin; a source tree in the folder of a preset.
PLACES = ("bin", "build/cuda/bin", "build/bench/bin", "build/release/bin", "build/cpu/bin")
TOOLKITS = ("CUDA_HOME", "CUDA_PATH")
ENDING = 10  # seconds for which what was killed is waited for: a driver may keep it for ever


def find_folder(wanted, given=None):
    """The folder that has all of these programs, which is the one that was given, if one was; None
    without one."""
    if given is not None:
        folder = pathlib.Path(given).resolve()
        return folder if all((folder / name).exists() for name in wanted) else None
    for place in PLACES:
        if all((ROOT / place / name).exists() for name in wanted):
            return ROOT / place
    return None


def toolkit_folders():
    """Folders of CUDA Toolkits on this machine, those that variables name first."""
    named = [os.environ[name] for name in TOOLKITS if os.environ.get(name)]
    usual = sorted(pathlib.Path("/usr/local").glob("cuda*"), reverse=True)
    return [folder for folder in map(pathlib.Path, [*named, *usual]) if folder.is_dir()]


def library_folders():
    """Where CUDA's libraries may be: in toolkits, and in the packages that come with PyTorch."""
    places = [folder / "lib64" for folder in toolkit_folders()]
    for path in map(pathlib.Path, filter(None, sys.path)):
        places += sorted(path.glob("nvidia/*/lib"))
    return [str(place) for place in places if any(place.glob("libcublas*.so*"))]


def environment():
    """This one's, with CUDA's libraries where our programs find them. Not for PyTorch, which is to
    find those that it was built with."""
    libraries = [os.environ.get("LD_LIBRARY_PATH"), *library_folders()]
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(filter(None, libraries))}


def python_environment():
    return {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}


def find_tool(name):
    """A program of the CUDA Toolkit or of its neighbours, on PATH or not; None without it."""
    found = shutil.which(name)
    for folder in toolkit_folders():
        for place in ("bin", "compute-sanitizer"):
            if found is None and os.access(folder / place / name, os.X_OK):
                found = str(folder / place / name)
    return found


def text_of(command, **settings):
    """What a command prints; None if it cannot be run or fails."""
    try:
        result = run_in_session(command, 60, **settings)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def last_lines(text, count=1):
    """The last lines that have something in them, as one, shortened: what a program that failed
    has said."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " / ".join(line[:200] for line in lines[-count:]) or "it says nothing"


def find_torch(given):
    """The first python that has PyTorch, which is the one that was given, if one was; None without
    one."""
    for python in [given] if given else [sys.executable, "/usr/bin/python3", "python3"]:
        if text_of([python, "-c", "import torch"]) is not None:
            return python
    return None


def find_python(given):
    """The first python that has PyTorch; the one that runs this script if none has."""
    return find_torch(given) or given or sys.executable


def commit():
    packed = ROOT / "commit"  # an archive has no history
    if packed.exists():
        return packed.read_text().strip()
    return text_of(["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=ROOT) or "unknown"


def gpu():
    """What nvidia-smi says of the first GPU to be used, clocks included; {} without it."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    if first in ("", "-1"):
        return {}
    fields = ["name", "driver_version", "clocks.sm", "clocks.max.sm", "clocks.mem", "power.limit",
              "temperature.gpu", "ecc.mode.current", "compute_mode"]
    text = text_of(["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader",
                    f"--id={first}"])
    values = [value.strip() for value in (text or "").split(",")]
    return dict(zip(fields, values)) if len(values) == len(fields) else {}


def has_gpu():
    return bool(gpu()) or any(pathlib.Path("/dev").glob("nvidia[0-9]*"))


def cpu():
    """The model of this machine's CPU."""
    for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return "unknown"


def describe(vae):
    """What numbers and verdicts belong to."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "gpu": gpu(),
        "devices": text_of([vae, "devices"], env=environment()) or "unknown",
        "system": f"{platform.system()} {platform.machine()}, {' '.join(platform.libc_ver())}",
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
    }


def json_file(text):
    """The type of an option --out, beside which the tables go."""
    if text.endswith(".md"):
        raise argparse.ArgumentTypeError("it is the JSON file; the tables go beside it as .md")
    return text


def results_file(kind, record, out):
    """Where a record goes: `out`, or a name of its own in bench/results."""
    if out is not None:
        return pathlib.Path(out)
    name = record["gpu"].get("name", "no-gpu")
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    date = record["date"].replace(":", "").split("+")[0]
    return ROOT / "bench" / "results" / f"{kind}-{slug}-{date}.json"


def write_whole(path, text):
    """Replaces a file in one step: whoever is killed here leaves the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():  # /dev/null, a pipe
        path.write_text(text, encoding="utf-8")
        return
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def finite(value):
    """What JSON can say of it: NaN and infinities are null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    return [finite(one) for one in value] if isinstance(value, (list, tuple)) else value


def write_record(path, record):
    write_whole(path, json.dumps(finite(record), indent=1, allow_nan=False) + "\n")


def kill_group(process):
    """Kills a process that has a session of its own, with everything that it has started; waits for
    nothing."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # all of it has ended
        os.killpg(process.pid, signal.SIGKILL)


def grace():
    """When, of time.monotonic(), whoever waits for what was killed now gives up."""
    return time.monotonic() + ENDING


def end_group(process, deadline):
    """kill_group, and waits until `deadline` at most: a driver may keep it for longer."""
    kill_group(process)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=max(0, deadline - time.monotonic()))


def run_in_session(command, timeout, stderr=subprocess.PIPE, started=None, **settings):
    """A subprocess.CompletedProcess of text. Whether the command runs out of time (TimeoutExpired)
    or this one is interrupted, everything that the command has started ends with it, that which has
    outlived it too; and this one goes on after ENDING more seconds, whoever is left. started() is
    given the process, for whoever ends it from another thread."""
    command = [str(part) for part in command]
    # No `with`, at whose end the process would be waited for however long it takes.
    process = subprocess.Popen(  # pylint: disable=consider-using-with
        command, text=True, errors="replace", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=stderr, start_new_session=True, **settings)
    try:
        if started is not None:
            started(process)
        output, error = process.communicate(timeout=timeout)
        return subprocess.CompletedProcess(command, process.returncode, output, error)
    except BaseException:
        end_group(process, grace())
        raise
    finally:
        for pipe in filter(None, (process.stdout, process.stderr)):
            pipe.close()


ENDINGS = {signal.SIGTERM: "terminated", signal.SIGHUP: "hung up"}  # a lost terminal


class Terminated(SystemExit):
    """One of ENDINGS: what was started is ended on the way out."""


def run_script(main):
    """The exit status of main(): what breaks, or ends it from outside, is one line."""
    name = pathlib.Path(sys.argv[0]).name

    def terminate(number, frame):
        del frame
        for other in ENDINGS:  # not again on the way out: a terminal's shell may send both
            signal.signal(other, signal.SIG_IGN)
        raise Terminated(128 + number)

    for number in ENDINGS:
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup
            signal.signal(number, terminate)
    try:
        return main()
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except Terminated as error:
        with contextlib.suppress(OSError):  # the terminal that was lost
            print(f"{name}: {ENDINGS[error.code - 128]}", file=sys.stderr)
        return error.code
    except Exception as error:  # pylint: disable=broad-except  # whatever it is
        places = traceback.extract_tb(error.__traceback__)
        place = [one for one in places if pathlib.Path(one.filename).resolve().is_relative_to(ROOT)
                 ][-1]  # of ours, not of a library's
        text = (str(error).strip().splitlines() or ["no message"])[0][:200]
        print(f"{name}: error: {type(error).__name__}: {text} ({pathlib.Path(place.filename).name}"
              f", line {place.lineno})", file=sys.stderr)
        return 1
