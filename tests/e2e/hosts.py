#!/usr/bin/python3
"""Jobs under a real Slurm over two hosts, each with a network and a name of its own (lib_hosts): a run over both has the bits of
a run on one; a host that loses its power amid a step or amid a checkpoint, and a cable that is cut, end the job's start in
order, it is requeued, and when the host is back the run ends with the same bits."""
import sys

sys.dont_write_bytecode = True

import os
import time

import lib_hosts
import lib_jobs as j
import lib_kwm as t
import lib_slurm as s

AWAY = 4  # seconds until a host is back


def lose(_):
    t.check(s.kill_host("h2") > 1, "wanted processes on h2")
    time.sleep(AWAY)
    s.start_node("h2")


def cut(number):
    """Until the other end has noticed; what still runs behind the cut is Slurm's to end when it is back."""
    lib_hosts.link("h2", False)
    t.check(t.poll(lambda: set(s.state(number)) != {"RUNNING"}), "cut link: wanted the job to notice, found %s" % s.job(number))
    lib_hosts.link("h2", True)


t.start()
del os.environ["OMPI_MCA_btl_vader_backing_directory"]  # a host's own /dev/shm
if not s.start(hosts=True):
    sys.exit(t.SKIP)
# Sooner than scripts/slurm.sh would have it.
os.environ.update(OMPI_MCA_oob_tcp_keepalive_time="3", OMPI_MCA_oob_tcp_keepalive_intvl="1", OMPI_MCA_oob_tcp_keepalive_probes="3")
os.environ["KWM"] = t.kwm
whole = t.train(2, "whole", *j.KEYS, j.LONG)
j.struck("lost-host", whole, lose, 1)
j.broken("lost-in-checkpoint", whole, "hang:sync:200:1", "fault on order at sync", strike=lose)
j.struck("cut-link", whole, cut, 1)
t.finish()
