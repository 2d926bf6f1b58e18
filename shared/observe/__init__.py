"""Metrics, logs, health, reconciliation."""
