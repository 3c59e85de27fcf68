"""What a kubelet does to pods, on a real cluster: trouble is a condition with a reason, and a mended spec heals it."""

from __future__ import annotations

import pytest
from demo import OPERATOR_NAMESPACE, Demo

from support.demo_bots import apply, installed, manifest, patch, wait, wait_for

pytestmark = pytest.mark.e2e
# A bot that is evicted again and again never drains: its deletion ends at the deadline.
SOON = {"deletionDeadlineSeconds": 20}


@pytest.fixture(scope="module")
def demo(cluster_environment: dict[str, str]) -> Demo:
    """A namespace of this module, on the cluster of this tier."""
    return installed(cluster_environment, "pod-troubles")


def test_each_trouble_of_a_pod_has_a_reason_and_heals_with_the_spec(demo: Demo) -> None:
    apply(
        demo,
        manifest("no-image", symbol="BTCUSDT", pod={"image": "tradingbot/bot:no-such-tag"}),
        manifest("small", symbol="ETHUSDT", pod={"resources": {"limits": {"memory": "24Mi"}}}),
        manifest("nowhere", symbol="BNBUSDT", pod={"nodeSelector": {"no-such-label": "x"}}, **SOON),
        manifest("no-volume", storage={"size": "900Gi"}, **SOON),
        manifest("evicted", pod={"resources": {"limits": {"ephemeral-storage": "40Ki"}}}, **SOON),
    )
    wait_for(demo, "no-image", "PodReady", "False ImagePullFailed", 90)
    assert "24Mi" in wait_for(demo, "small", "PodReady", "False OutOfMemory", 90)
    wait_for(demo, "nowhere", "PodReady", "False Unschedulable", 30)
    assert "kubectl describe pvc" in wait_for(demo, "no-volume", "PodReady", "False VolumePending", 30)
    # Nobody deletes a pod by hand: what does not run is replaced although the strategy is Manual.
    patch(demo, "no-image", pod={"image": None})
    patch(demo, "small", pod={"resources": None})
    patch(demo, "nowhere", pod={"nodeSelector": None})
    for name in ("no-image", "small"):
        wait_for(demo, name, "Ready", "True", 120)
    # Whether it may trade is another question: the evicted bot has the same account and symbol.
    wait_for(demo, "nowhere", "PodReady", "True", 120)
    wait(
        "an event of the eviction",
        lambda: (
            "Evicted"
            in demo.shell.quiet(
                "kubectl", "get", "events", "--field-selector", "involvedObject.kind=TradingBot,reason=Evicted"
            )
        ),
        150,
    )
    demo.shell.show("kubectl", "get", "tradingbots", "-o", "wide")
    demo.shell.show("kubectl", "delete", "tradingbot", "nowhere", "no-volume", "evicted")


def test_safe_mode_by_an_annotation_of_the_pod_needs_no_operator(demo: Demo) -> None:
    wait_for(demo, "small", "TradingAllowed", "True", 60)
    name = demo.shell.quiet("kubectl", "get", "deployments", "-n", OPERATOR_NAMESPACE, "-o", "name").strip()
    replicas = demo.shell.quiet(
        "kubectl", "get", "-n", OPERATOR_NAMESPACE, name, "-o", "jsonpath={.spec.replicas}"
    ).strip()
    scale = ("kubectl", "scale", "-n", OPERATOR_NAMESPACE, name)
    demo.shell.show(*scale, "--replicas=0")
    demo.shell.quiet(
        "kubectl", "wait", "-n", OPERATOR_NAMESPACE, "pod", "--all", "--for=delete", "--timeout=60s", check=False
    )
    demo.shell.show("kubectl", "annotate", "pod", "small", "tradingbot.dev/safe-mode=true")

    def engaged() -> bool:
        text = demo.shell.quiet("kubectl", "logs", "small", "--tail=200")
        return "PodAnnotation" in text or '"annotation"' in text

    print(f"engaged without an operator after {wait('the bot to engage', engaged, 90):.1f} s")
    demo.shell.show(*scale, f"--replicas={replicas}")
    wait_for(demo, "small", "SafeModeAcknowledged", "True", 90)
    assert "PodAnnotation" in demo.condition("small", "SafeModeEngaged")
    # The mark of the emergency is latched: neither taking it off nor a new pod releases it, only a human's word does.
    demo.shell.show("kubectl", "annotate", "pod", "small", "tradingbot.dev/safe-mode-")

    def removal_seen() -> bool:
        causes = demo.status("small").get("safeMode", {}).get("causes", [])
        return all("still has" not in cause.get("clears", "") for cause in causes)

    wait("the bot to see that the annotation is gone", removal_seen, 120)
    assert demo.condition("small", "SafeModeEngaged").startswith("True PodAnnotation")
    demo.shell.show("kubectl", "annotate", "tradingbot", "small", "tradingbot.dev/clear=annotation")
    wait_for(demo, "small", "TradingAllowed", "True", 60)


def test_suspend_ends_the_pod_and_resume_trades_again(demo: Demo) -> None:
    demo.shell.show("kubectl", "get", "tradingbot", "small", "-o", "wide")
    patch(demo, "small", suspend=True)
    wait_for(demo, "small", "PodReady", "False Suspended", 60)
    assert demo.shell.quiet("kubectl", "get", "pod", "small", "--ignore-not-found") == ""
    patch(demo, "small", suspend=None)
    wait_for(demo, "small", "Ready", "True", 60)
    demo.shell.show("kubectl", "delete", "tradingbots", "--all", "--timeout=150s")
    demo.shell.quiet("kubectl", "delete", "namespace", demo.namespace, "--timeout=60s")
