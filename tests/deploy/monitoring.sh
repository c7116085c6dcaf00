#!/usr/bin/env bash
# Holds the alert rules to their tests (promtool), and the rules and the dashboard to a real Prometheus that scrapes a real attachd
# under load. Usage: tests/deploy/monitoring.sh ATTACHD [RESULTS]; what the dashboard's queries return goes to RESULTS.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
attachd=$(realpath "$1")
# shellcheck source=tests/deploy/lib.sh
. tests/deploy/lib.sh
trap 'rm -rf "$work"' EXIT

need prometheus prometheus
need promtool prometheus
python_packages

"$python" - deploy/kubernetes/components/monitoring/rules.yaml "$work/attachd.rules.yaml" <<'PYTHON'
import sys, yaml
with open(sys.argv[1]) as rule, open(sys.argv[2], "w") as groups:
    yaml.safe_dump(yaml.safe_load(rule)["spec"], groups)
PYTHON
cp tests/deploy/rules.yaml "$work/"

why=""
promtool check rules "$work/attachd.rules.yaml" >"$work/out" 2>&1 || why=$(tr '\n' ' ' <"$work/out")
verdict "the rules are rules" "$why"
why=""
promtool test rules "$work/rules.yaml" >"$work/out" 2>&1 || why=$(tr '\n' ' ' <"$work/out")
verdict "each alert is raised when it should be, and not when it should not" "$why"

"$python" - "$work/attachd.rules.yaml" tests/deploy/rules.yaml >"$work/verdicts" <<'PYTHON' || verdict "the runbooks" "exit $?"
import pathlib, sys, yaml
groups, tests = (yaml.safe_load(open(path)) for path in sys.argv[1:])
raised = {t["alertname"] for test in tests["tests"] for t in test.get("alert_rule_test", []) if t["exp_alerts"]}
alerts = {rule["alert"]: rule for group in groups["groups"] for rule in group["rules"] if "alert" in rule}
for name, rule in alerts.items():
    runbook = f"docs/runbooks/{name.lower()}.md"
    why = []
    if name not in raised:
        why.append("no test raises it")
    if not rule["annotations"]["runbook_url"].endswith(f"/{runbook}"):
        why.append(f"its runbook_url does not end in {runbook}")
    if not pathlib.Path(runbook).is_file():
        why.append(f"{runbook} does not exist")
    print(f"FAIL {name}: {'; '.join(why)}" if why else f"ok {name} has a test and a runbook")
PYTHON
"$python" tests/deploy/monitoring.py "$attachd" "$(command -v prometheus)" "$work/attachd.rules.yaml" \
    deploy/dashboards/attachd.json "$work" ${2:+"$2"} >>"$work/verdicts" 2>"$work/err" ||
    verdict "the load and the queries" "exit $?: $(tail -n 3 "$work/err")"
"$python" tests/deploy/grafana.py deploy/dashboards/attachd.json >>"$work/verdicts" 2>"$work/err" ||
    verdict "the dashboard" "exit $?: $(tail -n 3 "$work/err")"
count <"$work/verdicts"
verdict "something was looked at" "$([ "$passed" -gt 30 ] || echo "only $passed")"

conclude
