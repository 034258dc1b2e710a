/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2.h - a qcow2 file as a layer: header, tables, translation.
 *
 * On-disk format: docs/interop/qcow2.txt in QEMU's source.
 *
 * Words.  gc: number of a guest cluster.  hc: number of a host cluster, that is
 * of a cluster in the file.  An entry is a word of an L2 table in the CPU's byte
 * order.
 *
 * Tables.  A file that is only read keeps slices of its L2 tables in a bounded
 * cache; they are loaded with the image's lock dropped (NEED_TABLE).  A file that
 * is written to has all its tables in memory from the scan at open on
 * (struct q2w, engine.h); what is in memory is then the truth, which commits
 * bring to the file.
 */
#ifndef QCOW2_H
#define QCOW2_H

#include "codec.h"
#include "internal.h"

#define Q2_MAGIC		0x514649fbu

/* Bytes of the header that we know. */
#define Q2_HEAD_V2		72
#define Q2_HEAD_V3		104
#define Q2_HEAD_MAX		112

#define Q2_INCOMPAT_DIRTY	(1ull << 0)
#define Q2_INCOMPAT_CORRUPT	(1ull << 1)
#define Q2_INCOMPAT_DATA_FILE	(1ull << 2)
#define Q2_INCOMPAT_COMPRESSION	(1ull << 3)
#define Q2_INCOMPAT_EXT_L2	(1ull << 4)
#define Q2_AUTOCLEAR_BITMAPS	(1ull << 0)

#define Q2_MAX_L1_BYTES		(32u << 20)
#define Q2_MAX_RT_BYTES		(8u << 20)
#define Q2_MAX_SNAPSHOTS	65536

#define Q2_COPIED		(1ull << 63)
#define Q2_COMPRESSED		(1ull << 62)
#define Q2_ZERO			(1ull << 0)
#define Q2_OFFSET_MASK		0x00fffffffffffe00ull

/* Where things are in the header. */
enum {
	Q2_H_INCOMPAT = 72,
	Q2_H_AUTOCLEAR = 88,
	Q2_H_RT_OFF = 48,
	Q2_H_RT_CLUSTERS = 56,
};

enum q2_type {
	Q2_UNALLOC,
	Q2_NORMAL,
	Q2_ZERO_PLAIN,
	Q2_ZERO_ALLOC,		/* reads zeros, keeps a cluster */
	Q2_COMP,
	Q2_BAD,
};

struct q2w;
struct q2_slices;

/**
 * struct q2 - what the header says, and the tables
 * @layer: number of the layer it is
 * @file: the layer's
 * @version: 2 or 3
 * @cbits: log2 of the cluster in bytes
 * @csect_bits: log2 of the cluster in sectors
 * @cs: the cluster in bytes
 * @l2_bits: log2 of the entries of an L2 table
 * @vsize: virtual size in bytes, a multiple of 512
 * @nr_gc: guest clusters
 * @incompat: incompatible feature bits
 * @compat: compatible feature bits
 * @autoclear: autoclear feature bits
 * @header_len: bytes
 * @l1_off: of the L1 table, bytes
 * @l1_size: entries the file has room for
 * @l1: as in the file, CPU order, with flags; a writable image keeps it in step
 * @l1_used: entries that @vsize needs
 * @codec: of compressed clusters
 * @rt_off: of the refcount table, bytes
 * @rt_clusters: its length
 * @nr_snapshots: internal ones
 * @snapshots_off: of their table, bytes
 * @backing_name: as in the header; NULL: none
 * @backing_len: of it, bytes
 * @backing_fmt: NULL: not stated
 * @rorder: log2 of the bits of a refcount
 * @bitmaps: it has persistent bitmaps
 * @slices: of L2 tables, for a file that is only read
 * @w: for one that is written to
 */
struct q2 {
	unsigned int layer;
	struct sp_file *file;
	uint32_t version;
	unsigned int cbits, csect_bits, l2_bits;
	uint64_t cs;
	uint64_t vsize, nr_gc;
	uint64_t incompat, compat, autoclear;
	uint32_t header_len;
	uint64_t l1_off;
	uint32_t l1_size, l1_used;
	uint64_t *l1;
	uint64_t rt_off;
	uint32_t rt_clusters;
	unsigned int rorder;
	uint32_t nr_snapshots;
	uint64_t snapshots_off;
	const struct sp_codec *codec;
	char *backing_name;
	uint32_t backing_len;
	char *backing_fmt;
	bool bitmaps;
	struct q2_slices *slices;
	struct q2w *w;
};

static inline uint64_t q2_offset(uint64_t entry)
{
	return entry & Q2_OFFSET_MASK;
}

/* header.c */
int q2_open(struct q2 **out, struct sp_file *f, unsigned int layer, bool writable,
	    struct sp_err *err);
void q2_close(struct q2 *q);

/* l1.c */
int q2_l1_load(struct q2 *q, uint64_t file_bytes, struct sp_err *err);
bool q2_table_ok(const struct q2 *q, uint64_t off, uint64_t len, uint64_t file_bytes);

/* map.c */
enum q2_type q2_type(const struct q2 *q, uint64_t entry);
int q2_map(struct q2 *q, uint64_t file_bytes, uint64_t lba, uint64_t max,
	   struct mapping *m, struct need *need);

/* slice.c */
int q2_slices_init(struct q2 *q);
void q2_slices_free(struct q2 *q);
unsigned int q2_slice_bits(const struct q2 *q);
const uint64_t *q2_slice_get(struct q2 *q, uint64_t index);
int q2_slice_load(struct sp_image *img, struct q2 *q, uint64_t index);

/* compressed.c */
void q2_comp_range(const struct q2 *q, uint64_t entry, uint64_t *off, uint64_t *len);
int q2_decompress(struct q2 *q, uint64_t entry, void *out);

/* Big-endian words of the file. */
static inline uint32_t q2_get32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3];
}

static inline uint64_t q2_get64(const uint8_t *p)
{
	return (uint64_t)q2_get32(p) << 32 | q2_get32(p + 4);
}

static inline void q2_put32(uint8_t *p, uint32_t v)
{
	p[0] = v >> 24;
	p[1] = v >> 16;
	p[2] = v >> 8;
	p[3] = v;
}

static inline void q2_put64(uint8_t *p, uint64_t v)
{
	q2_put32(p, v >> 32);
	q2_put32(p + 4, v);
}

#endif /* QCOW2_H */
