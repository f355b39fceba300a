"""Figures of one run, or of several laid over each other. Every function takes runs and returns a figure, or None if the
runs hold nothing for it.
"""

import numpy as np
from matplotlib.colors import LogNorm, Normalize
from matplotlib.ticker import MaxNLocator

from kwm_panel import (
    COLORS,
    MAP,
    ROUND,
    WIDTH,
    Axis,
    Panel,
    color_of,
    column_lines,
    figure_of,
    group_line,
    group_lines,
    legend_below,
    marker_of,
    plt,
    short,
)
from kwm_runs import correlation

COLUMNS = 200  # of a heat map
BAND = 1.96  # 95 % of a standard normal

# ---- learning


def learning(runs):
    axis = Axis(runs)
    error = Panel("Wrong answers", "wrong, %", axis.label, log=True)
    loss = Panel("Surprisal before the update", "mean surprisal, nats a sample", axis.label, log=True)
    for run in runs:
        for name, label, style in (
            ("train_accuracy", "training, before update", {}),
            ("valid_accuracy", "validation", dict(marker="D", ls="--")),
            ("test_accuracy", "test", dict(marker=marker_of(runs, run), ms=6, ls=":")),
        ):
            steps, values = run.column(name)
            color = color_of(runs, run) if len(runs) > 1 or name[1] != "e" else COLORS[1]
            words = label if len(runs) == 1 else f"{short(run.name, 16)}, {label.split(',')[0]}"
            error.line(axis.at(run, steps), np.maximum(100 * (1 - values), 1e-3), words, color=color, **style)
    column_lines(loss, runs, "train_loss", axis, "")
    return figure_of([error, loss])


def steps(runs):
    axis = Axis(runs)
    kl = Panel("Predicted change of a step", "KL a sample, nats", axis.label, log=True)
    scale = Panel("Share of the step applied", "share (1: whole step)", axis.label, floor=0)
    group_lines(kl, runs, "kl", axis)
    group_lines(scale, runs, "scale", axis, shown=[run for run in runs if run.filters()])
    return figure_of([kl, scale])


def noises(runs):
    axis = Axis(runs)
    process = Panel("Process noise q (Q = q P₀ a step)", "q", axis.label, log=True)
    group_lines(process, runs, "q", axis)
    noise = Panel("Scale of the observation noise", "ρ in R = ρ I", axis.label, rule=1)
    varied = [run for run in runs if np.ptp(run.column("noise")[1]) > 0] if all(r.has("noise") for r in runs) else []
    column_lines(noise, varied, "noise", axis, "")
    return figure_of([process, noise])


def speed(runs):
    axis = Axis(runs)
    rate = Panel("Speed", "samples a second", axis.label, floor=0)
    comm = Panel("Time in communication or waiting", "share of the time, %", axis.label, floor=0)
    column_lines(rate, runs, "samples_per_s", axis, "")
    column_lines(comm, runs, "comm_fraction", axis, "", scale=100)
    return figure_of([rate, comm], height=2.3)


# ---- consistency


def nis(runs):
    axis = Axis(runs)
    ratio = Panel("Squared innovation over expectation (NIS)", "ratio (1 expected)", axis.label, rule=1)
    column_lines(ratio, runs, "nis", axis, "")
    chi2 = Panel("eᵀS⁻¹e per degree of freedom, 95 % band", "ratio (1 expected)", axis.label, rule=1)
    column_lines(chi2, runs, "chi2", axis, "")
    for run in runs:
        at, low = run.column("chi2_low")
        if low.size:
            chi2.fill(axis.at(run, at), low, run.column("chi2_high")[1], color_of(runs, run))
    return figure_of([ratio, chi2])


def scores(runs):
    axis = Axis(runs)
    surprisal = Panel("Score of the surprisal, band ±2", "standard deviations", axis.label, rule=0, band=(-2, 2))
    column_lines(surprisal, runs, "surprisal_z", axis, "")
    score = Panel("Successive scores so far, band ±2", "standard deviations", axis.label, rule=0, band=(-2, 2))
    column_lines(score, runs, "score_z", axis, "")
    return figure_of([surprisal, score])


