"""Which version this is: the package's, and the commit where it is known."""

import json
import subprocess
from importlib.metadata import distribution
from urllib.parse import unquote, urlsplit


def version_text() -> str:
    """`lienthong 0.1.0 (bfc83f1)`; without the commit where the project was installed without its history."""
    package = distribution("lienthong")
    commit = commit_of(package.read_text("direct_url.json"))
    return f"lienthong {package.version}" + (f" ({commit})" if commit else "")


def commit_of(direct_url: str | None) -> str | None:
    """By what the installer wrote down of where the package came from (PEP 610): a commit, or a folder that is a checkout."""
    origin = json.loads(direct_url or "{}")
    if "vcs_info" in origin:
        return str(origin["vcs_info"]["commit_id"])[:12]
    where = urlsplit(origin.get("url", ""))
    if where.scheme != "file":
        return None
    asked = ["git", "-C", unquote(where.path), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True, timeout=5).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None
