#!/usr/bin/python3
"""Streams of tasks, end to end, on tiny data.

Each kind of stream and each learner gives an accuracy table of the right shape, the scores that follow from it, and, where
the images of a task are known, the accuracy that NumPy finds with the checkpoint's parameters. A run that was stopped
amid a task and resumed equals one that never stopped, bit for bit; every layout gives the same numbers. kwm plan tells
what a stream takes, which does not grow with its tasks.
"""
import sys

sys.dont_write_bytecode = True

import os
import shutil
import signal

import numpy as np

import lib_data
import lib_kwm as t

TASKS, STEPS = 3, lib_data.TRAIN // 20
DENSE = ["model.kind=dense", "model.widths=24 16", "sensitivity=adjoint", "filter.evidence=sampled", "filter.gain_factor=0.3",
         "filter.trust_region=0.01", "cov.hidden.prior=10", "cov.output.prior=10", "report.every=5"]
PERMUTED = ["stream.kind=permuted", "stream.tasks=%d" % TASKS]
LEARNERS = ("kalman", "sgd", "adam", "kfac", "ewc", "si")
# Alarms come early enough to lie on both sides of a stop, and inflate the covariance.
CHANGES = ["change.threshold=2", "change.slack=0.5", "change.reaction=inflate", "change.inflation=2"]
TIES = 0.021  # two test samples of a hundred may change sides between NumPy's sums and BLAS's
ROUNDING = 1e-9
TRIES = 10


# ---- tables and scores


def scores(R):
    """By their definitions, after the last row of R; row 0 stands for no training."""
    last = len(R) - 1
    learned = [R[i + 1, i] for i in range(last)]
    lost = [learned[i] - R[last, i] for i in range(last - 1)]
    best = [np.nanmax(R[i + 1 :, i]) - R[last, i] for i in range(last - 1)]
    known = [R[i, i] - R[0, i] for i in range(1, last)]
    mean = lambda values: float(np.mean(values)) if len(values) > 0 else np.nan
    return {"average_accuracy": mean(R[last, :last]), "forgetting": mean(lost), "forgetting_best": mean(best),
            "backward_transfer": -mean(lost), "forward_transfer": mean(known), "plasticity": mean(learned)}


def close(one, other):
    return np.allclose(one, other, rtol=1e-8, atol=1e-12, equal_nan=True)


def evaluated(tasks):
    """Before training all tasks; then what was learned and the next one."""
    return np.array([[row in (0, tasks) or i <= row for i in range(tasks)] for row in range(tasks + 1)])


def check_table(words, folder, tasks, steps):
    """tasks.tsv, /history/tasks and summary.json say the same; the accuracies."""
    lines = t.rows(folder, "tasks.tsv")
    values = np.array([[float(x) for x in line] for line in lines[1:]])
    columns = {name: values[:, at] for at, name in enumerate(lines[0])}
    R = np.array([columns["task%d" % (i + 1)] for i in range(tasks)]).T
    if not t.check(R.shape == (tasks + 1, tasks), "%s: wanted %d rows, found %d" % (words, tasks + 1, len(R))):
        return R
    t.check((np.isfinite(R) == evaluated(tasks)).all(), "%s: wanted other entries than\n%s" % (words, R))
    t.check(((R[np.isfinite(R)] >= 0) & (R[np.isfinite(R)] <= 1)).all(), "%s: wanted shares, found\n%s" % (words, R))
    t.check((columns["tasks"] == np.arange(tasks + 1)).all(), words + ": wanted a row for each task and one before")
    t.check((columns["step"] == np.cumsum([0, *steps])).all(), "%s: found steps %s" % (words, columns["step"]))
    for row in range(tasks + 1):
        for name, value in scores(R[: row + 1]).items():
            found = columns[name][row]
            t.check(close(found, value), "%s, row %d: wanted %s %g, found %g" % (words, row, name, value, found))
    stored = t.arrays(t.newest(folder), ("history",))["/history/tasks"]
    t.check(close(stored, R), "%s: wanted the same /history/tasks, found\n%s\n%s" % (words, stored, R))
    summary = t.summary(folder)
    for name, value in scores(stored).items():
        t.check(close(summary[name], value), "%s: wanted %s %g, found %s" % (words, name, value, summary[name]))
    same = summary["tasks"] == tasks and summary["test_accuracy"] == summary["average_accuracy"]
    t.check(same and summary["status"] == "done", "%s: wanted %d tasks, found %s" % (words, tasks, summary))
    return R


