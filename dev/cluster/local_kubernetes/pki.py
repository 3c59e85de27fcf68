"""Certificates and kubeconfigs of one cluster, made with openssl."""

from __future__ import annotations

import base64
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from .basics import run

NODE_ADDRESS = "10.90.0.1"
SERVICE_ADDRESS = "10.96.0.1"


@dataclass(frozen=True)
class Identity:
    """Who a certificate speaks for; without `names` it only proves a client."""

    file: str
    subject: str
    names: str = ""


def identities(inside: str) -> tuple[Identity, ...]:
    """All certificates of a cluster that is reached from outside at the address `inside`."""
    server = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
    serving = [f"DNS:{name}" for name in server]
    serving += [f"IP:{address}" for address in ("127.0.0.1", SERVICE_ADDRESS, NODE_ADDRESS, inside)]
    return (
        Identity("apiserver", "/CN=kube-apiserver", ",".join(serving)),
        Identity("kubelet-client", "/O=system:masters/CN=apiserver-kubelet"),
        Identity("admin", "/O=system:masters/CN=admin"),
        Identity("controller-manager", "/CN=system:kube-controller-manager"),
        Identity("scheduler", "/CN=system:kube-scheduler"),
        Identity("proxy", "/CN=system:kube-proxy"),
        Identity("dns", "/O=system:masters/CN=coredns"),
        Identity("kwok", "/O=system:masters/CN=kwok"),
        Identity("kubelet", "/O=system:nodes/CN=system:node:node1", f"DNS:node1,IP:{NODE_ADDRESS},IP:127.0.0.1"),
    )


CLIENTS = ("admin", "controller-manager", "scheduler", "proxy", "dns", "kwok", "kubelet")


def write(folder: Path, inside: str) -> None:
    """Everything into `folder`. The authority and the key of service account tokens stay if they are there."""
    if not folder.is_dir():
        # In one step, so that a kill in between leaves no authority whose key is missing.
        fresh = folder.with_name(folder.name + ".new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700, parents=True)
        _authority(fresh)
        fresh.rename(folder)
    with ThreadPoolExecutor() as workers:
        list(workers.map(lambda identity: _certificate(folder, identity), identities(inside)))
    for name in CLIENTS:
        _private(folder / f"{name}.conf", kubeconfig(folder, name, "127.0.0.1", "local"))


def kubeconfig(folder: Path, client: str, address: str, context: str) -> str:
    """A kubeconfig that needs no other file."""

    def encoded(name: str) -> str:
        return base64.b64encode((folder / name).read_bytes()).decode()

    return f"""apiVersion: v1
kind: Config
clusters:
- name: {context}
  cluster:
    server: https://{address}:6443
    certificate-authority-data: {encoded("ca.crt")}
users:
- name: {context}
  user:
    client-certificate-data: {encoded(f"{client}.crt")}
    client-key-data: {encoded(f"{client}.key")}
contexts:
- name: {context}
  context: {{cluster: {context}, user: {context}}}
current-context: {context}
"""


def write_host_kubeconfig(folder: Path, path: Path, address: str, context: str) -> None:
    """The administrator's kubeconfig for use from outside, readable by its owner alone."""
    _private(path, kubeconfig(folder, "admin", address, context))


def _private(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    temporary.rename(path)


# openssl's own defaults would mark every certificate as an authority.
CONFIGURATION = "[req]\ndistinguished_name = subject\n[subject]\n"
NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "3650"]


def _authority(folder: Path) -> None:
    (folder / "openssl.cnf").write_text(CONFIGURATION)
    extensions = ["basicConstraints=critical,CA:true", "keyUsage=critical,keyCertSign,cRLSign,digitalSignature"]
    _request(folder, "ca", "/CN=kubernetes-ca", [*extensions, "subjectKeyIdentifier=hash"], [])
    run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", folder / "sa.key"])
    run(["openssl", "ec", "-in", folder / "sa.key", "-pubout", "-out", folder / "sa.pub"])


def _certificate(folder: Path, identity: Identity) -> None:
    extensions = ["basicConstraints=critical,CA:false", "keyUsage=critical,digitalSignature"]
    extensions.append(f"extendedKeyUsage={'serverAuth,' if identity.names else ''}clientAuth")
    if identity.names:
        extensions.append(f"subjectAltName={identity.names}")
    signer: list[str | Path] = ["-CA", folder / "ca.crt", "-CAkey", folder / "ca.key"]
    _request(folder, identity.file, identity.subject, extensions, signer)


def _request(folder: Path, name: str, subject: str, extensions: list[str], signer: list[str | Path]) -> None:
    added = [word for extension in extensions for word in ("-addext", extension)]
    output: list[str | Path] = ["-keyout", folder / f"{name}.key", "-out", folder / f"{name}.crt"]
    config = folder / "openssl.cnf"
    run(["openssl", "req", "-x509", "-config", config, "-subj", subject, *NEW_KEY, *added, *signer, *output])
