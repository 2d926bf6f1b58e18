"""What is deployed is what the project says: files parse, name settings and commands that exist, and keep each promise's
conditions. Core kinds of Kubernetes are checked against its own schemas; of the operators' resources the fields that the
project relies on. No cluster and no container engine is needed, and none is asked.
"""

import re
import shlex
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer
import yaml

from deploy.cli.doctor import known_names
from deploy.cli.main import app
from deploy.kafka.plan import access, plan, service_acls, subscriber_acls
from deploy.prometheus.as_kubernetes import WRITTEN, written
from deploy.site import create
from deploy.state import BASE_PORT, SERVICES
from shared.bus.connection import BusSettings
from shared.contracts.events import TOPICS
from shared.settings import Settings

DEPLOY = Path(__file__).parents[2] / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())
CORE = {"v1", "apps/v1", "batch/v1", "policy/v1", "networking.k8s.io/v1"}


def resources() -> list[dict[str, Any]]:
    names = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["resources"]
    assert {file.name for file in KUBERNETES.glob("*.yaml")} == {*names, "kustomization.yaml"}
    return [document for name in names for document in yaml.safe_load_all((KUBERNETES / name).read_text())]


RESOURCES = resources()


def of(kind: str, name: str | None = None) -> list[dict[str, Any]]:
    return [r for r in RESOURCES if r["kind"] == kind and name in (None, r["metadata"]["name"])]


def accepts(arguments: list[str]) -> bool:
    """Whether the command takes these arguments, without doing it."""
    command: Any = typer.main.get_command(app)
    while hasattr(command, "get_command") and arguments:
        command, arguments = command.get_command(None, arguments[0]), arguments[1:]
    known = {name for parameter in command.params for name in parameter.opts}
    return {word for word in arguments if word.startswith("--")} <= known


# -- compose and image


def test_compose_starts_the_four_services_after_the_schema_and_the_bundle() -> None:
    services = COMPOSE["services"]
    for number, name in enumerate(SERVICES):
        service = services[name]
        port = BASE_PORT + number
        assert service["command"] == ["run", name, "--host", "0.0.0.0", "--port", str(port)]
        assert service["ports"] == [f"127.0.0.1:{port}:{port}"]
        assert service["depends_on"] == {"prepare": {"condition": "service_completed_successfully"}}
        assert accepts(service["command"])
    assert accepts(services["prepare"]["command"])
    assert services["prepare"]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
    assert services["migrate"]["command"] == ["migrate"]


def test_compose_names_settings_and_files_that_exist() -> None:
    assert set(COMPOSE["x-service"]["environment"]) <= known_names()
    for service in COMPOSE["services"].values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert source in COMPOSE["volumes"] or (DEPLOY / "compose" / source).exists(), volume
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), "nothing is open to the network"


def test_compose_scrapes_the_four() -> None:
    prometheus = yaml.safe_load((DEPLOY / "compose" / "prometheus.yaml").read_text())
    targets = prometheus["scrape_configs"][0]["static_configs"][0]["targets"]
    assert targets == [f"{name}:{BASE_PORT + number}" for number, name in enumerate(SERVICES)]


def test_the_image_copies_what_exists_and_runs_as_nobody() -> None:
    text = (DEPLOY / "Containerfile").read_text()
    copied = [word for line in re.findall(r"^COPY (?!--)(.*) \S+$", text, re.MULTILINE) for word in line.split()]
    assert copied
    assert all((DEPLOY.parent / name).exists() for name in copied)
    assert re.search(r"^USER 10001$", text, re.MULTILINE)
    assert 'ENTRYPOINT ["lienthong"]' in text
    assert "--require-hashes" in text


# -- systemd


def test_the_unit_runs_a_command_that_exists_within_the_promised_time() -> None:
    text = (DEPLOY / "systemd" / "lienthong.service").read_text()
    command = re.search(r"^ExecStart=\S+/lienthong (.*)$", text, re.MULTILINE)
    assert command
    assert accepts(shlex.split(command[1]))
    settings = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    assert int(settings["TimeoutStopSec"]) > 10  # a site stops within 10 s
    assert settings["KillMode"] == "mixed"  # the site ends its own children
    assert settings["NoNewPrivileges"] == "yes"
    assert settings["StateDirectoryMode"] == "0700"
    assert settings["Environment"].split("=")[0] in known_names()


# -- Kubernetes


@pytest.mark.parametrize(
    "resource", [r for r in RESOURCES if r["apiVersion"] in CORE], ids=lambda r: f"{r['kind']}-{r['metadata']['name']}"
)
def test_core_kinds_are_what_kubernetes_takes(resource: dict[str, Any]) -> None:
    kubernetes_validate.validate(resource, "1.34", strict=True)


