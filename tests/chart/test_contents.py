"""What the chart renders is what the project means: rights, confinement and definitions equal to deploy/, no more."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

import basekeeper
from basekeeper.cli.app import app
from basekeeper.resources.generated import policy_spec
from lab.control_plane_programs import tool
from lab.nova_tree import NovaTree
from tests.chart.helm import CHART, DEPLOY, NAMESPACE, ROOT, Object, objects, of_kind, one, rendered, template

ROOT_VALUES = CHART / "ci/root-values.yaml"
EVERYTHING = CHART / "ci/everything-values.yaml"
TEMPORARY = "/tmp"  # noqa: S108 (a volume of the pod's own)
SMALL = CHART / "ci/small-values.yaml"
RBAC = ("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")


def pod_of(found: tuple[Object, ...], component: str) -> Object:
    """The pod template of a program."""
    kind = {"agent": "DaemonSet", "controller": "Deployment"}[component]
    template: Object = one(found, kind, f"basekeeper-{component}")["spec"]["template"]
    return template


def container_of(found: tuple[Object, ...], component: str) -> Object:
    """The one container of a program."""
    (container,) = pod_of(found, component)["spec"]["containers"]
    assert isinstance(container, dict)
    return container


def deployed(*names: str) -> list[Object]:
    """The objects of files under deploy/."""
    return [item for name in names for item in objects((DEPLOY / name).read_text(encoding="utf-8"))]


def without_labels(item: Object) -> Object:
    """An object without what Helm and the chart put into its metadata."""
    metadata = {key: item["metadata"][key] for key in ("name", "namespace") if key in item["metadata"]}
    return {**item, "metadata": metadata}


def is_test(item: Object) -> bool:
    """Whether it belongs to `helm test`."""
    return bool(item["metadata"].get("annotations", {}).get("helm.sh/hook") == "test")


# --- equal to deploy/ ----------------------------------------------------------------------------------------------


def test_accounts_and_rights_are_those_of_deploy_rbac_and_no_others() -> None:
    wanted = deployed("rbac/agent.yaml", "rbac/controller.yaml", "rbac/people.yaml")
    made = [item for item in of_kind(rendered("helm4"), *RBAC) if not is_test(item)]
    for item in made:
        # No pod gets a token by having the account; those that need one say so.
        shown = {key: value for key, value in without_labels(item).items() if key != "automountServiceAccountToken"}
        assert shown in [without_labels(other) for other in wanted], shown
    assert len(made) == len(wanted)
    labels = {item["metadata"]["name"]: item["metadata"]["labels"] for item in made}
    for item in wanted:
        assert item["metadata"]["labels"].items() <= labels[item["metadata"]["name"]].items()


def test_the_admission_policies_are_those_of_deploy_admission() -> None:
    kinds = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
    wanted = deployed("admission/nodeimagecaches.yaml", "admission/imagecachepolicies.yaml")
    made = of_kind(rendered("helm4"), *kinds)
    assert sorted(map(repr, map(without_labels, made))) == sorted(map(repr, map(without_labels, wanted)))


def test_the_admission_policy_names_the_namespace_and_the_account_that_are_rendered() -> None:
    found = rendered("helm4", SMALL, "other", "elsewhere")
    policy = one(found, "ValidatingAdmissionPolicy", "nodeimagecaches.basekeeper.io")
    expressions = [item["expression"] for item in policy["spec"]["matchConditions"]]
    assert expressions == [
        "request.userInfo.username.startsWith('system:serviceaccount:elsewhere:')",
        "request.userInfo.username != 'system:serviceaccount:elsewhere:centre'",
    ]


@pytest.mark.parametrize("keep", [True, False])
def test_the_definitions_are_those_of_deploy_crds_and_stay_unless_told_otherwise(keep: bool) -> None:
    done = template("helm4", extra={"crds": {"keep": keep}})
    made = of_kind(tuple(objects(done.stdout)), "CustomResourceDefinition")
    wanted = deployed(*(f"crds/{file.name}" for file in sorted((DEPLOY / "crds").glob("*"))))
    assert [without_labels(item) for item in made] == [without_labels(item) for item in wanted]
    for item in made:
        told = item["metadata"].get("annotations", {})
        assert told == ({"helm.sh/resource-policy": "keep"} if keep else {})


def test_the_charts_files_are_those_of_deploy() -> None:
    """Helm reads no file outside the chart; `make generate` copies them."""
    patterns = ("admission/*.yaml", "alerts/*.yaml", "crds/*.yaml", "dashboards/*.json")
    wanted = {str(file.relative_to(DEPLOY)): file.read_bytes() for part in patterns for file in DEPLOY.glob(part)}
    files = CHART / "files"
    assert {str(file.relative_to(files)): file.read_bytes() for file in files.glob("*/*")} == wanted


def test_the_schema_of_the_first_policy_is_the_resources_own() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    assert schema["properties"]["policy"]["properties"]["spec"] == policy_spec()


def test_the_readme_is_made_from_the_values(tmp_path: Path) -> None:
    shutil.copytree(CHART, tmp_path / "basekeeper")
    words = ["--chart-search-root", str(tmp_path), "--sort-values-order", "file", "--log-level", "warning"]
    subprocess.run([str(tool("helm-docs") / "helm-docs"), *words], check=True, capture_output=True)
    made = (tmp_path / "basekeeper/README.md").read_text(encoding="utf-8")
    assert (CHART / "README.md").read_text(encoding="utf-8") == made, "run `make generate`"


def test_every_value_is_described() -> None:
    table = (CHART / "README.md").read_text(encoding="utf-8").partition("## Values")[2]
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| ") and "`" in line]
    assert len(rows) > 60
    assert [row[0] for row in rows if row[-1].strip(" |") == ""] == []


def test_the_charts_version_is_the_programs() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert chart["appVersion"] == basekeeper.__version__
    assert chart["kubeVersion"] == ">=1.30.0-0"


# --- the pods ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("component", ["agent", "controller"])
def test_a_program_runs_without_privileges(component: str, values: Path | None) -> None:
    found = rendered("helm4", values)
    pod, container = pod_of(found, component)["spec"], container_of(found, component)
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers", "shareProcessNamespace"} & set(pod)
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    context = container["securityContext"]
    assert context["allowPrivilegeEscalation"] is False
    assert context["readOnlyRootFilesystem"] is True
    assert context["capabilities"]["drop"] == ["ALL"]
    if component == "agent" and values == ROOT_VALUES:
        assert context["capabilities"]["add"] == ["CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER"]
        assert (context["runAsNonRoot"], context["runAsUser"], context["runAsGroup"]) == (False, 0, 0)
    else:
        assert "add" not in context["capabilities"]
        assert (context["runAsNonRoot"], context["runAsUser"], context["runAsGroup"]) == (True, 42424, 42424)


def test_what_only_asks_the_api_server_would_run_in_a_restricted_namespace() -> None:
    """The Pod Security level `restricted`; only agents need more, for their host directories."""
    found = rendered("helm4")
    pods = [pod_of(found, "controller"), *of_kind(found, "Pod")]
    assert len(pods) == 3
    for pod in pods:
        assert "volumes" not in pod["spec"]
        (container,) = pod["spec"]["containers"]
        assert container["securityContext"]["runAsNonRoot"] is True


def test_an_agent_sees_novas_directory_with_later_mounts_and_libvirts_directory_read_only() -> None:
    found = rendered("helm4")
    mounts = {item["mountPath"]: item for item in container_of(found, "agent")["volumeMounts"]}
    assert set(mounts) == {"/var/lib/nova", "/run/libvirt", TEMPORARY}
    assert mounts["/var/lib/nova"]["mountPropagation"] == "HostToContainer"
    assert "readOnly" not in mounts["/var/lib/nova"]
    assert mounts["/run/libvirt"]["readOnly"] is True
    volumes = {item["name"]: item.get("hostPath") for item in pod_of(found, "agent")["spec"]["volumes"]}
    assert volumes == {
        "nova": {"path": "/var/lib/nova", "type": "Directory"},
        "libvirt": {"path": "/run/libvirt", "type": "Directory"},
        "temporary": None,
    }


def test_a_ledger_elsewhere_is_a_directory_of_the_host_that_only_root_has_made() -> None:
    for values, kind in ((SMALL, "Directory"), (ROOT_VALUES, "DirectoryOrCreate")):
        volumes = {
            item["name"]: item.get("hostPath") for item in pod_of(rendered("helm4", values), "agent")["spec"]["volumes"]
        }
        assert volumes["state"]["type"] == kind


def test_hosts_without_a_hypervisor_mount_no_socket() -> None:
    mounts = {item["name"] for item in container_of(rendered("helm4", SMALL), "agent")["volumeMounts"]}
    assert "libvirt" not in mounts


def test_extra_directories_are_mounted_where_they_are_on_the_host() -> None:
    mounts = {item["mountPath"]: item for item in container_of(rendered("helm4", EVERYTHING), "agent")["volumeMounts"]}
    assert "readOnly" not in mounts["/srv/fast"]
    assert mounts["/srv/volumes"]["readOnly"] is True
    assert mounts["/srv/volumes"]["mountPropagation"] == "HostToContainer"


def command(name: str) -> Any:
    """A command of the program, as its command line knows it."""
    return get_command(app).commands[name]  # type: ignore[attr-defined]


@pytest.mark.parametrize("component", ["agent", "controller"])
def test_a_program_is_given_options_that_it_has(component: str, values: Path | None) -> None:
    called, *options = container_of(rendered("helm4", values), component)["args"]
    assert called == component
    known = {name for option in command(component).params for name in option.opts}
    assert {option.partition("=")[0] for option in options} <= known


def test_what_says_where_things_are_is_seen_by_kubectl_exec_too(values: Path | None) -> None:
    """By variables, which a command that is run in the pod inherits; every one is some option's."""
    given = {item["name"] for item in container_of(rendered("helm4", values), "agent")["env"]}
    ours = {name for name in given if name.startswith("BASEKEEPER_")}
    for name in ("agent", "plan", "run", "explain"):
        known = {option.envvar for option in command(name).params}
        assert ours <= known, name
    assert {"BASEKEEPER_INSTANCES_PATH", "BASEKEEPER_STATE_DIR", "BASEKEEPER_LIBVIRT", "BASEKEEPER_NOVA_HOST"} <= ours


