"""Talks to the programs of bench/peers, each of which runs one framework (see serve in
bench/peers/workload.py)."""

import contextlib
import json
import os
import queue
import subprocess
import threading
import time

import machine

PEERS = machine.ROOT / "bench" / "peers"


class PeerError(Exception):
    """What a peer could not do; `is_skip` if this machine or version has no such thing,
    `is_timeout` if it was ended because it ran over, `is_answer` if it says so itself."""

    def __init__(self, text, is_skip=False, is_timeout=False, is_answer=False):
        super().__init__(text)
        self.is_skip, self.is_timeout, self.is_answer = is_skip, is_timeout, is_answer


class PeerProcess:
    """One of them, with a session of its own: compilers that it has started end with it. Every
    answer is waited for so long at most, then the process is ended; and for its end too, which a
    driver may put off for ever."""

    def __init__(self, command, log=None, env=None):
        self.log, self.log_begin = log, 0 if log is None else os.fstat(log.fileno()).st_size
        self.process = subprocess.Popen(
            [str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=log if log is not None else subprocess.DEVNULL, text=True,
            env=machine.python_environment() if env is None else env, start_new_session=True)
        self.is_closed = False
        self.lines = queue.Queue()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        # It is closed here, at its end: elsewhere that would wait for this read, and somebody who
        # has outlived the process may hold the other end.
        with self.process.stdout as lines:
            for line in lines:
                self.lines.put(line)
        self.lines.put(None)

    def answer(self, timeout):
        try:
            line = self.lines.get(timeout=max(timeout, 1))
        except queue.Empty:
            self.close()
            raise PeerError(f"no answer in {timeout:.0f} s", is_timeout=True) from None
        if line is None:
            raise self.ending()
        answer = json.loads(line)
        if "skipped" in answer:
            raise PeerError(answer["skipped"], is_skip=True)
        if "error" in answer:
            raise PeerError(answer["error"], is_answer=True)
        return answer

    def ask(self, timeout, do, **arguments):
        """(result, seconds that it took)."""
        try:
            self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self.process.stdin.flush()
        except OSError:
            raise self.ending() from None
        answer = self.answer(timeout)
        return answer["result"], answer["seconds"]

    def ending(self):
        """How one that talks no more has ended, as an error."""
        try:
            status = self.process.wait(timeout=machine.ENDING)
        except subprocess.TimeoutExpired:
            return PeerError("talks no more, but has not ended")
        said = "" if self.log is None else f": {machine.last_lines(self.logged(), count=2)}"
        return PeerError(f"ended with status {status}{said}")

    def logged(self):
        """The end of what it has written into its log, which others write too, but before it."""
        with open(self.log.name, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(self.log_begin, size - 4096))
            return file.read().decode("utf-8", errors="replace")

    def is_alive(self):
        return not self.is_closed and self.process.poll() is None

    def kill(self):
        """Waits for nothing: close() does."""
        if not self.is_closed:
            machine.kill_group(self.process)

    def close(self, deadline=None):
        """Ends it, and waits for that until `deadline`, of time.monotonic(), at most."""
        if self.is_closed:
            return
        deadline = machine.grace() if deadline is None else deadline
        machine.end_group(self.process, deadline)
        self.is_closed = True
        self.reader.join(timeout=max(0, deadline - time.monotonic()))
        with contextlib.suppress(OSError):  # a request that it did not read
            self.process.stdin.close()


class Starts:
    """Starts peers and remembers which of them cannot: those are not tried again."""

    ENOUGH = 30  # seconds in which every peer that works has started

    def __init__(self):
        self.broken = {}  # by (peer, cell), or by (peer, None) where it is no matter of the cell

    def check(self, peer, cell):
        """Raises what it could not do the last time."""
        error = self.broken.get((peer, None)) or self.broken.get((peer, cell))
        if error is not None:
            raise error

    def remember(self, peer, cell, error):
        self.broken[peer, cell] = error
        return error

    def start(self, peer, cell, command, log, timeout):
        """(process, versions)."""
        self.check(peer, cell)
        process = PeerProcess(command, log=log)
        try:
            return process, process.answer(timeout)["versions"]
        except PeerError as error:
            process.close()
            # One that has the time to say what is wrong may mean this network or this precision.
            if not error.is_timeout or timeout >= self.ENOUGH:
                self.remember(peer, cell if error.is_answer else None, error)
            raise
        except BaseException:
            process.close()
            raise
