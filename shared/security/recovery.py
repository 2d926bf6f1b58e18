"""A site's keys, encrypted to a recovery recipient: whoever has a backup of them can read it with the recipient's key alone.

JWE (RFC 7516), ECDH-ES+A256KW with X25519 and A256GCM; the recipient's private key lies where no backup does.
"""

import io
import json
import os
import tarfile
from pathlib import Path

from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

_HEADER = {"alg": "ECDH-ES+A256KW", "enc": "A256GCM", "cty": "application/x-tar"}


class RecoveryRefused(Exception):
    """The message is for the operator: which file, and what to do."""


def make_recipient(file: Path) -> str:
    """A new private key in `file`; its public half as text, for `lienthong backup --recipient`."""
    key = OKPKey.generate_key("X25519")
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as out:
        out.write(json.dumps(key.as_dict(private=True)) + "\n")
    return str(key.as_dict(private=False)["x"])


def seal_folder(folder: Path, recipient: str) -> str:
    """All files of a folder of keys as one JWE for the recipient (its public key, as `make_recipient` said it)."""
    try:
        key = OKPKey.import_key({"kty": "OKP", "crv": "X25519", "x": recipient.strip()})
    except (JoseError, ValueError) as error:
        raise RecoveryRefused("this is no public key of a recipient: `lienthong keys recipient` makes one.") from error
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                tar.add(file, file.relative_to(folder).as_posix(), recursive=False)
    return str(jwe.encrypt_compact(_HEADER, packed.getvalue(), key))


def open_folder(sealed: str, identity: Path, folder: Path) -> None:
    """The keys back into `folder`, which is made. Raises RecoveryRefused when the identity is not the recipient."""
    try:
        key = OKPKey.import_key(json.loads(identity.read_text()))
        content = jwe.decrypt_compact(sealed.strip(), key).plaintext
    except (JoseError, ValueError, TypeError) as error:
        raise RecoveryRefused(
            f"{identity} does not open these keys: they were sealed for another recipient."
        ) from error
    assert content is not None
    folder.mkdir(parents=True, mode=0o700, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        tar.extractall(folder, filter="data")
    for file in folder.rglob("*"):
        file.chmod(0o700 if file.is_dir() else 0o600)
