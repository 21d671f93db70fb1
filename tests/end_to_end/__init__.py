"""Tests of a whole Home Assistant, as it runs at a user's home."""
