"""Home Assistant with the kernel's Bluetooth management socket played by a unix one.

The local adapter then delivers raw advertisements through habluetooth's management
side channel, as on a host where Home Assistant may open that socket. The first
argument is the unix socket's path, the others are Home Assistant's own.
"""

import socket
import sys
from typing import NoReturn

from btsocket import btmgmt_socket
from homeassistant.__main__ import main


def run(path: str) -> NoReturn:
    """Run Home Assistant with the management socket at a path."""

    def open_socket() -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(path)
        except OSError as err:
            connection.close()
            raise btmgmt_socket.BluetoothSocketError(str(err)) from err
        connection.setblocking(False)
        return connection

    btmgmt_socket.open = open_socket
    sys.exit(main())


if __name__ == "__main__":
    run(sys.argv.pop(1))
