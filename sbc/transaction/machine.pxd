from sbc.transaction.timers cimport Timer, TimerQueue


cdef class Transaction:
    cdef readonly str method
    cdef public object flow
    cdef readonly int state
    cdef object _layer
    cdef TimerQueue _queue
    cdef tuple _delays
    cdef Timer _repeat
    cdef Timer _end
    cdef double _interval_s

    cpdef _step(self, int event, message, now)
    cpdef _leave(self)
    cpdef _enter(self, int state, now)
    cdef _repeat_after(self, double delay_s, now)
    cdef _end_after(self, double delay_s, now)
