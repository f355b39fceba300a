#!/usr/bin/python3
"""A run that was stopped or killed and resumed ends as one that never stopped: bit for bit the same arrays (parameters,
covariance, learner; history but for the seconds) and the same metrics.tsv but for the columns that clocks give."""
import sys

sys.dont_write_bytecode = True

import os
import shutil
import signal

import lib_kwm as t

STEPS = ["train.max_steps=600", "train.epochs=100", "checkpoint.every=40"]
TRIES = 10
# With a refresh every 25 steps and a checkpoint every 40: a basis is awaited in some of these, on one rank, both, or none.
KALMAN = [*t.layout(2), "cov.hidden.delay=12", "cov.output.delay=18"]


def last_row(folder):
    try:
        return int(t.rows(folder)[-1][0])
    except (OSError, ValueError, IndexError):
        return 0


def interrupt(words, folder, keys, ranks, strike, ready):
    """Starts the run anew until it could be struck before its end; its exit code."""
    for _ in range(TRIES):
        shutil.rmtree(folder, ignore_errors=True)
        child = t.launch(ranks, "train", t.path("empty.yaml"), "--output", folder, *t.SMALL, *keys)
        t.poll(lambda: ready(folder), child)
        pids = t.ranks_of(child)
        if pids and child.poll() is None:
            strike(child)
        t.wait(child)
        # Without mpirun the ranks end a little later.
        t.poll(lambda pids=pids: all(t.process_state(pid) in (None, "Z") for pid in pids))
        if child.code != 0:
            return child
    t.check(False, "%s: wanted to stop the run before its end, %d times too late: %s" % (words, TRIES, child.err))
    return child


def signal_all(number):
    def strike(child):
        for pid in t.ranks_of(child):
            os.kill(pid, number)

    return strike


def signal_one(number):
    def strike(child):
        for pid in t.ranks_of(child)[-1:]:
            os.kill(pid, number)

    return strike


def signal_mpirun(number):
    return lambda child: child.send_signal(number)


def begun(folder):
    return last_row(folder) >= 60


# How a run is stopped: exit code (None: mpirun's own), whether a checkpoint is promised.
STOPS = {
    "usr1": (signal_mpirun(signal.SIGUSR1), 75, True),
    "term-ranks": (signal_all(signal.SIGTERM), 75, True),
    "term-one-rank": (signal_one(signal.SIGTERM), 75, True),
    "term-mpirun": (signal_mpirun(signal.SIGTERM), None, False),
    "kill-one-rank": (signal_one(signal.SIGKILL), 137, False),
    "kill-mpirun": (signal_mpirun(signal.SIGKILL), None, False),
}


def compare(words, folder, whole):
    t.check_same(words, t.newest(folder), t.newest(whole))
    t.check(t.rows(folder) == t.rows(whole), words + ": wanted the same metrics.tsv as of an uninterrupted run")
    t.check(not t.parts(folder), "%s: wanted no .part, found %s" % (words, t.parts(folder)))
    t.check(t.summary(folder)["status"] == "done", words + ": wanted status done in summary.json")


def stopped(words, name, keys, ranks, whole):
    strike, code, promised = STOPS[name]
    folder = t.path(words.replace(" ", "-"))
    child = interrupt(words, folder, keys, ranks, strike, begun)
    if code is not None:
        t.check(child.code == code, "%s: wanted exit %d, found %s:\n%s" % (words, code, child.code, child.err))
    if promised:
        status = t.summary(folder)
        made = t.newest(folder).endswith("step-%010d.h5" % status["step"])
        t.check(status["status"] == "stopped" and made, "%s: wanted a checkpoint at step %s" % (words, status["step"]))
        t.check("kwm: error:" not in child.err, "%s: wanted no error line, found:\n%s" % (words, child.err))
    t.check("bug" not in child.err, "%s: found a bug:\n%s" % (words, child.err))
    t.train(ranks, os.path.basename(folder), *keys, resume=True)
    compare(words, folder, whole)


def learner(name, stops, ranks, *keys):
    keys = ["learner=" + name, *STEPS, *keys]
    whole = t.train(ranks, "whole-" + name, *keys)
    t.all_of(stopped, [("%s %s" % (name, stop), stop, keys, ranks, whole) for stop in stops])
    return whole


def twice(whole):
    """Stopped, resumed, stopped again."""
    keys = ["learner=kalman", *STEPS, *KALMAN]
    folder = t.path("twice")
    interrupt("first stop", folder, keys, 2, signal_mpirun(signal.SIGUSR1), begun)
    for _ in range(TRIES):
        child = t.launch(2, "train", t.path("empty.yaml"), "--output", folder, "--resume", *t.SMALL, *keys)
        if t.poll(lambda: last_row(folder) >= 200, child) and child.poll() is None:
            child.send_signal(signal.SIGUSR1)
        if t.wait(child).code != 0:
            break
    t.train(2, "twice", *keys, resume=True)
    compare("stopped twice", folder, whole)


def from_nothing(whole):
    """--resume in a folder without a checkpoint starts at the beginning, also when there is no folder."""
    keys = ["learner=kalman", *STEPS, *KALMAN]
    os.makedirs(t.path("nothing"))
    for name in ("nothing", "no-folder"):
        t.train(2, name, *keys, resume=True)
        compare("--resume with " + name, t.path(name), whole)


def finished(whole):
    """--resume of a finished run does nothing and succeeds."""
    before = t.state(t.newest(whole))
    rows = t.rows(whole)
    t.train(2, os.path.basename(whole), "learner=kalman", *STEPS, *KALMAN, resume=True)
    t.check(not t.differences(before, t.state(t.newest(whole))), "resumed when finished: wanted the same checkpoint")
    t.check(t.rows(whole) == rows, "resumed when finished: wanted the same metrics.tsv")


t.start()
kalman = learner("kalman", STOPS, 2, *KALMAN)
twice(kalman)
from_nothing(kalman)
finished(kalman)
learner("adam", ("usr1", "kill-one-rank"), 2, *t.layout(1, 2))
learner("sgd", ("usr1", "kill-one-rank"), 2, "sgd.rate=0.002", *t.layout(1, 1, 2))
t.finish()
