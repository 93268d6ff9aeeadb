/* Recordings as files: WAV (two channels) or pcap. All of it runs in one thread that may wait for a disk, never in the
   relay's. */
#ifndef PORTCULLIS_RECORD_H
#define PORTCULLIS_RECORD_H

#include "tap.h"

enum { RECORD_WAV = 0, RECORD_PCAP = 1 };

/* Of one recording, for whoever asks. */
struct record_totals {
    uint64_t packets;     /* written */
    uint64_t lost;        /* found the ring full */
    uint64_t late;        /* came after their place in the file was written */
    uint64_t unreadable;  /* of a codec that a WAV cannot have here */
    uint64_t frames;      /* of a WAV: samples of each channel; of a pcap: 0 */
    int error;            /* errno of what ended it early, 0 */
};

struct recorder;

struct recorder *recorder_new(struct tap *tap); /* NULL without memory */
void recorder_free(struct recorder *recorder);  /* closes what is open */

/* Write to `fd`, which is ours from now on, what is tapped under `number`; `start_ns` is the monotonic time at its
   beginning, `wall_ns` the same moment of the wall clock. 0 or an errno. */
int recorder_open(struct recorder *recorder, uint32_t number, int fd, int format, uint64_t start_ns, uint64_t wall_ns);

/* The address of ours that faces a side, for the headers of a pcap. */
void recorder_face(struct recorder *recorder, uint32_t number, int side, const struct address *local);

/* Write what the ring held before `end`, and what `now_ns` makes final. Returns how many recordings have failed. */
int recorder_drain(struct recorder *recorder, uint64_t end, uint64_t now_ns);

/* Write the rest and close; the totals are those at the end. */
void recorder_close(struct recorder *recorder, uint32_t number, struct record_totals *totals);
void recorder_totals(struct recorder *recorder, uint32_t number, struct record_totals *totals);

#endif