def test_a_wrong_field_would_be_refused() -> None:
    wrong = {**of("Deployment", "intake")[0], "spec": {"replicaz": 2}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.34", strict=True)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_probes_a_budget_an_address_and_no_rights(name: str) -> None:
    deployment = of("Deployment", name)[0]["spec"]
    pod = deployment["template"]["spec"]
    container = pod["containers"][0]
    port = BASE_PORT + SERVICES.index(name)
    assert container["args"] == ["run", name, "--host", "0.0.0.0", "--port", str(port)]
    assert accepts(container["args"])
    probes = {kind: container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")}
    assert probes == {"startup": "/readyz", "readiness": "/readyz", "liveness": "/healthz"}
    assert deployment["replicas"] >= 2
    assert deployment["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert of("PodDisruptionBudget", name)[0]["spec"]["minAvailable"] == 1
    assert of("Service", name)[0]["spec"]["ports"][0]["port"] == port
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert {entry["name"] for entry in container["env"]} <= known_names()
    user = next(e["value"] for e in container["env"] if e["name"] == "LIENTHONG_BUS_USERNAME")
    assert user == access()[name]["user"]


def test_settings_exist_and_the_bus_is_never_in_clear() -> None:
    settings = of("ConfigMap")[0]["data"]
    assert set(settings) <= known_names()
    assert settings["LIENTHONG_BUS_SECURITY"] == "SASL_SSL"
    assert not [name for name in settings if "PASSWORD" in name]


def test_secrets_are_files_that_name_a_setting_each() -> None:
    pods = [r["spec"]["template"]["spec"] for kind in ("Deployment", "Job") for r in of(kind)]
    assert len(pods) == 5
    where = of("ConfigMap")[0]["data"]["LIENTHONG_SECRETS_DIR"]
    for pod in pods:
        [container] = pod["containers"]
        assert all("valueFrom" not in entry for entry in container.get("env", ()))
        assert {"name": "secrets", "mountPath": where, "readOnly": True} in container["volumeMounts"]
        [volume] = [volume for volume in pod["volumes"] if volume["name"] == "secrets"]
        files = [item["path"] for source in volume["projected"]["sources"] for item in source["secret"]["items"]]
        assert "lienthong_database_url" in files
        assert {file.upper() for file in files} <= known_names()


def test_a_secret_is_read_from_its_file_and_the_environment_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lienthong_bus_password").write_text("out of a file\n")
    (tmp_path / "lienthong_database_url").write_text("postgresql://file")
    monkeypatch.setenv("LIENTHONG_SECRETS_DIR", str(tmp_path))
    monkeypatch.setenv("LIENTHONG_DATABASE_URL", "postgresql://environment")
    settings = Settings()
    assert settings.bus().password == "out of a file"
    assert settings.database_url == "postgresql://environment"


def test_the_operators_resources_keep_the_promises() -> None:
    kafka = of("Kafka")[0]["spec"]["kafka"]
    assert of("KafkaNodePool")[0]["spec"]["replicas"] == 3
    assert kafka["config"]["min.insync.replicas"] == 2
    assert kafka["config"]["auto.create.topics.enable"] is False
    assert kafka["authorization"]["type"] == "simple"
    assert all(
        listener["tls"] and listener["authentication"]["type"] == "scram-sha-512" for listener in kafka["listeners"]
    )
    users = {user["metadata"]["name"] for user in of("KafkaUser")}
    assert users == {entry["user"] for entry in access().values()} | set(kafka["authorization"]["superUsers"])
    database = of("Cluster")[0]["spec"]
    assert database["instances"] >= 2
    # Promise 1 across a failover.
    assert database["postgresql"]["synchronous"] == {"method": "any", "number": 1, "dataDurability": "required"}
    assert of("PodMonitor")[0]["spec"]["podMetricsEndpoints"][0]["path"] == "/metrics"


def test_the_alerts_of_kubernetes_are_the_rules_that_are_tested() -> None:
    """And the job that they ask for is the one that the monitor gives its samples."""
    assert WRITTEN.read_text(encoding="utf-8") == written(), "make alerts"
    [rule] = of("PrometheusRule")
    rules = rule["spec"]["groups"][0]["rules"]
    assert len(rules) > 15
    assert all({"alert", "expr", "for", "labels", "annotations"} == set(each) for each in rules)
    [monitor] = of("PodMonitor")
    assert monitor["spec"]["selector"]["matchLabels"][monitor["spec"]["jobLabel"]] == "lienthong"


def test_nobody_reaches_anything_by_default() -> None:
    default = of("NetworkPolicy", "nothing-by-default")[0]["spec"]
    assert default == {"podSelector": {}, "policyTypes": ["Ingress"]}


# -- who reads what on the bus


@pytest.mark.parametrize("name", SERVICES)
def test_the_file_of_access_lists_what_each_service_applies(name: str, tmp_path: Path) -> None:
    service = create(name, {"site": "H55", "keys_dir": tmp_path})
    assert set(access()[name]["reads"]) == set(service.consumes)


# -- the bus


def test_the_plan_of_one_site_leaves_alone_what_another_has_on_the_same_bus() -> None:
    here, there = (BusSettings("127.0.0.1:9092", prefix=prefix) for prefix in ("province.", "commune."))
    made = {here.topic(name): here.partitions for name in TOPICS}
    both = service_acls(here) | service_acls(there) | subscriber_acls(there, "H55.17", ["lienthong.indicator.v1"])
    found = plan(here, [], made, {}, both)
    assert (found.create, found.allow, found.disallow) == ([], [], [])
    gone = subscriber_acls(here, "H55.17", ["lienthong.indicator.v1"])
    assert set(plan(here, [], made, {}, both | gone).disallow) == gone
