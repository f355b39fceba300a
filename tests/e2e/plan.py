#!/usr/bin/python3
"""kwm plan's largest total lies within 10 % of what the largest rank then takes, for every structure; what takes more
than layout.memory_gb is refused, and what is proposed in its place runs and fits."""
import sys

sys.dont_write_bytecode = True

import os

import lib_kwm as t

# Past the first eigenbases, a checkpoint between them and one at the end: the copy for the background stays.
STEPS = ["train.epochs=4", "train.max_steps=12", "checkpoint.every=3"]
FASHION = "/usr/share/datasets/fashion-mnist"  # Debian's package dataset-fashion-mnist


def value(keys, key, initial):
    return ([word.split("=")[1] for word in keys if word.startswith(key + "=")] or [initial])[-1]


def table_of(child):
    """The largest of the ranks' total_bytes."""
    rows = [line.split("\t") for line in child.out.splitlines() if line and not line.startswith("#")]
    return max(int(row[rows[0].index("total_bytes")]) for row in rows[1:]) if len(rows) > 1 else 0


def planned(words, ranks, keys):
    child = t.run(ranks, "plan", t.path("empty.yaml"), *keys)
    t.check(child.code == 0 and not child.err, "%s: wanted a plan, found exit %s:\n%s" % (words, child.code, child.err))
    table = [line.split("\t") for line in child.out.splitlines() if line and not line.startswith("#")]
    if not t.check(len(table) == ranks + 1, "%s: wanted a header and %d ranks:\n%s" % (words, ranks, child.out)):
        return 0
    operations = [float(row[table[0].index("Mflop_per_step")]) for row in table[1:]]
    t.check(min(operations) > 0, "%s: wanted operations on every rank, found %s" % (words, operations))
    t.check([row[0] for row in table[1:]] == [str(r) for r in range(ranks)], words + ": wanted a row for each rank")
    for group, total in (("units", int(value(keys, "model.width", "256"))), ("hidden", 1), ("output", 1)):
        at = table[0].index(group)
        owned = sum(int(row[at]) for row in table[1:])
        t.check(owned % total == 0 and owned > 0, "%s: wanted each of %s owned, found %d" % (words, group, owned))
    return table_of(child)


def compare(name, ranks, *keys):
    words = "%s, %d ranks, %s" % (name, ranks, " ".join(keys))
    plan = planned(words, ranks, keys)
    folder = t.path("run-%d" % compare.runs)
    compare.runs += 1
    child = t.run(ranks, "train", t.path("empty.yaml"), "--output", folder, *STEPS, *keys)
    if not t.check(child.code == 0, "%s: wanted exit 0, found %s:\n%s" % (words, child.code, child.err)):
        return
    peak = t.summary(folder)["peak_bytes_per_rank"]
    print("%s: planned %.1f MB, taken %.1f MB (%.3f)" % (words, plan / 1e6, peak / 1e6, plan / peak))
    t.check(abs(plan - peak) < 0.1 * peak, "%s: wanted a plan within 10 %% of %d bytes, found %d" % (words, peak, plan))


SMALL = ["model.width=32", "model.hidden=32", "train.batch=20", "train.max_steps=3"]


def structures():
    block = ["cov.hidden.structure=block", *SMALL]
    compare("tiny data", 2, *block)
    compare("tiny data", 2, "cov.hidden.form=innovation", "cov.hidden.real=double", *block)
    low = ["cov.hidden.structure=lowrank", "cov.hidden.rank=64", "model.hidden=64", "train.batch=20"]
    compare("tiny data", 2, "cov.hidden.real=double", "train.max_steps=3", *low)
    compare("tiny data", 2, "cov.hidden.kind=diagonal", "cov.hidden.form=innovation", "train.max_steps=3", *low)
    compare("tiny data", 2, "cov.hidden.real=double", "cov.output.real=double", "cov.recurrence.real=float")
    # The first stage keeps no block of it, but all that is as large as the rows.
    spread = ["cov.hidden.structure=diag", "cov.output.structure=lowrank", "model.width=1024", "model.hidden=16"]
    compare("tiny data", 2, *spread, "train.max_steps=3")
    joint = ["cov.joint=full", "cov.joint_real=float", "filter.process_noise=1e-6", "model.width=64", "model.hidden=4"]
    compare("tiny data", 2, *joint, "train.batch=20", "train.max_steps=3")


def devices():
    """A column for a device's memory: nothing without one; what a larger net and a larger mini-batch ask of it."""
    def column(*keys):
        child = t.run(1, "plan", t.path("empty.yaml"), *t.layout(1), *keys)
        rows = [line.split("\t") for line in child.out.splitlines() if line and not line.startswith("#")]
        return float(rows[1][rows[0].index("device_MB")])

    t.check(column() == 0, "backend cpu: wanted nothing on a device")
    least, wider, longer = column("backend=shadow"), column("backend=shadow", "model.hidden=512"), column("backend=cuda", "train.batch=200")
    t.check(0 < least < wider and least < longer, "wanted more of a device for a wider net or batch, found %g, %g, %g MB" % (least, wider, longer))


