"""Runs of kwm as jobs of lib_slurm's Slurm, over both of its nodes: submitted, struck and watched until they have ended with the
bits of a run that nobody touched."""
import os

import lib_kwm as t
import lib_slurm as s

KEYS = ["checkpoint.every=50", "train.epochs=1000", *t.SMALL, *t.layout(2)]
# Long enough to be struck, short enough to wait for.
SHORT, LONG = "train.max_steps=100", "train.max_steps=1500"


def submit(name, *words):
    common = [t.path("empty.yaml"), "--output", t.path(name), "-n", "2", "-N", "2", "--sbatch", "--ntasks-per-node=1"]
    return s.submit(*common, "--sbatch", "--output=" + t.path(name + ".out"), *KEYS, *words)


def told(name):
    """All that the job printed, over all its starts."""
    if not os.path.exists(t.path(name + ".out")):
        return ""
    with open(t.path(name + ".out"), encoding="utf-8", errors="replace") as file:
        return file.read()


def step_of(folder):
    try:
        return int(t.rows(folder)[-1][0])
    except (OSError, ValueError, IndexError):
        return 0


def compare(words, name, whole):
    t.check_same(words, t.newest(t.path(name)), t.newest(whole))
    t.check(t.rows(t.path(name)) == t.rows(whole), words + ": wanted the same metrics.tsv")


def struck(name, whole, strike, restarts, *words):
    """Started, struck in the middle, requeued by itself, ended with the same bits."""
    folder = t.path(name)
    number = submit(name, LONG, *words)
    begun = t.poll(lambda: step_of(folder) >= 100 or s.ended(number))
    if not t.check(begun and not s.ended(number), "%s: wanted it to run, found %s" % (name, s.job(number))):
        return
    strike(number)
    facts = s.wait(number, name)
    t.check(facts.get("JobState") == "COMPLETED", "%s: wanted COMPLETED, found %s:\n%s" % (name, facts, told(name)[-3000:]))
    t.check(int(facts.get("Restarts", 0)) >= restarts, "%s: wanted it requeued, found %s" % (name, facts))
    t.check("resuming from" in told(name), name + ": wanted it to resume:\n" + told(name)[-3000:])
    compare(name, name, whole)


# Breaks at its first start only; a shell between, as a job's own wrapper would be.
ONCE = """#!/bin/sh
[ "${SLURM_RESTART_COUNT:-0}" -eq 0 ] || unset KWM_TEST_FAULT
exec %s "$@"
"""


def broken(name, whole, fault, text, *words, strike=None):
    """Breaks by itself in a phase that is hard to meet from outside, or is struck there, is requeued (once; after a strike a
    start may meet what the last one left), ends with the same bits."""
    wrapper = t.path("once.sh")
    with open(wrapper, "w", encoding="utf-8") as file:
        file.write(ONCE % t.kwm)
    os.chmod(wrapper, 0o755)
    os.environ.update(KWM=wrapper, KWM_TEST_FAULT=fault)
    number = submit(name, LONG, *words)
    os.environ["KWM"] = t.kwm
    del os.environ["KWM_TEST_FAULT"]
    if strike is not None:
        t.check(t.poll(lambda: text in told(name) or s.ended(number)), "%s: wanted `%s`" % (name, text))
        strike(number)
    facts = s.wait(number, name)
    t.check(facts.get("JobState") == "COMPLETED", "%s: wanted COMPLETED, found %s:\n%s" % (name, facts, told(name)[-3000:]))
    restarts = int(facts.get("Restarts", 0))
    right = text in told(name) and (restarts == 1 or (restarts > 1 and strike is not None))
    t.check(right, "%s: wanted `%s` and a requeue, found %s:\n%s" % (name, text, facts, told(name)[-3000:]))
    compare(name, name, whole)
