#!/usr/bin/python3
"""A transformer language model from the command line: it learns a text, the same on every layout and on the shadow device;
it resumes bit for bit; eval and plan say the same; what does not fit is refused in words."""
import sys

sys.dont_write_bytecode = True

import math
import os

import lib_kwm as t
import lib_text

KEYS = [
    "learner=kalman", "model.kind=transformer", "sensitivity=stage", "model.width=16", "model.layers=4", "model.heads=2",
    "model.context=16", "model.readouts=2", "model.dropout=.1", "train.batch=8", "train.chunks=4", "train.warmup=5",
    "layout.stages=1", "filter.evidence=innovations", "filter.process_noise=1e-3", "cov.hidden.prior=30", "cov.output.prior=30",
    "cov.hidden.refresh=10", "cov.output.structure=diag", "train.epochs=2", "report.every=5", "adam.rate=.005",
]


def train(name, ranks, *keys, code=0, resume=False):
    folder = t.path(name)
    words = ["train", t.path("empty.yaml"), "--output", folder] + (["--resume"] if resume else []) + KEYS + list(keys)
    child = t.run(ranks, *words)
    t.check(child.code == code, "%s: wanted exit %d, found %d: %s" % (name, code, child.code, child.err[-300:]))
    return folder


def column(folder, name):
    with open(os.path.join(folder, "metrics.tsv"), encoding="ascii") as table:
        lines = [line.rstrip("\n").split("\t") for line in table]
    return [float(row[lines[0].index(name)]) for row in lines[1:]]


def check_close(words, one, other, tolerance):
    a, b = column(one, "train_loss"), column(other, "train_loss")
    worst = max(abs(x - y) / y for x, y in zip(a, b))
    t.check(len(a) == len(b) and worst <= tolerance, "%s: losses differ by %g" % (words, worst))


def learn():
    """It gets far below what word frequencies alone allow, by every way."""
    folders = {}
    for name, keys in (("stage", []), ("adjoint", ["sensitivity=adjoint"]), ("adam", ["learner=adam", "sensitivity=adjoint"])):
        folder = folders[name] = train(name, 1, *keys)
        summary = t.summary(folder)
        t.check(summary["status"] == "done", "%s: done" % name)
        t.check(summary["valid_perplexity"] < 0.6 * lib_text.KINDS, "%s: learned the rule, perplexity %g" % (name, summary["valid_perplexity"]))
        t.check(summary["test_perplexity_fused"] < 1.1 * summary["test_perplexity"], "%s: fused prediction" % name)
        t.check(0.5 < summary["nis_mean"] < 1.5, "%s: NIS %g" % (name, summary["nis_mean"]))
    return folders


def layouts(folders):
    keys = {"stage": [], "adjoint": ["sensitivity=adjoint"], "adam": ["learner=adam", "sensitivity=adjoint"]}
    for name, stages, owners, replicas in (("stage", 2, 1, 1), ("stage", 2, 2, 1), ("adjoint", 1, 2, 1), ("adjoint", 1, 2, 2),
                                           ("adam", 1, 1, 2), ("adam", 2, 1, 2)):
        words = "%s, %d x %d x %d" % (name, stages, owners, replicas)
        layout = ["layout.stages=%d" % stages, "layout.owners=%d" % owners, "layout.replicas=%d" % replicas]
        check_close(words, train(words, stages * owners * replicas, *keys[name], *layout), folders[name], 2e-3)
    host = train("shadow's host", 1, "train.max_steps=20")
    for ranks in (1, 2):
        name = "shadow, %d owners" % ranks
        check_close(name, train(name, ranks, "backend=shadow", "layout.owners=%d" % ranks, "train.max_steps=20"), host, 1e-5)
    for name, keys in (("stage", []), ("adjoint", ["sensitivity=adjoint"])):
        device, host = (train("%s, messages %s" % (name, way), 2, "backend=shadow", "layout.stages=2", "layout.messages=" + way,
                              "train.max_steps=15", *keys) for way in ("device", "host"))
        check_close("%s, messages" % name, device, host, 0)
        with open(os.path.join(device, "kwm.log"), encoding="utf-8") as log:
            t.check("messages from device to device" in log.read(), "%s: the log says how messages go" % name)
        fractions = [t.summary(device)["idle_fraction_stage%d" % stage] for stage in (1, 2)]
        t.check(all(0 < fraction < 1 for fraction in fractions), "%s: idle fractions %s" % (name, fractions))


