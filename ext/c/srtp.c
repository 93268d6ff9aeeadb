#include "srtp.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <stdlib.h>
#include <string.h>

#include "octets.h"

#define NO_INDEX UINT64_MAX
#define LAST_INDEX (((uint64_t)1 << 48) - 1)
#define LAST_RTCP_INDEX 0x7fffffffu
#define ENCRYPTED 0x80000000u /* E of SRTCP */
#define RTCP_HEADER 8

enum cipher { NO_CIPHER, CTR_128, CTR_256, GCM_128, GCM_256, CIPHERS };

struct suite {
    uint8_t cipher, key_bytes, salt_bytes, tag_bytes, rtcp_tag_bytes;
};

/* RFC 3711 §8.2, RFC 4568 §6.2, RFC 6188, RFC 7714 §12; SRTCP never has the short tag. */
static const struct suite SUITES[SRTP_SUITES] = {
    [AES_CM_128_HMAC_SHA1_80] = {CTR_128, 16, 14, 10, 10}, [AES_CM_128_HMAC_SHA1_32] = {CTR_128, 16, 14, 4, 10},
    [AES_256_CM_HMAC_SHA1_80] = {CTR_256, 32, 14, 10, 10}, [AES_256_CM_HMAC_SHA1_32] = {CTR_256, 32, 14, 4, 10},
    [AEAD_AES_128_GCM] = {GCM_128, 16, 12, 16, 16},        [AEAD_AES_256_GCM] = {GCM_256, 32, 12, 16, 16},
    [NULL_HMAC_SHA1_80] = {NO_CIPHER, 16, 14, 10, 10},
};

struct srtp_engine {
    EVP_CIPHER_CTX *cipher[CIPHERS];
    EVP_MAC_CTX *hmac;
};

static inline void write32(uint8_t *p, uint32_t value) {
    p[0] = (uint8_t)(value >> 24);
    p[1] = (uint8_t)(value >> 16);
    p[2] = (uint8_t)(value >> 8);
    p[3] = (uint8_t)value;
}

static inline int is_aead(const struct suite *suite) { return suite->cipher >= GCM_128; }

static inline int counter_of(const struct suite *suite) { return suite->key_bytes == 16 ? CTR_128 : CTR_256; }

/* The caller has checked that it fits: RFC 3550 §5.1, CSRC list and header extension. */
static uint32_t header_bytes(const uint8_t *data) {
    uint32_t header = 12 + 4 * (uint32_t)(data[0] & 15);
    if (data[0] & 16) header += 4 + 4 * (uint32_t)(data[header + 2] << 8 | data[header + 3]);
    return header;
}

struct srtp_engine *srtp_engine_new(void) {
    static const char *const names[CIPHERS] = {NULL, "AES-128-CTR", "AES-256-CTR", "AES-128-GCM", "AES-256-GCM"};
    const OSSL_PARAM sha1[] = {OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, "SHA1", 0), OSSL_PARAM_END};
    struct srtp_engine *engine = calloc(1, sizeof *engine);
    int sound = engine != NULL;
    for (int i = CTR_128; sound && i < CIPHERS; i++) {
        EVP_CIPHER *cipher = EVP_CIPHER_fetch(NULL, names[i], NULL);
        engine->cipher[i] = EVP_CIPHER_CTX_new();
        sound = cipher && engine->cipher[i] && EVP_EncryptInit_ex2(engine->cipher[i], cipher, NULL, NULL, NULL);
        EVP_CIPHER_free(cipher);
    }
    if (sound) {
        EVP_MAC *hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);
        engine->hmac = hmac ? EVP_MAC_CTX_new(hmac) : NULL;
        sound = engine->hmac && EVP_MAC_CTX_set_params(engine->hmac, sha1);
        EVP_MAC_free(hmac);
    }
    if (sound) return engine;
    srtp_engine_free(engine);
    return NULL;
}

void srtp_engine_free(struct srtp_engine *engine) {
    if (!engine) return;
    for (int i = 0; i < CIPHERS; i++) EVP_CIPHER_CTX_free(engine->cipher[i]);
    EVP_MAC_CTX_free(engine->hmac);
    free(engine);
}

