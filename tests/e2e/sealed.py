#!/usr/bin/python3
"""A checkpoint whose seal is right and whose contents are wrong, as a program with a bug, or a hand, might leave it: values out of
any range, arrays and attributes missing, of other shapes and types. inspect, eval, spectra and a run that resumes end in order
(a word, an exit code) or go on; nothing crashes, nothing hangs."""
import sys

sys.dont_write_bytecode = True

import os
import random
import shutil

import h5py
import numpy as np

import lib_kwm as t
import lib_text

CASES = 8  # of each kind of run
KEYS = ["train.max_steps=10", "train.epochs=1000", "checkpoint.every=5", "watchdog.seconds=60"]
KINDS = {
    "gated": [*t.SMALL, "model.width=32", *t.layout(1)],
    "lowrank": [*t.SMALL, "model.width=32", "cov.hidden.structure=lowrank", "cov.hidden.rank=4", *t.layout(1)],
    "statespace": ["model.kind=statespace", "system.kind=duffing", "system.steps=300"],
    "transformer": ["model.kind=transformer", "sensitivity=stage", "model.width=16", "model.layers=2", "model.heads=2", "model.context=16",
                    "model.readouts=1", "train.batch=8", "train.chunks=4", "filter.evidence=innovations", "cov.output.structure=diag", *t.layout(1)],
}
IN_ORDER = (0, 1, 2, 3, 4)


def places(path):
    """Every array, and every attribute as (group, name)."""
    found = []
    with h5py.File(path, "r") as file:
        for group in [""] + [name for name in _names(file) if isinstance(file[name], h5py.Group)]:
            found += [("/" + group, name) for name in file["/" + group].attrs]
        found += [("/" + name, None) for name in _names(file) if isinstance(file[name], h5py.Dataset)]
    return found


def _names(file):
    names = []
    file.visit(names.append)
    return names


def spoil_array(file, name, draw):
    old = file[name][()]
    how = draw.choice(["gone", "shape", "type", "nan", "huge", "zero", "negative", "noise"])
    if how in ("nan", "huge", "zero", "negative", "noise"):
        draws = np.random.default_rng(draw.randrange(1 << 30))
        new = {"nan": old * np.nan, "huge": old * 0 + 1e30, "zero": old * 0, "negative": -np.abs(old) - 1, "noise": draws.normal(size=old.shape) * 1e3}[how]
        file[name][...] = new.astype(old.dtype)
        return how
    del file[name]
    if how == "shape":
        file[name] = np.zeros(tuple(n + 1 for n in old.shape), old.dtype)
    if how == "type":
        file[name] = np.zeros(old.shape, "<f8" if old.dtype == "<f4" else "<f4")
    return how


def spoil_attribute(file, group, name, draw):
    attributes = file[group].attrs
    old = attributes[name]
    how = draw.choice(["gone", "large", "negative", "text", "noise"])
    del attributes[name]
    if how == "large":
        attributes[name] = np.int64(1 << 62)
    if how == "negative":
        attributes[name] = np.int64(-7)
    if how == "text":
        attributes[name] = np.bytes_(b"kalman: [unclosed\n\t- 5")
    if how == "noise":
        attributes[name] = np.bytes_(bytes(old)[: len(bytes(old)) // 2] + b"\xff\xfe: 3\n") if isinstance(old, bytes) else np.float64(np.nan)
    return how


def ends_in_order(words, child):
    # mpirun tells a rank's signal as 128 + n, and a killed one in words.
    good = child.code in IN_ORDER and "signal" not in child.err.lower() and "bug" not in child.err
    t.check(good, "%s: wanted an end in order, found exit %s:\n%s" % (words, child.code, child.err[-1500:]))


def case(kind, number, place, seed):
    draw, folder = random.Random(seed), t.path("%s-%d" % (kind, number))
    environment = {**os.environ, "KWM_DATA": t.path("text") if kind == "transformer" else t.path("data")}
    shutil.copytree(t.path(kind), folder)
    for path in t.checkpoints(folder)[:-1]:
        os.remove(path)
    path = t.newest(folder)
    with h5py.File(path, "r+") as file:
        how = spoil_array(file, place[0], draw) if place[1] is None else spoil_attribute(file, *place, draw)
    t.seal(path)
    words = "%s: %s %s" % (kind, " ".join(filter(None, place)), how)
    ends_in_order(words + ": inspect", t.run(1, "inspect", path, env=environment))
    keys = [*KINDS[kind], *KEYS, "train.max_steps=12"]
    ends_in_order(words + ": resume", t.run(1, "train", t.path("empty.yaml"), "--output", folder, "--resume", *keys, env=environment))
    if number % 4 == 0:
        ends_in_order(words + ": eval", t.run(1, "eval", path, env=environment))
    if number % 4 == 1 and kind != "statespace":
        ends_in_order(words + ": spectra", t.run(1, "spectra", path, env=environment))
    shutil.rmtree(folder)


t.start()
lib_text.make(t.path("text"), 60)
cases, pick = [], random.Random(int(os.environ.get("KWM_TEST_SEED", "1")))
each = int(os.environ.get("KWM_TEST_CASES", CASES))
for one in KINDS:
    os.environ["KWM_DATA"] = t.path("text") if one == "transformer" else t.path("data")
    begun = t.run(1, "train", t.path("empty.yaml"), "--output", t.path(one), *KINDS[one], *KEYS)
    t.check(begun.code == 0, "%s: wanted exit 0, found %s:\n%s" % (one, begun.code, begun.err))
    where = places(t.newest(t.path(one)))
    cases += [(one, k, pick.choice(where), pick.randrange(1 << 30)) for k in range(each)]
t.all_of(case, cases)
t.finish()
