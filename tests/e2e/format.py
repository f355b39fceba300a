#!/usr/bin/python3
"""A stranger reads a checkpoint: h5py and h5dump find every array with its name, shape and type, the seal says what numpy sums, and the
covariance is one: symmetric positive definite blocks, positive Kronecker precisions, orthogonal bases."""
import sys

sys.dont_write_bytecode = True

import shutil
import subprocess

import h5py
import numpy as np

import lib_kwm as t

WIDTH, HIDDEN, CLASSES, PARAMS = 64, 16, 10, 10
STATE = 2 * WIDTH + 1

GAIN = {"filter/gain/" + group: ((n,), "<f8") for group, n in (("recurrence", WIDTH), ("hidden", 1), ("output", 1))}

PARAMETERS = {
    "params/recurrence": ((WIDTH, PARAMS), "<f4"),
    "params/hidden": ((HIDDEN, STATE), "<f4"),
    "params/output": ((CLASSES, HIDDEN + 1), "<f4"),
    "history/counts": ((254,), "<f8"),
}


def kron(group, rows, columns):
    leaves = {
        "precision": (rows, columns),
        "input_factor": (columns, columns),
        "output_factor": (rows, rows),
        "input_basis": (columns, columns),
        "output_basis": (rows, rows),
    }
    return {"cov/%s/%s" % (group, leaf): (shape, "<f4") for leaf, shape in leaves.items()}


READOUT = {**GAIN, **kron("hidden", HIDDEN, STATE), **kron("output", CLASSES, HIDDEN + 1)}
BLOCKS = (WIDTH, PARAMS, PARAMS)


def moments(name):
    found = {}
    for k in (1, 2):
        for group in ("recurrence", "hidden", "output"):
            found["learner/%s/moment%d/%s" % (name, k, group)] = PARAMETERS["params/" + group]
    return found


def datasets(file):
    found = {}
    file.visititems(lambda name, item: found.update({name: item}) if isinstance(item, h5py.Dataset) else None)
    return found


def shapes(words, file, wanted):
    found = {name: (item.shape, item.dtype.str) for name, item in datasets(file).items()}
    both = (words, sorted(wanted.items()), sorted(found.items()))
    t.check(found == wanted, "%s: wanted the arrays\n%s\nfound\n%s" % both)
    for name, item in datasets(file).items():
        t.check(item.chunks is None and item.id.get_offset() >= 512, "%s: %s: wanted it in one piece" % (words, name))
        whole = item[()]
        t.check(name.startswith("history") or np.isfinite(whole).all(), "%s: %s: wanted finite numbers" % (words, name))


