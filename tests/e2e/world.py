#!/usr/bin/python3
"""World models: learned, stopped and resumed bitwise, the same on any number of ranks, judged, read from files, refused."""
import sys

sys.dont_write_bytecode = True

import csv
import json
import os
import signal

import h5py
import numpy as np

import lib_kwm as t
import lib_page

STATESPACE = ["model.kind=statespace", "system.kind=duffing", "system.steps=2000", "report.every=100"]
KOOPMAN = ["model.kind=koopman", "system.kind=slow", "system.episode=20", "system.steps=2000", "report.every=200", "world.degree=2"]
NETWORK = ["model.kind=koopman", "world.lift=network", "world.correction=lift", "world.states=4", "world.hidden=8", "world.decoder=6",
           "world.ahead=6", "system.kind=vanderpol", "system.steps=2000", "report.every=100"]
TIMES = {"seconds", "steps_per_s"}
WORLD_SECTIONS = ["result", "learning", "trajectory", "spectrum", "forecasts", "parameters", "configuration", "provenance"]


def table(folder, name):
    with open(os.path.join(folder, name), encoding="ascii") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def untimed(folder, name="metrics.tsv"):
    return [{k: v for k, v in row.items() if k not in TIMES} for row in table(folder, name)]


def train(output, *words, ranks=1, code=0, resume=False):
    folder, flags = t.path(output), ["--resume"] if resume else []
    child = t.run(ranks, "train", t.path("empty.yaml"), "--output", folder, *flags, *words)
    t.check(child.code == code, "%s: wanted exit %d, found %s:\n%s" % (child.words, code, child.code, child.err))
    return folder


def evaluated(folder, *words):
    child = t.run(1, "eval", folder, *words)
    t.check(child.code == 0, "eval %s: wanted exit 0, found %s:\n%s" % (folder, child.code, child.err))
    lines = [line.split("\t") for line in child.out.splitlines()[2:]]
    return {line[0]: dict(zip(lines[0][1:], map(float, line[1:]))) for line in lines[1:]}


def same_arrays(words, one, other, counts=True):
    """All of the newest checkpoints but the clock (and the counts behind metrics.tsv, where rows fall otherwise)."""
    names = []
    with h5py.File(t.newest(one), "r") as a, h5py.File(t.newest(other), "r") as b:
        a.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        for name in names:
            x, y = a[name][...], b[name][...]
            if name == "history/counts" and not counts:
                continue
            if name == "history/counts":
                kept = [i for i, word in enumerate(t.text(a["history"].attrs["names"]).split()) if "seconds" not in word]
                x, y = x[kept], y[kept]
            t.check(x.tobytes() == y.tobytes(), "%s: wanted the same bits in %s" % (words, name))
    t.check(len(names) > 5, "%s: wanted arrays, found %s" % (words, names))


def learned():
    """A cubic model of Duffing's oscillator comes near to the filter with the true model, and forecasts better than AR."""
    folder = train("duffing", *STATESPACE)
    for name in ("config.yaml", "manifest.json", "metrics.tsv", "parameters.tsv", "summary.json", "kwm.log", "forecast.tsv"):
        t.check(os.path.exists(os.path.join(folder, name)), "run directory: wanted %s" % name)
    scores = evaluated(folder)
    t.check(list(scores) == ["learned", "ekf", "ukf", "ar", "dmd", "persistence"], "eval: found methods %s" % list(scores))
    mine, ekf = scores["learned"], scores["ekf"]
    t.check(mine["filtered_rmse"] < 1.3 * ekf["filtered_rmse"], "duffing: wanted near the EKF, found %s" % scores)
    t.check(mine["rmse_10"] < 0.5 * min(scores["ar"]["rmse_10"], scores["dmd"]["rmse_10"]), "duffing: wanted below AR, DMD: %s" % scores)
    t.check(0.8 < mine["coverage_90"] < 0.98 and 0.85 < ekf["coverage_90"] < 0.95, "duffing: coverage %s" % scores)
    t.check(0.8 < ekf["nees"] < 1.3 and 0.85 < ekf["nis"] < 1.15, "duffing: wanted a consistent EKF, found %s" % ekf)
    with open(os.path.join(folder, "summary.json"), encoding="utf-8") as file:
        summary = json.load(file)
    t.check(summary["status"] == "done" and abs(summary["test_filtered_rmse"] / mine["filtered_rmse"] - 1) < 1e-5, "summary: %s" % summary)
    t.check(t.run(1, "inspect", folder).code == 0, "inspect: wanted exit 0")
    plan = t.run(1, "plan", t.path("empty.yaml"), *STATESPACE)
    t.check(plan.code == 0 and "parameters\t22" in plan.out, "plan: found %s %s" % (plan.out, plan.err))
    spectrum = t.run(1, "spectra", folder)
    t.check(spectrum.code == 0 and "spectral_radius" in spectrum.out, "spectra: found %s %s" % (spectrum.out, spectrum.err))
    lib_page.page("analysis/world", [folder], name="world", sections=WORLD_SECTIONS)
    lib_page.refused(3, "metrics.tsv", t.path("nothing"), name="world")
    return folder


