"""The commands of scripts/check_gpu: several at a time, each with its limit of time, all of them
ended with the script."""

import re
import subprocess
import threading
import time

import machine

GRACE = 60  # seconds for which what runs when the budget is over may go on


class Result:
    """How a command ended. rc is None if it could not be run or did not end by itself; is_over if
    that was for want of time for all commands, not since it took long."""

    def __init__(self, rc, output, is_over=False):
        self.rc, self.output, self.is_over = rc, output, is_over

    def last_line(self):
        lines = [line for line in self.output.splitlines() if line.strip()]
        return lines[-1].strip()[:160] if lines else "no output"


class Ended(Exception):
    """Asked to run a command after end()."""


class Commands:
    """Runs commands for any number of threads."""

    def __init__(self, limit, end=None, **variables):
        """`limit` seconds for each command; all of them end GRACE after `end`, of time.monotonic(),
        if there is one. `variables` are set in their environment."""
        self.limit, self.variables = limit, variables
        self.end_of_budget, self.last = end, None if end is None else end + GRACE
        self.lock, self.running, self.is_ended = threading.Lock(), set(), False
        self.own = threading.local()

    def run(self, command, **variables):
        """A Result. `variables` are set in the command's environment."""
        left = self.limit if self.last is None else max(self.last - time.monotonic(), 1)
        result = self.execute(command, min(self.limit, left), left < self.limit,
                              {**machine.environment(), **self.variables, **variables})
        self.results().append(([str(part) for part in command], result))
        return result

    def execute(self, command, timeout, is_over, environment):
        started = []

        def remember(process):
            started.append(process)
            with self.lock:
                self.running.add(process)
                if self.is_ended:
                    machine.kill_group(process)

        if self.is_ended:
            raise Ended
        try:
            ended = machine.run_in_session(command, timeout, stderr=subprocess.STDOUT,
                                           started=remember, env=environment)
            return Result(ended.returncode, ended.stdout)
        except subprocess.TimeoutExpired as error:
            output = error.output or ""
            if isinstance(output, bytes):
                output = output.decode(errors="replace")
            return Result(None, f"{output}\nran out of time: {timeout:.0f} s", is_over)
        except OSError as error:
            return Result(None, str(error))
        finally:
            with self.lock:
                self.running.difference_update(started)

    def results(self):
        """[(command, Result)] of this thread, since forget()."""
        if not hasattr(self.own, "results"):
            self.own.results = []
        return self.own.results

    def forget(self):
        self.own.results = []

    def end(self):
        """Ends what runs, with all that it has started. Waits for nothing."""
        with self.lock:
            self.is_ended = True
            for process in self.running:
                machine.kill_group(process)


def text_of(results, most=20000):
    """What a check's commands were and printed, without tests that passed; of a long text the first
    and the last half of `most` characters."""
    parts = []
    for command, result in results:
        output = re.sub(r"^\[ RUN      \] (\S+)\n\[       OK \] \1 .*\n", "", result.output,
                        flags=re.MULTILINE).strip()
        if len(output) > most:
            output = f"{output[:most // 2]}\n…\n{output[len(output) - most // 2:]}"
        parts.append(f"$ {' '.join(command)}\n{output}\n[status {result.rc}]")
    return "\n".join(parts)