def test_a_command_that_is_run_in_a_pod_looks_where_the_pods_variables_say_and_names_the_node(tmp_path: Path) -> None:
    tree = NovaTree(tmp_path / "nova/instances", base_name="cache")
    base = tree.add_base("image")
    given = {item["name"]: item.get("value", "") for item in container_of(rendered("helm4"), "agent")["env"]}
    environment = given | {
        "BASEKEEPER_INSTANCES_PATH": str(tree.instances_path),
        "BASEKEEPER_BASE_DIR": str(base.parent),
        "BASEKEEPER_STATE_DIR": str(tmp_path / "state"),
        "BASEKEEPER_LIBVIRT": "none",
        "NODE_NAME": "compute-7",
        "BASEKEEPER_SNAPSHOTS_DIR": "",  # as a template leaves it that found nothing to say
        "PYTHONPATH": str(ROOT / "operator"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "basekeeper", "plan", "-o", "json"], env=environment, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert [row["name"] for row in document["files"]] == [base.name]
    assert document["node"] == "compute-7"


def test_nova_knows_a_host_by_its_nodes_name_not_by_the_pods() -> None:
    environment = container_of(rendered("helm4"), "agent")["env"]
    told = {item["name"]: item for item in environment}
    assert told["NODE_NAME"]["valueFrom"] == {"fieldRef": {"fieldPath": "spec.nodeName"}}
    assert told["BASEKEEPER_NOVA_HOST"]["value"] == "$(NODE_NAME)"
    names = [item["name"] for item in environment]
    assert names.index("NODE_NAME") < names.index("BASEKEEPER_NOVA_HOST"), "Kubernetes knows variables above only"


def test_nova_conf_is_mounted_read_only_where_it_is_given_and_only_there() -> None:
    assert not [item for item in container_of(rendered("helm4"), "agent")["env"] if "NOVA_CONF" in item["name"]]
    found = rendered("helm4", ROOT / "deploy/helm/basekeeper/ci/everything-values.yaml")
    agent = container_of(found, "agent")
    told = {item["name"]: item.get("value") for item in agent["env"]}
    (mount,) = [item for item in agent["volumeMounts"] if item["name"] == "nova-conf"]
    assert told["BASEKEEPER_NOVA_CONF"] == f"{mount['mountPath']}/nova.conf"
    assert mount["readOnly"] is True


def test_the_controller_finds_the_agents_by_the_labels_that_they_have(values: Path | None) -> None:
    found = rendered("helm4", values, "other")
    (deployment,) = of_kind(found, "Deployment")
    (daemonset,) = of_kind(found, "DaemonSet")
    (option,) = [
        word
        for word in deployment["spec"]["template"]["spec"]["containers"][0]["args"]
        if word.startswith("--agent-selector=")
    ]
    wanted = dict(pair.split("=") for pair in option.partition("=")[2].split(","))
    assert wanted.items() <= daemonset["spec"]["template"]["metadata"]["labels"].items()
    for other in (deployment["spec"]["template"], *of_kind(found, "Pod")):
        assert not wanted.items() <= other["metadata"]["labels"].items()


def test_a_new_chart_that_changes_nothing_of_a_pod_restarts_none() -> None:
    for component in ("agent", "controller"):
        labels = pod_of(rendered("helm4"), component)["metadata"]["labels"]
        assert not {"helm.sh/chart", "app.kubernetes.io/version"} & set(labels)


def test_a_pods_own_annotations_win_over_the_charts() -> None:
    annotations = pod_of(rendered("helm4", EVERYTHING), "agent")["metadata"]["annotations"]
    assert annotations["prometheus.io/scrape"] == "false"


def test_pods_say_where_their_metrics_are() -> None:
    for component, port in (("agent", 9478), ("controller", 9479)):
        found = rendered("helm4")
        annotations = pod_of(found, component)["metadata"]["annotations"]
        assert annotations["prometheus.io/scrape"] == "true"
        assert annotations["prometheus.io/port"] == str(port)
        container = container_of(found, component)
        assert container["ports"] == [{"name": "metrics", "containerPort": port}]
        assert f"--listen=:{port}" in container["args"]


def test_the_fleet_is_replaced_a_tenth_at_a_time_and_the_controller_never_doubled() -> None:
    found = rendered("helm4")
    (daemonset,), (deployment,) = of_kind(found, "DaemonSet"), of_kind(found, "Deployment")
    assert daemonset["spec"]["updateStrategy"]["rollingUpdate"] == {"maxUnavailable": "10%"}
    assert (deployment["spec"]["replicas"], deployment["spec"]["strategy"]) == (1, {"type": "Recreate"})


# --- behind switches -----------------------------------------------------------------------------------------------


def test_network_policies_let_agents_out_to_the_api_server_and_dns_and_scrapers_in() -> None:
    found = rendered("helm4", EVERYTHING)
    policy = one(found, "NetworkPolicy", "basekeeper-agent")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["ingress"] == [
        {
            "ports": [{"protocol": "TCP", "port": 9478}],
            "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
        }
    ]
    assert policy["egress"] == [
        {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]},
        {"ports": [{"protocol": "TCP", "port": 6443}], "to": [{"ipBlock": {"cidr": "192.0.2.10/32"}}]},
    ]
    assert "ingress" not in one(found, "NetworkPolicy", "basekeeper-test")["spec"]
    assert of_kind(rendered("helm4"), "NetworkPolicy") == []