def koopman():
    """The exact lift: eigenvalues and forecasts without noise, eigenvalues with."""
    clean = train("clean", *KOOPMAN, "system.observation_noise=0", "world.noise=given")
    noisy = train("noisy", *KOOPMAN, "system.observation_noise=0.01")
    for folder, tolerance in ((clean, 1e-6), (noisy, 1e-2)):
        found = np.array([complex(float(row["real"]), float(row["imaginary"])) for row in table(folder, "spectrum.tsv")])
        for value in (0.95, 0.6, 0.9025):
            t.check(abs(found - value).min() < tolerance, "%s: wanted the eigenvalue %g, found %s" % (folder, value, found))
    scores = evaluated(clean)
    t.check(scores["koopman"]["rmse_10"] < 1e-10, "without noise: wanted forecasts to rounding, found %s" % scores)
    return noisy


def network():
    """A learned lift forecasts better than the dictionary, AR and DMD; with world.stable, K is a contraction."""
    folder = train("network", *NETWORK)
    scores, plain = evaluated(folder), evaluated(train("plain", "model.kind=koopman", "system.kind=vanderpol", "system.steps=2000"))
    mine, best = scores["koopman"]["rmse_10"], min(scores[word]["rmse_10"] for word in ("ar", "dmd"))
    t.check(mine < 0.6 * best and mine < 0.9 * plain["koopman"]["rmse_10"], "learned lift: found %s, a dictionary %s" % (scores, plain["koopman"]))
    held = evaluated(train("held", "model.kind=koopman", "world.correction=lift", "world.degree=5", "system.kind=vanderpol", "system.steps=2000"))
    t.check(0.85 < held["koopman"]["coverage_90"] < 0.95, "held to the lift: wanted intervals as wide as they should be, found %s" % held["koopman"])
    slow = train("refit", *NETWORK, "system.kind=slow", "system.episode=20", "world.states=3", "world.decoder=0", "world.ahead=4",
                 "world.observation_noise=0.02", "world.refit=true")
    found = np.array([complex(float(row["real"]), float(row["imaginary"])) for row in table(slow, "spectrum.tsv")])
    t.check(max(abs(found - value).min() for value in (0.95, 0.6, 0.9025)) < 0.06, "world.refit: found eigenvalues %s" % found)
    still = train("stable", *NETWORK, "world.stable=true", "system.steps=1000")
    t.check(max(float(row["modulus"]) for row in table(still, "spectrum.tsv")) < 1 + 1e-9, "world.stable: wanted no growing mode")
    return folder


def resumed(words, whole, keys, every):
    """Stopped by a signal and by a bound on steps, then resumed: the same bits as never stopped."""
    folder = t.path("stopped-" + words)
    child = t.launch(1, "train", t.path("empty.yaml"), "--output", folder, *keys, "checkpoint.every=%d" % every)
    t.poll(lambda: os.path.exists(os.path.join(folder, "metrics.tsv")), child)
    child.send_signal(signal.SIGUSR1)
    code = t.wait(child).code
    t.check(code in (0, 75), "%s: wanted exit 75 or 0, found %s:\n%s" % (words, code, child.err))
    train("stopped-" + words, *keys, "checkpoint.every=%d" % every, resume=True)
    same_arrays(words + " by signal", whole, folder)
    t.check(untimed(folder) == untimed(whole), "%s by signal: wanted the same metrics.tsv" % words)
    train("bounded-" + words, *keys, "train.max_steps=%d" % (every + 130))
    train("bounded-" + words, *keys, resume=True)
    same_arrays(words + " by max_steps", whole, t.path("bounded-" + words), counts=False)


def ranks():
    """Trajectories over replicas: streams, not ranks, make the result."""
    for words, keys in (
        ("statespace", ["model.kind=statespace", "world.noise=given"]),
        ("koopman", ["model.kind=koopman"]),
        ("network", ["model.kind=koopman", "world.lift=network", "world.states=3", "world.hidden=4", "world.decoder=3", "world.ahead=4"]),
    ):
        keys += ["system.kind=vanderpol", "system.episode=50", "system.steps=1500", "world.streams=4", "report.every=200"]
        folders = [train("%s-%d" % (words, n), *keys, "layout.replicas=%d" % n, ranks=n) for n in (1, 2, 4)]
        for folder in folders[1:]:
            same_arrays(folder, folders[0], folder, counts=words != "koopman")


