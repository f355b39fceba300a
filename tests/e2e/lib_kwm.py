"""What the end-to-end tests share: a scratch folder, runs of kwm under mpirun, checkpoints read by h5py.

A test calls start(), then check() for every claim, then finish(), which exits 0, or 1 after naming what failed.
Everything is cleaned up at the end, also after a failure: the scratch folder and every process that was started.
"""
import atexit
import concurrent.futures
import glob
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import h5py
import numpy as np

import lib_data

PATIENCE = 200  # seconds for anything to happen: far beyond what a loaded machine needs
SKIP = 77

# Small enough for hundreds of steps a second; four bundles of 16 units, so that four owners have one each.
SMALL = ["model.width=64", "model.hidden=16", "train.batch=20", "report.every=10", "cov.hidden.refresh=25", "cov.output.refresh=25"]

kwm = None
scratch = None
_failures = []
_passed = 0
_children = []
_numbers = itertools.count()


def _environment():
    """As scripts/env.sh: a value that is already set is kept."""
    wanted = {
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
        "OMPI_MCA_hwloc_base_binding_policy": "none",
        "OMPI_MCA_mpi_yield_when_idle": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
    for name, value in wanted.items():
        os.environ.setdefault(name, value)
    os.environ["LC_ALL"] = "C.UTF-8"


def _clean():
    for child in _children:
        if child.poll() is None:
            for pid in ranks_of(child):
                os.kill(pid, signal.SIGKILL)
            child.kill()
            child.wait()
    if scratch is not None:
        shutil.rmtree(scratch, ignore_errors=True)


def start(data=True):
    """Takes the program's path from the command line; the scratch folder gets an empty configuration and tiny data."""
    global kwm, scratch
    if len(sys.argv) != 2:
        sys.exit("usage: %s PATH_OF_KWM" % sys.argv[0])
    kwm = os.path.abspath(sys.argv[1])
    if not os.access(kwm, os.X_OK):
        sys.exit("wanted a program, found none: %s" % kwm)
    _environment()
    scratch = tempfile.mkdtemp(prefix="kwm-e2e-")
    atexit.register(_clean)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    os.environ["OMPI_MCA_btl_vader_backing_directory"] = scratch  # shared memory of killed runs goes away, too
    with open(path("empty.yaml"), "w", encoding="ascii"):
        pass
    if data:
        os.environ["KWM_DATA"] = lib_data.make(path("data"))


def path(*parts):
    return os.path.join(scratch, *parts)


def check(claim, words):
    global _passed
    if claim:
        _passed += 1
    else:
        _failures.append(words)
        print("FAIL %s" % words[:4000], flush=True)
    return bool(claim)


def finish():
    print("%d checks passed, %d failed" % (_passed, len(_failures)))
    sys.exit(1 if _failures else 0)


def skip(why):
    print("skipped: %s" % why)
    sys.exit(SKIP)


def layout(stages=1, owners=1, replicas=1):
    return ["layout.stages=%d" % stages, "layout.owners=%d" % owners, "layout.replicas=%d" % replicas]


def launch(ranks, *words, **options):
    """Starts kwm; its output goes to files, so that nothing waits for a reader."""
    number = next(_numbers)
    out, err, session = path("out-%d" % number), path("err-%d" % number), path("s%d" % number)
    # Open MPI's session folder, its own for each run: one that ends removes parents that another is about to use. The
    # path must stay short; it goes away with the scratch folder.
    os.mkdir(session)
    options["env"] = {**options.get("env", os.environ), "OMPI_MCA_orte_tmpdir_base": session}
    with open(out, "wb") as out_file, open(err, "wb") as err_file:
        child = subprocess.Popen(
            ["mpirun", "-q", "-n", str(ranks), kwm, *words], stdout=out_file, stderr=err_file, **{"cwd": scratch, **options}
        )
    child.out_path, child.err_path, child.words = out, err, " ".join(words)
    _children.append(child)
    return child


def _text(name):
    with open(name, "rb") as file:
        return file.read().decode("utf-8", "replace")


def wait(child):
    """Waits for its end; it then has code, out and err."""
    try:
        child.code = child.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
        child.code = None
    child.out, child.err = _text(child.out_path), _text(child.err_path)
    return child


def run(ranks, *words, **options):
    """To its end. After an exit code other than 0 mpirun waits two seconds for the other ranks: not where there are none."""
    if ranks == 1:
        options["env"] = {**options.get("env", os.environ), "OMPI_MCA_odls_base_sigkill_timeout": "0"}
    return wait(launch(ranks, *words, **options))


def all_of(function, cases):
    """function(*case) for every case, some at a time: a run of kwm mostly waits for mpirun."""
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(function, *case) for case in cases]:
            done.result()


def train(ranks, output, *words, code=0, resume=False):
    """A whole training run that has to end with that code; the folder's path."""
    folder = path(output)
    flags = ["--resume"] if resume else []
    child = run(ranks, "train", path("empty.yaml"), "--output", folder, *flags, *SMALL, *words)
    check(child.code == code, "%s: wanted exit %d, found %s:\n%s" % (child.words, code, child.code, child.err))
    return folder


def poll(ready, child=None):
    """Waits until ready() is true; false if the child ends before, or patience does."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if ready():
            return True
        if child is not None and child.poll() is not None:
            return bool(ready())
        time.sleep(0.002)
    return False


def ranks_of(child):
    """Process ids of a running kwm's ranks, in the order of their start."""
    found = []
    for entry in glob.glob("/proc/[0-9]*/stat"):
        try:
            with open(entry, encoding="utf-8") as file:
                pid, rest = file.read().split(" (", 1)
            name, fields = rest.rsplit(") ", 1)
        except OSError:
            continue
        if int(fields.split()[1]) == child.pid and name == os.path.basename(kwm):
            found.append(int(pid))
    return sorted(found)


