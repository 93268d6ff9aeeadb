"""The systems that the SBC is measured beside, started with configurations of our own."""
