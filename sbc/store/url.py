"""Where the store is; the configuration says it (:mod:`sbc.config.store_url`)."""

from sbc.config.store_url import Cluster, End, Sentinels, StoreAddress, embedded_socket, parse_store_url, text_of

__all__ = ["Cluster", "End", "Sentinels", "StoreAddress", "embedded_socket", "parse_store_url", "text_of"]
