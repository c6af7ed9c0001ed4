"""Joining or starting Ray; what the steps ask of it: datasets, pools of actors, numbers that fit `resources`."""

from __future__ import annotations

import logging
import math
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from raypipe import rows
from raypipe.errors import ExitCode, InputError
from raypipe.guard import process
from raypipe.guard.command import keeping_signals
from raypipe.guard.folders import private_folder, why_open
from raypipe.guard.quiet import without_text
from raypipe.guard.terminal import say
from raypipe.settings.config import Data, Model, Resources
from raypipe.stream.inline import Inline
from raypipe.training import examples

if TYPE_CHECKING:
    from ray.data import Dataset

# CPUs that a resumed stream needs beside its actors: one each for reading, for the filter of what is written already,
# for cutting into blocks and for writing, a half for hold-out. A task that waits until the next stage takes its rows
# keeps its CPU meanwhile (Ray 2.60): with fewer, the next stage finds none, and a large corpus crawls or stands still.
# A Ray that is started here has so many logical CPUs more than there are cores.
STREAM_CPUS = 5

# Ray's sockets lie below its folder, and the system takes paths of 107 bytes: what Ray appends has up to 63.
MAX_FOLDER = 44
PROBE_S, PEAK_S = 10.0, 120.0
ACTOR_STARTS = 3  # a disk may fail while an actor loads its model, or on its node alone: another actor is started
# Ray gathers what is read to blocks of so many bytes. With its default, 128 MiB, a store of 150 MB, as small containers
# have, holds the block and nothing that is made of it: the stream crawls.
BLOCK_BYTES = 16 * 2**20
WRITTEN = "written"  # the folder, beside a step's rows, of the ids that Ray has written: see `Cluster.resumable`

QUIET = {
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # paths of a config are relative to where the user stands
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a process more for every training, and no training listens to it
    "RAY_prestart_worker_first_driver": "0",  # they start without the hook of `_connect`, and so none is ever used
    "RAY_DATA_PARQUET_FOOTER_NUM_ACTORS": "1",  # 32 processes by default, to read which notes a step has already
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_maximum_startup_concurrency": "8",  # the default, one per core, warns at every step of a small machine
    # One per CPU by default, actors counted: on a small machine every other worker is ended after an idle second, and
    # another one starts for the next block, which costs more than the block.
    "RAY_num_workers_soft_limit": "16",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}