def owners():
    """Blocks of parameters over owners: one rank's numbers to rounding, stopped and resumed bitwise, also on fewer ranks."""
    keys = ["model.kind=statespace", "system.kind=lorenz96", "system.size=6", "system.steps=250", "world.degree=2", "world.near=1"]
    keys += ["world.cov=block", "world.noise=given", "report.every=50"]
    one, two, four = [train("owners-%d" % n, *keys, "layout.owners=%d" % n, ranks=n) for n in (1, 2, 4)]
    for other in (two, four):
        for a, b in zip(untimed(one), untimed(other)):
            t.check(all(a[k] == b[k] or abs(float(a[k]) / float(b[k]) - 1) < 1e-6 for k in a), "%s: wanted %s, found %s" % (other, a, b))
    train("owners-cut", *keys, "layout.owners=2", "train.max_steps=70", ranks=2)
    folder = train("owners-cut", *keys, "layout.owners=2", ranks=2, resume=True)
    same_arrays("owners", two, folder, counts=False)
    train("owners-less", *keys, "layout.owners=2", "train.max_steps=70", ranks=2)
    less = train("owners-less", *keys, resume=True)
    with h5py.File(t.newest(one), "r") as a, h5py.File(t.newest(less), "r") as b:
        t.check(np.allclose(a["params/theta"][...], b["params/theta"][...], rtol=1e-6, atol=1e-9), "2 ranks, then 1: wanted the same means")
    t.check(evaluated(one).keys() == evaluated(four).keys(), "owners: wanted both evaluated")


def segments():
    """A ring cut into segments: the same bits on any number of owners, also stopped and gone on with on fewer; and in low rank."""
    keys = ["model.kind=statespace", "system.kind=lorenz96", "system.size=17", "system.steps=500", "world.degree=2", "world.near=2"]
    keys += ["world.noise=adapt", "world.process_noise=0.01", "world.horizon=5", "report.every=50"]
    cut = [*keys, "world.cov=block", "world.segments=4", "world.reach=2"]
    one, two, four = [train("segments-%d" % n, *cut, "layout.owners=%d" % n, ranks=n) for n in (1, 2, 4)]
    for other in (two, four):
        same_arrays("segments", one, other)
        for name in ("metrics.tsv", "parameters.tsv", "forecast.tsv", "spectrum.tsv", "trajectory.tsv"):
            t.check(untimed(one, name) == untimed(other, name), "segments: wanted the same %s in %s" % (name, other))
    train("segments-cut", *cut, "layout.owners=2", "train.max_steps=70", ranks=2)
    less = train("segments-cut", *cut, resume=True)
    same_arrays("segments, 2 ranks, then 1", one, less, counts=False)
    scores = evaluated(one)
    t.check(scores["learned"]["rmse_1"] < scores["persistence"]["rmse_1"], "segments: found %s" % scores)
    child = t.run(2, "eval", one)
    t.check(child.code == 0 and "learned" in child.out, "segments on 2 ranks: %s %s" % (child.code, child.err))
    low = [*keys, "world.cov=lowrank", "world.rank=10", "system.steps=200"]
    whole = train("low", *low)
    spread = train("low-2", *low, "layout.owners=2", ranks=2)
    with h5py.File(t.newest(whole), "r") as a, h5py.File(t.newest(spread), "r") as b:
        t.check(np.allclose(a["params/theta"][...], b["params/theta"][...], rtol=1e-6, atol=1e-9), "lowrank on 2 ranks: wanted the same means")
    train("low-cut", *low, "train.max_steps=70")
    same_arrays("lowrank", whole, train("low-cut", *low, resume=True), counts=False)
    return one