int srtp_hmac_sha1(struct srtp_engine *engine, const uint8_t *key, uint32_t key_bytes, const uint8_t *data, uint32_t size,
                   uint8_t tag[20]) {
    size_t written;
    return EVP_MAC_init(engine->hmac, key, key_bytes, NULL) && EVP_MAC_update(engine->hmac, data, size) &&
           EVP_MAC_final(engine->hmac, tag, &written, 20);
}

uint32_t srtp_master_bytes(int suite) {
    return suite > SRTP_NO_SUITE && suite < SRTP_SUITES ? (uint32_t)(SUITES[suite].key_bytes + SUITES[suite].salt_bytes)
                                                        : 0;
}

/* Keystream onto `size` octets. */
static int counter_mode(EVP_CIPHER_CTX *ctx, const uint8_t *key, const uint8_t iv[16], uint8_t *data, uint32_t size) {
    int written;
    return EVP_EncryptInit_ex2(ctx, NULL, key, iv, NULL) && EVP_EncryptUpdate(ctx, data, &written, data, (int)size);
}

/* RFC 3711 §4.3.1 and §4.3.3 with a key derivation rate of 0; RFC 7714 §11 pads its salt with zeros on the right. */
static int derive(struct srtp_engine *engine, const struct suite *suite, const uint8_t *master, uint8_t label,
                  uint8_t *out, uint32_t size) {
    uint8_t iv[16] = {0};
    memcpy(iv, master + suite->key_bytes, suite->salt_bytes);
    iv[7] ^= label;
    memset(out, 0, size);
    return counter_mode(engine->cipher[counter_of(suite)], master, iv, out, size);
}

int srtp_install(struct srtp_engine *engine, struct srtp_stream *s, int number, const uint8_t *master,
                 uint32_t master_bytes, const uint8_t *mki, uint32_t mki_bytes) {
    if (!master_bytes || master_bytes != srtp_master_bytes(number) || mki_bytes > SRTP_MKI) return -1;
    const struct suite *suite = &SUITES[number];
    OPENSSL_cleanse(s, sizeof *s);
    memcpy(s->master, master, master_bytes);
    memcpy(s->mki, mki, mki_bytes);
    s->mki_bytes = (uint8_t)mki_bytes;
    for (uint8_t rtcp = 0; rtcp < 2; rtcp++) {
        struct srtp_keys *keys = rtcp ? &s->rtcp : &s->rtp;
        uint8_t label = rtcp ? 3 : 0;
        if (!derive(engine, suite, master, label, keys->cipher, suite->key_bytes) ||
            !derive(engine, suite, master, label + 1, keys->auth, sizeof keys->auth) ||
            !derive(engine, suite, master, label + 2, keys->salt, suite->salt_bytes))
            return -1;
    }
    s->suite = (uint8_t)number;
    return 0;
}

/* RFC 3711 appendix A. Before the first rollover there is no counter one lower. */
static uint64_t estimate(uint64_t latest, uint16_t sequence) {
    uint64_t rollovers = latest >> 16;
    uint16_t last = (uint16_t)latest;
    if (last < 0x8000) {
        if (rollovers && sequence - last > 0x8000) rollovers--;
    } else if (last - 0x8000 > sequence) {
        rollovers++;
    }
    return rollovers << 16 | sequence;
}

/* §3.3.2. Is the index used, or too old to know? */
static int is_used(const uint64_t window[2], uint64_t latest, uint64_t index) {
    if (index > latest) return 0;
    uint64_t behind = latest - index;
    return behind >= SRTP_WINDOW || window[behind >> 6] >> (behind & 63) & 1;
}

static void use(uint64_t window[2], uint64_t *latest, uint64_t index) {
    if (index > *latest || !(window[0] | window[1])) {
        uint64_t ahead = index - *latest;
        if (!(window[0] | window[1]) || ahead >= SRTP_WINDOW) {
            window[1] = 0;
            window[0] = 1;
        } else {
            window[1] = ahead >= 64 ? window[0] << (ahead - 64) : window[1] << ahead | window[0] >> 1 >> (63 - ahead);
            window[0] = ahead >= 64 ? 1 : window[0] << ahead | 1;
        }
        __asm__ volatile("" ::: "memory"); /* a successor must never find an index ahead of its window */
        *latest = index;
    } else {
        uint64_t behind = *latest - index;
        window[behind >> 6] |= (uint64_t)1 << (behind & 63);
    }
}

