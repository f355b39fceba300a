#!/usr/bin/python3
"""The answer does not depend on the number of ranks.

Bit for bit: the information form, in every legal layout, all arrays of the final checkpoint against those of one rank;
counts and metrics are sums of doubles over replicas and agree to a relative 1e-9.
Checkpoints move between layouts: what 4 ranks began goes on on 1 and 2 ranks, with the same arrays, bit for bit.
The innovation form sums S over the owners in another order. To 1e-3 of each array's largest element after 5 steps; then
the eigenbasis of the read-out is refreshed, whose vectors of nearly equal eigenvalues turn with the last digit, so
that after 50 steps only the loss is compared.
The joint covariance (cov.joint=full) has no basis: to 1e-3 of each array's largest element after 40 steps, in every layout
and for a run that moves from 4 ranks to 1; a resumed run on the same layout agrees bit for bit.
diag agrees bit for bit like the default structures; lowrank, which shares S, to 1e-3 after 10 steps, and resumes bit for bit.
"""
import sys

sys.dont_write_bytecode = True

import numpy as np

import lib_kwm as t

STEPS = "train.max_steps=120"
EPOCHS = "train.epochs=20"  # 15 steps each
NOISE = ["model.dropout=0.2", "data.shift=1"]  # what is drawn depends on no layout
LAYOUTS = [  # stages, owners, replicas
    (2, 1, 1),
    (1, 2, 1),
    (1, 1, 2),
    (2, 2, 1),
    (2, 1, 2),
    (1, 4, 1),
    (1, 1, 4),
    (1, 2, 2),
]
ROUNDING = 1e-9
INNOVATION = ["cov.recurrence.form=innovation", EPOCHS, "model.width=32"]


def ranks(layout):
    return int(np.prod(layout))


def information(one):
    for layout in LAYOUTS:
        words = "stages %d x owners %d x replicas %d" % layout
        keys = [STEPS, EPOCHS, *NOISE, "checkpoint.every=60", *t.layout(*layout)]
        folder = t.train(ranks(layout), words.replace(" ", "-"), *keys)
        t.check_same(words + " against one rank", t.newest(folder), t.newest(one), ROUNDING)
        t.check(t.close_rows(t.rows(folder), t.rows(one), 1e-7), words + ": wanted the same metrics.tsv")


def close(words, found, wanted):
    for name in wanted:
        if not name.startswith(("/params/", "/cov/")):
            continue
        scale = np.abs(wanted[name]).max()
        worst = np.abs(found[name].astype(float) - wanted[name]).max() / scale
        t.check(worst < 1e-3, "%s: %s: wanted it within 1e-3 of one rank's, found %g" % (words, name, worst))


def innovation():
    def pair(stages, owners):
        keys, ranks = [*INNOVATION, *t.layout(stages, owners)], stages * owners
        name = "innovation-%d-%d" % (stages, owners)
        early = t.train(ranks, name + "-early", "train.max_steps=5", *keys)
        late = t.train(ranks, name + "-late", "train.max_steps=50", *keys)
        return t.arrays(t.newest(early)), t.summary(late)["test_loss"]

    wanted, loss = pair(1, 1)
    t.check("/cov/recurrence/covariance" in wanted, "innovation: wanted the covariance in the checkpoint")
    for stages, owners in ((2, 1), (1, 2), (2, 2)):
        words = "innovation, stages %d x owners %d" % (stages, owners)
        found, its_loss = pair(stages, owners)
        close(words, found, wanted)
        t.check(abs(its_loss - loss) < 0.2 * loss, "%s: wanted a loss near %g, found %g" % (words, loss, its_loss))


def resumes(words, ranks, folder, keys, half, whole):
    """half and then whole steps give the same arrays as the run in folder, bit for bit."""
    parts = words.replace(" ", "-") + "-parts"
    t.train(ranks, parts, "train.max_steps=%d" % half, *keys)
    again = t.train(ranks, parts, "train.max_steps=%d" % whole, *keys, resume=True)
    t.check_same(words + ", resumed", t.newest(again), t.newest(folder), ROUNDING)


