"""Holds built manifests to each other and to the program: what one names exists in the other.

It asks the program: `config show` under exactly the files and variables that a pod gets, `--help` for each flag, and (start.py) a
start as a pod starts it. Usage: agree.py ATTACHD VERSION SET... Prints `ok …` or `FAIL …` for each thing held."""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import tomllib

from manifest import Set, seconds, size

# How long one look at the storage may take when readiness is asked for, in seconds (src/store.rs, PROBE_TIMEOUT).
LOOK = 5
# What must be left of the termination grace after delay and grace, in seconds: the rest is cut off and answered in it.
SLACK = 5
# Memory beside the budget that docs/how-to/sizing.md tells to leave: the program itself and the buffers of connections.
BESIDE_BUDGET = 256 << 20
# Secrets that no set brings: made by cert-manager, or by the operator.
SECRETS = {"attachd-tls"}

attachd, version = sys.argv[1:3]
sets = [Set(pathlib.Path(path)) for path in sys.argv[3:]]


def verdict(name, problems):
    problems = list(problems)
    print(f"FAIL {name}: {'; '.join(problems)}" if problems else f"ok {name}")


def ask(arguments, variables=None):
    """Runs the program with these variables and no others of its own."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ATTACHD_")}
    return subprocess.run([attachd, *arguments], env=environment | (variables or {}), capture_output=True, text=True, timeout=60)


def show(pod, variables=None):
    """What `config show` says in the pod. The files lie elsewhere here, which the program is not to notice."""
    with tempfile.TemporaryDirectory() as folder:
        for path, text in pod.files():
            pathlib.Path(folder, path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
            pathlib.Path(folder, path.lstrip("/")).write_text(text)
        file = folder + pod.option("config")
        return ask(["config", "show", "--config", file], pod.environment() if variables is None else variables)


def matches(selector, labels):
    return selector.items() <= labels.items()


def references(of):
    """Names of resources, labels and ports that point at nothing."""
    for pod in of.pods():
        wanted = [("ServiceAccount", pod.spec["serviceAccountName"])]
        for volume in pod.spec.get("volumes", []):
            if "configMap" in volume:
                wanted.append(("ConfigMap", volume["configMap"]["name"]))
            if "persistentVolumeClaim" in volume:
                wanted.append(("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]))
            if "secret" in volume and volume["secret"]["secretName"] not in SECRETS:
                yield f"{pod.owner}: secret {volume['secret']['secretName']}"
        for source in pod.container.get("envFrom", []):
            if "configMapRef" in source:
                wanted.append(("ConfigMap", source["configMapRef"]["name"]))
            elif not source["secretRef"].get("optional"):
                yield f"{pod.owner}: needs the secret {source['secretRef']['name']}"
        for kind, name in wanted:
            try:
                of.get(kind, name)
            except LookupError as error:
                yield f"{pod.owner}: {error}"
    server = of.server()
    pods = list(of.pods())
    for service in of.all("Service"):
        if not matches(service["spec"]["selector"], server.labels):
            yield f"Service {service['metadata']['name']} selects no pod"
        for port in service["spec"]["ports"]:
            if port["targetPort"] not in server.ports():
                yield f"Service {service['metadata']['name']}: no port {port['targetPort']}"
    for policy in of.all("NetworkPolicy"):
        chosen = [pod for pod in pods if matches(policy["spec"]["podSelector"].get("matchLabels", {}), pod.labels)]
        if not chosen:
            yield f"NetworkPolicy {policy['metadata']['name']} selects no pod"
        for rule in policy["spec"].get("ingress", []):
            for port in rule["ports"]:
                if port["port"] not in server.ports():
                    yield f"NetworkPolicy {policy['metadata']['name']}: no port {port['port']}"
    for budget in of.all("PodDisruptionBudget"):
        if not matches(budget["spec"]["selector"]["matchLabels"], server.labels):
            yield "the disruption budget selects no pod"
    for scaler in of.all("HorizontalPodAutoscaler"):
        of.get("Deployment", scaler["spec"]["scaleTargetRef"]["name"])
    for constraint in server.spec["topologySpreadConstraints"]:
        if not matches(constraint["labelSelector"]["matchLabels"], server.labels):
            yield "a topology spread selects no pod"
    for monitor in of.all("ServiceMonitor"):
        found = [s for s in of.all("Service") if matches(monitor["spec"]["selector"]["matchLabels"], s["metadata"]["labels"])]
        names = {port["name"] for service in found for port in service["spec"]["ports"]}
        if len(found) != 1 or {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} - names:
            yield f"the ServiceMonitor finds {len(found)} services with the ports {names}"
    yield from routes(of)


def routes(of):
    """Backends of Ingress, HTTPRoute, GRPCRoute and of mesh and policies."""
    services = {service["metadata"]["name"]: service for service in of.all("Service")}

    def backend(owner, name, port):
        ports = services.get(name, {}).get("spec", {}).get("ports", [])
        if not any(port in (known["port"], known["name"]) for known in ports):
            yield f"{owner}: no port {port} of a service {name}"

    for route in of.all("HTTPRoute", "GRPCRoute"):
        for rule in route["spec"]["rules"]:
            for to in rule["backendRefs"]:
                yield from backend(route["metadata"]["name"], to["name"], to["port"])
    for ingress in of.all("Ingress"):
        for rule in ingress["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                to = path["backend"]["service"]
                yield from backend(ingress["metadata"]["name"], to["name"], to["port"].get("name") or to["port"]["number"])
    for service in of.all("VirtualService"):
        for rule in service["spec"]["http"]:
            for to in rule["route"]:
                destination = to["destination"]
                yield from backend("VirtualService", destination["host"], destination["port"]["number"])
    for policy in of.all("BackendTrafficPolicy", "BackendTLSPolicy"):
        for target in policy["spec"]["targetRefs"]:
            of.get(target["kind"], target["name"])


def configuration(pod):
    """The program takes the configuration of the pod whole."""
    shown = show(pod)
    if shown.returncode != 0:
        yield shown.stderr.strip()


def flags(pod):
    """Every argument that begins with `--` is one of the subcommand, and the image is of this version."""
    subcommand, *arguments = pod.container["args"]
    said = ask([subcommand, "--help"])
    if said.returncode != 0:
        yield f"there is no subcommand {subcommand}"
    for argument in arguments:
        if argument.startswith("--") and not re.search(rf"^ +(-\w, )?{argument}\b", said.stdout, re.MULTILINE):
            yield f"{subcommand} has no {argument}"
    if not pod.container["image"].endswith(f"attachd:{version}"):
        yield f"the image is {pod.container['image']}, the program is {version}"


def restricted(pod):
    """What the Pod Security level `restricted` forbids: a cluster that enforces it would not start the pod."""
    spec, container = pod.spec, pod.container
    context = spec.get("securityContext", {}) | container["securityContext"]
    wanted = {"runAsNonRoot": True, "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
              "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}}
    yield from (f"{key} is {context.get(key)}" for key, value in wanted.items() if context.get(key) != value)
    if not context.get("runAsUser"):
        yield "it runs as root"
    yield from (key for key in ("hostNetwork", "hostPID", "hostIPC", "initContainers") if spec.get(key))
    if any("hostPort" in port for port in container.get("ports", [])):
        yield "a port of the host"
    for volume in spec.get("volumes", []):
        if not volume.keys() <= {"name", "configMap", "emptyDir", "persistentVolumeClaim", "secret"}:
            yield f"the volume {volume['name']}"
    if spec.get("automountServiceAccountToken") is not False:
        yield "it has a token of the service account"


def figures(of):
    """Ports, times and sizes that the program has and the manifests repeat."""
    server = of.server()
    grace = server.spec["terminationGracePeriodSeconds"]
    probe = server.container["readinessProbe"]["timeoutSeconds"]
    if probe <= LOOK:
        yield f"readiness is given {probe} s, and one look at the storage may take {LOOK} s"
    if server.option("config") is None:
        for name, port in server.ports().items():
            if not server.option(name).endswith(f":{port}"):
                yield f"{name} listens on {server.option(name)}, not {port}"
        return
    config = tomllib.loads(show(server).stdout)
    if not config:
        yield "the program shows no configuration"
        return
    for name, port in server.ports().items():
        if not config[name]["listen"].endswith(f":{port}"):
            yield f"{name} listens on {config[name]['listen']}, not {port}"
    shutdown = seconds(config["shutdown"]["delay"]) + seconds(config["shutdown"]["grace"])
    if grace < shutdown + SLACK:
        yield f"the termination grace is {grace} s, delay and grace are {shutdown} s"
    memory = size(server.container["resources"]["limits"]["memory"])
    budget = size(config["limits"]["memory_budget"])
    if memory < budget + BESIDE_BUDGET:
        yield f"a memory limit of {memory / 2**20:.0f} MiB for a budget of {budget / 2**20:.0f} MiB"
    longest = seconds(config["limits"]["max_upload_time"])
    for pod in of.pods():
        if pod.option("grace") and seconds(pod.option("grace")) <= longest:
            yield f"{pod.owner}: the grace {pod.option('grace')} is not longer than an upload may take"
    # A sweep and the replicas must see the same storage.
    for pod in of.pods():
        if pod.environment() != server.environment() or dict(pod.files()) != dict(server.files()):
            yield f"{pod.owner} is configured otherwise than the server"
        data = [mount for mount in server.container["volumeMounts"] if mount["name"] == "data"]
        if [mount for mount in pod.container["volumeMounts"] if mount["name"] == "data"] != data:
            yield f"{pod.owner} has other volumes than the server"
    yield from proxies(of, config)


def proxies(of, config):
    """No proxy gives up before attachd does."""
    operation = seconds(config["storage"]["timeout"])
    for ingress in of.all("Ingress"):
        name, notes = ingress["metadata"]["name"], ingress["metadata"]["annotations"]
        note = {key.removeprefix("nginx.ingress.kubernetes.io/"): value for key, value in notes.items()}
        grpc = note["backend-protocol"].startswith("GRPC")
        # From the last byte on: the commit, whose operations have their time each, and the wait for its lock.
        if int(note["proxy-read-timeout"]) < 8 * operation:
            yield f"{name}: proxy-read-timeout is shorter than an answer may take"
        if note["proxy-body-size"] != "0" or (not grpc and note["proxy-request-buffering"] != "off"):
            yield f"{name}: nginx limits or holds back bodies"
        if note["proxy-next-upstream"] != "off":
            yield f"{name}: nginx repeats uploads"
    for route in of.all("HTTPRoute"):
        for rule in route["spec"]["rules"]:
            if rule["timeouts"] != {"request": "0s", "backendRequest": "0s"}:
                yield f"{route['metadata']['name']}: {rule['timeouts']}"
    for service in of.all("VirtualService"):
        for rule in service["spec"]["http"]:
            if rule["timeout"] != "0s" or rule["retries"] != {"attempts": 0}:
                yield f"{service['metadata']['name']} has a time-out or repeats"
    for policy in of.all("BackendTrafficPolicy"):
        if set(policy["spec"]["timeout"]["http"].values()) != {"0s"}:
            yield "Envoy has a time-out"


for one in sets:
    verdict(f"{one.name}: what it names is in it", references(one))
    for its in one.pods():
        if its.option("config"):
            verdict(f"{one.name}: {its.owner}: the program takes its configuration", configuration(its))
        verdict(f"{one.name}: {its.owner}: the program has its flags, and is of its version", flags(its))
        verdict(f"{one.name}: {its.owner}: it keeps the level restricted", restricted(its))
    verdict(f"{one.name}: ports, times and sizes are those of the program", figures(one))

# The method would see a wrong name: without this, a program that took everything would pass.
some = next(one.server() for one in sets if one.server().option("config"))
for key in ("ATTACHD_LIMITS__MEMORY_BUDGTE", "ATTACHD_STORGE__SERVICE"):
    refused = show(some, some.environment() | {key: "1"})
    verdict(f"the program refuses {key}", [] if refused.returncode == 2 and key in refused.stderr else [refused.stderr])
