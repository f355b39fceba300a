#!/usr/bin/python3
"""What is done about numbers gone bad, in every kind of run: a step that is not positive definite on one rank (KWM_TEST_FAULT) is
skipped with one warning that names rank, place, step and numbers; or stops the run; or makes P grow. And a row of NIS too large."""
import sys

sys.dont_write_bytecode = True

import os

import lib_kwm as t
import lib_text

TEXT = ["model.kind=transformer", "sensitivity=stage", "model.width=16", "model.layers=2", "model.heads=2", "model.context=16", "model.readouts=1",
        "train.batch=8", "train.chunks=4", "filter.evidence=innovations", "filter.riccati=recursive", "filter.process_noise=1e-3",
        "cov.hidden.prior=30", "cov.output.prior=30", "cov.output.structure=diag", "train.warmup=5"]
WORLD = ["model.kind=statespace", "system.kind=duffing", "system.steps=400"]
# Ranks and keys; the place that is named; whether a rank of its own fails.
KINDS = {
    "gated": (2, [*t.SMALL, *t.layout(2)], "(rank 1, "),
    "dense": (2, [*t.SMALL, "model.kind=dense", "model.widths=16", "sensitivity=adjoint", *t.layout(1, 1, 2)], "(rank 1, "),
    "transformer": (2, [*TEXT, *t.layout(2)], "(rank 1, "),
    "statespace": (1, WORLD, "(rank 0, S)"),
}
STEPS = ["train.max_steps=30", "train.epochs=1000", "report.every=10"]


def run(kind, name, *words, fault=True):
    ranks, keys, _ = KINDS[kind]
    environment = {**os.environ, "KWM_DATA": t.path("text") if kind == "transformer" else t.path("data")}
    if fault:
        environment["KWM_TEST_FAULT"] = "indefinite:learn:15:%d" % (ranks - 1)
    return t.run(ranks, "train", t.path("empty.yaml"), "--output", t.path(name), *keys, *STEPS, *words, env=environment)


def lines_of(child, kind):
    return [line for line in child.err.splitlines() if line.startswith("kwm: %s:" % kind)]


def arrays(name):
    return {key: value for key, value in t.arrays(t.newest(t.path(name))).items() if key.startswith(("/params", "/cov"))}


def indefinite(kind):
    place = KINDS[kind][2]
    plain = run(kind, kind + "-plain", fault=False)
    skipped = run(kind, kind + "-skip")
    t.check(plain.code == 0 and skipped.code == 0, "%s: wanted exit 0, found %s %s:\n%s" % (kind, plain.code, skipped.code, skipped.err))
    warned = [line for line in lines_of(skipped, "warning") if "not positive definite" in line]
    t.check(len(warned) == 1 and "step 16 skipped" in warned[0] and place in warned[0] and "nis" in warned[0],
            "%s: wanted one warning that names %s, found %s" % (kind, place, skipped.err))
    t.check(t.summary(t.path(kind + "-skip"))["skipped_steps"] == 1, kind + ": wanted one skipped step in summary.json")
    grown = run(kind, kind + "-inflate", "failure.indefinite=inflate")
    t.check(grown.code == 0 and "P inflated" in grown.err, "%s: wanted P inflated, found %s:\n%s" % (kind, grown.code, grown.err))
    t.check(t.differences(arrays(kind + "-inflate"), arrays(kind + "-skip")), kind + ": wanted another posterior after inflation")
    stopped = run(kind, kind + "-stop", "failure.indefinite=stop")
    errors = lines_of(stopped, "error")
    t.check(stopped.code == 4 and len(errors) == 1 and place in errors[0] and "step 16" in errors[0],
            "%s: wanted exit 4 and one error that names %s, found %s:\n%s" % (kind, place, stopped.code, stopped.err))
    t.check(t.summary(t.path(kind + "-stop"))["status"] == "numerical stop", kind + ": wanted it in summary.json")
    most = run(kind, kind + "-most", "filter.max_skips=1")
    t.check(most.code == 4 and "1 skipped in a row" in most.err, "%s: wanted exit 4, found %s:\n%s" % (kind, most.code, most.err))


def diverging(kind):
    words = ["failure.nis=1e-6", "failure.diverging="]
    warned = run(kind, kind + "-warn", *words[:1], fault=False)
    t.check(warned.code == 0 and "diverging: mean nis" in warned.err, "%s: wanted a warning, found %s:\n%s" % (kind, warned.code, warned.err))
    stopped = run(kind, kind + "-diverges", words[0], words[1] + "stop", fault=False)
    t.check(stopped.code == 4 and "failure.nis 1e-06" in stopped.err, "%s: wanted exit 4, found %s:\n%s" % (kind, stopped.code, stopped.err))
    t.check(not t.checkpoints(t.path(kind + "-diverges")), kind + ": wanted no checkpoint of the diverging state")


def refused():
    """Where nothing could grow."""
    for kind, words in (("transformer", ["filter.riccati=steady"]), ("statespace", ["model.kind=koopman"]), ("gated", ["cov.joint=full"])):
        child = run(kind, "refused-" + kind, *words, "failure.indefinite=inflate", fault=False)
        t.check(child.code == 2 and "inflate" in child.err, "%s: wanted exit 2, found %s:\n%s" % (kind, child.code, child.err))


t.start()
lib_text.make(t.path("text"), 100)
t.all_of(indefinite, [(kind,) for kind in KINDS])
t.all_of(diverging, [("transformer",), ("statespace",)])
refused()
t.finish()
