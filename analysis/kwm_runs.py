"""What a run leaves behind, read: tables, tasks, configuration, covariance spectra, gains. Nothing here draws.

A file that must be there and is not, or is damaged, raises RunError with one line; one checkpoint or spectrum of many
that can't be read is left out and named in Run.left_out.
"""

import csv
import glob
import json
import math
import os

import h5py
import numpy as np

GATED = ("recurrence", "hidden", "output")  # parameter groups if a table names none
PER_GROUP = ("kl", "scale", "gain", "trace", "q")  # columns PREFIX_GROUP of metrics.tsv
LAGS = 10  # of the history's Ljung-Box sums
POINTS = 200  # of a curve


class RunError(Exception):
    pass


def _text(path, wanted):
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        raise RunError(f"{path}: wanted {wanted}, found: {error.strerror}") from None
    except UnicodeDecodeError:
        raise RunError(f"{path}: wanted {wanted}, found bytes that are not text") from None


def _table(path, least=1):
    """Columns by name as arrays; a last line that is still being written is left away."""
    lines = _text(path, "a run's table").split("\n")[:-1]
    rows = list(csv.reader(lines, delimiter="\t"))
    if len(rows) < 1 + least:
        raise RunError(f"{path}: wanted at least one row, found none")
    if any(len(row) != len(rows[0]) for row in rows):
        raise RunError(f"{path}: wanted {len(rows[0])} columns in every row, found another number")
    try:
        numbers = np.array(rows[1:], dtype=float).reshape(-1, len(rows[0]))
    except ValueError as error:
        raise RunError(f"{path}: wanted numbers, found: {error}") from None
    if "step" not in rows[0]:
        raise RunError(f"{path}: wanted a column `step`, found none")
    return dict(zip(rows[0], numbers.T))


def _fields(path):
    """A JSON object; {} if there is no such file."""
    if not os.path.exists(path):
        return {}
    try:
        found = json.loads(_text(path, "a JSON object"))
    except json.JSONDecodeError as error:
        raise RunError(f"{path}: wanted a JSON object, found: {error}") from None
    if not isinstance(found, dict):
        raise RunError(f"{path}: wanted a JSON object, found {type(found).__name__}")
    return found


def flat(yaml):
    """Resolved YAML as {"cov.hidden.prior": "3", ...}: nested keys and scalars are all that kwm writes."""
    found, parents = {}, []
    for line in yaml.splitlines():
        name, colon, value = line.strip().partition(":")
        if not colon or name.startswith("#"):
            continue
        indent = len(line) - len(line.lstrip())
        parents = [p for p in parents if p[0] < indent]
        if value.strip():
            found[".".join([p[1] for p in parents] + [name])] = value.strip().strip('"')
        else:
            parents.append((indent, name))
    return found


class Spectrum:
    """One group of one spectra file, reduced to what plots need.

    count, width: directions of the group, of a block
    place, value: eigenvalues of all blocks, ascending, as a curve of at most POINTS points over the place 1..count
    facts: arrays over blocks; gain (blocks) or None
    """

    def __init__(self, group):
        eigen = np.atleast_2d(group["eigenvalues"][()])
        multiplicity = np.broadcast_to(group["multiplicity"][()], eigen.shape)
        value, weight = eigen.ravel(), multiplicity.ravel()
        if value.size == 0 or not np.isfinite(value).all() or not (weight > 0).all():
            raise ValueError("eigenvalues that are not finite")
        order = np.argsort(value, kind="stable")
        value, upto = value[order], np.cumsum(weight[order])
        self.count = upto[-1]
        self.width = multiplicity[0].sum()
        self.place = np.unique(np.round(np.geomspace(1, self.count, POINTS)))
        self.value = value[np.minimum(np.searchsorted(upto, self.place), value.size - 1)]
        names = ("trace", "effective_rank", "effective_parameters", "condition", "known")
        self.facts = {name: np.atleast_1d(group[name][()]) for name in names}
        self.gain = np.atleast_1d(group["gain"][()]) if "gain" in group else None


class Snapshot:
    """One checkpoint's step with spectra {group: Spectrum} and gain {group: (blocks)}."""

    def __init__(self, step, spectra, gain):
        self.step, self.spectra, self.gain = step, spectra, gain


