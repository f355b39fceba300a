"""What is said of runs on a stream of tasks: how runs are called, which belong together, their scores, the list of their
pictures, and the sensitivity table. kwm_task_plots.py draws.
"""

import csv
import math

import numpy as np

from kwm_page import note, picture, text
from kwm_runs import RunError

SEEDS = ("seed", "stream.seed")
OWN = ("sgd", "adam", "kfac", "ewc", "si", "filter", "cov")  # sections that only some learners read
SPEAKS = {"kalman": ("filter", "cov"), "ewc": ("adam", "ewc"), "si": ("adam", "si")}  # others: the section of their name
SCORES = {
    "average_accuracy": "average accuracy, %",
    "forgetting": "forgetting, points",
    "forgetting_best": "forgetting from the best, points",
    "backward_transfer": "backward transfer, points",
    "forward_transfer": "forward transfer, points",
    "plasticity": "plasticity, %",
}
MEANING = (
    "After the last task learned, on test data. Average accuracy: over the tasks seen. Forgetting: lost since a task was "
    "learned, or since it was best, mean over all but the last. Backward transfer: gained since. Forward transfer: above the "
    "untrained network just before a task is learned. Plasticity: accuracy right after learning a task."
)
TASK_LINES = 20  # tasks that are drawn as lines at most
SENSITIVITY = ("key", "value", "seed", "average_accuracy", "forgetting")


# ---- names and groups


def learner_of(run):
    return run.config.get("learner", "kalman")


def _read_by(run, key):
    section = key.partition(".")[0]
    return section not in OWN or section in SPEAKS.get(learner_of(run), (learner_of(run),))


def _unlike(runs, run):
    """Keys that tell the run from another: of sections that both read."""
    keys = [key for key in run.config if key not in ("output", "learner")]
    others = [other for other in runs if other is not run and other.config]
    unlike = []
    for key in keys:
        values = {other.config.get(key) for other in others if _read_by(run, key) and _read_by(other, key)}
        if values - {run.config[key]}:
            unlike.append(key)
    if set(SEEDS) <= set(unlike) and all(other.config.get(SEEDS[0]) == other.config.get(SEEDS[1]) for other in runs):
        unlike.remove(SEEDS[1])
    return unlike


def _label(runs, run, seeds):
    keys = [key for key in _unlike(runs, run) if seeds or key not in SEEDS]
    last = [key.rpartition(".")[2] for key in keys]
    short = [name if last.count(name) == 1 and name != "seed" else key for key, name in zip(keys, last)]
    return ", ".join([learner_of(run)] + [f"{name} {run.config[key]}" for name, key in zip(short, keys)])


def labels_of(runs):
    """{run: learner and what differs}, with the folder's name where that does not tell runs apart."""
    found = {run: _label(runs, run, True) for run in runs}
    same = [run for run in runs if list(found.values()).count(found[run]) > 1 or not run.config]
    return {run: f"{label} ({run.name})" if run in same and len(runs) > 1 else label for run, label in found.items()}


def kinds_of(runs):
    """[(label, runs)]: together are runs whose configurations differ in seeds only and that got equally far."""
    kinds = {}
    for at, run in enumerate(runs):
        rest = tuple(sorted(item for item in run.config.items() if item[0] not in (*SEEDS, "output"))) or at
        kinds.setdefault((rest, run.tasks.done), []).append(run)
    return [(_label(runs, members[0], False), members) for members in kinds.values()]


# ---- scores


def mean_spread(values):
    """Mean and standard deviation (n - 1) of what is finite; NaN of nothing, and of one value's deviation."""
    good = np.asarray(values, dtype=float)
    good = good[np.isfinite(good)]
    return good.mean() if good.size else math.nan, good.std(ddof=1) if good.size > 1 else math.nan


def score_rows(runs):
    """[(label, runs, {score: (mean, spread)})] in percent and points: each kind, and its runs if they are several."""
    labels, rows = labels_of(runs), []
    for label, members in kinds_of(runs):
        one = [(labels[run], [run]) for run in members]
        for words, some in ([(label, members)] + one) if len(members) > 1 else one:
            scores = {name: mean_spread([100 * run.tasks.score(name) for run in some]) for name in SCORES}
            rows.append((words, some, scores))
    return rows


def _number(mean, spread):
    if math.isnan(mean):
        return "not measured"
    return f"{mean:.2f}" if math.isnan(spread) else f"{mean:.2f} ± {spread:.2f}"


def score_table(runs):
    rows = []
    for label, some, scores in score_rows(runs):
        tasks = f"{some[0].tasks.done} of {some[0].tasks.count}"
        cells = "".join(
            f'<td class=number data-score="{name}" data-mean="{mean:.10g}">{_number(mean, spread)}</td>'
            for name, (mean, spread) in scores.items()
        )
        names = text(", ".join(run.name for run in some))
        label = f"<b>{text(label)}</b>" if len(some) > 1 else text(label)
        rows.append(
            f'<tr><td style="white-space:normal">{label}<br><small>{names}</small></td>'
            f"<td class=number>{tasks}</td>{cells}</tr>"
        )
    heads = "".join(f"<th>{words}</th>" for words in ("learner and runs", "tasks", *SCORES.values()))
    several = " Bold: mean ± standard deviation over runs that differ in their seeds only." if len(rows) > len(runs) else ""
    return f"<table><tr>{heads}</tr>\n{''.join(rows)}</table>\n" + note(MEANING + several)


