#!/usr/bin/env python3
"""Measures fleet beside supervisord, with /bin/sleep for a program.

    cargo build --release -p graceful-listener --features cli --bin fleet
    graceful-listener/benches/fleet.py [--fleet PATH] [--idle SECS] [N...]

Each N is a number of programs, each with a file (or a section) of its own;
1000 and 5000 by default. The directory is on /dev/shm, as one with pid files in it should be
on a file system in memory; --on says otherwise. The latency from a kill to the
replacement holds our own reading of /proc/PID/task/PID/children, which grows
with N.
"""

import argparse
import os
import random
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return file.read().split()


def wait_for(condition, seconds=300, pause=0.001):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            sys.exit("waited in vain")
        time.sleep(pause)


def field(pid, name):
    with open(f"/proc/{pid}/status") as file:
        for line in file:
            if line.startswith(name + ":"):
                return int(line.split()[1])
    return 0


def cpu(pid):
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def fleet(directory, count, options):
    programs = os.path.join(directory, "programs")
    os.mkdir(programs)
    for number in range(count):
        with open(f"{programs}/p{number:05}.toml", "w") as file:
            file.write(
                'command = "/bin/sleep"\narguments = ["100000"]\n'
                'start_seconds = "0s"\nrestart = "always"\n'
            )
    return [options.fleet, "run", directory]


def one_program(directory, count, options):
    os.mkdir(os.path.join(directory, "programs"))
    with open(f"{directory}/programs/p.toml", "w") as file:
        file.write(
            'command = "/bin/sleep"\narguments = ["100000"]\n'
            f'start_seconds = "0s"\nrestart = "always"\ninstances = {count}\n'
        )
    return [options.fleet, "run", directory]


def supervisord(directory, count, options):
    # It has three descriptors for each, and every child closes as many as there may
    # be one by one: the fewest that will do.
    descriptors = count * 3 + 200
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if limit != resource.RLIM_INFINITY and limit < descriptors:
        sys.exit(f"supervisord needs {descriptors} open files, and {limit} are allowed")
    config = f"{directory}/supervisord.conf"
    with open(config, "w") as file:
        file.write(
            f"[supervisord]\nnodaemon=true\nminfds={descriptors}\nminprocs=1000\n"
            f"logfile={directory}/log\npidfile={directory}/pid\nchildlogdir={directory}\n"
        )
        for number in range(count):
            file.write(
                f"[program:p{number:05}]\ncommand=/bin/sleep 100000\nstartsecs=0\n"
                "autorestart=true\nstdout_logfile=NONE\nstderr_logfile=NONE\n"
            )
    return ["supervisord", "-c", config]


def measure(name, prepare, count, options):
    directory = tempfile.mkdtemp(prefix="fleet-bench-", dir=options.on)
    command = prepare(directory, count, options)
    log = open(f"{directory}/out", "w")
    begun = time.monotonic()
    process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    pid = process.pid
    # Looking must not take the time of those that are looked at.
    def is_running():
        if process.poll() is not None:
            with open(f"{directory}/out") as out:
                sys.exit(f"{name} has ended: {out.read()[-1000:]}")
        return len(children(pid)) == count

    wait_for(is_running, pause=count / 200_000)
    running = time.monotonic() - begun
    time.sleep(2)
    assert len(children(pid)) == count, "they do not stay"

    before, switches, begun = cpu(pid), field(pid, "voluntary_ctxt_switches"), time.monotonic()
    time.sleep(options.idle)
    idle = (cpu(pid) - before) / (time.monotonic() - begun) * 100
    wakeups = field(pid, "voluntary_ctxt_switches") - switches
    rss = field(pid, "VmRSS") / 1024

    latencies = []
    for _ in range(50 if name != "supervisord" else 10):
        known = set(children(pid))
        victim = random.choice(sorted(known))
        begun = time.monotonic()
        os.kill(int(victim), signal.SIGKILL)
        while True:
            now = children(pid)
            if len(now) == count and victim not in now:
                break
        latencies.append((time.monotonic() - begun) * 1000)
        time.sleep(0.02)
    after = field(pid, "VmRSS") / 1024

    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.wait()
    stopped = time.monotonic() - begun
    shutil.rmtree(directory)
    print(
        f"{name:24} {count:6} {running:8.2f} s {rss:7.1f} MiB {after:7.1f} MiB"
        f" {idle:6.2f} % {wakeups:5} {statistics.median(latencies):9.1f} ms"
        f" {max(latencies):9.1f} ms {stopped:7.2f} s",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser()
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    parser.add_argument("--fleet", default=f"{root}/target/release/fleet")
    parser.add_argument("--on", default="/dev/shm")
    parser.add_argument("--idle", type=float, default=10)
    parser.add_argument("--without-supervisord", action="store_true")
    parser.add_argument("--only-supervisord", action="store_true")
    parser.add_argument("numbers", nargs="*", type=int, default=[1000, 5000])
    options = parser.parse_args()
    print(
        f"{'':24} {'n':>6} {'running':>10} {'RSS':>11} {'RSS later':>11} {'idle':>8}"
        f" {'wakes':>5} {'replaced':>12} {'at most':>12} {'stopped':>9}"
    )
    for count in options.numbers:
        if not options.only_supervisord:
            measure("fleet, n programs", fleet, count, options)
            measure("fleet, n instances", one_program, count, options)
        if not options.without_supervisord:
            measure("supervisord", supervisord, count, options)


main()
