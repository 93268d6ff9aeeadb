from collections.abc import Mapping

from sbc.sdp.description import MediaDescription, SessionDescription

def usual_description(
    session_type: type[SessionDescription],
    media_type: type[MediaDescription],
    owners: Mapping[str, int],
    clocks: Mapping[str, int],
    data: bytes,
) -> SessionDescription | None:
    """What ``SessionDescription.parse`` answers, for one audio stream over RTP/AVP with IPv4 addresses and attributes
    that ``owners`` settles by name; None for anything else, wrong or not. ``clocks`` by static payload type."""
