#!/usr/bin/python3
"""Draws a run, or several beside each other, from their metrics.tsv.

usage: analysis/plot_run.py RUN [RUN ...] [-o FILE.png]     default: RUN/run.png of the first
"""
import argparse
import csv
import math
import os
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def read_metrics(run):
    path = os.path.join(run, "metrics.tsv")
    try:
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
    except OSError as error:
        sys.exit(f"plot_run: {path}: wanted a readable table, found: {error.strerror}")
    if not rows:
        sys.exit(f"plot_run: {path}: wanted at least one row, found none")
    return {name: [float(row[name]) for row in rows] for name in rows[0]}


def draw(axis, metrics, name, **style):
    pairs = [(x, y) for x, y in zip(metrics["epoch"], metrics[name]) if math.isfinite(y)]
    if pairs:
        axis.plot(*zip(*pairs), **style)
    return bool(pairs)


def panel_error(axis, runs):
    axis.set(title="error", ylabel="wrong, %", yscale="log")
    for color, (label, metrics) in runs:
        for name, style in (("train_accuracy", dict(lw=1, alpha=0.6, label=f"{label} training, before update")),
                            ("test_accuracy", dict(marker="o", label=f"{label} test"))):
            wrong = dict(metrics, **{name: [max(100 * (1 - a), 1e-3) for a in metrics[name]]})
            draw(axis, wrong, name, color=color, **style)


def panel_loss(axis, runs):
    axis.set(title="mean surprisal before the update", ylabel="nats", yscale="log")
    for color, (label, metrics) in runs:
        draw(axis, metrics, "train_loss", color=color, label=label)


def panel_consistency(axis, runs):
    axis.set(title="squared innovation / predicted (1 expected)", ylabel="NIS")
    for color, (label, metrics) in runs:
        draw(axis, metrics, "nis", color=color, label=label)
    axis.axhline(1, color="0.5", lw=0.8)


GROUPS = (("recurrence", "-"), ("hidden", "--"), ("output", ":"))


def panel_groups(axis, runs, prefix, title, ylabel):
    axis.set(title=title, ylabel=ylabel, yscale="log")
    for color, (label, metrics) in runs:
        for group, line in GROUPS:
            if any(value > 0 for value in metrics[f"{prefix}_{group}"]):
                draw(axis, metrics, f"{prefix}_{group}", color=color, ls=line, label=f"{label} {group}")


def panel_speed(axis, runs):
    axis.set(title="speed", ylabel="samples/s")
    for color, (label, metrics) in runs:
        draw(axis, metrics, "samples_per_s", color=color, label=label)
    axis.set_ylim(bottom=0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("-o", "--output", metavar="FILE.png")
    arguments = parser.parse_args()
    colors = plt.rcParams["axes.prop_cycle"].by_key()["color"]
    runs = [(colors[k % len(colors)], (os.path.basename(os.path.normpath(run)), read_metrics(run)))
            for k, run in enumerate(arguments.runs)]
    figure, axes = plt.subplots(2, 3, figsize=(16, 8.5), constrained_layout=True)
    panel_error(axes[0, 0], runs)
    panel_loss(axes[0, 1], runs)
    panel_consistency(axes[0, 2], runs)
    panel_groups(axes[1, 0], runs, "trace", "uncertainty left: trace P / trace P0", "ratio")
    panel_groups(axes[1, 1], runs, "kl", "predicted change of a step, before the trust region", "KL a sample, nats")
    panel_speed(axes[1, 2], runs)
    for axis in axes.flat:
        axis.set_xlabel("passes over the training data")
        axis.grid(alpha=0.3)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=8)
    output = arguments.output or os.path.join(arguments.runs[0], "run.png")
    figure.savefig(output, dpi=110)
    print(output)


if __name__ == "__main__":
    main()
