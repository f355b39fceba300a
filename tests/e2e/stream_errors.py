#!/usr/bin/python3
"""Streams of tasks, the dense model and what belongs to them, asked wrongly: the right exit code, one line that names the
key, and nothing is written."""
import sys

sys.dont_write_bytecode = True

import shutil

import lib_data
import lib_kwm as t

USAGE, DATA = 2, 3
GATED = [*t.SMALL, "train.max_steps=2", *t.layout(1)]
DENSE = [*GATED, "model.kind=dense", "model.widths=8 4", "sensitivity=adjoint"]
SAMPLED = [*DENSE, "filter.evidence=sampled"]
PERMUTED = [*SAMPLED, "stream.kind=permuted", "stream.tasks=3"]

_cases = []


def refused(code, texts, keys, *wrong, ranks=1):
    """A case for later: train, and now and then plan, which refuses by the same code."""
    _cases.append((len(_cases), code, texts, [*keys, *wrong], wrong, ranks))


def one_line(words, child, code, texts, told=()):
    """told: how lines begin that may come before."""
    found = "%s: found exit %s:\n%s%s" % (words, child.code, child.out, child.err)
    lines = [line for line in child.err.splitlines() if not line.startswith(tuple(told))]
    t.check(child.code == code, "wanted exit %d, " % code + found)
    one = child.out == "" and len(lines) == 1 and lines[0].startswith("kwm: error: ")
    t.check(one, "wanted one error line and nothing else, " + found)
    for text in texts:
        t.check(text in child.err, "wanted `%s`, " % text + found)


def check_refused(number, code, texts, keys, wrong, ranks):
    output = t.path("refused-%d" % number)
    for command, place in (("train", ["--output", output]), ("plan", []))[: 2 if number % 8 == 0 else 1]:
        words = "%s %s" % (command, " ".join(wrong))
        one_line(words, t.run(ranks, command, t.path("empty.yaml"), *place, *keys), code, texts)
        t.check(t.contents(output) is None, words + ": wanted no folder")


def values():
    """Each key by itself: its range is told."""
    words = {"stream.kind": "none, permuted, rotated, split, list", "stream.boundaries": "unknown, known, blended",
             "change.reaction": "none, inflate", "model.kind": "gated, dense", "sensitivity": "forward, stage, adjoint",
             "filter.evidence": "exact, sampled", "learner": "kfac, ewc, si"}
    for key, choices in words.items():
        refused(USAGE, [key, choices, "foo"], PERMUTED, key + "=foo")
    numbers = {"stream.tasks": ("0", "1001", "x"), "stream.seed": ("-1",), "stream.samples": ("-1",),
               "stream.angle": ("3601",), "stream.relabel": ("maybe",), "stream.blend": ("-0.1", "1.1"), "change.threshold": ("-1", "nan"),
               "change.slack": ("-1",), "change.inflation": ("1", "0"), "kfac.rate": ("0",), "kfac.damping": ("0",),
               "kfac.decay": ("1",), "kfac.refresh": ("0",), "ewc.strength": ("-1",), "ewc.decay": ("0", "1.1"),
               "si.strength": ("-1",), "si.damping": ("0",)}
    for key, wrong in numbers.items():
        for value in wrong:
            refused(USAGE, [key + "=" + value, "wanted"], PERMUTED, key + "=" + value)


def models():
    for widths in ("", " ", "many", "8 x", "8.5", "0", "-8", "65537", "8;4", " ".join(["8"] * 17)):
        refused(USAGE, ["model.widths", "1 to 16 numbers" if widths.strip() else "wanted"], DENSE, "model.widths=" + widths)
    refused(USAGE, ["sensitivity", "model.kind dense", "forward"], DENSE, "sensitivity=forward")
    for way in ("adjoint", "stage"):
        refused(USAGE, ["sensitivity", "model.kind gated", way], GATED, "sensitivity=" + way)
    refused(USAGE, ["filter.evidence", "model.kind gated", "sampled"], GATED, "filter.evidence=sampled")
    ways = (("filter.evidence", "sampled", SAMPLED), ("sensitivity", "stage", [*DENSE, "sensitivity=stage"]))
    for wrong in ("cov.hidden.form=innovation", "cov.output.form=innovation", "cov.joint=full"):
        for key, word, keys in ways:
            refused(USAGE, ["information form", "cov.joint", key + " " + word], keys, wrong)
    refused(USAGE, ["layout", "4", "3"], DENSE, *t.layout(4), ranks=4)
    refused(USAGE, ["layout", "4", "3"], DENSE, *t.layout(2, 2), ranks=4)
    refused(USAGE, ["needs 3 ranks, found 2"], DENSE, *t.layout(3), ranks=2)
    refused(USAGE, ["at most 2 stages", "gated", "3"], GATED, *t.layout(3), ranks=3)


