/* Quality of a call while it runs: what RTCP that passes through tells, a sample of each second, and who should send
   but does not. media/samples.py mirrors the memory field by field, media/reference_quality.py does the same in Python. */
#ifndef PORTCULLIS_QUALITY_H
#define PORTCULLIS_QUALITY_H

#include "rule.h"

#define SAMPLES 60         /* seconds that are kept */
#define SENT_REPORTS 4     /* sender reports that are remembered: the far end may name one before the last */
#define FORMATS 4          /* dynamic payload types whose codec is known */
#define REPORT_HOLDS_S 10  /* a report of the far end stands for so long, unless a newer one comes */
#define MOS_LOW 180        /* 3.6, in fiftieths: below it many users are dissatisfied (G.107 Annex B) */
#define STOPPED_TIMES 3    /* silence after audio is allowed so many times the patience: it may be suppressed */
#define PATIENCE_NEVER 0xffff

/* What the leg described that it does, as Python is told. NO_VOICE: a stream of something else, whose packets are counted;
   it has no MOS, and nobody misses it. */
enum { DIRECTION_SEND = 1, DIRECTION_RECEIVE = 2, NO_VOICE = 4 };

/* One second of one leg. Jitter and round trip are in tenths of a millisecond, MOS in fiftieths, 0: nothing known. */
struct sample {
    uint32_t second; /* of the monotonic clock; another one: this entry is of an earlier minute */
    uint16_t packets_in, lost_in, jitter_in;    /* what the leg sent, as we received it */
    uint16_t packets_out, lost_out, jitter_out; /* what we sent to it, and how its far end received that */
    uint16_t round_trip;
    uint8_t mos_in, mos_out;
};

/* One direction of one leg over all seconds in which there was something to judge. */
struct judged {
    uint32_t seconds, low_seconds; /* and those of them below MOS_LOW */
    uint32_t mos_sum;              /* in fiftieths */
    uint32_t worst_second;         /* since the first sample */
    uint16_t mos_least, jitter_most;
};

/* A sender report that left towards the leg: what its answer will name, and when it left. */
struct sent_report {
    uint64_t sent_ns;
    uint32_t ntp, ssrc;
};

struct quality {
    uint64_t report_ns; /* when the far end last told how it receives; 0: never */
    uint64_t round_trip_sum_us;
    uint64_t packets_in, packets_out, lost_in; /* as of the last sample */
    uint64_t heard_ns;    /* the last sample that found RTP from the leg */
    uint64_t expected_ns; /* since when the leg should send; 0: it should not */
    struct sent_report sent[SENT_REPORTS];
    uint32_t began; /* second of the first sample; 0: none yet */
    uint32_t round_trip_us, round_trip_least_us, round_trip_most_us, round_trips;
    uint32_t reports, far_ssrc, far_lost, far_lost_before, far_lost_sampled, far_jitter;
    uint32_t refused; /* of the rule, when the leg was last heard or began to be expected */
    uint32_t one_way_s;
    struct judged in, out;
    uint16_t patience_s;   /* 0: as the worker is configured */
    uint8_t far_fraction;  /* of 256, RFC 3550 §6.4.1 */
    uint8_t next_sent, direction, codec;
    uint8_t told;          /* how often this silence was reported */
    uint8_t reserved;
    uint8_t format[FORMATS], format_codec[FORMATS]; /* payload type + 128, 0: none; media.quality.Codec */
    struct sample samples[SAMPLES];
};

_Static_assert(sizeof(struct sample) == 20, "media.samples.Sample");
_Static_assert(sizeof(struct judged) == 20, "media.samples.Judged");
_Static_assert(sizeof(struct quality) == 1432, "media.samples.Quality");

/* RTCP in the clear that came from the leg of `index` and was accepted. */
void quality_rtcp(struct quality *quality, const struct rule *rules, uint32_t index, const uint8_t *data,
                  uint32_t length, uint64_t now_ns);

/* Sample the rules [first, end) for `second`. Those that should send but do not, while their peer does, are written to
   `found`, at most `room`, when their silence is as long as patience allows, twice as long, and so on; how many. */
uint32_t quality_sample(struct quality *quality, const struct rule *rules, uint32_t first, uint32_t end,
                        uint32_t second, uint64_t now_ns, uint32_t patience_s, uint32_t *found, uint32_t room);

#endif
