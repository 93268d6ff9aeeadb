/* What is done with payloads on their way to a leg with FEATURE_PROCESSED: payload types are mapped, G.711 is turned
   from one law into the other, other codecs by way of samples (transcode.h), digits (RFC 4733) are heard, kept back and
   put in. All state that must outlive a process is flat; media/processing.py mirrors it, and
   media/reference_processing.py is the same in Python. */
#ifndef PORTCULLIS_PROCESS_H
#define PORTCULLIS_PROCESS_H

#include "rule.h"

#define PROCESS_FORMATS 16
#define PROCESS_DIGITS 32
#define NOWHERE 255          /* a payload type that does not go on */
#define EVENT_STEP_MS 20     /* between two packets of a digit that we put in */
#define EVENT_ENDS 3         /* RFC 4733 §2.5.1.4: the last packet is sent three times */
#define EVENT_VOLUME 10      /* -10 dBm0 */
#define EVENT_LOST_NS 300000000u /* without a packet of a digit: it is over, its end was lost */
#define EVENT_FLASH 16       /* the last event that is a key; RFC 4733 §3.2 */
#define HEARD_RING 256
#define ACTIVE_RULES 1024

/* media.processing.Codec */
enum codec { CODEC_OTHER = 0, CODEC_PCMU, CODEC_PCMA, CODEC_G722, CODEC_OPUS, CODEC_EVENT, CODECS };

enum { HEARD_NOTHING = 0, HEARD_OPEN, HEARD_TOLD };

/* One payload type as the other side sends it, and what becomes of it. */
struct format {
    uint8_t number, to;      /* as it comes and as it leaves */
    uint8_t codec, to_codec; /* the same: the payload passes */
    uint32_t clock_hz, to_clock_hz;
};

struct process {
    uint64_t out_ns;   /* when ts_out was the time */
    uint64_t heard_ns; /* the last packet of the digit that is heard */
    uint64_t next_ns;  /* when the next packet of ours is due */
    struct format formats[PROCESS_FORMATS];
    uint32_t generation;     /* another one: other formats */
    uint32_t event_clock_hz; /* of event_number */
    /* the stream as it leaves: in order of arrival, last_in went out as last_out, and ts_in as ts_out */
    uint32_t ssrc, ts_in, ts_out, clock_in, clock_out;
    uint32_t heard_at, heard_out, heard_before, heard_clock_hz; /* timestamps of the digit; ticks of earlier segments */
    uint32_t sending_at;                                        /* timestamp of the digit that we send */
    uint16_t last_in, last_out;
    uint16_t valid_from; /* what was sent before this one, and comes late, has no number any more */
    uint16_t heard_duration;
    uint16_t duration_ms, pause_ms, elapsed_ms; /* of what we send */
    uint8_t count;        /* of formats */
    uint8_t event_number; /* telephone-event towards the leg; NOWHERE: it takes none */
    uint8_t packet_ms;    /* of what is encoded anew; 0: as it comes */
    uint8_t tell;         /* digits that are heard are told */
    uint8_t begun;        /* a source was heard: ssrc, last_in and ts_in are its */
    uint8_t joining;      /* the next packet follows the last that was sent, whatever its number */
    uint8_t heard, heard_event;
    uint8_t digit_count, ends; /* to send, with the one that is being sent */
    uint8_t active;            /* in the list of those that time is watched for */
    uint8_t reserved;
    uint8_t digits[PROCESS_DIGITS];
};

_Static_assert(sizeof(struct format) == 12, "media.processing.Format");
_Static_assert(sizeof(struct process) == 328, "media.processing.Process");

/* A digit that was pressed: on the leg of rule `source`. */
struct heard {
    uint32_t source, event, duration_ms;
};

struct transcoders;

/* What belongs to a process of the operating system. */
struct processing {
    struct heard ring[HEARD_RING];
    uint32_t heard, lost; /* in the ring; that found it full */
    uint32_t active[ACTIVE_RULES];
    uint32_t active_count;
    uint64_t due_ns; /* nothing is due before; 0: look */
    struct transcoders *transcoders;
};

struct plane;

struct processing *processing_new(void);
void processing_free(struct processing *processing);

/* A sound RTP packet of rule `source` on its way to the leg of rule `target`, in place: FORWARD, or why it does not
   leave. *more: process_next has another packet for that leg. `room` octets are at data. */
enum reason process_rtp(const struct plane *plane, uint32_t source, uint32_t target, uint8_t *data, uint32_t *length,
                        uint32_t room, uint64_t now_ns, uint8_t *more);
int process_next(const struct plane *plane, uint32_t target, uint8_t *data, uint32_t *length, uint32_t room);

/* A sound RTCP packet, in clear: timestamps and sequence numbers as its receiver knows them. */
void process_rtcp(const struct plane *plane, uint32_t source, uint32_t target, uint8_t *data, uint32_t length);

/* When time asks for something on the way to the leg of `target`; 0: never. */
uint64_t process_deadline(const struct process *p);

/* What time asks for on the way to the leg of `target`: 1 for a packet that is to be sent. */
int process_due(const struct plane *plane, uint32_t target, uint64_t now_ns, uint8_t *data, uint32_t *length);

/* Watch the time for this rule. -1: too many. */
int process_watch(const struct plane *plane, uint32_t target);

/* The rule is used otherwise from now on. */
void process_forget(const struct plane *plane, uint32_t target);

#endif
