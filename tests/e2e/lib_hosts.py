"""Hosts h1 and h2 of this machine alone: a network namespace, a name and a /dev/shm each, on a bridge with this machine; files
are shared, as on a cluster. Needs root and the right to make namespaces; all is gone at the end."""
import atexit
import os
import signal
import subprocess

import lib_kwm as t

NAMES = ("h1", "h2")
PROGRAMS = ("ip", "nsenter", "unshare")
_holders = {}  # name -> the process that keeps its namespaces


def _tag(name):
    """An interface's name, of at most 15 letters and this process's own."""
    return "kwm%d%s" % (os.getpid(), name)


def _net():
    return "10.77.%d." % (os.getpid() % 250)


def address(name):
    """Of a host, or of this machine."""
    return _net() + (name[1:] if name in NAMES else "254")


def _do(*words):
    return subprocess.run(words, check=False, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8")


def _must(*words):
    done = _do(*words)
    if done.returncode != 0:
        raise OSError("%s: %s" % (" ".join(words), done.stdout.strip()))


def enter(name):
    """Words before a command of that host."""
    return ["nsenter", "-t", str(_holders[name].pid), "-n", "-u", "-m"]


def _raise(name, table):
    ready = t.path("up-" + name)
    script = "hostname %s && mount -t tmpfs tmpfs /dev/shm && mount --bind %s /etc/hosts && touch %s && exec sleep infinity" % (name, table, ready)
    _holders[name] = subprocess.Popen(["unshare", "-n", "-u", "-m", "sh", "-c", script], stdin=subprocess.DEVNULL,
                                      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    if not t.poll(lambda: os.path.exists(ready), _holders[name]):
        raise OSError("unshare: wanted namespaces of network, name and mounts, found none")
    _must("ip", "link", "add", _tag(name), "type", "veth", "peer", "name", "eth0", "netns", str(_holders[name].pid))
    _must("ip", "link", "set", _tag(name), "master", _tag("b"), "up")
    for words in (["addr", "add", address(name) + "/24", "dev", "eth0"], ["link", "set", "eth0", "up"], ["link", "set", "lo", "up"]):
        _must(*enter(name), "ip", *words)


def start(host):
    """Both hosts; host: this machine's name. Empty, or why there can be none."""
    atexit.register(stop)
    table = t.path("hosts")
    with open(table, "w", encoding="utf-8") as file:
        file.write("127.0.0.1 localhost\n" + "".join("%s %s\n" % (address(name), name) for name in (host, *NAMES)))
    try:
        _must("ip", "link", "add", _tag("b"), "type", "bridge")
        _must("ip", "addr", "add", address(host) + "/24", "dev", _tag("b"))
        _must("ip", "link", "set", _tag("b"), "up")
        for name in NAMES:
            _raise(name, table)
    except OSError as error:
        return str(error)
    return ""


def link(name, up):
    """The cable between a host and all others."""
    _must("ip", "link", "set", _tag(name), "up" if up else "down")


def kill(name):
    """As if it had lost its power: all its processes are gone at once, and nothing goes over its cable. How many they were."""
    link(name, False)
    return _kill_processes(name)


def _kill_processes(name):
    holder = _holders[name].pid
    ours = os.readlink("/proc/%d/ns/uts" % holder)
    victims = []
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        try:
            if pid != holder and os.readlink("/proc/%d/ns/uts" % pid) == ours:
                os.kill(pid, signal.SIGKILL)
                victims.append(pid)
        except OSError:
            continue
    return len(victims)


def stop():
    for name, holder in _holders.items():
        if holder.poll() is None:
            _kill_processes(name)
            holder.kill()
            holder.wait()
    _holders.clear()
    _do("ip", "link", "del", _tag("b"))
