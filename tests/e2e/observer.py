#!/usr/bin/python3
"""Correcting activations on text that drifts: kwm eval with every kind and form of correction, every shift, all baselines,
documents by topic; analysis/observer; kwm generate with and without correction; bad input in words."""
import sys

sys.dont_write_bytecode = True

import os
import random

import lib_kwm as t
import lib_observer
import lib_page

STREAMS = ["correction.streams=4"]


def evaluate(folder, *words):
    child = t.run(1, "eval", folder, *STREAMS, *words)
    t.check(child.code == 0, "%s: wanted exit 0, found %s:\n%s" % (child.words, child.code, child.err))
    found = lib_observer.table(child)
    t.check("static_perplexity" in found, "%s: wanted static_perplexity, found\n%s" % (child.words, child.out))
    return found


def kinds(folder):
    plain = lib_observer.table(t.run(1, "eval", folder))
    static = evaluate(folder, "shift.kind=none", "baseline.kind=cache", "baseline.share=0")
    t.check(abs(static["cache_perplexity"] / static["static_perplexity"] - 1) < 1e-3, "a cache of no weight: %s" % static)
    # Other windows of the same text, and its first token: near, not equal.
    ratio = static["static_perplexity"] / plain["test_perplexity"]
    t.check(0.9 < ratio < 1.1, "static and plain evaluation: wanted about the same, found ratio %g" % ratio)
    cases = [["correction.kind=" + kind, "correction.form=" + form] for kind in ("full", "diag") for form in ("observed", "topk", "sampled", "exact")]
    cases += [["correction.kind=lowrank", "correction.every=8", "correction.bias=0.3"]]
    cases += [["correction.kind=bias", "correction.bias=0.3", "correction.every=8", "correction.readout=0.01"]]
    cases += [["correction.kind=full", "correction.adapt=0.1", "correction.noise=1e-6"]]
    cases += [["correction.kind=lowrank", "correction.every=8", "correction.layer=1", "correction.prior=4"]]
    cases += [["correction.kind=lowrank"], ["correction.kind=lowrank", "correction.cut=0"], ["correction.kind=bias", "correction.bias=1"]]
    found = {}
    t.all_of(lambda *words: found.update({words: evaluate(folder, "shift.kind=vocab-permute", *words)}), cases)
    for words, one in found.items():
        t.check(one["shift_targets_changed"] > 0 and one["shift_words_moved"] > 10, "%s: %s" % (words, one))
        t.check(0 < one["corrected_nis"] < 10 and one["corrected_restarts"] == 0, "%s: %s" % (words, one))
        wanted = one["corrected_perplexity"] < one["static_perplexity"]
        t.check(wanted, "%s: wanted corrected below static under vocab-permute, found %s" % (words, one))
    for words, one in found.items():
        if "correction.adapt=0.1" in words:
            t.check(one["corrected_noise"] != 1e-6 and 0.5 < one["corrected_scale"] < 2, "%s: %s" % (words, one))
    still = evaluate(folder, "correction.kind=full", "correction.every=16", "correction.layer=1", "correction.prior=1e-9", "correction.noise=0")
    ratio = still["corrected_over_static"]
    t.check(abs(ratio - 1) < 2e-4, "a layer without an offset: wanted the static perplexity, found %g times that" % ratio)
    same = {one["static_perplexity"] for one in found.values()}
    t.check(len(same) == 1, "wanted one static perplexity, found %s" % same)


def shifts(folder):
    for kind, dropped, permuted in (("token-dropout", True, False), ("both", True, True), ("random", False, True)):
        one = evaluate(folder, "shift.kind=" + kind, "correction.kind=full")
        t.check((one["shift_inputs_dropped"] > 0) == dropped, "%s: %s" % (kind, one))
        t.check((one["shift_targets_changed"] > 0) == permuted, "%s: %s" % (kind, one))
        t.check(one["corrected_over_static"] < 1.05, "%s: wanted no loss, found %s" % (kind, one))
    part = evaluate(folder, "shift.kind=vocab-permute", "shift.schedule=100-200", "correction.split=valid")
    t.check(part["shift_tokens"] == 400 and part["split"] == "valid", "a schedule of 100 tokens in 4 streams: %s" % part)
    seeds = [evaluate(folder, "shift.kind=vocab-permute", "shift.seed=%d" % seed)["static_perplexity"] for seed in (1, 1, 2)]
    t.check(seeds[0] == seeds[1] != seeds[2], "wanted the same for the same seed alone, found %s" % seeds)