static inline int has_rtp(const struct srtp_source *source) { return (source->window[0] | source->window[1]) != 0; }

static struct srtp_source *find(struct srtp_stream *s, uint32_t ssrc) {
    for (int i = 0; i < s->sources; i++)
        if (s->source[i].ssrc == ssrc) return &s->source[i];
    return NULL;
}

/* Room for one more source. Of the sending side none is ever forgotten: its indices could be used a second time. */
static struct srtp_source *add(struct srtp_stream *s, uint32_t ssrc, int receiving) {
    int at = s->sources;
    if (at == SRTP_SOURCES) {
        if (!receiving) return NULL;
        at = s->next;
        s->next = (uint8_t)((s->next + 1) % SRTP_SOURCES);
    }
    memset(&s->source[at], 0, sizeof s->source[at]);
    s->source[at].ssrc = ssrc;
    if (s->sources < SRTP_SOURCES) s->sources++;
    return &s->source[at];
}

/* §4.1.1: salt * 2^16 XOR SSRC * 2^64 XOR index * 2^16; the index of SRTCP has 31 bits. */
static void counter_iv(const struct srtp_keys *keys, uint32_t ssrc, uint64_t index, uint8_t iv[16]) {
    memcpy(iv, keys->salt, 14);
    iv[14] = iv[15] = 0;
    for (int i = 0; i < 4; i++) iv[4 + i] ^= (uint8_t)(ssrc >> (24 - 8 * i));
    for (int i = 0; i < 6; i++) iv[8 + i] ^= (uint8_t)(index >> (40 - 8 * i));
}

/* RFC 7714 §8.1 and §9.1: two zero octets, SSRC, the index in six octets; XOR salt. */
static void aead_iv(const struct srtp_keys *keys, uint32_t ssrc, uint64_t index, uint8_t iv[12]) {
    memcpy(iv, keys->salt, 12);
    for (int i = 0; i < 4; i++) iv[2 + i] ^= (uint8_t)(ssrc >> (24 - 8 * i));
    for (int i = 0; i < 6; i++) iv[6 + i] ^= (uint8_t)(index >> (40 - 8 * i));
}

/* RFC 3711 §4.2: HMAC over the packet and `more` (the rollover counter; of SRTCP it is part of the packet). */
static int hmac_tag(struct srtp_engine *engine, const struct srtp_keys *keys, const uint8_t *data, uint32_t size,
                    const uint8_t *more, uint32_t more_size, uint8_t tag[20]) {
    size_t written;
    return EVP_MAC_init(engine->hmac, keys->auth, sizeof keys->auth, NULL) && EVP_MAC_update(engine->hmac, data, size) &&
           EVP_MAC_update(engine->hmac, more, more_size) && EVP_MAC_final(engine->hmac, tag, &written, 20);
}

struct sealed { /* a packet apart: what is only authenticated, and what is encrypted too */
    uint8_t *clear, *secret;
    uint32_t clear_bytes, secret_bytes;
    const uint8_t *more; /* authenticated last: the rollover counter with HMAC, the SRTCP word */
    uint32_t more_bytes, ssrc;
    uint64_t index;
    uint8_t *tag;
    uint32_t tag_bytes;
};

/* RFC 7714: encrypt and write the tag, or check the tag and decrypt. */
static int aead(EVP_CIPHER_CTX *ctx, const struct srtp_keys *keys, const struct sealed *p, int encrypt) {
    uint8_t iv[12], *secret = p->secret;
    int n;
    aead_iv(keys, p->ssrc, p->index, iv);
    if (!EVP_CipherInit_ex2(ctx, NULL, keys->cipher, iv, encrypt, NULL)) return 0;
    if (!encrypt && EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, 16, p->tag) <= 0) return 0;
    if (!EVP_CipherUpdate(ctx, NULL, &n, p->clear, (int)p->clear_bytes)) return 0;
    if (p->more_bytes && !EVP_CipherUpdate(ctx, NULL, &n, p->more, (int)p->more_bytes)) return 0;
    if (p->secret_bytes && !EVP_CipherUpdate(ctx, secret, &n, secret, (int)p->secret_bytes)) return 0;
    if (EVP_CipherFinal_ex(ctx, secret + p->secret_bytes, &n) <= 0) return 0;
    return !encrypt || EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, 16, p->tag) > 0;
}

