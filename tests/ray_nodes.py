"""Ray nodes as `ray start` makes them, each with its own resources and folder: for tests of more than one process."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

BIN = Path(sys.executable).parent


@dataclass
class Nodes:
    """A head on loopback, which asks for a token, and nodes that joined it."""

    temp: Path
    environment: dict[str, str]
    gcs: str  # host and port, for RAY_ADDRESS
    dashboard: str  # of jobs: http://...
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def add(self, **resources: int) -> subprocess.Popen[bytes]:
        """Another node, such as `num_cpus=2`."""
        node = self._start(f"--address={self.gcs}", resources)
        self._wait_for_nodes(len(self.running))
        return node

    def lose(self, node: subprocess.Popen[bytes]) -> None:
        """SIGKILL to all processes of a node, as if its power went."""
        self.running.remove(node)
        for process in [*psutil.Process(node.pid).children(recursive=True), psutil.Process(node.pid)]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        node.wait()

    def _start(self, role: str, resources: dict[str, int], *more: str) -> subprocess.Popen[bytes]:
        (agent,) = free_ports(1)
        folder = self.temp / f"ray{len(self.running)}-{agent}"
        given = [f"--{name.replace('_', '-')}={n}" for name, n in resources.items()]
        command = [str(BIN / "ray"), "start", role, *more, *given, "--disable-usage-stats", "--block"]
        command += [f"--dashboard-agent-listen-port={agent}", f"--temp-dir={folder}"]
        command += ["--min-worker-port=0", "--max-worker-port=0"]  # any: the nodes are on one machine
        with (self.temp / f"{folder.name}.log").open("w") as log:
            node = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, umask=0o022)
        self.running.append(node)
        return node

    def _wait_for_nodes(self, n: int) -> None:
        """Until the head counts so many."""
        ask = "import ray; ray.init(log_to_driver=False, logging_level='ERROR'); "
        ask += "print(sum(node['Alive'] for node in ray.nodes()))"
        environment = self.environment | {"RAY_ADDRESS": self.gcs}
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            done = subprocess.run([sys.executable, "-c", ask], env=environment, capture_output=True, text=True)
            if done.stdout.strip().endswith(str(n)):
                return
        raise AssertionError(f"the node did not join: {done.stderr[-2000:]}")


@contextmanager
def head(**resources: int) -> Iterator[Nodes]:
    """A cluster of one node; the others are added."""
    temp = Path("/tmp") / f"raypipe-{secrets.token_hex(4)}"  # Ray's sockets need a short path
    temp.mkdir(mode=0o700)
    token = temp / "token"
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("RAY_")},
        "PATH": f"{BIN}:{os.environ['PATH']}",  # the entry point's `python` is the head's
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    port, dashboard = free_ports(2)
    nodes = Nodes(temp, environment, f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}")
    try:
        ports = f"--port={port}", f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1"
        nodes._start("--head", resources, *ports)
        _wait_for(nodes)
        yield nodes
    finally:
        for node in list(nodes.running):
            nodes.lose(node)  # after a SIGTERM, Ray 2.60 waits half a minute for work to go elsewhere
        shutil.rmtree(temp, ignore_errors=True)


def free_ports(n: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(n)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def _wait_for(nodes: Nodes) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"{nodes.dashboard}/api/version", timeout=2)
            return
        except urllib.error.HTTPError:
            return  # it answers: 401 without a token
        except OSError:
            time.sleep(0.5)
    logs = [path.read_text()[-2000:] for path in nodes.temp.glob("*.log")]
    raise AssertionError(f"the cluster did not start: {logs}")
