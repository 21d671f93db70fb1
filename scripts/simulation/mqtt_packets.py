"""Packets of MQTT, of whatever version: how they are framed."""


def text(value: str) -> bytes:
    """Return a text behind its length (MQTT 3.1.1, 1.5.3)."""
    encoded = value.encode()
    return len(encoded).to_bytes(2) + encoded


def packet(head: int, body: bytes) -> bytes:
    """Return a packet: the first byte, the remaining length, and the rest (2.2)."""
    length = bytearray()
    rest = len(body)
    while rest > 0x7F:
        length.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes((head, *length, rest)) + body


def end_of_packet(received: bytearray) -> int | None:
    """Return where the first packet ends of what was received, if its end is here."""
    length = 0
    for position, byte in enumerate(received[1:5]):
        length |= (byte & 0x7F) << 7 * position
        if byte < 0x80:
            end = 2 + position + length
            return end if end <= len(received) else None
    return None


def body(packet: bytes) -> bytes:
    """Return a packet without its fixed header."""
    start = 1
    while packet[start] >= 0x80:
        start += 1
    return packet[start + 1 :]


def split(received: bytearray) -> tuple[int, bytes, int] | None:
    """Return the first byte and the body of a packet, and where it ends, if all is there."""
    if (end := end_of_packet(received)) is None:
        return None
    return received[0], body(bytes(received[:end])), end
