/* Addresses as the kernel has them, and its clock. */
#ifndef PORTCULLIS_SOCKETS_H
#define PORTCULLIS_SOCKETS_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "rule.h"

union socket_address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

static inline uint64_t monotonic_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline void read_address(const union socket_address *from, struct address *address) {
    memset(address, 0, sizeof *address);
    address->family = from->any.sa_family;
    if (from->any.sa_family == AF_INET) {
        address->port = from->v4.sin_port;
        memcpy(address->ip, &from->v4.sin_addr, 4);
    } else {
        address->port = from->v6.sin6_port;
        memcpy(address->ip, &from->v6.sin6_addr, 16);
    }
}

static inline socklen_t write_address(const struct address *address, union socket_address *to) {
    if (address->family == AF_INET) {
        to->v4.sin_family = AF_INET;
        to->v4.sin_port = address->port;
        memcpy(&to->v4.sin_addr, address->ip, 4);
        return sizeof to->v4;
    }
    memset(&to->v6, 0, sizeof to->v6);
    to->v6.sin6_family = AF_INET6;
    to->v6.sin6_port = address->port;
    memcpy(&to->v6.sin6_addr, address->ip, 16);
    return sizeof to->v6;
}

#endif
