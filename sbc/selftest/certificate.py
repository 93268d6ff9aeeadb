"""Certificates for ends and nodes of the lab."""

from __future__ import annotations

import ipaddress
from pathlib import Path


def write_certificate(path: Path, address: str, *, begins_days: float = -1.0, ends_days: float = 2.0) -> None:
    """Write a certificate for an IP address, and its key, as one PEM file that only its owner reads. It is valid from
    so many days from now on until so many."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509 import IPAddress

    from media.certificate import self_signed

    key = ec.generate_private_key(ec.SECP256R1())
    names = [IPAddress(ipaddress.ip_address(address))]
    made = self_signed(key, address, begins_days=begins_days, ends_days=ends_days, alternatives=names)
    kind = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, *kind) + made.public_bytes(serialization.Encoding.PEM)
    )
