from sbc.transaction.machine cimport Transaction


cdef class ClientTransaction(Transaction):
    cdef readonly str branch
    cdef public object user
    cdef readonly str reason
    cdef readonly int last_status
    cdef bytes _data
    cdef bytes _cancel_data
    cdef bytes _ack
    cdef public tuple _narrow

    cpdef _receive(self, message, now)
    cdef _note_timer(self, int event)


cdef class InviteClient(ClientTransaction):
    pass


cdef class NonInviteClient(ClientTransaction):
    pass
