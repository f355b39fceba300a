#!/usr/bin/python3
"""kwm eval of a run on a stream of tasks: the same numbers on every layout, the run's own accuracy, what is left out
where there is no posterior or nothing unseen, and what is refused."""

import sys

sys.dont_write_bytecode = True

import math
import os

import lib_kwm as t

TASKS, STEPS, TEST = 3, 15, 100
BASE = [
    "model.kind=dense",
    "sensitivity=adjoint",
    "model.widths=16 12",
    "train.chunks=4",
    "filter.gain_factor=0.3",
    "filter.trust_region=0.01",
    "cov.hidden.prior=10",
    "cov.output.prior=10",
]
DENSE = [*BASE, "filter.evidence=sampled"]
PERMUTED = ["stream.kind=permuted", "stream.tasks=%d" % TASKS]
FORMS = ("plugin", "posterior", "mackay")
FACTS = ["%s_%s" % (fact, form) for fact in ("accuracy", "nll", "calibration_error", "entropy") for form in FORMS]
FACTS.append("mutual_information")
HEADER = ["task", "learned", "samples", *FACTS]
SCORES = ("entropy_plugin", "entropy_posterior", "mutual_information", "max_probability")
CURVES = ["ood_auroc_" + score for score in SCORES]
AVERAGES = ["average_" + ("accuracy" if name == "accuracy_plugin" else name) for name in FACTS]


def evaluate(words, ranks, *arguments):
    """(values by name, rows of the table as {column: text}); None if it failed."""
    child = t.run(ranks, "eval", *arguments)
    if not t.check(child.code == 0, "%s: wanted exit 0, found %s:\n%s" % (words, child.code, child.err)):
        return None
    head, _, rest = child.out.partition("\n\n")
    lines = [line.split("\t") for line in rest.splitlines()]
    names = ["checkpoint", "step", "posterior", "task_count", "learned", "unseen", *AVERAGES, *CURVES]
    values = dict(line.split("\t", 1) for line in head.splitlines())
    good = t.check(list(values) == names, "%s: wanted lines %s, found\n%s" % (words, names, head))
    good = (
        t.check(lines and lines[0] == HEADER, "%s: wanted the columns %s, found\n%s" % (words, HEADER, rest)) and good
    )
    return (values, [dict(zip(HEADER, line)) for line in lines[1:]]) if good else None


def finite(words, values, names, wanted=True):
    for name in names:
        t.check(
            math.isfinite(float(values[name])) == wanted and "-nan" not in values[name],
            "%s: wanted %s %s, found %s" % (words, name, "finite" if wanted else "nan", values[name]),
        )


def close(words, one, other):
    for name in one:
        if name not in ("checkpoint", "posterior"):
            a, b = float(one[name]), float(other[name])
            same = abs(a - b) <= 2e-3 * abs(b) + 2e-4 or (math.isnan(a) and math.isnan(b))
            t.check(same, "%s: wanted %s %s as on one rank, found %s" % (words, name, other[name], one[name]))


def check_places(words, found, learned, unseen, shares):
    values, rows = found
    t.check(
        [values[name] for name in ("task_count", "learned", "unseen")] == [str(TASKS), str(learned), str(unseen)],
        "%s: wanted %d tasks, %d learned, %d unseen, found %s" % (words, TASKS, learned, unseen, values),
    )
    t.check(
        [row["task"] for row in rows] == [str(i + 1) for i in range(len(shares))], "%s: found tasks %s" % (words, rows)
    )
    t.check([row["learned"] for row in rows] == shares, "%s: wanted learned %s, found %s" % (words, shares, rows))


