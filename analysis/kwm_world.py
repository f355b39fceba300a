"""Runs of world models: read, drawn, and held against what is known of the system."""

import csv
import glob
import json
import os
import re

import numpy as np

from kwm_page import note, picture, text

COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"]
PARAMETERS = 7  # drawn


class WorldError(Exception):
    pass


class Table:
    """A table by columns; numbers as an array, words as a list."""

    def __init__(self, path):
        try:
            with open(path, encoding="utf-8") as file:
                rows = list(csv.reader(file, delimiter="\t"))
        except (OSError, UnicodeDecodeError) as error:
            raise WorldError(f"{path}: wanted a table, found: {error}") from error
        if not rows:
            raise WorldError(f"{path}: wanted a header, found an empty file")
        self.names = rows[0]
        whole = [row for row in rows[1:] if len(row) == len(self.names)]
        self.columns = {name: self._column([row[c] for row in whole]) for c, name in enumerate(self.names)}
        self.n = len(whole)

    @staticmethod
    def _column(words):
        try:
            return np.array([float(word) for word in words])
        except ValueError:
            return words

    def __getitem__(self, name):
        return self.columns[name]

    def __contains__(self, name):
        return name in self.columns


class World:
    def __init__(self, folder):
        self.folder = folder
        self.metrics = Table(os.path.join(folder, "metrics.tsv"))
        if "rmse" not in self.metrics:
            raise WorldError(f"{folder}: wanted a run of a world model, found another")
        self.forecast, self.trajectory, self.spectrum, self.parameters = (
            self._optional(name + ".tsv") for name in ("forecast", "trajectory", "spectrum", "parameters")
        )
        self.summary, self.manifest = self._json("summary.json"), self._json("manifest.json")
        try:
            with open(os.path.join(folder, "config.yaml"), encoding="utf-8") as file:
                self.config = file.read()
        except OSError as error:
            raise WorldError(f"{folder}/config.yaml: wanted a configuration, found: {error.strerror}") from error

    def _optional(self, name):
        path = os.path.join(self.folder, name)
        return Table(path) if os.path.exists(path) else None

    def _json(self, name):
        try:
            with open(os.path.join(self.folder, name), encoding="utf-8") as file:
                return json.load(file)
        except OSError:
            return {}
        except ValueError as error:
            raise WorldError(f"{self.folder}/{name}: wanted JSON, found: {error}") from error

    def outputs(self):
        """Names of the outputs that trajectory.tsv has."""
        return [name[: -len("_filtered")] for name in self.trajectory.names if name.endswith("_filtered")] if self.trajectory else []


def _axes(rows=1, columns=1, height=3.2):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    matplotlib.rcParams["svg.hashsalt"] = "kwm"
    figure, axes = plt.subplots(rows, columns, figsize=(7.6, height * rows), squeeze=False, constrained_layout=True)
    return figure, axes


# ---- pictures


def learning(run):
    figure, axes = _axes(1, 2)
    metrics = run.metrics
    axes[0][0].semilogy(metrics["step"], metrics["rmse"], color=COLOURS[0])
    axes[0][0].set(xlabel="step", ylabel="error of one-step predictions")
    right = axes[0][1]
    if np.isfinite(metrics["nis"]).any():
        right.fill_between(metrics["step"], metrics["nis_low"], metrics["nis_high"], color="#dddddd", label="95 % band")
        right.plot(metrics["step"], metrics["nis"], color=COLOURS[0])
        right.set_yscale("log")
        right.legend()
    else:
        right.text(0.5, 0.5, "no filter during learning", ha="center", transform=right.transAxes)
    right.set(xlabel="step", ylabel="NIS per output")
    return figure


def trajectory(run):
    names, shown = run.outputs(), 200
    figure, axes = _axes(len(names), 1, 2.2)
    table = run.trajectory
    step = table["step"][:shown]
    for axis, name in zip(axes[:, 0], names):
        middle, deviation = table[name + "_filtered"][:shown], table[name + "_sd"][:shown]
        axis.fill_between(step, middle - 1.645 * deviation, middle + 1.645 * deviation, color="#a6cee3", label="90 % band")
        axis.plot(step, table[name + "_observed"][:shown], ".", color="#999999", markersize=3, label="observed")
        if np.isfinite(table[name + "_truth"]).any():
            axis.plot(step, table[name + "_truth"][:shown], color="#000000", linewidth=1, label="truth")
        axis.plot(step, middle, color=COLOURS[1], linewidth=1, label="filtered")
        axis.set(ylabel=name)
    axes[0][0].legend(ncol=4, fontsize=8)
    axes[-1][0].set(xlabel="step")
    return figure


