#!/usr/bin/python3
"""analysis/report and the walkthrough of analysis/README.md on real runs: every section with its plots and
the summary's numbers, nothing fetched from elsewhere, and words where something is missing."""

import sys

sys.dont_write_bytecode = True

import math
import os
import re
import shutil
import subprocess

import h5py
import numpy as np

import lib_kwm as t
from lib_page import ANALYSIS, PLAIN, SECTIONS, SPECTRA, copy, has, page, refused

import kwm_runs

KEYS = ["train.epochs=2", "data.validation=40", "report.every=1", "checkpoint.every=4", "checkpoint.keep=20", *t.layout(2)]


def same_numbers(words, found, runs):
    wanted = [(name, str(value)) for name in t.summary(runs[0]) for value in [t.summary(run)[name] for run in runs]]
    t.check(
        [number[:2] for number in found.numbers] == wanted, "%s: wanted the summaries' numbers, found %s" % (words, found.numbers)
    )
    for name, value, shown in found.numbers:
        try:
            near = math.isclose(float(shown), float(value), rel_tol=1e-5)
        except ValueError:
            near = shown == value or (shown, value) == ("not measured", "None")
        t.check(near, "%s: %s: wanted %s, shown %s" % (words, name, value, shown))


def without_spectra(run):
    found = page("no spectra", [run])
    has("no spectra", found, *PLAIN, "Blocks of recurrence over time")
    t.check("kwm spectra %s --all" % run in found.words, "no spectra: wanted the command that makes them")
    t.check("no χ² of the innovations" in found.words and "No step was skipped" in found.words, "no spectra: wanted words")
    same_numbers("no spectra", found, [run])


def with_spectra(run):
    """One of them is damaged: it is named and left out."""
    hurt = copy(run, "hurt")
    damaged = sorted(os.listdir(os.path.join(hurt, "spectra")))[1]
    with open(os.path.join(hurt, "spectra", damaged), "r+b") as file:
        file.truncate(3000)
    found = page("spectra", [hurt])
    has("spectra", found, *PLAIN, *SPECTRA, "Blocks of recurrence over time")
    t.check("left out, not readable: spectra/%s" % damaged in found.words, "damaged: wanted the file named")
    t.check("kwm spectra" not in found.words, "spectra: wanted no words about missing ones")
    for words in ("seed", "libraries", "checkpoint.keep", 'learner: "kalman"', t.summary(run)["status"]):
        known = words in found.words or words == "checkpoint.keep" and "keep: 20" in found.words
        t.check(known, "spectra: wanted %s on the page" % words)


def reads_right(run):
    """What plots are made of against the files themselves and the summary."""
    read = kwm_runs.Run(run)
    steps = [int(os.path.basename(path)[5:-3]) for path in t.checkpoints(run)]
    t.check([s.step for s in read.snapshots] == steps, "wanted the spectra of steps %s" % steps)
    with h5py.File(os.path.join(run, "spectra", os.path.basename(t.newest(run))), "r") as file:
        for group, spectrum in read.snapshots[-1].spectra.items():
            values = file["spectra"][group]["eigenvalues"][()]
            weights = np.broadcast_to(file["spectra"][group]["multiplicity"][()], values.shape)
            t.check(spectrum.count == weights.sum(), "%s: wanted %d directions" % (group, weights.sum()))
            ends = (spectrum.value[0], spectrum.value[-1]) == (values.min(), values.max())
            t.check(ends and np.all(np.diff(spectrum.value) >= 0), "%s: wanted a curve from least to largest" % group)
            known = spectrum.facts["effective_parameters"].sum()
            t.check(
                math.isclose(known, (weights * (1 - values)).sum(), rel_tol=1e-6, abs_tol=1e-6),
                "%s: effective parameters" % group,
            )
    gains = [read.gain_series(group)[1] for group in ("recurrence", "hidden", "output")]
    with h5py.File(t.newest(run), "r") as file:
        whole = [file["filter/gain"][group][()].sum() for group in ("recurrence", "hidden", "output")]
    t.check(np.allclose([gain[-1].sum() for gain in gains], whole, rtol=1e-12), "wanted the checkpoint's gains, found %s" % whole)
    ljung_box(read)
    t.check(read.config["train.epochs"] == "2" and read.config["cov.hidden.structure"] == "kron", "wanted the configuration flat")


def ljung_box(read):
    """The drawn autocorrelations give the summary's probability: of χ² with ten degrees of freedom."""
    values, count = read.step_correlation
    half = count * (count + 2) * np.sum(values**2 / (count - np.arange(1, len(values) + 1))) / 2
    found = math.exp(-half) * sum(half**k / math.factorial(k) for k in range(5))
    wanted = read.summary["surprisal_ljung_box_p"]
    t.check(math.isclose(found, wanted, rel_tol=1e-6), "autocorrelation: wanted p %g, found %g" % (wanted, found))
    x = np.random.default_rng(1).standard_normal(400).cumsum()
    values, count = kwm_runs.correlation(x)
    direct = [np.corrcoef(x[k:], x[:-k])[0, 1] for k in range(1, 4)]
    t.check(
        count == 400 and np.allclose(values[:3], direct, atol=0.02), "autocorrelation: wanted %s, found %s" % (direct, values[:3])
    )


