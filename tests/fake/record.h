/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * record.h - everything that reaches an image, and everything that was promised.
 *
 * One log has the changes of the image's file in the order in which they were
 * made, by the slowpath and by the kernel's half; beside it stand the guest's
 * requests with their places in the log.  From both follows what a sector of
 * the disk may contain when the power fails at some place of the log.
 *
 * Every sector of a recorded disk is filled with one byte.  There is one
 * recording at a time; several threads may make requests.
 */
#ifndef TESTS_FAKE_RECORD_H
#define TESTS_FAKE_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "fakedev.h"
#include "io.h"

struct rng;

#define REC_REQS	2000
#define REC_FILE_MAX	(96u << 20)	/* bytes of the file that may be written */

/**
 * struct change - what happened to the file
 * @op: SYNC: all that came before is durable from here on
 * @off: in bytes; TRUNCATE: the new size
 * @len: in bytes
 * @data: of a WRITE
 */
struct change {
	enum sp_io_op op;
	uint64_t off, len;
	char *data;
};

enum rec_kind { REC_WRITE, REC_FUA, REC_ZEROES, REC_DISCARD, REC_FLUSH };

/**
 * struct request - what the guest asked for
 * @begin: changes logged before it
 * @end: before it was answered, UINT_MAX: it was not
 * @began: @ended: the same in requests' time, in which no two things are at once
 * @unsure: it failed, or is a DISCARD: it may have had its effect
 */
struct request {
	enum rec_kind kind;
	uint64_t lba, len;
	uint8_t val;
	bool unsure;
	unsigned int begin, end;
	unsigned int began, ended;
};

/**
 * struct record - the recording
 * @size: of the disk in sectors
 * @initial: a byte for each sector: what it read when the recording began
 * @below: likewise what it reads where the image has nothing, NULL: zeros
 * @path: of the file; @base: the file when the recording began
 */
struct record {
	struct change *log;
	unsigned int nr, room;
	struct request req[REC_REQS];
	unsigned int nr_req, clock;
	uint64_t size;
	uint8_t *initial, *below;
	char *base;
	size_t base_len;
	char path[256];
};

extern struct record rec;

/* From here on; the hooks of io.h and fakedev.h are the recording's. */
void rec_start(const char *path, uint64_t size, const uint8_t *initial,
	       const uint8_t *below);
void rec_stop(void);
void rec_free(void);

/*
 * A test's own hooks, NULL unless it sets them.  Before: a negative return makes
 * the operation fail, and it is not logged.  After: it is logged, and has yet
 * to be done.  For the kernel's writes and syncs (buf NULL) file is NULL.
 */
extern int (*rec_before)(const struct sp_file *f, enum sp_io_op op, const void *buf,
			 uint64_t off, uint64_t len);
extern void (*rec_after)(const struct sp_file *f, enum sp_io_op op, const void *buf,
			 uint64_t off, uint64_t len);

/* A change that somebody makes past the hooks. */
void rec_change(enum sp_io_op op, const void *data, uint64_t off, uint64_t len);

/* A request, noted by hand ... */
unsigned int rec_begin(enum rec_kind kind, uint64_t lba, uint64_t len, uint8_t val);
void rec_end(unsigned int id, int rc);
/* ... or made as well.  What the fdev_*() say. */
int rec_write(struct fdev *d, uint64_t lba, uint64_t len, uint8_t val, bool fua);
int rec_zeroes(struct fdev *d, uint64_t lba, uint64_t len, bool nounmap);
int rec_discard(struct fdev *d, uint64_t lba, uint64_t len);
int rec_flush(struct fdev *d);
/* Read it all: is it what the last request left?  The first sector that is not,
 * -1: all is well; -errno - 1: could not be read. */
int64_t rec_read(struct fdev *d);

/* What sectors may contain after a cut; places only rise. */
struct allowed;

struct allowed *allowed_new(void);
void allowed_free(struct allowed *a);
/* Go on to the cut after that many changes.  True: some contents went away. */
bool allowed_to(struct allowed *a, unsigned int cut);
bool allowed_has(const struct allowed *a, uint64_t lba, uint8_t val);

/* Show the changes and requests before a cut, at most nr changes. */
void rec_print(unsigned int cut, unsigned int nr);

/* Write an image after that cut, sectors by luck. */
void rec_rebuild(const char *path, unsigned int cut, struct rng *r);

#endif /* TESTS_FAKE_RECORD_H */
