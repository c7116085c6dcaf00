"""Holds manifests to Kubernetes' own JSON schemas, of the oldest and the newest version that the manifests are for, and Envoy
Gateway's resources to the schema beside this file. What it knows no schema of, and crds.mjs does not either, fails.
Usage: kubernetes.py FILE... Prints one line for each file and version."""

import pathlib
import sys

import jsonschema
import kubernetes_validate
import yaml

VERSIONS = ["1.30", "1.37"]
# crds.mjs looks at these.
ELSEWHERE = {
    "cert-manager.io",
    "gateway.networking.k8s.io",
    "monitoring.coreos.com",
    "networking.istio.io",
    "security.istio.io",
}


def problems(resource, version):
    group = resource["apiVersion"].split("/")[0]
    if group in ELSEWHERE:
        return
    name = f"{resource['kind']} {resource['metadata']['name']}"
    own = pathlib.Path(__file__).with_name(f"{group}.yaml")
    try:
        if own.exists():
            jsonschema.validate(resource, yaml.safe_load(own.read_text()))
        else:
            kubernetes_validate.validate(resource, version, strict=True)
    except jsonschema.ValidationError as error:
        yield f"{name}: {'.'.join(map(str, error.path))}: {error.message}"
    except kubernetes_validate.SchemaNotFoundError:
        yield f"{name}: no schema of {resource['apiVersion']}"


for file in map(pathlib.Path, sys.argv[1:]):
    resources = [resource for resource in yaml.safe_load_all(file.read_text()) if resource]
    for version in VERSIONS:
        found = [problem for resource in resources for problem in problems(resource, version)]
        if not resources:
            found = ["it is empty"]
        outcome = f"FAIL {file.stem}: {'; '.join(found)}" if found else f"ok {file.stem} is of the schemas of {version}"
        print(outcome)
