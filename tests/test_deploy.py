"""What lies in deploy/ holds together: fields that exist, one image, a token, commands that raypipe takes.

No Kubernetes and no Slurm is asked. The fields of KubeRay are those of its reference for 1.6.2, as far as used here;
Ray's launcher file is checked by Ray itself; the Slurm script runs against stand-ins of Slurm's and Ray's commands.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import raypipe
from raypipe import cli
from raypipe.notes.storage import FORMATS
from raypipe.settings import configfile
from raypipe.stream.submission import VARIABLES

REPOSITORY = Path(__file__).parents[1]
DEPLOY = REPOSITORY / "deploy"
SBATCH = DEPLOY / "slurm/raypipe.sbatch"


def _object(required: str, optional: str = "", **kinds: Any) -> dict[str, Any]:
    """A JSON Schema: these keys and no others; `kinds` says more of some."""
    names = f"{required} {optional}".split()
    properties = {name: kinds.get(name, {}) for name in names}
    return {"type": "object", "required": required.split(), "properties": properties, "additionalProperties": False}


TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
COUNT = {"type": "integer", "minimum": 0}
RESOURCES = _object("requests limits", requests=TEXTS, limits=TEXTS)
CONTAINER = _object(
    "name image securityContext env resources volumeMounts",
    securityContext=_object("allowPrivilegeEscalation capabilities"),
    env={"type": "array", "items": _object("name value", name={"enum": list(VARIABLES)})},
    resources=RESOURCES,
    volumeMounts={"type": "array", "items": _object("name mountPath", "subPath readOnly")},
)
POD_SECURITY = _object("runAsNonRoot runAsUser runAsGroup fsGroup fsGroupChangePolicy seccompProfile")
POD = _object(
    "automountServiceAccountToken securityContext containers volumes",
    "tolerations",
    securityContext=POD_SECURITY,
    containers={"type": "array", "items": CONTAINER, "minItems": 1, "maxItems": 1},
    volumes={"type": "array", "items": _object("name", "persistentVolumeClaim configMap")},
)
TEMPLATE = _object("metadata spec", metadata=_object("labels", labels=TEXTS), spec=POD)
CLUSTER = _object(
    "rayVersion authOptions enableInTreeAutoscaling autoscalerOptions headGroupSpec workerGroupSpecs",
    rayVersion={"type": "string"},
    authOptions=_object("mode secretName", mode={"const": "token"}),
    autoscalerOptions=_object(
        "idleTimeoutSeconds upscalingMode securityContext", upscalingMode={"enum": ["Conservative", "Default"]}
    ),
    headGroupSpec=_object(
        "serviceType enableIngress rayStartParams template",
        serviceType={"const": "ClusterIP"},
        enableIngress={"const": False},
        rayStartParams=TEXTS,
        template=TEMPLATE,
    ),
    workerGroupSpecs={
        "type": "array",
        "items": _object(
            "groupName replicas minReplicas maxReplicas rayStartParams template",
            replicas=COUNT,
            minReplicas=COUNT,
            maxReplicas=COUNT,
            rayStartParams=TEXTS,
            template=TEMPLATE,
        ),
    },
)
JOB = _object(
    "entrypoint submissionMode backoffLimit shutdownAfterJobFinishes ttlSecondsAfterFinished rayClusterSpec",
    submissionMode={"enum": ["HTTPMode", "K8sJobMode", "SidecarMode"]},
    backoffLimit=COUNT,
    rayClusterSpec=CLUSTER,
)
SPECS = {"RayCluster": CLUSTER, "RayJob": JOB}


def _documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / "kuberay" / name).read_text()))


CLUSTER_FILE, JOB_FILE = _documents("raycluster.yaml")[0], _documents("rayjob.yaml")[0]
SPEC = CLUSTER_FILE["spec"]
PODS = [group["template"]["spec"] for group in (SPEC["headGroupSpec"], *SPEC["workerGroupSpecs"])]


@pytest.mark.parametrize("resource", [CLUSTER_FILE, JOB_FILE], ids=["RayCluster", "RayJob"])
def test_a_manifest_has_the_fields_of_kuberay(resource: dict[str, Any]) -> None:
    assert resource["apiVersion"] == "ray.io/v1"
    assert set(resource) == {"apiVersion", "kind", "metadata", "spec"}
    jsonschema.validate(resource["spec"], SPECS[resource["kind"]])


def test_the_job_runs_on_the_same_cluster() -> None:
    assert JOB_FILE["spec"]["rayClusterSpec"] == SPEC


def test_versions_and_image_are_those_of_the_package() -> None:
    assert f"ray=={SPEC['rayVersion']}" in (REPOSITORY / "constraints.txt").read_text().split()
    (image,) = {pod["containers"][0]["image"] for pod in PODS}
    assert image.endswith(f":{raypipe.__version__}-cuda")


def test_the_head_takes_no_work_and_workers_have_a_gpu() -> None:
    assert SPEC["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}
    head, worker = (pod["containers"][0]["resources"] for pod in PODS)
    assert head["requests"] == head["limits"]
    assert worker["requests"] == worker["limits"]
    assert "nvidia.com/gpu" not in head["limits"]
    assert int(worker["limits"]["nvidia.com/gpu"]) > 0
    (group,) = SPEC["workerGroupSpecs"]
    assert 0 < group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


@pytest.mark.parametrize("pod", PODS, ids=["head", "worker"])
def test_a_pod_is_private(pod: dict[str, Any]) -> None:
    container = pod["containers"][0]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == 1000  # of the Dockerfile
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    writable = [mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")]
    assert writable == ["/shared/runs"]
    mounts = tuple(mount["mountPath"] for mount in container["volumeMounts"])
    assert all(variable["value"].startswith(mounts) for variable in container["env"])


def test_storage_is_shared_and_the_head_is_closed() -> None:
    claim, policy = _documents("storage.yaml")
    assert (claim["apiVersion"], claim["kind"]) == ("v1", "PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert claim["metadata"]["name"] == PODS[0]["volumes"][0]["persistentVolumeClaim"]["claimName"]
    assert (policy["apiVersion"], policy["kind"]) == ("networking.k8s.io/v1", "NetworkPolicy")
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    labels = policy["spec"]["podSelector"]["matchLabels"]
    groups = (SPEC["headGroupSpec"], *SPEC["workerGroupSpecs"])
    assert all(group["template"]["metadata"]["labels"] == labels for group in groups)
    own, operator = policy["spec"]["ingress"]
    assert own["from"] == [{"podSelector": {"matchLabels": labels}}]
    assert operator["ports"] == [{"port": 8265}]


def test_no_file_holds_a_token_and_all_demand_one() -> None:
    files = {path: path.read_text() for path in DEPLOY.rglob("*") if path.is_file()}
    for path, text in files.items():
        assert not re.search(r"RAY_AUTH_TOKEN\s*[=:]", text), path
        assert "0.0.0.0" not in text, path
    for name in ("Dockerfile", "ray-up.yaml", "slurm/raypipe.sbatch"):
        assert "RAY_AUTH_MODE=token" in files[DEPLOY / name]
    secret = SPEC["authOptions"]["secretName"]
    assert f"kubectl create secret generic {secret} --from-file=auth_token" in files[DEPLOY / "kuberay/storage.yaml"]


def _commands() -> list[tuple[str, str]]:
    """(file, command line of raypipe) of everything in deploy/ and its page."""
    kinds = (r"python -m raypipe\.cli (.+)", r"raypipe\.sbatch (.+)", r"(?:^|[#:] +)raypipe (\w[\w-]* --.+)")
    commands = []
    for path in (*sorted(DEPLOY.rglob("*")), REPOSITORY / "docs/cluster.md"):
        for line in path.read_text().splitlines() if path.is_file() else ():
            line = line.removesuffix("\\").split(" #")[0] if not line.startswith("#") else line
            commands += [(path.name, match[1]) for kind in kinds if (match := re.search(kind, line))]
    return commands


@pytest.mark.parametrize(("file", "line"), _commands())
def test_a_command_is_one_that_raypipe_takes(file: str, line: str) -> None:
    options = cli.parsed(shlex.split(line))
    overrides = options.get("set_") or ()
    configfile.load(REPOSITORY / "jobs/configs/demo.yaml", overrides)  # keys that exist


def test_commands_were_read_from_every_place() -> None:
    files = {file for file, _ in _commands()}
    assert files >= {"raycluster.yaml", "rayjob.yaml", "raypipe.sbatch", "cluster.md"}


def test_rays_launcher_takes_its_file() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((DEPLOY / "ray-up.yaml").read_text())
    validate_config(prepare_config(config))  # as `ray up` does
    head, worker = config["head_start_ray_commands"][-1], config["worker_start_ray_commands"][-1]
    assert all(line.startswith("umask 077; export RAY_AUTH_MODE=token") for line in (head, worker))
    assert all(f"{variable}=/shared/" in line for line in (head, worker) for variable in VARIABLES)
    assert "--num-cpus=0" in head
    assert "--dashboard-host=127.0.0.1" in head
    assert "--temp-dir=/tmp/raypipe-$(id -u)/ray" in head
    assert "install -d -m 700 /tmp/raypipe-$(id -u)" in config["setup_commands"]
    for line in (*config["setup_commands"], head, worker):
        subprocess.run(["bash", "-n", "-c", line], check=True)


def test_the_script_passes_shellcheck() -> None:
    """The linter comes with the extra `dev`, so with `make setup`."""
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed (the extra `dev`)")
    subprocess.run([shellcheck, SBATCH], check=True)


STAND_INS = {
    "scontrol": 'printf "node1\\nnode2\\n"',
    # runs the step on this machine; a worker's private folder is another, as it would be on its node
    "srun": """echo "srun $*" >> "$LOG"
        case "$*" in *--exclude=*) private=$private-worker ;; esac
        while [ "$1" != bash ]; do shift; done
        exec "$@" """,
    "ray": """echo "ray $*" >> "$LOG"
        if [ "$1" = start ]; then stat -c "mode %a" "$private" >> "$LOG"; exec sleep 600; fi""",
    # `python -` waits for the nodes; each notes a mode last
    "python": """if [ "$1" = - ]; then
            until [ "$(grep -c "^mode" "$LOG")" = 2 ]; do sleep 0.02; done
        else exec PYTHON "$@"; fi""",
    "raypipe": """{ echo "raypipe $*"; stat -c "token %a" "$RAY_AUTH_TOKEN_PATH"; cat "$RAY_AUTH_TOKEN_PATH"; echo
            echo "address $RAY_ADDRESS mode $RAY_AUTH_MODE ${RAY_AUTH_TOKEN:-none}"; } >> "$LOG"
        if [ "$END" = term ]; then
            trap 'exit 143' TERM; sleep 600 & napping=$!; trap 'kill $napping; exit 143' TERM; kill -TERM $PPID; wait
        fi
        exit "$END" """,
}


def _allocation(tmp_path: Path, end: str, *arguments: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """The script in an allocation of two nodes that is played by stand-ins, and what they noted."""
    bin_, log = tmp_path / "bin", tmp_path / "log"
    for folder in (bin_, tmp_path / "home", tmp_path / "node"):
        folder.mkdir()
    for name, body in STAND_INS.items():
        (bin_ / name).write_text(f"#!/bin/bash\n{body.replace('PYTHON', sys.executable)}\n")
        (bin_ / name).chmod(0o700)
    log.touch()
    environment = {
        "PATH": f"{bin_}:{os.environ['PATH']}", "HOME": str(tmp_path / "home"), "LOG": str(log), "END": end,
        "SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "16", "RAYPIPE_NODE_TMP": str(tmp_path / "node"), "RAY_AUTH_TOKEN": "of another cluster",
    }  # fmt: skip
    done = subprocess.run(["bash", SBATCH, *arguments], env=environment, capture_output=True, text=True, timeout=60)
    return done, log.read_text().splitlines()


def test_slurm_starts_head_and_workers_and_runs_the_job(tmp_path: Path) -> None:
    done, log = _allocation(tmp_path, "4", "run", "--config", "my file.yaml")
    assert done.returncode == 4, done.stderr
    job = log.index("raypipe run --config my file.yaml")
    assert log[job + 1] == "token 600"
    token = log[job + 2]
    assert len(token) == 64
    assert sum(token in line for line in log) == 1  # in no command line
    assert log[job + 3] == "address node1:24711 mode token none"
    (head,) = (line for line in log[:job] if line.startswith("ray start --head"))
    (worker,) = (line for line in log[:job] if line.startswith("ray start --block"))
    assert f"--temp-dir={tmp_path}/node/raypipe-4711/ray" in head
    assert "--include-dashboard=false" in head
    assert "--address=node1:24711 --num-cpus=16" in worker
    assert log[:job].count("mode 700") == 2
    (step,) = (line for line in log if "--nodelist=node1" in line)
    assert step.startswith("srun --overlap --nodes=1 ")
    assert not list((tmp_path / "home").iterdir())  # the token is gone
    assert not (tmp_path / "node/raypipe-4711").exists()


def test_slurms_signal_reaches_the_job(tmp_path: Path) -> None:
    done, _ = _allocation(tmp_path, "term", "run", "--config", "my.yaml")
    assert done.returncode == 143, done.stderr
    assert not list((tmp_path / "home").iterdir())


def test_slurm_without_a_command_is_a_line(tmp_path: Path) -> None:
    done, log = _allocation(tmp_path, "0")
    assert (done.returncode, log) == (2, [])
    assert done.stderr.startswith("usage: sbatch ")


@pytest.mark.parametrize("ending", sorted({*FORMATS, ".safetensors"}))
def test_notes_in_the_working_directory_stay_at_home(tmp_path: Path, ending: str) -> None:
    """What `ray job submit --working-dir .` would send, as Ray itself packs it."""
    from ray._private.runtime_env.packaging import create_package

    (tmp_path / "here").mkdir()
    shutil.copy(REPOSITORY / ".rayignore", tmp_path / "here")
    kept = [f"notes{ending}", f"deep/in/export{ending}", "runs/small/report/report.html", ".git/config"]
    kept += ["ward/runs/first/report/report.html", "ward/runs/first/train/a/checkpoint/rows.arrow", ".venv/site.py"]
    kept += ["spans.json", "ward/letters/one.txt", "export.tsv", "looked.ipynb", "letter.html", "letter.docx"]
    kept += ["raypipe/runs/first/rows.json", ".env"]
    sent_too = {"jobs/pipeline.py", "my.yaml", "ward/raypipe.yaml", "raypipe/findings/page/head.html"}
    for name in (*kept, *sent_too):
        (tmp_path / "here" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "here" / name).write_text("Mario Rossi")
    create_package(str(tmp_path / "here"), tmp_path / "sent.zip", include_gitignore=False)
    with zipfile.ZipFile(tmp_path / "sent.zip") as sent:
        names = {name for name in sent.namelist() if not name.endswith("/")}
    assert names == sent_too
    package = [name for name in REPOSITORY.joinpath("raypipe").rglob("*") if name.is_file()]
    shutil.copytree(REPOSITORY / "raypipe", tmp_path / "here/raypipe", dirs_exist_ok=True)
    create_package(str(tmp_path / "here"), tmp_path / "whole.zip", include_gitignore=False)
    with zipfile.ZipFile(tmp_path / "whole.zip") as sent:
        missing = {str(path.relative_to(REPOSITORY)) for path in package} - {*sent.namelist()}
    assert {Path(name).suffix for name in missing} <= {".typed", ".pyc"}, "the package can be imported from there"


def test_the_image_has_both_flavours_and_no_root() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    instructions = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    assert {word for word, _ in instructions} <= {"FROM", "ARG", "ENV", "WORKDIR", "COPY", "RUN", "USER", "CMD"}
    assert instructions[0][0] == "FROM"
    assert [rest for word, rest in instructions if word == "USER"] == ["1000"]
    runs = [rest for word, rest in instructions if word == "RUN"]
    for command in runs:
        subprocess.run(["bash", "-n", "-c", command], check=True)
    assert all(f"{flavour})" in runs[0] for flavour in ("cuda", "cpu"))
    assert all("-c constraints.txt" in part for part in runs[0].split("pip install")[1:])
    ignored = (REPOSITORY / ".dockerignore").read_text().splitlines()
    sent = {line[1:] for line in ignored if line.startswith("!")}
    sources = {source for word, rest in instructions if word == "COPY" for source in rest.split()[:-1]}
    assert sources == sent
    assert all((REPOSITORY / source).exists() for source in sources)
    assert ignored[1] == "*"
    rayignored = (REPOSITORY / ".rayignore").read_text().splitlines()
    assert {f"**/{line}" for line in rayignored if line.startswith("*")} <= set(ignored)