def trust(folders):
    """A bound keeps every stage's step below it, and the step is shortened as much as it must be."""
    free, bound = column(folders["stage"], "kl_stage2"), 1e-4
    t.check(max(free) > bound and set(column(folders["stage"], "scale_stage2")) == {1.0}, "trust region: the default binds nowhere")
    folder = train("trust", 2, "layout.stages=2", "filter.trust_region=%g" % bound, "report.every=1", "train.epochs=1")
    for stage in ("1", "2"):
        kl, scale = column(folder, "kl_stage" + stage), column(folder, "scale_stage" + stage)
        wanted = [min(1, math.sqrt(bound / k)) for k in kl]
        t.check(t.np.allclose(scale, wanted, rtol=1e-5), "trust region: what is taken of stage %s" % stage)
    t.check(min(column(folder, "scale_stage2")) < 1, "trust region: it is met")
    t.check(all(math.isnan(x) for x in column(folders["adam"], "kl_stage1")), "trust region: not of adam")


def resume():
    """Half, then the rest, is the whole: bit for bit, also with copies of the embedding that lag."""
    for name, ranks, keys in (("kalman", 2, ["layout.stages=2"]), ("adam", 1, ["learner=adam"]),
                              ("average", 2, ["layout.owners=2", "train.average=.05", "train.copy_every=7", "filter.spread_bases=true"])):
        common = keys + ["checkpoint.every=20", "train.schedule=constant"]
        whole = train("whole " + name, ranks, "train.max_steps=60", *common)
        part = train("part " + name, ranks, "train.max_steps=40", *common)
        train("part " + name, ranks, "train.max_steps=60", *common, resume=True)
        one, other = (t.arrays(t.newest(folder), groups=("params", "cov", "learner")) for folder in (whole, part))
        same = one.keys() == other.keys() and all((one[k] == other[k]).all() for k in one)
        t.check(same and len(one) > 0, "%s: resumed run has the same bits" % name)
    common = ["checkpoint.every=20", "train.schedule=constant"]
    whole = train("whole", 1, "train.max_steps=60", *common)
    for ranks, steps in ((1, 20), (2, 40), (1, 60)):
        moved = train("moved", ranks, "train.max_steps=%d" % steps, "layout.owners=%d" % ranks, *common, resume=True)
    check_close("one rank, two owners, one rank", moved, whole, 2e-3)


def memory():
    """Owners divide the covariance; what does not fit is refused, and what is proposed in its place fits."""
    held = []
    for ranks in (1, 4):
        child = t.run(ranks, "plan", t.path("empty.yaml"), *KEYS, "model.width=64", "layout.owners=%d" % ranks)
        rows = [line.split("\t") for line in child.out.splitlines() if "\t" in line]
        at = [rows[0].index(key) for key in ("tensors_owned", "means_covariance_MB", "host_MB")]
        t.check(child.code == 0 and sum(int(row[at[0]]) for row in rows[1:]) == 28, "plan: every tensor has one owner")
        held.append([max(float(row[k]) for row in rows[1:]) for k in at[1:]])
    t.check(held[1][0] < 0.6 * held[0][0] and held[1][1] < held[0][1], "plan: four owners take less, %s" % held)
    key = "layout.memory_gb=%g" % (0.0005 * sum(row[1] for row in held))
    for command in (["plan"], ["train", "--output", t.path("refused")]):
        child = t.run(1, *command[:1], t.path("empty.yaml"), *command[1:], *KEYS, "model.width=64", key)
        t.check(child.code == 2 and "fits: layout.owners=" in child.err, "memory: %s refuses, %s" % (command[0], child.err[-200:]))


def posterior(folders):
    """Averages over draws: next to no covariance changes nothing, much of it does; other ranks draw the same; adam has none."""
    def perplexities(ranks, scale, *keys):
        child = t.run(ranks, "eval", folders["stage"], "predictive.draws=2", "predictive.scale=%g" % scale, *keys)
        lines = dict(line.split("\t", 1) for line in child.out.splitlines() if "\t" in line)
        return [float(lines.get(key, "nan")) for key in ("test_perplexity", "test_perplexity_posterior")]

    mean, drawn = perplexities(1, 1e-12)
    t.check(abs(drawn - mean) < 1e-3 * mean, "posterior: wanted %g without a covariance, found %g" % (mean, drawn))
    drawn = perplexities(1, 10)[1]
    t.check(abs(drawn - mean) > 1e-3 * mean, "posterior: wanted another perplexity than %g, found %g" % (mean, drawn))
    for ranks, keys in ((2, ["layout.stages=1", "layout.owners=2"]), (2, ["layout.stages=2"])):
        found = perplexities(ranks, 10, *keys)[1]
        t.check(abs(found - drawn) < 1e-3 * drawn, "posterior, %s: wanted %g, found %g" % (keys, drawn, found))
    child = t.run(1, "eval", folders["adam"], "predictive.draws=2")
    t.check(child.code == 2 and "has no posterior" in child.err, "posterior of adam: found exit %s, %s" % (child.code, child.err))


