#!/usr/bin/python3
"""Whatever is asked wrongly is refused with the right exit code and one line that says what; nothing is left behind."""
import sys

sys.dont_write_bytecode = True

import os
import subprocess

import lib_data
import lib_kwm as t

TRAIN = ["train", "EMPTY", "--output", "OUT"]
SMALL = [*t.SMALL, "train.max_steps=2"]
USAGE, DATA = 2, 3


_cases = []


def refused(*case, **options):
    """A case for later; see check_refused."""
    _cases.append((case, options))


def check_refused(number, case, ranks=2, output=None, **options):
    """kwm ends with that code, prints one line `kwm: error:` with all texts and nothing else, and makes no folder."""
    words, code, texts, *arguments = case
    output = output or t.path("refused-%d" % number)
    before = t.contents(output)
    places = {"EMPTY": t.path("empty.yaml"), "OUT": output}
    child = t.run(ranks, *[places.get(word, word) for word in arguments], **options)
    found = "%s: found exit %s:\n%s%s" % (words, child.code, child.out, child.err)
    lines = child.err.splitlines()
    t.check(child.code == code, "wanted exit %d, " % code + found)
    one = len(lines) == 1 and lines[0].startswith("kwm: error: ") and child.out == ""
    t.check(one, "wanted one error line and nothing else, " + found)
    for text in texts:
        t.check(text in child.err, "wanted `%s`, " % text + found)
    t.check(t.contents(output) == before, "%s: wanted nothing made or changed in %s" % (words, output))


def config(name, text):
    file_path = t.path(name)
    with open(file_path, "wb") as file:
        file.write(text)
    return file_path


def with_config(words, text, texts):
    name = config(words.replace(" ", "-") + ".yaml", text)
    refused(words, USAGE, texts, "train", name, "--output", "OUT", *SMALL)


def configurations():
    refused("missing config", USAGE, [t.path("none.yaml")], "train", t.path("none.yaml"), "--output", "OUT")
    refused("folder as config", USAGE, [t.path("data")], "train", t.path("data"), "--output", "OUT")
    refused("below a file", USAGE, ["none"], "train", t.path("empty.yaml/none"), "--output", "OUT")
    refused("no config", USAGE, ["configuration"], "train", "--output", "OUT")
    with_config("unknown key", b"seed: 1\ntrain:\n  epoch: 2\n", ["unknown-key.yaml:3", "`train.epochs`"])
    with_config("bad type", b"train:\n  epochs: many\n", ["bad-type.yaml:2", "train.epochs", "integer", "`many`"])
    with_config("out of range", b"train:\n  batch: 0\n", ["out-of-range.yaml:2", "train.batch", "1 to 1000000", "0"])
    with_config("list", b"seed: [1, 2]\n", ["list.yaml:1", "seed", "a list"])
    with_config("no YAML", b"seed: 1\n\t- {\n", ["no-YAML.yaml:"])
    with_config("zero byte", b"seed: 1\n\0", ["zero-byte.yaml", "zero byte"])
    with_config("twice", b"seed: 1\nseed: 2\n", ["twice.yaml:2", "seed"])
    refused("unknown argument", USAGE, ["`train.epochs`"], *TRAIN, *SMALL, "train.epoch=2")
    refused("bad type of argument", USAGE, ["train.epochs=x"], *TRAIN, *SMALL, "train.epochs=x")
    refused("range of argument", USAGE, ["filter.gain_factor=0"], *TRAIN, *SMALL, "filter.gain_factor=0")
    refused("not a word", USAGE, ["kalman, sgd, adam"], *TRAIN, *SMALL, "learner=magic")
    refused("not key=value", USAGE, ["stray"], *TRAIN, *SMALL, "stray")
    refused("chunks", USAGE, ["train.chunks"], *TRAIN, *SMALL, "train.chunks=32")
    refused("delay", USAGE, ["cov.output.delay below its refresh 25", "found 25"], *TRAIN, *SMALL, "cov.output.delay=25")
    refused("validation", USAGE, ["data.validation", "300"], *TRAIN, *SMALL, "data.validation=300")


def layouts():
    refused("too few ranks", USAGE, ["needs 4 ranks, found 2"], *TRAIN, *SMALL, *t.layout(2, 2))
    refused("too many ranks", USAGE, ["needs 1 ranks, found 2"], *TRAIN, *SMALL, *t.layout(1))
    refused("three owners of two blocks", USAGE, ["owners"], *TRAIN, *SMALL, *t.layout(2, 3), ranks=6)
    refused("replicas of chunks", USAGE, ["train.chunks"], *TRAIN, *SMALL, *t.layout(1, 1, 2), "train.chunks=1")
    refused("three replicas", USAGE, ["layout.replicas"], *TRAIN, *SMALL, *t.layout(1, 1, 3), ranks=3)
    for key in ("cov.recurrence.form=innovation", "cov.hidden.form=innovation"):
        refused(key + " with replicas", USAGE, ["layout.replicas 1"], *TRAIN, *SMALL, *t.layout(1, 1, 2), key)
        refused("plan, " + key, USAGE, ["layout.replicas 1"], "plan", "EMPTY", *SMALL, *t.layout(1, 1, 2), key)


