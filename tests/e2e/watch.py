#!/usr/bin/python3
"""A run seen from outside, and a run that stands still. `kwm status` of a run that runs, ended, was stopped, failed or was killed;
a rank that hangs, stops or dies makes the watchdog name it and end the run, which then resumes to the same bits; policies for
numbers gone bad; checkpoints that stay; inspect --verify and --diff."""
import sys

sys.dont_write_bytecode = True

import os
import signal

import h5py

import lib_kwm as t

KEYS = ["checkpoint.every=50", "train.epochs=1000", *t.layout(2)]
END = "train.max_steps=120"


def status(words, folder, state, *texts):
    child = t.run(1, "status", folder)
    found = dict(line.split("\t", 1) for line in child.out.splitlines() if "\t" in line)
    t.check(child.code == 0, "%s: status: wanted exit 0, found %s: %s" % (words, child.code, child.err))
    t.check(found.get("state") == state, "%s: wanted state %s, found %s" % (words, state, child.out))
    for text in texts:
        t.check(text in child.out, "%s: wanted `%s` in the status, found %s" % (words, text, child.out))
    return found


def launch(name, *words, **environment):
    common = ["train", t.path("empty.yaml"), "--output", t.path(name), *t.SMALL, *KEYS]
    return t.launch(2, *common, *words, env={**os.environ, **environment})


def seen_running():
    """From the first row to the last: running, then stopped on request, then finished."""
    folder = t.path("seen")
    child = launch("seen", "train.max_steps=100000")
    t.poll(lambda: len(t.checkpoints(folder)) > 1, child)
    found = status("running", folder, "running", "of 15000")
    t.check(float(found["seconds_left"]) > 0 and "ends" in found, "running: wanted an end, found %s" % found)
    t.check(float(found["seconds_a_step"]) > 0 and int(found["ranks"]) == 2, "running: wanted a pace, found %s" % found)
    child.send_signal(signal.SIGUSR1)
    t.check(t.wait(child).code == 75, "stopped: wanted exit 75, found %s: %s" % (child.code, child.err))
    step = t.summary(folder)["step"]
    status("stopped", folder, "stopped", "step\t%d of 15000" % step, "checkpoint\tstep %d," % step)


# A rank that hangs computes no more, but its host lives; one that is stopped or killed gives no sign of life.
STALLS = {
    "hang:learn:70:1": ("rank 1", "phase learn of step 70", "alive"),
    "hang:predict:71:0": ("rank 0", "phase predict of step 71", "alive"),
    "stop:linearise:70:0": ("rank 0", "no sign of life"),
    "hang:sync:100:1": ("rank 1", "phase checkpoint of step 120", "alive"),
}


def stalled(fault, whole):
    words, name = "fault " + fault, "fault-" + fault.replace("/", "-")
    child = t.wait(launch(name, END, "watchdog.seconds=3", KWM_TEST_FAULT=fault))
    lines = [line for line in child.err.splitlines() if line.startswith("kwm: error:")]
    t.check(child.code == 76, "%s: wanted exit 76, found %s:\n%s" % (words, child.code, child.err))
    t.check(len(lines) == 1 and all(text in lines[0] for text in STALLS[fault]), "%s: wanted one line that names it, found %s" % (words, lines))
    t.check("did not arrive" in t.log_of(t.path(name)), words + ": wanted it in kwm.log")
    status(words, t.path(name), "failed", "did not arrive")
    t.train(2, name, *KEYS, END, resume=True)
    t.check_same(words, t.newest(t.path(name)), t.newest(whole))
    t.check(t.rows(t.path(name)) == t.rows(whole), words + ": wanted the same metrics.tsv")
    status(words + ", resumed", t.path(name), "finished")


def killed():
    """All at once, so that nobody can tell: the silence does, after a while."""
    folder = t.path("killed")
    t.check(t.wait(launch("killed", END, "checkpoint.background=false", KWM_TEST_FAULT="kill:learn:70:-1")).code == 137, "killed: wanted exit 137")
    t.poll(lambda: "failed" in t.run(1, "status", folder).out)
    status("killed", folder, "failed", "no sign of life", "checkpoint\tstep 50,")


