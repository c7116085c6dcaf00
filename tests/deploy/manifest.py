"""Reads a built set of manifests: its resources, and of each pod what the program in it would be told."""

import dataclasses
import re

import yaml

UNITS = {"": 1, "B": 1, "k": 1000, "m": 0.001}
UNITS |= {f"{p}{b}": n ** (i + 1) for i, p in enumerate("KMGTP") for b, n in (("", 1000), ("B", 1000), ("i", 1024), ("iB", 1024))}
SECONDS = {"ms": 0.001, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "hour": 3600, "day": 86400, "d": 86400}


def size(text):
    """Bytes, of `512Mi` or `256.0 MiB`."""
    number, unit = re.fullmatch(r"([0-9.]+) *([a-zA-Z]*)", str(text)).groups()
    return float(number) * UNITS[unit]


def seconds(text):
    """Of `1h 30m`."""
    parts = re.findall(r"([0-9.]+) *([a-z]+)", str(text))
    return sum(float(number) * SECONDS[unit.removesuffix("s") if len(unit) > 2 else unit] for number, unit in parts)


@dataclasses.dataclass
class Pod:
    """A pod template, and the one container in it."""

    owner: str
    template: dict
    set: "Set"

    @property
    def spec(self):
        return self.template["spec"]

    @property
    def container(self):
        (container,) = self.spec["containers"]
        return container

    @property
    def labels(self):
        return self.template["metadata"].get("labels", {})

    def ports(self):
        return {port["name"]: port["containerPort"] for port in self.container.get("ports", [])}

    def environment(self):
        """The variables, but for those of secrets, which are not in a set."""
        variables = {}
        for source in self.container.get("envFrom", []):
            if "configMapRef" in source:
                variables |= self.set.get("ConfigMap", source["configMapRef"]["name"])["data"]
        variables |= {variable["name"]: variable["value"] for variable in self.container.get("env", [])}
        return variables

    def files(self):
        """The mounted files that a set brings: path to text."""
        volumes = {volume["name"]: volume for volume in self.spec.get("volumes", [])}
        for mount in self.container.get("volumeMounts", []):
            volume = volumes[mount["name"]]
            if "configMap" in volume:
                for name, text in self.set.get("ConfigMap", volume["configMap"]["name"])["data"].items():
                    yield f"{mount['mountPath']}/{name}", text

    def option(self, name):
        """The argument after `--name`."""
        arguments = self.container["args"]
        return arguments[arguments.index(f"--{name}") + 1] if f"--{name}" in arguments else None


class Set:
    """A built set."""

    def __init__(self, path):
        self.name = path.stem
        self.resources = [resource for resource in yaml.safe_load_all(path.read_text()) if resource]

    def all(self, *kinds):
        return [resource for resource in self.resources if resource["kind"] in kinds]

    def get(self, kind, name):
        found = [resource for resource in self.all(kind) if resource["metadata"]["name"] == name]
        if len(found) != 1:
            raise LookupError(f"{kind} {name} is there {len(found)} times")
        return found[0]

    def pods(self):
        for resource in self.all("Deployment"):
            yield Pod(f"Deployment {resource['metadata']['name']}", resource["spec"]["template"], self)
        for resource in self.all("CronJob"):
            template = resource["spec"]["jobTemplate"]["spec"]["template"]
            yield Pod(f"CronJob {resource['metadata']['name']}", template, self)

    def server(self):
        (pod,) = [pod for pod in self.pods() if pod.owner.startswith("Deployment")]
        return pod
