"""Devices that are added without asking."""

from collections.abc import Callable

from .decoders import DeviceDecoder
from .irk import is_stable
from .layouts.raw import address_type
from .records import Advertisement, Sighting


class Prospect:
    """An address that becomes a device by itself as soon as one of its packets decodes."""

    __slots__ = ("_add", "_decoder")

    def __init__(
        self, decoder: DeviceDecoder, add: Callable[[Advertisement, str], None]
    ) -> None:
        """Initialize; `add` takes the packet and the model."""
        self._decoder = decoder
        self._add = add

    def on_advertisement(
        self, sighting: Sighting, advertisement: Advertisement, changed: bool
    ) -> bool:
        """Try a packet that is new; all of them go out."""
        if changed or self._decoder.pending:
            self.consider(advertisement)
        return True

    def consider(self, advertisement: Advertisement) -> None:
        """Add the device if it is known, though its packets may be encrypted."""
        found = self._decoder.recognise(advertisement)
        if found is not None and self._is_stable(advertisement):
            self._add(advertisement, found[0])

    def _is_stable(self, advertisement: Advertisement) -> bool:
        """Tell whether the device keeps its address.

        Where nobody knows, it does if it is a sensor: phones send beacons, and change.
        """
        stable = is_stable(advertisement.address, address_type(advertisement))
        source = self._decoder.source
        return stable is True or (
            stable is None and source is not None and not source.beacon
        )
