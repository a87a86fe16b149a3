"""Student's t distribution, which Python's own library has not."""

import math


def within(t, freedom):
    """The probability that |T| is at most `t`, for a whole number of degrees of freedom:
    Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4."""
    angle = math.atan2(t, math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    is_odd = freedom % 2 == 1
    term = cosine if is_odd else 1.0
    series = 0.0 if freedom == 1 else term
    for i in range(3 if is_odd else 2, freedom - 1, 2):
        term *= cosine**2 * (i - 1) / i
        series += term
    return 2 / math.pi * (angle + sine * series) if is_odd else sine * series


def quantile(level, freedom):
    """What |T| exceeds with a probability of `level`, which is neither 0 nor 1."""
    low, high = 0.0, 1.0
    while within(high, freedom) < 1 - level:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        if within(middle, freedom) < 1 - level:
            low = middle
        else:
            high = middle
    return high