def process_state(pid):
    """One letter as in ps; None if there is no such process."""
    try:
        with open("/proc/%d/stat" % pid, encoding="utf-8") as file:
            return file.read().rsplit(") ", 1)[1][0]
    except OSError:
        return None


def contents(folder):
    """All files below a folder with their bytes; of a folder that is missing None. The log may grow."""
    if not os.path.isdir(folder):
        return None
    found = {}
    for place, _, names in os.walk(folder):
        for name in names:
            if name != "kwm.log":
                with open(os.path.join(place, name), "rb") as file:
                    found[os.path.relpath(os.path.join(place, name), folder)] = file.read()
    return found


def log_of(folder):
    return _text(os.path.join(folder, "kwm.log"))


def checkpoints(folder):
    return sorted(glob.glob(os.path.join(folder, "checkpoints", "step-*.h5")))


def parts(folder):
    return glob.glob(os.path.join(folder, "checkpoints", "*.part"))


def newest(folder):
    return (checkpoints(folder) or [os.path.join(folder, "checkpoints", "none")])[-1]


def arrays(file_path, groups=("params", "cov", "learner", "filter", "history")):
    """All datasets by name, with the attributes that count steps."""
    found = {}
    with h5py.File(file_path, "r") as file:
        for group in groups:
            if group not in file:
                continue
            for name, value in file[group].attrs.items():
                found["/%s@%s" % (group, name)] = np.asarray(value)
            file[group].visititems(
                lambda name, item, group=group: found.update({"/%s/%s" % (group, name): item[()]})
                if isinstance(item, h5py.Dataset)
                else None
            )
    return found


def sealed(rest, first=False):
    """A checkpoint's first bytes by what is behind them: the sum of the halves of its 64-bit words, each times an odd number of
    its own; first: as in files of before, of the words, the i-th of the file times 2 i + 1."""
    word = np.frombuffer(rest + bytes(-len(rest) % 8), "<u8")
    i = np.arange(64, 64 + len(word), dtype=np.uint64)
    with np.errstate(over="ignore"):
        x = (i + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        x ^= x >> np.uint64(32)
        y = x >> np.uint64(17) | x << np.uint64(47)
        one = np.uint64(1)
        mixed = (word & np.uint64(0xFFFFFFFF)) * (x | one) + (word >> np.uint64(32)) * (y | one)
        total = int((word * (2 * i + one) if first else mixed).sum())
    return b"kwm-checkpoint\nbytes %d\n%s %016x\n" % (512 + len(rest), b"sum" if first else b"mixed", total)


def seal(file_path, first=False):
    """Anew, after a change by hand."""
    with open(file_path, "r+b") as file:
        rest = file.read()[512:]
        head = sealed(rest, first) + b"HDF5 begins at byte 512 of this file; h5dump and h5py read it.\n"
        file.seek(0)
        file.write(head + bytes(512 - len(head)))


def summary(folder):
    with open(os.path.join(folder, "summary.json"), encoding="utf-8") as file:
        return json.load(file)


def rows(folder, name="metrics.tsv"):
    """A table of a run without the columns that time gives."""
    with open(os.path.join(folder, name), encoding="utf-8") as file:
        lines = [line.rstrip("\n").split("\t") for line in file]
    timed = {"seconds", "samples_per_s", "comm_fraction"}
    kept = [at for at, name in enumerate(lines[0]) if name not in timed]
    return [[line[at] for at in kept] for line in lines]


def text(value):
    """A text of a checkpoint."""
    return value.decode() if isinstance(value, bytes) else str(value)


def count_names(names):
    """One name for each number of /history/counts: NAME[n] stands for n of them."""
    for name in text(names).split():
        base, _, times = name.rstrip("]").partition("[")
        yield from [base] if not times else ["%s[%d]" % (base, at) for at in range(int(times))]


def state(file_path):
    """All arrays of a checkpoint; of the history what no clock gives."""
    found = arrays(file_path)
    names = count_names(found.pop("/history@names"))
    for name, value in zip(names, found.pop("/history/counts")):
        if "seconds" not in name:
            found["/history/counts " + name] = value
    return found


def _bits(value):
    value = np.asarray(value)
    return value.dtype, value.shape, value.tobytes()


def _same(name, one, other, history):
    if history > 0 and name.startswith("/history/"):
        return np.shape(one) == np.shape(other) and np.isclose(one, other, rtol=history, atol=0, equal_nan=True).all()
    return _bits(one) == _bits(other)


def differences(one, other, history=0):
    """Names of what is not the same bit for bit (nan is nan); the history's counts to a relative tolerance if given."""
    names = sorted(set(one) | set(other))
    return [n for n in names if n not in one or n not in other or not _same(n, one[n], other[n], history)]


def close_rows(one, other, tolerance):
    """Two metrics.tsv agree in their columns and, to the tolerance, in their numbers."""
    numbers = [np.array([[float(x) for x in row] for row in table[1:]]) for table in (one, other)]
    return one[0] == other[0] and numbers[0].shape == numbers[1].shape and np.allclose(*numbers, tolerance, 0, True)


def check_same(words, file_path, other_path, history=0):
    """Two checkpoints hold the same state."""
    if not (os.path.exists(file_path) and os.path.exists(other_path)):
        return check(False, "%s: wanted two checkpoints, found %s" % (words, newest(os.path.dirname(file_path))))
    found = differences(state(file_path), state(other_path), history)
    return check(not found, "%s: wanted the same arrays, these differ: %s" % (words, found))
