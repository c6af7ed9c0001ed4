"""`raypipe submit` with Ray's own client, against a head of which only the interface of jobs is played: token, upload,
log and exit code go over the wire as Ray sends them. No cluster is started.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

TOKEN = "t" * 64
CONFIG = "name: mine\nruns: /shared/runs\ndata: {source: synthetic}\n"


class Head:
    """Answers what the client asks, keeps what it sent, and refuses requests without the token."""

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.files: dict[str, str] = {}
        self.address = ""
        self.refusals = 0

    @web.middleware
    async def demand_token(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.refusals += 1
            raise web.HTTPUnauthorized
        return await handler(request)

    async def version(self, _: web.Request) -> web.Response:
        return web.json_response({"ray_version": "2.60.0", "ray_commit": "", "version": "4"})

    async def package(self, request: web.Request) -> web.Response:
        if request.method == "GET":
            raise web.HTTPNotFound
        with zipfile.ZipFile(io.BytesIO(await request.read())) as archive:
            self.files = {name: archive.read(name).decode() for name in archive.namelist() if not name.endswith("/")}
        return web.Response()

    async def submit(self, request: web.Request) -> web.Response:
        job = await request.json()
        self.jobs[job["submission_id"]] = job
        return web.json_response({"job_id": job["submission_id"], "submission_id": job["submission_id"]})

    async def job(self, request: web.Request) -> web.Response:
        if (id := request.match_info["id"]) not in self.jobs:
            raise web.HTTPNotFound
        ended = {"type": "SUBMISSION", "submission_id": id, "status": "FAILED", "driver_exit_code": 4}
        return web.json_response(ended | {"entrypoint": self.jobs[id]["entrypoint"]})

    async def log(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str("mask: 30 notes\npartly do")
        await socket.send_str("ne\n")
        await socket.close()
        return socket

    async def serve(self, ready: threading.Event, end: asyncio.Event) -> None:
        app = web.Application(middlewares=[self.demand_token])
        app.router.add_get("/api/version", self.version)
        app.router.add_route("*", "/api/packages/{protocol}/{name}", self.package)
        app.router.add_post("/api/jobs/", self.submit)
        app.router.add_get("/api/jobs/{id}", self.job)
        app.router.add_get("/api/jobs/{id}/logs/tail", self.log)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.address = "http://{}:{}".format(*runner.addresses[0])
        ready.set()
        await end.wait()
        await runner.cleanup()


@pytest.fixture
def head() -> Iterator[Head]:
    head, ready, loop = Head(), threading.Event(), asyncio.new_event_loop()
    end = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(head.serve(ready, end),), daemon=True)
    thread.start()
    assert ready.wait(30)
    yield head
    loop.call_soon_threadsafe(end.set)
    thread.join(30)
    loop.close()


def _submit(head: Head, folder: Path, token: str) -> subprocess.CompletedProcess[str]:
    (folder / "my.yaml").write_text(CONFIG)
    (folder / "notes.csv").write_text("id,text\n")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "RAYPIPE_"))}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, "RAYPIPE_DATA": "/shared/data"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    command = [sys.executable, "-m", "raypipe.cli", "submit", "--address", head.address, "--config", "my.yaml"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_a_job_goes_over_the_wire(head: Head, tmp_path: Path) -> None:
    done = _submit(head, tmp_path, TOKEN)
    assert done.returncode == 4, done.stderr
    assert done.stderr == ""
    (job,) = head.jobs.values()
    assert job["entrypoint"] == "python -m raypipe.cli run --config my.yaml"
    assert job["runtime_env"]["env_vars"] == {"RAYPIPE_DATA": "/shared/data"}
    assert head.files == {"my.yaml": CONFIG}
    assert TOKEN not in json.dumps(job)
    first, submitted, *log, last = done.stdout.splitlines()
    assert first == "sent along: my.yaml"
    assert submitted == f"submitted {job['submission_id']}"
    assert log == ["mask: 30 notes", "partly done"]
    assert last.startswith("exit code 4; on the cluster: /shared/runs/mine")


def test_another_token_is_refused_in_one_line(head: Head, tmp_path: Path) -> None:
    done = _submit(head, tmp_path, "of another cluster")
    assert done.returncode == 5
    assert done.stderr.splitlines() == [
        "error: the cluster refuses this client: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to its head's token"
    ]
    assert head.refusals
    assert not head.jobs
