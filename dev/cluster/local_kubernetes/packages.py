"""Debian packages that a local cluster and the images need: installed when root, named otherwise."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence

from .basics import ClusterError, Progress, run

# A program that proves the package, and the package.
CONTROL_PLANE = {"unshare": "util-linux", "ip": "iproute2", "openssl": "openssl"}
NODE = {
    "containerd": "containerd",
    "runc": "runc",
    "/usr/lib/cni/ptp": "containernetworking-plugins",
    "iptables": "iptables",
    "conntrack": "conntrack",
}
IMAGES = {"buildah": "buildah", "debootstrap": "debootstrap"}

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def missing(*groups: dict[str, str]) -> list[str]:
    """Names of the packages whose program is not there."""
    search = os.pathsep.join([os.environ.get("PATH", ""), SYSTEM_PATH])
    wanted = {program: package for group in groups for program, package in group.items()}
    return sorted({package for program, package in wanted.items() if shutil.which(program, path=search) is None})


def ensure(progress: Progress, *groups: dict[str, str]) -> None:
    """Install what is missing; raises ClusterError PACKAGES_MISSING where that cannot be done."""
    names = missing(*groups)
    if not names:
        return
    command = f"apt-get install --yes --no-install-recommends {' '.join(names)}"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise ClusterError("PACKAGES_MISSING", f"Debian packages are missing; as root: {command}")
    progress.say(f"installing Debian packages: {' '.join(names)}")
    _install(names)
    if left := missing(*groups):
        raise ClusterError(
            "PACKAGES_MISSING", f"still missing after the installation: {', '.join(left)}; try: {command}"
        )


def _install(names: Sequence[str]) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *names]
    if run(install, check=False, environment=environment).returncode != 0:
        run(["apt-get", "update", "--quiet"], environment=environment)
        run(install, environment=environment)
