from sbc.transaction.machine cimport Transaction


cdef class ServerTransaction(Transaction):
    cdef readonly object request
    cdef readonly object key
    cdef readonly int last_status
    cdef public object user
    cdef public object on_failure
    cdef object _merge_key
    cdef bytes _data

    cpdef respond(self, int status, bytes data, now)


cdef class InviteServer(ServerTransaction):
    pass


cdef class NonInviteServer(ServerTransaction):
    pass
