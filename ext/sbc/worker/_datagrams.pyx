# cython: boundscheck=False, wraparound=False, cdivision=True
"""Datagrams in batches: recvmmsg and sendmmsg on a UDP socket. Contract: ``_datagrams.pyi``."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN, EBADF, EFAULT, EINTR, EINVAL, ENOTSOCK, errno
from libc.stdint cimport uint16_t, uint32_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <sys/socket.h>
    #include <netinet/in.h>
    #include <arpa/inet.h>
    #include <errno.h>
    #include <time.h>

    /* The wall clock may be set while a datagram waits; its sender has given up after 32 s (RFC 3261 timer B). */
    #define LONGEST_S 40

    /* How long the datagram of this message has been waiting in the kernel, in seconds; 0 where it is not told. */
    static double waited_s(struct msghdr *message) {
        struct timespec now, came;
        double age;
        for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c != NULL; c = CMSG_NXTHDR(message, c)) {
            if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SO_TIMESTAMPNS) continue;
            memcpy(&came, CMSG_DATA(c), sizeof came);
            clock_gettime(CLOCK_REALTIME, &now);
            age = (double)(now.tv_sec - came.tv_sec) + (double)(now.tv_nsec - came.tv_nsec) / 1e9;
            return age > 0 && age < LONGEST_S ? age : 0;
        }
        return 0;
    }
    """
    ctypedef unsigned int socklen_t
    enum: AF_INET, AF_INET6, MSG_DONTWAIT, MSG_NOSIGNAL, INET6_ADDRSTRLEN, SOL_SOCKET, SO_TIMESTAMPNS
    struct iovec:
        void* iov_base
        size_t iov_len
    struct msghdr:
        void* msg_name
        socklen_t msg_namelen
        iovec* msg_iov
        size_t msg_iovlen
        void* msg_control
        size_t msg_controllen
    struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len
    struct timespec:
        pass
    struct in_addr:
        uint32_t s_addr
    struct in6_addr:
        unsigned char s6_addr[16]
    struct sockaddr:
        uint16_t sa_family
    struct sockaddr_in:
        uint16_t sin_family
        uint16_t sin_port
        in_addr sin_addr
    struct sockaddr_in6:
        uint16_t sin6_family
        uint16_t sin6_port
        in6_addr sin6_addr
        uint32_t sin6_scope_id
    struct sockaddr_storage:
        uint16_t ss_family
    double waited_s(msghdr* message) nogil
    int setsockopt(int fd, int level, int name, const void* value, socklen_t length) nogil
    int recvmmsg(int fd, mmsghdr* messages, unsigned int count, int flags, timespec* timeout) nogil
    int sendmmsg(int fd, mmsghdr* messages, unsigned int count, int flags) nogil
    int getsockname(int fd, sockaddr* address, socklen_t* length) nogil
    uint16_t ntohs(uint16_t value) nogil
    uint16_t htons(uint16_t value) nogil
    const char* inet_ntop(int family, const void* source, char* text, socklen_t size) nogil
    int inet_pton(int family, const char* text, void* out) nogil

cdef enum:
    LARGEST = 65536          # of a UDP datagram, rounded up
    ADDRESSES = 8192         # cached before the cache starts anew
    SEND_BATCH = 64

cdef unsigned char MAPPED[12]    # ::ffff:0:0/96, an IPv4 address on an IPv6 socket
memset(MAPPED, 0, 10)
MAPPED[10] = MAPPED[11] = 255


cdef int _family(int fd) except -1:
    cdef sockaddr_storage address
    cdef socklen_t length = sizeof(address)
    if getsockname(fd, <sockaddr*>&address, &length) < 0:
        raise OSError(errno, "not a bound socket")
    if address.ss_family != AF_INET and address.ss_family != AF_INET6:
        raise ValueError("neither an IPv4 nor an IPv6 socket")
    return address.ss_family