def layouts():
    folder = t.train(2, "permuted", *DENSE, *PERMUTED, *t.layout(2))
    first = evaluate("one rank", 1, folder)
    if first is None:
        return
    values, rows = first
    check_places("all learned", first, TASKS, 2, ["1"] * TASKS + ["0", "0"])
    t.check(values["posterior"] == "all layers", "wanted the posterior of all layers, found %s" % values["posterior"])
    finite("all learned", values, [*AVERAGES, *CURVES])
    for row in rows:
        finite("task " + row["task"], row, FACTS)
        t.check(
            row["samples"] == str(TEST), "task %s: wanted %d samples, found %s" % (row["task"], TEST, row["samples"])
        )
    summary = t.summary(folder)["average_accuracy"]
    t.check(
        abs(float(values["average_accuracy"]) - summary) < 2e-6,
        "wanted the run's accuracy %g, found %s" % (summary, values),
    )
    for name in FACTS:
        mean = sum(float(row[name]) for row in rows[:TASKS]) / TASKS
        found = float(values["average_" + ("accuracy" if name == "accuracy_plugin" else name)])
        t.check(abs(mean - found) < 2e-6, "wanted average %s %g over the tasks learned, found %g" % (name, mean, found))
    # What the posterior adds: less certain, and most where nothing was learned.
    more = float(values["average_entropy_posterior"]) - float(values["average_entropy_plugin"])
    t.check(more > 0, "wanted the posterior less certain than its mean, found %g nats more" % more)
    strange = min(float(row["mutual_information"]) for row in rows[TASKS:])
    t.check(strange > float(values["average_mutual_information"]), "wanted unseen tasks to stand out, found %s" % rows)
    t.check(float(values["ood_auroc_mutual_information"]) > 0.5, "wanted an area above 1/2, found %s" % values)
    cases = ((2, 2, 1, 1), (3, 3, 1, 1), (2, 1, 1, 2), (4, 2, 1, 2), (3, 1, 3, 1), (4, 1, 1, 4))
    for ranks, stages, owners, replicas in cases:
        words = "%d stages, %d owners, %d replicas" % (stages, owners, replicas)
        found = evaluate(words, ranks, t.newest(folder), *t.layout(stages, owners, replicas))
        if found is not None:
            close(words, found[0], values)
            for row, wanted in zip(found[1], rows):
                close("%s, task %s" % (words, wanted["task"]), row, wanted)
    refusals(folder)


def refusals(folder):
    empty = t.path("nothing")
    os.mkdir(empty)
    cases = (
        ("another stream", 3, [folder, "stream.tasks=4"], {}, "stream.tasks"),
        ("another seed", 3, [folder, "stream.seed=9"], {}, "stream.seed"),
        ("no data", 3, [folder], {"env": {**os.environ, "KWM_DATA": empty}}, "nothing"),
        ("no checkpoint", 3, [empty], {}, "nothing"),
        ("a word too many", 2, [folder, "here"], {}, "here"),
    )
    for words, code, arguments, options, named in cases:
        child = t.run(2, "eval", *arguments, **options)
        lines = [line for line in child.err.splitlines() if line.startswith("kwm: error:")]
        t.check(child.code == code, "%s: wanted exit %d, found %s:\n%s" % (words, code, child.code, child.err))
        t.check(
            len(lines) == 1 and named in lines[0], "%s: wanted one line with %s, found:\n%s" % (words, named, child.err)
        )


def unfinished():
    """A task that was only begun is neither learned nor unseen."""
    folder = t.train(1, "unfinished", *DENSE, *PERMUTED, "train.max_steps=%d" % (STEPS + 3), *t.layout())
    found = evaluate("in the second task", 2, folder)
    if found is not None:
        check_places("in the second task", found, 1, 1, ["1", "0.2", "0"])
        finite("in the second task", found[0], [*AVERAGES, *CURVES])
    folder = t.train(1, "boundary", *DENSE, *PERMUTED, "train.max_steps=%d" % STEPS, *t.layout())
    found = evaluate("after the first task", 2, folder)
    if found is not None:
        check_places("after the first task", found, 1, 2, ["1", "0", "0"])
        summary = t.summary(folder)["average_accuracy"]
        near = abs(float(found[0]["average_accuracy"]) - summary) < 2e-6
        t.check(near, "after the first task: wanted accuracy %g, found %s" % (summary, found[0]["average_accuracy"]))