static int crypt_payload(struct srtp_engine *engine, const struct suite *suite, const struct srtp_keys *keys,
                         const struct sealed *p) {
    uint8_t iv[16];
    if (suite->cipher == NO_CIPHER || !p->secret_bytes) return 1;
    counter_iv(keys, p->ssrc, p->index, iv);
    return counter_mode(engine->cipher[suite->cipher], keys->cipher, iv, p->secret, p->secret_bytes);
}

/* Does the tag belong to the packet under this index? HMAC suites leave the payload alone. */
static int is_authentic(struct srtp_engine *engine, const struct srtp_keys *keys, const struct sealed *p) {
    uint8_t tag[20];
    return hmac_tag(engine, keys, p->clear, p->clear_bytes + p->secret_bytes, p->more, p->more_bytes, tag) &&
           CRYPTO_memcmp(tag, p->tag, p->tag_bytes) == 0;
}

/* AEAD authenticates while it decrypts: the octets of a failed attempt are put back for the next. */
static int open_packet(struct srtp_engine *engine, const struct suite *suite, const struct srtp_keys *keys,
                       const struct sealed *p) {
    if (!is_aead(suite)) return is_authentic(engine, keys, p) && crypt_payload(engine, suite, keys, p);
    if (aead(engine->cipher[suite->cipher], keys, p, 0)) return 1;
    uint8_t iv[16] = {0}; /* counter mode is its own inverse: the same keystream restores what came */
    aead_iv(keys, p->ssrc, p->index, iv);
    iv[15] = 2; /* SP 800-38D: the payload begins with the counter at 2 */
    if (p->secret_bytes) counter_mode(engine->cipher[counter_of(suite)], keys->cipher, iv, p->secret, p->secret_bytes);
    return 0;
}

static int seal_packet(struct srtp_engine *engine, const struct suite *suite, const struct srtp_keys *keys,
                       const struct sealed *p) {
    uint8_t tag[20];
    if (is_aead(suite)) return aead(engine->cipher[suite->cipher], keys, p, 1);
    if (!crypt_payload(engine, suite, keys, p)) return 0;
    if (!hmac_tag(engine, keys, p->clear, p->clear_bytes + p->secret_bytes, p->more, p->more_bytes, tag)) return 0;
    memcpy(p->tag, tag, p->tag_bytes);
    return 1;
}

/* Indices that the next packet of a source may have, the likeliest first. A source that is new to this key has begun at
   rollover 0, or wrapped before we heard it, or goes on from the former key (§3.3.1: re-keying resets no counter). */
static int candidates(const struct srtp_source *known, const struct srtp_source *former, uint16_t sequence,
                      uint64_t index[3]) {
    int count = 0;
    if (known && has_rtp(known)) {
        index[0] = estimate(known->latest, sequence);
        return 1;
    }
    index[count++] = sequence;
    if (former && has_rtp(former) && estimate(former->latest, sequence) != sequence)
        index[count++] = estimate(former->latest, sequence);
    if (sequence < 0x8000) index[count++] = (uint64_t)0x10000 | sequence;
    return count;
}

