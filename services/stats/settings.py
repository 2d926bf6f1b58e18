"""What a deployment may set for stats."""

from pydantic import Field

from shared.settings import Settings


class StatsSettings(Settings):
    """Times in seconds."""

    snapshot_every: float = Field(1.0, gt=0, description="How often changed figures are published, at most.")
    dashboard_keeps: float = Field(2.0, ge=0, description="How long the public page may show the same figures.")
    group: int = Field(5, ge=1, description="Groups smaller than this are not shown without a token.")
    reports_every: float = Field(60.0, gt=0, description="How often it is looked whether a report is due.")