def commands(folders):
    child = t.run(2, "eval", folders["stage"])
    lines = dict(line.split("\t", 1) for line in child.out.splitlines() if "\t" in line)
    summary = t.summary(folders["stage"])
    for key in ("valid_perplexity", "test_perplexity", "test_perplexity_fused"):
        t.check(abs(float(lines.get(key, "nan")) - summary[key]) < 2e-3 * summary[key], "eval: %s as in the summary" % key)
    t.check(int(lines.get("test_tokens", 0)) == 40 * 16 - 1, "eval: every token but the first")
    child = t.run(1, "plan", os.path.join(folders["stage"], "config.yaml"))
    rows = [line.split("\t") for line in child.out.splitlines() if "\t" in line]
    copies = sum(float(row[rows[0].index("checkpoint_copy_MB")]) for row in rows[1:])
    stored = sum(a.nbytes for name, a in t.arrays(t.newest(folders["stage"])).items() if "@" not in name) / 1e6
    t.check(abs(copies - stored) < 0.05 * stored + 0.1, "plan: wanted copies of %.2f MB for a checkpoint, found %.2f" % (stored, copies))
    child = t.run(3, "eval", folders["stage"], "layout.stages=3", "layout.owners=1", "layout.replicas=1")
    t.check(child.code == 2 and "at most 2" in child.err, "eval: three ranks are too many for two stages")
    for kind in ("stage", "adjoint"):
        child = t.run(3, "eval", folders[kind])
        lines = dict(line.split("\t", 1) for line in child.out.splitlines() if "\t" in line)
        wanted = t.summary(folders[kind])["test_perplexity"]
        t.check(abs(float(lines.get("test_perplexity", "nan")) - wanted) < 2e-3 * wanted, "eval: on three ranks")
    child = t.run(2, "spectra", folders["stage"])
    t.check(child.code == 0 and "layer4_down" in child.out, "spectra: prints every tensor")
    with t.h5py.File(t.newest(folders["stage"])) as run, t.h5py.File(t.newest(folders["stage"]).replace("checkpoints", "spectra")) as spectra:
        for name in ("layer1_qkv", "embedding"):
            ours = spectra["spectra/%s/eigenvalues" % name][0]
            wanted = t.np.sort(run["cov/%s/variance" % name][:].ravel().astype(float)) * 30
            t.check(t.np.allclose(ours, wanted, rtol=1e-6) and 0 < ours[0] and ours[-1] <= 1 + 1e-6, "spectra: %s" % name)
    child = t.run(1, "judge", t.path("empty.yaml"), *KEYS)
    t.check(child.code == 2, "judge: refuses a language model")
    child = t.run(1, "inspect", folders["stage"])
    t.check(child.code == 0 and "/cov/layer1_up/input_basis" in child.out, "inspect: lists the bases")


def refused():
    for words, keys, code in (("owners", ["layout.owners=3"], 2), ("memory", ["layout.memory_gb=.001"], 2), ("heads", ["model.heads=3"], 2),
                              ("stages", ["model.readouts=9"], 2), ("evidence", ["filter.evidence=exact"], 2),
                              ("learner", ["learner=kfac"], 2), ("micro-batches", ["train.chunks=16"], 2),
                              ("short text", ["train.batch=4000", "train.chunks=4"], 3), ("file", ["data.train=none.txt"], 3)):
        ranks = 3 if words == "owners" else 1
        child = t.run(ranks, "train", t.path("empty.yaml"), "--output", t.path("refused"), *KEYS, *keys)
        t.check(child.code == code and child.err.count("kwm: error:") == 1, "refused %s: exit %d, %s" % (words, child.code, child.err[-200:]))
        t.check(not os.path.exists(t.path("refused")), "refused %s: no run directory" % words)


def numerical_stop():
    child = t.run(1, "train", t.path("empty.yaml"), "--output", t.path("gated"), *KEYS, "filter.gate=.5")
    t.check(child.code == 4 and "skipped in a row" in child.err, "gate: stops with code 4")


def main():
    t.start(data=False)
    os.environ["KWM_DATA"] = lib_text.make(t.path("text"))
    folders = learn()
    layouts(folders)
    trust(folders)
    resume()
    memory()
    posterior(folders)
    commands(folders)
    refused()
    numerical_stop()
    t.finish()


main()
