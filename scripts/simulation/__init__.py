"""A simulated home around a real Home Assistant: radios, proxies and brokers."""
