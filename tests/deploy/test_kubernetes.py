"""deploy/kubernetes: what is rendered fits its schemas, the settings, the metrics and the service's own times."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from prometheus_client import CollectorRegistry

from deploy.reliability.certificates import Authority
from deploy.reliability.load_checks import OBJECTIVE_MS
from deploy.server_process import started
from service.client import Client
from service.metrics import Metrics
from service.rpc.convert import SERVICE
from service.settings import PREFIX, Settings

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "deploy" / "kubernetes"
PAGE = (ROOT / "docs" / "kubernetes.md").read_text("utf-8")
VERSIONS = ("1.30", "1.34")
"""The first in which a pod may sleep before it ends, and a later one."""
SPARE_S = 5
"""After the drain, for the process to end."""
KUBECTL = shutil.which("kubectl")
FOLDERS = ("base", "gpu", "example")
Manifest = dict[str, Any]


def documents(text: str) -> list[Manifest]:
    return [one for one in yaml.safe_load_all(text) if one]


@cache
def rendered(folder: str) -> dict[str, Manifest]:
    """By kind; there is one of each."""
    if KUBECTL is None:
        pytest.skip("kubectl is not installed: nothing renders the kustomizations")
    done = subprocess.run([KUBECTL, "kustomize", FOLDER / folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr.lower()
    found = documents(done.stdout)
    assert len({one["kind"] for one in found}) == len(found)
    return {one["kind"]: one for one in found}


@pytest.fixture(scope="module", params=FOLDERS)
def kinds(request: pytest.FixtureRequest) -> dict[str, Manifest]:
    return rendered(request.param)


@pytest.fixture(scope="module")
def base() -> dict[str, Manifest]:
    return rendered("base")


def pod(kinds: dict[str, Manifest]) -> Manifest:
    spec: Manifest = kinds["Deployment"]["spec"]["template"]["spec"]
    return spec


def container(kinds: dict[str, Manifest]) -> Manifest:
    (only,) = pod(kinds)["containers"]
    found: Manifest = only
    return found


def settings(kinds: dict[str, Manifest]) -> Settings:
    return Settings.build(kinds["ConfigMap"]["data"], {})


def check(manifest: Manifest, version: str) -> None:
    kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_rendered_fits_the_schemas(kinds: dict[str, Manifest], version: str) -> None:
    for kind, manifest in kinds.items():
        if kind != "ScaledObject":  # KEDA's own
            check(manifest, version)


@pytest.mark.parametrize("path", sorted((FOLDER / "base").glob("*.yaml")), ids=lambda path: path.stem)
def test_each_file_of_the_base_is_whole_by_itself(path: Path) -> None:
    for manifest in documents(path.read_text("utf-8")):
        if manifest["kind"] != "Kustomization":
            check(manifest, VERSIONS[0])


def test_the_check_refuses_a_key_that_nobody_knows() -> None:
    (manifest,) = documents((FOLDER / "base" / "disruption.yaml").read_text("utf-8"))
    manifest["spec"]["maxUnavailble"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        check(manifest, VERSIONS[0])


def test_every_setting_is_one_of_the_service(kinds: dict[str, Manifest]) -> None:
    assert all(name.startswith(PREFIX) for name in kinds["ConfigMap"]["data"])
    made = settings(kinds)
    ports = {port["name"]: port["containerPort"] for port in container(kinds)["ports"]}
    assert ports == {"grpc": made.port, "health": made.health_port, "metrics": made.metrics_port}
    assert (made.host, made.health_host, made.metrics_host) == ("0.0.0.0",) * 3
    assert container(kinds)["envFrom"] == [{"configMapRef": {"name": kinds["ConfigMap"]["metadata"]["name"]}}]
    assert pod(kinds)["enableServiceLinks"] is False


def test_a_change_of_settings_is_rolled_out(base: dict[str, Manifest]) -> None:
    assert base["ConfigMap"]["metadata"]["name"] != rendered("gpu")["ConfigMap"]["metadata"]["name"]


def test_the_times_of_ending_add_up(kinds: dict[str, Manifest]) -> None:
    made, asleep = settings(kinds), container(kinds)["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod(kinds)["terminationGracePeriodSeconds"] == asleep + made.lame_duck_s + made.drain_s + SPARE_S
    ready = container(kinds)["readinessProbe"]
    assert ready["periodSeconds"] * ready["failureThreshold"] <= asleep + made.lame_duck_s


def test_probes_ask_what_the_service_answers(base: dict[str, Manifest]) -> None:
    probes = {kind: container(base)[f"{kind}Probe"]["grpc"] for kind in ("startup", "readiness", "liveness")}
    assert probes["readiness"]["service"] == SERVICE
    flags = {"bundle": "digits", "host": "127.0.0.1", "health-host": "127.0.0.1", "metrics-host": "127.0.0.1"}
    flags |= {"port": "0", "metrics-port": "0", "health-port": "0", "lame-duck-s": "0", "log-level": "critical"}
    words = [word for name, value in flags.items() for word in (f"--{name}", value)]
    with started(
        [sys.executable, "-m", "service", "serve", *words],
        None,
        environment={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", **base["ConfigMap"]["data"]},
    ) as process:
        assert process.stdout is not None
        found = re.search(r"health=(\S+)", process.stdout.readline())
        assert found is not None
        with Client(found[1]) as client:
            assert all(client.is_serving(probe["service"]) for probe in probes.values())
    assert process.returncode == 0
    assert {probe["port"] for probe in probes.values()} == {settings(base).health_port}


def test_pods_have_no_rights(kinds: dict[str, Manifest]) -> None:
    for_all, own = pod(kinds)["securityContext"], container(kinds)["securityContext"]
    assert (for_all["runAsNonRoot"], for_all["runAsUser"]) == (True, 65532)
    assert for_all["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod(kinds)["automountServiceAccountToken"] is False
    writable = {mount["mountPath"] for mount in container(kinds)["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {"/tmp"}
    assert Path(settings(kinds).cache_dir).is_relative_to("/tmp")


def test_memory_holds_what_the_settings_allow(kinds: dict[str, Manifest]) -> None:
    made = settings(kinds)
    measured = json.loads((ROOT / "docs" / "results" / "footprint.json").read_text("utf-8"))["metrics"]
    resident = 1e6 * measured["gtsrb_resident_mb_under_load"]
    most = resident + made.queue_bytes * 4 / 3 + made.held_bytes + made.decode_bytes + 9 * made.max_image_pixels
    most += made.history_bytes
    limit = re.fullmatch(r"(\d+)(Mi|Gi)", container(kinds)["resources"]["limits"]["memory"])
    assert limit is not None
    assert most < int(limit[1]) * {"Mi": 2**20, "Gi": 2**30}[limit[2]]
    assert container(kinds)["resources"]["requests"] == container(kinds)["resources"]["limits"]


def test_selectors_find_the_pods(kinds: dict[str, Manifest]) -> None:
    labels = kinds["Deployment"]["spec"]["template"]["metadata"]["labels"]
    for selector in (
        kinds["Service"]["spec"]["selector"],
        *(kinds[kind]["spec"]["selector"]["matchLabels"] for kind in ("Deployment", "PodDisruptionBudget")),
        kinds["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        *(one["labelSelector"]["matchLabels"] for one in pod(kinds)["topologySpreadConstraints"]),
    ):
        assert selector.items() <= labels.items()
        assert selector
    assert kinds["Service"]["spec"]["clusterIP"] == "None"


def test_only_clients_and_prometheus_come_in_and_nothing_goes_out(kinds: dict[str, Manifest]) -> None:
    spec = kinds["NetworkPolicy"]["spec"]
    assert (set(spec["policyTypes"]), spec["egress"]) == ({"Ingress", "Egress"}, [])
    by_port = {rule["ports"][0]["port"]: rule["from"] for rule in spec["ingress"]}
    assert by_port == {
        "grpc": [{"podSelector": {"matchLabels": {"advsentry-client": "true"}}}],
        "metrics": [
            {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}},
                "podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus"}},
            }
        ],
    }


def test_one_pod_is_left_whatever_is_evicted(base: dict[str, Manifest]) -> None:
    assert (
        base["HorizontalPodAutoscaler"]["spec"]["minReplicas"] > base["PodDisruptionBudget"]["spec"]["maxUnavailable"]
    )
    assert "replicas" not in base["Deployment"]["spec"]


def known_metrics() -> set[str]:
    registry = CollectorRegistry()
    Metrics(registry)
    names = {family.name for family in registry.collect()}
    return names | {f"{name}_{end}" for name in names for end in ("bucket", "sum", "count", "total")}


def test_scaling_asks_for_metrics_that_exist(base: dict[str, Manifest]) -> None:
    (rules,) = documents((FOLDER / "adapter-rules.yaml").read_text("utf-8"))
    made = {rule["name"]["as"]: f"{rule['seriesQuery']} {rule['metricsQuery']}" for rule in rules["rules"]["custom"]}
    asked = {one["pods"]["metric"]["name"] for one in base["HorizontalPodAutoscaler"]["spec"]["metrics"]}
    assert asked == made.keys()
    queries = [one["metadata"]["query"] for one in rendered("example")["ScaledObject"]["spec"]["triggers"]]
    for query in (*made.values(), *queries):
        named = set(re.findall(r"\b(?:advsentry|grpc)_[a-z_]+", query))
        assert named
        assert named <= known_metrics()


def test_both_scalers_hold_a_quarter_of_the_objective(base: dict[str, Manifest]) -> None:
    (pods,) = [one["pods"] for one in base["HorizontalPodAutoscaler"]["spec"]["metrics"] if "seconds" in str(one)]
    keda = rendered("example")["ScaledObject"]["spec"]["triggers"][0]["metadata"]
    assert pods["target"]["averageValue"] == f"{float(keda['threshold']) * 1000:g}m"
    assert 0.2 < float(keda["threshold"]) * 1000 / OBJECTIVE_MS <= 0.25


def test_keda_takes_the_place_of_the_autoscaler() -> None:
    found = rendered("example")
    assert "HorizontalPodAutoscaler" not in found
    spec = found["ScaledObject"]["spec"]
    assert spec["scaleTargetRef"]["name"] == found["Deployment"]["metadata"]["name"]
    assert spec["minReplicaCount"] > found["PodDisruptionBudget"]["spec"]["maxUnavailable"]
    for trigger in spec["triggers"]:
        assert f'namespace="{found["Deployment"]["metadata"]["namespace"]}"' in trigger["metadata"]["query"]


def test_the_files_that_tls_and_bundle_name_are_mounted() -> None:
    found = rendered("example")
    made, mounts = settings(found), [mount["mountPath"] for mount in container(found)["volumeMounts"]]
    for path in (made.tls_cert, made.tls_key, made.identities, made.bundle):
        assert any(Path(path).is_relative_to(mount) for mount in mounts), path
    assert made.reflection is False


def test_the_pages_commands_make_the_secrets_that_are_mounted(tmp_path: Path) -> None:
    if KUBECTL is None:
        pytest.skip("kubectl is not installed: nothing runs the commands")
    Authority(tmp_path).sign("tls", names=("advsentry.default.svc",)).cert.rename(tmp_path / "tls.crt")
    (tmp_path / "identities.toml").write_text("")
    commands = re.findall(r"^    (kubectl create secret .*)$", PAGE, re.MULTILINE)
    made = {}
    for command in commands:
        words = [KUBECTL, *shlex.split(command)[1:], "--dry-run=client", "--output=yaml"]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        (secret,) = documents(done.stdout)
        made[secret["metadata"]["name"]] = set(secret["data"])
    found = rendered("example")
    mounts = {one["name"]: one["mountPath"] for one in container(found)["volumeMounts"]}
    secrets = {one["secret"]["secretName"]: mounts[one["name"]] for one in pod(found)["volumes"] if "secret" in one}
    assert made.keys() == secrets.keys()
    for file in (settings(found).tls_cert, settings(found).tls_key, settings(found).identities):
        assert any(file == f"{secrets[name]}/{key}" for name, keys in made.items() for key in keys), file


def test_the_history_has_a_redis_that_only_the_pods_reach(tmp_path: Path) -> None:
    if KUBECTL is None:
        pytest.skip("kubectl is not installed: nothing renders the kustomizations")
    shutil.copytree(FOLDER, tmp_path / "all")
    words = {"resources": ["../base"], "components": ["../components/history"]}
    (tmp_path / "all" / "own").mkdir()
    (tmp_path / "all" / "own" / "kustomization.yaml").write_text(yaml.safe_dump(words))
    done = subprocess.run([KUBECTL, "kustomize", tmp_path / "all" / "own"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = documents(done.stdout)
    for version in VERSIONS:
        for manifest in made:
            check(manifest, version)
    own = {one["kind"]: one for one in made if one["metadata"]["name"] == "advsentry-history"}
    ours = {one["kind"]: one for one in made if one["metadata"]["name"] != "advsentry-history"}
    settings_made = settings(ours)
    assert settings_made.history_url == f"redis://advsentry-history:{own['Service']['spec']['ports'][0]['port']}"
    mounts = {mount["mountPath"] for mount in container(ours)["volumeMounts"]}
    assert str(Path(settings_made.history_secret).parent) in mounts
    labels = own["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert own["Service"]["spec"]["selector"] == labels
    assert own["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels
    (comes_in,) = own["NetworkPolicy"]["spec"]["ingress"][0]["from"]
    assert comes_in["podSelector"]["matchLabels"] == ours["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"]
    goes_out = ours["NetworkPolicy"]["spec"]["egress"]
    assert goes_out[0]["to"] == [{"podSelector": {"matchLabels": labels}}]
    assert [port["port"] for port in goes_out[1]["ports"]] == [53, 53]
    assert len(goes_out) == 2
    (redis,) = pod(own)["containers"]
    assert redis["args"][:4] == ["--save", "", "--appendonly", "no"]
    assert redis["args"][redis["args"].index("--maxmemory-policy") + 1] == "noeviction"
    assert int(re.sub(r"\D", "", redis["args"][redis["args"].index("--maxmemory") + 1])) < 1024
    assert redis["securityContext"] == container(ours)["securityContext"]
    assert pod(own)["automountServiceAccountToken"] is False


def test_the_gpu_has_one_and_runs_on_it(base: dict[str, Manifest]) -> None:
    found = rendered("gpu")
    assert settings(found).device == "cuda"
    assert container(found)["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert found["Deployment"]["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    assert container(found)["image"].endswith("-gpu")
    assert container(base)["image"].endswith("-cpu")


def test_images_are_of_this_version(kinds: dict[str, Manifest]) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert re.search(rf"advsentry:{re.escape(version)}-(cpu|gpu)$", container(kinds)["image"])


def test_the_page_names_what_there_is() -> None:
    for name in re.findall(r"`(ADVSENTRY_[A-Z_]+)`", PAGE):
        assert name.removeprefix(PREFIX).lower() in Settings.__dataclass_fields__, name
    for path in re.findall(r"`(deploy/kubernetes/[\w./-]*)`", PAGE):
        assert (ROOT / path).exists(), path
    for name in yaml.safe_load((FOLDER / "example" / "kustomization.yaml").read_text("utf-8"))["components"]:
        assert f"`{Path(name).relative_to('..')}`" in PAGE
    set_here = {line.split("=")[0] for line in (FOLDER / "base" / "settings.env").read_text("utf-8").splitlines()}
    assert {name for name in set_here if name.startswith(PREFIX)} <= set(re.findall(r"`(ADVSENTRY_[A-Z_]+)`", PAGE))
    assert len(PAGE.splitlines()) <= 120
