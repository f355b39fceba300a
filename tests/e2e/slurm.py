#!/usr/bin/python3
"""Jobs under a real Slurm, as scripts/submit.sh makes them: run to their end on two nodes, by mpirun and by srun, as an array
over seeds; stopped by USR1, by the time limit, by a killed rank, by a lost host, and requeued each time: they end with the
bits of a run that nobody touched. A cancelled job stays cancelled and its run goes on by hand."""
import sys

sys.dont_write_bytecode = True

import os
import signal
import time

import lib_kwm as t
import lib_slurm as s

LAYOUT = t.layout(2)
KEYS = ["checkpoint.every=50", "train.epochs=1000", *t.SMALL, *LAYOUT]
# Long enough to be struck, short enough to wait for.
SHORT, LONG = "train.max_steps=100", "train.max_steps=1500"


def submit(name, *words):
    common = [t.path("empty.yaml"), "--output", t.path(name), "-n", "2", "-N", "2", "--sbatch", "--ntasks-per-node=1"]
    return s.submit(*common, "--sbatch", "--output=" + t.path(name + ".out"), *KEYS, *words)


def told(name):
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


def to_the_end(name, short, *words):
    number = submit(name, SHORT, *words)
    facts = s.wait(number, name)
    t.check(facts.get("JobState") == "COMPLETED", "%s: wanted COMPLETED, found %s:\n%s" % (name, facts, told(name)))
    t.check(facts.get("NumNodes") == "2", name + ": wanted two nodes")
    compare(name, name, short)


def seeds():
    number = s.submit(t.path("empty.yaml"), "--seeds", "1-2", "--output", t.path("seeds"), "--sbatch",
                      "--output=" + t.path("seeds-%a.out"), *KEYS, SHORT)
    s.wait(number, "array")
    t.check(s.state(number) == ["COMPLETED"] * 2, "array: wanted two tasks COMPLETED, found %s" % s.state(number))
    found = [t.summary(t.path("seeds-seed%d" % seed))["status"] for seed in (1, 2)]
    t.check(found == ["done", "done"], "array: wanted two finished runs, found %s" % found)
    texts = [open(t.path("seeds-seed%d/config.yaml" % seed), encoding="utf-8").read() for seed in (1, 2)]
    t.check(all("seed: %d" % seed in text for seed, text in zip((1, 2), texts)), "array: wanted a seed for each task")


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


def ranks(name):
    """Process ids of the job's ranks, by its run directory."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/cmdline" % entry, "rb") as file:
                words = file.read().split(b"\0")
        except OSError:
            continue
        if words[0] == os.fsencode(t.kwm) and os.fsencode(t.path(name)) in words:
            found.append(int(entry))
    return sorted(found)


def signal_usr1(number):
    s.send(number, "USR1")


def kill_rank(_):
    os.kill(ranks("killed-rank")[-1], signal.SIGKILL)


def lose_host(_):
    """The host comes back a little later, as after a restart."""
    t.check(s.kill_host("n2") > 1, "lost host: wanted processes on n2")
    time.sleep(4)
    s.start_node("n2")


# Breaks at its first start only; a shell between, as a job's own wrapper would be.
ONCE = """#!/bin/sh
[ "${SLURM_RESTART_COUNT:-0}" -eq 0 ] || unset KWM_TEST_FAULT
exec %s "$@"
"""


def broken(name, whole, fault, text, *words):
    """Breaks by itself in a phase that is hard to meet from outside, is requeued, ends with the same bits."""
    wrapper = t.path("once.sh")
    with open(wrapper, "w", encoding="utf-8") as file:
        file.write(ONCE % t.kwm)
    os.chmod(wrapper, 0o755)
    os.environ.update(KWM=wrapper, KWM_TEST_FAULT=fault)
    number = submit(name, LONG, *words)
    os.environ["KWM"] = t.kwm
    del os.environ["KWM_TEST_FAULT"]
    facts = s.wait(number, name)
    t.check(facts.get("JobState") == "COMPLETED", "%s: wanted COMPLETED, found %s:\n%s" % (name, facts, told(name)[-3000:]))
    t.check(facts.get("Restarts") == "1" and text in told(name), "%s: wanted `%s` and one requeue, found %s:\n%s" % (name, text, facts, told(name)[-3000:]))
    compare(name, name, whole)


TIMED = ["train.max_steps=30000", "report.every=500", "checkpoint.every=5000"]


def time_limit(number, whole):
    """Of one minute, with the warning 50 seconds before: submitted first, it runs beside the others."""
    facts = s.wait(number, "time limit")
    t.check(facts.get("JobState") == "COMPLETED", "time limit: wanted COMPLETED, found %s:\n%s" % (facts, told("timed")[-3000:]))
    # Slurm warns when it likes, up to a minute early or half a minute late: a fast machine may be done by then.
    if "stopped on request" not in told("timed"):
        print("time limit: the run was over before Slurm's warning; its end is compared all the same")
    compare("time limit", "timed", whole)


def cancelled(whole):
    folder = t.path("cancelled")
    number = submit("cancelled", LONG)
    t.poll(lambda: step_of(folder) >= 100 or s.ended(number))
    s.cancel(number)
    facts = s.wait(number, "cancelled")
    t.check(facts.get("JobState") == "CANCELLED", "cancelled: wanted CANCELLED, found %s" % facts)
    t.check(t.poll(lambda: not ranks("cancelled")), "cancelled: wanted no rank left")
    t.train(2, "cancelled", LONG, *KEYS, resume=True)
    compare("cancelled and resumed by hand", "cancelled", whole)


t.start()
if not s.start():
    sys.exit(t.SKIP)
os.environ["KWM"] = t.kwm
timed = submit("timed", "-t", "1", "--warn", "50", *TIMED)
short_run = t.train(2, "short", *KEYS, SHORT)
long_run = t.train(2, "long", *KEYS, LONG)
to_the_end("by-mpirun", short_run)
to_the_end("by-srun", short_run, "--launcher", "srun")
seeds()
t.all_of(struck, [("usr1", long_run, signal_usr1, 1), ("usr1-srun", long_run, signal_usr1, 1, "--launcher", "srun"),
                  ("killed-rank", long_run, kill_rank, 1)])
struck("lost-host", long_run, lose_host, 1)
broken("killed-in-checkpoint", long_run, "kill:sync:200:0", "fault on order at sync")
broken("hangs", long_run, "hang:learn:210:0", "rank 0 (host", "watchdog.seconds=5")
cancelled(long_run)
time_limit(timed, t.train(2, "untimed", *KEYS, *TIMED))
t.finish()