def policies():
    """Not finite: a baseline with an absurd rate."""
    keys = [*KEYS, "train.max_steps=40", "learner=sgd", "sgd.rate=100", "sgd.momentum=0.99", "train.schedule=constant"]
    child = t.run(2, "train", t.path("empty.yaml"), "--output", t.path("stops"), *t.SMALL, *keys, "sgd.rate=1e38", "failure.not_finite=stop")
    lines = [line for line in child.err.splitlines() if line.startswith("kwm: error:")]
    t.check(child.code in (2, 4), "stop: wanted exit 4, found %s:\n%s" % (child.code, child.err))
    t.check(len(lines) == 1, "stop: wanted one error line, found %s" % lines)
    diverging = ["failure.nis=0.5", "train.max_steps=40"]
    child = t.run(2, "train", t.path("empty.yaml"), "--output", t.path("warns"), *t.SMALL, *KEYS, *diverging)
    t.check(child.code == 0 and "diverging: mean nis" in child.err, "warn: wanted exit 0 and a warning, found %s:\n%s" % (child.code, child.err))
    child = t.run(2, "train", t.path("empty.yaml"), "--output", t.path("nis"), *t.SMALL, *KEYS, *diverging, "failure.diverging=stop")
    t.check(child.code == 4 and "failure.nis 0.5" in child.err, "stop: wanted exit 4, found %s:\n%s" % (child.code, child.err))
    t.check(not t.checkpoints(t.path("nis")), "stop: wanted no checkpoint of the diverging state")
    child = t.run(2, "train", t.path("empty.yaml"), "--output", t.path("grown"), *t.SMALL, *KEYS, *diverging, "failure.diverging=inflate")
    t.check(child.code == 0 and "P inflated" in child.err, "inflate: wanted exit 0 and a word, found %s:\n%s" % (child.code, child.err))
    grown, plain = t.newest(t.path("grown")), t.newest(t.path("warns"))
    t.check(t.differences(t.state(grown), t.state(plain)), "inflate: wanted another posterior")
    child = t.run(2, "train", t.path("empty.yaml"), "--output", t.path("joint"), *t.SMALL, *KEYS, "cov.joint=full", "failure.indefinite=inflate")
    t.check(child.code == 2 and "failure.indefinite" in child.err, "joint: wanted exit 2, found %s:\n%s" % (child.code, child.err))


def kept():
    folder = t.train(2, "kept", "checkpoint.every=10", "train.epochs=1000", END, *t.layout(2), "checkpoint.keep=2", "checkpoint.keep_every=40")
    found = [int(os.path.basename(name)[5:15]) for name in t.checkpoints(folder)]
    t.check(found == [40, 80, 100, 110, 120], "kept: wanted multiples of 40 and two more, found %s" % found)
    return folder


def inspected(folder):
    child = t.run(2, "inspect", "--verify", folder)
    t.check(child.code == 0 and "total\t5 good\t0 damaged" in child.out, "verify: wanted five good ones, found %s" % child.out)
    one, other = t.checkpoints(folder)[:2]
    child = t.run(2, "inspect", "--diff", one, one)
    t.check(child.code == 0 and "\t0 differ" in child.out, "diff: wanted a file to be as itself, found %s" % child.out)
    child = t.run(1, "inspect", "--diff", one, other)
    rows = {line.split("\t")[0]: line.split("\t") for line in child.out.splitlines() if line.startswith("/")}
    with h5py.File(one, "r") as a, h5py.File(other, "r") as b:
        for name, row in rows.items():
            if not name.startswith(("/params", "/cov")):
                continue
            wanted = abs(a[name][()].astype(float) - b[name][()]).max()
            t.check(abs(float(row[1]) - wanted) <= 1e-5 * wanted, "diff: %s: wanted %g, found %s" % (name, wanted, row))
            differ = (a[name][()] != b[name][()]).sum()
            t.check(int(row[4]) == differ, "diff: %s: wanted %d elements, found %s" % (name, differ, row))
    t.check(len(rows) > 10, "diff: wanted every array, found %s" % child.out)
    with open(other, "r+b") as file:
        file.seek(3000)
        file.write(b"?")
    child = t.run(2, "inspect", "--verify", folder, one)
    t.check(child.code == 3 and "total\t5 good\t1 damaged" in child.out, "verify: wanted one damaged, found %s" % child.out)
    t.check("damaged\t" + other in child.out, "verify: wanted it named, found %s" % child.out)


t.start()
status("nothing yet", t.scratch, "not begun")
seen_running()
end = t.train(2, "whole", *KEYS, END)
t.all_of(stalled, [(fault, end) for fault in STALLS])
killed()
policies()
inspected(kept())
t.check(t.run(1, "status", t.path("no-such")).code == 3, "status: wanted exit 3 for no folder")
t.finish()
