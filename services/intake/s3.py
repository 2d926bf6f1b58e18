"""Requests to an S3-compatible storage, signed as it asks for (AWS Signature Version 4, one request without a body). Pure."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final
from urllib.parse import quote, unquote, urlsplit, urlunsplit

_ALGORITHM: Final = "AWS4-HMAC-SHA256"
_EMPTY: Final = sha256(b"").hexdigest()
_UNRESERVED: Final = "/-_.~"


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who asks. `region` is part of what is signed; storages that have none take any."""

    access_key: str
    secret_key: str = field(repr=False)
    region: str = "us-east-1"


def encoded(url: str) -> str:
    """The address with its path written as it is signed: each byte but letters, digits and -_.~/ as %XX, once."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=quote(unquote(parts.path), safe=_UNRESERVED)))


def signed(
    method: str, url: str, who: Credentials, now: datetime, headers: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The headers of a request without query and body, `headers` among them; `url` as `encoded` gives it."""
    parts = urlsplit(url)
    at = now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    sent = {
        **{name.lower(): value.strip() for name, value in (headers or {}).items()},
        "host": parts.netloc,
        "x-amz-content-sha256": _EMPTY,
        "x-amz-date": at,
    }
    names = ";".join(sorted(sent))
    lines = "".join(f"{name}:{sent[name]}\n" for name in sorted(sent))
    asked = f"{method}\n{parts.path or '/'}\n\n{lines}\n{names}\n{_EMPTY}"
    scope = f"{at[:8]}/{who.region}/s3/aws4_request"
    to_sign = f"{_ALGORITHM}\n{at}\n{scope}\n{sha256(asked.encode()).hexdigest()}"
    key = f"AWS4{who.secret_key}".encode()
    for part in (at[:8], who.region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    sent["authorization"] = (
        f"{_ALGORITHM} Credential={who.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    return sent