def meta(words, file, folder, step):
    attributes = file["meta"].attrs
    with open(folder + "/config.yaml", encoding="utf-8") as text:
        t.check(t.text(attributes["config"]) == text.read(), words + ": wanted the configuration as in config.yaml")
    wanted = {"step": step, "epoch": step // 15, "cursor": step % 15 * 20, "epoch_steps": 15, "pixels": 196, "seed": 1}
    for name, value in wanted.items():
        t.check(attributes[name] == value, "%s: wanted /meta %s %d, found %s" % (words, name, value, attributes[name]))
    t.check(t.text(attributes["version"]) and t.text(attributes["git"]), words + ": wanted texts")
    t.check(t.text(file.attrs["format"]) == "kwm-checkpoint", words + ": wanted the format's name")
    t.check(file.attrs["format_version"] == 2, words + ": wanted the format's version")
    names = list(t.count_names(file["history"].attrs["names"]))
    t.check(len(names) == file["history/counts"].shape[0], words + ": wanted a name for each count")
    t.check(dict(zip(names, file["history/counts"]))["samples_seen"] == step * 20, words + ": wanted the samples seen")


def covariance(words, file):
    blocks = file["cov/recurrence"]
    blocks = blocks[list(blocks)[0]][()]
    skew = np.abs(blocks - blocks.transpose(0, 2, 1)).max() / np.abs(blocks).max()
    t.check(skew < 1e-12, "%s: wanted symmetric blocks, found %g" % (words, skew))
    t.check((np.linalg.eigvalsh(blocks) > 0).all(), words + ": wanted positive definite blocks")
    for group in ("hidden", "output"):
        t.check((file["cov/%s/precision" % group][()] > 0).all(), "%s: %s: wanted positive precisions" % (words, group))
        for side in ("input", "output"):
            basis = file["cov/%s/%s_basis" % (group, side)][()].astype(float)
            off = np.abs(basis.T @ basis - np.eye(len(basis))).max()
            t.check(off < 1e-5, "%s: %s %s_basis: wanted it orthogonal, found %g off" % (words, group, side, off))


def dumped(words, file_path, wanted):
    if shutil.which("h5dump") is None:
        print("skipped: h5dump (hdf5-tools is not installed)")
        return
    done = subprocess.run(["h5dump", "-H", "-p", file_path], capture_output=True, text=True, check=False)
    t.check(done.returncode == 0 and not done.stderr, "%s: wanted h5dump to run, found %s" % (words, done.stderr))
    n = done.stdout.count("CONTIGUOUS")
    t.check(n == len(wanted), "%s: wanted h5dump to show %d arrays in one piece, found %d" % (words, len(wanted), n))


def sealed(words, file_path):
    with open(file_path, "rb") as file:
        found, rest = file.read(512), file.read()
    t.check(found.startswith(t.sealed(rest)), "%s: wanted the seal\n%s, found\n%s" % (words, t.sealed(rest), found))


def first_format(file_path):
    """As files were before: version 1, arrays in chunks with Fletcher-32, texts in HDF5's heap, another sum in the seal."""
    with h5py.File(file_path, "r+") as file:
        for name in datasets(file):
            data = file[name][()]
            del file[name]
            file.create_dataset(name, data=data, chunks=data.shape, fletcher32=True)
        for group in [file, *(item for item in file.values() if isinstance(item, h5py.Group))]:
            for name, value in list(group.attrs.items()):
                if isinstance(value, bytes):
                    group.attrs.create(name, value.decode(), dtype=h5py.string_dtype())
        file.attrs["format_version"] = np.int64(1)
    t.seal(file_path, first=True)


def older():
    """A run goes on from a file of format 1 as from today's."""
    keys, folders = ["train.epochs=9", *t.layout(1)], [t.path("today"), t.path("older")]
    t.train(1, "today", *keys, "train.max_steps=5")
    shutil.copytree(*folders)
    first_format(t.newest(folders[1]))
    child = t.run(1, "inspect", "--verify", t.newest(folders[1]))
    t.check(child.code == 0 and "good" in child.out, "format 1: wanted it good, found exit %s: %s%s" % (child.code, child.out, child.err))
    for name in ("today", "older"):
        t.train(1, name, *keys, "train.max_steps=12", resume=True)
    t.check("resuming from" in t.log_of(folders[1]), "format 1: wanted the run to go on from it, found:\n" + t.log_of(folders[1]))
    t.check_same("from format 1 and from today's", t.newest(folders[1]), t.newest(folders[0]))


def read(learner, wanted, *keys, step=47):
    words = learner + " ".join(("",) + keys)
    steps = ["train.max_steps=%d" % step, "train.epochs=9"]
    folder = t.train(2, words.replace(" ", "-").replace("=", "-"), "learner=" + learner, *steps, *keys)
    wanted = {**PARAMETERS, **wanted}
    with h5py.File(t.newest(folder), "r") as file:
        shapes(words, file, wanted)
        meta(words, file, folder, step)
        if learner == "kalman":
            covariance(words, file)
        t.check(t.text(file["learner"].attrs["name"]) == learner, words + ": wanted the learner's name")
        t.check(file["learner"].attrs["steps"] == step, words + ": wanted the learner's steps")
    dumped(words, t.newest(folder), wanted)
    sealed(words, t.newest(folder))


def kept():
    folder = t.train(2, "kept", "train.max_steps=45", "train.epochs=9", "checkpoint.every=10", "checkpoint.keep=2")
    names = [name[-13:] for name in t.checkpoints(folder)]
    t.check(names == ["0000000040.h5", "0000000045.h5"], "checkpoint.keep=2: found %s" % names)
    t.check(not t.parts(folder), "wanted no .part, found %s" % t.parts(folder))


t.start()
PRECISION = {**READOUT, "cov/recurrence/precision": (BLOCKS, "<f8")}
read("kalman", PRECISION)
read("kalman", PRECISION, "filter.process_noise=1e-4", "filter.forgetting=0.999")
read("kalman", {**READOUT, "cov/recurrence/covariance": (BLOCKS, "<f8")}, "cov.recurrence.form=innovation", step=12)
read("adam", moments("adam"))
read("sgd", moments("sgd"), "sgd.rate=0.002")
kept()
older()
t.finish()
