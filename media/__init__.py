"""The media plane: RTP relay workers and the protocol that controls them. Imports nothing of ``sbc``."""
