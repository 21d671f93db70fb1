"""Files that are uploaded in a form."""

from homeassistant.components.file_upload import process_uploaded_file
from homeassistant.core import HomeAssistant

from .certificates import MAX_SIZE


class Uploads:
    """What was uploaded in one flow.

    Home Assistant keeps a file until it is read once, but the form that is shown again for
    another reason still names it.
    """

    def __init__(self) -> None:
        """Begin without files."""
        self._files: dict[str, bytes] = {}

    async def async_read(self, hass: HomeAssistant, file_id: str) -> bytes:
        """Return a file, cut off where it is larger than any that we need.

        Raises ValueError where it is no longer there.
        """
        if file_id not in self._files:
            self._files[file_id] = await hass.async_add_executor_job(
                _read, hass, file_id
            )
        return self._files[file_id]


def _read(hass: HomeAssistant, file_id: str) -> bytes:
    """Return an uploaded file, which is then removed; blocks."""
    with process_uploaded_file(hass, file_id) as path, path.open("rb") as file:
        return file.read(MAX_SIZE + 1)
