"""The bundled sample province."""

from pathlib import Path

from shared.directory.directory import Directory
from shared.directory.merge import merge
from shared.directory.reading import load_bundle

SAMPLE = Path(__file__).with_name("sample.yaml")


def load_sample() -> Directory:
    """The directory of a site that has loaded nothing but the sample. Raises BundleFault if it does not fit."""
    site, _ = merge(None, load_bundle(SAMPLE))
    return Directory(site)
