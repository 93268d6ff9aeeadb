#include "srtp.h"

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct srtp {
    EVP_CIPHER_CTX *cipher;
    EVP_MAC_CTX *mac;
    uint8_t salt[14];
};

/* RFC 3711 §4.3.3: the keystream of the master key at (label XOR master salt) * 2^16. */
static int derive(const uint8_t *master, uint8_t label, uint8_t *out, int size) {
    uint8_t iv[16] = {0}, zeros[32] = {0};
    int written;
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    memcpy(iv, master + 16, 14);
    iv[7] ^= label;
    int ok = ctx && EVP_EncryptInit_ex(ctx, EVP_aes_128_ctr(), NULL, master, iv)
        && EVP_EncryptUpdate(ctx, out, &written, zeros, size);
    EVP_CIPHER_CTX_free(ctx);
    return ok;
}

struct srtp *srtp_new(const char *master_hex) {
    uint8_t master[SRTP_MASTER_BYTES], key[16], auth[20];
    struct srtp *s = calloc(1, sizeof *s);
    if (!s || strlen(master_hex) != 2 * SRTP_MASTER_BYTES) return NULL;
    for (int i = 0; i < SRTP_MASTER_BYTES; i++)
        if (sscanf(master_hex + 2 * i, "%2hhx", &master[i]) != 1) return NULL;
    if (!derive(master, 0, key, 16) || !derive(master, 1, auth, 20) || !derive(master, 2, s->salt, 14)) return NULL;
    static EVP_MAC *hmac;
    if (!hmac) hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, "SHA1", 0), OSSL_PARAM_END};
    s->cipher = EVP_CIPHER_CTX_new();
    s->mac = EVP_MAC_CTX_new(hmac);
    if (!s->cipher || !s->mac || !EVP_EncryptInit_ex(s->cipher, EVP_aes_128_ctr(), NULL, key, NULL)
        || !EVP_MAC_init(s->mac, auth, sizeof auth, params))
        return NULL;
    return s;
}

/* RFC 3711 §4.1.1: IV = salt * 2^16 XOR SSRC * 2^64 XOR index * 2^16. */
static void crypt(struct srtp *s, uint8_t *packet, size_t size, uint64_t index) {
    uint8_t iv[16] = {0};
    int written;
    memcpy(iv, s->salt, 14);
    for (int i = 0; i < 4; i++) iv[4 + i] ^= packet[8 + i];
    for (int i = 0; i < 6; i++) iv[8 + i] ^= (uint8_t)(index >> (40 - 8 * i));
    EVP_EncryptInit_ex(s->cipher, NULL, NULL, NULL, iv);
    EVP_EncryptUpdate(s->cipher, packet + RTP_HEADER_BYTES, &written, packet + RTP_HEADER_BYTES,
                      (int)(size - RTP_HEADER_BYTES));
}

/* §4.2: the HMAC covers the packet and the rollover counter. */
static void tag_of(struct srtp *s, const uint8_t *packet, size_t size, uint64_t index, uint8_t tag[20]) {
    uint32_t rollover = (uint32_t)(index >> 16);
    uint8_t counter[4] = {(uint8_t)(rollover >> 24), (uint8_t)(rollover >> 16), (uint8_t)(rollover >> 8),
                          (uint8_t)rollover};
    size_t written;
    EVP_MAC_init(s->mac, NULL, 0, NULL);
    EVP_MAC_update(s->mac, packet, size);
    EVP_MAC_update(s->mac, counter, 4);
    EVP_MAC_final(s->mac, tag, &written, 20);
}

void srtp_protect(struct srtp *s, uint8_t *packet, size_t size, uint64_t index) {
    uint8_t tag[20];
    crypt(s, packet, size, index);
    tag_of(s, packet, size, index, tag);
    memcpy(packet + size, tag, SRTP_TAG_BYTES);
}

size_t srtp_unprotect(struct srtp *s, uint8_t *packet, size_t size, uint64_t index) {
    uint8_t tag[20];
    if (size <= RTP_HEADER_BYTES + SRTP_TAG_BYTES) return 0;
    size -= SRTP_TAG_BYTES;
    tag_of(s, packet, size, index, tag);
    if (memcmp(tag, packet + size, SRTP_TAG_BYTES)) return 0;
    crypt(s, packet, size, index);
    return size;
}
