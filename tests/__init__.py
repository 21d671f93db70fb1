"""Tests of BLE Bridge."""
