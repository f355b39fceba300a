#!/usr/bin/python3
"""The commands that look at a run, and what a run says of its progress on a terminal and elsewhere."""
import sys

sys.dont_write_bytecode = True

import json
import os
import re
import shutil
import subprocess

import h5py

import lib_kwm as t

KEYS = ["train.epochs=2", "data.validation=40", *t.layout(2)]
PROGRESS = re.compile(
    r"epoch [\d.]+/2  step (\d+)/26  loss [\d.]+  accuracy [\d.]+ %  nis [\d.]+  \d+ samples/s  eta \d+ s"
)


def good(words, child):
    return t.check(child.code == 0, "%s: wanted exit 0, found %s:\n%s" % (words, child.code, child.err))


def table(text):
    return dict(line.split("\t", 1) for line in text.splitlines() if "\t" in line)


def evaluate(folder):
    """The same metrics as in summary.json, whatever the ranks."""
    wanted = t.summary(folder)
    for ranks, subject in ((1, folder), (2, folder), (4, folder), (1, t.newest(folder)), (3, folder)):
        words = "eval on %d ranks" % ranks
        child = t.run(ranks, "eval", subject)
        if not good(words, child):
            continue
        found = table(child.out)
        for name in ("test_accuracy", "test_loss", "valid_accuracy", "valid_loss"):
            near = abs(float(found[name]) - wanted[name]) < 2e-6
            t.check(near, "%s: wanted %s %g, found %s" % (words, name, wanted[name], found[name]))
        t.check(found["step"] == "26" and found["test_samples"] == "100", words + ": wanted step and samples")


def evaluate_coupled():
    """A run in the innovation form, which has no replicas."""
    folder = t.train(1, "coupled", "cov.recurrence.form=innovation", "train.max_steps=5", *t.layout(1))
    corrected = t.run(1, "eval", folder, "correction.kind=full")
    words = "no language model: wanted exit 2 in words, found %s:\n%s" % (corrected.code, corrected.err)
    t.check(corrected.code == 2 and "language model only" in corrected.err, words)
    found = table(t.run(4, "eval", folder).out)
    near = abs(float(found.get("test_loss", "nan")) - t.summary(folder)["test_loss"]) < 2e-6
    t.check(near, "eval, innovation form on 4 ranks: wanted the summary's test_loss, found %s" % found)


def inspect(folder):
    for subject in (folder, t.newest(folder)):
        child = t.run(2, "inspect", subject)
        if not good("inspect", child):
            continue
        rows = [line.split("\t") for line in child.out.splitlines() if line.startswith("/")]
        names = []
        with h5py.File(t.newest(folder), "r") as file:
            file.visititems(lambda name, item: names.append("/" + name) if isinstance(item, h5py.Dataset) else None)
        t.check([row[0] for row in rows] == sorted(names), "inspect: wanted every array, found %s" % rows)
        t.check(all(row[-1] == "ok" for row in rows), "inspect: wanted every array ok, found %s" % rows)
        t.check("checksums\tgood" in child.out and "step\t26" in child.out, "inspect: wanted step and checksums")


def texts():
    child = t.run(2, "keys")
    good("keys", child)
    for key in ("seed", "train.epochs", "cov.hidden.prior", "checkpoint.keep"):
        t.check("\n" + key in "\n" + child.out, "keys: wanted %s:\n%s" % (key, child.out))
    child = t.run(2, "version")
    good("version", child)
    found = table(child.out)
    t.check({"kwm", "commit", "MPI", "HDF5", "BLAS"} <= set(found), "version: wanted libraries, found %s" % found)
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        modern = "avx2" in file.read()
    t.check(not modern or "Prescott" not in found["BLAS"], "version: wanted kernels for AVX2, found %s" % found["BLAS"])
    chosen = t.run(2, "version", env={**os.environ, "OPENBLAS_CORETYPE": "Prescott"})
    t.check("Prescott" in chosen.out, "version: wanted the kernels that OPENBLAS_CORETYPE names, found\n%s" % chosen.out)
    for word in ("help", "--help"):
        child = t.run(2, word)
        good(word, child)
        one = child.out.count("usage:") == 1 and not child.err
        found = child.out + child.err
        t.check(one and "train" in child.out, "%s: wanted the usage on stdout, found:\n%s" % (word, found))