def streams():
    split = [*SAMPLED, "stream.kind=split"]
    for tasks in ("3", "20"):
        refused(USAGE, ["stream", "tasks", "10 classes", tasks], split, "stream.tasks=" + tasks)
    narrow = lib_data.make(t.path("narrow"), columns=12)
    rotated = [*SAMPLED, "stream.kind=rotated"]
    refused(USAGE, ["stream", "square images to rotate", "168"], rotated, "data.path=" + narrow)
    lists = [*SAMPLED, "stream.kind=list"]
    refused(USAGE, ["stream", "folders", "found none"], lists)
    refused(USAGE, ["stream", "folders"], lists, "stream.paths=, ,")
    refused(DATA, [t.path("nowhere")], lists, "stream.paths=%s,%s" % (t.path("data"), t.path("nowhere")))
    refused(DATA, ["196 pixels", "168"], lists, "stream.paths=%s,%s" % (t.path("data"), narrow))
    for words in ("300", "301"):
        refused(USAGE, ["stream", "held out", words], PERMUTED, "data.validation=" + words)
    refused(USAGE, ["stream", "training samples", "301", "300"], PERMUTED, "stream.samples=301")
    refused(USAGE, ["stream", "training samples", "241", "240"], PERMUTED, "stream.samples=241", "data.validation=60")
    refused(USAGE, ["stream.kind", "stream.boundaries blended"], SAMPLED, "stream.boundaries=blended")
    refused(USAGE, ["stream.kind permuted", "data.permute"], PERMUTED, "data.permute=true")
    refused(USAGE, ["change.threshold", "change.reaction inflate", "0"], PERMUTED, "change.reaction=inflate")
    joint = [*DENSE, "cov.joint=full", "change.threshold=5"]
    refused(USAGE, ["cov.joint", "change.reaction inflate"], joint, "change.reaction=inflate")


# What makes a stream what it is, with a value other than the run's.
OTHERS = {"stream.kind": "rotated", "stream.tasks": "4", "stream.seed": "2", "stream.samples": "100", "stream.angle": "90",
          "stream.relabel": "false", "stream.boundaries": "known", "stream.blend": "0.25", "model.kind": None,
          "model.widths": "8 5", "sensitivity": "stage", "learner": "adam", "data.validation": "60"}


def other_streams():
    """A checkpoint fits only its own stream and model."""
    whole = t.train(1, "whole", *PERMUTED, "train.max_steps=20")

    def one(key, value):
        gated = ["model.kind=gated", "sensitivity=forward", "filter.evidence=exact"]
        keys = [key + "=" + value] if value is not None else gated
        folder = shutil.copytree(whole, t.path("copy-" + key))
        before = t.contents(folder)
        resume = ["train", t.path("empty.yaml"), "--output", folder, "--resume", *PERMUTED, "train.max_steps=40", *keys]
        one_line("--resume, " + " ".join(keys), t.run(1, *resume), DATA, ["of another run", key], ["kwm: resuming from"])
        child = t.run(1, "eval", folder, *keys)
        code = child.code == DATA and child.err.count("\n") == 1 and key in child.err
        t.check(code, "eval, %s: wanted exit 3 and one line, found %s:\n%s" % (keys, child.code, child.err))
        t.check(t.contents(folder) == before, "%s: wanted nothing made or changed" % keys)

    t.all_of(one, OTHERS.items())


t.start()
values()
models()
streams()
t.all_of(check_refused, _cases)
other_streams()
t.finish()
