"""Benchmarks of BLE Bridge: the whole way of a packet, beside its peers."""