def accuracy(folder, images, labels):
    """By NumPy with the parameters of the last checkpoint."""
    params = t.arrays(t.newest(folder), ("params",))
    at = images.reshape(len(images), -1) / 255
    for name in ("layer1", "layer2", "output"):
        at = np.hstack([at, np.ones((len(at), 1))]) @ params["/params/" + name].T.astype(float)
        at = np.maximum(at, 0) if name != "output" else at
    return (at.argmax(1) == labels).mean()


def check_known(words, folder, R, known):
    """known: (task, images, labels) of tasks whose images Python can make, too."""
    for task, images, labels in known:
        wanted, found = accuracy(folder, images, labels), R[-1, task]
        t.check(abs(found - wanted) < TIES, "%s, task %d: wanted %g, found %g" % (words, task + 1, wanted, found))


def streams():
    images, labels = lib_data.split("test", lib_data.TEST)
    train_labels = lib_data.split("train", lib_data.TRAIN)[1]
    other = lib_data.make(t.path("other"), seed=7)
    pairs = [(labels // 2 == task) for task in range(5)]
    steps = [-(-int((train_labels // 2 == task).sum()) // 20) for task in range(5)]
    split = ["stream.kind=split", "stream.tasks=5"]
    lists = ["stream.kind=list", "stream.tasks=%d" % TASKS, "stream.paths=%s,%s" % (t.path("data"), other)]
    whole, usual = (images, labels), [STEPS] * TASKS
    cases = {
        "permuted": (PERMUTED, usual, [(0, *whole)]),
        "rotated": (["stream.kind=rotated", "stream.tasks=%d" % TASKS, "stream.angle=90"], usual, [
            (0, *whole), (2, np.rot90(images, 1, (1, 2)), labels)]),
        "split": ([*split, "stream.relabel=false"], steps, [(k, images[p], labels[p]) for k, p in enumerate(pairs)]),
        "relabelled": ([*split, "stream.relabel=true"], steps, [
            (k, images[p], labels[p] - 2 * k) for k, p in enumerate(pairs)]),
        "list": (lists, usual, [
            (0, *whole), (1, *lib_data.split("test", lib_data.TEST, seed=7)), (2, *whole)]),
        "blended": ([*PERMUTED, "stream.boundaries=blended", "stream.blend=1"], usual, [(0, *whole)]),
        "two passes": ([*PERMUTED, "train.epochs=2"], [2 * STEPS] * TASKS, [(0, *whole)]),
        "some samples": ([*PERMUTED, "stream.samples=100"], [5] * TASKS, [(0, *whole)]),
    }

    def one(words, keys, steps, known):
        folder = t.train(1, words.replace(" ", "-"), *DENSE, *keys, *t.layout(1))
        check_known(words, folder, check_table(words, folder, len(steps), steps), known)
        held = [line[t.rows(folder, "tasks.tsv")[0].index("average_held_out")] for line in t.rows(folder, "tasks.tsv")[1:]]
        t.check(set(held) == {"nan"}, "%s: wanted no held-out accuracies, found %s" % (words, held))

    t.all_of(one, [(words, *case) for words, case in cases.items()])
    accuracies = t.summary(t.path("two-passes"))["average_accuracy"]
    t.check(accuracies > 0.9, "two passes: wanted an average accuracy above 0.9, found %g" % accuracies)


def held_out():
    folder = t.train(1, "held-out", *DENSE, *PERMUTED, "data.validation=60", *t.layout(1))
    check_table("held out", folder, TASKS, [(lib_data.TRAIN - 60) // 20] * TASKS)
    lines = t.rows(folder, "tasks.tsv")
    found = np.array([float(line[lines[0].index("average_held_out")]) for line in lines[1:]])
    stored = t.arrays(t.newest(folder), ("history",))["/history/tasks_held_out"]
    wanted = [scores(stored[: row + 1])["average_accuracy"] for row in range(TASKS + 1)]
    t.check(close(found, wanted) and np.isfinite(found[1:]).all(), "held out: wanted %s, found %s" % (wanted, found))
    last = lib_data.split("train", lib_data.TRAIN)
    check_known("held out", folder, stored, [(0, last[0][-60:], last[1][-60:])])


def learners():
    def one(name):
        keys = ["learner=" + name, "stream.boundaries=known", *PERMUTED]
        folder = t.train(1, "learner-" + name, *DENSE, *keys, *t.layout(1))
        check_table(name, folder, TASKS, [STEPS] * TASKS)
        lines = t.rows(folder, "tasks.tsv")
        shortened = [float(line[lines[0].index("shortened")]) for line in lines[1:]]
        right = max(shortened) <= STEPS and (max(shortened) > 0) == (name == "kalman")
        t.check(right, "%s: wanted the trust region's steps counted with kalman only, found %s" % (name, shortened))

    t.all_of(one, [(name,) for name in LEARNERS])


# ---- stopped and resumed


def table_or_none(folder, name):
    return t.rows(folder, name) if os.path.exists(os.path.join(folder, name)) else None


def compare(words, folder, whole):
    t.check_same(words, t.newest(folder), t.newest(whole))
    for name in ("tasks.tsv", "metrics.tsv", "changes.tsv"):
        found, wanted = table_or_none(folder, name), table_or_none(whole, name)
        t.check(found == wanted, "%s: wanted %s\n%s, found\n%s" % (words, name, wanted, found))
    t.check(t.summary(folder)["status"] == "done", words + ": wanted status done in summary.json")


def strike(child, number, one_rank):
    for pid in t.ranks_of(child)[-1:] if one_rank else []:
        os.kill(pid, number)
    if not one_rank:
        child.send_signal(number)


def struck(words, keys, whole, number, one_rank):
    """Begun anew until the signal came after the first checkpoint and before the end."""
    folder = t.path(words.replace(" ", "-"))
    for _ in range(TRIES):
        shutil.rmtree(folder, ignore_errors=True)
        child = t.launch(2, "train", t.path("empty.yaml"), "--output", folder, *t.SMALL, *keys)
        t.poll(lambda: t.checkpoints(folder), child)
        pids = t.ranks_of(child)
        strike(child, number, one_rank)
        t.wait(child)
        t.poll(lambda pids=pids: all(t.process_state(pid) in (None, "Z") for pid in pids))
        if child.code != 0:
            break
    t.check(child.code != 0, "%s: wanted to stop the run before its end, %d times too late" % (words, TRIES))
    t.train(2, os.path.basename(folder), *keys, resume=True)
    compare(words, folder, whole)


def halted(words, ranks, keys, whole, steps):
    """By train.max_steps, again and again."""
    folder = t.path(words.replace(" ", "-"))
    for step in steps:
        resume = os.path.isdir(folder)
        t.train(ranks, os.path.basename(folder), *keys, "train.max_steps=%d" % step, resume=resume)
    t.train(ranks, os.path.basename(folder), *keys, resume=True)
    compare(words, folder, whole)


def changes_of(folder):
    lines = t.rows(folder, "changes.tsv")
    return [int(line[0]) for line in lines[1:]]


def resumes():
    blended = [*DENSE, *PERMUTED, "stream.boundaries=blended", "stream.blend=0.1", "train.epochs=6", *CHANGES, *t.layout(2)]
    keys = [*blended, "checkpoint.every=35"]
    whole = t.train(2, "whole", *keys)
    check_table("whole", whole, TASKS, [6 * STEPS] * TASKS)
    alarms, stops = changes_of(whole), (35, 110, 175)
    both = alarms and alarms[0] < stops[1] < alarms[-1]
    t.check(both, "whole: wanted changes on both sides of step %d, found them at %s" % (stops[1], alarms))
    t.check(t.summary(whole)["changes"] == len(alarms), "whole: wanted %d changes in summary.json" % len(alarms))
    calm = t.train(2, "calm", *keys, "change.reaction=none")
    t.check(t.differences(t.state(t.newest(calm)), t.state(t.newest(whole))), "wanted a reaction to changes")
    struck("struck by usr1", keys, whole, signal.SIGUSR1, False)
    struck("struck by kill", keys, whole, signal.SIGKILL, True)
    halted("halted amid tasks", 2, keys, whole, stops)
    t.all_of(learner_resumes, [(name,) for name in ("ewc", "si", "kfac")])


def learner_resumes(name):
    """At the second stop a task has just ended, and the learner was told."""
    keys = [*DENSE, *PERMUTED, "learner=" + name, "stream.boundaries=known", "train.schedule=constant", "train.epochs=2",
            "kfac.rate=0.001", *t.layout(1)]
    halted("halted " + name, 1, keys, t.train(1, "whole-" + name, *keys), (20, 60, 75))


# ---- layouts, memory


def layouts():
    ours = [*DENSE, *PERMUTED, *CHANGES, "train.epochs=2"]
    for way in ("adjoint", "stage"):
        keys = [*ours, "sensitivity=" + way]
        one = t.train(1, way + "-1", *keys, *t.layout(1))
        t.check(changes_of(one), way + ": wanted changes, found none")
        for layout in ((2, 1, 1), (3, 1, 1), (1, 1, 2), (1, 2, 1), (2, 1, 2)):
            words = "%s, stages %d x owners %d x replicas %d" % (way, *layout)
            folder = t.train(int(np.prod(layout)), words.replace(" ", "-"), *keys, *t.layout(*layout))
            t.check_same(words + " against one rank", t.newest(folder), t.newest(one), ROUNDING)
            t.check(t.rows(folder, "tasks.tsv")[1:] != [] and changes_of(folder) == changes_of(one), words + ": changes differ")
    begun = t.train(3, "moved", *keys, "train.max_steps=35", *t.layout(3))
    moved = t.train(1, os.path.basename(begun), *keys, *t.layout(1), resume=True)
    t.check_same("from 3 stages to one rank", t.newest(moved), t.newest(one), ROUNDING)


def planned(words, ranks, keys):
    """Largest total_bytes of kwm plan's ranks."""
    child = t.run(ranks, "plan", t.path("empty.yaml"), *t.SMALL, *keys)
    t.check(child.code == 0 and not child.err, "%s: wanted a plan, found exit %s:\n%s" % (words, child.code, child.err))
    lines = [line.split("\t") for line in child.out.splitlines() if line and not line.startswith("#")]
    if not t.check(len(lines) == ranks + 1, "%s: wanted %d ranks, found:\n%s" % (words, ranks, child.out)):
        return 0
    return max(int(line[lines[0].index("total_bytes")]) for line in lines[1:])


def memory():
    """Wide layers, so that what is counted outweighs the libraries."""
    wide = [*DENSE, "model.widths=640 320", "stream.samples=40"]
    kinds = {"permuted": PERMUTED, "rotated": ["stream.kind=rotated", "stream.tasks=%d" % TASKS], "split": [
        "stream.kind=split", "stream.tasks=5"]}
    cases = [(kind, 1, [*wide, *keys, *t.layout(1)]) for kind, keys in kinds.items()]
    cases += [("stages", 3, [*wide, *PERMUTED, *t.layout(3)])]
    cases += [("stage", 2, [*wide, *PERMUTED, "sensitivity=stage", *t.layout(2)])]
    cases += [("exact", 1, [*wide, *PERMUTED, "filter.evidence=exact", *t.layout(1)])]
    cases += [(name, 1, [*wide, *PERMUTED, "learner=" + name, *t.layout(1)]) for name in LEARNERS[1:]]

    def one(words, ranks, keys):
        keys = [key for key in keys if not (words == "split" and key.startswith("stream.samples"))]
        plan, folder = planned(words, ranks, keys), t.train(ranks, "taken-" + words, *keys)
        peak = t.summary(folder)["peak_bytes_per_rank"]
        print("%s: planned %.1f MB, taken %.1f MB (%.3f)" % (words, plan / 1e6, peak / 1e6, plan / peak))
        t.check(abs(plan - peak) < 0.1 * peak, "%s: wanted a plan within 10 %% of %d, found %d" % (words, peak, plan))

    t.all_of(one, cases)
    # The images of fifty more tasks would take 5.5 MB.
    few, many = ([*DENSE, "stream.samples=40", "stream.kind=permuted", "stream.tasks=%d" % n, *t.layout(1)] for n in (10, 60))
    plans = [planned("tasks", 1, keys) for keys in (few, many)]
    t.check(abs(plans[1] - plans[0]) < 1e6, "wanted a plan that does not grow with tasks, found %s" % plans)
    taken = [t.summary(t.train(1, "tasks-%d" % k, *keys))["peak_bytes_per_rank"] for k, keys in enumerate((few, many))]
    # What libraries take differs by some MB from run to run.
    t.check(taken[1] - taken[0] < 4e6, "wanted memory that does not grow with tasks, found %s" % taken)


t.start()
streams()
held_out()
learners()
resumes()
layouts()
memory()
t.finish()
