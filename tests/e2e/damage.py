#!/usr/bin/python3
"""Bad days of a checkpoint: damaged, truncated, of another model, half-written, no room on the disk, numbers gone bad.
What is good stays good, and the run goes on from it to the same end."""
import sys

sys.dont_write_bytecode = True

import itertools
import os
import shutil
import signal
import subprocess

import h5py

import lib_kwm as t

KEYS = ["train.epochs=20", "checkpoint.every=20", "checkpoint.keep=3", *t.layout(2)]
STEPS, MORE = "train.max_steps=60", "train.max_steps=80"


def error_line(words, child, code, *texts):
    lines = [line for line in child.err.splitlines() if line.startswith("kwm: error:")]
    t.check(child.code == code, "%s: wanted exit %d, found %s:\n%s" % (words, code, child.code, child.err))
    t.check(len(lines) == 1, "%s: wanted one error line, found:\n%s" % (words, child.err))
    for text in texts:
        t.check(any(text in line for line in lines), "%s: wanted `%s` in the error, found %s" % (words, text, lines))


def resume(folder, *keys):
    words = ["train", t.path("empty.yaml"), "--resume", "--output", folder, *t.SMALL, *KEYS]
    return t.run(2, *words, *keys)


def copy(whole, name):
    return shutil.copytree(whole, t.path(name))


def flip(file_path, at=None):
    """One byte changed; by default in the middle of a covariance."""
    if at is None:
        with h5py.File(file_path, "r") as file:
            array = file["/cov/hidden/precision"].id
            at = array.get_offset() + array.get_storage_size() // 2
    with open(file_path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0x10]))


def truncate(file_path, share=0.7):
    os.truncate(file_path, int(os.path.getsize(file_path) * share))


def empty(file_path):
    os.truncate(file_path, 0)


def header(file_path):
    flip(file_path, 30)


def garbage(file_path):
    with open(file_path, "wb") as file:
        file.write(b"no checkpoint\n" * 1000)


def damaged(whole, end, damage):
    """The newest checkpoint is passed over with a warning that names it, and written anew on the way."""
    words = "newest checkpoint: " + damage.__name__
    folder = copy(whole, "damaged-" + damage.__name__)
    bad = t.newest(folder)
    damage(bad)
    child = resume(folder, MORE)
    t.check(child.code == 0, "%s: wanted exit 0, found %s:\n%s" % (words, child.code, child.err))
    warned = [line for line in child.err.splitlines() if line.startswith("kwm: warning:")]
    t.check(len(warned) == 1 and bad in warned[0], "%s: wanted one warning that names it: %s" % (words, warned))
    t.check("resuming from %s" % bad.replace("0060", "0040") in child.err, words + ": wanted the one before")
    t.check_same(words, t.newest(folder), t.newest(end))
    t.check(t.rows(folder) == t.rows(end), words + ": wanted the same metrics.tsv")
    verify(words, folder)


def unchanged(words, folder, before):
    t.check(t.contents(folder) == before, words + ": wanted the run directory as it was")


def all_damaged(whole):
    folder = copy(whole, "all-damaged")
    for file_path in t.checkpoints(folder):
        flip(file_path)
    before = t.contents(folder)
    error_line("all damaged", resume(folder, MORE), 3, "all damaged", os.path.join(folder, "checkpoints"))
    unchanged("all damaged", folder, before)
    error_line("all damaged, inspect", t.run(2, "inspect", folder), 3)
    error_line("one damaged, inspect", t.run(1, "inspect", t.newest(folder)), 3, t.newest(folder))
    error_line("all damaged, eval", t.run(2, "eval", folder), 3)


def another_model(whole):
    before = t.contents(whole)
    keys = {
        "model.width=32": "model.width",
        "model.hidden=20": "model.hidden",
        "train.batch=25": "train.batch",
        "seed=9": "seed",
        "learner=adam": "learner",
        "cov.recurrence.form=innovation": "/cov/recurrence/covariance",
    }
    t.all_of(lambda key, text: error_line("another model: " + key, resume(whole, MORE, key), 3, text), keys.items())
    unchanged("another model", whole, before)


def nonsense(whole):
    folder = t.path("nonsense")
    os.makedirs(folder)
    text = os.path.join(folder, "step-0000000001.h5")
    garbage(text)
    other = os.path.join(folder, "other.h5")
    with h5py.File(other, "w") as file:
        file["x"] = [1, 2, 3]
    subjects = (folder, text, other, t.path("no-such"), t.path("data"), os.path.join(whole, "config.yaml"))
    t.all_of(
        lambda command, subject: error_line("%s %s" % (command, subject), t.run(1, command, subject), 3),
        itertools.product(("eval", "inspect"), subjects),
    )


def stopped_while_writing(ranks, folder):
    """Stops all ranks as soon as a .part is seen; true if it is still there, with the ranks standing still."""
    if not t.parts(folder):
        return False
    for pid in ranks:
        os.kill(pid, signal.SIGSTOP)
    for pid in ranks:
        if not t.poll(lambda pid=pid: t.process_state(pid) in ("T", "t", "Z", None)):
            return False
    if t.parts(folder):
        return True
    for pid in ranks:
        os.kill(pid, signal.SIGCONT)
    return False


