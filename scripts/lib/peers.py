"""Talks to the programs of bench/peers, each of which runs one framework (see serve in
bench/peers/workload.py)."""

import json
import queue
import subprocess
import threading

import machine

PEERS = machine.ROOT / "bench" / "peers"


class PeerError(Exception):
    """What a peer could not do; `is_skip` if this machine or version has no such thing."""

    def __init__(self, text, is_skip=False):
        super().__init__(text)
        self.is_skip = is_skip


class PeerProcess:
    """One of them. Every answer is waited for so long at most, then the process is ended."""

    def __init__(self, command, log=None, env=None):
        self.process = subprocess.Popen(
            [str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=log if log is not None else subprocess.DEVNULL, text=True,
            env=machine.python_environment() if env is None else env)
        self.lines = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def answer(self, timeout):
        try:
            line = self.lines.get(timeout=max(timeout, 1))
        except queue.Empty:
            self.close()
            raise PeerError(f"no answer in {timeout:.0f} s") from None
        if line is None:
            raise PeerError(f"ended with status {self.process.wait()}")
        answer = json.loads(line)
        if "skipped" in answer:
            raise PeerError(answer["skipped"], is_skip=True)
        if "error" in answer:
            raise PeerError(answer["error"])
        return answer

    def ask(self, timeout, do, **arguments):
        """(result, seconds that it took)."""
        try:
            self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self.process.stdin.flush()
        except OSError:
            raise PeerError(f"ended with status {self.process.wait()}") from None
        answer = self.answer(timeout)
        return answer["result"], answer["seconds"]

    def is_alive(self):
        return self.process.poll() is None

    def close(self):
        if self.is_alive():
            self.process.kill()
        self.process.wait()
