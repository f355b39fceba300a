#!/usr/bin/python3
"""kwm verify: every claim holds on 1 and 2 ranks with the same numbers, the JSON file says what the table says, and what is
refused is refused in one line."""
import sys

sys.dont_write_bytecode = True

import json
import math
import os

import lib_kwm as t

WORKS = 1e-9  # beyond this the distributed filter would not be the dense one; below, numbers are rounding


def verify(ranks, *words):
    """Exponents of times may miss their bounds on a loaded machine or in a build with sanitizers; nothing else may."""
    path = t.path("verify-%d.json" % ranks)
    child = t.run(ranks, "verify", "--json", path, *words)
    with open(path) as file:
        claims = json.load(file)
    slow = [claim["id"] for claim in claims if claim["timed"] and not claim["pass"]]
    wanted = 4 if slow else 0
    t.check(child.code == wanted, "%d ranks: wanted exit %d, found %s:\n%s\n%s" % (ranks, wanted, child.code, child.out, child.err))
    for claim in claims:
        t.check(claim["pass"] or claim["timed"], "%d ranks: wanted %s to hold, found %s" % (ranks, claim["id"], claim["number"]))
    failed = len(slow)
    t.check(child.out.splitlines()[-1].startswith("%d claims, %d failed, " % (len(claims), failed)), "wanted a last line that sums up")
    return child.out.splitlines(), claims


def near(a, b):
    return a == b or abs(a - b) <= 0.006 * max(abs(a), abs(b))


def refused(code, words, *arguments):
    child = t.run(1, "verify", *arguments)
    lines = [line for line in child.err.splitlines() if line.startswith("kwm: error:")]
    t.check(child.code == code and len(lines) == 1 and words in lines[0], "%s: found %s:\n%s" % (words, child.code, child.err))
    return child


t.start(data=False)
lines, one = verify(1)
_, two = verify(2)
rows = [line.split() for line in lines[1:-1]]
t.check(len(one) >= 30 and len(rows) == len(one), "wanted a line for every claim, found %d and %d" % (len(rows), len(one)))
t.check(len({claim["id"] for claim in one}) == len(one), "wanted unique ids")
for row, claim in zip(rows, one):
    same = row[:3] == ["pass" if claim["pass"] else "FAIL", claim["id"], claim["equations"]] and row[4] == claim["relation"]
    same = same and near(float(row[3]), claim["number"]) and near(float(row[5]), claim["bound"])
    t.check(same, "wanted the table's line as in the JSON file, found %s and %s" % (row, claim))
    words = claim["statement"].startswith("false as stated: ")
    t.check(words == (claim["kind"] == "paper"), "%s: wanted `false as stated` of the paper's forms only" % claim["id"])
for a, b in zip(one, two):
    varies = ("number", "spread", "pass") if a["timed"] else ("number", "spread")
    fixed = {k: a[k] for k in a if k not in varies} == {k: b[k] for k in b if k not in varies}
    full = a["id"].startswith("full-") and max(a["number"], b["number"]) < WORKS
    same = a["timed"] or full or (a["number"] == b["number"] and a["spread"] == b["spread"])
    t.check(fixed and same, "wanted the same on 1 and 2 ranks, found %s and %s" % (a, b))
fits = [claim for claim in one if claim["spread"] is not None]
t.check(len(fits) >= 20 and all(math.isfinite(claim["spread"]) for claim in fits), "wanted exponents with their spread")

refused(2, "found `--jsn`", "--jsn", "x")
refused(2, "wanted a file after --json", "--json")
refused(2, "wanted one --json, found two", "--json", t.path("a"), "--json", t.path("b"))
refused(2, "wanted seed= a whole number", "seed=-1")
refused(2, "wanted seed= a whole number", "seed=1x")
refused(2, "wanted one seed, found two", "seed=1", "seed=2")
gone = refused(1, "nowhere", "--json", t.path("nowhere", "x.json"))
t.check(" claims, " in gone.out, "wanted the table although its file can't be written")
t.check(not os.path.exists(t.path("a")), "wanted no file from refused words")
t.finish()