def test_the_budget_that_some_clusters_demand_never_blocks_a_drain() -> None:
    (budget,) = of_kind(rendered("helm4", EVERYTHING), "PodDisruptionBudget")
    assert budget["spec"]["maxUnavailable"] == 1
    assert of_kind(rendered("helm4"), "PodDisruptionBudget") == []


def test_dashboards_are_config_maps_that_a_sidecar_finds() -> None:
    found = of_kind(rendered("helm4", EVERYTHING), "ConfigMap")
    files = {f"basekeeper-{file.name}": file for file in (DEPLOY / "dashboards").glob("*.json")}
    held = {name: json.loads(text) for item in found for name, text in item["data"].items()}
    assert held == {name: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items()}
    for item in found:
        assert item["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert item["metadata"]["annotations"] == {"grafana_folder": "OpenStack"}


def test_alerts_are_those_of_deploy_with_runbooks_where_a_cloud_has_them() -> None:
    found = of_kind(rendered("helm4", EVERYTHING), "PrometheusRule")
    files = sorted((DEPLOY / "alerts").glob("*.yaml"))
    wanted = [
        yaml.safe_load(
            file.read_text(encoding="utf-8").replace("https://basekeeper.io/docs/runbooks/",
                                                     "https://runbooks.example.org/basekeeper/runbooks/")
        )
        for file in files
    ]  # fmt: skip
    assert [item["spec"] for item in found] == wanted


def test_a_first_policy_is_a_hook_that_is_made_after_its_definition() -> None:
    policy = one(rendered("helm4", EVERYTHING), "ImageCachePolicy", "all")
    assert policy["metadata"]["annotations"] == {"helm.sh/hook": "post-install,post-upgrade"}
    assert policy["spec"]["limits"] == {"maxFiles": 50, "maxBytes": "100Gi"}


def test_helm_tests_pods_use_the_agents_account_on_the_agents_nodes_to_show_what_it_may_not() -> None:
    found = rendered("helm4", CHART / "values_overrides/openstack-helm.yaml")
    pod = one(found, "Pod", "basekeeper-test-isolation")["spec"]
    agent = pod_of(found, "agent")["spec"]
    for part in ("serviceAccountName", "nodeSelector", "tolerations"):
        assert pod[part] == agent[part]
    assert pod["containers"][0]["args"] == ["check-cluster", "isolation", "--within=3m"]
    assert pod["containers"][0]["image"] == agent["containers"][0]["image"]


def test_helm_tests_other_pod_may_read_pods_here_and_nodes_objects_and_nothing_else() -> None:
    found = [item for item in rendered("helm4") if is_test(item)]
    rules = [rule for item in found if item["kind"] in ("Role", "ClusterRole") for rule in item["rules"]]
    wanted = [
        {"apiGroups": ["basekeeper.io"], "resources": ["nodeimagecaches"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
    ]
    assert sorted(map(repr, rules)) == sorted(map(repr, wanted))
    assert {item["metadata"].get("namespace", NAMESPACE) for item in found} == {NAMESPACE}