def score_text(runs):
    """The same as a table of tabs."""
    lines = ["\t".join(["learner", "runs", "tasks"] + [f"{name}\t{name}_sd" for name in SCORES])]
    for label, some, scores in score_rows(runs):
        numbers = [f"{value:.6g}" for pair in scores.values() for value in pair]
        lines.append("\t".join([label, ",".join(run.name for run in some), str(some[0].tasks.done), *numbers]))
    return "\n".join(lines) + "\n"


# ---- pictures


def found_words(run):
    """How well the changes reported meet the switches."""
    tasks = run.tasks
    if float(run.config.get("change.threshold", math.nan)) == 0:
        return "Change detection was off."
    if not tasks.switches.size:
        return f"No switch yet; {tasks.changes.size} changes reported."
    delays, left = tasks.detections(run.blended())
    after = np.median(delays) if delays else 0
    when = f", {abs(after):.3g} steps {'before' if after < 0 else 'after'} it (median)" if delays else ""
    return f"{len(delays)} of {tasks.switches.size} switches reported{when}; {len(left)} other reports."


def pictures(runs):
    """(file, title, caption, figure, raster) one after the other."""
    import kwm_task_plots as plots  # takes a second that an error need not wait for

    labels = labels_of(runs)
    yield (
        "scores",
        "Learned and kept",
        "After each number of tasks, over the tasks seen so far. Forgetting: accuracy lost since each was learned.",
        plots.curves(runs),
        False,
    )
    yield (
        "tasks",
        "Every task over the stream",
        "Each line begins where its task was learned; flat is remembered."
        + (f" {TASK_LINES} of the tasks." if any(run.tasks.done > TASK_LINES for run in runs) else ""),
        plots.over_stream(runs),
        False,
    )
    for at, run in enumerate(runs):
        whose, file = ("", "") if len(runs) == 1 else (f": {labels[run]}", f"-{at + 1}")
        yield (
            f"matrix{file}",
            f"Accuracy after each task{whose}",
            "Test accuracy, %. Grey: tasks not learned yet, with what they score nevertheless where that was measured."
            + (" All runs share the colours." if len(runs) > 1 else ""),
            plots.matrix(runs, run),
            True,
        )
        yield (
            f"stream{file}",
            f"Along the stream{whose}",
            f"{found_words(run)} Rows of metrics.tsv, means over the steps of each.",
            plots.stream(runs, run),
            False,
        )


def section(runs):
    """HTML for runs of which some are on a stream."""
    on_stream = [run for run in runs if run.tasks]
    page = score_table(on_stream)
    for _, title, caption, figure, raster in pictures(on_stream):
        page += picture(figure, title, text(caption), raster)
    others = [text(run.name) for run in runs if not run.tasks]
    return page + (note(f"Not on a stream of tasks: {', '.join(others)}.") if others else "")


# ---- sensitivity


def read_sensitivity(path):
    """{key: {value: [(average accuracy, forgetting) of each seed]}} in percent and points."""
    try:
        with open(path, encoding="utf-8") as file:
            rows = list(csv.reader(file.read().splitlines(), delimiter="\t"))
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: wanted a table, found: {getattr(error, 'strerror', 'bytes that are not text')}") from None
    rows = [row for row in rows if row and not row[0].startswith("#")]
    if len(rows) < 2 or not set(SENSITIVITY) <= set(rows[0]):
        raise RunError(f"{path}: wanted columns {', '.join(SENSITIVITY)} and a row, found others or none")
    found = {}
    for row in rows[1:]:
        if len(row) != len(rows[0]):
            raise RunError(f"{path}: wanted {len(rows[0])} columns in every row, found {len(row)}")
        fields = dict(zip(rows[0], row))
        try:
            value, accuracy, lost = (float(fields[name]) for name in ("value", "average_accuracy", "forgetting"))
        except ValueError as error:
            raise RunError(f"{path}: wanted numbers, found: {error}") from None
        if not (math.isfinite(value) and value >= 0):
            raise RunError(f"{path}: wanted values from 0, found {fields['value']}")
        found.setdefault(fields["key"], {}).setdefault(value, []).append((100 * accuracy, 100 * lost))
    return {key: dict(sorted(values.items())) for key, values in found.items()}


def best_of(table):
    """Highest mean accuracy of all settings; NaN if there is none."""
    means = [mean_spread([pair[0] for pair in pairs])[0] for values in table.values() for pairs in values.values()]
    return max([mean for mean in means if not math.isnan(mean)], default=math.nan)


def sensitivity_section(table):
    import kwm_task_plots as plots

    if math.isnan(best_of(table)):
        return note("Nothing to draw: no setting has an accuracy.")
    caption = (
        "One key varied in each panel, the others as configured. Line: mean over seeds; shaded: lowest to highest; triangles "
        "lie beyond the panel, at crosses a seed gave no number. The band is the point below the best mean of all settings, "
        f"{best_of(table):.2f} %."
    )
    return picture(plots.sensitivity(table), "Sensitivity", text(caption))
