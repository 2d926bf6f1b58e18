"""What a deployment may set for notify."""

from pathlib import Path

from pydantic import Field

from shared.settings import Settings


class NotifySettings(Settings):
    """Times in seconds unless the name says otherwise."""

    sent_file: Path = Field(Path("sent.ndjson"), description="Where the provider `file` appends what it sends.")
    postal_file: Path = Field(Path("postal.ndjson"), description="Where the carrier `file` appends its orders.")

    contact_wait: float = Field(10.0, gt=0, description="How long an act waits for its applicant's contact.")
    act_expires_hours: float = Field(24.0, gt=0, description="An act older than this when planned is not sent.")
    text_days: float = Field(90.0, gt=0, description="How long sealed texts of notices are kept.")
    post_after_hours: float = Field(
        24.0, gt=0, description="An SMS that has not arrived by then is followed by a letter, if the rule says so."
    )

    call_timeout: float = Field(20.0, gt=0, le=28.0, description="A provider's answer later than this is none.")
    call_slow: float = Field(5.0, gt=0, description="A call that takes longer counts against its provider's health.")
    calls_at_once: int = Field(64, ge=1, description="Calls in flight with one provider.")
    retry_first: float = Field(2.0, gt=0, description="The first pause after all providers refused; it doubles.")
    retry_most: float = Field(45.0, gt=0, le=55.0, description="The longest pause between two rounds of providers.")
    held_patience: float = Field(
        0.05,
        gt=0,
        description="Held notices go out one after another; one that is not answered by then lets the next go.",
    )
    held_per_second: float = Field(
        100.0, gt=0, description="So many held notices begin in a second: a night's backlog goes out over minutes."
    )
    health_window: float = Field(60.0, gt=0, description="Over which a provider's slow and failed calls are counted.")
    health_least: int = Field(5, ge=1, description="Fewer calls in the window say nothing of a provider's health.")
    health_share: float = Field(
        0.5, gt=0, le=1, description="Share of slow or failed calls from which it is unhealthy."
    )
    track_first: float = Field(900.0, gt=0, description="A carrier is asked for an order after so long; it doubles.")
    track_most: float = Field(21600.0, gt=0, description="The longest pause between two questions for an order.")
    carrier_patience: float = Field(900.0, gt=0, description="A carrier that takes nothing for so long is passed by.")
    carrier_again: float = Field(300.0, gt=0, description="A carrier that was passed by is asked again after so long.")
    health_back: float = Field(300.0, gt=0, description="Over which a provider that was unhealthy gets its turns back.")
    sender_poll: float = Field(1.0, gt=0, description="How long the sender sleeps when nothing wakes it.")