def files():
    """A series of the user's own, with gaps: CSV and HDF5 say the same."""
    rng = np.random.default_rng(1)
    x, rows = np.array([1.0, 0.0]), []
    for _ in range(600):
        x = 0.99 * np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]) @ x + 0.1 * rng.standard_normal(2)
        rows.append(x + 0.05 * rng.standard_normal(2))
    y = np.array(rows)
    y[::7, 1] = np.nan
    with open(t.path("own.csv"), "w", encoding="ascii") as file:
        file.write("time,left,right\n")
        for k, (a, b) in enumerate(y):
            file.write("%.2f,%.17g,%s\n" % (0.5 * k, a, "" if np.isnan(b) else "%.17g" % b))
    with h5py.File(t.path("own.h5"), "w") as file:
        file["y"], file["time"] = y, 0.5 * np.arange(len(y))
    keys = ["model.kind=statespace", "world.transition=linear", "series.time=time", "report.every=100"]
    one = train("csv", *keys, "series.path=" + t.path("own.csv"))
    two = train("hdf5", *keys, "series.path=" + t.path("own.h5"))
    a, b = evaluated(one), evaluated(two)
    t.check(str(a) == str(b) and a["learned"]["rmse_1"] < a["persistence"]["rmse_1"], "own series: found %s and %s" % (a, b))
    with open(os.path.join(one, "manifest.json"), encoding="utf-8") as file:
        t.check(json.load(file)["data"][0]["name"] == "own.csv", "manifest: wanted own.csv")
    train("koopman-csv", "model.kind=koopman", "world.degree=1", "world.delays=2", "series.path=" + t.path("own.csv"), "series.outputs=left")
    with open(t.path("uneven.csv"), "w", encoding="ascii") as file:
        file.write("time,a\n" + "".join("%g,%g\n" % (k + (k > 50), np.sin(k)) for k in range(100)))


def refused(code, texts, *words, ranks=1):
    output = t.path("refused")
    child = t.run(ranks, "train", t.path("empty.yaml"), "--output", output, *words)
    one = len(child.err.splitlines()) == 1 and child.err.startswith("kwm: error: ")
    t.check(child.code == code and one, "%s: wanted exit %d and one line, found %s:\n%s" % (words, code, child.code, child.err))
    t.check(all(text in child.err for text in texts), "%s: wanted %s in:\n%s" % (words, texts, child.err))
    t.check(not os.path.exists(output), "%s: wanted no folder" % (words,))


def bad_input(folder):
    kind = "model.kind=statespace"
    refused(2, ["series.path"], kind)
    refused(2, ["both"], kind, "system.kind=duffing", "series.path=" + t.path("own.csv"))
    refused(2, ["system.kind"], kind, "system.kind=none-such")
    refused(3, ["nowhere.csv"], kind, "series.path=nowhere.csv")
    refused(3, ["equally spaced", "series.episode"], kind, "series.path=" + t.path("uneven.csv"), "series.time=time")
    refused(2, ["column `c`"], kind, "series.path=" + t.path("own.csv"), "series.outputs=c")
    refused(2, ["world.states"], kind, "system.kind=duffing", "world.states=1")
    refused(2, ["world.streams"], kind, "system.kind=duffing", "world.streams=4")
    refused(2, ["world.cov"], kind, "system.kind=duffing", "world.cov=block", "world.method=dual")
    refused(2, ["world.refit"], "model.kind=koopman", "system.kind=duffing", "world.refit=true")
    refused(2, ["world.near"], kind, "system.kind=duffing", "world.near=1")
    ring = [kind, "system.kind=lorenz96", "system.size=12", "world.near=1", "world.noise=adapt", "world.segments=3", "world.reach=3"]
    refused(2, ["world.segments", "3 to the 12 states"], *ring, "world.segments=2")
    refused(2, ["world.segments", "reach + world.near"], *ring, "world.near=2")
    refused(2, ["world.near above 0"], *ring, "world.near=0")
    refused(2, ["world.segments", "world.noise"], *ring, "world.noise=fit")
    refused(2, ["layout.owners", "3 segments"], *ring, "layout.owners=4", ranks=4)
    refused(2, ["world.cov lowrank"], *ring, "world.cov=lowrank")
    refused(2, ["world.rank", "2 states"], kind, "system.kind=duffing", "world.cov=lowrank", "world.rank=3")
    refused(2, ["learner"], kind, "system.kind=duffing", "learner=adam")
    refused(2, ["layout"], kind, "system.kind=duffing", "layout.replicas=2", "world.streams=2", "system.episode=50")
    child = t.run(1, "train", t.path("empty.yaml"), "--output", folder, "--resume", *STATESPACE, "world.degree=2")
    t.check(child.code == 3 and "degree" in child.err, "another model: wanted exit 3, found %s:\n%s" % (child.code, child.err))
    wild = ["system.kind=lorenz63", "system.steps=500", "system.dt=0.3", "world.degree=9"]
    child = t.run(1, "train", t.path("empty.yaml"), "--output", t.path("wild"), kind, *wild)
    t.check(child.code in (0, 2, 4), "a wild model: wanted an end in words, found %s:\n%s" % (child.code, child.err))


t.start(data=False)
whole = learned()
noisy = koopman()
resumed("statespace", whole, STATESPACE, 400)
resumed("network", network(), NETWORK, 400)
resumed("koopman", noisy, [*KOOPMAN, "system.observation_noise=0.01"], 300)
ranks()
owners()
lib_page.page("segments", [segments()], name="world", sections=WORLD_SECTIONS)
files()
bad_input(whole)
t.finish()