def several(run, other, adam):
    found = page("several runs", [run, other, adam])
    has("several runs", found, *PLAIN, *SPECTRA[:4], "Spectrum over time (first)", "Spectrum over time (other)")
    same_numbers("several runs", found, [run, other, adam])
    t.check("left out" not in found.words, "several runs: wanted nothing left out")
    t.check("adam: the learner adam keeps no covariance" in found.words, "several runs: wanted words for the baseline")
    t.check("Keys that differ" in found.words and "train.batch" in found.words, "several runs: wanted the keys that differ")
    found = page("a baseline", [adam])
    t.check(
        "Baselines have no gain" in found.words and "Learning curves" in found.titles(), "a baseline: wanted words and curves"
    )
    t.check("the learner adam keeps no covariance" in found.words, "a baseline: wanted words for it")


def incomplete(run):
    """A run that lost files, a table of an older version."""
    bare = copy(run, "bare")
    for name in ("checkpoints", "spectra"):
        shutil.rmtree(os.path.join(bare, name))
    for name in ("summary.json", "manifest.json", "config.yaml"):
        os.remove(os.path.join(bare, name))
    with open(os.path.join(bare, "metrics.tsv"), encoding="utf-8") as file:
        rows = [line.split("\t")[:8] for line in file.read().splitlines()]
    with open(os.path.join(bare, "metrics.tsv"), "w", encoding="utf-8") as file:
        file.write("\n".join("\t".join(row) for row in rows) + "\n7\t0.5")
    found = page("bare", [bare])
    has("bare", found, "Learning curves", "Scores")
    for words in (
        "has not ended",
        "no manifest.json",
        "no config.yaml",
        "0 checkpoints",
        "makes them of its 0",
        "no trace of the covariance",
    ):
        t.check(words in found.words, "bare: wanted the words: %s" % words)


def errors(run, adam):
    refused(2, "usage", *[])
    refused(2, "unrecognized arguments: --nonsense", run, "--nonsense")
    refused(2, "wanted each run once", run, run)
    refused(3, "wanted a run's folder, found nothing", t.path("nowhere"))
    refused(3, "wanted a run's folder, found a file", t.path("empty.yaml"))
    refused(3, "metrics.tsv: wanted a run's table", t.path("data"))
    refused(1, "wanted a file to write", adam, "--output", t.path("nowhere", "report.html"))
    broken = copy(run, "broken")
    table, summary = os.path.join(broken, "metrics.tsv"), os.path.join(broken, "summary.json")
    for text, words in (
        ("step\tnis\n", "wanted at least one row"),
        ("step\tnis\n1\n", "wanted 2 columns"),
        ("step\tnis\n1\tx\n", "wanted numbers"),
        ("time\tnis\n1\t1\n", "wanted a column `step`"),
    ):
        with open(table, "w", encoding="utf-8") as file:
            file.write(text)
        refused(3, words, broken)
    shutil.copy(os.path.join(run, "metrics.tsv"), table)
    for text in ("{", "[]"):
        with open(summary, "w", encoding="utf-8") as file:
            file.write(text)
        refused(3, "summary.json: wanted a JSON object", broken)


# ---- streams of tasks

def walkthrough(run):
    with open(os.path.join(ANALYSIS, "README.md"), encoding="utf-8") as file:
        blocks = re.findall(r"```python\n(.*?)```", file.read(), re.DOTALL)
    wanted = [
        [r"^step 26$", r"params/hidden \(16, 129\) float32", r"cov/recurrence/precision \(64, 10, 10\)"],
        [r"^least known: (recurrence|hidden|output)$", r"^hidden: \d+\.\d % of 2064 directions determined$"],
        [r"^nis \d+\.\d\d ", r"^(not )?settled$", r"^output: steps applied to \d+ %"],
        [r"^from step \d+ to 26$", r"^hidden: \d+ nats of information", r"^unit that moved farthest.*\(\d+\.\d deviations\)$"],
    ]
    t.check(len(blocks) == len(wanted), "walkthrough: wanted %d blocks, found %d" % (len(wanted), len(blocks)))
    for block, patterns in zip(blocks, wanted):
        child = subprocess.run(
            ["/usr/bin/python3", "-c", block.replace("runs/first", run)], capture_output=True, text=True, timeout=t.PATIENCE
        )
        t.check(child.returncode == 0 and not child.stderr, "walkthrough: wanted exit 0, found:\n%s" % child.stderr)
        for pattern in patterns:
            t.check(
                re.search(pattern, child.stdout, re.MULTILINE), "walkthrough: wanted %s, found:\n%s" % (pattern, child.stdout)
            )


t.start()
first = t.train(2, "first", *KEYS, "filter.score_test=true")
other = t.train(2, "other", *KEYS, "train.batch=10", "filter.score_test=true")
adam = t.train(2, "adam", *KEYS, "learner=adam")
without_spectra(first)
for made in (first, other):
    child = t.run(2, "spectra", made, "--all")
    t.check(child.code == 0, "spectra: wanted exit 0, found %s:\n%s" % (child.code, child.err))
with_spectra(first)
reads_right(first)
several(first, other, adam)
incomplete(first)
errors(first, adam)
walkthrough(first)
t.finish()