SKIPS = (
    ("skipped_not_finite", "not finite", "-"),
    ("skipped_indefinite", "not positive definite", "--"),
    ("skipped_gated", "gated", ":"),
)


def reliability(runs):
    axis = Axis(runs)
    calibration = Panel("Calibration error", "|confidence − accuracy|, %", axis.label, floor=0)
    column_lines(calibration, runs, "calibration_error", axis, "", scale=100)
    skipped = Panel("Skipped steps so far", "steps", axis.label, floor=0)
    some = [run for run in runs if np.any(run.column("skipped")[1] > 0)]
    for at, (name, label, dash) in enumerate(SKIPS):
        shown = [run for run in some if np.any(run.column(name)[1] > 0)]
        style = dict(color=COLORS[at]) if len(runs) == 1 else {}
        for run in shown:
            words = label if len(runs) == 1 else f"{short(run.name, 16)}, {label}"
            at_steps, values = run.column(name)
            skipped.line(axis.at(run, at_steps), values, words, ls=dash, **(style or dict(color=color_of(runs, run))))
    return figure_of([calibration, skipped])


def _stems(axes, runs, found, xlabel, title):
    axes.set(title=title, xlabel=xlabel, ylabel="autocorrelation")
    axes.axhline(0, color="0.35", lw=0.8)
    for run, (values, count) in found:
        lag = np.arange(1, len(values) + 1) + 0.22 * (runs.index(run) - (len(runs) - 1) / 2)
        color = color_of(runs, run)
        axes.vlines(lag, 0, values, color=color, lw=1.2)
        axes.plot(lag, values, ls="", marker=marker_of(runs, run), color=color, label=short(run.name))
    for run, (values, count) in found:
        bound = BAND / np.sqrt(count)
        for sign in (-1, 1):
            axes.axhline(sign * bound, color=color_of(runs, run) if len(runs) > 1 else "0.35", lw=1, ls="--")
    most = max(len(values) for _, (values, _) in found)
    extent = max(max(np.abs(values).max(), BAND / np.sqrt(count)) for _, (values, count) in found)
    axes.set(xlim=(0.3, most + 0.7), ylim=(-1.15 * extent, 1.15 * extent))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=ROUND))
    if len(runs) > 1:
        legend_below(axes, axes.get_legend_handles_labels()[0])


def autocorrelation(runs):
    rows = [(run, correlation(run.column("surprisal_z")[1])) for run in runs]
    each = [(run, run.step_correlation) for run in runs]
    parts = [
        ([f for f in rows if f[1] is not None], "lag, rows of metrics.tsv", "Score of the surprisal, row by row"),
        ([f for f in each if f[1] is not None], "lag, steps", "Score of the surprisal, step by step"),
    ]
    parts = [part for part in parts if part[0]]
    if not parts:
        return None
    figure, axes = plt.subplots(1, len(parts), figsize=(WIDTH, 2.6), constrained_layout=True, squeeze=False)
    for axis, (found, xlabel, title) in zip(axes[0], parts):
        _stems(axis, runs, found, xlabel, title)
    return figure


# ---- covariance


def trace(runs):
    axis = Axis(runs)
    panel = Panel("Uncertainty left: trace P / trace P₀", "share of the prior's", axis.label, log=True)
    group_lines(panel, runs, "trace", axis)
    return figure_of([panel], height=3.0)


def _chosen(series, most=5):
    """A few of the series, the first and the last among them."""
    return [series[at] for at in np.unique(np.round(np.linspace(0, len(series) - 1, most)).astype(int))]


LEAST_GAIN = 1e-6  # of a spectrum; below it rounding shows
DECAY_DASHES = ((0, (1, 1)), (0, (1, 2.5)), "-.", "--", "-")