cdef class Reader:
    """Reads what has arrived on a UDP socket."""

    cdef readonly int errors
    cdef readonly double waited_s
    cdef long _control[8]            # aligned
    cdef int _fd
    cdef int _batch
    cdef char* _room
    cdef mmsghdr* _messages
    cdef iovec* _vectors
    cdef sockaddr_storage* _sources
    cdef dict _hosts

    def __cinit__(self, int fd, int batch=64):
        cdef int i
        cdef int on = 1
        if not 1 <= batch <= 1024:
            raise ValueError("batch is not within 1 to 1024")
        _family(fd)
        setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof(on))
        self._fd = fd
        self._batch = batch
        self._hosts = {}
        # Pages of the buffers are touched by large datagrams only, so that little of this is ever resident.
        self._room = <char*>malloc(<size_t>batch * LARGEST)
        self._messages = <mmsghdr*>calloc(batch, sizeof(mmsghdr))
        self._vectors = <iovec*>calloc(batch, sizeof(iovec))
        self._sources = <sockaddr_storage*>calloc(batch, sizeof(sockaddr_storage))
        if self._room == NULL or self._messages == NULL or self._vectors == NULL or self._sources == NULL:
            raise MemoryError
        for i in range(batch):
            self._vectors[i].iov_base = self._room + <size_t>i * LARGEST
            self._vectors[i].iov_len = LARGEST
            self._messages[i].msg_hdr.msg_iov = &self._vectors[i]
            self._messages[i].msg_hdr.msg_iovlen = 1
            self._messages[i].msg_hdr.msg_name = &self._sources[i]

    def __dealloc__(self):
        free(self._room)
        free(self._messages)
        free(self._vectors)
        free(self._sources)

    def read(self):
        """What is there, up to ``batch`` datagrams; empty where nothing is."""
        cdef int i, count
        cdef int pending = 16            # errors of earlier sends, one per call, before the datagrams behind them
        cdef list found = []
        cdef mmsghdr* message
        for i in range(self._batch):
            self._messages[i].msg_hdr.msg_namelen = sizeof(sockaddr_storage)
        self.waited_s = 0.0
        self._messages[0].msg_hdr.msg_control = self._control       # only the first tells when it came
        self._messages[0].msg_hdr.msg_controllen = sizeof(self._control)
        while True:
            # The GIL is kept: the call never waits, and a process has one signalling thread.
            count = recvmmsg(self._fd, self._messages, self._batch, MSG_DONTWAIT, NULL)
            if count >= 0:
                break
            if errno == EAGAIN:
                return found
            if errno == EBADF or errno == ENOTSOCK or errno == EFAULT or errno == EINVAL:
                raise OSError(errno, "recvmmsg failed")
            if errno != EINTR:
                self.errors += 1
                pending -= 1
                if pending == 0:
                    return found
        if count > 0:
            self.waited_s = waited_s(&self._messages[0].msg_hdr)
        for i in range(count):
            message = &self._messages[i]
            found.append(self._datagram(message, &self._sources[i]))
        return found

    cdef tuple _datagram(self, mmsghdr* message, sockaddr_storage* source):
        cdef sockaddr_in* v4 = <sockaddr_in*>source
        cdef sockaddr_in6* v6 = <sockaddr_in6*>source
        cdef bytes data = PyBytes_FromStringAndSize(<char*>message.msg_hdr.msg_iov.iov_base, message.msg_len)
        if source.ss_family == AF_INET:
            return (data, self._host(AF_INET, &v4.sin_addr, v4.sin_addr.s_addr, 0), ntohs(v4.sin_port))
        if memcmp(v6.sin6_addr.s6_addr, MAPPED, 12) == 0:
            memcpy(&v4.sin_addr.s_addr, v6.sin6_addr.s6_addr + 12, 4)
            return (data, self._host(AF_INET, &v4.sin_addr, v4.sin_addr.s_addr, 0), ntohs(v6.sin6_port))
        return (
            data,
            self._host(
                AF_INET6, &v6.sin6_addr, PyBytes_FromStringAndSize(<char*>v6.sin6_addr.s6_addr, 16), v6.sin6_scope_id
            ),
            ntohs(v6.sin6_port),
        )

    cdef str _host(self, int family, void* address, object key, uint32_t scope):
        """The canonical literal; a link-local address with its zone index."""
        cdef char text[64]
        if scope:
            key = (key, scope)
        host = self._hosts.get(key)
        if host is None:
            inet_ntop(family, address, text, sizeof(text))
            host = (<bytes>text).decode("ascii") + (f"%{scope}" if scope else "")
            if len(self._hosts) >= ADDRESSES:
                self._hosts.clear()
            self._hosts[key] = host
        return host


