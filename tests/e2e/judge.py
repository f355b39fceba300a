#!/usr/bin/python3
"""kwm judge: a distance for every structure, and the distances that must be: more coupling kept is not farther away, and
what is refused is refused in one line."""
import sys

sys.dont_write_bytecode = True

import math

import lib_kwm as t

KEYS = ["model.width=16", "model.hidden=4", "train.batch=4", "train.max_steps=15"]


def table(*keys):
    child = t.run(1, "judge", t.path("empty.yaml"), *KEYS, *keys)
    t.check(child.code == 0, "wanted exit 0, found %s:\n%s" % (child.code, child.err))
    lines = [line.split("\t") for line in child.out.splitlines() if line and not line.startswith("#")]
    header, rows = lines[0], lines[1:]
    t.check(header[:4] == ["structure", "form", "kl_nats", "gain_error"], "wanted a table, found %s" % header)
    return {(row[0], row[1]): dict(zip(header[2:], map(float, row[2:]))) for row in rows}


def refused(words, *arguments):
    child = t.run(*arguments)
    lines = [line for line in child.err.splitlines() if line.startswith("kwm: error:")]
    t.check(child.code == 2 and len(lines) == 1 and words in lines[0], "%s: found %s:\n%s" % (words, child.code, child.err))


t.start()
found = table()
t.check(len(found) >= 13, "wanted every structure, found %d" % len(found))
for name, row in found.items():
    subspace = "subspace" in name[0]
    finite = [row[k] for k in row if k != "kl_nats" or not subspace]
    t.check(all(math.isfinite(value) for value in finite), "%s: wanted finite numbers, found %s" % (name, row))
    t.check(row["kl_nats"] > 0 and row["gain_error"] > 0, "%s: wanted distances above zero, found %s" % (name, row))
    t.check(math.isinf(row["kl_nats"]) == subspace, "%s: wanted a subspace infinitely far, found %s" % (name, row))


def kl(structure, form="innovation"):
    return found[(structure, form)]["kl_nats"]


t.check(kl("block/block") < kl("block/kron") < kl("block/diag") < kl("diag/diag"), "wanted less KL for more coupling")
low = [kl("lowrank/lowrank precision %d" % rank) for rank in (256, 64, 16)]
t.check(low[0] <= low[1] * (1 + 1e-6) and low[1] < low[2], "wanted less KL for a larger rank, found %s" % low)
near = kl("lowrank/lowrank diagonal 64")
t.check(near <= low[1] * (1 + 1e-3) and near < kl("diag/diag"), "wanted columns on a diagonal no farther, found %s" % near)
again = table()
for name in found:
    same = all(found[name][k] == again[name][k] for k in ("kl_nats", "gain_error", "trace_ratio", "MB") if not math.isnan(found[name][k]))
    t.check(same, "%s: wanted the same numbers again" % (name,))
refused("wanted 1 rank", 2, "judge", t.path("empty.yaml"), *KEYS, "model.width=32", "layout.owners=2")
refused("wanted at most 12000 parameters", 1, "judge", t.path("empty.yaml"))
t.finish()
