#!/usr/bin/python3
"""Training on a device gives the host's answer. The device is that of KWM_TEST_BACKEND: shadow (plain loops behind memory
that the host cannot touch), or cuda, which skips where there is no GPU.

The losses of all rows of metrics.tsv agree to a relative 1e-3 with the host's over 500 steps from one checkpoint, or, with a
structure that has no eigenbasis, from the first step on, for the gated and the dense model, for learners that work on the device and for those that stay on the host; over ranks; a run goes on from the
other backend's checkpoint; a resumed run equals one that never stopped, bit for bit; without a GPU backend cuda says so
and goes on on the host.
"""
import sys

sys.dont_write_bytecode = True

import os
import shutil

import numpy as np

import lib_kwm as t

BACKEND = os.environ.get("KWM_TEST_BACKEND", "shadow")
DEVICE = "backend=" + BACKEND
STEPS = ["train.epochs=100", "train.max_steps=545", "train.chunks=2"]
FEW = ["train.epochs=100", "train.max_steps=90", "train.chunks=2"]
# Here the last of the early eigenbases has been taken. Those come of few samples: most eigenvalues are zero, their
# vectors turn with the last digit, and with them what the filter does. From here on all eigenvalues differ.
SETTLED = 45
DENSE = ["model.kind=dense", "model.widths=24 16", "sensitivity=adjoint", "cov.hidden.prior=10", "cov.output.prior=10"]
SAMPLED = [*DENSE, "filter.evidence=sampled"]
# 200 rows: S is factored on the device.
ONE_S = [*FEW, "model.width=16", "model.hidden=6", *["cov.%s.%s" % (group, word) for group in ("hidden", "output") for word in ("structure=block", "form=innovation", "real=double")]]
TOLERANCE = 1e-3
TURNED = 0.2
ONE = t.layout(1)


def losses(folder):
    """(rows, 3): training, held-out and test loss; nan where a row has none."""
    lines = t.rows(folder)
    wanted = [at for at, name in enumerate(lines[0]) if name.endswith("loss")]
    t.check(len(wanted) > 0, "metrics.tsv: wanted columns that end in loss, found %s" % lines[0])
    return np.array([[float(line[at]) for at in wanted] for line in lines[1:]])


def agree(words, folder, host, tolerance=TOLERANCE):
    one, other = losses(folder), losses(host)
    same = one.shape == other.shape
    worst = np.nanmax(np.abs(one - other) / (np.abs(other) + 1e-2 * np.nanmax(np.abs(other)))) if same and one.size else np.inf
    print("%s: losses agree to %.1e over %d rows" % (words, worst, len(one)), flush=True)
    t.check(worst <= tolerance, "%s: wanted losses within %g of the host's, found %g" % (words, tolerance, worst))


def pair(words, keys, ranks=1, layout=ONE):
    """The same steps on the host and on the device, from one checkpoint of the host's."""
    begun = t.train(ranks, words + "-host", *keys, *layout, "train.max_steps=%d" % SETTLED)
    device = t.path(words + "-device")
    shutil.copytree(begun, device)
    host = t.train(ranks, words + "-host", *keys, *layout, resume=True)
    t.train(ranks, words + "-device", *keys, *layout, DEVICE, resume=True)
    agree(words, device, host)
    return device, host


def on_device(words, keys, **options):
    folder, host = pair(words, keys, **options)
    log = t.log_of(folder)
    with open(os.path.join(folder, "manifest.json"), encoding="utf-8") as file:
        t.check('"backend": "%s: ' % BACKEND in file.read(), words + ": wanted the backend in manifest.json")
    t.check("backend %s" % BACKEND in log and "learner works on the host" not in log, "%s: wanted the learner on the device: %s" % (words, log))
    return folder, host


def on_host(words, keys, **options):
    folder, _ = pair(words, keys, **options)
    t.check("learner works on the host" in t.log_of(folder), words + ": wanted the learner on the host")


def models():
    t.all_of(on_device, [
        ("gated", STEPS),
        ("dense-sampled", [*SAMPLED, *STEPS, "model.dropout=0.1", "filter.line_search=true", "filter.trust_expected=1", "filter.trust_region=0"]),
        ("dense-exact", [*DENSE, *STEPS]),
        ("stage", [*SAMPLED, *FEW, "sensitivity=stage"]),
        ("gaussian", [*FEW, "model.observation=gaussian", "model.noise_variance=0.1"]),
        ("forgetting", [*FEW, "filter.forgetting=0.999", "filter.process_noise=1e-5"]),
        ("one-S", ONE_S),
        ("stream", [*SAMPLED, *FEW, "stream.kind=permuted", "stream.tasks=8", "train.epochs=1"]),
    ])


def learners():
    t.all_of(on_host, [
        ("adam", [*FEW, "learner=adam"]),
        ("lowrank", [*FEW, "model.width=32", "cov.hidden.structure=lowrank", "cov.hidden.rank=4", "train.max_steps=50"]),
        ("innovation", [*FEW, "model.width=32", "cov.recurrence.form=innovation", "train.max_steps=50"]),
        ("joint", [*FEW, "model.width=32", "model.hidden=8", "cov.joint=full", "train.max_steps=50"]),
        ("framed", [*SAMPLED, *FEW, "cov.output.structure=lowrank", "cov.output.rank=4"]),
        ("score-test", [*FEW, "filter.score_test=true"]),
    ])


