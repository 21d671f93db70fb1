"""A Home Assistant whose broker, network, disk and clock fail, and what is lost then."""
