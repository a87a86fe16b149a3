"""Ways to set up PyTorch's threads, BLAS and Adam on a CPU, of which the fastest is taken."""

import itertools
import os
import pathlib

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LD_PRELOAD",
                    "GOTO_NUM_THREADS", "OMP_PROC_BIND", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
# How long waiting threads spin: as libgomp does by itself, or as `vae` has it (host/openmp_spin.h).
WAITS = {"": {}, ", bounded spinning": {"GOMP_SPINCOUNT": "10000"}}


def environment(**variables):
    """This one's environment, with threads set by nobody but the caller."""
    clean = {k: v for k, v in os.environ.items() if k not in THREAD_VARIABLES}
    return clean | {k: str(v) for k, v in variables.items()}


def peer_settings(threads):
    """Ways to run PyTorch on so many threads, by name: (environment, ATen's threads, variant)."""
    settings = {}
    openmp = sorted(pathlib.Path("/usr/lib").glob("*/openblas-openmp/libopenblas.so.0"))
    for adam, (waits, spin) in itertools.product(("foreach", "for-loop"), WAITS.items()):
        variant = f"eager, {adam} Adam"
        for aten in sorted({1, threads}):
            settings[f"installed BLAS with {threads} threads, ATen {aten}, {adam} Adam{waits}"] = (
                environment(OPENBLAS_NUM_THREADS=threads, MKL_NUM_THREADS=threads, **spin),
                aten, variant)
        if openmp:
            settings[f"OpenMP OpenBLAS, {threads} threads for all, {adam} Adam{waits}"] = (
                environment(LD_PRELOAD=openmp[0], OMP_NUM_THREADS=threads, **spin),
                threads, variant)
    return settings
