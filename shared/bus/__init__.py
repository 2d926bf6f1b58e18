"""How it crosses: topics planned and made, a keyed publisher, one batch consumer for all services."""
