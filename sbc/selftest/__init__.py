"""``sbc selftest``: an SBC of its own on this machine is broken in every way that is promised to be harmless."""
