# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, freethreading_compatible=False
"""SIP messages: a lazy index over the received octets, and building in one pass (RFC 3261 §7, §18, §25).

One pass finds every header line and checks the fields on which routing depends; nothing is decoded until it is asked
for. Octets are decoded as UTF-8 with surrogateescape, so that what is passed on is what came.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint8_t, uint16_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memchr, memcmp, memcpy, memset

from sbc.errors import SipSyntaxError
from sbc.sip.headers import HEADERS, Arity
from sbc.sip.status import REASONS, reason_of

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL
    bint PyUnicode_IS_ASCII(object text)

ctypedef const unsigned char* Octets

# Limits; a message beyond them is refused before anything else looks at it.
cdef enum:
    MAX_MESSAGE = 65535
    MAX_HEADERS = 200
    MAX_URI = 2048
    MAX_METHOD = 64
    MAX_CSEQ = 2147483647
    MAX_KEY = 256                          # a transaction key that is built without the heap

# Rows of sbc.sip.headers.HEADERS, plus one: 0 is "not in the table".
cdef enum:
    VIA = 1
    FROM = 2
    TO = 3
    CALL_ID = 4
    CSEQ = 5
    MAX_FORWARDS = 6
    CONTENT_LENGTH = 7
    CONTACT = 8
    TIMESTAMP = 9

cdef enum:
    SINGLE = 1
    LIST = 2

include "_scan.pxi"

# ---------------------------------------------------------------------------------------------------------------------
# The message

cdef struct Span:
    uint16_t at
    uint16_t length

cdef struct Line:
    Span name
    Span value
    uint8_t id
    uint8_t folded


cdef str _text(Octets p, Py_ssize_t length):
    return PyUnicode_DecodeUTF8(<const char*>p, length, b"surrogateescape")


cdef Py_ssize_t _unfold(Octets p, Py_ssize_t length, char* out) noexcept nogil:
    """Copy a folded value, each fold with the blanks round it as one SP (§7.3.1); answers the length written."""
    cdef Octets end = p + length
    cdef Py_ssize_t n = 0
    while p < end:
        if p[0] == 13 or p[0] == 10:
            while n and (out[n - 1] == 32 or out[n - 1] == 9):
                n -= 1
            p = _skip_space(p, end)
            out[n] = 32
        else:
            out[n] = p[0]
            p += 1
        n += 1
    return n


cdef class Message:
    """A SIP message as it was received; immutable, decoded on demand. Contract: ``_message.pyi``."""

    cdef readonly bytes raw
    cdef readonly bint is_request
    cdef readonly int status
    cdef readonly int cseq_number
    cdef int _max_forwards
    cdef int _count
    cdef int _body_at
    cdef int _body_length
    cdef Line* _lines
    cdef Octets _base
    cdef Span _start_first, _start_second     # method and R-URI, or nothing and the reason phrase
    cdef Span _call_id_at, _cseq_method_at, _from_tag_at, _to_tag_at, _branch_at
    cdef int _top_via                         # index of its line, -1: none
    cdef uint16_t _sent_by_end
    cdef Span _sent_host
    cdef Span _received_at                    # ';received=...' of the top Via
    cdef uint16_t _rport_end                  # past the name of an rport without a value; 0: not asked for
    cdef str _method, _uri_text, _reason, _call_id, _cseq_method, _from_tag, _to_tag, _branch
    cdef bytes _body
    cdef object _from, _to                    # parsed once: a call asks several times
    cdef Message _came                        # what a policy has rewritten to this one; None: nothing has

    def __init__(self):
        raise TypeError("a Message comes from Message.parse()")

    def __dealloc__(self):
        free(self._lines)

    @staticmethod
    def parse(bytes data not None, *, bint stream=False):
        """Index one complete message."""
        cdef Message self = Message.__new__(Message)
        cdef const char* fault
        cdef int status = 400
        self.raw = data
        self._base = <Octets>PyBytes_AS_STRING(data)
        fault = _index(self, &status, stream, False)
        if fault != NULL:
            _refuse(data, fault, status)
        return self

    @staticmethod
    def parse_lenient(bytes data not None):
        """What can be read of a broken request, for an error response; None where none can be sent."""
        cdef Message self = Message.__new__(Message)
        cdef int status = 400
        self.raw = data
        self._base = <Octets>PyBytes_AS_STRING(data)
        _index(self, &status, False, True)
        if not self.is_request or self._sent_by_end == 0 or self.method == "ACK":
            return None
        return self

    def rewritten(self, bytes data not None):
        """The message that a policy has made of this one."""
        cdef Message other = Message.parse(data)
        other._came = self if self._came is None else self._came
        return other

    @property
    def came(self):
        return self if self._came is None else self._came

    # -- start line

    @property
    def method(self):
        """The request's method, '' for a response."""
        if self._method is None:
            self._method = self._span(self._start_first)
        return self._method

    @property
    def uri(self):
        """The Request-URI as it stands, '' for a response."""
        if self._uri_text is None:
            self._uri_text = self._span(self._start_second) if self.is_request else ""
        return self._uri_text

    @property
    def reason(self):
        """The reason phrase of a response, '' for a request."""
        if self._reason is None:
            self._reason = "" if self.is_request else self._span(self._start_second)
        return self._reason

    # -- fields that the index has found

    @property
    def call_id(self):
        if self._call_id is None:
            self._call_id = self._span(self._call_id_at)
        return self._call_id

    @property
    def cseq_method(self):
        if self._cseq_method is None:
            if self.is_request and self._cseq_method_at.length:
                self._cseq_method = self.method
            else:
                self._cseq_method = self._span(self._cseq_method_at)
        return self._cseq_method

    @property
    def from_tag(self):
        if self._from_tag is None:
            self._from_tag = self._span(self._from_tag_at)
        return self._from_tag

    @property
    def to_tag(self):
        if self._to_tag is None:
            self._to_tag = self._span(self._to_tag_at)
        return self._to_tag

    @property
    def branch(self):
        if self._branch is None:
            self._branch = self._span(self._branch_at)
        return self._branch

    @property
    def max_forwards(self):
        return None if self._max_forwards < 0 else self._max_forwards

    @property
    def body(self):
        if self._body is None:
            self._body = self.raw[self._body_at : self._body_at + self._body_length]
        return self._body

    # -- headers by name

    def get(self, str name not None):
        """First value of a header: of a list header its first element. None where there is none."""
        cdef int ident
        cdef int i = self._find(name, &ident, 0)
        if i < 0:
            return None
        if ident and ARITY[ident] == LIST:
            values = self.get_all(name)
            return values[0] if values else ""
        return self._value(&self._lines[i])

    def get_all(self, str name not None):
        """Every value of a header in order; comma lists of list headers taken apart."""
        cdef list values = []
        cdef int ident
        cdef int i = self._find(name, &ident, 0)
        while i >= 0:
            if ident and ARITY[ident] == LIST:
                self._split(&self._lines[i], values)
            else:
                values.append(self._value(&self._lines[i]))
            i = self._find(name, &ident, i + 1)
        return values

    def items(self):
        """Every header line in order: (long name, value); names that are not in the table as they came."""
        cdef list found = []
        cdef Line* line
        cdef int i
        for i in range(self._count):
            line = &self._lines[i]
            found.append((LONG_NAMES[line.id] if line.id else self._span(line.name), self._value(line)))
        return found

    def having(self, frozenset names not None):
        """The header lines whose name, in lower case, is among ``names``: as :meth:`items`, nothing else decoded."""
        cdef list found = []
        cdef Line* line
        cdef str name
        cdef int i
        for i in range(self._count):
            line = &self._lines[i]
            if line.id:
                if LOWER_NAMES[line.id] in names:
                    found.append((LONG_NAMES[line.id], self._value(line)))
            else:
                name = self._span(line.name)
                if name.lower() in names:
                    found.append((name, self._value(line)))
        return found

    def transaction_key(self, str method not None):
        """Branch, protocol and sent-by, and ``method`` in one text; '' where the branch is not unique."""
        cdef char[MAX_KEY] text
        cdef Octets p = self._base + self._branch_at.at
        cdef Octets end
        cdef Py_ssize_t n = self._branch_at.length
        cdef Py_ssize_t length
        cdef const char* name = PyUnicode_AsUTF8AndSize(method, &length)
        cdef Line* via
        if n <= 7 or memcmp(p, b"z9hG4bK", 7) != 0 or self._sent_by_end == 0:
            return ""
        via = &self._lines[self._top_via]
        if n + (self._sent_by_end - via.value.at) + length + 2 > MAX_KEY:
            return self._long_key(method)
        memcpy(text, p, n)
        text[n] = 32                                     # no part holds a blank
        n += 1
        p = self._base + via.value.at
        end = self._base + self._sent_by_end
        while p < end:                                   # blanks, folds and case do not count
            if not CLASS[p[0]] & C_SPACE:
                text[n] = _lower(p[0])
                n += 1
            p += 1
        text[n] = 32
        memcpy(text + n + 1, name, length)
        return _text(<Octets>text, n + 1 + length)

    cdef str _long_key(self, str method):
        cdef Line* via = &self._lines[self._top_via]
        sent_by = _text(self._base + via.value.at, self._sent_by_end - via.value.at)
        return f"{self.branch} {''.join(sent_by.split()).lower()} {method}"

    # -- headers with structure

    def vias(self):
        return [_parse_via(text) for text in self.get_all("Via")]

    @property
    def top_via(self):
        return _parse_via(self.get("Via") or "")

    def contact(self):
        text = self.get("Contact")
        return None if not text or text == "*" else _parse_name_addr(text)

    def from_(self):
        if self._from is None:
            self._from = _parse_name_addr(self.get("From") or "")
        return self._from

    def to(self):
        if self._to is None:
            self._to = _parse_name_addr(self.get("To") or "")
        return self._to

    def __repr__(self):
        if self.is_request:
            return f"<Message {self.method} {self.uri!r} {self.call_id!r} {self.cseq_number}>"
        return f"<Message {self.status} {self.cseq_method} {self.call_id!r} {self.cseq_number}>"

    # -- inner

    cdef inline str _span(self, Span span):
        return _text(self._base + span.at, span.length) if span.length else ""

    cdef int _find(self, str name, int* ident, int start) except -2:
        """Index of the first line from ``start`` on that bears ``name``, or -1."""
        cdef Py_ssize_t length
        cdef Octets wanted = <Octets>PyUnicode_AsUTF8AndSize(name, &length)
        cdef Octets have
        cdef Py_ssize_t j
        cdef int i
        # A name that is no token matches nothing in the table: the fold by | 0x20 is exact for tokens only.
        ident[0] = _known(wanted, length) if _skip(wanted, wanted + length, C_TOKEN) == wanted + length else 0
        if ident[0]:
            for i in range(start, self._count):
                if self._lines[i].id == ident[0]:
                    return i
            return -1
        for i in range(start, self._count):
            if self._lines[i].id or self._lines[i].name.length != length:
                continue
            have = self._base + self._lines[i].name.at
            for j in range(length):
                if _lower(have[j]) != _lower(wanted[j]):
                    break
            else:
                return i
        return -1

    cdef str _value(self, Line* line):
        return self._piece(line, line.value.at, line.value.at + line.value.length)

    cdef str _piece(self, Line* line, Py_ssize_t start, Py_ssize_t end):
        """Text of [start, end), blanks at both ends taken off, unfolded."""
        cdef Octets p = _skip_space(self._base + start, self._base + end)
        cdef Octets q = self._base + end
        cdef char* out
        while q > p and CLASS[(q - 1)[0]] & C_SPACE:
            q -= 1
        if not line.folded:
            return _text(p, q - p)
        out = <char*>malloc(q - p + 1)
        if out == NULL:
            raise MemoryError
        try:
            return _text(<Octets>out, _unfold(p, q - p, out))
        finally:
            free(out)

    cdef int _split(self, Line* line, list values) except -1:
        """Append the elements of a comma list; commas inside quotes and angle brackets do not count."""
        cdef Octets start = self._base + line.value.at
        cdef Octets end = start + line.value.length
        cdef Octets p = start
        cdef Octets q
        cdef bint angle = False
        cdef str text
        while p <= end:                    # one step past the end closes the last element
            if p == end or (p[0] == 44 and not angle):
                text = self._piece(line, start - self._base, p - self._base)
                if text:
                    values.append(text)
                start = p + 1
            elif p[0] == 92 and p + 1 < end and (p[1] == 34 or p[1] == 92):
                p += 1
            elif p[0] == 34 and not angle:
                q = _quoted(p + 1, end)
                if q != NULL:
                    p = q - 1
            elif p[0] == 60:
                angle = True
            elif p[0] == 62:
                angle = False
            p += 1
        return 0


cdef inline unsigned char _lower(unsigned char c) noexcept nogil:
    return c | 0x20 if 65 <= c <= 90 else c


# Filled by sbc/sip/message.py: the structured parsers are Python and live above this module.
_parse_via = None
_parse_name_addr = None


cdef int _refuse(bytes data, const char* fault, int status) except -1:
    raise SipSyntaxError(fault.decode(), status, droppable=Message.parse_lenient(data) is None)


include "_index.pxi"
include "_build.pxi"
include "_parts.pxi"
