"""A real Slurm of this machine alone: munged, slurmctld and two slurmd in a folder of their own, on ports of their own: nodes n1
and n2, or hosts h1 and h2 of lib_hosts. Nothing of a Slurm that may run here besides is touched; at the end every daemon is
stopped."""
import atexit
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import time

import lib_hosts
import lib_kwm as t

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue", "scancel", "sinfo")
CONF = """ClusterName=kwmtest
SlurmctldHost={host}({address})
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={top}/munge.socket,cred_expire=5
CryptoType=crypto/munge
SlurmctldPidFile={top}/slurmctld.pid
SlurmdPidFile={top}/slurmd-%n.pid
SlurmctldLogFile={top}/log/slurmctld.log
SlurmdLogFile={top}/log/slurmd-%n.log
StateSaveLocation={top}/ctl
SlurmdSpoolDir={top}/spool/%n
TmpFS={top}/tmp/%n
SlurmdParameters=config_overrides
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1,sched_min_interval=0
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
ReturnToService=2
KillWait=5
MinJobAge=3600
SlurmdTimeout=10
NodeName={nodes} CPUs=4 RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=10 State=UP
"""
# One host's two nodes, and two hosts with one each.
VIRTUAL = "n[1-2] NodeHostName={host} NodeAddr=127.0.0.1 Port=[{ports[1]}-{ports[2]}]"
REAL = "h[1-2] NodeAddr={net}[1-2] Port={ports[1]}"
top = None
_hosts = False


def nodes():
    return lib_hosts.NAMES if _hosts else ("n1", "n2")


def missing():
    """Why there can be no Slurm here; empty if there can."""
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    if os.geteuid() != 0:
        return "wanted root"
    lost = [name for name in PROGRAMS + lib_hosts.PROGRAMS * _hosts if shutil.which(name) is None]
    if lost:
        return "wanted %s (scripts/setup --slurm installs them)" % " ".join(lost)
    try:
        socket.gethostbyname(_host())
    except OSError:
        return "wanted the host's name %s to resolve" % _host()
    return ""


def _host():
    return socket.gethostname().split(".")[0]


def _ports():
    """Three free ones, the last two in a row."""
    for first in range(21000 + os.getpid() % 5000, 32000, 7):
        held = []
        try:
            for port in range(first, first + 3):
                held.append(socket.create_server(("127.0.0.1", port)))
            return list(range(first, first + 3))
        except OSError:
            continue
        finally:
            for one in held:
                one.close()
    raise RuntimeError("wanted three free ports in a row")