def layouts():
    for stages, owners, replicas in ((2, 1, 1), (1, 2, 1), (1, 1, 2), (2, 1, 2)):
        words = "stages-%d-owners-%d-replicas-%d" % (stages, owners, replicas)
        on_device(words, FEW, ranks=stages * owners * replicas, layout=t.layout(stages, owners, replicas))
    on_device("dense-stages", [*SAMPLED, *FEW], ranks=2, layout=t.layout(2, 1, 1))
    on_device("one-S-stages", ONE_S, ranks=2, layout=t.layout(2, 1, 1))
    t.all_of(messages, [("gated-messages", [*FEW, *t.layout(1, 2, 1), DEVICE]), ("dense-messages", [*SAMPLED, *FEW, *t.layout(2, 1, 1), DEVICE])])


def messages(words, keys):
    """Whichever way they go, and stopped and resumed or not: the same bits."""
    whole, half = [*keys, "train.max_steps=24"], [*keys, "train.max_steps=11"]
    device = t.train(2, words + "-direct", *whole)
    host = t.train(2, words + "-through-host", *whole, "layout.messages=host")
    parts = t.train(2, words + "-parts", *half, "layout.messages=host")
    t.train(2, words + "-parts", *whole, resume=True)
    t.check("messages through the host" in t.log_of(host), "%s: wanted messages through the host in the log: %s" % (words, t.log_of(host)))
    t.check("messages from device to device" in t.log_of(device) or BACKEND != "shadow", "%s: wanted direct messages in the log: %s" % (words, t.log_of(device)))
    t.check_same(words + ", through the host", t.newest(host), t.newest(device), 0)
    t.check_same(words + ", stopped and resumed", t.newest(parts), t.newest(device), 1e-9)


def crossed(words, keys):
    """Over checkpoints: a device's own, and from the host to the device and back."""
    half, whole = [*keys, *FEW, *ONE, "train.max_steps=50"], [*keys, *FEW, *ONE]
    device = t.train(1, words + "-whole-device", *whole, DEVICE)
    host = t.train(1, words + "-whole-host", *whole)
    parts = t.train(1, words + "-parts", *half, DEVICE)
    t.train(1, words + "-parts", *whole, DEVICE, resume=True)
    t.check_same(words + ", resumed", t.newest(parts), t.newest(device), 1e-9)
    agree(words + ", from the first step", device, host, TURNED)
    name = words + "-there-and-back"
    t.train(1, name, *half, "train.max_steps=50")
    t.train(1, name, *half, "train.max_steps=70", DEVICE, resume=True)
    back = t.train(1, name, *whole, resume=True)
    agree(name, back, host)


def from_the_first():
    words, plain = "diag, from the first step", [*STEPS, *ONE, *["cov.%s.structure=diag" % g for g in ("recurrence", "hidden", "output")]]
    agree(words, t.train(1, "diag-device", *plain, DEVICE), t.train(1, "diag-host", *plain))
    # Training on what never comes twice does not forget a difference: it grows tenfold in some 10 steps.
    noise = [*plain, "model.dropout=0.2", "data.shift=1", "train.max_steps=40"]
    agree("dropout and moved images", t.train(1, "noise-device", *noise, DEVICE), t.train(1, "noise-host", *noise))


def numerics():
    """What ends a run on the host ends it on a device, with the same word and nothing written."""
    t.train(1, "diverges", *SAMPLED, *FEW, "filter.gain_factor=1", "filter.trust_region=0", "cov.hidden.prior=1e-6", "cov.output.prior=1e-6", *ONE, DEVICE, code=4)


def without_a_gpu():
    child = t.run(1, "train", t.path("empty.yaml"), "--output", t.path("none"), *t.SMALL, *FEW, *ONE, "train.max_steps=3", "backend=cuda",
                  env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})
    t.check(child.code == 0, "without a GPU: wanted exit 0, found %s:\n%s" % (child.code, child.err))
    t.check(child.err.count("going on with backend cpu") + child.out.count("going on with backend cpu") == 1, "without a GPU: wanted one warning, found:\n%s%s" % (child.out, child.err))


t.start()
if BACKEND != "shadow":
    probe = t.run(1, "train", t.path("empty.yaml"), "--output", t.path("probe"), *t.SMALL, *FEW, *ONE, "train.max_steps=1", DEVICE)
    if "going on with backend cpu" in probe.err + probe.out:
        t.skip("no such device: " + probe.err)
models()
learners()
layouts()
# At step 50, where they change over, the basis of step 40 is awaited.
t.all_of(crossed, [("gated", ["cov.hidden.delay=15", "cov.output.delay=15"]), ("dense", SAMPLED), ("one-S-crossed", ONE_S)])
from_the_first()
numerics()
without_a_gpu()
t.finish()
