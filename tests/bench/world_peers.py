#!/usr/bin/python3
"""Filters of time series as FilterPy and JAX users write them, against kwm's: the same series in the same run, turn by turn,
on one thread. All must arrive at the same mean before anything is timed.

usage: world_peers.py BENCH_WORLD [--steps N] [--repetitions K]
BENCH_WORLD: the built program. scripts/setup --bench installs what this needs."""
import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

parser = argparse.ArgumentParser()
parser.add_argument("bench_world")
parser.add_argument("--steps", type=int, default=3000)
parser.add_argument("--repetitions", type=int, default=7)
args = parser.parse_args()
os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
os.environ["JAX_PLATFORMS"] = "cpu"
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])

import filterpy.kalman  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

jax.config.update("jax_enable_x64", True)
POWERS = np.array([(0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2), (3, 0), (2, 1), (1, 2), (0, 3)])


class Kwm:
    """The program, a line in, a line out."""

    name = "kwm"

    def __init__(self):
        self.file = tempfile.NamedTemporaryFile(suffix=".bin")
        self.child = subprocess.Popen(
            [args.bench_world, str(args.steps), self.file.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.mu, self.dt, *noise = map(float, self.child.stdout.readline().split())
        self.q, self.r = np.array(noise[:2]), np.array(noise[2:])
        self.y = np.fromfile(self.file.name).reshape(-1, 2)

    def run(self, problem):
        self.child.stdin.write(problem + "\n")
        self.child.stdin.flush()
        seconds, *mean = map(float, self.child.stdout.readline().split())
        return seconds, np.array(mean)


def rate(xp, mu, x):
    return xp.stack([x[1], mu * (1 - x[0] ** 2) * x[1] - x[0]])


def runge_kutta(xp, mu, dt, x):
    a = rate(xp, mu, x)
    b = rate(xp, mu, x + dt / 2 * a)
    c = rate(xp, mu, x + dt / 2 * b)
    return x + dt / 6 * (a + 2 * b + 2 * c + rate(xp, mu, x + dt * c))


def known_jacobian(mu, dt, x):
    """Of the step above, by its tangents."""

    def slope(p):
        return np.array([[0.0, 1.0], [-2 * mu * p[0] * p[1] - 1, mu * (1 - p[0] ** 2)]])

    a = rate(np, mu, x)
    b = rate(np, mu, x + dt / 2 * a)
    c = rate(np, mu, x + dt / 2 * b)
    eye = np.eye(2)
    A = slope(x)
    B = slope(x + dt / 2 * a) @ (eye + dt / 2 * A)
    C = slope(x + dt / 2 * b) @ (eye + dt / 2 * B)
    D = slope(x + dt * c) @ (eye + dt * C)
    return eye + dt / 6 * (A + 2 * B + 2 * C + D)


def cubic(xp, z):
    """z = [θ (20), x (2)]: x + Θ φ(x). Products, not powers: JAX's derivative of 0 ** 1 is not 1."""
    a, b = z[20], z[21]
    features = xp.stack([xp.ones_like(a), a, b, a * a, a * b, b * b, a * a * a, a * a * b, a * b * b, b * b * b])
    return z[20:] + z[:20].reshape(2, 10) @ features


def cubic_jacobian(z):
    x, theta = z[20:], z[:20].reshape(2, 10)
    powers = x**POWERS
    features = powers.prod(axis=1)
    slopes = np.stack(
        [POWERS[:, 0] * x[0] ** np.maximum(POWERS[:, 0] - 1, 0) * powers[:, 1], POWERS[:, 1] * x[1] ** np.maximum(POWERS[:, 1] - 1, 0) * powers[:, 0]], axis=1
    )
    F = np.eye(22)
    F[20, :10], F[21, 10:20] = features, features
    F[20:, 20:] += theta @ slopes
    return F


class FilterPy:
    name = "FilterPy"

    def __init__(self, kwm):
        self.kwm = kwm

    def filter(self, problem):
        kwm, joint = self.kwm, problem == "joint"
        n = 22 if joint else 2

        class Filter(filterpy.kalman.ExtendedKalmanFilter):
            def predict_x(self, u=0):
                self.x = np.concatenate([self.x[:20], cubic(np, self.x)]) if joint else runge_kutta(np, kwm.mu, kwm.dt, self.x)

        made = Filter(n, 2)
        made.x = np.zeros(n)
        made.P = np.diag([0.25] * 20 + [1.0, 1.0]) if joint else np.eye(2)
        made.Q = np.diag([0.0] * (n - 2) + list(kwm.q))
        made.R = np.diag(kwm.r)
        return made

    def run(self, problem):
        made, kwm = self.filter(problem), self.kwm
        H = np.eye(len(made.x))[-2:]
        started = time.perf_counter()
        for y in kwm.y:
            made.F = cubic_jacobian(made.x) if problem == "joint" else known_jacobian(kwm.mu, kwm.dt, made.x)
            made.predict()
            made.update(y, lambda x: H, lambda x: x[-2:])
        return time.perf_counter() - started, made.x


class Jax:
    name = "JAX"

    def __init__(self, kwm):
        self.kwm, self.passes = kwm, {}
        for problem in ("ekf", "joint"):
            self.passes[problem] = self.compiled(problem)

    def compiled(self, problem):
        kwm, joint = self.kwm, problem == "joint"
        n = 22 if joint else 2
        Q, R, H = jnp.diag(jnp.array([0.0] * (n - 2) + list(kwm.q))), jnp.diag(jnp.array(kwm.r)), jnp.eye(n)[-2:]

        def f(z):
            return jnp.concatenate([z[:20], cubic(jnp, z)]) if joint else runge_kutta(jnp, kwm.mu, kwm.dt, z)

        def step(carry, y):
            z, P = carry
            F = jax.jacfwd(f)(z)
            z, P = f(z), F @ P @ F.T + Q
            S = P[-2:, -2:] + R
            K = jnp.linalg.solve(S, P[-2:]).T
            left = jnp.eye(n) - K @ H  # Joseph's form, as FilterPy has it: the short one drifts away
            return (z + K @ (y - z[-2:]), left @ P @ left.T + K @ R @ K.T), None

        P0 = jnp.diag(jnp.array([0.25] * 20 + [1.0, 1.0])) if joint else jnp.eye(2)
        run = jax.jit(lambda y: jax.lax.scan(step, (jnp.zeros(n), P0), y)[0][0])
        y = jnp.array(kwm.y)
        run(y).block_until_ready()
        return lambda: run(y).block_until_ready()

    def run(self, problem):
        started = time.perf_counter()
        mean = self.passes[problem]()
        return time.perf_counter() - started, np.asarray(mean)


def main():
    kwm = Kwm()
    everyone = [kwm, FilterPy(kwm), Jax(kwm)]
    print(f"series filtered, {args.steps} steps, one thread; FilterPy {filterpy.__version__}, JAX {jax.__version__}, medians of {args.repetitions}")
    for problem, words in (("ekf", "2 states, true model"), ("joint", "2 states and 20 parameters")):
        means = [each.run(problem)[1] for each in everyone]
        for each, mean in zip(everyone[1:], means[1:]):
            error = np.linalg.norm(mean - means[0]) / np.linalg.norm(means[0])
            if not error < 1e-6:
                sys.exit(f"{each.name}, {problem}: wanted kwm's mean, found it {error:.2g} off")
        seconds = {each.name: [] for each in everyone}
        for _ in range(args.repetitions):
            for each in everyone:
                seconds[each.name].append(each.run(problem)[0])
        middle = {name: statistics.median(times) for name, times in seconds.items()}
        for name, value in middle.items():
            print(f"{problem} ({words})\t{name}\t{args.steps / value:.0f} steps/s\tkwm is {value / middle['kwm']:.1f} times as fast")


if __name__ == "__main__":
    main()
