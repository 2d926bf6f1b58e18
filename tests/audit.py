"""`make audit`: known faults of what we depend on. No network, no answer: that is said, and is no failure.

python -m tests.audit        (AUDIT_SECONDS: how long the answer may take)
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
NOT_REACHED = (
    "ConnectionError",
    "Failed to resolve",
    "Max retries",
    "Name or service",
    "ServiceError",
    "ProxyError",
    "timed out",
)


def verdict(status: int, output: str) -> tuple[int, str]:
    """The status to end with, and what is said of it."""
    if status == 0:
        return 0, "No known faults."
    if any(sign in output for sign in NOT_REACHED):
        return 0, "not run: the list of known faults cannot be reached from here."
    return 1, "Known faults: raise these versions in pyproject.toml, then make lock."


def main() -> int:
    seconds = float(os.environ.get("AUDIT_SECONDS", "600"))
    try:
        done = subprocess.run(
            [
                sys.executable, "-m", "pip_audit", "--progress-spinner=off", "--disable-pip", "--require-hashes",
                "--timeout=10", "-r", "requirements.txt",
            ],
            cwd=ROOT, capture_output=True, text=True, timeout=seconds,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        print(f"not run: no answer within {seconds:.0f} s.")
        return 0
    status, said = verdict(done.returncode, done.stdout + done.stderr)
    print(done.stdout.strip() if status else "", said, sep="\n" if status else "")
    return status


if __name__ == "__main__":
    sys.exit(main())
