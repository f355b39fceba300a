#!/usr/bin/python3
"""The dense measurement update as NumPy, JAX and PyTorch users write it, against kwm's block: the same rows in the same
run, turn by turn, on the same number of threads, with those of the libraries that are there. All of them must arrive at
the same P and mean before anything is timed.

usage: peers.py BENCH_STEP [--threads T] [--parameters N] [--rows M] [--repetitions K] [--real double|float ...]
BENCH_STEP: the built program. scripts/setup --bench installs what this needs."""
import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

SETS = 4  # of rows, used in turn
CHECKED_STEPS = 3
PRIOR_VARIANCE = 0.01  # as in bench_step.c
TOLERANCE = {"double": 1e-9, "float": 1e-4}  # relative, Frobenius


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("bench_step")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--parameters", type=int, default=5120)
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--real", nargs="+", choices=["double", "float"], default=["double", "float"])
    return parser.parse_args()


args = arguments()
# Before the libraries are loaded: they read both once. JAX has as many threads as there are cores to run on.
os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = str(args.threads)
os.environ["JAX_PLATFORMS"] = "cpu"
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-args.threads:])

import numpy as np  # noqa: E402

try:
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
except ImportError:
    jax = None
try:
    import torch

    torch.set_num_threads(args.threads)
except ImportError:
    torch = None


class NumPy:
    """A textbook filter; which: how P is updated."""

    def __init__(self, which, kind, sets):
        self.name = f"NumPy, P -= K @ {'Z.T' if which == 'Z' else '(H @ P)'}"
        self.which = which
        self.sets = [(H.astype(kind), e.astype(kind)) for H, e in sets]
        n = sets[0][0].shape[1]
        self.P = np.eye(n, dtype=kind) * kind(PRIOR_VARIANCE)
        self.x = np.zeros(n, kind)
        self.R = np.eye(sets[0][0].shape[0], dtype=kind)

    def step(self, k):
        H, e = self.sets[k]
        start = time.perf_counter()
        Z = self.P @ H.T
        S = H @ Z + self.R
        K = np.linalg.solve(S, Z.T).T
        self.x += K @ e
        self.P -= K @ (Z.T if self.which == "Z" else H @ self.P)
        return time.perf_counter() - start

    def state(self):
        return self.P, self.x


class Jax:
    """The same, compiled; P and x are donated, so that they may be updated in place."""

    def __init__(self, which, kind, sets):
        self.name = f"JAX, P - K @ {'Z.T' if which == 'Z' else '(H @ P)'}"
        self.sets = [(jnp.asarray(H, kind), jnp.asarray(e, kind)) for H, e in sets]
        m, n = sets[0][0].shape

        def update(P, x, H, e):
            Z = P @ H.T
            S = H @ Z + jnp.eye(m, dtype=kind)
            K = jnp.linalg.solve(S, Z.T).T
            return P - K @ (Z.T if which == "Z" else H @ P), x + K @ e

        self.update = jax.jit(update, donate_argnums=(0, 1))
        self.P = jnp.eye(n, dtype=kind) * kind(PRIOR_VARIANCE)
        self.x = jnp.zeros(n, kind)

    def step(self, k):
        H, e = self.sets[k]
        start = time.perf_counter()
        self.P, self.x = jax.block_until_ready(self.update(self.P, self.x, H, e))
        return time.perf_counter() - start

    def state(self):
        return np.asarray(self.P), np.asarray(self.x)


class Torch:
    """The same on the CPU, P updated in place."""

    def __init__(self, which, kind, sets):
        self.name = f"PyTorch, P -= K @ {'Z.T' if which == 'Z' else '(H @ P)'}"
        self.which = which
        real = torch.float64 if kind is np.float64 else torch.float32
        self.sets = [(torch.from_numpy(H).to(real), torch.from_numpy(e).to(real)) for H, e in sets]
        m, n = sets[0][0].shape
        self.P = torch.eye(n, dtype=real) * PRIOR_VARIANCE
        self.x = torch.zeros(n, dtype=real)
        self.R = torch.eye(m, dtype=real)

    def step(self, k):
        H, e = self.sets[k]
        start = time.perf_counter()
        Z = self.P @ H.T
        S = H @ Z + self.R
        K = torch.linalg.solve(S, Z.T).T
        self.x += K @ e
        self.P -= K @ (Z.T if self.which == "Z" else H @ self.P)
        return time.perf_counter() - start

    def state(self):
        return self.P.numpy(), self.x.numpy()


