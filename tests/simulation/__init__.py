"""Tests of the demo's simulated radio."""
