"""Layouts: records to messages. Pure functions of their input, without I/O."""