static enum reason unprotect_rtp(struct srtp_engine *engine, struct srtp_stream *s, struct srtp_stream *former,
                                 uint8_t *data, uint32_t *length) {
    const struct suite *suite = &SUITES[s->suite];
    uint32_t header = header_bytes(data), trailer = (uint32_t)suite->tag_bytes + s->mki_bytes;
    uint16_t sequence = (uint16_t)(data[2] << 8 | data[3]);
    uint64_t index[3];
    uint8_t rollovers[4];
    if (*length < header + trailer) return SHORT;
    struct sealed p = {.clear = data, .clear_bytes = header, .secret = data + header, .ssrc = read32(data + 8)};
    p.secret_bytes = *length - header - trailer;
    p.tag_bytes = suite->tag_bytes;
    p.tag = is_aead(suite) ? p.secret + p.secret_bytes : data + *length - suite->tag_bytes;
    if (memcmp(p.secret + p.secret_bytes + (is_aead(suite) ? suite->tag_bytes : 0), s->mki, s->mki_bytes) != 0)
        return AUTH_FAILED;
    if (!is_aead(suite)) {
        p.more = rollovers;
        p.more_bytes = 4;
    }
    struct srtp_source *source = find(s, p.ssrc);
    int count = candidates(source, former->suite ? find(former, p.ssrc) : NULL, sequence, index);
    for (int i = 0; i < count; i++) {
        if (source && has_rtp(source) && is_used(source->window, source->latest, index[i])) return REPLAYED;
        if (index[i] > LAST_INDEX) return AUTH_FAILED;
        p.index = index[i];
        write32(rollovers, (uint32_t)(p.index >> 16));
        if (!open_packet(engine, suite, &s->rtp, &p)) continue;
        if (!source) source = add(s, p.ssrc, 1); /* only now: whoever has no key makes no source */
        use(source->window, &source->latest, p.index);
        *length = header + p.secret_bytes;
        return FORWARD;
    }
    return AUTH_FAILED;
}

/* §3.4. With HMAC the tag is last; RFC 7714 §9.3 puts it before the index. */
static enum reason unprotect_rtcp(struct srtp_engine *engine, struct srtp_stream *s, uint8_t *data, uint32_t *length) {
    const struct suite *suite = &SUITES[s->suite];
    uint32_t tag_bytes = suite->rtcp_tag_bytes, trailer = 4 + tag_bytes + s->mki_bytes;
    if (*length < RTCP_HEADER + trailer) return SHORT;
    uint32_t body = *length - trailer;
    uint8_t *word = data + body + (is_aead(suite) ? tag_bytes : 0);
    uint32_t value = read32(word), index = value & LAST_RTCP_INDEX;
    if (memcmp(word + 4, s->mki, s->mki_bytes) != 0) return AUTH_FAILED;
    struct sealed p = {.clear = data, .clear_bytes = RTCP_HEADER, .secret = data + RTCP_HEADER, .ssrc = read32(data + 4)};
    p.secret_bytes = body - RTCP_HEADER;
    p.index = index;
    p.more = word;
    p.more_bytes = 4;
    p.tag = is_aead(suite) ? data + body : data + *length - tag_bytes;
    p.tag_bytes = tag_bytes;
    if (!(value & ENCRYPTED)) { /* authenticated only */
        p.clear_bytes = body;
        p.secret_bytes = 0;
    }
    struct srtp_source *source = find(s, p.ssrc);
    int heard = source && (source->rtcp_window[0] | source->rtcp_window[1]);
    uint64_t latest = source ? source->rtcp_latest : 0;
    if (heard && is_used(source->rtcp_window, latest, index)) return REPLAYED;
    if (!open_packet(engine, suite, &s->rtcp, &p)) return AUTH_FAILED;
    if (!source) source = add(s, p.ssrc, 1);
    use(source->rtcp_window, &latest, index);
    source->rtcp_latest = (uint32_t)latest;
    *length = body;
    return FORWARD;
}

enum reason srtp_unprotect(struct srtp_engine *engine, struct srtp_leg *leg, int rtcp, uint8_t *data, uint32_t *length) {
    struct srtp_stream *in = &leg->in, *former = &leg->former;
    if (!in->suite) return NO_KEY;
    enum reason reason =
        rtcp ? unprotect_rtcp(engine, in, data, length) : unprotect_rtp(engine, in, former, data, length);
    if (!former->suite) return reason;
    if (reason == FORWARD) {
        if (--leg->grace == 0) OPENSSL_cleanse(former, sizeof *former);
        return reason;
    }
    /* The leg may not have begun to use its new key. */
    enum reason second =
        rtcp ? unprotect_rtcp(engine, former, data, length) : unprotect_rtp(engine, former, former, data, length);
    return second == FORWARD ? FORWARD : reason;
}

