"""The benchmark harness: the SBC beside its peers, in one run, on one core. See ``README.md``."""
