"""Figures of runs on a stream of tasks, and of a sensitivity table."""

import math
import textwrap

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from kwm_panel import COLORS, MAP, MARKERS, ROUND, WIDTH, Axis, Panel, group_lines, legend_below, plt, short
from kwm_tasks import TASK_LINES, best_of, kinds_of, labels_of

NUMBERED = 12  # tasks up to which a matrix's cells hold numbers
FEW = 40  # tasks up to which lines have marks
DEEP = 12.0  # points below the best that a sensitivity panel shows at most
GREY = "0.9"
SWITCH = dict(color="0.55", lw=0.7)
CHANGE = dict(color=COLORS[1], marker="v", ms=5, ls="")


def _whole_numbers(axis):
    axis.set_major_locator(MaxNLocator(6, integer=True, steps=ROUND, min_n_ticks=1))


# ---- accuracies


def _norm(runs):
    """Colours from the least to the largest accuracy of a task that was learned, of all runs."""
    values = np.concatenate([run.tasks.seen[np.isfinite(run.tasks.seen)] for run in runs])
    if not values.size:
        return plt.Normalize(0, 100)
    low, high = 100 * values.min(), 100 * values.max()
    return plt.Normalize(low, max(high, low + 0.1))


def _cell_numbers(axes, tasks, norm):
    for t, i in zip(*np.nonzero(np.isfinite(tasks.accuracy))):
        value = 100 * tasks.accuracy[t, i]
        learned = i < t
        dark = learned and norm(value) < 0.55
        color = "white" if dark else "black" if learned else "0.4"
        axes.text(i + 1, t, f"{value:.1f}", ha="center", va="center", color=color, fontsize=7.5 if learned else 7)


def _title(runs, run):
    return short(labels_of(runs)[run], 90) if len(runs) > 1 else ""