def _spectra_file(path):
    with h5py.File(path, "r") as file:
        spectra = {name: Spectrum(group) for name, group in file["spectra"].items()}
        gain = {name: s.gain for name, s in spectra.items() if s.gain is not None}
        return Snapshot(int(file["meta"].attrs["step"]), spectra, gain)


def _gain_of_checkpoint(path):
    with h5py.File(path, "r") as file:
        gains = file["filter/gain"] if "filter/gain" in file else {}
        gain = {name: values[()] for name, values in gains.items()}
        return Snapshot(int(file["meta"].attrs["step"]), {}, gain)


def _named_counts(file):
    """The history's numbers by name; name[n] stands for n of them."""
    counts, at, found = file["history/counts"][()], 0, {}
    names = file["history"].attrs["names"]
    for word in (names.decode() if isinstance(names, bytes) else str(names)).split():
        name, _, times = word.rstrip("]").partition("[")
        size = int(times or 1)
        found[name] = counts[at : at + size]
        at += size
    return found


def correlation_of_sums(box):
    """(lags 1..LAGS, number of steps) of the surprisal's score from the sums that a checkpoint keeps; None if too few.
    count, first value, sum, products at lags 0.., first values, last values (include/kwm/consistency.h)."""
    if len(box) != 3 + (LAGS + 1) + 2 * LAGS or box[0] <= LAGS + 1:
        return None
    count, total = box[0], box[2]
    product, first, last = box[3 : 4 + LAGS], box[4 + LAGS : 4 + 2 * LAGS], box[4 + 2 * LAGS :]
    mean, lag = total / count, np.arange(LAGS + 1)
    ends = np.concatenate([[0], np.cumsum(first + last)])
    covariance = product - mean * (2 * total - ends) + (count - lag) * mean * mean
    return (covariance[1:] / covariance[0], int(count)) if covariance[0] > 0 else None