@dataclass(frozen=True)
class Cluster:
    """What the steps may ask for."""

    cpus: float
    gpus: float
    actors: int  # of attribution, to begin with
    cpus_per_actor: float
    gpus_per_actor: float
    limits: tuple[int, float] | None = None  # fewest and most of these actors; None: always as many
    rows_per_block: int = 256
    node_cpus: float = math.inf  # of the largest node: a worker has no more

    @property
    def threads(self) -> int:
        """CPU threads of an actor that holds a model."""
        return max(1, int(self.cpus_per_actor))

    def notes(self, data: Data, rows_per_block: int) -> Dataset:
        """Notes in blocks of `rows_per_block` rows."""
        from raypipe.stream.source import read_notes

        return read_notes(data, rows_per_block)

    def parquet(self, path: str, columns: Sequence[str] | None = None) -> Dataset:
        """The rows of a Parquet file or folder."""
        from raypipe.stream.source import read_stored

        return read_stored(path, columns)

    def rows_written(self, out: Path) -> int:
        """Of the blocks that lie in a folder already, for progress: of training rows, the notes that they are of."""
        return sum(map(_rows_of, out.glob("*.parquet")))

    def peak(self, model: Model) -> Callable[[], float | None]:
        """FLOP/s of all cards, as one of them multiplies large matrices in the model's dtype.

        Begins to measure it, and returns what tells it, or None while no card was free for that. Nobody waits for it.
        """
        if not self.gpus:
            return lambda: None
        import ray

        measured = ray.remote(num_cpus=0, num_gpus=self.gpus_per_actor)(_peak_of_card).remote(model)
        end = time.monotonic() + PEAK_S

        def tell() -> float | None:
            try:
                return self.gpus * float(ray.get(measured, timeout=0))
            except ray.exceptions.RayError:  # not yet; or never, which is a pity, but no reason to stop
                if time.monotonic() > end:
                    ray.cancel(measured, force=True)
                return None

        return tell

    @contextmanager
    def resumable(self, out: Path) -> Iterator[None]:
        """Datasets made in this block skip the notes whose rows are already in `out`."""
        from ray.data import DataContext

        from raypipe.stream.resuming import skipping

        written = out.parent / WRITTEN
        forget_lost_rows(out, written)
        context = DataContext.get_current()
        context.checkpoint_config = skipping(written)
        try:
            yield
        finally:
            context.checkpoint_config = None

    def on_devices(self) -> dict[str, Any]:
        """Actors that hold a model, as many as there are devices."""
        smallest, largest = self.limits or (self.actors, self.actors)
        pool = _pool(smallest, largest, self.actors)
        options = {"compute": pool, "num_cpus": self.cpus_per_actor, "num_gpus": self.gpus_per_actor}
        return options | ({"batch_size": self.rows_per_block} if self.gpus else {})  # with GPUs, Ray demands a number

    def spread(self) -> dict[str, Any]:
        """CPU actors, more of them while there is work."""
        return {"compute": _pool(1, max(1, int(min(self.cpus - 2, cores(self.cpus))))), "num_cpus": 0.5}

    def light(self) -> dict[str, Any]:
        """Cheap stages of a stream take no CPU of their own: a resumed job on a small cluster would starve.

        Their pools keep their size: of one that may grow, Ray ends idle actors every ten seconds and starts others for
        the next blocks, which costs more than the blocks.
        """
        size = max(1, min(4, int(cores(self.cpus))))
        return {"compute": _pool(size, size), "num_cpus": 0}

    def each(
        self, work: Callable[..., None], units: Sequence[tuple[Any, ...]], at_once: int, resources: dict[str, float]
    ) -> Iterator[tuple[int, Exception | None]]:
        """`work(*unit)` in worker processes, `at_once` at a time; (number of the unit, its error) as they end.

        A unit whose process dies is begun again, twice at most: what it left on disk is its way to go on.
        """
        import ray

        options: dict[str, Any] = {"num_cpus": resources["CPU"], "num_gpus": resources.get("GPU", 0), "max_retries": 2}
        remote = ray.remote(**options)(work)
        waiting = list(enumerate(units))[::-1]
        running: dict[Any, int] = {}
        while waiting or running:
            while waiting and len(running) < at_once:
                number, unit = waiting.pop()
                running[remote.remote(*unit)] = number
            ended = ray.wait(list(running))[0][0]
            try:
                ray.get(ended)
                yield running.pop(ended), None
            except ray.exceptions.RayError as failure:  # its message may hold a library's, and so note text
                yield running.pop(ended), without_text(failure)

    def leave(self) -> None:
        """End all that works for this process, and the connection to it."""
        import ray

        ray.shutdown()

    def worker(self, at_once: int, cpus_per_worker: float | str, workers: int) -> dict[str, float]:
        """Resources of one training worker when `at_once` trainings of `workers` workers run side by side."""
        share = max(1, at_once * workers)
        if self.gpus:
            # two ranks of one training must not meet on a card; single workers may share one
            return {"GPU": 1.0 if workers > 1 else 1 / math.ceil(share / self.gpus), "CPU": 1}
        real = min(self.cpus, os.cpu_count() or 1)  # threads beyond the cores only get in each other's way
        part = max(1.0, min(real // share, self.node_cpus))
        return {"CPU": part if cpus_per_worker == "auto" else float(cpus_per_worker)}


def _peak_of_card(model: Model) -> float:
    from raypipe.models.loading import device_of, dtype_of
    from raypipe.training.throughput import matrix_peak

    device = device_of(model)
    return matrix_peak(device, dtype_of(model, device))


def forget_lost_rows(out: Path, written: Path) -> None:
    """Make what Ray recorded as written agree with the rows that are there, so that resuming makes all others.

    Ray names both after the task that wrote them: data/<task>-0.parquet and written/<task>.parquet, which holds the ids
    alone. A file whose partner is missing, cannot be read, or has other ids is deleted, and its partner with it.
    """
    records = {path.stem: path for path in written.glob("*.parquet") if not path.stem.endswith(".pending")}
    for shard in out.glob("*.parquet"):
        record = records.pop(shard.stem.rpartition("-")[0], None)
        if record is None or not _same_ids(shard, record):
            shard.unlink()
            if record is not None:
                record.unlink()
    for record in records.values():
        record.unlink()


def _same_ids(shard: Path, record: Path) -> bool:
    try:
        return bool(rows.read(shard, ["note_id"]).equals(rows.read(record, ["note_id"])))
    except ValueError:  # most of pyarrow's errors derive from it
        return False
    except OSError as error:
        if error.errno is not None:  # the disk failed: what lies there may be whole
            raise
        return False


def _rows_of(path: Path) -> int:
    """Of a finished file; 0 while a worker still writes it, or if it is gone."""
    try:
        return _rows_of_finished(path)
    except (OSError, pa.ArrowInvalid):
        return 0


_rows_of_finished = lru_cache(maxsize=100_000)(examples.done_in)


def cores(cpus: float) -> float:
    """Cores behind Ray's logical CPUs, which outnumber them where Ray was started here (STREAM_CPUS)."""
    return cpus if os.environ.get("RAY_ADDRESS") else min(cpus, os.cpu_count() or 1)


def _pool(smallest: int, largest: float, at_first: int | None = None) -> Any:
    from ray.data import ActorPoolStrategy

    return ActorPoolStrategy(min_size=smallest, max_size=largest, initial_size=at_first)


def join(resources: Resources) -> Cluster | Inline:
    """Connect to the cluster that RAY_ADDRESS or `ray job submit` names, or start a private one on this machine.

    With `resources.ray: false` there is none: this process does everything.
    """
    if not resources.ray:
        return Inline.here(resources.use_gpu)
    for key, value in QUIET.items():
        os.environ.setdefault(key, value)
    import ray

    if not ray.is_initialized():
        _connect(os.environ.get("RAY_ADDRESS"))
        if not resources.allow_unauthenticated_cluster:
            _demand_token(ray.get_runtime_context().gcs_address)
        _warn_of_open_token()
    _configure_data(resources)
    total = ray.cluster_resources()
    cpus, gpus = total.get("CPU", 1.0), total.get("GPU", 0.0) if resources.use_gpu is not False else 0.0
    if resources.use_gpu is True and not gpus:
        raise InputError("resources.use_gpu is true, but the cluster has no GPU", ExitCode.CLUSTER)
    if cpus < STREAM_CPUS:
        say(f"warning: the cluster has {cpus:g} CPUs: with fewer than {STREAM_CPUS} a large corpus may stand still")
    actors, gpus_per_actor, limits = _pool_of(resources, cpus, gpus)
    room = max(0.0, cpus - STREAM_CPUS) / actors
    per_actor = min(resources.cpus_per_actor, room), gpus_per_actor
    of_nodes = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
    node_cpus = max(of_nodes, default=0.0) or math.inf
    return Cluster(cpus, gpus, actors, *per_actor, limits, resources.rows_per_block, node_cpus)


def _pool_of(resources: Resources, cpus: float, gpus: float) -> tuple[int, float, tuple[int, float]]:
    """Actors to begin with, the share of a card of each, and the fewest and most of them."""
    most, share, fewest = resources.attribution_actors, resources.gpus_per_actor, resources.min_attribution_actors
    if not gpus:
        share = 0.0
    elif share == "auto":
        share = 1.0 if most == "auto" else 1 / math.ceil(most / gpus)
    room = max(1, int(gpus) * int(1 / share) if share else int(cores(cpus)) // 2)
    if most == "auto":  # an actor that goes must load its model when it comes back: none does unless that is set
        return room, share, (min(fewest or room, room), math.inf if gpus else room)
    actors = most if fewest is None else min(room, most)
    return actors, share, (min(fewest or actors, actors), most)


def _connect(address: str | None) -> None:
    """Join the cluster at `address`, or start one here. Every worker of it begins with `process.protect`."""
    import ray

    is_offline = "HF_HUB_OFFLINE" in os.environ
    hook = process.protect if is_offline else process.protect_with_hub
    options: dict[str, Any] = {} if address else _own_cluster()
    logging.getLogger("ray._private.worker").setLevel(logging.ERROR)
    failure: Exception
    try:
        with keeping_signals():
            ray.init(
                address=address,
                log_to_driver=False,
                logging_level="ERROR",
                runtime_env={"worker_process_setup_hook": f"{hook.__module__}.{hook.__name__}"},
                **options,
            )
        return
    except ray.exceptions.AuthenticationError:
        what = "the cluster refuses this token: RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH must be that of its head"
        failure = InputError(what, ExitCode.CLUSTER)
    except (ConnectionError, TimeoutError) as error:
        what = f"no cluster at RAY_ADDRESS lets us in ({type(error).__name__}): is it there, and is this its token?"
        failure = InputError(what, ExitCode.CLUSTER)
    except Exception as error:
        # Ray's own words for a node that takes longer than 30 s to start, and for one that ends meanwhile
        if address or type(error) not in (Exception, RuntimeError):
            raise
        what = "Ray did not start on this machine, or not in time: the same command goes on when it is less busy"
        failure = InputError(what, ExitCode.CLUSTER)
    raise failure


def _own_cluster() -> dict[str, Any]:
    """Options of a cluster on this machine. Its session, logs and spilled notes lie where only this user can look."""
    folder = _folder_of_sessions()
    private_folder(folder.parent)  # Ray opens its own folder to everyone
    if len(os.fsencode(folder)) > MAX_FOLDER:
        what = f"{folder} is too long a path for Ray's sockets: set RAY_TMPDIR to a shorter one, on an encrypted disk"
        raise InputError(what, ExitCode.CLUSTER)
    cpus = (os.cpu_count() or 1) + STREAM_CPUS
    return {"num_cpus": cpus, "include_dashboard": False, "_temp_dir": str(folder)}


def _folder_of_sessions() -> Path:
    return Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()) / f"raypipe-{os.getuid()}" / "ray"


def ended_sessions() -> list[Path]:
    """What clusters that were started here have left: their logs and, if they were killed, rows that were spilled."""
    folder = _folder_of_sessions()
    if not folder.is_dir() or why_open(folder.parent, is_own=True):
        return []
    return [path for path in sorted(folder.glob("session_*_*")) if not path.is_symlink() and not _is_in_use(path)]


def _is_in_use(session: Path) -> bool:
    """Does the process live that started it, or does Ray answer? (That process may have its number in a container.)"""
    try:
        os.kill(int(session.name.rpartition("_")[2]), 0)
        return True
    except ProcessLookupError:
        return any(map(_answers, (session / "sockets").glob("*")))
    except (ValueError, OSError):  # not one of Ray's names; another user's process
        return True


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True


def _demand_token(gcs_address: str) -> None:
    """A Ray cluster without a token lets anyone on the network run code: leave it (CVE-2023-48022)."""
    import ray

    if (doubt := doubt_about_token(gcs_address)) is not None:
        ray.shutdown()
        how = "start every node with RAY_AUTH_MODE=token, or set resources.allow_unauthenticated_cluster: true on a "
        raise InputError(f"{doubt}: {how}network you trust", ExitCode.CLUSTER)


def _warn_of_open_token() -> None:
    """Whoever has the token runs code as this user; Ray leaves its file to the umask of whoever makes it."""
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()
    with suppress(OSError):  # there is none, or it is in RAY_AUTH_TOKEN
        if path.stat().st_uid == os.getuid() and path.stat().st_mode & 0o077:
            say(f"warning: {path}: others may read Ray's token, and run code in your name with it: chmod 600 {path}")


def doubt_about_token(gcs_address: str) -> str | None:
    """Why the cluster may not ask for a token; None if it refused a request that had none.

    The request is one that every client of Ray 2.60 makes first; what this process has in its environment proves
    nothing about the server.
    """
    import grpc

    with _channel(gcs_address) as channel:
        try:
            channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetClusterId")(b"", timeout=PROBE_S)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                return None
            return f"the cluster did not say whether it asks for a token ({error.code().name})"
    return "the cluster runs without token authentication"


def _channel(address: str) -> Any:
    """A connection without a token; with Ray's TLS if that is on."""
    import grpc

    if os.environ.get("RAY_USE_TLS", "0").lower() not in ("1", "true"):
        return grpc.insecure_channel(address)
    files = (os.environ[f"RAY_TLS_{name}"] for name in ("CA_CERT", "SERVER_KEY", "SERVER_CERT"))
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(*(Path(file).read_bytes() for file in files)))


def _configure_data(resources: Resources) -> None:
    import ray.data

    for name in ("ray.data", "ray.train", "ray._private.worker"):
        logging.getLogger(name).setLevel(logging.ERROR)

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = BLOCK_BYTES
    context.max_errored_blocks = 0  # any other value drops whole blocks
    context.execution_no_progress_timeout_s = resources.no_progress_timeout_s
    context.actor_init_retry_on_errors = True
    context.max_consecutive_actor_init_deaths = ACTOR_STARTS  # Ray's default fails the job at the first one
    context.print_on_execution_start = False
    context.raise_original_map_exception = True  # or what a stage says of its failure would be lost on the way