def baselines(folder):
    shift = "shift.kind=vocab-permute"
    still = evaluate(folder, shift, "baseline.kind=dynamic", "baseline.rate=0")
    t.check(abs(still["dynamic_over_static"] - 1) < 1e-3, "a rate of 0: wanted the static perplexity, found %s" % still)
    for words in (["baseline.kind=dynamic", "baseline.rate=0.3"], ["baseline.kind=rms", "baseline.rate=0.002"], ["baseline.kind=cache", "baseline.window=200"]):
        one = evaluate(folder, shift, *words)
        name = words[0].partition("=")[2]
        t.check(one[name + "_over_static"] < 1, "%s: wanted less than static, found %s" % (words, one))
        t.check(one[name + "_operations_per_token"] > one["static_operations_per_token"], "%s: %s" % (words, one))
    both = evaluate(folder, shift, "correction.kind=full", "baseline.kind=cache", "baseline.window=200")
    alone = min(both["corrected_perplexity"], both["cache_perplexity"])
    t.check(both["cache_corrected_perplexity"] < alone, "wanted both together below either alone, found %s" % both)
    t.check(one["cache_perplexity"] == both["cache_perplexity"], "wanted the same cache, found %s, %s" % (one, both))
    bias = ["correction.kind=bias", "correction.bias=0.3"]
    moved = evaluate(folder, shift, *bias, "baseline.kind=rms", "baseline.rate=0.002")
    alone = min(moved["corrected_perplexity"], moved["rms_perplexity"])
    t.check(moved["rms_corrected_perplexity"] < alone, "wanted both together below either alone, found %s" % moved)
    t.check(one["cache_seconds_per_token"] > 0, "wanted a time, found %s" % one)


def devices(folder):
    words = ["correction.form=topk", "correction.bias=0.3", "shift.kind=both", "baseline.kind=rms", "baseline.rate=0.001"]
    here, there = (evaluate(folder, "correction.kind=full", "backend=" + name, *words) for name in ("cpu", "shadow"))
    for name in ("static", "corrected", "rms", "rms_corrected"):
        ratio = there[name + "_perplexity"] / here[name + "_perplexity"]
        t.check(abs(ratio - 1) < 1e-3, "%s on a device: wanted what the host gives, found %g times that" % (name, ratio))


def topics(folder):
    words = ["stream.kind=topics", "stream.tasks=3", "baseline.kind=learner", "train.schedule=constant", "adam.rate=0.001"]
    words += ["correction.kind=bias", "correction.bias=0.3", "correction.curve=true", "shift.kind=vocab-permute"]
    child = t.run(1, "eval", folder, *STREAMS, *words, "shift.schedule=500-1000")
    t.check(child.code == 0, "topics: found %s:\n%s" % (child.code, child.err))
    found = lib_observer.table(child)
    for method in ("static", "corrected", "learner", "learner_corrected"):
        parts = [found["%s_domain%d_perplexity" % (method, k)] for k in (1, 2, 3)]
        t.check(min(parts) <= found[method + "_perplexity"] <= max(parts), "%s by topic: found %s" % (method, parts))
        t.check(method + "_first_domain_after3" in found, "%s: wanted what is left of the first topic" % method)
    t.check(found["static_forgetting"] == 1 != found["learner_forgetting"], "forgetting: found %s" % found)
    t.check(found["learner_first_domain_after0"] == found["static_first_domain_after0"], "before the text: %s" % found)
    t.check(found["learner_corrected_perplexity"] < found["learner_perplexity"] < found["static_perplexity"], "%s" % found)
    with open(t.path("topics.txt"), "w", encoding="ascii") as file:
        file.write(child.out)
    drawn = lib_page.called("observer", t.path("topics.txt"), "--window", "64")
    t.check(drawn.returncode == 0 and os.path.getsize(t.path("topics.png")) > 20000, "picture: found %s" % drawn.stderr)
    lib_page.refused(3, "correction.curve=true", t.path("texts/test.txt"), name="observer")


