"""Personal data under a person's own data key; only that key is wrapped to who may read it (law 91/2025).

A sealed contact is AES-256-GCM with the contact_ref as associated data, so that one person's data cannot be passed off
as another's. Destroying the data key erases the person wherever the ciphertext went.
"""

import os
from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import Any

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from shared.security.keys import SiteKeys


class SealBroken(Exception):
    """The data cannot be opened with this site's keys: another recipient's, or altered."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """Base64 texts, as in a `contact.recorded` event: nonce, ciphertext, and the data key wrapped to this site."""

    nonce: str
    ciphertext: str
    key_id: str
    wrapped: str


def new_data_key() -> bytes:
    return os.urandom(32)


def wrap(keys: SiteKeys, data_key: bytes) -> str:
    return b64encode(aes_key_wrap(keys.data, data_key)).decode()


def unwrap(keys: SiteKeys, wrapped: str) -> bytes:
    for key in (keys.data, *keys.old_data):
        try:
            return aes_key_unwrap(key, b64decode(wrapped))
        except (InvalidUnwrap, ValueError):
            continue
    raise SealBroken("the data key was not wrapped to this site")


def seal(keys: SiteKeys, contact_ref: str, content: dict[str, Any], data_key: bytes) -> Sealed:
    nonce = os.urandom(12)
    ciphertext = AESGCM(data_key).encrypt(nonce, orjson.dumps(content), contact_ref.encode())
    return Sealed(b64encode(nonce).decode(), b64encode(ciphertext).decode(), keys.data_key_id, wrap(keys, data_key))


def unseal(keys: SiteKeys, contact_ref: str, nonce: str, ciphertext: str, wrapped: str) -> dict[str, Any]:
    """The contact's fields; the caller records the read."""
    return unseal_with(unwrap(keys, wrapped), contact_ref, nonce, ciphertext)


def unseal_with(data_key: bytes, contact_ref: str, nonce: str, ciphertext: str) -> dict[str, Any]:
    """The contact's fields by the person's own key; the caller records the read."""
    try:
        clear = AESGCM(data_key).decrypt(b64decode(nonce), b64decode(ciphertext), contact_ref.encode())
    except (InvalidTag, ValueError) as error:
        raise SealBroken("the sealed contact was altered or belongs to another") from error
    content: dict[str, Any] = orjson.loads(clear)
    return content
