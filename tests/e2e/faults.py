#!/usr/bin/python3
"""Runs killed at seeded random points, in the process (KWM_TEST_FAULT: any phase of a step, or of a checkpoint that is written in the background or while the run waits, one rank or all)
or from outside at any moment; resumed, each ends with the bits of the run that nobody touched. And checkpoints with a random
byte changed in every section, or cut at a random length: refused, each of them, and passed over by a run that resumes.

usage: faults.py PATH_OF_KWM [--points N] [--bytes N] [--seed N] [--table FILE]        12 and 300 by default, a sample"""
import sys

sys.dont_write_bytecode = True

import argparse
import os
import random
import shutil
import signal
import threading
import time

import h5py

import lib_kwm as t

EVERY, STEPS = 20, 100
KEYS = ["checkpoint.every=%d" % EVERY, "train.max_steps=%d" % STEPS, "train.epochs=1000", "watchdog.seconds=60"]
# What a run looks like: ranks and keys.
RUNS = {
    "kalman": (2, ["model.width=32", *t.layout(2)]),
    "owners": (4, ["model.width=64", *t.layout(2, 2)]),
    "innovation": (2, ["model.width=32", "cov.recurrence.form=innovation", *t.layout(2)]),
    "waits": (2, ["model.width=32", "checkpoint.background=false", *t.layout(2)]),
    "adam": (2, ["model.width=32", "learner=adam", *t.layout(2)]),
}
OF_STEP = ["predict", "linearise", "learn", "agree"]
# Of the run: checkpoint; the others of the thread that writes while the run goes on (waits: of the run as well).
OF_CHECKPOINT = ["checkpoint", "create", "flush", "sync", "seal", "publish", "prune"]


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("kwm")
    parser.add_argument("--points", type=int, default=12)
    parser.add_argument("--bytes", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--table")
    return parser.parse_args()


def points(n, draw, arrays):
    """(run, kind, phase, step, rank or delay): two thirds in the process, most of these in a checkpoint."""
    for k in range(n):
        run = draw.choice(sorted(RUNS))
        ranks = RUNS[run][0]
        if k % 3 == 0:
            yield run, "outside", draw.choice(["one", "all", "mpirun"]), 0, draw.uniform(0, 1)
        elif k % 3 == 1:
            phases = OF_CHECKPOINT + draw.sample(arrays[run], min(len(OF_CHECKPOINT), len(arrays[run])))
            yield run, "checkpoint", draw.choice(phases), EVERY * draw.randint(1, STEPS // EVERY), draw.randint(-1, ranks - 1)
        else:
            # Half of them in the steps during which the last checkpoint is being written.
            step = draw.choice([draw.randint(1, STEPS - 1), EVERY * draw.randint(1, STEPS // EVERY - 1) + draw.randint(0, 2)])
            yield run, "step", draw.choice(OF_STEP), step, draw.randint(-1, ranks - 1)


def launch(run, folder, fault=None):
    ranks, keys = RUNS[run]
    environment = {**os.environ, **({"KWM_TEST_FAULT": fault} if fault else {})}
    words = ["train", t.path("empty.yaml"), "--output", folder, "--resume", *t.SMALL, *KEYS, *keys]
    return t.launch(ranks, *words, env=environment)


def strike(child, whom, delay):
    """From outside, somewhere between the first sign of the ranks and the usual end."""
    time.sleep(delay)
    t.poll(lambda: t.ranks_of(child), child)
    victims = t.ranks_of(child)
    if whom == "mpirun":
        victims = [child.pid]
    elif whom == "one":
        victims = victims[-1:]
    for pid in victims:
        if t.process_state(pid) is not None:
            os.kill(pid, signal.SIGKILL)
    t.wait(child)
    t.poll(lambda: all(t.process_state(pid) in (None, "Z") for pid in t.ranks_of(child)))
    return bool(victims)


def outside(run, folder, whom, delay):
    """Earlier each time, if the run ended before it could be struck."""
    for _ in range(6):
        shutil.rmtree(folder, ignore_errors=True)
        child = launch(run, folder)
        hit = strike(child, whom, delay) and child.code != 0
        if hit:
            break
        delay *= 0.6
    return child, hit


class Tally:
    def __init__(self):
        self.lock, self.rows = threading.Lock(), []

    def add(self, *row):
        with self.lock:
            self.rows.append(row)

    def count(self, column, value):
        return sum(row[column] == value for row in self.rows)


def one_point(number, point, whole, usual, tally):
    run, kind, phase, step, place = point
    words = "point %d: %s" % (number, " ".join(map(str, point)))
    folder = t.path("point-%d" % number)
    if kind == "outside":
        child, hit = outside(run, folder, phase, place * usual[run])
    else:
        child = t.wait(launch(run, folder, "kill:%s:%d:%d" % (phase, step, place)))
        hit = "fault on order" in child.err
    hit = hit and child.code != 0
    reached = t.newest(folder)
    lost = step - int(os.path.basename(reached)[5:15]) if kind != "outside" and os.path.exists(reached) else 0
    again = t.wait(launch(run, folder))
    good = t.check(again.code == 0, "%s: wanted exit 0, found %s:\n%s" % (words, again.code, again.err))
    good = good and t.check_same(words, t.newest(folder), t.newest(whole[run]))
    good = good and t.check(t.rows(folder) == t.rows(whole[run]), words + ": wanted the same metrics.tsv")
    good = good and t.check(not t.parts(folder), words + ": wanted no .part in the end")
    t.check(hit, "%s: wanted the run to be killed, found %s:\n%s" % (words, child.code, child.err))
    # One checkpoint may be on its way to the disk; the next one waits for it.
    t.check(lost < 2 * EVERY, "%s: wanted less than %d steps lost, found %d" % (words, 2 * EVERY, lost))
    tally.add(number, run, kind, phase, step, place, "killed" if hit else "missed", lost, "same" if good else "LOST")
    shutil.rmtree(folder, ignore_errors=True)


def sections(file_path):
    """(name, first byte, bytes) of the seal, of every array, and of what lies between: HDF5's own structures."""
    found = [("seal", 0, 512)]
    with h5py.File(file_path, "r") as file:
        def visit(name, item):
            if isinstance(item, h5py.Dataset) and item.id.get_offset() is not None:
                found.append(("/" + name, item.id.get_offset(), item.id.get_storage_size()))
        file.visititems(visit)
    size, at, between = os.path.getsize(file_path), 512, []
    for _, first, length in sorted(found[1:], key=lambda one: one[1]):
        if first > at:
            between.append(("structures", at, first - at))
        at = max(at, first + length)
    if at < size:
        between.append(("structures", at, size - at))
    return found + between


def damage(good, bad, draw, section):
    """A copy with one byte changed in the section, or, without one, cut. What was done, in words."""
    with open(good, "rb") as file:
        content = bytearray(file.read())
    if section is None:
        kept = draw.randrange(len(content))
        del content[kept:]
        words = "cut to %d" % kept
    else:
        at = section[1] + draw.randrange(section[2])
        change = draw.randrange(1, 256)
        content[at] ^= change
        words = "byte %d ^ %d in %s" % (at, change, section[0])
    with open(bad, "wb") as file:
        file.write(content)
    return words


def corrupt(n, draw, whole, tally):
    """n damaged copies of each other's neighbour in one folder: all are found, none of the good ones is accused."""
    good = t.newest(whole["kalman"])
    places = sections(good)
    by_name = {}
    for place in places:
        by_name.setdefault(place[0], []).append(place)
    folder = t.path("corrupt/checkpoints")
    os.makedirs(folder)
    names = [None if k % 5 == 4 else sorted(by_name)[k % len(by_name)] for k in range(n)]
    done = {}
    for k, name in enumerate(names):
        section = None if name is None else draw.choice(by_name[name])
        done[k + 1] = damage(good, os.path.join(folder, "step-%010d.h5" % (k + 1)), draw, section)
    shutil.copy(good, os.path.join(folder, "step-0000000000.h5"))
    child = t.run(1, "inspect", "--verify", t.path("corrupt"))
    lines = [line.split("\t") for line in child.out.splitlines()]
    refused = {int(os.path.basename(line[1])[5:15]) for line in lines if line[0] == "damaged"}
    accepted = {int(os.path.basename(line[1])[5:15]) for line in lines if line[0] == "good"}
    t.check(child.code == 3, "damaged: wanted exit 3, found %s:\n%s" % (child.code, child.err[-2000:]))
    t.check(accepted == {0}, "damaged: wanted the good one alone accepted, found %s" % [done.get(k, k) for k in accepted])
    t.check(len(refused) == n, "damaged: wanted %d refused, found %d" % (n, len(refused)))
    for k, words in done.items():
        tally.add(k, "kalman", "damaged", words, 0, 0, "", 0, "refused" if k in refused else "ACCEPTED")
    return by_name


def passed_over(whole, draw, by_name):
    """A run resumes from the checkpoint before a damaged one, whatever is wrong with it."""
    cases = [None, *draw.sample(sorted(by_name), 3)]
    for k, name in enumerate(cases):
        folder = shutil.copytree(whole["kalman"], t.path("over-%d" % k))
        bad = t.newest(folder)
        words = damage(bad, bad, draw, None if name is None else draw.choice(by_name[name]))
        again = t.wait(launch("kalman", folder))
        t.check(again.code == 0 and bad in again.err, "%s: wanted it passed over, found %s:\n%s" % (words, again.code, again.err))
        t.check_same(words, t.newest(folder), t.newest(whole["kalman"]))


def main():
    options = arguments()
    sys.argv[1:] = [options.kwm]
    t.start()
    draw, tally, whole, usual, arrays = random.Random(options.seed), Tally(), {}, {}, {}
    for run in RUNS:
        begun = time.monotonic()
        whole[run] = t.path("whole-" + run)
        child = t.wait(launch(run, whole[run]))
        t.check(child.code == 0, "%s: wanted exit 0, found %s:\n%s" % (run, child.code, child.err))
        usual[run] = time.monotonic() - begun
        arrays[run] = sorted(name for name in t.arrays(t.newest(whole[run])) if "@" not in name)
    t.check_same("in the background or not", t.newest(whole["kalman"]), t.newest(whole["waits"]))
    cases = [(k, point, whole, usual, tally) for k, point in enumerate(points(options.points, draw, arrays))]
    t.all_of(one_point, cases)
    print("points %d: killed %d (outside %d, step %d, checkpoint %d), missed %d; resumed with the same bits %d, lost %d"
          % (len(tally.rows), tally.count(6, "killed"), tally.count(2, "outside"), tally.count(2, "step"), tally.count(2, "checkpoint"),
             tally.count(6, "missed"), tally.count(8, "same"), tally.count(8, "LOST")))
    by_name = corrupt(options.bytes, draw, whole, tally)
    print("damaged files %d over %d sections: refused %d, accepted %d"
          % (tally.count(2, "damaged"), len(by_name), tally.count(8, "refused"), tally.count(8, "ACCEPTED")))
    passed_over(whole, draw, by_name)
    if options.table:
        with open(options.table, "w", encoding="utf-8") as file:
            file.write("number\trun\tkind\tphase\tstep\tplace\tstruck\tsteps_lost\tresult\n")
            for row in sorted(row for row in tally.rows if row[2] != "damaged"):
                file.write("\t".join(map(str, row)) + "\n")
    t.finish()


main()
