#!/usr/bin/python3
"""The derived step lengths (filter.line_search, filter.trust_expected), end to end: what they cannot go with is refused
in one line that names the key; a run that was stopped and resumed equals one that never stopped, bit for bit; every
layout gives the same means, and metrics.tsv tells how much of the steps was taken.
"""
import sys

sys.dont_write_bytecode = True

import os

import lib_kwm as t

USAGE = 2
SEARCH, EXPECTED = "filter.line_search=true", "filter.trust_expected=0.5"
BOTH = [SEARCH, EXPECTED, "filter.trust_region=0"]
DENSE = ["model.kind=dense", "model.widths=24 16", "sensitivity=adjoint", "filter.evidence=sampled", "cov.hidden.prior=10",
         "cov.output.prior=10", "report.every=5"]
GATED = ["cov.recurrence.structure=diag", "report.every=5"]
ROUNDING = 1e-9

_cases = []


def refused(texts, *keys):
    """A case for later: train, and plan, which never makes anything."""
    _cases.append((len(_cases), texts, keys))


def check_refused(number, texts, keys):
    folder = t.path("refused-%d" % number)
    for words in (["train", t.path("empty.yaml"), "--output", folder], ["plan", t.path("empty.yaml")]):
        child = t.run(1, *words, *t.SMALL, *keys, *t.layout(1))
        found = "%s: found exit %s:\n%s%s" % (child.words, child.code, child.out, child.err)
        one = child.err.count("\n") == 1 and child.err.startswith("kwm: error: ")
        t.check(child.code == USAGE and one, "wanted exit %d and one error line, %s" % (USAGE, found))
        t.check(all(text in child.err for text in texts), "wanted %s, %s" % (texts, found))
        t.check(t.contents(folder) is None, "%s: wanted no folder" % child.words)


def refusals():
    exact = [*DENSE, "filter.evidence=exact"]
    for keys in ([SEARCH], [EXPECTED], BOTH):
        key = keys[0].split("=")[0]
        for group in ("hidden", "output"):
            for structure in ("block", "lowrank"):
                wrong = "cov.%s.structure" % group
                refused([wrong + " kron or diag", key, structure], *DENSE, *keys, "%s=%s" % (wrong, structure))
            refused(["cov.%s.form information" % group, key, "innovation"], *exact, *keys, "cov.%s.form=innovation" % group)
        for structure in ("block", "lowrank"):
            refused(["cov.recurrence.structure diag", key, structure], *keys, "cov.recurrence.structure=" + structure)
        refused(["cov.recurrence.form information", key], *GATED, *keys, "cov.recurrence.form=innovation")
        refused(["cov.joint none", key, "full"], *exact, *keys, "cov.joint=full")
    refused(["sensitivity adjoint or forward", "filter.line_search", "stage"], *DENSE, SEARCH, "sensitivity=stage")
    for value in ("-1", "1000001", "nan", "x"):
        refused(["filter.trust_expected=" + value, "wanted"], *DENSE, "filter.trust_expected=" + value)
    refused(["filter.line_search", "true or false"], *DENSE, "filter.line_search=maybe")


def allowed():
    """What looks alike and is not refused: the bound with read-outs, a baseline, a dense model's unused recurrence."""
    cases = {"stage": [*DENSE, EXPECTED, "sensitivity=stage"], "sgd": [*DENSE, *BOTH, "learner=sgd", "cov.hidden.structure=block"],
             "recurrence": [*DENSE, *BOTH, "cov.recurrence.structure=lowrank", "cov.recurrence.form=innovation"]}
    t.all_of(lambda name, keys: t.train(1, "allowed-" + name, *keys, "train.max_steps=3", *t.layout(1)), list(cases.items()))


def searched(folder):
    lines = t.rows(folder)
    return [float(line[lines[0].index("search")]) for line in lines[1:]]


def runs(words, keys, layouts):
    whole = t.train(1, words, *keys, *BOTH, *t.layout(1))
    found = searched(whole)
    t.check(found and all(0 < c <= 1 for c in found) and min(found) < 1, "%s: wanted steps taken in part, found %s" % (words, found))
    accuracy = t.summary(whole)["test_accuracy"]
    t.check(accuracy > 0.5, "%s: wanted something learned, found %g" % (words, accuracy))
    for other in ([SEARCH, "filter.trust_region=0"], [EXPECTED, "filter.trust_region=0"]):
        folder = t.train(1, words + "-" + other[0].split("=")[0], *keys, *other, *t.layout(1))
        differ = t.differences(t.arrays(t.newest(folder), ("params",)), t.arrays(t.newest(whole), ("params",)))
        t.check(differ, "%s, %s alone: wanted another run" % (words, other[0]))
        if other[0] == EXPECTED:
            t.check(set(searched(folder)) == {1}, "%s: wanted whole steps without a search" % words)
    for layout in layouts:
        name = "%s, stages %d x owners %d x replicas %d" % (words, *layout)
        folder = t.train(layout[0] * layout[1] * layout[2], name.replace(" ", "-"), *keys, *BOTH, *t.layout(*layout))
        t.check_same(name + " against one rank", t.newest(folder), t.newest(whole), ROUNDING)
    halted = t.train(2, words + "-halted", *keys, *BOTH, *t.layout(2), "train.max_steps=20")
    t.train(1, os.path.basename(halted), *keys, *BOTH, *t.layout(1), resume=True)
    t.check_same(words + ", moved and resumed", t.newest(halted), t.newest(whole), ROUNDING)
    again = t.train(1, words + "-again", *keys, *BOTH, *t.layout(1), "train.max_steps=25")
    t.train(1, os.path.basename(again), *keys, *BOTH, *t.layout(1), resume=True)
    t.check_same(words + ", resumed", t.newest(again), t.newest(whole))
    t.check(searched(again) == found, "%s, resumed: wanted the same searches" % words)


t.start()
refusals()
t.all_of(check_refused, _cases)
allowed()
runs("dense", [*DENSE, "train.epochs=4"], ((2, 1, 1), (3, 1, 1), (1, 1, 2), (1, 2, 1), (2, 1, 2)))
runs("gated", [*GATED, "train.epochs=4"], ((2, 1, 1), (1, 2, 1), (1, 1, 2), (2, 1, 2)))
t.finish()
