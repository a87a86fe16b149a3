"""The time that a whole run has."""

import signal


class OutOfTime(Exception):
    """The time of the whole run is over: nothing goes on."""


class TimeLimit:
    """Raises OutOfTime, once it is over, in what goes on `with` it, and nowhere else: what was
    measured is still written, and what was started is ended."""

    def __init__(self, seconds):
        """They begin now. A process has one limit."""
        self.seconds, self.is_over, self.may_raise = seconds, False, False
        signal.signal(signal.SIGALRM, self.end)
        signal.setitimer(signal.ITIMER_REAL, max(0.1, seconds))

    def end(self, number, frame):
        del number, frame
        self.is_over = True
        self.raise_if_over()

    def raise_if_over(self):
        if self.is_over and self.may_raise:
            self.may_raise = False  # once: not again on the way out
            raise OutOfTime(f"the whole run has {self.seconds:.0f} s")

    def __enter__(self):
        self.may_raise = True
        self.raise_if_over()

    def __exit__(self, *error):
        self.may_raise = False
