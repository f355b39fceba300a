"""What every figure is made of: panels of lines with their legend, in one look.

Colours are told apart in print by line style (parameter group) and marker (run); colour maps rise evenly in brightness.
"""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from kwm_runs import POINTS, groups_of

WIDTH = 7.6  # inches, a page's column
FEW = 40  # points of a line that are marked one by one
COLORS = ("#0072B2", "#D55E00", "#007A5A", "#A0468A", "#000000", "#8C6D00")
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES = ("-", "--", ":", "-.", (0, (6, 2, 1, 2, 1, 2)))
MAP = "viridis"
ROUND = (1, 2, 5, 10)  # distances of ticks, times a power of ten

plt.rcParams.update(
    {
        "font.size": 8.5,
        "axes.titlesize": 9,
        "axes.titleweight": "bold",
        "axes.grid": True,
        "grid.alpha": 0.3,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.fontsize": 8,
        "legend.frameon": False,
        "lines.linewidth": 1.3,
        "lines.markersize": 4,
        "svg.fonttype": "path",
        "svg.hashsalt": "kwm",
        "figure.facecolor": "white",
    }
)


def color_of(runs, run, group=None):
    """One run: a colour for each group; several: one for each run."""
    at = runs.index(run) if len(runs) > 1 or group is None else place_of(runs, group)
    return COLORS[at % len(COLORS)]


def place_of(runs, group):
    """Among the parameter groups; that of all together (full) is the last."""
    return [*groups_of(runs), "full"].index(group)


def dash_of(runs, group):
    return DASHES[place_of(runs, group) % len(DASHES)]


def marker_of(runs, run):
    return MARKERS[runs.index(run) % len(MARKERS)]


def short(name, length=28):
    return name if len(name) <= length else name[: length - 1] + "…"


# ---- axes and lines


class Axis:
    """Where a step lies on the horizontal axis: in steps, or in passes if the runs' batches differ."""

    def __init__(self, runs):
        self.passes = len({run.config.get("train.batch") for run in runs}) > 1
        self.label = "passes over the training data" if self.passes else "training step"

    def at(self, run, steps):
        return np.asarray(steps, dtype=float) * (run.passes_per_step() if self.passes else 1)


def thinned(x, y):
    """Of more than POINTS points their means over equal stretches, lowest and highest: x, y, low, high."""
    if len(x) <= POINTS:
        return x, y, y, y
    parts = np.array_split(np.arange(len(x)), POINTS)
    return tuple(np.array([f(v[part]) for part in parts]) for f, v in ((np.mean, x), (np.mean, y), (np.min, y), (np.max, y)))


class Panel:
    """One set of axes: lines (x, y, style), and what belongs to it. Without lines it is not drawn."""

    def __init__(self, title, ylabel, xlabel, log=False, rule=None, band=None, floor=None):
        self.title, self.ylabel, self.xlabel = title, ylabel, xlabel
        self.log, self.rule, self.band, self.floor = log, rule, band, floor
        self.lines, self.fills, self.legend, self.group_legend = [], [], {}, {}
        self.log_x = False

    def line(self, x, y, label=None, **style):
        x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
        good = np.isfinite(x) & np.isfinite(y) & ((y > 0) | (not self.log))
        if not good.any():
            return
        x, y, low, high = thinned(x[good], y[good])
        if low is not y:
            self.fill(x, low, high, style["color"])
        if len(x) <= FEW and "marker" not in style:
            style["marker"] = "."
        if len(x) > FEW and style.get("marker"):
            style.setdefault("markevery", 0.1)
        self.lines.append((x, y, style))
        if label is not None:
            shown = {k: v for k, v in style.items() if k in ("color", "ls", "marker", "lw")}
            if shown.get("marker") == ".":
                del shown["marker"]
            self.legend.setdefault(label, shown)

    def fill(self, x, low, high, color):
        self.fills.append((np.asarray(x, dtype=float), low, high, color))

    def draw(self, axes):
        axes.set(title=self.title, ylabel=self.ylabel, xlabel=self.xlabel)
        if self.band is not None:
            axes.axhspan(*self.band, color="0.88", zorder=0)
        if self.rule is not None:
            axes.axhline(self.rule, color="0.35", lw=0.8, zorder=1)
        for x, low, high, color in self.fills:
            axes.fill_between(x, low, high, color=color, alpha=0.18, lw=0)
        for x, y, style in self.lines:
            axes.plot(x, y, **style)
        keep_span(axes, [line[1] for line in self.lines], self.log)
        if self.log:
            log_axis(axes.yaxis, axes.set_yscale, [y for _, y, _ in self.lines])
        else:
            axes.yaxis.set_major_locator(MaxNLocator(6, steps=ROUND))
        if self.log_x:
            axes.set_xscale("log")
            axes.xaxis.set_minor_locator(NullLocator())
        else:
            axes.xaxis.set_major_locator(MaxNLocator(6, steps=ROUND))
            axes.set_xlim(left=0)
        if self.floor is not None:
            top = max(np.max(y) for y in [line[1] for line in self.lines] + [fill[2] for fill in self.fills]) - self.floor
            axes.set_ylim(self.floor, self.floor + 1.08 * (top if top > 0 else 1))
        entries = {**self.legend, **self.group_legend}
        legend_below(axes, [Line2D([], [], label=label, **style) for label, style in entries.items()])