def killed_while_writing():
    keys = ["model.width=256", "model.hidden=128", "train.batch=20"]
    keys += ["train.epochs=20", "train.max_steps=40", *t.layout(2)]
    run = lambda name, *more: t.launch(2, "train", t.path("empty.yaml"), "--output", t.path(name), *keys, *more)
    whole = t.wait(run("big", "checkpoint.every=10"))
    t.check(whole.code == 0, "big: wanted exit 0, found %s:\n%s" % (whole.code, whole.err))
    folder, struck = t.path("half"), False
    for _ in range(5):
        shutil.rmtree(folder, ignore_errors=True)
        child = run("half", "checkpoint.every=1")
        t.poll(lambda: len(t.checkpoints(folder)) > 1, child)
        ranks = t.ranks_of(child)
        struck = len(ranks) == 2 and t.poll(lambda: stopped_while_writing(ranks, folder), child)
        for pid in ranks:
            if t.process_state(pid) is not None:
                os.kill(pid, signal.SIGKILL)
        if t.wait(child).code == 137 and struck and t.parts(folder):
            break
    if not t.check(t.parts(folder), "killed while writing: wanted a .part left behind, found none in 5 runs"):
        return
    good = t.newest(folder)
    again = t.wait(run("half", "checkpoint.every=10", "--resume"))
    t.check(again.code == 0, "killed while writing: wanted exit 0, found %s:\n%s" % (again.code, again.err))
    went_on = "resuming from " + good in again.err
    t.check(went_on, "killed while writing: wanted to go on from %s:\n%s" % (good, again.err))
    t.check(not t.parts(folder), "killed while writing: wanted no .part in the end, found %s" % t.parts(folder))
    t.check_same("killed while writing", t.newest(folder), t.newest(t.path("big")))


def verify(words, folder):
    for file_path in t.checkpoints(folder):
        child = t.run(1, "inspect", file_path)
        t.check(child.code == 0, "%s: wanted a good %s, found exit %s: %s" % (words, file_path, child.code, child.err))


def full_disk(whole):
    """A disk with room for some checkpoints: exit 1, no .part, earlier ones good; with more room the run goes on."""
    disk = t.path("disk")
    os.makedirs(disk)
    size = sum(map(os.path.getsize, t.checkpoints(whole)[:1]))
    mount = ["mount", "-t", "tmpfs", "-o", "size=%d" % (size * 2 + (1 << 18)), "tmpfs", disk]
    if os.geteuid() != 0 or subprocess.run(mount, stderr=subprocess.DEVNULL, check=False).returncode != 0:
        print("skipped: a full disk (mounting a small tmpfs needs root)")
        return
    try:
        folder = os.path.join(disk, "run")
        words = ["train", t.path("empty.yaml"), "--output", folder, *t.SMALL, *KEYS, MORE, "checkpoint.keep=10"]
        child = t.run(2, *words)
        error_line("full disk", child, 1, "No space left on device")
        t.check(not t.parts(folder), "full disk: wanted no .part, found %s" % t.parts(folder))
        t.check(len(t.checkpoints(folder)) >= 1, "full disk: wanted earlier checkpoints to stay")
        verify("full disk", folder)
        subprocess.run(["mount", "-o", "remount,size=%d" % (size * 20 + (1 << 20)), disk], check=True)
        child = t.run(2, *words, "--resume")
        t.check(child.code == 0, "more room: wanted exit 0, found %s:\n%s" % (child.code, child.err))
        return t.state(t.newest(folder))
    finally:
        subprocess.run(["umount", "-l", disk], check=False)


def numerical_stop():
    folder = t.path("gated")
    keys = ["filter.max_skips=4", "checkpoint.every=5", *t.layout(2)]
    t.train(2, "gated", "train.max_steps=10", *keys)
    before = t.newest(folder)
    state = t.state(before)
    words = ["train", t.path("empty.yaml"), "--output", folder, "--resume", *t.SMALL, *keys]
    child = t.run(2, *words, "filter.gate=1e-6", "train.epochs=9")
    error_line("numerical stop", child, 4, "4 skipped in a row")
    same = t.newest(folder) == before and not t.differences(t.state(before), state)
    t.check(same, "numerical stop: wanted the checkpoint before it and no newer one")
    t.check(t.summary(folder)["status"] == "numerical stop", "numerical stop: wanted it in summary.json")
    t.check(t.summary(folder)["skipped_steps"] == 4, "numerical stop: wanted 4 skipped steps in summary.json")
    warned = child.err.count("kwm: warning: step")
    t.check(warned == 4, "numerical stop: wanted 4 warnings, found %d" % warned)
    t.train(2, "gated", *keys, "train.epochs=2", resume=True)
    t.check(t.summary(folder)["status"] == "done", "after a numerical stop: wanted the run to go on")


t.start()
base = t.train(2, "base", *KEYS, STEPS)
end = t.train(2, "end", *KEYS, MORE)
t.all_of(damaged, [(base, end, damage) for damage in (flip, truncate, empty, header, garbage)])
all_damaged(base)
another_model(base)
nonsense(base)
killed_while_writing()
final = full_disk(base)
t.check(final is None or not t.differences(final, t.state(t.newest(end))), "more room: wanted the same arrays")
numerical_stop()
t.finish()
