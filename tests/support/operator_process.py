"""The operator as a process on this machine, against a test cluster."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from support.waiting import until


def make_authority(folder: Path) -> None:
    """A certificate authority as the chart makes one."""
    folder.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tradingbot-operator")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "ca.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "ca.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )


class OperatorProcess:
    """One run of `tradingbot-operator`; its log is kept."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.log: list[dict[str, Any]] = []
        self.ports: dict[str, int] = {}
        self._listening = asyncio.Event()
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def start(
        cls,
        kubeconfig: Path,
        authority: Path,
        namespace: str,
        *more: str,
        everywhere: bool = False,
        python_path: str | None = None,
    ) -> OperatorProcess:
        """Runs it on free ports for one namespace, claims included, or `everywhere` with the claims in that one.

        Another version of it from `python_path`.
        """
        path = {} if python_path is None else {"PYTHONPATH": python_path}
        # Doubles of bots, many of which start at once, use no request weight. Former versions know no such limit.
        unpaced = ("--exchange-weight-per-minute", "0") if python_path is None else ()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tradingbot_operator",
            "--kubeconfig", str(kubeconfig), "--ca-dir", str(authority),
            *(() if everywhere else ("--namespace", namespace)), "--claims-namespace", namespace,
            "--probe-host", "127.0.0.1", "--probe-port", "0", "--metrics-port", "0",
            *unpaced, *more,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **path},
        )  # fmt: skip
        operator = cls(process)
        try:
            async with asyncio.timeout(120):
                await operator._listening.wait()
        except BaseException:  # Cancelled too: nobody else would end it.
            process.kill()
            raise
        return operator

    async def _read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            try:
                entry = json.loads(line)
            except ValueError:
                entry = {"event": line.decode().rstrip(), "level": "raw"}
            self.log.append(entry)
            if entry.get("event") == "listening":
                self.ports = {"probe": entry["probe_port"], "metrics": entry["metrics_port"]}
                self._listening.set()
        self._listening.set()

    def complaints(self) -> list[dict[str, Any]]:
        """Errors and tracebacks in the log."""
        return [entry for entry in self.log if entry.get("level") in {"error", "critical", "raw"}]

    async def stop(self, number: int = signal.SIGTERM) -> int:
        """Ends it; its exit code."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        async with asyncio.timeout(20):
            code = await self.process.wait()
            await self._reader
        return code


async def probe(operator: OperatorProcess, path: str) -> int:
    """The HTTP status of a probe."""
    url = f"http://127.0.0.1:{operator.ports['probe']}{path}"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status


async def ready(operator: OperatorProcess) -> None:
    """Waits for its /readyz."""

    async def answered() -> bool:
        return await probe(operator, "/readyz") == 200

    await until("a ready replica", answered)