def _decay_lines(panels, runs, run, group):
    series = run.spectrum_series(group)
    shown = _chosen(series) if len(runs) == 1 else series[-1:]
    for at, (step, spectrum) in enumerate(shown):
        if len(runs) == 1:
            place = at / max(len(shown) - 1, 1)
            style = dict(color=plt.get_cmap(MAP)(0.85 * (1 - place)), ls=DECAY_DASHES[at - len(shown)])
            label = f"step {step}"
        else:
            style = dict(color=color_of(runs, run), marker=marker_of(runs, run), markevery=0.12)
            label = f"{short(run.name, 18)}, step {step}"
        panels[0].line(spectrum.place, spectrum.value, label, **{"marker": "", **style})
        gain = np.where(spectrum.value < 1 - LEAST_GAIN, 1 - spectrum.value, np.nan)
        panels[1].line(spectrum.place, gain, None, **{"marker": "", **style})


def decay(runs, group):
    """Eigenvalues and the gain spectrum of one group."""
    xlabel = "direction, best known first"
    left = Panel(f"{group}: variance left", "eigenvalue of P in units of P₀", xlabel, log=True, rule=1)
    gained = Panel(f"{group}: gain spectrum", "1 − eigenvalue", xlabel, log=True)
    left.log_x = gained.log_x = True
    for run in runs:
        if run.spectrum_series(group):
            _decay_lines((left, gained), runs, run, group)
    gained.legend = left.legend
    return figure_of([left, gained])


def _edges(x):
    middle = (x[1:] + x[:-1]) / 2
    first = max(x[0] - (x[1] - x[0]) / 2, 0)
    return np.concatenate([[first], middle, [x[-1] + (x[-1] - x[-2]) / 2]])


def _heat(axes, x, rows, values, norm, **words):
    """values (rows, columns) over x."""
    mesh = axes.pcolormesh(_edges(np.asarray(x, dtype=float)), rows, values, cmap=MAP, norm=norm, shading="flat", rasterized=True)
    axes.set(**words)
    axes.grid(False)
    axes.minorticks_off()
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=ROUND))
    axes.spines[:].set_visible(False)
    return mesh


def _spread(length, most):
    return np.unique(np.round(np.linspace(0, length - 1, min(length, most))).astype(int))


def _log_norm(arrays, top=None):
    values = np.concatenate([a.ravel() for a in arrays])
    values = values[values > 0]
    low = values.min() if values.size else 1e-3
    high = max(top or 0, values.max() if values.size else 1)
    return LogNorm(min(low, high / 2), high)


def _heat_parts(run):
    """[(group, steps, places, (places, t))] of the groups with more than one spectrum of the same number of directions."""
    parts = []
    for group in run.groups():
        series = run.spectrum_series(group)
        series = [(step, s) for step, s in series if s.count == series[-1][1].count]
        if len(series) > 1:
            kept = [series[at] for at in _spread(len(series), COLUMNS)]
            parts.append((group, [step for step, _ in kept], kept[-1][1].place, np.stack([s.value for _, s in kept], axis=1)))
    return parts


def heat(runs, run):
    """Eigenvalues of all directions over time, a panel for each group; all runs in the same colours."""
    parts = _heat_parts(run)
    if not parts:
        return None
    figure, axes = plt.subplots(1, len(parts), figsize=(WIDTH, 2.9), constrained_layout=True, squeeze=False)
    norm = _log_norm([part[3] for other in runs for part in _heat_parts(other)], top=1)
    for axis, (group, x, place, values) in zip(axes[0], parts):
        edges = np.sqrt(place[1:] * place[:-1])
        edges = np.concatenate([[place[0]], edges, [place[-1]]])
        mesh = _heat(axis, x, edges, np.maximum(values, norm.vmin), norm, title=group, xlabel="training step", yscale="log")
    axes[0][0].set_ylabel("direction, best known first")
    figure.colorbar(mesh, ax=list(axes[0]), label="variance left (1: as the prior)", pad=0.02).minorticks_off()
    return figure


def _over_blocks(series, name):
    """(t, blocks) of one fact."""
    blocks = series[-1][1].facts[name].size
    kept = [(step, s) for step, s in series if s.facts[name].size == blocks]
    return np.array([step for step, _ in kept]), np.stack([s.facts[name] for _, s in kept])