def matrix(runs, run):
    """Accuracy on every task after every task."""
    tasks, norm = run.tasks, _norm(runs)
    rows = min(0.27 * (tasks.count + 1), 5.0)
    figure, axes = plt.subplots(figsize=(WIDTH, 0.85 + rows), constrained_layout=True)
    shown = 100 * np.ma.masked_invalid(tasks.seen)
    extent = (0.5, tasks.count + 0.5, tasks.count + 0.5, -0.5)
    axes.set_facecolor(GREY)
    mesh = axes.imshow(shown, cmap=MAP, norm=norm, aspect="auto", extent=extent, interpolation="nearest")
    if tasks.count <= NUMBERED:
        _cell_numbers(axes, tasks, norm)
        axes.set_xticks(range(1, tasks.count + 1))
        axes.set_yticks(range(tasks.count + 1))
    else:
        _whole_numbers(axes.xaxis)
        _whole_numbers(axes.yaxis)
    axes.set(xlabel="task", ylabel="tasks learned", title=_title(runs, run))
    axes.grid(False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.colorbar(mesh, ax=axes, label="test accuracy, %", pad=0.02).minorticks_off()
    return figure


def over_stream(runs):
    """Accuracy of every task from where it was learned, a panel for each run; of very many tasks some."""
    runs = [run for run in runs if run.tasks.done > 0]
    if not runs:
        return None
    columns = min(2, len(runs))
    lines = -(-len(runs) // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(WIDTH, 2.5 * lines), sharey=True, squeeze=False, constrained_layout=True
    )
    labels, most = labels_of(runs), max(run.tasks.count for run in runs)
    colors, norm = plt.get_cmap(MAP), plt.Normalize(1, max(most / 0.88, 2))
    for axis, run in zip(axes.flat, runs):
        tasks = run.tasks
        marker = "." if tasks.count <= FEW else ""
        for i in np.unique(np.round(np.linspace(0, tasks.done - 1, min(tasks.done, TASK_LINES))).astype(int)):
            at = np.arange(tasks.count + 1)
            good = np.isfinite(tasks.seen[:, i])
            axis.plot(at[good], 100 * tasks.seen[good, i], color=colors(norm(i + 1)), lw=1.1, marker=marker, ms=5)
        axis.set_title(short(labels[run], 90) if columns == 1 else textwrap.fill(short(labels[run], 88), 44), fontsize=8)
        axis.set(xlim=(0.5, tasks.count + 0.5), xlabel="tasks learned")
        _whole_numbers(axis.xaxis)
    for axis in axes[:, 0]:
        axis.set_ylabel("test accuracy, %")
    for axis in axes.flat[len(runs) :]:
        axis.set_visible(False)
    if most > 1:
        _task_colors(figure, axes, most, colors, norm)
    return figure


def _task_colors(figure, axes, most, colors, norm):
    edges = np.arange(0.5, most + 1)
    steps = plt.matplotlib.colors.ListedColormap([colors(norm(i + 1)) for i in range(most)])
    scale = plt.cm.ScalarMappable(plt.matplotlib.colors.BoundaryNorm(edges, most), steps)
    bar = figure.colorbar(scale, ax=axes, label="task", pad=0.02, aspect=14 * len(axes))
    bar.set_ticks(sorted({1, most, *np.round(np.linspace(1, most, 5)).astype(int)}))
    bar.minorticks_off()


def _run_styles(runs):
    """A colour for each kind of run, a marker for each of its runs."""
    styles = {}
    for at, (_, members) in enumerate(kinds_of(runs)):
        for nth, run in enumerate(members):
            styles[run] = dict(color=COLORS[at % len(COLORS)], marker=MARKERS[(nth + at // len(COLORS)) % len(MARKERS)])
    return styles


def curves(runs):
    """Average accuracy, plasticity and forgetting against the number of tasks; several runs share one legend."""
    parts = (
        ("average_accuracy", "Average over the tasks seen", "test accuracy, %"),
        ("plasticity", "Right after learning (plasticity)", "test accuracy, %"),
        ("forgetting", "Forgetting", "points of accuracy"),
    )
    labels, styles, panels = labels_of(runs), _run_styles(runs), []
    for name, title, ylabel in parts:
        panel = Panel(title, ylabel, "tasks learned", rule=0 if name == "forgetting" else None)
        for run in runs:
            if name in run.tasks.scores:
                panel.line(run.tasks.learned, 100 * run.tasks.scores[name], None, **styles[run])
        panels.append(panel)
    panels = [panel for panel in panels if panel.lines]
    if not panels:
        return None
    lines, columns = (2, 2) if len(runs) > 1 else (1, len(panels))
    figure, axes = plt.subplots(lines, columns, figsize=(WIDTH, 2.4 * lines), squeeze=False, constrained_layout=True)
    for panel, axis in zip(panels, axes.flat):
        panel.draw(axis)
        axis.set_xlim(0.5, max(line[0].max() for other in panels for line in other.lines) + 0.5)
        _whole_numbers(axis.xaxis)
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    if len(runs) > 1:
        handles = [Line2D([], [], label=short(labels[run], 54), **styles[run]) for run in runs]
        axes.flat[-1].legend(handles=handles, loc="center left", borderaxespad=0)
    return figure


# ---- along the stream


def _stream_panels(run):
    axis = Axis([run])
    nis = Panel("", "NIS (1 expected)", axis.label, rule=1)
    loss = Panel("", "surprisal, nats", axis.label, log=True)
    left = Panel("", "trace P / trace P₀", axis.label, log=True)
    for panel, name in ((nis, "nis"), (loss, "train_loss")):
        panel.line(*run.column(name), None, color=COLORS[0])
    group_lines(left, [run], "trace", axis)
    titles = ("Squared innovation over expectation", "Surprisal before the update", "Uncertainty left in each layer")
    return [(title, panel) for title, panel in zip(titles, (nis, loss, left)) if panel.lines]


def _mark_tasks(axis, run, blended):
    for step in run.tasks.switches:
        if blended:
            axis.axvspan(step - blended, step + blended, color=GREY, zorder=0)
        axis.axvline(step, zorder=1, **SWITCH)


def _number_tasks(axis, run, last):
    """Their numbers above the axes, as many as fit."""
    starts = np.array([0, *run.tasks.switches])
    ends = np.array([*run.tasks.switches, max(last, starts[-1])])
    every = -(-len(starts) // 20)
    for at in range(0, len(starts), every):
        place = ((starts[at] + ends[at]) / 2, 1)
        axis.annotate(f"{at + 1}", place, (0, 2), ("data", "axes fraction"), "offset points", ha="center", color="0.35")
    axis.annotate("task", (0, 1), (-4, 2), "axes fraction", "offset points", ha="right", color="0.35")


def stream(runs, run):
    """NIS, surprisal and what is left of the uncertainty over the steps, with switches and changes reported."""
    panels = _stream_panels(run)
    if not panels:
        return None
    figure, axes = plt.subplots(
        len(panels), 1, figsize=(WIDTH, 1.75 * len(panels) + 0.4), sharex=True, squeeze=False, constrained_layout=True
    )
    last, blended = run.metrics["step"].max(), run.blended()
    handles = [Line2D([], [], label="task switch", **SWITCH)] if run.tasks.switches.size else []
    handles += [Patch(color=GREY, label="one task gives way to the next")] if blended else []
    handles += [Line2D([], [], label="change reported", **CHANGE)] if run.tasks.changes.size else []
    for axis, (title, panel) in zip(axes[:, 0], panels):
        layers, panel.legend = panel.legend, {}
        handles += [Line2D([], [], label=label, **style) for label, style in layers.items()]
        panel.draw(axis)
        axis.set_title(title, loc="left", pad=14 if axis is axes[0, 0] else None)
        axis.set(xlim=(0, last))
        _mark_tasks(axis, run, blended)
        if axis is not axes[-1, 0]:
            axis.set_xlabel("")
        if panel is panels[0][1] and run.tasks.changes.size:
            top = np.full(len(run.tasks.changes), 0.97)
            axis.plot(run.tasks.changes, top, transform=axis.get_xaxis_transform(), clip_on=False, **CHANGE)
    _number_tasks(axes[0, 0], run, last)
    if len(runs) > 1:
        figure.suptitle(_title(runs, run), fontsize=9)
    legend_below(axes[-1, 0], handles)
    return figure


# ---- sensitivity


def _places(values):
    """Positions on an axis of logarithms, and where 0 goes: left of the least."""
    logs = [math.log10(value) for value in values if value > 0] or [0.0]
    zero = min(logs) - max(0.5, 0.2 * (max(logs) - min(logs)))
    return {value: math.log10(value) if value > 0 else zero for value in values}


def _finite(pairs, column):
    numbers = np.array([pair[column] for pair in pairs])
    return numbers[np.isfinite(numbers)]


def _sensitive(axis, values, column, limits):
    """Mean and range over seeds; beyond the limits a triangle, where a seed gave no number a cross."""
    place, low, high = _places(values), *limits
    good = {value: _finite(pairs, column) for value, pairs in values.items()}
    drawn = [value for value in good if good[value].size]
    at, mean = [place[value] for value in drawn], [good[value].mean() for value in drawn]
    axis.fill_between(at, [good[v].min() for v in drawn], [good[v].max() for v in drawn], color=COLORS[0], alpha=0.2, lw=0)
    axis.plot(at, mean, color=COLORS[0], marker="o")
    marks = (
        ([x for x, y in zip(at, mean) if y < low], 0.06, "v"),
        ([x for x, y in zip(at, mean) if y > high], 0.94, "^"),
        ([place[value] for value in values if good[value].size < len(values[value])], 0.06, "x"),
    )
    for x, y, marker in marks:
        axis.plot(x, np.full(len(x), y), transform=axis.get_xaxis_transform(), color=COLORS[1], marker=marker, ls="", ms=6)
    axis.set_ylim(low, high)


def _ticks(axis, values):
    place = _places(values)
    width = max(place.values()) - min(place.values()) or 1
    kept = []
    for value in place:
        if not kept or place[value] - place[kept[-1]] > 0.13 * width:
            kept.append(value)
    axis.set_xticks([place[value] for value in kept], [f"{value:g}" for value in kept])
    axis.set_xticks(list(place.values()), minor=True)
    axis.set_xlim(min(place.values()) - 0.08 * width, max(place.values()) + 0.08 * width)


def _limits(table, best):
    """Of accuracy: from at most DEEP points below the best; of forgetting: what these settings have."""
    each = [(_finite(pairs, 0), _finite(pairs, 1)) for values in table.values() for pairs in values.values()]
    near = [(a.min(), f) for a, f in each if a.size and a.mean() >= best - DEEP]
    least = min([a for a, _ in near], default=best)
    lost = np.concatenate([[0.0], *[f for _, f in near]])
    margin = 0.08 * (np.ptp(lost) or 1)
    return (min(least - 0.3, best - 1.5), best + 0.5), (lost.min() - margin, lost.max() + margin)


def sensitivity(table):
    """Two panels for each key: accuracy above, forgetting below; None without a number."""
    best = best_of(table)
    if math.isnan(best):
        return None
    columns = min(3, len(table))
    lines = -(-len(table) // columns)
    figure, axes = plt.subplots(
        2 * lines,
        columns,
        figsize=(WIDTH, 3.2 * lines),
        squeeze=False,
        constrained_layout=True,
        gridspec_kw=dict(height_ratios=[2, 1.1] * lines),
    )
    limits = _limits(table, best)
    upper, lower = axes[0::2].ravel(), axes[1::2].ravel()
    for at, (key, values) in enumerate(table.items()):
        for column, axis in enumerate((upper[at], lower[at])):
            _sensitive(axis, values, column, limits[column])
            _ticks(axis, values)
        upper[at].axhspan(best - 1, best, color="0.88", zorder=0)
        upper[at].set_title(key)
        upper[at].tick_params(labelbottom=False)
        lower[at].set_xlabel("value (logarithmic)")
        if at % columns == 0:
            upper[at].set_ylabel("average accuracy, %")
            lower[at].set_ylabel("forgetting, points")
    for axis in [*upper[len(table) :], *lower[len(table) :]]:
        axis.axis("off")
    return figure
