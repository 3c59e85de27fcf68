"""Which programs a cluster runs, with which flags and files: a pure function of its options."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from .binaries import PAUSE_IMAGE, STAGE_FILE
from .machine import INSIDE_NAME, Link, cgroup_name
from .pki import NODE_ADDRESS

SERVICES = "10.96.0.0/16"
PODS = "10.244.0.0/24"
READY = "https://127.0.0.1:6443/readyz"
CONTAINERD = "/run/containerd/containerd.sock"
DNS_READY_PORT = 8181
STORAGE_CLASS = "standard"
VOLUMES = 64
FAKE_NODE = "kwok.x-k8s.io/node"
# Loopback addresses: what plays the process of such a pod listens there, on the machine or in the cluster.
FAKE_PODS = "127.64.0.1/16"


@dataclass(frozen=True)
class Component:
    """A program that the supervisor keeps running; it starts when `after` (a URL or a path) is there."""

    name: str
    argv: tuple[str, ...]
    after: str = ""


@dataclass(frozen=True)
class Plan:
    """All that the supervisor needs, and the options that led to it. Equal plans are equal clusters."""

    node: bool
    fake_nodes: int
    link_index: int
    link: str
    inside: str
    node_address: str
    authority: str
    private: tuple[str, ...]
    shown: dict[str, str]
    files: dict[str, str]
    components: tuple[Component, ...]

    def to_json(self) -> str:
        """As the supervisor reads it."""
        return json.dumps(asdict(self), indent=1)


def make(
    state: Path, binaries: Path, link: Link, *, node: bool, fake_nodes: int, manager: tuple[str, ...] = ()
) -> Plan:
    """The plan of the cluster whose state is there; `manager` are further flags of the controller manager."""
    pki = state / "pki"
    components = list(_control_plane(state, pki, binaries, manager))
    files = {"audit.yaml": AUDIT}
    if node:
        components += _node(state, pki, binaries)
        files |= _node_files(state, pki)
    if fake_nodes:
        components.append(_kwok(pki, binaries))
    return Plan(
        node=node,
        fake_nodes=fake_nodes,
        link_index=link.index,
        link=INSIDE_NAME,
        inside=f"{link.inside}/30",
        node_address=NODE_ADDRESS,
        authority=str(pki / "ca.crt"),
        private=("/run", "/var/lib/cni", "/var/lib/kubelet", "/var/log/pods", "/var/log/containers"),
        shown={
            "/proc/sys/vm/overcommit_memory": "1\n",
            "/proc/sys/vm/panic_on_oom": "0\n",
            "/proc/sys/kernel/panic": "10\n",
            "/proc/sys/kernel/panic_on_oops": "1\n",
            "/proc/sys/kernel/keys/root_maxkeys": "1000000\n",
            "/proc/sys/kernel/keys/root_maxbytes": "25000000\n",
        },
        files=files,
        components=tuple(components),
    )


# The audit log says who wrote what, how often; tests read it.
AUDIT = """apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
"""


def _control_plane(state: Path, pki: Path, binaries: Path, flags: tuple[str, ...]) -> tuple[Component, ...]:
    peer = "http://127.0.0.1:2380"
    client = "http://127.0.0.1:2379"
    etcd = Component(
        "etcd",
        (
            f"{binaries}/etcd",
            "--name=node0",
            f"--data-dir={state}/etcd",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=node0={peer}",
            # Safe against a kill of the process, not against a loss of power: this is no place for real data.
            "--unsafe-no-fsync",
            "--quota-backend-bytes=4294967296",
            "--log-level=warn",
        ),
    )
    api_server = Component(
        "kube-apiserver",
        (
            f"{binaries}/kube-apiserver",
            f"--etcd-servers={client}",
            "--bind-address=0.0.0.0",
            "--secure-port=6443",
            f"--advertise-address={NODE_ADDRESS}",  # a loopback address is refused
            f"--service-cluster-ip-range={SERVICES}",
            "--allow-privileged=true",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            f"--client-ca-file={pki}/ca.crt",
            f"--tls-cert-file={pki}/apiserver.crt",
            f"--tls-private-key-file={pki}/apiserver.key",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={pki}/sa.pub",
            f"--service-account-signing-key-file={pki}/sa.key",
            f"--kubelet-client-certificate={pki}/kubelet-client.crt",
            f"--kubelet-client-key={pki}/kubelet-client.key",
            f"--kubelet-certificate-authority={pki}/ca.crt",
            # Otherwise `kubectl logs` looks the node's name up and fails.
            "--kubelet-preferred-address-types=InternalIP",
            f"--audit-policy-file={state}/audit.yaml",
            f"--audit-log-path={state}/audit.log",
            "--audit-log-maxsize=2000",  # MB; it rotates at 100 otherwise, and a reader loses entries
            "--shutdown-delay-duration=0s",
            "--profiling=false",
        ),
    )

    def own(name: str) -> tuple[str, ...]:
        config = f"{pki}/{name}.conf"
        return (
            f"--kubeconfig={config}",
            f"--authentication-kubeconfig={config}",
            f"--authorization-kubeconfig={config}",
            "--bind-address=127.0.0.1",
            "--leader-elect=false",
            "--profiling=false",
        )

    manager = Component(
        "kube-controller-manager",
        (
            f"{binaries}/kube-controller-manager",
            *own("controller-manager"),
            f"--service-account-private-key-file={pki}/sa.key",
            f"--root-ca-file={pki}/ca.crt",
            f"--cluster-signing-cert-file={pki}/ca.crt",
            f"--cluster-signing-key-file={pki}/ca.key",
            "--use-service-account-credentials=true",
            f"--service-cluster-ip-range={SERVICES}",
            *flags,
        ),
        after=READY,
    )
    scheduler = Component(
        "kube-scheduler",
        # The default of 50 requests a second would be the speed of every bigger test.
        (f"{binaries}/kube-scheduler", *own("scheduler"), "--kube-api-qps=1000", "--kube-api-burst=2000"),
        after=READY,
    )
    return etcd, api_server, manager, scheduler


def _node(state: Path, pki: Path, binaries: Path) -> tuple[Component, ...]:
    return (
        Component("containerd", ("containerd", "--config", f"{state}/containerd.toml")),
        Component(
            "kubelet",
            (
                f"{binaries}/kubelet",
                f"--config={state}/kubelet.yaml",
                f"--kubeconfig={pki}/kubelet.conf",
                "--hostname-override=node1",
                f"--node-ip={NODE_ADDRESS}",
            ),
            # The pause image is imported before any pod starts (see local.py).
            after=f"{state}/images-ready",
        ),
        Component("kube-proxy", (f"{binaries}/kube-proxy", f"--config={state}/proxy.yaml"), after=READY),
        Component("coredns", (f"{binaries}/coredns", "-conf", f"{state}/Corefile"), after=READY),
    )


def _node_files(state: Path, pki: Path) -> dict[str, str]:
    network = {
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": False,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": PODS}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            }
        ],
    }
    return {
        "cni/10-pods.conflist": json.dumps(network),
        "containerd.toml": f"""version = 2
