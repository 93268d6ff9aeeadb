cimport cython


cdef class _Fifo:
    cdef readonly object entries
    cdef readonly double delay_s
    cdef readonly long dead
    cdef readonly bint in_heap


cdef class Timer:
    cdef readonly double deadline
    cdef object _callback
    cdef _Fifo _fifo

    @cython.locals(fifo=_Fifo)
    cpdef cancel(self)


cdef class TimerQueue:
    cdef readonly double now
    cdef readonly dict _fifos
    cdef readonly list _heap
    cdef long _serial

    @cython.locals(fifo=_Fifo, timer=Timer)
    cpdef Timer start(self, double delay_s, callback, double now)
    @cython.locals(fifo=_Fifo, head=Timer, deadline=double)
    cpdef next_deadline(self)
    @cython.locals(fifo=_Fifo, head=Timer, deadline=double)
    cpdef fire(self, double now)
    cdef _Fifo _fifo(self, double delay_s)
    cdef _settle(self, Timer head, _Fifo fifo)
    cdef _push(self, double deadline, _Fifo fifo)


@cython.locals(timer=Timer)
cdef Timer _head(_Fifo fifo)
