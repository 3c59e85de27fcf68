"""Scans the manifests of chart, bots and examples with helm lint, kubeconform, kube-score and checkov.

Red where a scanner finds what judged.toml has no reason for, or where a reason there has no finding any more.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "cluster"))

import findings as f
import matrix
import schemas
import tools
from local_kubernetes import binaries
from local_kubernetes.basics import Progress

from tradingbot_api import names

JUDGED: Final = Path(__file__).parent / "judged.toml"
CRDS: Final = matrix.ROOT / "crds"


class ScanError(Exception):
    """A scanner did not look at what it was given, or could not be understood."""


def helm_lint(tool: tools.Tools, _: list[Path]) -> list[f.Finding]:
    """What `helm lint --strict` says of the chart by each set of values."""
    found = []
    for case, values in matrix.VALUES.items():
        done = subprocess.run(
            [tool.helm, "lint", "--strict", "--quiet", "--values=-", matrix.CHART],
            input=json.dumps(values), capture_output=True, text=True, check=False,
        )  # fmt: skip
        lines = [line for line in done.stdout.splitlines() if line.startswith(("[WARNING]", "[ERROR]"))]
        if done.returncode and not lines:
            raise ScanError(f"helm lint, {case}: {done.stderr}{done.stdout}")
        found += [
            f.Finding("helm lint", line.split()[1].rstrip(":"), f"{case}/Chart/{matrix.CHART.name}", line)
            for line in lines
        ]
    return found


def kubeconform(tool: tools.Tools, files: list[Path]) -> list[f.Finding]:
    """Objects that do not have the API server's schema, or of which it has none."""
    with tempfile.TemporaryDirectory() as folder:
        count = _write_schemas(tool.openapi, files, Path(folder))
        location = folder + "/{{.Group}}_{{.ResourceAPIVersion}}_{{.ResourceKind}}.json"
        done = _run([
            tool.kubeconform, "-strict", "-verbose", "-output=json", f"-kubernetes-version={binaries.KUBERNETES}",
            f"-schema-location={location}", *files,
        ])  # fmt: skip
    resources = json.loads(done)["resources"]
    if len(resources) != count:
        raise ScanError(f"kubeconform: expected {count} objects, it looked at {len(resources)}")
    return [
        f.Finding(
            "kubeconform", "schema" if one["status"] == "statusInvalid" else "no-schema",
            f"{Path(one['filename']).stem}/{one['kind']}/{one['name']}", one["msg"],
        )
        for one in resources
        if one["status"] != "statusValid"
    ]  # fmt: skip


def _write_schemas(openapi: Path, files: list[Path], folder: Path) -> int:
    """A schema each kind that is known, under the name that kubeconform is told; the number of objects."""
    objects = [one for path in files for one in matrix.documents(path)]
    for version, kind in {(one["apiVersion"], one["kind"]) for one in objects}:
        group, _, bare = version.rpartition("/")
        if (published := schemas.file(openapi, version)).is_file():
            schema = schemas.of_published(json.loads(published.read_text(encoding="utf-8")), kind)
        elif group == names.GROUP:
            crds = (yaml.safe_load(file.read_text(encoding="utf-8")) for file in CRDS.glob("*.yaml"))
            schema = schemas.of_crd(next(crd for crd in crds if crd["spec"]["names"]["kind"] == kind), bare)
        else:
            continue
        name = f"{group or bare}_{bare}_{kind.lower()}.json"
        (folder / name).write_text(json.dumps(schema), encoding="utf-8")
    return len(objects)


def kube_score(tool: tools.Tools, files: list[Path]) -> list[f.Finding]:
    """What kube-score grades below its best, with all its optional checks."""
    found = []
    minor = ".".join(binaries.KUBERNETES.split(".")[:2])
    for path in files:
        done = _run([
            tool.kube_score, "score", "--output-format=json", "--all-default-optional",
            f"--kubernetes-version=v{minor}", path,
        ])  # fmt: skip
        scored = json.loads(done) or []
        if not scored and any(one["kind"] in {"Deployment", "Pod"} for one in matrix.documents(path)):
            raise ScanError(f"kube-score looked at nothing in {path.name}")
        for one in scored:
            where = f"{path.stem}/{one['type_meta']['kind']}/{one['object_meta']['name']}"
            for check in one["checks"]:
                if not check["skipped"] and check["grade"] < 10:
                    comments = "; ".join(f"{c['path']} {c['summary']}".strip() for c in check["comments"] or ())
                    found.append(f.Finding("kube-score", check["check"]["id"], where, comments))
    return found


def checkov(tool: tools.Tools, files: list[Path]) -> list[f.Finding]:
    """The checks of checkov for Kubernetes that fail."""
    told = json.loads(_run([
        tool.python_of_checkov, "-m", "checkov.main", "--framework=kubernetes", "--output=json", "--compact",
        "--quiet", "--skip-download", *(part for path in files for part in ("--file", path)),
    ]))  # fmt: skip
    summary = told["summary"]
    if summary["parsing_errors"] or not summary["passed"]:
        raise ScanError(f"checkov: expected passed checks and no parsing error, it says {summary}")
    return [
        f.Finding("checkov", one["check_id"], _of_checkov(one), one["check_name"])
        for one in told["results"]["failed_checks"]
    ]


def _of_checkov(check: dict[str, Any]) -> str:
    kind, _, name = check["resource"].split(".", 2)
    return f"{Path(check['file_path']).stem}/{kind}/{name}"


def _run(command: list[Any]) -> str:
    """The output of a scanner, which ends with 1 where it found something."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode > 1 or not done.stdout.strip():
        raise ScanError(f"{Path(command[0]).name} ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return done.stdout


SCANNERS: Final[dict[str, Callable[[tools.Tools, list[Path]], list[f.Finding]]]] = {
    "helm lint": helm_lint,
    "kubeconform": kubeconform,
    "kube-score": kube_score,
    "checkov": checkov,
}


def main() -> int:
    """Runs the scanners and prints what each found, by check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=SCANNERS, action="append", help="this scanner, and no other")
    only = parser.parse_args().only or list(SCANNERS)
    tool = tools.ensure(Progress.begin("scan"))
    judged = [one for one in f.parse(JUDGED.read_text(encoding="utf-8")) if one.scanner in only]
    found: set[f.Finding] = set()
    with tempfile.TemporaryDirectory() as folder:
        files = matrix.write(tool.helm, Path(folder))
        objects = sum(len(matrix.documents(path)) for path in files)
        print(f"{objects} objects in {len(files)} files\n\n{'scanner':<12} {'check':<52}  found  judged")
        for name in only:
            begun = time.monotonic()
            told = set(SCANNERS[name](tool, files))
            counts = Counter(one.check for one in told)
            right = Counter(one.check for one in told if any(reason.covers(one) for reason in judged))
            for check, count in sorted(counts.items()):
                print(f"{name:<12} {check:<52} {count:>6} {right[check]:>7}")
            print(
                f"{name:<12} {'in all':<52} {len(told):>6} {right.total():>7}   {time.monotonic() - begun:.1f} s",
                flush=True,
            )
            found |= told
    wrong = f.complaints(found, judged)
    for line in wrong:
        print(f"scan: {line}", file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
