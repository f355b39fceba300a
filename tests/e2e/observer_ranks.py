#!/usr/bin/python3
"""kwm eval of a text as streams over ranks: the same numbers on one, two and three of them, with every kind of state that
streams have or share, on the host and on a device; nothing of tokens to come; bad input in words from every rank's end."""
import sys

sys.dont_write_bytecode = True

import lib_kwm as t
import lib_observer

COMMON = ["correction.streams=5", "correction.split=valid", "correction.curve=true", "shift.kind=vocab-permute"]
SHARED = ["correction.kind=full", "correction.every=8", "correction.bias=0.3", "correction.readout=0.01", "correction.adapt=0.1"]
CASES = [
    SHARED + ["baseline.kind=rms", "baseline.rate=0.002"],
    SHARED + ["baseline.kind=dynamic", "baseline.rate=0.3", "backend=shadow"],
    ["correction.kind=full", "correction.form=topk", "correction.bias=0.3", "baseline.kind=cache", "baseline.window=200"],
    ["correction.kind=full", "correction.form=topk", "correction.adapt=0.1", "baseline.kind=cache", "backend=shadow"],
    ["correction.kind=diag", "correction.form=exact", "correction.adapt=0.1"],
    ["correction.kind=full", "correction.form=sampled"],
    ["correction.kind=lowrank", "correction.bias=0.3"],
    ["correction.kind=lowrank", "correction.every=8", "correction.layer=1", "correction.prior=4"],
    ["correction.kind=bias", "correction.bias=0.3", "stream.kind=topics", "stream.tasks=3", "baseline.kind=learner"],
]
TWICE = (0, 2)  # on two ranks as well
TIMED = ("_seconds_per_token", "_time_over_static")
COSTS = ("_operations_per_token", "_bytes")


def evaluate(ranks, folder, *words):
    """The lines of a run by their words, but for the clock's, as lists of what stands behind them."""
    child = t.run(ranks, "eval", folder, *COMMON, *words, "train.schedule=constant", "adam.rate=0.001")
    t.check(child.code == 0 and not child.err, "%s: wanted exit 0, found %s:\n%s" % (child.words, child.code, child.err))
    found = {}
    for line in child.out.splitlines():
        key, _, value = line.partition("\t")
        if key in ("curve", "bin"):
            method, at, value = value.split("\t", 2)
            key = "%s %s %s" % (key, method, at) if key == "curve" else "%s %s" % (key, method)
        if key.startswith("bin"):
            found.setdefault(key, []).append(value)
            continue
        t.check(key not in found, "%s: wanted one line, by one rank, found two of %s" % (child.words, key))
        if not key.endswith(TIMED):
            found[key] = value.split("\t")
    return found


def stands(key):
    """What nothing corrects and no ranks share: the same bits, in all digits printed."""
    return key.startswith(("static", "cache_perplexity", "curve static", "curve cache ", "bin static"))


def close(one, other):
    return one == other or abs(float(one) - float(other)) <= 2e-4 * max(1, abs(float(one)))


def compare(alone, others, words, ranks):
    t.check(list(alone) == list(others), "%s, %d ranks: wanted the same lines in one order" % (words, ranks))
    moves = "baseline.kind=learner" in words  # whole shares at once: other products of matrices
    for key, one in alone.items():
        other = others.get(key)
        if other is None or key.endswith(COSTS) or key.endswith("_window_norm") or (key.startswith("bin") and not stands(key)):
            continue
        same = one == other if stands(key) and not moves else all(close(*pair) for pair in zip(one, other))
        t.check(same, "%s, %d ranks: wanted %s %s, found %s" % (words, ranks, key, one, other))


def costs(words, alone, others, ranks):
    """Every rank moves all weights; what streams have is divided."""
    for name in ("rms_bytes", "dynamic_bytes"):
        if name in alone:
            ratio = float(others[name][0]) / float(alone[name][0])
            t.check(abs(ratio - ranks) < 1e-3, "%s: wanted %d times the weights, found %g" % (words, ranks, ratio))
    if "correction.form=topk" in words:
        same = all(alone[key] == others[key] for key in alone if key.endswith(COSTS))
        t.check(same, "%s: wanted the same cost on %d ranks" % (words, ranks))


def layouts(folder):
    found = {}
    runs = [(number, ranks) for number in range(len(CASES)) for ranks in (1, 2, 3) if ranks != 2 or number in TWICE]
    t.all_of(lambda number, ranks: found.update({(number, ranks): evaluate(ranks, folder, *CASES[number])}), runs)
    for number, ranks in runs:
        if ranks > 1:
            compare(found[number, 1], found[number, ranks], CASES[number], ranks)
            costs(CASES[number], found[number, 1], found[number, ranks], ranks)


def leaks(folder):
    """What changes from token 288 on changes nothing before, in any state that ranks share."""
    found = {}
    runs = [(number, when) for number in (0, 3) for when in ("288-", "100000-")]
    t.all_of(lambda number, when: found.update({(number, when): evaluate(2, folder, *CASES[number], "shift.schedule=" + when)}), runs)
    for number in (0, 3):
        words, after, never = CASES[number], found[number, "288-"], found[number, "100000-"]
        curve = [key for key in after if key.startswith("curve")]
        early = [key for key in curve if int(key.split()[2]) < 272]
        methods = {key.split()[1] for key in early}
        t.check(len(methods) == 4 and len(early) == 17 * 4, "%s: wanted 17 windows of 4 methods, found %s" % (words, early))
        t.check(all(after[key] == never[key] for key in early), "%s: wanted nothing of words to come" % words)
        t.check(any(after[key] != never[key] for key in curve), "%s: wanted the shift seen in the end" % words)


def plain(folder):
    """Windows of the whole text, also on more ranks than the model has layers."""
    one, three = (lib_observer.table(t.run(ranks, "eval", folder)) for ranks in (1, 3))
    ratio = three.get("test_perplexity", 0) / one["test_perplexity"]
    t.check(abs(ratio - 1) < 1e-4, "plain evaluation on three ranks: found %g times that on one" % ratio)


def refused(folder):
    cases = [
        (3, ["eval", folder, "correction.kind=full", "correction.streams=2"], "ranks: wanted at most correction.streams 2"),
        (2, ["eval", folder, "correction.kind=lowrank", "correction.rank=33"], "rank from 1 to 32, found 33"),
        (2, ["eval", folder, "correction.kind=full", "correction.streams=1000"], "correction.streams 1000"),
        (2, ["generate", folder], "ranks: wanted 1 with generate"),
    ]

    def check(ranks, words, text):
        child = t.run(ranks, *words)
        lines = [line for line in child.err.splitlines() if line.startswith("kwm: error:")]
        good = child.code == 2 and len(lines) == 1 and text in lines[0]
        t.check(good, "%s: wanted exit 2 and `%s`, found %s:\n%s" % (words, text, child.code, child.err))

    t.all_of(check, cases)


t.start(data=False)
run = lib_observer.model()
layouts(run)
leaks(run)
plain(run)
refused(run)
t.finish()
