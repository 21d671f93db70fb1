"""The devices of the user: from a packet to states, and to messages on the bus."""