def known(runs):
    """Effective rank, effective parameters, directions known, condition, over time."""
    axis = Axis(runs)
    rank = Panel("Effective rank of a block", "% of its directions", axis.label)
    parameters = Panel("Effective parameters of a group", "Σ(1 − eigenvalue), % of all", axis.label)
    share = Panel("Directions known better than half", "% of all", axis.label, floor=0)
    condition = Panel("Condition of the worst block's P", "largest / smallest", axis.label, log=True)
    for run in runs:
        for group in run.groups():
            series = run.spectrum_series(group)
            steps_, ranks = _over_blocks(series, "effective_rank")
            x = axis.at(run, steps_)
            ranks = 100 * ranks / series[-1][1].width
            group_line(rank, runs, run, group, x, np.median(ranks, axis=1))
            if ranks.shape[1] > 1 and len(runs) == 1:
                rank.fill(x, ranks.min(axis=1), ranks.max(axis=1), color_of(runs, run, group))
            number = np.sum(_over_blocks(series, "effective_parameters")[1], axis=1)
            group_line(parameters, runs, run, group, x, 100 * number / series[-1][1].count)
            group_line(condition, runs, run, group, x, np.max(_over_blocks(series, "condition")[1], axis=1))
            group_line(share, runs, run, group, x, 100 * np.mean(_over_blocks(series, "known")[1], axis=1))
    return figure_of([rank, parameters, share, condition])


# ---- gain


def gain_share(runs):
    axis = Axis(runs)
    panel = Panel("Share of each group in the gain of its time", "share of Σ δᵀP₀⁻¹δ, %", axis.label, floor=0)
    group_lines(panel, runs, "gain", axis, scale=100)
    return figure_of([panel], height=3.0)


def gain_blocks(runs):
    """Every block's share of its group's gain, sorted, for groups of more than one block."""
    panel = Panel("Gain of each block, sorted", "share of the group's gain, %", "block, most gain first", floor=0)
    for run in runs:
        for group in run.group_names:
            _, gain = run.gain_series(group)
            if len(gain) and gain.shape[1] > 1 and gain[-1].sum() > 0:
                last = np.sort(gain[-1])[::-1]
                group_line(panel, runs, run, group, np.arange(1, last.size + 1), 100 * last / last.sum())
    return figure_of([panel], height=2.8)


def _block_panels(run, group):
    """[(title, colour bar, steps, (blocks, t))] of one group of several blocks."""
    found = []
    series = run.spectrum_series(group)
    if len(series) > 1:
        steps_, ranks = _over_blocks(series, "effective_rank")
        found.append(("Effective rank", "directions", steps_, ranks.T, False))
    steps_, gain = run.gain_series(group)
    if len(gain) > 1:
        rate = np.diff(gain, axis=0) / np.diff(steps_)[:, None]
        found.append(("Gain between checkpoints", "δᵀP₀⁻¹δ a step", steps_[1:], rate.T, True))
    return [part for part in found if part[3].shape[0] > 1 and part[3].shape[1] > 1]


def blocks(run, group):
    """Effective rank and gain of every block over time; both in the order of the last effective rank, or gain."""
    parts = _block_panels(run, group)
    if not parts:
        return None
    order = np.argsort(parts[0][3][:, -1], kind="stable")
    figure, axes = plt.subplots(1, len(parts), figsize=(WIDTH, 3.0), constrained_layout=True, squeeze=False)
    for axis, (title, label, x, values, log) in zip(axes[0], parts):
        at, rows = _spread(len(x), COLUMNS), _spread(len(order), COLUMNS)
        shown = values[order][np.ix_(rows, at)]
        norm = _log_norm([shown]) if log else Normalize(shown.min(), max(shown.max(), shown.min() + 1e-9))
        if log:
            shown = np.maximum(shown, norm.vmin)
        edges = np.linspace(0, len(order), len(rows) + 1)
        mesh = _heat(axis, x[at], edges, shown, norm, title=title, xlabel="training step")
        figure.colorbar(mesh, ax=axis, label=label, pad=0.02).minorticks_off()
    axes[0][0].set_ylabel(f"blocks of {group}, sorted")
    return figure
