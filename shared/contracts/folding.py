"""Vietnamese text as it is searched and compared: without tones."""

import unicodedata


def fold(text: str) -> str:
    """Text without tones and marks, đ as d, in small letters."""
    bare = unicodedata.normalize("NFD", text.casefold().replace("đ", "d"))
    return "".join(character for character in bare if not unicodedata.combining(character))