def phase(run):
    names = run.outputs()
    if len(names) < 2:
        return None
    figure, axes = _axes(1, 1, 5)
    axis, table = axes[0][0], run.trajectory
    axis.plot(table[names[0] + "_observed"], table[names[1] + "_observed"], ".", color="#bbbbbb", markersize=3, label="observed")
    if np.isfinite(table[names[0] + "_truth"]).any():
        axis.plot(table[names[0] + "_truth"], table[names[1] + "_truth"], color="#000000", linewidth=0.8, label="truth")
    axis.plot(table[names[0] + "_filtered"], table[names[1] + "_filtered"], color=COLOURS[1], linewidth=0.8, label="filtered")
    axis.set(xlabel=names[0], ylabel=names[1])
    axis.legend()
    return figure


def disc(run):
    figure, axes = _axes(1, 1, 5)
    axis, table = axes[0][0], run.spectrum
    angle = np.linspace(0, 2 * np.pi, 200)
    axis.plot(np.cos(angle), np.sin(angle), color="#888888", linewidth=0.8)
    axis.scatter(table["real"], table["imaginary"], s=12 + 60 * np.nan_to_num(table["mode"]), color=COLOURS[0], alpha=0.7)
    axis.set(xlabel="real part", ylabel="imaginary part", aspect="equal")
    return figure


def horizons(run):
    figure, axes = _axes(1, 2)
    table = run.forecast
    methods = list(dict.fromkeys(table["method"]))
    for number, method in enumerate(methods):
        rows = [i for i, name in enumerate(table["method"]) if name == method]
        colour = COLOURS[number % len(COLOURS)]
        axes[0][0].semilogy(table["horizon"][rows], table["rmse"][rows], color=colour, label=method)
        if np.isfinite(table["coverage_90"][rows]).any():
            axes[0][1].plot(table["horizon"][rows], table["coverage_90"][rows], color=colour, label=method)
            axes[0][1].plot(table["horizon"][rows], table["coverage_50"][rows], color=colour, linestyle="--")
    for share in (0.5, 0.9):
        axes[0][1].axhline(share, color="#888888", linewidth=0.8)
    axes[0][0].set(xlabel="steps ahead", ylabel="error")
    axes[0][1].set(xlabel="steps ahead", ylabel="share inside the interval", ylim=(0, 1))
    axes[0][0].legend(fontsize=8)
    axes[0][1].legend(fontsize=8)
    return figure