root = "{state}/containerd"
state = "/run/containerd"
[grpc]
  address = "{CONTAINERD}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  # Without it every sandbox fails on a machine that lacks CAP_SYS_RESOURCE.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{state}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
""",
        "resolv.conf": "",
        "kubelet.yaml": f"""apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupRoot: /{cgroup_name(state)}
containerRuntimeEndpoint: unix://{CONTAINERD}
oomScoreAdj: 0
failSwapOn: false
authentication:
  anonymous: {{enabled: false}}
  webhook: {{enabled: true}}
  x509: {{clientCAFile: {pki}/ca.crt}}
authorization: {{mode: Webhook}}
tlsCertFile: {pki}/kubelet.crt
tlsPrivateKeyFile: {pki}/kubelet.key
# It would delete imported images, which no registry has.
imageGCHighThresholdPercent: 100
imagePullCredentialsVerificationPolicy: NeverVerifyPreloadedImages
evictionHard: {{memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}}
resolvConf: {state}/resolv.conf
clusterDNS: [{NODE_ADDRESS}]
clusterDomain: cluster.local
""",
        "proxy.yaml": f"""apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
clusterCIDR: {PODS}
clientConnection: {{kubeconfig: {pki}/proxy.conf}}
hostnameOverride: node1
conntrack: {{maxPerCore: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}
""",
        "Corefile": f""".:53 {{
  bind {NODE_ADDRESS}
  ready 0.0.0.0:{DNS_READY_PORT}
  errors
  cache 5
  kubernetes cluster.local {{
    kubeconfig {pki}/dns.conf
  }}
}}
""",
    }


def _kwok(pki: Path, binaries: Path) -> Component:
    return Component(
        "kwok",
        (
            f"{binaries}/kwok",
            f"--kubeconfig={pki}/kwok.conf",
            "--manage-all-nodes=false",
            f"--manage-nodes-with-annotation-selector={FAKE_NODE}=fake",
            f"--config={binaries}/{STAGE_FILE}",
            "--node-lease-duration-seconds=40",
            f"--cidr={FAKE_PODS}",
        ),
        after=READY,
    )


def storage_class() -> dict[str, object]:
    """The default class; a volume is chosen when a pod needs it."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": STORAGE_CLASS,
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    }


def volume_names() -> list[str]:
    """Names of all volumes of the node."""
    return [f"local-{number:02d}" for number in range(VOLUMES)]


def volume(state: Path, name: str) -> dict[str, object]:
    """A folder of the machine as a volume of the kind `local`, which honours fsGroup (hostPath does not)."""
    on_node = {"key": "kubernetes.io/hostname", "operator": "In", "values": ["node1"]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "10Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": STORAGE_CLASS,
            "local": {"path": str(state / "volumes" / name)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [on_node]}]}},
        },
    }


def fake_node(number: int) -> dict[str, object]:
    """A node of kwok's: pods on it look as if they ran. They need a toleration of its taint."""
    name = f"fake-{number:03d}"
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {FAKE_NODE: "fake"},
            "labels": {"type": "fake", "kubernetes.io/hostname": name, "kubernetes.io/os": "linux"},
        },
        "spec": {"taints": [{"key": FAKE_NODE, "value": "fake", "effect": "NoSchedule"}]},
        "status": {
            "allocatable": {"cpu": "64", "memory": "256Gi", "pods": "500"},
            "capacity": {"cpu": "64", "memory": "256Gi", "pods": "500"},
        },
    }
