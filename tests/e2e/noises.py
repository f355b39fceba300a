#!/usr/bin/python3
"""What the filter learns of its own noises, in whole runs: with Gaussian outputs an adaptive R brings eᵀS⁻¹e towards its
chi-square band and a fixed wrong one does not; adaptive q, forgetting towards the anchor and the successive-score test go
through a stop and a resume bit for bit, for the joint covariance in float and for a mixture of structures; skipped steps
are counted by kind; what cannot be adapted is refused."""
import sys

sys.dont_write_bytecode = True

import math

import lib_kwm as t

INNOVATION = ["cov.%s.form=innovation" % group for group in ("recurrence", "hidden", "output")]
GAUSSIAN = ["model.observation=gaussian", "model.width=32", "model.hidden=8", "train.batch=10", "train.epochs=20"]
ADAPTING = ["filter.adapt_process=0.02", "filter.process_noise=1e-5", "filter.forgetting=0.9995", "filter.score_test=true"]
MIXTURE = [*INNOVATION, "cov.recurrence.structure=lowrank", "cov.recurrence.real=float", "cov.output.structure=block"]


def table(folder):
    rows = t.rows(folder)
    return [dict(zip(rows[0], map(float, row))) for row in rows[1:]]


def band():
    """R starts 20 times too large."""
    keys = [*INNOVATION, *GAUSSIAN, "model.noise_variance=2", "train.max_steps=300", "report.every=50", *t.layout(1)]
    fixed = table(t.train(1, "fixed", *keys))[-1]
    found = table(t.train(1, "adaptive", *keys, "filter.adapt_noise=0.05"))[-1]
    t.check(fixed["noise"] == 1 and found["noise"] < 0.5, "wanted R's scale to fall, found %g" % found["noise"])
    t.check(fixed["chi2"] < 0.25 * fixed["chi2_low"], "wanted the wrong R below its band, found %g" % fixed["chi2"])
    t.check(found["chi2"] > 0.7 * found["chi2_low"], "wanted the adaptive R near its band, found %g" % found["chi2"])
    t.check(fixed["chi2_low"] < 1 < fixed["chi2_high"], "wanted a band around 1")
    t.check(math.isnan(found["calibration_error"]), "wanted no calibration of classes for Gaussian outputs")


def resumed(words, *keys):
    keys = [*GAUSSIAN, *ADAPTING, "train.max_steps=60", "checkpoint.every=20", *t.layout(2), *keys]
    whole = t.train(2, words + "-whole", *keys)
    parts = [key for key in keys if not key.startswith("train.max_steps")]
    folder = t.train(2, words, "train.max_steps=40", *parts)
    t.train(2, words, *keys, resume=True)
    t.check_same(words, t.newest(folder), t.newest(whole))
    t.check(t.rows(folder)[-1] == t.rows(whole)[-1], words + ": wanted the same last row of metrics.tsv")
    last = table(whole)[-1]
    shares = [last["gain_" + group] for group in ("recurrence", "hidden", "output")]
    t.check(abs(sum(shares) - 1) < 1e-6 and min(shares) > 0, "%s: wanted shares of the gain, found %s" % (words, shares))
    q = [last["q_" + group] for group in ("recurrence", "hidden", "output")]
    t.check(all(value not in (0, 1e-5) for value in q), "%s: wanted q to adapt, found %s" % (words, q))
    t.check(math.isfinite(last["score_z"]), words + ": wanted the successive-score test")


def kinds():
    """A gate that most steps do not pass."""
    keys = ["filter.gate=0.5", "filter.max_skips=1000", "train.max_steps=30", "train.epochs=2", *t.layout(1)]
    folder = t.train(1, "gated", *keys)
    last, summary = table(folder)[-1], t.summary(folder)
    t.check(last["skipped"] == last["skipped_gated"] > 20, "wanted gated steps counted, found %s" % last)
    t.check(summary["skipped_gated"] == last["skipped_gated"], "wanted the same count in summary.json")
    t.check(last["skipped_not_finite"] == last["skipped_indefinite"] == 0, "wanted no other kind, found %s" % last)


def refused(words, *keys):
    child = t.run(1, "train", t.path("empty.yaml"), "--output", t.path("refused"), *t.SMALL, *t.layout(1), *keys)
    lines = [line for line in child.err.splitlines() if line.startswith("kwm: error:")]
    t.check(child.code == 2 and len(lines) == 1 and words in lines[0], "%s: found %s:\n%s" % (words, child.code, child.err))


t.start()
band()
resumed("joint-float", "cov.joint=full", "cov.joint_real=float", "filter.adapt_noise=0.02", "model.width=16", "model.hidden=4")
resumed("mixture", *MIXTURE, "filter.adapt_noise=0.02")
resumed("information", "cov.recurrence.real=float", "cov.hidden.structure=diag", "cov.output.structure=lowrank")
kinds()
refused("filter.adapt_noise", "filter.adapt_noise=0.1")
refused("above 0, up to 1e6", "model.noise_variance=0")
t.finish()