def legend_below(axes, handles):
    """Under the axis label, so that it never covers a line; in as many columns as fit."""
    if len(handles) < 2:
        return
    width = WIDTH / axes.get_subplotspec().get_gridspec().ncols - 0.4  # inches
    columns = int(width / (0.48 + 0.06 * max(len(h.get_label()) for h in handles)))
    below = axes.transAxes + ScaledTranslation(0, -0.4, axes.figure.dpi_scale_trans)
    axes.legend(
        handles=handles,
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        bbox_transform=below,
        borderaxespad=0,
        ncol=max(1, min(columns, len(handles))),
        handlelength=2.6,
        columnspacing=1.2,
    )


def keep_span(axes, values, log):
    """Values that are equal but for rounding show as equal."""
    low, high = min(v.min() for v in values), max(v.max() for v in values)
    if high - low <= 1e-6 * max(abs(high), abs(low), 0 if log else 1):
        axes.set_ylim((low / 10, high * 10) if log else (low - 0.5, high + 0.5))


def log_axis(axis, set_scale, values):
    """Logarithmic, with labels even if the values span less than a decade."""
    set_scale("log")
    low, high = min(v.min() for v in values), max(v.max() for v in values)
    if 1.01 * low < high < 20 * low:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())


def figure_of(panels, columns=2, height=2.75):
    panels = [panel for panel in panels if panel.lines]
    if not panels:
        return None
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    figure = plt.figure(figsize=(WIDTH, height * rows), constrained_layout=True)
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
    for at, panel in enumerate(panels):
        panel.draw(figure.add_subplot(rows, columns, at + 1))
    return figure


def column_lines(panel, runs, name, axis, label, scale=1, **style):
    for run in runs:
        steps, values = run.column(name)
        shown = {"color": color_of(runs, run), **style}
        if len(runs) > 1:
            shown.setdefault("marker", marker_of(runs, run))
        words = label if len(runs) == 1 else f"{short(run.name)} {label}".strip()
        panel.line(axis.at(run, steps), scale * values, words, **shown)


def group_lines(panel, runs, prefix, axis, scale=1, shown=None):
    """A line for every run (of those shown) and group of the columns PREFIX_GROUP; with one exact covariance of
    everything, the first group's column stands for all."""
    for run in runs if shown is None else shown:
        for group in run.group_names:
            steps, values = run.column(f"{prefix}_{group}")
            if values.size and not (panel.log and (values <= 0).all()):
                joint = run.config.get("cov.joint") == "full" and prefix == "trace"
                group_line(panel, runs, run, "full" if joint else group, axis.at(run, steps), scale * values)


def group_line(panel, runs, run, group, x, y):
    """Several runs: the legend names runs by colour and marker, groups by line style."""
    color = color_of(runs, run, group)
    if len(runs) == 1:
        panel.line(x, y, group, color=color, ls=dash_of(runs, group))
        return
    style = dict(color=color, marker=marker_of(runs, run))
    panel.line(x, y, None, ls=dash_of(runs, group), **style)
    panel.legend.setdefault(short(run.name), dict(lw=2, **style))
    panel.group_legend.setdefault(group, dict(color="0.3", ls=dash_of(runs, group)))