def kinds():
    """Rotated streams go on at the same pace; others have nothing unseen once all is learned."""
    folder = t.train(
        1, "rotated", *DENSE, "stream.kind=rotated", "stream.tasks=%d" % TASKS, "stream.angle=60", *t.layout()
    )
    found = evaluate("rotated", 2, folder)
    if found is not None:
        check_places("rotated", found, TASKS, 2, ["1"] * TASKS + ["0", "0"])
        finite("rotated", found[0], [*AVERAGES, *CURVES])
        fourth = evaluate(
            "rotated, further",
            1,
            t.train(
                1,
                "further",
                *DENSE,
                "stream.kind=rotated",
                "stream.tasks=5",
                "stream.angle=120",
                "train.max_steps=%d" % (TASKS * STEPS),
                *t.layout()
            ),
        )
        for row, wanted in zip(found[1], [] if fourth is None else fourth[1]):
            for name in FACTS:
                near = abs(float(row[name]) - float(wanted[name])) < 2e-3 * abs(float(wanted[name])) + 2e-4
                t.check(
                    near,
                    "rotated: wanted task %s as in the longer stream, found %s %s and %s"
                    % (row["task"], name, row[name], wanted[name]),
                )
    folder = t.train(1, "split", *DENSE, "stream.kind=split", "stream.tasks=5", *t.layout())
    found = evaluate("split", 2, folder)
    if found is not None:
        t.check(
            found[0]["unseen"] == "0" and len(found[1]) == 5, "split: wanted 5 tasks, none unseen, found %s" % found[0]
        )
        finite("split", found[0], AVERAGES)
        finite("split", found[0], CURVES, False)


def without(words, learned, *keys):
    """No covariance that could say it: only the plug-in's numbers."""
    folder = t.train(1, words.replace(" ", "-"), *keys, *PERMUTED, "train.max_steps=%d" % STEPS, *t.layout())
    found = evaluate(words, 2, folder)
    if found is None:
        return
    values = found[0]
    plugin = [name for name in AVERAGES if "plugin" in name or name == "average_accuracy"]
    t.check(values["posterior"] == "none", "%s: wanted no posterior, found %s" % (words, values["posterior"]))
    finite(words, values, ["average_accuracy"])
    finite(words, values, plugin[1:], learned)
    finite(words, values, [name for name in AVERAGES if name not in plugin], False)
    finite(words, values, ["ood_auroc_entropy_plugin", "ood_auroc_max_probability"], learned)
    finite(words, values, ["ood_auroc_entropy_posterior", "ood_auroc_mutual_information"], False)
    summary = t.summary(folder)["average_accuracy"]
    near = abs(float(values["average_accuracy"]) - summary) < 2e-6
    t.check(near, "%s: wanted accuracy %g, found %s" % (words, summary, values["average_accuracy"]))


def stage():
    folder = t.train(1, "stage", *DENSE, *PERMUTED, "sensitivity=stage", *t.layout())
    found = evaluate("stage", 3, folder, *t.layout(3))
    if found is not None:
        t.check(
            found[0]["posterior"] == "last layers", "stage: wanted the last layers, found %s" % found[0]["posterior"]
        )
        finite("stage", found[0], [*AVERAGES, *CURVES])


t.start()
layouts()
unfinished()
kinds()
stage()
without("sgd", True, *BASE, "learner=sgd")
without("lowrank", True, *BASE, "cov.hidden.structure=lowrank")
without("joint", True, *BASE, "cov.joint=full", "model.widths=4", "train.batch=20")
without("gaussian", False, *DENSE, "model.observation=gaussian")
without("gated", True, "model.kind=gated", "sensitivity=forward")
t.finish()
