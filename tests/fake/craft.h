/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * craft.h - small qcow2 images made by hand, sound and hostile.
 *
 * The sound one is craft_new()'s: a version 3 image in which every kind of
 * cluster occurs.  A hostile one is that with something changed; the table
 * craft_variants[] names them and says what is to become of them.  The same
 * table makes the seeds of the fuzzer's corpus.
 */
#ifndef TESTS_FAKE_CRAFT_H
#define TESTS_FAKE_CRAFT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CRAFT_BITS	12
#define CRAFT_CLUSTER	(1u << CRAFT_BITS)
#define CRAFT_SECTORS	(CRAFT_CLUSTER / 512)
#define CRAFT_GUEST	1024			/* clusters: two L2 tables' worth */
#define CRAFT_MAX	(64u * 1024)

/* Clusters of the file. */
enum {
	CR_HEADER, CR_RT, CR_RB, CR_L1, CR_L2, CR_DATA, CR_ZEROED, CR_PACKED, CR_L2B, CR_DATA2,
	CR_END,
};

/* Guest clusters under the first L2. */
enum { G_DATA, G_ZERO, G_ZERO_ALLOC, G_PACKED, G_NONE, G_DATA2 };

struct craft {
	uint8_t *buf;
	size_t size;		/* of the file */
};

/* Fields of the header, by byte offset. */
enum {
	H_MAGIC = 0, H_VERSION = 4, H_BACKING_OFF = 8, H_BACKING_LEN = 16, H_BITS = 20,
	H_SIZE = 24, H_CRYPT = 32, H_L1_SIZE = 36, H_L1_OFF = 40, H_RT_OFF = 48,
	H_RT_CLUSTERS = 56, H_NB_SNAP = 60, H_SNAP_OFF = 64, H_INCOMPAT = 72, H_COMPAT = 80,
	H_AUTOCLEAR = 88, H_RC_ORDER = 96, H_LENGTH = 100, H_COMPRESSION = 104, H_EXT = 112,
};

#define QC_COPIED	(1ull << 63)
#define QC_COMPRESSED	(1ull << 62)
#define QC_ZERO		1ull
#define AT(cluster)	((uint64_t)(cluster) << CRAFT_BITS)

void craft_be32(struct craft *c, size_t off, uint32_t v);
void craft_be64(struct craft *c, size_t off, uint64_t v);
uint64_t craft_get64(const struct craft *c, size_t off);
static inline size_t craft_l2(unsigned int guest) { return AT(CR_L2) + 8 * guest; }
static inline size_t craft_rc(unsigned int cluster) { return AT(CR_RB) + 2 * cluster; }

/* The sound image; free buf. */
void craft_new(struct craft *c);
/* A header extension in front of what ends them. */
void craft_extension(struct craft *c, uint32_t type, const void *data, uint32_t len);
/* The backing file's name, and its format unless NULL. */
void craft_backing(struct craft *c, const char *name, size_t len, const char *fmt);

enum craft_fate {
	CRAFT_SOUND,		/* opens, all reads as it should */
	CRAFT_REFUSED,		/* not opened, neither for reading nor for writing */
	CRAFT_NO_WRITE,		/* not opened for writing; reading as it can */
	CRAFT_EIO,		/* opens, but the guest cluster cannot be read */
	CRAFT_ANY,		/* no crash, no hang, no harm to the tables */
};

struct craft_variant {
	const char *name;
	void (*change)(struct craft *c);
	enum craft_fate fate;
	int error;		/* REFUSED, NO_WRITE: that one, or 0: any */
	const char *says;	/* REFUSED, NO_WRITE: part of the message, or NULL */
	unsigned int guest;	/* EIO */
};

extern const struct craft_variant craft_variants[];
extern const unsigned int craft_nr_variants;

#endif /* TESTS_FAKE_CRAFT_H */