/* A source that is new since a take-over. Where we number its packets ourselves it begins behind what may be used. */
static struct srtp_source *add_unsure(struct srtp_stream *s, uint32_t ssrc, uint16_t sequence) {
    struct srtp_source *source = add(s, ssrc, 0);
    if (source && sequence <= s->unsure) s->doubtful |= (uint16_t)(1u << (source - s->source));
    if (source && s->renumbered) {
        source->latest = (uint64_t)sequence + s->unsure;
        source->window[0] = source->window[1] = UINT64_MAX;
    }
    return source;
}

/* If a doubtful source had rolled over, these are the indices that it used; nobody has noticed, so they come again. */
static int is_doubtful(const struct srtp_stream *s, const struct srtp_source *source, uint64_t index) {
    if (!(s->doubtful >> (source - s->source) & 1)) return 0;
    return index + s->unsure >= 0x10000 && index <= (uint64_t)0x10000 + s->unsure;
}

static enum reason protect_rtp(struct srtp_engine *engine, struct srtp_stream *s, uint8_t *data, uint32_t *length) {
    const struct suite *suite = &SUITES[s->suite];
    uint32_t header = header_bytes(data), ssrc = read32(data + 8);
    uint16_t sequence = (uint16_t)(data[2] << 8 | data[3]);
    uint8_t rollovers[4];
    struct srtp_source *source = find(s, ssrc);
    if (!source && !(source = s->unsure ? add_unsure(s, ssrc, sequence) : add(s, ssrc, 0))) return SOURCES_FULL;
    uint64_t index = has_rtp(source) ? estimate(source->latest, sequence) : sequence;
    if (index > LAST_INDEX) return KEY_SPENT;
    if (s->doubtful && is_doubtful(s, source, index)) return INDEX_USED;
    if (has_rtp(source) && is_used(source->window, source->latest, index)) return INDEX_USED;
    use(source->window, &source->latest, index); /* before anything is encrypted: it is used, whatever comes */
    write32(rollovers, (uint32_t)(index >> 16));
    struct sealed p = {.clear = data, .clear_bytes = header, .secret = data + header, .ssrc = ssrc, .index = index};
    p.secret_bytes = *length - header;
    p.more = rollovers;
    p.more_bytes = is_aead(suite) ? 0 : 4;
    p.tag = data + *length;
    p.tag_bytes = suite->tag_bytes;
    if (!seal_packet(engine, suite, &s->rtp, &p)) return NO_KEY;
    *length += suite->tag_bytes;
    return FORWARD;
}

static enum reason protect_rtcp(struct srtp_engine *engine, struct srtp_stream *s, uint8_t *data, uint32_t *length) {
    const struct suite *suite = &SUITES[s->suite];
    uint32_t tag_bytes = suite->rtcp_tag_bytes, ssrc = read32(data + 4);
    if (s->rtcp_index >= LAST_RTCP_INDEX) return KEY_SPENT;
    uint32_t index = ++s->rtcp_index;
    __asm__ volatile("" ::: "memory");
    uint8_t *word = data + *length + (is_aead(suite) ? tag_bytes : 0);
    uint8_t *tag = is_aead(suite) ? data + *length : word + 4;
    write32(word, suite->cipher == NO_CIPHER ? index : index | ENCRYPTED);
    struct sealed p = {.clear = data, .clear_bytes = RTCP_HEADER, .secret = data + RTCP_HEADER, .ssrc = ssrc};
    p.secret_bytes = *length - RTCP_HEADER;
    p.index = index;
    p.more = word;
    p.more_bytes = 4;
    p.tag = tag;
    p.tag_bytes = tag_bytes;
    if (!seal_packet(engine, suite, &s->rtcp, &p)) return NO_KEY;
    *length += 4 + tag_bytes;
    return FORWARD;
}

enum reason srtp_protect(struct srtp_engine *engine, struct srtp_leg *leg, int rtcp, uint8_t *data, uint32_t *length) {
    struct srtp_stream *out = &leg->out;
    if (!out->suite) return NO_KEY;
    return rtcp ? protect_rtcp(engine, out, data, length) : protect_rtp(engine, out, data, length);
}
