"""What a deployment may set for intake."""

from datetime import timedelta
from pathlib import Path

from pydantic import Field, SecretStr

from services.intake.s3 import Credentials
from shared.settings import Settings


class IntakeSettings(Settings):
    """Times in hours unless the name says otherwise."""

    backdating_hours: float = Field(24, ge=0, description="How far back desk and officer may write an act.")
    batch_limit: int = Field(500, ge=1, le=5000, description="Commands that share a statement and a commit at most.")
    tick_seconds: float = Field(5.0, gt=0, description="How often due dates are looked at.")
    petition_working_days: int = Field(15, ge=1, description="Within which a petition is answered.")
    track_wrong_pins: int = Field(10, ge=1, le=40, description="Wrong pins for one code before its page is closed.")
    track_minutes: float = Field(15, gt=0, description="How long wrong pins are remembered, and the page stays closed.")

    attachment_roots: list[str] = Field(
        [], description="Folders and http(s) addresses below which references are followed; none: none is."
    )
    attachment_s3_endpoint: str = Field(
        "", description="The S3-compatible storage where s3://bucket/key lies, at this address under bucket/key."
    )
    attachment_s3_region: str = Field("us-east-1", description="Its region, as requests to it are signed.")
    attachment_s3_access_key: str = Field("", description="Who asks it; empty: it is asked without a signature.")
    attachment_s3_secret_key: SecretStr = Field(SecretStr(""), description="The secret of the access key.")
    attachment_mb: int = Field(100, ge=1, description="Larger files are not read.")
    attachment_longest: float = Field(
        60.0, gt=0, description="Seconds; a file that has not come by then is not waited for."
    )
    attachment_seconds: float = Field(5.0, gt=0, description="How often it is looked for new references.")
    portal_seconds: float = Field(2.0, gt=0, description="How often it is looked what the portals are to be told.")
    portal_longest_pause: float = Field(300.0, gt=0, description="Between attempts at a portal that is down.")
    portal_parallel: int = Field(4, ge=1, le=50, description="Dossiers that one portal is told of at the same time.")
    seal_seconds: float = Field(
        60.0, gt=0, description="How often it is looked whether a day is over and to be sealed."
    )
    erasures_file: Path | None = Field(None, description="Where erasures are noted beside the database, for `restore`.")

    public_url: str = Field("", description="Where people reach this service, for QR codes and logins: https://….")

    @property
    def s3_credentials(self) -> Credentials | None:
        if not (self.attachment_s3_endpoint and self.attachment_s3_access_key):
            return None
        secret = self.attachment_s3_secret_key.get_secret_value()
        return Credentials(self.attachment_s3_access_key, secret, self.attachment_s3_region)

    @property
    def track_window(self) -> timedelta:
        return timedelta(minutes=self.track_minutes)
