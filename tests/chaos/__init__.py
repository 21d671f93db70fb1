"""Everything fails around a whole Home Assistant, and no durable record is lost."""