def choices(child):
    """(MB, words) of the proposals in kwm plan's comments, the richest first."""
    rows = [line[1:].split(None, 3) for line in child.out.splitlines() if line.startswith("# ")]
    found = [(float(row[1]), row[3]) for row in rows if len(row) == 4 and row[0].isdigit() and row[1][0].isdigit() and "." in row[1]]
    return [(mb, [] if words == "(as configured)" else words.split()) for mb, words in found]


def refused(words, command, texts, *keys):
    """Exit 2 and one line; kwm train says nothing else and makes no folder."""
    folder = t.path("refused")
    output = ["--output", folder] if command == "train" else []
    child = t.run(2, command, t.path("empty.yaml"), *output, *keys)
    found = "%s, %s: found exit %s:\n%s%s" % (command, words, child.code, child.out, child.err)
    lines = child.err.splitlines()
    t.check(child.code == 2 and len(lines) == 1, "wanted exit 2 and one line, " + found)
    for text in texts:
        t.check(text in child.err, "wanted `%s`, " % text + found)
    t.check(not os.path.exists(folder) and (command == "plan" or child.out == ""), "wanted nothing made, " + found)
    return child


def check_choice(mb, choice, key, budget):
    child = t.run(2, "plan", t.path("empty.yaml"), key, *choice)
    t.check(child.code == 0, "%s: wanted exit 0, found %s:\n%s" % (choice, child.code, child.err))
    same = abs(table_of(child) - mb * 1e6) < 3e6 and mb * 1e6 <= budget
    t.check(same, "%s: wanted %.1f MB, within %d bytes, found %d" % (choice, mb, budget, table_of(child)))


def budgets():
    diag = ["cov.%s.structure=diag" % group for group in ("recurrence", "hidden", "output")]
    most, least = (table_of(t.run(2, "plan", t.path("empty.yaml"), *keys)) for keys in ([], diag))
    budget = (most + least) // 2
    key = "layout.memory_gb=%.6f" % (budget / 1e9)
    for command in ("train", "plan"):
        child = refused("half the budget", command, ["memory: wanted at most", "layout.memory_gb", "fits: cov."], key)
    t.check(abs(table_of(child) - most) < 3e6, "plan, refused: wanted its table, found:\n" + child.out)
    words = child.err.split("fits: ")[1].split(" [")[0].split()
    found = choices(child)
    t.check(0 < len(found) <= 5 and found[0][1] == words, "wanted %s and up to 4 more, found %s" % (words, found))
    t.all_of(check_choice, [(mb, choice, key, budget) for mb, choice in found])
    compare("proposal", 2, key, *words)
    nothing = ["layout.memory_gb=0.001"]
    refused("nothing fits", "train", ["found", "no choice of structures fits"], *nothing)
    refused("sgd", "train", ["no choice of structures fits"], "learner=sgd", *nothing)
    refused("a huge block", "train", ["a matrix larger than its libraries take", "fits: cov."], "cov.hidden.structure=block")
    for bad in ("-1", "x", "1e7"):
        refused("bad value", "plan", ["layout.memory_gb=" + bad, "wanted"], "layout.memory_gb=" + bad)


def kinds_of_choices():
    child = t.run(2, "plan", t.path("empty.yaml"), *t.layout(1, 1, 2))
    words = [word for _, choice in choices(child) for word in choice]
    wrong = [word for word in words if "lowrank" in word or word == "cov.joint=full"]
    t.check(words and not wrong, "replicas: wanted neither lowrank nor full, found %s" % words)
    with open("/proc/meminfo", encoding="ascii") as file:
        there = [int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable:")][0]
    share = [line.split("at most ")[1] for line in child.out.splitlines() if "of what its host has" in line]
    near = len(share) == 1 and abs(2e6 * float(share[0].split()[0]) - there) < 0.3 * there
    t.check(near, "wanted half of %d bytes as the budget, found:\n%s" % (there, child.out))
    # All fits: the exact filter is the richest, in float because that takes less.
    joint = ["cov.joint=full", "cov.joint_real=float"]
    child = t.run(2, "plan", t.path("empty.yaml"), *SMALL)
    found = choices(child)
    t.check(len(found) == 5 and found[0][1] == joint, "small: wanted %s first of 5, found %s" % (joint, found))
    child = t.run(2, "plan", t.path("empty.yaml"), *SMALL, *joint)
    away = [choice for _, choice in choices(child) if "cov.joint=none" in choice]
    t.check(child.code == 0 and away, "joint: wanted ways back to groups, found:\n" + child.out)
    if away:
        compare("from joint", 2, *SMALL, *joint, *away[0])


compare.runs = 0
t.start()
budgets()
devices()
kinds_of_choices()
structures()
compare("tiny data", 2)
compare("tiny data", 1, *t.layout(1))
compare("tiny data", 2, "learner=adam")
compare("tiny data", 2, "learner=sgd")
compare("tiny data", 2, *t.layout(1, 2))
compare("tiny data", 4, *t.layout(2, 1, 2))
compare("tiny data", 2, "cov.recurrence.form=innovation", "train.batch=60")
compare("tiny data", 2, "cov.joint=full", "model.width=128", "model.hidden=4", "train.batch=50", "train.max_steps=3")
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
