#!/usr/bin/python3
"""Jobs under a real Slurm, as scripts/submit.sh makes them: run to their end on two nodes, by mpirun and by srun, as an array
over seeds; stopped by USR1, by the time limit, by a killed rank, by a lost host, and requeued each time: they end with the
bits of a run that nobody touched. A cancelled job stays cancelled and its run goes on by hand."""
import sys

sys.dont_write_bytecode = True

import os
import signal
import time

import lib_jobs as j
import lib_kwm as t
import lib_slurm as s


def to_the_end(name, short, *words):
    number = j.submit(name, j.SHORT, *words)
    facts = s.wait(number, name)
    t.check(facts.get("JobState") == "COMPLETED", "%s: wanted COMPLETED, found %s:\n%s" % (name, facts, j.told(name)))
    t.check(facts.get("NumNodes") == "2", name + ": wanted two nodes")
    j.compare(name, name, short)


def seeds():
    number = s.submit(t.path("empty.yaml"), "--seeds", "1-2", "--output", t.path("seeds"), "--sbatch",
                      "--output=" + t.path("seeds-%a.out"), *j.KEYS, j.SHORT)
    s.wait(number, "array")
    t.check(s.state(number) == ["COMPLETED"] * 2, "array: wanted two tasks COMPLETED, found %s" % s.state(number))
    found = [t.summary(t.path("seeds-seed%d" % seed))["status"] for seed in (1, 2)]
    t.check(found == ["done", "done"], "array: wanted two finished runs, found %s" % found)
    texts = [open(t.path("seeds-seed%d/config.yaml" % seed), encoding="utf-8").read() for seed in (1, 2)]
    t.check(all("seed: %d" % seed in text for seed, text in zip((1, 2), texts)), "array: wanted a seed for each task")


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


TIMED = ["train.max_steps=30000", "report.every=500", "checkpoint.every=5000"]


def time_limit(number, whole):
    """Of one minute, with the warning 50 seconds before: submitted first, it runs beside the others."""
    facts = s.wait(number, "time limit")
    t.check(facts.get("JobState") == "COMPLETED", "time limit: wanted COMPLETED, found %s:\n%s" % (facts, j.told("timed")[-3000:]))
    # Slurm warns when it likes, up to a minute early or half a minute late: a fast machine may be done by then.
    if "stopped on request" not in j.told("timed"):
        print("time limit: the run was over before Slurm's warning; its end is compared all the same")
    j.compare("time limit", "timed", whole)


def cancelled(whole):
    folder = t.path("cancelled")
    number = j.submit("cancelled", j.LONG)
    t.poll(lambda: j.step_of(folder) >= 100 or s.ended(number))
    s.cancel(number)
    facts = s.wait(number, "cancelled")
    t.check(facts.get("JobState") == "CANCELLED", "cancelled: wanted CANCELLED, found %s" % facts)
    t.check(t.poll(lambda: not ranks("cancelled")), "cancelled: wanted no rank left")
    t.train(2, "cancelled", j.LONG, *j.KEYS, resume=True)
    j.compare("cancelled and resumed by hand", "cancelled", whole)


t.start()
if not s.start():
    sys.exit(t.SKIP)
os.environ["KWM"] = t.kwm
timed = j.submit("timed", "-t", "1", "--warn", "50", *TIMED)
short_run = t.train(2, "short", *j.KEYS, j.SHORT)
long_run = t.train(2, "long", *j.KEYS, j.LONG)
to_the_end("by-mpirun", short_run)
to_the_end("by-srun", short_run, "--launcher", "srun")
seeds()
t.all_of(j.struck, [("usr1", long_run, signal_usr1, 1), ("usr1-srun", long_run, signal_usr1, 1, "--launcher", "srun"),
                    ("killed-rank", long_run, kill_rank, 1)])
j.struck("lost-host", long_run, lose_host, 1)
j.broken("killed-in-checkpoint", long_run, "kill:sync:200:0", "fault on order at sync")
j.broken("hangs", long_run, "hang:learn:210:0", "rank 0 (host", "watchdog.seconds=5")
cancelled(long_run)
time_limit(timed, t.train(2, "untimed", *j.KEYS, *TIMED))
t.finish()