class Kwm:
    name = "kwm block"

    def __init__(self, real, sets, folder):
        self.folder = folder
        self.m, self.n = sets[0][0].shape
        path = os.path.join(folder, "rows")
        with open(path, "wb") as file:
            for H, e in sets:
                H.tofile(file)
                e.tofile(file)
        self.process = subprocess.Popen([args.bench_step, str(self.n), str(self.m), real, str(len(sets)), path],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.words = self.process.stdout.readline().strip()
        self.steps = 0

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def step(self, k):
        self.steps += 1
        return float(self.ask(f"step {k}"))

    def state(self):
        path = os.path.join(self.folder, "state")
        if self.ask(f"state {path}") != "written":
            sys.exit("peers: kwm did not write its state")
        both = np.fromfile(path)
        os.remove(path)
        return both[:-self.n].reshape(self.n, self.n), both[-self.n:]

    def look_share(self, middle):
        """Seconds a step of its look at P in double, due as soon as as many rows came in as there are parameters."""
        period = -(-self.n // self.m)
        if self.steps >= period:
            sys.exit(f"peers: wanted fewer than {period} steps before the look at P, found {self.steps}")
        while self.steps < period:
            seconds = self.step(self.steps % SETS)
        return max(0, seconds - middle) / period

    def close(self):
        self.process.stdin.close()
        self.process.wait()


PEERS = [NumPy] + ([Jax] if jax is not None else []) + ([Torch] if torch is not None else [])


def relative(a, b):
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def changed(state):
    """What the steps did to P, which is nearly P0 in most directions, and the mean."""
    P, x = (part.astype(np.float64) for part in state)
    np.fill_diagonal(P, P.diagonal() - PRIOR_VARIANCE)
    return P, x


def check(real, filters):
    """What the steps of each filter changed against those of the last one; ends the program if they differ."""
    for k in range(CHECKED_STEPS):
        for each in filters:
            each.step(k)
    P, x = changed(filters[-1].state())
    found = [0, 0]
    for other in filters[:-1]:
        mine = changed(other.state())
        found = [max(found[0], relative(mine[0], P)), max(found[1], relative(mine[1], x))]
    print(f"{real}: the filters after {CHECKED_STEPS} steps apart by {found[0]:.1e} in P - P0, {found[1]:.1e} in the "
          f"mean (wanted at most {TOLERANCE[real]:.0e})")
    if not max(found) <= TOLERANCE[real]:
        sys.exit("peers: the filters do not compute the same")


def report(name, seconds, ours=None):
    line = f"  {name:32s} {1e3 * statistics.median(seconds):9.1f} {1e3 * min(seconds):9.1f} {1e3 * max(seconds):9.1f}"
    if ours is not None:
        ratios = sorted(theirs / own for theirs, own in zip(seconds, ours))
        ratio = statistics.median(seconds) / statistics.median(ours)
        line += f" {ratio:9.2f}  ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    print(line, flush=True)


def compare(real, sets, folder):
    kind = np.float64 if real == "double" else np.float32
    filters = [peer(which, kind, sets) for peer in PEERS for which in ("Z", "HP")] + [Kwm(real, sets, folder)]
    check(real, filters)
    seconds = [[] for _ in filters]
    for turn in range(args.repetitions):
        for each, list_ in zip(filters, seconds):
            list_.append(each.step(turn % SETS))
    share = filters[-1].look_share(statistics.median(seconds[-1])) if real == "double" else 0
    ours = [each + share for each in seconds[-1]]
    print(f"  {'':32s} {'median ms':>9s} {'least':>9s} {'most':>9s} {'/ kwm':>9s}  (turn by turn)")
    for each, list_ in zip(filters[:-1], seconds):
        report(each.name, list_, ours)
    report("kwm block", ours)
    print(f"  kwm's look at P, included: {1e3 * share:.1f} ms a step")
    for k, peer in enumerate(PEERS):
        best, other = sorted(statistics.median(each) / statistics.median(ours) for each in seconds[2 * k : 2 * k + 2])
        print(f"  kwm is {best:.2f} times as fast as the better {peer.__name__} filter, {other:.2f} times as the other (wanted 2)")
    filters[-1].close()
    return filters[-1].words


def main():
    random = np.random.default_rng(1)
    sets = [(random.random((args.rows, args.parameters), np.float32) - np.float32(0.5),
             random.standard_normal(args.rows, np.float32)) for _ in range(SETS)]
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    print(f"{args.parameters} parameters, {args.rows} rows, {args.threads} threads, {args.repetitions} repetitions; "
          f"NumPy {np.__version__} ({blas['name']} {blas['version']})"
          + (f", JAX {jax.__version__}" if jax else "") + (f", PyTorch {torch.__version__}" if torch else ""), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for real in args.real:
            words = compare(real, sets, folder)
    print(f"kwm: {words}")


main()
