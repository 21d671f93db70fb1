"""Monitors: other systems' topics as devices of Home Assistant.

`patterns` says which topics are watched, `presets` what systems say in them, `messages` turns
payloads into messages, `device` keeps what is known of a device, `dead_letters` what could not
be understood. Those import nothing of Home Assistant. `monitor` does the rest; `entity`,
`sensor`, `binary_sensor` and `event` show it.
"""
