"""Home Assistant with the kernel's Bluetooth management socket played by a unix one.

The local adapter then delivers raw advertisements through habluetooth's management
side channel, as on a host where Home Assistant may open that socket.
"""

import importlib
import os
import socket
import sys
from typing import Any

from homeassistant.__main__ import main

MANAGEMENT_SOCKET = "BLE_BRIDGE_MANAGEMENT_SOCKET"

# Imported by name: the package has no types.
btmgmt_socket: Any = importlib.import_module("btsocket.btmgmt_socket")


def open_management_socket() -> socket.socket:
    """Return a connection to the simulated kernel instead of the real one."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(os.environ[MANAGEMENT_SOCKET])
    except OSError as err:
        connection.close()
        raise btmgmt_socket.BluetoothSocketError(str(err)) from err
    connection.setblocking(False)
    return connection


if __name__ == "__main__":
    btmgmt_socket.open = open_management_socket
    sys.exit(main())
