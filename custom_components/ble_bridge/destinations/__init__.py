"""Destinations: messages to the bus."""
