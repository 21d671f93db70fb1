"""Monitors, as a user meets them."""
