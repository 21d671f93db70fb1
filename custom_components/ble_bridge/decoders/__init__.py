"""Decoders: advertisements to the values that they carry."""