def correlation(series):
    """(lags 1.., number of values) of a series; None if too short or without spread."""
    x = series[np.isfinite(series)]
    x = x - x.mean() if x.size else x
    if x.size < 8 or not np.any(x):
        return None
    lags = min(20, x.size // 3)
    return np.array([x[k:] @ x[:-k] for k in range(1, lags + 1)]) / (x @ x), x.size


class Tasks:
    """A run on a stream: tasks.tsv and changes.tsv.

    count, done: tasks of the stream, learned so far
    accuracy: (count + 1, count), on task i after learning t of them, row 0 before any; NaN: not evaluated
    seen: accuracy where the task had been learned, else NaN
    scores: columns of the table over the numbers of tasks in `learned`
    switches, changes: steps at which a task gave way to the next, and at which a change was reported
    """

    def __init__(self, folder):
        path = os.path.join(folder, "tasks.tsv")
        self.scores = _table(path)
        names = [name for name in self.scores if name.startswith("task") and name[4:].isdigit()]
        self.count = len(names)
        self.learned = self.scores.get("tasks", np.array([math.nan]))
        whole = set(range(self.count + 1))
        if not names or not set(self.learned) <= whole or len(set(self.learned)) < len(self.learned):
            raise RunError(f"{path}: wanted a column for each task and `tasks` from 0 to their number, found others")
        self.learned = self.learned.astype(int)
        self.done = int(self.learned.max())
        self.accuracy = np.full((self.count + 1, self.count), np.nan)
        self.accuracy[self.learned] = np.stack([self.scores[name] for name in names], axis=1)
        self.seen = np.where(np.tri(self.count + 1, self.count, -1, dtype=bool), self.accuracy, np.nan)
        inside = (self.learned > 0) & (self.learned < self.count)
        self.switches = self.scores["step"][inside]
        path = os.path.join(folder, "changes.tsv")
        self.changes = _table(path, least=0)["step"] if os.path.exists(path) else np.empty(0)

    def score(self, name):
        """After the last task learned; NaN if there is none."""
        return float(self.scores[name][self.learned.argmax()]) if name in self.scores else math.nan

    def detections(self, early=0):
        """(steps from a switch to the first change reported before the next one, changes that are left over); changes
        up to `early` steps before a switch count as its own."""
        delays, left = [], list(self.changes)
        for start, end in zip(self.switches, [*self.switches[1:], math.inf]):
            inside = [step for step in left if start - early <= step < end - early]
            if inside:
                delays.append(inside[0] - start)
                left.remove(inside[0])
        return delays, left


class Run:
    def __init__(self, folder, name=None):
        if not os.path.isdir(folder):
            raise RunError(f"{folder}: wanted a run's folder, found {'a file' if os.path.exists(folder) else 'nothing'}")
        self.folder = folder
        self.name = name or os.path.basename(os.path.abspath(folder))
        self.metrics = _table(os.path.join(folder, "metrics.tsv"))
        self.summary = _fields(os.path.join(folder, "summary.json"))
        self.manifest = _fields(os.path.join(folder, "manifest.json"))
        path = os.path.join(folder, "config.yaml")
        self.config_text = _text(path, "a configuration") if os.path.exists(path) else ""
        self.config = flat(self.config_text)
        self.left_out = []
        self.checkpoints = self._files("checkpoints")
        self.snapshots = self._readable(self._files("spectra"), _spectra_file)
        with_gain = [s for s in self.snapshots if s.gain]
        self.gains = [s for s in (with_gain or self._readable(self.checkpoints, _gain_of_checkpoint)) if s.gain]
        self.step_correlation = self._step_correlation()
        self.group_names = self._group_names()
        self.tasks = Tasks(folder) if os.path.exists(os.path.join(folder, "tasks.tsv")) else None

    def _files(self, kind):
        return sorted(glob.glob(os.path.join(glob.escape(self.folder), kind, "step-*.h5")))

    def _readable(self, paths, read):
        found = []
        for path in paths:
            try:
                found.append(read(path))
            except (OSError, KeyError, ValueError, RuntimeError):
                self.left_out.append(os.path.relpath(path, self.folder))
        return [snapshot for _, snapshot in sorted({s.step: s for s in found}.items())]

    def _group_names(self):
        """Parameter groups in the model's order, as the columns of metrics.tsv name them; then others that files have."""
        split = [name.partition("_") for name in self.metrics]
        known = list(dict.fromkeys(group for prefix, _, group in split if prefix in PER_GROUP and group)) or list(GATED)
        found = {name for s in self.snapshots for name in s.spectra} | {name for s in self.gains for name in s.gain}
        return known + sorted(found - set(known))

    def _step_correlation(self):
        for path in reversed(self.checkpoints):
            try:
                with h5py.File(path, "r") as file:
                    counts = _named_counts(file)
                return correlation_of_sums(counts.get("surprisal_ljung_box", ()))
            except (OSError, KeyError, ValueError, RuntimeError):
                continue
        return None

    def column(self, name):
        """(steps, values) of the rows in which the column is a number; two empty arrays if there are none."""
        if name not in self.metrics:
            return np.empty(0), np.empty(0)
        good = np.isfinite(self.metrics[name])
        return self.metrics["step"][good], self.metrics[name][good]

    def has(self, name):
        return self.column(name)[1].size > 0

    def filters(self):
        """It learns with a covariance; the baselines have none."""
        return self.config.get("learner", "kalman") == "kalman"

    def blended(self):
        """Steps on either side of a switch over which one task gives way to the next; 0: abrupt."""
        if self.config.get("stream.boundaries") != "blended" or not self.tasks.switches.size:
            return 0
        return float(self.config.get("stream.blend", 0)) * self.tasks.switches[0] / 2

    def passes_per_step(self):
        steps, epochs = self.column("epoch")
        return epochs[-1] / steps[-1] if steps.size and steps[-1] > 0 else math.nan

    def spectrum_series(self, group):
        """[(step, Spectrum)] of the files that have the group."""
        return [(s.step, s.spectra[group]) for s in self.snapshots if group in s.spectra]

    def groups(self):
        return [g for g in self.group_names if self.spectrum_series(g)]

    def gain_series(self, group):
        """steps (t), gain that each block has had so far (t, blocks)."""
        found = [(s.step, s.gain[group]) for s in self.gains if group in s.gain]
        found = [f for f in found if f[1].shape == found[-1][1].shape]
        return np.array([f[0] for f in found]), np.array([f[1] for f in found])


def groups_of(runs):
    """All their parameter groups."""
    return list(dict.fromkeys(group for run in runs for group in run.group_names))


def columns_of(runs, prefix):
    return [f"{prefix}_{group}" for group in groups_of(runs)]
