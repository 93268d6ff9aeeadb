/* SRTP (RFC 3711) with AES_CM_128_HMAC_SHA1_80 for the generator: one context for each stream. */
#ifndef BENCH_SRTP_H
#define BENCH_SRTP_H
#include <stddef.h>
#include <stdint.h>

enum { SRTP_MASTER_BYTES = 30, SRTP_TAG_BYTES = 10, RTP_HEADER_BYTES = 12 };

struct srtp;

/* A context for the master key and salt given as 60 hexadecimal digits, NULL when they are none. */
struct srtp *srtp_new(const char *master_hex);
/* Encrypt `size` octets of RTP in place and append the tag; `index` is rollover counter << 16 | sequence number. */
void srtp_protect(struct srtp *s, uint8_t *packet, size_t size, uint64_t index);
/* Check the tag and decrypt in place; `size` counts the tag. Returns the size of the RTP packet, 0 when it is forged. */
size_t srtp_unprotect(struct srtp *s, uint8_t *packet, size_t size, uint64_t index);

#endif
