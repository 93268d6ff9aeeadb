from sbc.transaction.timers cimport TimerQueue


cdef class TransactionLayer:
    cdef readonly TimerQueue timers
    cdef readonly object settings
    cdef readonly object transmit
    cdef readonly object count
    cdef readonly object oversize
    cdef readonly dict _clients
    cdef readonly dict _servers
    cdef readonly dict _initial
    cdef tuple _unreliable
    cdef tuple _reliable

    cpdef tuple delays(self, flow)
    cpdef forget_client(self, tx)
    cpdef forget_server(self, tx, merge_key)
