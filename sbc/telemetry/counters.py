"""Counters of one process in one page of shared memory: the process writes, the supervisor and the control worker read.

A page is 512 words of 64 bits. One process writes it, so adding is a plain read and write, and aligned words are read
whole by others. The supervisor makes the page before it forks: counts outlive the death of the worker, as Prometheus
expects of a counter, and gauges start again from 0.

Words 0-15 are the header, words from :data:`FIRST` the :class:`Counter` members. A media worker's page has the same
header and numbers its own counters (``media.counters``).
"""

from __future__ import annotations

from enum import IntEnum

WORDS = 512
FIRST = 16
MAGIC = 0x5342_4350_4147_4531  # "SBCPAGE1"

# header words
WORD_MAGIC, WORD_PID, WORD_BEAT, WORD_START, WORD_KIND, WORD_READY, WORD_RESTARTS, WORD_SPARE = range(8)
WORD_VERSION = 8  # and on: the release that the process runs, in ASCII
VERSION_BYTES = 48


class Kind(IntEnum):
    """Which process a page belongs to."""

    SUPERVISOR = 1
    SIP = 2
    MEDIA = 3
    CONTROL = 4
    HA = 5


class Counter(IntEnum):
    """Every counter and gauge with its help text; each drop and each refusal has a reason of its own.

    Append within reason: the order is the layout, and both sides of a page always run the same build.
    """

    text: str

    def __new__(cls, text: str) -> Counter:
        word = FIRST + len(cls.__members__)
        member = int.__new__(cls, word)
        member._value_ = word
        member.text = text
        return member

    OTHER = "Events whose name has no counter of its own."
    # calls
    CALLS_STARTED = "Calls for which an initial INVITE was admitted."
    CALLS_ANSWERED = "Calls that were answered with a 2xx."
    CALLS_FAILED = "Calls that ended without an answer."
    CALLS_ENDED = "Answered calls that have ended."
    CALLS_ACTIVE = "Calls that this worker owns now."
    CALLS_RESUMED = "Calls taken up again from the journal."
    SETUPS_LOST = "Calls whose worker died before they were answered: ended by its successor."
    SETUPS_CARRIED = "Calls that rang when their worker went by order, and rang on here."
    STRAY_ANSWERS_ENDED = "Answers to INVITEs of a worker that died, of which nothing was known: ended by ACK and BYE."
    CALLS_FOUND_ENDED = "Calls that had been hung up when their worker died, and whose records said they were up."
    CALLS_FENCED = "Calls let go because a later owner has them."
    CALLS_GIVEN = "Calls given to another worker, which joins one of its own to them."
    CALLS_LODGED = "Calls taken over from another worker for that."
    RESUME_REFUSED = "Journal records that could not be resumed: truncated, hostile or of a newer version."
    CALLS_CANCELLED = "Calls given up by the caller before an answer."
    CALLS_RELEASED = "Calls that we ended ourselves."
    REQUESTS_DROPPED = "Requests that a route dropped without an answer."
    LEG_TIMEOUTS = "Legs that never answered."
    FAILOVERS = "Calls that went on to a further target after a failure."
    REDIRECTS_FOLLOWED = "Answers 3xx whose Contacts were tried."
    CANCEL_CROSSED = "CANCELs that crossed a 200: the answered leg was acknowledged and ended."
    DIALOG_EXPIRED = "Calls ended because they outlived the dialog lifetime."
    SESSION_REFRESHES = "Session refreshes that we sent (RFC 4028)."
    SESSION_EXPIRED = "Calls ended because a session was not refreshed in time."
    SESSION_INTERVAL_REFUSED = "Requests refused for a session interval below min_se_s (422)."
    CHALLENGES_ANSWERED = "Challenges of peers that were answered with the credentials configured for them."
    CREDENTIALS_REFUSED = "Challenges of peers for which the configured credentials were of no use."
    PINGS_SENT = "Pings sent inside dialogs."
    PING_UNANSWERED = "Calls ended because a ping inside the dialog was not answered."
    PRACK_MISSING = "Calls refused with 504 because no PRACK came to a reliable provisional (RFC 3262)."
    ACK_MISSING = "Answered calls ended because no ACK came."
    TRANSFERS_STARTED = "Transfers that we were to carry out (REFER, or INVITE with Replaces)."
    TRANSFERS_DONE = "Transfers that were carried out."
    TRANSFERS_FAILED = "Transfers that failed: the call stayed as it was."
    TRANSFERS_PASSED = "REFERs that were passed to the other side."
    TRANSFERS_REFUSED = "REFERs that were refused by policy, or for what they asked."
    TRANSFER_GLARE = "Times that a transfer waited because a party was changing its session (491)."
    # admission
    UNKNOWN_SOURCE_DROPPED = "Datagrams from unknown sources that were dropped."
    UNKNOWN_SOURCE_REFUSED = "Requests from unknown sources that were refused without state."
    MALFORMED_DROPPED = "Datagrams that did not parse and were dropped."
    MALFORMED_REFUSED = "Requests that did not parse and were refused."
    KEEPALIVE = "Keep-alive datagrams (RFC 5626 CRLF, empty or STUN-like) on a SIP listener."
    MAX_CALLS_REFUSED = "Calls refused because the peer is at max_calls."
    MAX_CPS_REFUSED = "Calls refused because the peer is above max_cps."
    DRAINING_REFUSED = "Calls refused because the worker is draining."
    UNPROTECTED_REFUSED = "New calls refused (503) because the store takes no records, as configured."
    OVERLOAD_REFUSED = "Calls refused because the worker is overloaded."
    METHOD_REFUSED = "Requests refused for their method."
    EXTENSION_REFUSED = "Requests refused for an extension in Require (420)."
    MAX_FORWARDS_REFUSED = "Requests refused because Max-Forwards reached 0 (483)."
    LOOP_REFUSED = "Requests refused as a loop or merged request (482)."
    DIALOG_UNKNOWN = "In-dialog requests that belong to no call (481)."
    DIALOG_AWAITED = "In-dialog requests left unanswered while the calls of a former worker were not all there yet."
    CSEQ_REFUSED = "In-dialog requests refused for a CSeq out of order."
    WRONG_SOURCE_REFUSED = "In-dialog messages refused because they came from a source outside the dialog's peer."
    GLARE_REFUSED = "Requests refused because another one of the same dialog is pending (491)."
    SDP_REFUSED = "Requests refused for their session description (488)."
    # other requests
    REQUESTS_RELAYED = "Requests other than INVITE outside a dialog that a route sent on."
    REQUEST_TIMEOUTS = "Such requests that had no final answer in time (408)."
    SUBSCRIPTIONS_STARTED = "Subscriptions asked for through this node."
    SUBSCRIPTIONS_ACTIVE = "Subscriptions that this worker owns now."
    SUBSCRIPTIONS_EXPIRED = "Subscriptions whose notifier did not say in time that they were over."
    SUBSCRIPTIONS_REFUSED = "Subscriptions refused because the worker has as many as it may (503)."
    # trunks
    BINDINGS_WATCHED = "Bindings of registered phones that are pinged."
    KEEP_ALIVES_SENT = "Pings sent to registered phones, so that NAT lets requests through to them."
    KEEP_ALIVES_UNANSWERED = "OPTIONS pings to registered phones that were not answered by the next one."
    BINDINGS_LOST = "Bindings forgotten because the phone answered no OPTIONS."
    DIALOGS_RECONNECTED = "Dialogs of phones that have connected and registered anew, which take the new connection."
    REGISTRATIONS = "Registrations at peers that this worker keeps up."
    REGISTRATIONS_ACTIVE = "Those that a registrar has accepted and that have not expired."
    REGISTERS_SENT = "REGISTER requests of our own."
    REGISTERS_FAILED = "Registrations that a registrar refused or did not answer, once for each round of its servers."
    # transactions
    TRANSACTIONS = "Transactions opened, server and client."
    STRAY_RESPONSE = "Responses that matched no transaction."
    STRAY_ACK = "ACKs that matched no transaction and no dialog."
    STRAY_CANCEL = "CANCELs that matched no INVITE (481)."
    RETRANSMISSION_IN = "Requests and responses received again and absorbed."
    RETRANSMISSION_OUT = "Requests and responses that we sent again."
    TIMER_B = "INVITE client transactions without any response (Timer B)."
    TIMER_C = "INVITE client transactions without a final response (Timer C)."
    TIMER_CANCEL = "INVITE client transactions without a final response 64*T1 after their CANCEL (RFC 3261 §9.1)."
    TIMER_F = "Non-INVITE client transactions without a final response (Timer F)."
    TIMER_H = "INVITE server transactions without an ACK (Timer H)."
    TIMER_L = "INVITE server transactions that left Accepted (Timer L)."
    TIMER_M = "INVITE client transactions that left Accepted (Timer M)."
    TRANSPORT_ERROR = "Transactions that failed for a transport error."
    OVERSIZE_TCP = "Requests too long for a datagram that went by TCP (RFC 3261 §18.1.1)."
    OVERSIZE_FALLBACKS = "Of these, requests that went as a datagram after all, for want of a connection."
    HEADER_RULES_REFUSED = "Requests refused by a header rule."
    HEADER_RULE_FAULTS = "Messages of which header rules would have made nothing that can be sent."
    # datagrams
    DATAGRAMS_IN = "SIP datagrams received."
    DATAGRAMS_OUT = "SIP datagrams sent."
    SEND_FAILED = "SIP datagrams that the kernel refused to send."
    HANDED_OVER_OUT = "Datagrams handed to the worker that owns their shard."
    HANDED_OVER_IN = "Datagrams that another worker handed to this one."
    HAND_OVER_FAILED = "Datagrams lost because the owner's queue was full."
    # connections
    CONNECTIONS_ACCEPTED = "Stream connections accepted."
    CONNECTIONS_REFUSED = "Stream connections refused because there were too many, of this source or at all."
    CONNECTIONS_IDLE = "Stream connections closed because nothing came by them."
    CONNECT_FAILED = "Stream connections that we could not make."
    HANDSHAKES_FAILED = "Accepted connections whose TLS or WebSocket handshake failed."
    STREAM_MESSAGES_IN = "SIP messages received by stream connections."
    STREAM_MESSAGES_OUT = "SIP messages sent by stream connections."
    STREAM_BROKEN = "Stream connections closed because the next message could not be told apart."
    STREAM_OVERSIZE = "Stream connections closed because a message or its headers were beyond a limit."
    STREAM_TIMEOUTS = "Stream connections closed because a message was not finished in time."
    STREAM_QUEUE_FULL = "Stream connections closed because the peer did not read."
    # routes
    ROUTES_RUN = "Routes started."
    ROUTE_ERRORS = "Routes that raised."
    ROUTE_UNDECIDED = "Routes that ended without a decision (500)."
    ROUTE_TIMEOUTS = "Routes that took longer than allowed."
    ROUTE_OVERRUNS = "Routes that blocked their worker for longer than allowed, and were ended."
    ROUTES_HELD_OFF = "Routes that were ended at a line where too many had blocked."
    LOOKUPS = "Look-ups of routes: HTTP, Redis and databases."
    LOOKUPS_FAILED = "Look-ups that had no usable answer."
    LOOKUPS_REFUSED = "Look-ups that failed at once, because their server had not answered for some time."
    # names
    DNS_QUERIES = "Questions put to the DNS."
    DNS_FAILURES = "Questions that no name server answered."
    DNS_TIMEOUTS = "Answers of the DNS for which a call did not wait."
    RESOLVE_FAILED = "Gateway names that led to no server."
    # media control
    MEDIA_REQUESTS = "Requests sent to media workers."
    MEDIA_REFUSED = "Requests that a media worker refused."
    MEDIA_TIMEOUTS = "Requests to media workers that met their deadline."
    MEDIA_RETRIED = "Requests that were tried again on another media worker."
    MEDIA_NODE_DOWN = "Times that a media node was found mute and got no new calls."
    MEDIA_LATE = "Replies of media workers that came after their deadline."
    MEDIA_SILENT = "Calls ended because no media came."
    MEDIA_ONE_WAY = "Times that an answered call was found with audio from one side only."
    MEDIA_MOVED = "Calls whose media left the relay, or came back to it, while they were up."
    DIGITS_HEARD = "Digits that media workers heard as RFC 4733 events, in calls whose profiles ask for digits."
    DIGITS_FROM_INFO = "Digits that came as INFO for a side that takes RFC 4733 events."
    DIGITS_LOST = "Digits that could not be sent on in the form that the other side wants."
    MEDIA_ORPHANS = "Media sessions ended because their call was lost with a worker before it was answered."
    # store
    JOURNAL_SAVED = "Call records written to the journal."
    JOURNAL_LATE = "200s to INVITE that left before the journal had confirmed."
    JOURNAL_FAILED = "Writes to the journal that failed and are kept for later."
    JOURNAL_DROPPED = "Call records or CDRs lost because the waiting queue was full."
    JOURNAL_WAITING = "Call records and CDRs that wait for the store now."
    STORE_DOWN = "1 while the store is away."
    STORE_REFUSES = "1 while the store refuses to write: it is full, or a replica."
    STORE_TIMEOUTS = "Commands to the store that met their deadline."
    STORE_CONNECTS = "Connections made to the store."
    # CDRs
    CDR_QUEUED = "CDRs put on the outbox stream."
    CDR_WRITTEN = "CDRs written to the database."
    CDR_DUPLICATE = "CDRs seen again and skipped."
    CDR_FAILED = "Attempts to write CDRs that failed and will be repeated."
    CDR_WAITING = "CDRs on the outbox stream that are not yet written."
    CDR_SPOOL_DOWN = "1 while CDRs cannot be kept on disk."
    CDR_UNSAVED = "CDRs in memory only, while they cannot be kept on disk."
    # a pair of nodes
    HA_ACTIVE = "1 while this node of a pair is the active one."
    HA_TOKEN = "The latest fencing token that this node knows, its own while it is active."
    HA_PEER_HEARD = "1 while the other node is heard on any path."
    HA_TAKEN = "Times that this node became the active one."
    HA_DRAINED = "1 when a SIP worker of a node that hands over has no call left for which it would wait."
    HA_SILENCED = "Times that this node fell silent, by order or because another one was active or may have been."
    # process
    CORE_ERRORS = "Effects of the core that could not be performed."
    CORE_FAULTS = "Messages and timers that met a fault of ours in the core."
    RELOADS = "Configurations taken over."
    RELOADS_REFUSED = "Configurations refused for a fault; the old one serves on."
    LOG_LINES_LOST = "Log lines lost because the log could not take them."
    LOOP_LAG_MAX_US = "Longest delay of the event loop seen lately, in microseconds."
    WORKER_RESPAWNS = "Workers started again after a death."
    WORKER_HUNG = "Workers killed by the watchdog."


GAUGES = frozenset(
    {
        Counter.CALLS_ACTIVE,
        Counter.SUBSCRIPTIONS_ACTIVE,
        Counter.BINDINGS_WATCHED,
        Counter.REGISTRATIONS,
        Counter.REGISTRATIONS_ACTIVE,
        Counter.JOURNAL_WAITING,
        Counter.STORE_DOWN,
        Counter.STORE_REFUSES,
        Counter.CDR_WAITING,
        Counter.CDR_SPOOL_DOWN,
        Counter.CDR_UNSAVED,
        Counter.LOOP_LAG_MAX_US,
        Counter.HA_ACTIVE,
        Counter.HA_TOKEN,
        Counter.HA_PEER_HEARD,
        Counter.HA_DRAINED,
    }
)
assert FIRST + len(Counter) <= WORDS