def generate(folder):
    prompt = ["--prompt", "w1 w2 @-@ w3 ( w4 ) , no-such-word ."]
    words = ["generate", folder, *prompt, "tokens=30", "temperature=0.8"]
    one, again = t.run(1, *words), t.run(1, *words)
    t.check(one.code == 0 and one.out.startswith("w1 w2-w3 (w4), <unk>."), "prompt: found\n%s%s" % (one.out, one.err))
    t.check("1 of the prompt's 10 words" in one.err, "an unknown word: wanted to be told, found %s" % one.err)
    t.check(one.out == again.out and one.out.endswith("\n"), "wanted the same twice, found\n%s\n%s" % (one.out, again.out))
    t.check(" ." not in one.out and " ," not in one.out, "wanted no space before punctuation, found\n%s" % one.out)
    other = t.run(1, *words, "generate.seed=2")
    t.check(other.code == 0 and other.out != one.out, "another seed: wanted another text, found\n%s" % other.out)
    empty = t.run(1, "generate", folder, "tokens=40", "temperature=0.8")
    t.check(empty.code == 0 and len(empty.out.split()) > 20, "no prompt: found\n%s%s" % (empty.out, empty.err))
    # A long prompt of the permuted words w0 .. w9 alone: what it corrected is seen in what follows.
    draw = random.Random(1)
    with open(t.path("prompt.txt"), "w", encoding="ascii") as file:
        file.write(" ".join("w%d" % (200 + draw.randrange(10)) for _ in range(100)))
    counts = []
    for correction in (["correction.kind=off"], ["correction.kind=full", "correction.prior=4"]):
        child = t.run(1, "generate", folder, "--file", t.path("prompt.txt"), "tokens=200", *correction)
        t.check(child.code == 0, "%s: found %s" % (child.words, child.err))
        drawn = child.out.replace("\n", " ").replace(".", " ").replace(",", " ").split()[100:]
        counts.append(sum(word in {"w%d" % k for k in range(200, 210)} for word in drawn))
    t.check(counts[1] > counts[0], "wanted more of the prompt's words after correction, found %s" % counts)


def refused(folder):
    cases = [
        (2, ["eval", folder, "correction.kind=some"], "off, full, lowrank, diag"),
        (2, ["eval", folder, "correction.kind=lowrank", "correction.rank=33"], "rank from 1 to 32, found 33"),
        (2, ["eval", folder, "correction.kind=full", "correction.streams=1000"], "correction.streams 1000"),
        (2, ["eval", folder, "shift.kind=vocab-permute", "shift.schedule=soon"], "schedule"),
        (2, ["eval", folder, "correction.kind=lowrank", "correction.form=topk"], "observed form"),
        (2, ["eval", folder, "correction.kind=bias"], "variance of the bias above 0"),
        (2, ["eval", folder, "correction.kind=diag", "correction.every=4"], "blocks of full or lowrank"),
        (2, ["eval", folder, "correction.kind=lowrank", "correction.adapt=0.1"], "full or diag to adapt"),
        (2, ["eval", folder, "correction.kind=full", "correction.layer=3"], "correction.layer: wanted at most the model's 2"),
        (2, ["eval", folder, "correction.kind=full", "correction.layer=1", "correction.bias=1"], "without bias"),
        (2, ["generate"], "run directory"),
        (2, ["generate", folder, "--prompt"], "after --prompt"),
        (2, ["generate", folder, "--prompt", "a", "--file", "b"], "found two"),
        (2, ["generate", folder, "tokens=none"], "generate.tokens=none"),
        (3, ["generate", folder, "--file", t.path("nowhere.txt")], "nowhere.txt"),
    ]

    def check(code, words, text):
        child = t.run(1, *words)
        good = child.code == code and child.err.startswith("kwm: error:") and child.err.count("\n") == 1
        t.check(good and text in child.err, "%s: wanted exit %d and `%s`, found %s:\n%s" % (words, code, text, child.code, child.err))

    t.all_of(check, cases)


t.start(data=False)
run = lib_observer.model()
kinds(run)
shifts(run)
baselines(run)
devices(run)
topics(run)
generate(run)
refused(run)
t.finish()