def directory(folder):
    wanted = {"config.yaml", "manifest.json", "metrics.tsv", "summary.json", "kwm.log", "watch", "checkpoints"}
    t.check(set(os.listdir(folder)) == wanted, "run directory: found %s" % sorted(os.listdir(folder)))
    fields = {"status", "step", "epoch", "seconds", "samples_seen", "train_loss", "valid_accuracy", "test_accuracy"}
    fields |= {"nis_mean", "skipped_steps", "comm_fraction", "peak_bytes_per_rank", "ranks"}
    found = t.summary(folder)
    t.check(fields <= set(found), "summary.json: these are missing: %s" % (fields - set(found)))
    t.check(found["status"] == "done" and found["step"] == 26 and found["ranks"] == 2, "summary.json: found %s" % found)
    t.check(found["samples_seen"] == 520, "summary.json: wanted 520 samples seen, found %s" % found["samples_seen"])
    with open(os.path.join(folder, "manifest.json"), encoding="utf-8") as file:
        manifest = json.load(file)
    t.check(len(manifest["hosts"]) == 2 and len(manifest["data"]) == 4, "manifest.json: found %s" % manifest)
    again = t.path("again")  # the resolved configuration gives the same run
    child = t.run(2, "train", os.path.join(folder, "config.yaml"), "output=" + again)
    good("train from config.yaml", child)
    t.check_same("train from config.yaml", t.newest(again), t.newest(folder))


def largest_seed():
    folder = t.train(1, "seed", "seed=18446744073709551615", "train.max_steps=2", *t.layout(1))
    with open(os.path.join(folder, "manifest.json"), encoding="utf-8") as file:
        t.check(str(json.load(file)["seed"]) == "18446744073709551615", "largest seed: wanted it in manifest.json")


def plain():
    child = t.run(2, "train", t.path("empty.yaml"), "--output", t.path("plain"), *t.SMALL, *KEYS)
    good("plain progress", child)
    steps = [PROGRESS.match(line) for line in child.err.splitlines() if line.startswith("epoch")]
    found = [int(line[1]) for line in steps if line]
    t.check(found == [10, 13, 20, 26], "plain progress: wanted lines at 10, 13, 20, 26:\n%s" % child.err)
    t.check("\r" not in child.err and "\033" not in child.err, "plain progress: wanted no control characters")
    t.check(child.out == "", "plain progress: wanted nothing on stdout, found %s" % child.out)
    return t.path("plain")


def terminal():
    """kwm alone (without mpirun, which is no terminal), in a pseudo-terminal."""
    if shutil.which("script") is None:
        print("skipped: progress on a terminal (script is not installed)")
        return
    words = [t.kwm, "train", t.path("empty.yaml"), "--output", t.path("live"), *t.SMALL, *KEYS, *t.layout(1)]
    command = ["script", "-qec", " ".join("'%s'" % word for word in words), "/dev/null"]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=t.PATIENCE, cwd=t.scratch, check=False
    )
    text = done.stdout.decode("utf-8", "replace").replace("\r\n", "\n")
    t.check(done.returncode == 0, "terminal: wanted exit 0, found %d:\n%s" % (done.returncode, text))
    lines = [line for line in text.split("\n") if "step " in line and "epoch" in line]
    seen = [int(step) for step in re.findall(r"\r\033\[Kepoch [^\r\n]*?step (\d+)/26", text)]
    t.check(seen == [10, 13, 20, 26], "terminal: wanted a line redrawn at 10, 13, 20, 26, found %s:\n%r" % (seen, text))
    # One line on the screen for each epoch: the redrawn one, ended by the epoch's evaluation.
    t.check(len(lines) == 2, "terminal: wanted one live line for each epoch, found %d:\n%r" % (len(lines), text))


t.start()
run = plain()
directory(run)
evaluate(run)
evaluate_coupled()
inspect(run)
texts()
largest_seed()
terminal()
t.finish()
