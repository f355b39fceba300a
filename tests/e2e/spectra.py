#!/usr/bin/python3
"""kwm spectra: every structure's eigenvalues against NumPy's of the dense P built from the checkpoint, the same on any
number of ranks; all checkpoints or the newest good one; what is refused is refused in one line."""
import sys

sys.dont_write_bytecode = True

import os
import shutil

import h5py
import numpy as np

import lib_kwm as t

KEYS = ["model.width=64", "model.hidden=4", "train.batch=8", "train.max_steps=12", "train.chunks=2"]
PRIOR = {"cov.recurrence.prior": 30.0, "cov.hidden.prior": 3.0, "cov.output.prior": 3.0}
UNIT = np.array([0.05, 0.01, 0.3, 0.3, 0.3, 0.3, 0.05, 0.05, 0.05, 0.05]) ** 2
WORDS = ["trace", "effective_rank", "effective_parameters", "condition", "largest", "smallest", "known"]


def groups(**keys):
    """cov.GROUP.KEY=VALUE for all three groups."""
    return ["cov.%s.%s=%s" % (g, k, v) for g in ("recurrence", "hidden", "output") for k, v in keys.items()]


def matrices(**keys):
    return [word for word in groups(**keys) if "recurrence" not in word]


def lowrank(kind, **keys):
    return groups(structure="lowrank", kind=kind, rank=6, **keys)


CASES = {  # words, tolerance
    "block-kron": (matrices(real="double"), 1e-10),
    "block-kron-innovation": (groups(real="double", form="innovation"), 1e-10),
    "block-kron-float": (groups(real="float"), 1e-5),
    "block": (matrices(structure="block", real="double"), 1e-10),
    "block-float": (groups(structure="block", real="float", form="innovation"), 1e-5),
    "diag": (groups(structure="diag", real="double"), 1e-10),
    "precision": (lowrank("precision", form="innovation", real="double"), 1e-10),
    "covariance": (lowrank("covariance", real="double"), 1e-10),  # from the prior it remembers nothing
    "subspace": (lowrank("subspace", form="innovation", real="double"), 1e-10),
    "precision-float": (lowrank("precision", real="float"), 1e-5),
    "noisy": (matrices(real="double") + ["filter.forgetting=0.99", "filter.adapt_process=0.01", "filter.score_test=true"], 1e-10),
    "full": (["cov.joint=full"], 1e-10),
    "full-float": (["cov.joint=full", "cov.joint_real=float", "filter.process_noise=1e-4"], 1e-5),
}


def prior(group, shape):
    """Variances of a group's parameters, (blocks, params)."""
    if group == "recurrence":
        return np.tile(PRIOR["cov.recurrence.prior"] * UNIT, (shape[0], 1))
    return np.full((1, shape[0] * shape[1]), 1 / PRIOR["cov.%s.prior" % group])


def symmetric(factor):
    factor = factor.astype(float)
    return factor @ np.swapaxes(factor, -1, -2)


def dense(group, file, variance):
    """The group's P0^-½ P P0^-½, (blocks, n, n)."""
    cov = {name: item[()] for name, item in file["cov/" + group].items()}
    root = np.sqrt(variance)
    if "floor" in cov:
        matrix = cov["floor"][0] * np.eye(variance.size) + symmetric(cov["factor"])
        return (np.linalg.inv(matrix) if file["cov/" + group].attrs["kind"] == 0 else matrix)[None]
    if "input_basis" in cov:
        both = np.kron(cov["output_basis"].astype(float), cov["input_basis"].astype(float))
        P = (both / cov["precision"].astype(float).ravel()) @ both.T
    elif "covariance" in cov or "covariance_factor" in cov:
        P = cov["covariance"] if "covariance" in cov else symmetric(cov["covariance_factor"])
    elif "precision_factor" in cov:
        P = np.linalg.inv(symmetric(cov["precision_factor"]))
    elif cov["precision"].ndim == 3:
        P = np.linalg.inv(cov["precision"])
    else:
        P = np.stack([np.diag(1 / row) for row in cov["precision"].astype(float).reshape(variance.shape)])
    return np.reshape(P, (variance.shape[0], root.shape[1], root.shape[1])) / (root[:, :, None] * root[:, None, :])


def wanted(checkpoint):
    """{group: eigenvalues (blocks, n)}, {group: gain} from the checkpoint."""
    with h5py.File(checkpoint, "r") as file:
        variance = {g: prior(g, file["params/" + g].shape) for g in ("recurrence", "hidden", "output")}
        gain = {g: file["filter/gain/" + g][()] for g in variance}
        if "full" not in file["cov"]:
            return {g: np.linalg.eigvalsh(dense(g, file, variance[g])) for g in variance}, gain
        whole = np.concatenate([variance[g].ravel() for g in ("recurrence", "hidden", "output")])[None]
        return {"full": np.linalg.eigvalsh(dense("full", file, whole))}, {"full": np.array([sum(v.sum() for v in gain.values())])}