def parameters(run):
    figure, axes = _axes(1, 1, 4)
    axis, table = axes[0][0], run.parameters
    names = [name for name in table.names if name != "step" and not name.startswith("sd_")]
    names = sorted(names, key=lambda name: -np.abs(table[name][table.n // 4 :]).max(initial=0))[:PARAMETERS]
    for number, name in enumerate(names):
        colour = COLOURS[number % len(COLOURS)]
        low, high = table[name] - 2 * table["sd_" + name], table[name] + 2 * table["sd_" + name]
        axis.fill_between(table["step"], low, high, color=colour, alpha=0.15)
        axis.plot(table["step"], table[name], color=colour, linewidth=1, label=name)
    axis.set(xlabel="step", ylabel="parameter, ± 2 deviations")
    late = np.array([table[name][table.n // 20 :] for name in names])
    if late.size:
        margin = 0.1 * (late.max() - late.min() + 1e-9)
        axis.set_ylim(late.min() - margin, late.max() + margin)
    axis.legend(fontsize=7, ncol=3)
    return figure


# ---- page


def _rows(pairs):
    return "<table>" + "".join(f"<tr><td>{text(a)}</td><td>{text(b)}</td></tr>" for a, b in pairs) + "</table>\n"


def _number(value):
    return f"{value:.4g}" if isinstance(value, (int, float)) else "–" if value is None else value


def result(run):
    shown = [(name, _number(value)) for name, value in run.summary.items()]
    methods = ""
    if run.forecast:
        table, head = run.forecast, "<tr><th>method</th><th>1 step</th><th>10 steps</th><th>last</th></tr>"
        for method in dict.fromkeys(table["method"]):
            rows = [i for i, name in enumerate(table["method"]) if name == method]
            picks = [rows[0], rows[9] if len(rows) > 9 else rows[-1], rows[-1]]
            cells = "".join(f'<td class="number">{table["rmse"][i]:.4g}</td>' for i in picks)
            methods += f"<tr><td>{text(method)}</td>{cells}</tr>"
        methods = note("Error of forecasts in units of each output's spread:") + f"<table>{head}{methods}</table>\n"
    return methods + _rows(shown)


def sections(run):
    found = [("result", "Result", result(run))]
    found.append(("learning", "Learning", picture(learning(run), "Learning", "Errors in units of the outputs' spread.")))
    if run.trajectory and run.trajectory.n:
        words = "The first steps of the test part."
        inside = picture(trajectory(run), "Trajectory", words) + picture(phase(run), "Phase portrait", words)
        found.append(("trajectory", "Trajectory", inside))
    if run.spectrum:
        words = "Eigenvalues of K, or of the transition's Jacobian in the middle of the series; area: the mode's part in the first output."
        found.append(("spectrum", "Spectrum", picture(disc(run), "Eigenvalues and the unit circle", words)))
    if run.forecast:
        words = "Left, against the horizon; right, how often the 90 % (50 %, dashed) interval holds the outcome."
        found.append(("forecasts", "Forecasts", picture(horizons(run), "Forecasts", words)))
    if run.parameters and run.parameters.n:
        found.append(("parameters", "Parameters", picture(parameters(run), "Parameters", f"The {PARAMETERS} largest of those in parameters.tsv.")))
    found.append(("configuration", "Configuration", f"<pre>{text(run.config)}</pre>\n"))
    facts = [(name, json.dumps(value)) for name, value in run.manifest.items()]
    found.append(("provenance", "Provenance", _rows(facts)))
    return found


# ---- known linear systems


def _scores(run):
    """(estimate - truth) / stated deviation of every parameter of the oscillator's transition, and of both noises."""
    import h5py

    if not re.search("kind: *['\"]?oscillator", run.config) or run.parameters is None:
        raise WorldError(f"{run.folder}: wanted a state-space model of system.kind oscillator")
    newest = sorted(glob.glob(os.path.join(run.folder, "checkpoints", "step-*.h5")))[-1]
    with h5py.File(newest, "r") as file:
        mean, scale = file["series/mean"][:], file["series/scale"][:]
    change = 0.995 * np.array([[np.cos(0.2), -np.sin(0.2)], [np.sin(0.2), np.cos(0.2)]]) - np.eye(2)
    truth = {f"dx{i + 1}_x{j + 1}": change[i, j] * scale[j] / scale[i] for i in range(2) for j in range(2)}
    truth.update({f"dx{i + 1}_1": change[i] @ mean / scale[i] for i in range(2)})
    theta = [(run.parameters[name][-1] - value) / run.parameters["sd_" + name][-1] for name, value in truth.items()]
    noise = [(run.summary["noise_log_" + k] - run.summary["true_log_" + k]) / run.summary[f"noise_log_{k}_sd"] for k in "qr"]
    return theta, noise


def recovered_text(runs):
    theta, q, r = [], [], []
    for run in runs:
        mine, (of_q, of_r) = _scores(run)
        theta += mine
        q.append(of_q)
        r.append(of_r)
    lines = ["what\tcount\tmean_z\tsd_z\tinside_50\tinside_90"]
    for name, scores in (("parameters", theta), ("process_noise", q), ("observation_noise", r), ("noises", q + r)):
        z = np.array(scores)
        inside = [(np.abs(z) <= bound).mean() for bound in (0.6745, 1.6449)]
        lines.append(f"{name}\t{len(z)}\t{z.mean():.3f}\t{z.std():.3f}\t{inside[0]:.3f}\t{inside[1]:.3f}")
    return "\n".join(lines) + "\n"
