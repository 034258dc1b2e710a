/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * encode.h - commands of the data plane as bytes, checked.
 *
 * Whatever the slowpath says is checked here against what the uapi allows, so
 * that a mistake is an error at its origin and not an -EINVAL from the
 * kernel.  Nothing here touches a ring or a file.
 */
#ifndef UBDM_ENCODE_H
#define UBDM_ENCODE_H

#include <stdbool.h>
#include <stdint.h>

#include "slowpath.h"
#include "ubdmap.h"

/**
 * struct ubdm_msg - one command
 * @op: UBDM_CMD_*
 * @body: what goes to sqe->cmd
 */
struct ubdm_msg {
	uint32_t op;
	_Alignas(8) uint8_t body[UBDM_CMD_BODY];
};

/**
 * ubdm_encode_extents - @nr extents of the slowpath as the kernel wants them
 * @dst: room for @nr
 * @src: the slowpath's
 * @nr: how many
 *
 * Return: 0, or -EINVAL: empty or overflowing, not rising, overlapping, or
 * type, permission, tid and flags do not go together.
 */
int ubdm_encode_extents(struct ubdm_extent *dst, const struct sp_extent *src,
			unsigned int nr);
void ubdm_decode_extent(struct sp_extent *dst, const struct ubdm_extent *src);

/**
 * ubdm_decode_fault - a fault as a request
 * @req: to fill
 * @fault: what the kernel sent
 *
 * Return: 0, or -EPROTO if it is none that the slowpath knows.
 */
int ubdm_decode_fault(struct sp_req *req, const struct ubdm_fault *fault);

void ubdm_encode_start(struct ubdm_msg *m, unsigned int granule_shift);
void ubdm_encode_stop(struct ubdm_msg *m, bool done, int error);
void ubdm_encode_detach(struct ubdm_msg *m);
void ubdm_encode_fetch(struct ubdm_msg *m, struct ubdm_fault *buf,
		       unsigned int nr);

/**
 * ubdm_encode_resolve - the slowpath's answer to the fault @cookie
 * @m: the message, to fill
 * @cookie: the fault's
 * @reply: what the slowpath says
 * @table: room for @reply->nr_ext extents, to be left alone until the CQE;
 *	not used for one extent or none
 *
 * Return: 0, or -EINVAL.
 */
int ubdm_encode_resolve(struct ubdm_msg *m, uint64_t cookie,
			const struct sp_reply *reply,
			struct ubdm_extent *table);
void ubdm_encode_resolve_error(struct ubdm_msg *m, uint64_t cookie, int error);
void ubdm_encode_resolve_hold(struct ubdm_msg *m, uint64_t cookie,
			      unsigned int ms);

/**
 * ubdm_encode_map - extents, unasked; @table as in ubdm_encode_resolve(), but
 * always used
 * @m: the message, to fill
 * @ext: what to map, rising
 * @nr: how many
 * @table: room for @nr
 */
int ubdm_encode_map(struct ubdm_msg *m, const struct sp_extent *ext,
		    unsigned int nr, struct ubdm_extent *table);
/* @len 0: only wait for the I/O under way */
int ubdm_encode_invalidate(struct ubdm_msg *m, unsigned int backing,
			   uint64_t off, uint64_t len);
void ubdm_encode_commit(struct ubdm_msg *m, uint64_t tid);
void ubdm_encode_backing_add(struct ubdm_msg *m, int fd, uint32_t flags);
void ubdm_encode_backing_get(struct ubdm_msg *m, unsigned int index);
void ubdm_encode_dump(struct ubdm_msg *m, struct ubdm_dump_head *head,
		      unsigned int nr, uint64_t lba, uint32_t flags);

#endif /* UBDM_ENCODE_H */
