"""Keys, tokens, sealing of personal data, access."""