def words_of_the_command_line():
    refused("unknown command", USAGE, ["plan, train, eval"], "trian")
    refused("two outputs", USAGE, ["two"], *TRAIN, "--output", "OUT", *SMALL)
    refused("two output keys", USAGE, ["output"], "train", "EMPTY", *SMALL)
    refused("no folder", USAGE, ["--output"], "train", "EMPTY", *SMALL, "--output")
    refused("unknown flag", USAGE, ["--fast"], *TRAIN, *SMALL, "--fast")
    refused("inspect nothing", USAGE, ["run directory"], "inspect")
    refused("inspect two", USAGE, ["2"], "inspect", "a", "b")
    refused("eval nothing", USAGE, ["run directory"], "eval")
    refused("keys with words", USAGE, ["none"], "keys", "x")
    child = t.run(2)
    errors = [line for line in child.err.splitlines() if line.startswith("kwm: error:")]
    t.check(child.code == USAGE and len(errors) == 1, "no command: wanted exit 2 and one error:\n" + child.err)
    t.check("usage:" in child.err, "no command: wanted the usage on stderr:\n" + child.err)


def data():
    for breakage, texts in {
        "missing": ["t10k-labels-idx1-ubyte"],
        "truncated": ["train-images-idx3-ubyte.gz", "truncated"],
        "corrupt": ["train-images-idx3-ubyte.gz"],
        "magic": ["t10k-images-idx3-ubyte", "magic 0x00000803"],
        "label": ["train-labels-idx1-ubyte.gz", "label 0 to 9, found 10 at sample 7"],
        "count": ["train-labels-idx1-ubyte.gz", "300", "299"],
    }.items():
        folder = lib_data.make(t.path("data-" + breakage), breakage)
        refused("data " + breakage, DATA, texts, *TRAIN, *SMALL, "data.path=" + folder)
    refused("no data folder", DATA, [t.path("nowhere")], *TRAIN, *SMALL, "data.path=" + t.path("nowhere"))
    refused("plan without data", DATA, [t.path("nowhere")], "plan", "EMPTY", "data.path=" + t.path("nowhere"))
    unset = {name: value for name, value in os.environ.items() if name != "KWM_DATA"}
    # A setting that is missing, not a file that can't be read.
    refused("KWM_DATA unset", USAGE, ["data.path", "KWM_DATA"], *TRAIN, *SMALL, env=unset)
    one_lacks = ["mpirun", "-q", "-n", "1", t.kwm, *places(), ":", "-n", "1", "env", "-u", "KWM_DATA", t.kwm, *places()]
    try:
        done = subprocess.run(one_lacks, capture_output=True, text=True, timeout=t.PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        t.check(False, "KWM_DATA unset on one rank: wanted all ranks to leave together, found them waiting")
        return
    good = done.returncode == USAGE and done.stderr.startswith("kwm: error: data:") and done.stderr.count("\n") == 1
    found = "found exit %d:\n%s" % (done.returncode, done.stderr)
    t.check(good, "KWM_DATA unset on one rank: wanted one error line, " + found)


def places():
    return ["train", t.path("empty.yaml"), "--output", t.path("out"), *SMALL]


def outputs():
    there = t.path("there")
    os.makedirs(there)
    config("there/note", b"mine\n")
    refused("output exists", USAGE, [there, "--resume"], *TRAIN, *SMALL, output=there)
    note = os.path.join(there, "note")
    refused("output is a file", USAGE, [note], *TRAIN, *SMALL, output=note)
    refused("output is a file, --resume", USAGE, [note], *TRAIN, *SMALL, "--resume", output=note)
    refused("output below a file", USAGE, [note], *TRAIN, *SMALL, output=note + "/run")
    refused("output in /proc", USAGE, ["/proc/kwm-e2e"], *TRAIN, *SMALL, output="/proc/kwm-e2e/run")
    refused("no output", USAGE, ["--output"], "train", "EMPTY", *SMALL)
    if os.geteuid() != 0:
        closed = t.path("closed")
        os.mkdir(closed, 0o555)
        refused("output in a read-only folder", USAGE, [closed], *TRAIN, *SMALL, output=closed + "/run")


t.start()
configurations()
layouts()
words_of_the_command_line()
data()
outputs()
t.all_of(lambda number, case, options: check_refused(number, case, **options), [(n, *c) for n, c in enumerate(_cases)])
t.finish()