cdef class Writer:
    """Sends datagrams on a UDP socket."""

    cdef readonly long dropped
    cdef readonly long failed
    cdef int _fd
    cdef int _family
    cdef dict _addresses

    def __cinit__(self, int fd):
        self._family = _family(fd)
        self._fd = fd
        self._addresses = {}

    def send(self, list items not None):
        """Send (data, host, port) items in order; answers how many the kernel took."""
        cdef mmsghdr messages[SEND_BATCH]
        cdef iovec vectors[SEND_BATCH]
        cdef sockaddr_storage targets[SEND_BATCH]
        cdef Py_ssize_t at = 0, total = len(items)
        cdef Py_ssize_t sent = 0
        cdef int n, taken, done
        cdef bint again = False
        cdef bytes data, packed
        cdef str host
        cdef int port
        memset(messages, 0, sizeof(messages))
        while at < total:
            n = 0
            while at < total and n < SEND_BATCH:
                data, host, port = items[at]
                at += 1
                packed = self._packed(host)
                if packed is None or not 0 < port < 65536:
                    self.failed += 1
                    continue
                memcpy(&targets[n], PyBytes_AS_STRING(packed), PyBytes_GET_SIZE(packed))
                # sin_port and sin6_port share their place
                (<sockaddr_in*>&targets[n]).sin_port = htons(<uint16_t>port)
                vectors[n].iov_base = PyBytes_AS_STRING(data)       # ``items`` keeps it alive
                vectors[n].iov_len = PyBytes_GET_SIZE(data)
                messages[n].msg_hdr.msg_name = &targets[n]
                messages[n].msg_hdr.msg_namelen = <socklen_t>PyBytes_GET_SIZE(packed)
                messages[n].msg_hdr.msg_iov = &vectors[n]
                messages[n].msg_hdr.msg_iovlen = 1
                n += 1
            done = 0
            again = False
            while done < n:
                taken = sendmmsg(self._fd, messages + done, n - done, MSG_DONTWAIT | MSG_NOSIGNAL)
                if taken > 0:
                    done += taken
                    sent += taken
                    again = False
                elif errno == EINTR:
                    continue
                elif errno == EAGAIN:
                    # The queue of the interface is full. SIP retransmits; to wait would stop every other call.
                    self.dropped += (n - done) + (total - at)
                    return sent
                elif errno == EBADF or errno == ENOTSOCK or errno == EFAULT:
                    raise OSError(errno, "sendmmsg failed")
                elif not again:
                    again = True         # the error may be that of an earlier datagram (ICMP): try once more
                else:
                    self.failed += 1
                    done += 1
                    again = False
        return sent

    cdef bytes _packed(self, str host):
        """The socket address of ``host`` with port 0; None where it is no literal that this socket can send to."""
        cdef sockaddr_in v4
        cdef sockaddr_in6 v6
        cdef bytes literal
        packed = self._addresses.get(host)
        if packed is not None:
            return packed
        zone = 0
        address, percent, scope = host.partition("%")
        if percent:
            if not (scope.isascii() and scope.isdigit()) or len(scope) > 9:
                return None
            zone = int(scope)
        if not address.isascii():
            return None
        literal = address.encode("ascii")
        memset(&v4, 0, sizeof(v4))
        memset(&v6, 0, sizeof(v6))
        if self._family == AF_INET:
            v4.sin_family = AF_INET
            if inet_pton(AF_INET, PyBytes_AS_STRING(literal), &v4.sin_addr) != 1:
                return None
            packed = PyBytes_FromStringAndSize(<char*>&v4, sizeof(v4))
        else:
            v6.sin6_family = AF_INET6
            v6.sin6_scope_id = zone
            if inet_pton(AF_INET6, PyBytes_AS_STRING(literal), &v6.sin6_addr) != 1:
                if inet_pton(AF_INET, PyBytes_AS_STRING(literal), v6.sin6_addr.s6_addr + 12) != 1:
                    return None
                memcpy(v6.sin6_addr.s6_addr, MAPPED, 12)
            packed = PyBytes_FromStringAndSize(<char*>&v6, sizeof(v6))
        if len(self._addresses) >= ADDRESSES:
            self._addresses.clear()
        self._addresses[host] = packed
        return packed
