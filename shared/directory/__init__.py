"""Agencies, procedures, calendars and texts of a site: its bundle, what a load changes, and whom to ask."""
