"""A line between two sites as the country has it: a network of its own for the lower one, cut at will; delay, connections that
break, and a bus behind it that takes nobody without TLS and a login.

Needs root and iproute2 for the network. Where the kernel has no netem, delay and breaking connections are the relay's.
"""

import asyncio
import ipaddress
import random
import shutil
import socket
import struct
import subprocess
import threading
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

STORE_PASSWORD = "a-store-password"


def certificates(folder: Path, hosts: list[str]) -> tuple[Path, Path]:
    """An authority (PEM) and a broker's key and certificate under it (PKCS 12), good for these addresses."""
    now = datetime.now(UTC)
    name, bus = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in ("authority", "bus"))
    root, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    begin, end = now - timedelta(days=1), now + timedelta(days=30)
    authority = (
        x509.CertificateBuilder(name, name, root.public_key(), 1, begin, end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(root.public_key()), critical=False)
        .add_extension(x509.KeyUsage(False, False, False, False, False, True, True, False, False), critical=True)
        .sign(root, SHA256())
    )
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host)) for host in hosts])
    own = (
        x509.CertificateBuilder(name, bus, key.public_key(), 2, begin, end)
        .add_extension(names, critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key()), critical=False)
        .sign(root, SHA256())
    )
    ca, store = folder / "ca.pem", folder / "bus.p12"
    ca.write_bytes(authority.public_bytes(Encoding.PEM))
    encrypted = BestAvailableEncryption(STORE_PASSWORD.encode())
    store.write_bytes(pkcs12.serialize_key_and_certificates(b"bus", key, own, [authority], encrypted))
    return ca, store


class Network:
    """A network namespace with two ways to it: the line, which can be cut, and a wire for the test itself."""

    def __init__(self, number: int) -> None:
        self.name = f"lt{number}"
        self.near, self.far = f"10.231.{number}.1", f"10.231.{number}.2"  # the line's ends: here, and in the namespace
        self.wire = f"10.232.{number}.2"  # where the test reaches the namespace, cut or not
        self._number = number

    def make(self) -> None:
        self._ip("netns", "add", self.name)
        for kind, near, far in (("l", self.near, self.far), ("w", f"10.232.{self._number}.1", self.wire)):
            here, there = f"{self.name}{kind}0", f"{self.name}{kind}1"
            self._ip("link", "add", here, "type", "veth", "peer", "name", there)
            self._ip("link", "set", there, "netns", self.name)
            self._ip("addr", "add", f"{near}/24", "dev", here)
            self._ip("link", "set", here, "up")
            self._ip("-n", self.name, "addr", "add", f"{far}/24", "dev", there)
            self._ip("-n", self.name, "link", "set", there, "up")
        self._ip("-n", self.name, "link", "set", "lo", "up")

    def cut(self) -> None:
        """Nothing is told: what is sent is gone."""
        self._ip("-n", self.name, "link", "set", f"{self.name}l1", "down")

    def mend(self) -> None:
        self._ip("-n", self.name, "link", "set", f"{self.name}l1", "up")

    def remove(self) -> None:
        for kind in ("l", "w"):
            subprocess.run(["ip", "link", "del", f"{self.name}{kind}0"], check=False, capture_output=True)
        subprocess.run(["ip", "netns", "del", self.name], check=False, capture_output=True)

    def inside(self, *command: str) -> list[str]:
        """A command in the namespace."""
        return [_tool("ip"), "netns", "exec", self.name, *command]

    @staticmethod
    def _ip(*arguments: str) -> None:
        subprocess.run([_tool("ip"), *arguments], check=True, capture_output=True)


def _tool(name: str) -> str:
    found = shutil.which(name)
    assert found is not None, "apt-get install iproute2"
    return found


@dataclass
class Weather:
    """What a line does to what goes over it: seconds of delay each way, and how many of its connections break."""

    delay: float = 0.0
    breaks: float = 0.0


class Relay:
    """TCP from an address to another one, in a thread of its own, with the weather of the moment. `broken` counts
    connections that ended with a reset, of `made`."""

    def __init__(self, host: str, target: tuple[str, int], seed: int = 7) -> None:
        self.weather = Weather()
        self.made = self.broken = self._lived = 0
        self._target, self._random = target, random.Random(seed)
        self._listener = socket.create_server((host, 0))
        self.port = int(self._listener.getsockname()[1])
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._listener.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._take, sock=self._listener))
        self._loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    async def _take(self, near_in: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        self.made += 1
        try:
            far_in, far_out = await asyncio.open_connection(*self._target)
        except OSError:
            near_out.close()
            return
        pumps = [asyncio.create_task(self._pump(*ends)) for ends in ((near_in, far_out), (far_in, near_out))]
        await asyncio.wait(pumps, timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
        life = self._life() if not any(pump.done() for pump in pumps) else None
        await asyncio.wait(pumps, timeout=life, return_when=asyncio.FIRST_COMPLETED)
        if life is not None and not any(pump.done() for pump in pumps):
            self.broken += 1
            reset: Any = near_out.get_extra_info("socket")
            reset.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        for end in (near_out, far_out):
            end.close()

    def _life(self) -> float | None:
        """For how long, in seconds, a connection that has lived for a second goes on; None: until it is closed. Of so many one
        breaks, beginning with the first: few connections are made, and none would break by chance."""
        if not self.weather.breaks:
            return None
        self._lived += 1
        return self._random.uniform(0.0, 7.0) if (self._lived - 1) % round(1 / self.weather.breaks) == 0 else None

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """In its order, each block after the delay that the line has when the block comes."""
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(maxsize=256)

        async def deliver() -> None:
            while True:
                due, block = await waiting.get()
                await asyncio.sleep(max(0.0, due - self._loop.time()))
                sink.write(block)
                await sink.drain()

        delivering = asyncio.create_task(deliver())
        try:
            with suppress(OSError):
                while block := await source.read(1 << 16):
                    await waiting.put((self._loop.time() + self.weather.delay, block))
                while not waiting.empty():
                    await asyncio.sleep(0.05)
        finally:
            delivering.cancel()
