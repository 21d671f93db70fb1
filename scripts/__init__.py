"""The scripts that set up, show and measure BLE Bridge."""
