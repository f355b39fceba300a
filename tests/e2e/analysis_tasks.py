#!/usr/bin/python3
"""analysis/tasks on real runs over streams, alone and beside each other: plots, scores, words where something is missing."""

import sys

sys.dont_write_bytecode = True

import csv
import math
import os

import numpy as np
from matplotlib import image

import lib_kwm as t
from lib_page import SECTIONS, called, copy, has, page, refused

import kwm_runs
import kwm_tasks

PLAIN = ["train.epochs=2", "data.validation=40", "report.every=1", *t.layout(2)]
DENSE = ["model.kind=dense", "model.widths=24 16", "sensitivity=adjoint", "filter.evidence=sampled", "stream.kind=permuted"]
DENSE += ["stream.tasks=3", "train.epochs=1", "data.validation=0", "change.threshold=2", "change.slack=0.5"]
DENSE += ["report.every=1", *t.layout(2)]
CURVES = ["Learned and kept", "Every task over the stream"]
OF_RUN = ["Accuracy after each task", "Along the stream"]
ROW = "%s\t%g\t1\t%s\t0.01\n"
HEAD = "key\tvalue\tseed\taverage_accuracy\tforgetting\n"


def table(name, *rows, head=HEAD):
    with open(t.path(name), "w", encoding="utf-8") as file:
        file.write(head + "".join(rows))
    return t.path(name)


def scores_right(words, found, runs):
    """Each run's scores are those of its summary, and a row of means over the seeds stands before them."""
    wanted = [[(name, 100 * t.summary(run)[name]) for name in kwm_tasks.SCORES] for run in runs]
    rows = [[(name, np.mean([row[at][1] for row in wanted])) for at, (name, _) in enumerate(wanted[0])]] if len(runs) > 1 else []
    wanted = sum(rows + wanted, [])
    near = len(wanted) == len(found.scores) and all(
        a[0] == b[0] and math.isclose(a[1], b[1], rel_tol=1e-6, abs_tol=1e-6) for a, b in zip(wanted, found.scores)
    )
    t.check(near, "%s: wanted the scores %s, found %s" % (words, wanted, found.scores))


def tasks_read_right(run):
    """The table, its switches, what was learned, and which changes meet which switch."""
    read = kwm_runs.Run(run)
    tasks = read.tasks
    t.check(read.group_names == ["layer1", "layer2", "output"], "wanted the layers as groups, found %s" % read.group_names)
    t.check(list(tasks.switches) == [15, 30], "wanted switches after 15 steps each, found %s" % tasks.switches)
    learned = [[i < after for i in range(3)] for after in range(4)]
    t.check(np.array_equal(np.isfinite(tasks.seen), learned), "wanted accuracies of learned tasks, found %s" % tasks.seen)
    t.check(len(tasks.changes) == t.summary(run)["changes"], "wanted the changes of the summary, found %s" % tasks.changes)
    tasks.switches, tasks.changes = np.array([10.0, 20.0]), np.array([3.0, 12.0, 13.0, 19.0])
    t.check(tasks.detections() == ([2], [3, 13, 19]), "detections: found %s, %s" % tasks.detections())
    t.check(tasks.detections(2) == ([2, -1], [3, 13]), "detections before a switch: found %s, %s" % tasks.detections(2))


def streams(run, seed, adam, plain):
    found = page("tasks", [run], name="tasks", sections=["tasks"])
    has("tasks", found, *CURVES, *OF_RUN)
    t.check("of 2 switches reported" in found.words, "tasks: wanted words about the changes")
    scores_right("tasks", found, [run])
    tasks_read_right(run)
    found = page("tasks of seeds", [run, seed], name="tasks", sections=["tasks"])
    scores_right("tasks of seeds", found, [run, seed])
    t.check("±" in found.words and "stream.seed 2" in found.words, "tasks of seeds: wanted a spread and what differs")
    found = page("tasks of learners", [run, adam], name="tasks", sections=["tasks"])
    labels = ("kalman, threshold 2", "adam, threshold 0")
    has("tasks of learners", found, *CURVES, *["%s: %s" % (title, label) for title in OF_RUN for label in labels])
    t.check("±" not in found.words, "tasks of learners: wanted no spread over two learners")
    t.check(kwm_tasks.found_words(kwm_runs.Run(adam)) == "Change detection was off.", "wanted words where no changes are sought")
    found = page("a stream", [run], sections=[SECTIONS[0], "tasks", *SECTIONS[1:]])
    has("a stream", found, *CURVES, *OF_RUN, "Step sizes", "Uncertainty left", "Where learning happens")
    found = page("a stream and none", [run, plain], sections=[SECTIONS[0], "tasks", *SECTIONS[1:]])
    t.check("Not on a stream of tasks: first" in found.words, "a stream and none: wanted the other run named")