def _daemon(words):
    subprocess.run(words, check=True, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def _pid(name):
    try:
        with open(os.path.join(top, name), encoding="utf-8") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def _configuration():
    host, ports = _host(), _ports()
    address = lib_hosts.address(host) if _hosts else "127.0.0.1"
    line = (REAL if _hosts else VIRTUAL).format(host=host, ports=ports, net=lib_hosts.address("h1")[:-1])
    return CONF.format(host=host, address=address, top=top, ports=ports, nodes=line)


def start(hosts=False):
    """Two idle nodes, on hosts of their own or on this one; True, or False after saying why not."""
    global top, _hosts
    _hosts = hosts
    why = missing() or (lib_hosts.start(_host()) if hosts else "")
    if why:
        print("skipped: a real Slurm: " + why)
        return False
    top = t.path("slurm")
    for name in ("log", "ctl", *("%s/%s" % (kind, node) for kind in ("spool", "tmp") for node in nodes())):
        os.makedirs(os.path.join(top, name))
    os.chmod(top, 0o755)
    key = os.path.join(top, "munge.key")
    with open(key, "wb") as file:
        file.write(os.urandom(128))
    os.chmod(key, 0o400)
    conf = os.path.join(top, "slurm.conf")
    with open(conf, "w", encoding="utf-8") as file:
        file.write(_configuration())
    os.environ["SLURM_CONF"] = conf
    # Two nodes of one host share /dev/shm, where Open MPI's shared memory names no node.
    if not hosts:
        os.environ["OMPI_MCA_btl"] = "self,tcp"
    atexit.register(stop)
    _daemon(["munged", "--force", "--key-file=" + key, "--socket=%s/munge.socket" % top, "--pid-file=%s/munged.pid" % top,
             "--log-file=%s/log/munged.log" % top, "--seed-file=%s/munged.seed" % top])
    _daemon(["slurmctld", "-f", conf, "-c"])
    for node in nodes():
        start_node(node)
    if not t.poll(lambda: _say("sinfo", "-h", "-t", "idle", "-o", "%D").split() == ["2"]):
        print("skipped: a real Slurm: its nodes did not come up:\n" + _say("sinfo", "-R"))
        return False
    return True


def start_node(node):
    """A host that was lost comes back with it."""
    if _hosts:
        lib_hosts.link(node, True)
    _daemon([*(lib_hosts.enter(node) if _hosts else []), "slurmd", "-f", os.environ["SLURM_CONF"], "-N", node, "-c"])


def _processes():
    """Every process by id: its parent and its environment's SLURMD_NODENAME."""
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open("/proc/%s/environ" % entry, "rb") as file:
                words = dict(word.split(b"=", 1) for word in file.read().split(b"\0") if b"=" in word)
        except OSError:
            continue
        found[int(entry)] = words
    return found


def kill_host(node):
    """As if the host had lost its power: its slurmd, its launchers and its ranks are gone at once."""
    if _hosts:
        return lib_hosts.kill(node)
    ours = {b"SLURM_CONF": os.environ["SLURM_CONF"].encode(), b"SLURMD_NODENAME": node.encode()}
    victims = [pid for pid, words in _processes().items() if all(words.get(name) == value for name, value in ours.items())]
    victims.append(_pid("slurmd-%s.pid" % node))
    for pid in victims:
        try:
            os.kill(pid, signal.SIGKILL)
        except (ProcessLookupError, TypeError):
            pass
    return len(victims)


def stop():
    subprocess.run(["scancel", "--full", "--signal=KILL", "--user=" + pwd.getpwuid(os.geteuid()).pw_name], check=False,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60)
    for name in (*("slurmd-%s.pid" % node for node in nodes()), "slurmctld.pid", "munged.pid"):
        pid = _pid(name)
        if pid is None:
            continue
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            continue
        end = time.monotonic() + 10
        while t.process_state(pid) not in (None, "Z") and time.monotonic() < end:
            time.sleep(0.02)
    ours = b"%s/slurm.conf" % os.fsencode(top)
    for pid, words in _processes().items():
        if words.get(b"SLURM_CONF") == ours and pid != os.getpid() and os.getppid() != pid and b"SLURM_JOB_ID" in words:
            os.kill(pid, signal.SIGKILL)


def _say(*words):
    return subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", check=False).stdout


def submit(*words):
    """scripts/submit.sh; the job's number."""
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts", "submit.sh")
    done = subprocess.run([script, *words], cwd=t.scratch, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", check=False)
    if not t.check(done.returncode == 0, "submit.sh %s: wanted exit 0, found:\n%s" % (" ".join(words), done.stderr)):
        return None
    return done.stdout.strip()


def job(number):
    """Its facts as scontrol names them; of an array, of its tasks: a list."""
    text = _say("scontrol", "-o", "show", "job", str(number))
    return [dict(re.findall(r"(\w+)=(\S*)", line)) for line in text.splitlines() if "JobId=" in line]


def state(number):
    return [facts.get("JobState") for facts in job(number)] or ["GONE"]


def ended(number):
    return not {"PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "REQUEUED"} & set(state(number))


def wait(number, words):
    """Until it has ended; the facts of its (first) task."""
    t.check(t.poll(lambda: _slow(ended(number))), "%s: wanted the job to end, it is %s" % (words, state(number)))
    return (job(number) or [{}])[0]


def _slow(answer):
    time.sleep(0.2)
    return answer


def send(number, name):
    return _say("scancel", "--batch", "--signal=" + name, str(number))


def cancel(number):
    return _say("scancel", str(number))