def expand(spectrum):
    """Eigenvalues, as often as they occur, ascending."""
    times = np.rint(spectrum["multiplicity"]).astype(int)
    return np.sort(np.repeat(spectrum["eigenvalues"], times, axis=1), axis=1)


def facts(values):
    """The seven numbers of WORDS for one block."""
    share = values[values > 0] / values.sum()
    rank = np.exp(-np.sum(share * np.log(share)))
    with np.errstate(divide="ignore"):
        condition = values.max() / values.min()
    return [values.sum(), rank, np.sum(1 - values), condition, values.max(), values.min(), np.mean(values < 0.5)]


def check_values(name, spectra, checkpoint, tolerance):
    values, gain = wanted(checkpoint)
    t.check(sorted(spectra) == sorted(values), "%s: wanted groups %s, found %s" % (name, sorted(values), sorted(spectra)))
    for group in set(values) & set(spectra):
        words, found = "%s %s" % (name, group), spectra[group]
        ours, theirs = expand(found), values[group]
        if not t.check(ours.shape == theirs.shape, "%s: wanted %s values, found %s" % (words, theirs.shape, ours.shape)):
            continue
        off = np.abs(ours - theirs).max()
        t.check(off <= tolerance, "%s: wanted NumPy's eigenvalues to %g, found them off by %g" % (words, tolerance, off))
        t.check(np.ptp(theirs) > 0.05 or name == "covariance", "%s: wanted a covariance that learnt, found %g" % (words, np.ptp(theirs)))
        t.check(np.allclose(found["gain"], gain[group] if len(found["gain"]) > 1 else gain[group].sum(), 1e-12), words + ": gain")
        for word, by_block in zip(WORDS, np.transpose([facts(block) for block in ours])):
            good = found[word].shape == by_block.shape and np.allclose(found[word], by_block, 1e-9, 1e-12)
            t.check(good, "%s: wanted %s %s, found %s" % (words, word, by_block, found[word]))


def read(path):
    with h5py.File(path, "r") as file:
        return {group: {name: item[()] for name, item in item.items()} for group, item in file["spectra"].items()}


def check_ranks(name, one, other, ranks):
    for group in one:
        a, b = one[group]["eigenvalues"], other[group]["eigenvalues"]
        off = np.abs(a - b).max() if a.shape == b.shape else np.inf
        t.check(off <= 1e-10, "%s %s: wanted the same values on 1 and %d ranks, found them off by %g" % (name, group, ranks, off))


def spectra(name, checkpoint, ranks):
    """A lone copy of the checkpoint, so that runs on other ranks write elsewhere."""
    folder = t.path("%s-%d" % (name, ranks))
    os.mkdir(folder)
    child = t.run(ranks, "spectra", shutil.copy(checkpoint, folder), env=bare)
    path = os.path.join(folder, "spectra", os.path.basename(checkpoint))
    if t.check(child.code == 0 and os.path.isfile(path), "%s on %d ranks: found %s:\n%s" % (name, ranks, child.code, child.err)):
        return read(path)
    return {}


def case(name, words, tolerance):
    checkpoint = t.newest(t.train(1, name, *KEYS, *words, *t.layout()))
    one = spectra(name, checkpoint, 1)
    check_values(name, one, checkpoint, tolerance)
    for ranks in (2, 4):
        other = spectra(name, checkpoint, ranks)
        if t.check(sorted(one) == sorted(other), "%s: wanted the same groups on %d ranks" % (name, ranks)):
            check_ranks(name, one, other, ranks)


def table(text):
    """Lines by (group) of the first table of an output; and where its file is."""
    lines = [line.split("\t") for line in text.splitlines()]
    at = next(k for k, line in enumerate(lines) if line[0] == "group")
    end = next(k for k, line in enumerate(lines) if line[0] == "spectra")
    t.check(lines[at] == ["group", "blocks", "directions", *WORDS], "wanted a header, found %s" % lines[at])
    return {line[0]: [float(x) for x in line[1:]] for line in lines[at + 1 : end]}, lines[end][1]


def check_table(folder):
    """What is printed is what the file holds, blocks together and one by one."""
    child = t.run(1, "spectra", folder)
    t.check(child.code == 0, "%s: found %s:\n%s" % (child.words, child.code, child.err))
    found, path = table(child.out)
    t.check(sorted(found) == ["hidden", "output"] + ["recurrence" + w for w in ("", " max", " median", " min")], "lines %s" % found)
    with h5py.File(path, "r") as file, h5py.File(t.newest(folder), "r") as checkpoint:
        meta, theirs = dict(file["meta"].attrs), checkpoint["meta"].attrs
        epoch = theirs["step"] / theirs["epoch_steps"]
        t.check(meta["step"] == theirs["step"] and meta["epoch"] == epoch, "wanted step and epoch, found %s" % meta)
        t.check(meta["config"] == theirs["config"] and t.text(meta["source"]) == os.path.basename(t.newest(folder)), "meta %s" % meta)
    for group, spectrum in read(path).items():
        values = expand(spectrum)
        whole = facts(values.ravel())
        whole[0] /= values.size
        t.check(np.allclose(found[group], [len(values), values.size, *whole], 1e-5), "%s: wanted %s, found %s" % (group, whole, found[group]))
        for word, function in (("min", np.min), ("median", np.median), ("max", np.max)):
            if len(values) > 1:
                row = function([facts(block) for block in values], axis=0)
                row[0] /= values.shape[1]
                line = found["%s %s" % (group, word)]
                t.check(np.allclose(line, [len(values), values.shape[1], *row], 1e-5), "%s %s: wanted %s, found %s" % (group, word, row, line))