def structures():
    groups = ("recurrence", "hidden", "output")
    diag = [EPOCHS, *["cov.%s.structure=diag" % group for group in groups]]
    one = t.train(1, "diag-1", "train.max_steps=60", *diag, *t.layout(1))
    for layout in ((2, 1, 1), (1, 2, 2), (1, 1, 4)):
        words = "diag, stages %d x owners %d x replicas %d" % layout
        folder = t.train(ranks(layout), words.replace(" ", "-"), "train.max_steps=60", *diag, *t.layout(*layout))
        t.check_same(words + " against one rank", t.newest(folder), t.newest(one), ROUNDING)
    resumes("diag", 2, one, [*diag, *t.layout(2)], 25, 60)
    for kind in ("precision", "covariance", "subspace", "diagonal"):
        keys = [EPOCHS, "model.width=32", "cov.hidden.structure=lowrank", "cov.hidden.rank=8", "cov.hidden.kind=" + kind,
                *["cov.%s.form=innovation" % group for group in groups]]
        words = "lowrank " + kind
        wanted = t.train(1, words.replace(" ", "-"), "train.max_steps=10", *keys, *t.layout(1))
        found = t.train(2, words.replace(" ", "-") + "-2", "train.max_steps=10", *keys, *t.layout(2))
        close(words, {k: v for k, v in t.arrays(t.newest(found)).items() if k.startswith("/params/")},
              {k: v for k, v in t.arrays(t.newest(wanted)).items() if k.startswith("/params/")})
        longer = t.train(2, words.replace(" ", "-") + "-longer", "train.max_steps=20", *keys, *t.layout(2))
        resumes(words, 2, longer, [*keys, *t.layout(2)], 10, 20)


def joint():
    keys = ["cov.joint=full", EPOCHS, "model.width=32", "model.hidden=4", "checkpoint.every=20"]
    wanted = t.arrays(t.newest(t.train(1, "joint-1", "train.max_steps=40", *keys, *t.layout(1))))
    t.check("/cov/full/covariance" in wanted, "joint: wanted the covariance in the checkpoint")
    for stages, owners in ((2, 1), (1, 2), (2, 2)):
        words = "joint, stages %d x owners %d" % (stages, owners)
        layout = t.layout(stages, owners)
        whole = t.train(stages * owners, words.replace(" ", "-"), "train.max_steps=40", *keys, *layout)
        close(words, t.arrays(t.newest(whole)), wanted)
        resumes(words, stages * owners, whole, [*keys, *layout], 20, 40)
    moved = t.train(4, "joint-moved", "train.max_steps=20", *keys, *t.layout(2, 2))
    t.train(1, "joint-moved", "train.max_steps=40", *keys, *t.layout(1), resume=True)
    close("joint, from 4 ranks to 1", t.arrays(t.newest(moved)), wanted)


def elastic(one):
    for fewer, more in (((1, 1, 1), (2, 2, 1)), ((2, 1, 1), (1, 1, 4)), ((1, 1, 2), (1, 4, 1))):
        words = "from %s to %s" % (more, fewer)
        name = words.replace(" ", "")
        keys = [EPOCHS, *NOISE, "checkpoint.every=35"]
        folder = t.train(ranks(more), name, "train.max_steps=70", *keys, *t.layout(*more))
        t.check(t.newest(folder).endswith("step-0000000070.h5"), words + ": wanted a checkpoint at step 70")
        t.train(ranks(fewer), name, STEPS, *keys, *t.layout(*fewer), resume=True)
        t.check_same(words, t.newest(folder), t.newest(one), ROUNDING)


def learns(one):
    accuracy = t.summary(one)["test_accuracy"]
    t.check(accuracy > 0.4, "one rank: wanted a test accuracy above 0.4, found %g" % accuracy)


t.start()
one_rank = t.train(1, "one", STEPS, EPOCHS, *NOISE, "checkpoint.every=60", *t.layout(1))
learns(one_rank)
information(one_rank)
elastic(one_rank)
innovation()
structures()
joint()
t.finish()