def unfinished(run):
    """After the first task, and before any; without a configuration or changes."""
    part = copy(run, "part")
    for name in ("config.yaml", "summary.json", "changes.tsv"):
        os.remove(os.path.join(part, name))
    with open(os.path.join(part, "tasks.tsv"), encoding="utf-8") as file:
        lines = file.read().splitlines(keepends=True)
    for rows, drawn, changes in ((3, CURVES + OF_RUN, "0 of 1 switches reported"), (2, OF_RUN, "No switch yet")):
        table("part/tasks.tsv", *lines[1:rows], head=lines[0])
        found = page("%d rows" % (rows - 1), [part], name="tasks", sections=["tasks"])
        has("%d rows" % (rows - 1), found, *drawn)
        t.check("%d of 3" % (rows - 2) in found.words, "unfinished: wanted how far it got")
        t.check("not measured" in found.words and changes in found.words, "unfinished: wanted words")


def as_png(run, sensitivity):
    child = called("tasks", run, "--sensitivity", sensitivity, "--png", t.path("png", "new"))
    wanted = [t.path("png", "new", "%s.png" % name) for name in ("scores", "tasks", "matrix", "stream", "sensitivity")]
    right = child.returncode == 0 and child.stdout.split() == wanted
    t.check(right, "png: wanted %s, found %s" % (wanted, child.stdout + child.stderr))
    t.check(all(image.imread(path).shape[1] > 100 for path in wanted), "png: wanted images that can be read")
    with open(t.path("png", "new", "scores.tsv"), encoding="utf-8") as file:
        (row,) = csv.DictReader(file, delimiter="\t")
    same = math.isclose(float(row["plasticity"]), 100 * t.summary(run)["plasticity"], rel_tol=1e-5)
    t.check(same, "png: wanted the scores, found %s" % row)


def sensitivities(run):
    rows = [ROW % ("a.b", value, accuracy) for value, accuracy in ((0, "nan"), (0.1, 0.95), (1, 0.97), (1, 0.95), (10, 0.2))]
    whole = table("whole.tsv", *rows, ROW % ("c", 3, 0.955))
    found = page("sensitivity", [], "--sensitivity", whole, name="tasks", sections=["sensitivity"])
    has("sensitivity", found, "Sensitivity")
    t.check("96.00 %" in found.words, "sensitivity: wanted the best mean over seeds, found %s" % found.words)
    nothing = table("nothing.tsv", ROW % ("a", 1, "nan"))
    found = page("no numbers", [], "--sensitivity", nothing, name="tasks", sections=["sensitivity"])
    t.check(not found.images and "no setting has an accuracy" in found.words, "no numbers: wanted words in place of a picture")
    as_png(run, whole)


def task_errors(run, plain):
    refused(2, "wanted a run or --sensitivity", name="tasks")
    refused(2, "wanted --output or --png, found both", run, "--output", "a", "--png", "b", name="tasks")
    refused(2, "wanted each run once", run, run, name="tasks")
    refused(3, "wanted a run on a stream of tasks, found no tasks.tsv", run, plain, name="tasks")
    refused(1, "wanted a folder to write", run, "--png", t.path("empty.yaml"), name="tasks")
    refused(3, "wanted a table, found", "--sensitivity", t.path("nowhere"), name="tasks")
    for words, text, head in (
        ("wanted columns", ROW % ("a", 1, 1), HEAD.replace("seed", "seeds")),
        ("wanted columns", "", HEAD),
        ("wanted 5 columns", "a\t1\n", HEAD),
        ("wanted numbers", ROW % ("a", 1, "x"), HEAD),
        ("wanted values from 0", ROW % ("a", -1, 1), HEAD),
    ):
        refused(3, words, "--sensitivity", table("bad.tsv", text, head=head), name="tasks")
    hurt = copy(run, "hurt-tasks")
    for text, words in (
        ("step\ttasks\ttask1\n5\t2\t0.5\n", "wanted a column for each task"),
        ("step\ttasks\ttask1\n5\t1\t0.5\n6\t1\t0.5\n", "wanted a column for each task"),
        ("step\ttasks\n5\t0\n", "wanted a column for each task"),
        ("step\ttask1\n5\t0\n", "wanted a column for each task"),
        ("step\ttasks\ttask1\n", "wanted at least one row"),
    ):
        table("hurt-tasks/tasks.tsv", text, head="")
        refused(3, words, hurt, name="tasks")
        refused(3, words, hurt)


t.start()
first = t.train(2, "first", *PLAIN)
stream = t.train(2, "stream", *DENSE)
other_seed = t.train(2, "seed", *DENSE, "seed=3", "stream.seed=2")
baseline = t.train(2, "stream-adam", *DENSE, "learner=adam", "change.threshold=0")
streams(stream, other_seed, baseline, first)
unfinished(stream)
sensitivities(stream)
task_errors(stream, first)
t.finish()