def check_all(folder):
    """Every good checkpoint gets its file; the damaged one is named; what was there is replaced."""
    files, out = t.checkpoints(folder), os.path.join(folder, "spectra")
    os.truncate(files[1], 5000)
    stale = os.path.join(out, os.path.basename(files[-1]))
    with open(stale, "wb") as file:
        file.write(b"of yesterday")
    child = t.run(2, "spectra", folder, "--all", env=bare)
    warned = [line for line in child.err.splitlines() if line.startswith("kwm: warning:")]
    t.check(child.code == 0, "--all: wanted exit 0, found %s:\n%s" % (child.code, child.err))
    t.check(len(warned) == 1 and files[1] in warned[0], "--all: wanted one warning that names it, found %s" % warned)
    t.check("2 of 3" in child.err, "--all: wanted progress, found %s" % child.err)
    t.check(sorted(os.listdir(out)) == [os.path.basename(files[k]) for k in (0, 2)], "--all: found %s" % os.listdir(out))
    t.check(child.out.count("\nspectra\t") == 2 and "hidden" in read(stale), "--all: found %s" % child.out)
    os.truncate(files[2], 5000)
    child = t.run(1, "spectra", folder, "layout.owners=1")
    t.check(child.code == 0 and files[0] in child.out, "newest good one: wanted %s, found %s" % (files[0], child.out))
    lone = t.run(1, "spectra", os.path.basename(files[0]), cwd=os.path.dirname(files[0]))
    t.check(lone.code == 0 and not os.path.isdir(os.path.join(folder, "checkpoints", "spectra")), "from inside: %s" % lone.err)


def refused(code, words, *arguments):
    child = t.run(2, "spectra", *arguments)
    lines = [line for line in child.err.splitlines() if line.startswith("kwm: error:")]
    good = child.code == code and len(lines) == 1 and words in lines[0] and child.out == ""
    t.check(good, "%s: wanted exit %d and `%s`, found %s:\n%s" % (arguments, code, words, child.code, child.err))


def check_refused(folder):
    good, bad = t.checkpoints(folder)[0], t.path("bad.h5")
    adam = t.train(1, "adam", *KEYS, "learner=adam", *t.layout())
    with open(bad, "wb") as file:
        file.write(b"no checkpoint\n" * 1000)
    lost = t.path("lost")
    os.makedirs(os.path.join(lost, "checkpoints"))
    shutil.copy(bad, os.path.join(lost, "checkpoints", "step-0000000001.h5"))
    t.all_of(refused, [
        (2, "found learner adam", adam),
        (2, "found learner adam", adam, "--all"),
        (2, "found none",),
        (2, "with --all", good, "--all"),
        (2, "layout.* keys", folder, "cov.hidden.prior=5"),
        (2, "layout.* keys", folder, "--output", "elsewhere"),
        (2, "no --resume", folder, "--resume"),
        (2, "found `--every`", folder, "--every"),
        (3, "bad.h5", bad),
        (3, "all damaged", lost),
        (3, "all damaged", lost, "--all"),
        (3, "nowhere", t.path("nowhere")),
        (3, "spectra", os.path.join(folder, "spectra", os.path.basename(good))),
    ])


def spoiled(name, array, words, ranks):
    """A covariance that is none: exit 4, and no file is left behind."""
    folder = t.path("spoiled-" + name)
    os.mkdir(folder)
    path = shutil.copy(t.newest(t.path(name)), folder)
    with h5py.File(path, "r+") as file:
        file[array][0] = np.nan if "full" in array else -1
    t.seal(path)
    child = t.run(ranks, "spectra", path)
    t.check(child.code == 4 and words in child.err, "%s: wanted exit 4 and `%s`, found %s:\n%s" % (name, words, child.code, child.err))
    t.check(os.listdir(os.path.join(folder, "spectra")) == [], "%s: found %s" % (name, os.listdir(os.path.join(folder, "spectra"))))


t.start()
bare = {name: value for name, value in os.environ.items() if name != "KWM_DATA"}
t.all_of(case, [(name, *rest) for name, rest in CASES.items()])
run = t.train(1, "run", *KEYS, "train.max_steps=15", "checkpoint.every=5", *t.layout())
check_table(run)
check_all(run)
check_refused(run)
t.all_of(spoiled, [
    ("block-kron", "cov/hidden/precision", "group hidden", 2),
    ("diag", "cov/recurrence/precision", "group recurrence", 4),
    ("full", "cov/full/covariance", "not finite", 2),
])
t.finish()
