#!/usr/bin/python3
"""kwm plan's largest total lies within 10 % of what the largest rank then takes, for standard model sizes."""
import sys

sys.dont_write_bytecode = True

import os

import lib_kwm as t

STEPS = "train.max_steps=12"  # past the first eigenbases and the checkpoint at the end
FASHION = "/usr/share/datasets/fashion-mnist"  # Debian's package dataset-fashion-mnist


def planned(words, ranks, keys):
    child = t.run(ranks, "plan", t.path("empty.yaml"), *keys)
    t.check(child.code == 0 and not child.err, "%s: wanted a plan, found exit %s:\n%s" % (words, child.code, child.err))
    table = [line.split("\t") for line in child.out.splitlines() if line and not line.startswith("#")]
    if not t.check(len(table) == ranks + 1, "%s: wanted a header and %d ranks:\n%s" % (words, ranks, child.out)):
        return 0
    column = table[0].index("total_bytes")
    t.check([row[0] for row in table[1:]] == [str(r) for r in range(ranks)], words + ": wanted a row for each rank")
    for group, total in (("units", 256), ("hidden", 1), ("output", 1)):
        at = table[0].index(group)
        owned = sum(int(row[at]) for row in table[1:])
        t.check(owned % total == 0 and owned > 0, "%s: wanted each of %s owned, found %d" % (words, group, owned))
    return max(int(row[column]) for row in table[1:])


def compare(name, ranks, *keys):
    words = "%s, %d ranks, %s" % (name, ranks, " ".join(keys))
    plan = planned(words, ranks, keys)
    folder = t.path("run-%d" % compare.runs)
    compare.runs += 1
    child = t.run(ranks, "train", t.path("empty.yaml"), "--output", folder, STEPS, *keys)
    if not t.check(child.code == 0, "%s: wanted exit 0, found %s:\n%s" % (words, child.code, child.err)):
        return
    peak = t.summary(folder)["peak_bytes_per_rank"]
    print("%s: planned %.1f MB, taken %.1f MB (%.3f)" % (words, plan / 1e6, peak / 1e6, plan / peak))
    t.check(abs(plan - peak) < 0.1 * peak, "%s: wanted a plan within 10 %% of %d bytes, found %d" % (words, peak, plan))


compare.runs = 0
t.start()
compare("tiny data", 2)
compare("tiny data", 1, *t.layout(1))
compare("tiny data", 2, "learner=adam")
compare("tiny data", 2, "learner=sgd")
compare("tiny data", 2, *t.layout(1, 2))
compare("tiny data", 4, *t.layout(2, 1, 2))
compare("tiny data", 2, "cov.recurrence.form=innovation", "train.batch=60")
compare("tiny data", 2, "cov.joint=full", "model.hidden=4", "train.batch=50")
compare("tiny data", 2, *["cov.%s.structure=diag" % group for group in ("recurrence", "hidden", "output")])
compare("tiny data", 2, "cov.hidden.structure=lowrank", "cov.hidden.form=innovation", "train.batch=20", "model.hidden=64")
compare("tiny data", 2, "model.width=512", "model.hidden=384", "data.validation=100")
if os.path.isdir(FASHION):
    os.environ["KWM_DATA"] = FASHION
    compare("Fashion-MNIST", 2)
    compare("Fashion-MNIST", 2, "learner=adam", "data.validation=10000")
else:
    print("skipped: Fashion-MNIST (dataset-fashion-mnist is not installed)")
t.finish()
