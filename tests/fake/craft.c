// SPDX-License-Identifier: GPL-2.0-only
/* craft.c - small qcow2 images made by hand; see craft.h. */
#include "util.h"
#include <zlib.h>
#include "craft.h"

void craft_be32(struct craft *c, size_t off, uint32_t v)
{
	int i;

	for (i = 0; i < 4; i++)
		c->buf[off + i] = v >> (24 - 8 * i);
}

void craft_be64(struct craft *c, size_t off, uint64_t v)
{
	craft_be32(c, off, v >> 32);
	craft_be32(c, off + 4, v);
}

static void be16(struct craft *c, size_t off, uint16_t v)
{
	c->buf[off] = v >> 8;
	c->buf[off + 1] = v;
}

uint64_t craft_get64(const struct craft *c, size_t off)
{
	uint64_t v = 0;
	int i;

	for (i = 0; i < 8; i++)
		v = v << 8 | c->buf[off + i];
	return v;
}

static size_t pack(uint8_t *out, size_t room, uint8_t byte)
{
	uint8_t plain[CRAFT_CLUSTER];
	z_stream z = { .next_in = plain, .avail_in = sizeof(plain),
		       .next_out = out, .avail_out = room };

	memset(plain, byte, sizeof(plain));
	if (deflateInit2(&z, 6, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY) != Z_OK ||
	    deflate(&z, Z_FINISH) != Z_STREAM_END)
		abort();
	deflateEnd(&z);
	return z.total_out;
}

void craft_new(struct craft *c)
{
	unsigned int i;

	c->size = AT(CR_END);
	c->buf = calloc(1, CRAFT_MAX);
	memcpy(c->buf, "QFI\xfb", 4);
	craft_be32(c, H_VERSION, 3);
	craft_be32(c, H_BITS, CRAFT_BITS);
	craft_be64(c, H_SIZE, AT(CRAFT_GUEST));
	craft_be32(c, H_L1_SIZE, 2);
	craft_be64(c, H_L1_OFF, AT(CR_L1));
	craft_be64(c, H_RT_OFF, AT(CR_RT));
	craft_be32(c, H_RT_CLUSTERS, 1);
	craft_be32(c, H_RC_ORDER, 4);
	craft_be32(c, H_LENGTH, 112);
	craft_be64(c, AT(CR_RT), AT(CR_RB));
	for (i = 0; i < CR_END; i++)
		be16(c, craft_rc(i), 1);
	craft_be64(c, AT(CR_L1), AT(CR_L2) | QC_COPIED);
	craft_be64(c, AT(CR_L1) + 8, AT(CR_L2B) | QC_COPIED);
	craft_be64(c, craft_l2(G_DATA), AT(CR_DATA) | QC_COPIED);
	craft_be64(c, craft_l2(G_ZERO), QC_ZERO);
	craft_be64(c, craft_l2(G_ZERO_ALLOC), AT(CR_ZEROED) | QC_ZERO | QC_COPIED);
	/* Compressed: 62 - (bits - 8) = 58 bits of offset, no further sector. */
	pack(c->buf + AT(CR_PACKED), 512, 0x33);
	craft_be64(c, craft_l2(G_PACKED), AT(CR_PACKED) | QC_COMPRESSED);
	craft_be64(c, craft_l2(G_DATA2), AT(CR_DATA2) | QC_COPIED);
	memset(c->buf + AT(CR_DATA), 0x11, CRAFT_CLUSTER);
	memset(c->buf + AT(CR_ZEROED), 0x22, CRAFT_CLUSTER);	/* stale */
	memset(c->buf + AT(CR_DATA2), 0x55, CRAFT_CLUSTER);
}

void craft_extension(struct craft *c, uint32_t type, const void *data, uint32_t len)
{
	size_t off = H_EXT;

	while (craft_get64(c, off) >> 32)
		off += 8 + (((uint32_t)craft_get64(c, off) + 7) & ~7u);
	craft_be32(c, off, type);
	craft_be32(c, off + 4, len);
	memcpy(c->buf + off + 8, data, len);
}

void craft_backing(struct craft *c, const char *name, size_t len, const char *fmt)
{
	if (fmt)
		craft_extension(c, 0xe2792aca, fmt, strlen(fmt));
	memcpy(c->buf + 2048, name, len);
	craft_be64(c, H_BACKING_OFF, 2048);
	craft_be32(c, H_BACKING_LEN, len);
}

/* ---- what can be wrong ---- */

#define CHANGE(name, ...) static void name(struct craft *c) { __VA_ARGS__ }
#define H32(name, field, v)	CHANGE(name, craft_be32(c, field, v);)
#define H64(name, field, v)	CHANGE(name, craft_be64(c, field, v);)
#define L2E(name, guest, v)	CHANGE(name, craft_be64(c, craft_l2(guest), v);)
#define PLAIN_L2(cl)		(AT(cl) | QC_COPIED)

CHANGE(sound, (void)c;)
CHANGE(no_bytes, c->size = 0;)
CHANGE(cut_in_header, c->size = 60;)
CHANGE(cut_behind_header, c->size = 512;)
CHANGE(cut_before_l2, c->size = AT(CR_L2);)
CHANGE(cut_in_data, c->size = AT(CR_DATA2) + 100;)
CHANGE(cut_at_data, c->size = AT(CR_DATA2);)
CHANGE(no_magic, c->buf[0] = 0;)
H32(version_1, H_VERSION, 1)
H32(version_4, H_VERSION, 4)
H32(bits_0, H_BITS, 0)
H32(bits_8, H_BITS, 8)
H32(bits_22, H_BITS, 22)
H32(bits_32, H_BITS, 32)
H32(bits_63, H_BITS, 63)
H32(aes, H_CRYPT, 1)
H32(luks, H_CRYPT, 2)
H32(crypt_3, H_CRYPT, 3)
H64(size_max, H_SIZE, UINT64_MAX)
H64(size_2_63, H_SIZE, 1ull << 63)
H64(size_more_than_l1, H_SIZE, AT(CRAFT_GUEST) * 4)
H64(size_odd, H_SIZE, AT(CRAFT_GUEST) - 100)
CHANGE(size_0, craft_be64(c, H_SIZE, 0); craft_be32(c, H_L1_SIZE, 0);)
H32(l1_size_0, H_L1_SIZE, 0)
H32(l1_size_max, H_L1_SIZE, UINT32_MAX)
H32(l1_33_mib, H_L1_SIZE, (33u << 20) / 8)
H32(l1_31_mib_beyond_eof, H_L1_SIZE, (31u << 20) / 8)
H64(l1_unaligned, H_L1_OFF, AT(CR_L1) + 8)
H64(l1_on_header, H_L1_OFF, 0)
H64(l1_on_rt, H_L1_OFF, AT(CR_RT))
H64(l1_past_eof, H_L1_OFF, AT(1000))
H64(l1_huge, H_L1_OFF, AT(1) - (1ull << 63))
H64(l1_wraps, H_L1_OFF, UINT64_MAX - CRAFT_CLUSTER + 1)
H64(rt_unaligned, H_RT_OFF, AT(CR_RT) + 512)
H64(rt_on_header, H_RT_OFF, 0)
H64(rt_on_l1, H_RT_OFF, AT(CR_L1))
H64(rt_past_eof, H_RT_OFF, AT(1000))
H64(rt_wraps, H_RT_OFF, UINT64_MAX - CRAFT_CLUSTER + 1)
H32(rt_0_clusters, H_RT_CLUSTERS, 0)
H32(rt_9_mib, H_RT_CLUSTERS, (9u << 20) / CRAFT_CLUSTER)
H32(rt_max, H_RT_CLUSTERS, UINT32_MAX)
H32(rt_over_l1, H_RT_CLUSTERS, 3)
H32(rc_order_7, H_RC_ORDER, 7)
H32(rc_order_max, H_RC_ORDER, UINT32_MAX)
H32(header_len_103, H_LENGTH, 103)
H32(header_len_0, H_LENGTH, 0)
H32(header_len_cluster, H_LENGTH, CRAFT_CLUSTER + 8)
H32(header_len_max, H_LENGTH, UINT32_MAX)
CHANGE(snapshots, craft_be32(c, H_NB_SNAP, 1); craft_be64(c, H_SNAP_OFF, AT(CR_ZEROED));)
H32(snapshots_65537, H_NB_SNAP, 65537)
CHANGE(snapshots_past_eof, craft_be32(c, H_NB_SNAP, 3); craft_be64(c, H_SNAP_OFF, AT(5000));)
H64(corrupt, H_INCOMPAT, 2)
H64(data_file, H_INCOMPAT, 4)
H64(compression_bit_alone, H_INCOMPAT, 8)
H64(extended_l2, H_INCOMPAT, 16)
H64(unknown_incompat, H_INCOMPAT, 1ull << 5)
H64(unknown_incompat_63, H_INCOMPAT, 1ull << 63)
H64(dirty, H_INCOMPAT, 1)
H64(unknown_compat, H_COMPAT, 1ull << 40)
H64(unknown_autoclear, H_AUTOCLEAR, 1ull << 40)
H64(bitmaps_autoclear, H_AUTOCLEAR, 1)
CHANGE(compression_type_alone, c->buf[H_COMPRESSION] = 1;)
CHANGE(compression_type_9, craft_be64(c, H_INCOMPAT, 8); c->buf[H_COMPRESSION] = 9;)
CHANGE(ext_unknown, craft_extension(c, 0x12345678, "hello", 5);)
CHANGE(ext_too_long, craft_be32(c, H_EXT, 0x12345678);
	craft_be32(c, H_EXT + 4, CRAFT_CLUSTER);)
CHANGE(ext_len_max, craft_be32(c, H_EXT, 0x12345678); craft_be32(c, H_EXT + 4, UINT32_MAX);)
CHANGE(ext_crypto, craft_extension(c, 0x0537be77, "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16);)
CHANGE(ext_data_file, craft_extension(c, 0x44415441, "x", 1);)
CHANGE(ext_no_end, int i; for (i = H_EXT; i < (int)CRAFT_CLUSTER; i += 8)
	craft_be32(c, i, 0x12345678);)
CHANGE(backing_len_1024, craft_backing(c, "b", 1, "raw"); craft_be32(c, H_BACKING_LEN, 1024);)
CHANGE(backing_past_cluster, craft_backing(c, "b", 1, "raw");
	craft_be64(c, H_BACKING_OFF, CRAFT_CLUSTER);)
CHANGE(backing_wraps, craft_backing(c, "b", 1, "raw");
	craft_be64(c, H_BACKING_OFF, UINT64_MAX);)
CHANGE(backing_nul, craft_backing(c, "b\0c", 3, "raw");)
CHANGE(backing_nbd, craft_backing(c, "nbd:h:1", 7, "raw");)
CHANGE(backing_json, craft_backing(c, "json:{\"driver\":\"null-co\"}", 25, "raw");)
CHANGE(backing_missing, craft_backing(c, "none", 4, "raw");)
CHANGE(backing_fmt_vmdk, craft_backing(c, "base", 4, "vmdk");)
CHANGE(backing_self, craft_backing(c, "img.qcow2", 9, "qcow2");)
CHANGE(backing_dir, craft_backing(c, ".", 1, "raw");)
CHANGE(backing_raw, craft_backing(c, "base", 4, "raw");)
CHANGE(backing_no_fmt, craft_backing(c, "base", 4, NULL);)
CHANGE(backing_qcow2_no_fmt, craft_backing(c, "base.qcow2", 10, NULL);)

#define L1E(name, v)	CHANGE(name, craft_be64(c, AT(CR_L1), v);)
L1E(l1e_unaligned, (AT(CR_L2) + 512) | QC_COPIED)
L1E(l1e_past_eof, AT(4000) | QC_COPIED)
L1E(l1e_header, 512 | QC_COPIED)
L1E(l1e_l1, PLAIN_L2(CR_L1))
L1E(l1e_rt, PLAIN_L2(CR_RT))
L1E(l1e_rb, PLAIN_L2(CR_RB))
L1E(l1e_reserved, PLAIN_L2(CR_L2) | 1)
L1E(l1e_twice, PLAIN_L2(CR_L2B))
L1E(l1e_cut, AT(CR_END - 1) | QC_COPIED)

L2E(l2e_unaligned, G_DATA, (AT(CR_DATA) + 512) | QC_COPIED)
L2E(l2e_past_eof, G_DATA, PLAIN_L2(5000))
L2E(l2e_far, G_DATA, (((1ull << 56) - 1) & ~(uint64_t)(CRAFT_CLUSTER - 1)) | QC_COPIED)
L2E(l2e_header, G_NONE, QC_COPIED)
L2E(l2e_on_l1, G_DATA, PLAIN_L2(CR_L1))
L2E(l2e_on_l2, G_DATA, PLAIN_L2(CR_L2))
L2E(l2e_on_l2b, G_DATA, PLAIN_L2(CR_L2B))
L2E(l2e_on_rt, G_DATA, PLAIN_L2(CR_RT))
L2E(l2e_on_rb, G_DATA, PLAIN_L2(CR_RB))
L2E(l2e_twice, G_DATA, PLAIN_L2(CR_DATA2))
L2E(l2e_reserved, G_DATA, PLAIN_L2(CR_DATA) | 4)
L2E(l2e_zero_on_l1, G_ZERO_ALLOC, PLAIN_L2(CR_L1) | QC_ZERO)
L2E(l2e_zero_past_eof, G_ZERO_ALLOC, PLAIN_L2(5000) | QC_ZERO)
L2E(l2e_both, G_DATA, PLAIN_L2(CR_DATA) | QC_COMPRESSED)
L2E(packed_past_eof, G_PACKED, AT(5000) | QC_COMPRESSED)
L2E(packed_far, G_PACKED, ((1ull << 58) - 1) | QC_COMPRESSED)
L2E(packed_long, G_PACKED, AT(CR_PACKED) | (15ull << 58) | QC_COMPRESSED)
L2E(packed_at_eof, G_PACKED, (AT(CR_END) - 3) | (15ull << 58) | QC_COMPRESSED)
/* Compressed data behind all else, from at on; the file ends with its first bytes. */
static void pack_last(struct craft *c, uint64_t at, uint64_t sectors, size_t bytes)
{
	memmove(c->buf + at, c->buf + AT(CR_PACKED), 512);
	memset(c->buf + AT(CR_PACKED), 0, 512);
	be16(c, craft_rc(CR_PACKED), 0);
	be16(c, craft_rc(CR_END), 1);
	craft_be64(c, craft_l2(G_PACKED), at | sectors << 58 | QC_COMPRESSED);
	c->size = at + bytes;
}

CHANGE(packed_cut_short, pack_last(c, AT(CR_END) + 3584, 0, 100);)
CHANGE(packed_into_nothing, pack_last(c, AT(CR_END) + 3584, 1, 512);)
L2E(packed_garbage, G_PACKED, AT(CR_DATA) | QC_COMPRESSED)
L2E(packed_copied, G_PACKED, AT(CR_PACKED) | QC_COMPRESSED | QC_COPIED)
L2E(packed_header, G_PACKED, QC_COMPRESSED)
L2E(packed_on_l2, G_PACKED, AT(CR_L2) | QC_COMPRESSED)

CHANGE(rc_header_free, be16(c, craft_rc(CR_HEADER), 0);)
CHANGE(rc_l1_free, be16(c, craft_rc(CR_L1), 0);)
CHANGE(rc_l2_free, be16(c, craft_rc(CR_L2), 0);)
CHANGE(rc_rt_free, be16(c, craft_rc(CR_RT), 0);)
CHANGE(rc_rb_free, be16(c, craft_rc(CR_RB), 0);)
CHANGE(rc_data_free, be16(c, craft_rc(CR_DATA), 0);)
CHANGE(rc_packed_free, be16(c, craft_rc(CR_PACKED), 0);)
CHANGE(rc_all_free, memset(c->buf + AT(CR_RB), 0, CRAFT_CLUSTER);)
CHANGE(rc_all_max, memset(c->buf + AT(CR_RB), 0xff, CRAFT_CLUSTER);)
CHANGE(rc_data_2, be16(c, craft_rc(CR_DATA), 2);)
CHANGE(rc_l2_2, be16(c, craft_rc(CR_L2), 2);)
CHANGE(rc_packed_max, be16(c, craft_rc(CR_PACKED), 0xffff);)
CHANGE(rc_leak, be16(c, craft_rc(CR_END), 1); c->size = AT(CR_END + 1);)
#define RTE(name, v)	CHANGE(name, craft_be64(c, AT(CR_RT), v);)
RTE(rte_0, 0)
RTE(rte_past_eof, AT(6000))
RTE(rte_unaligned, AT(CR_RB) + 512)
RTE(rte_rt, AT(CR_RT))
RTE(rte_l1, AT(CR_L1))
RTE(rte_l2, AT(CR_L2))
RTE(rte_data, AT(CR_DATA))
RTE(rte_header, 512)
RTE(rte_far, ~(uint64_t)(CRAFT_CLUSTER - 1))
CHANGE(rte_0_dirty, craft_be64(c, H_INCOMPAT, 1); craft_be64(c, AT(CR_RT), 0);)
CHANGE(rte_twice, craft_be64(c, AT(CR_RT) + 8, AT(CR_RB));)
CHANGE(rte_wide, memset(c->buf + AT(CR_RT), 0xff, CRAFT_CLUSTER);)
CHANGE(v2, craft_be32(c, H_VERSION, 2); memset(c->buf + 72, 0, 40);
	craft_be64(c, craft_l2(G_ZERO), 0); craft_be64(c, craft_l2(G_ZERO_ALLOC), 0);
	be16(c, craft_rc(CR_ZEROED), 0);)
CHANGE(v2_zero_flag, v2(c); craft_be64(c, craft_l2(G_ZERO), QC_ZERO);)

#define V(fn, fate, ...)	{ #fn, fn, fate, __VA_ARGS__ }
#define SOUND(fn)		V(fn, CRAFT_SOUND, 0, NULL, 0)
#define REFUSED(fn, e, says)	V(fn, CRAFT_REFUSED, e, says, 0)
#define NO_WRITE(fn, e, says)	V(fn, CRAFT_NO_WRITE, e, says, 0)
#define EIO_AT(fn, g)		V(fn, CRAFT_EIO, 0, NULL, g)
#define ANY(fn)			V(fn, CRAFT_ANY, 0, NULL, 0)

const struct craft_variant craft_variants[] = {
	SOUND(sound),
	REFUSED(no_bytes, -EINVAL, NULL),
	REFUSED(cut_in_header, -EINVAL, NULL),
	REFUSED(cut_behind_header, 0, NULL),
	ANY(cut_before_l2),
	ANY(cut_in_data),
	EIO_AT(cut_at_data, G_DATA2),
	REFUSED(no_magic, -EINVAL, NULL),
	REFUSED(version_1, -ENOTSUP, "version"),
	REFUSED(version_4, -ENOTSUP, "version"),
	REFUSED(bits_0, 0, "cluster"),
	REFUSED(bits_8, 0, "cluster"),
	REFUSED(bits_22, 0, "cluster"),
	REFUSED(bits_32, 0, "cluster"),
	REFUSED(bits_63, 0, "cluster"),
	REFUSED(aes, -ENOTSUP, "encrypt"),
	REFUSED(luks, -ENOTSUP, "encrypt"),
	REFUSED(crypt_3, -ENOTSUP, "encrypt"),
	REFUSED(size_max, 0, NULL),
	REFUSED(size_2_63, 0, NULL),
	REFUSED(size_more_than_l1, 0, NULL),
	ANY(size_odd),
	ANY(size_0),
	REFUSED(l1_size_0, 0, NULL),
	REFUSED(l1_size_max, 0, NULL),
	REFUSED(l1_33_mib, 0, NULL),
	REFUSED(l1_31_mib_beyond_eof, 0, NULL),
	REFUSED(l1_unaligned, 0, NULL),
	REFUSED(l1_on_header, 0, NULL),
	NO_WRITE(l1_on_rt, 0, NULL),
	REFUSED(l1_past_eof, 0, NULL),
	REFUSED(l1_huge, 0, NULL),
	REFUSED(l1_wraps, 0, NULL),
	NO_WRITE(rt_unaligned, 0, NULL),
	NO_WRITE(rt_on_header, 0, NULL),
	NO_WRITE(rt_on_l1, 0, NULL),
	NO_WRITE(rt_past_eof, 0, NULL),
	NO_WRITE(rt_wraps, 0, NULL),
	NO_WRITE(rt_0_clusters, 0, NULL),
	NO_WRITE(rt_9_mib, 0, NULL),
	NO_WRITE(rt_max, 0, NULL),
	NO_WRITE(rt_over_l1, 0, NULL),
	REFUSED(rc_order_7, 0, "refcount"),
	REFUSED(rc_order_max, 0, "refcount"),
	REFUSED(header_len_103, 0, NULL),
	REFUSED(header_len_0, 0, NULL),
	REFUSED(header_len_cluster, 0, NULL),
	REFUSED(header_len_max, 0, NULL),
	NO_WRITE(snapshots, -ENOTSUP, "snapshot"),
	NO_WRITE(snapshots_65537, 0, "snapshot"),
	NO_WRITE(snapshots_past_eof, 0, "snapshot"),
	NO_WRITE(corrupt, 0, "corrupt"),
	REFUSED(data_file, -ENOTSUP, "data file"),
	REFUSED(compression_bit_alone, 0, "compress"),
	REFUSED(extended_l2, -ENOTSUP, "L2"),
	REFUSED(unknown_incompat, -ENOTSUP, "incompatible"),
	REFUSED(unknown_incompat_63, -ENOTSUP, "incompatible"),
	ANY(dirty),
	SOUND(unknown_compat),
	SOUND(unknown_autoclear),
	SOUND(bitmaps_autoclear),
	REFUSED(compression_type_alone, 0, "compress"),
	REFUSED(compression_type_9, -ENOTSUP, "compress"),
	SOUND(ext_unknown),
	REFUSED(ext_too_long, 0, "extension"),
	REFUSED(ext_len_max, 0, "extension"),
	ANY(ext_crypto),
	ANY(ext_data_file),
	ANY(ext_no_end),
	REFUSED(backing_len_1024, 0, "backing"),
	REFUSED(backing_past_cluster, 0, "backing"),
	REFUSED(backing_wraps, 0, "backing"),
	REFUSED(backing_nul, 0, "NUL"),
	REFUSED(backing_nbd, -ENOTSUP, "nbd:h:1"),
	REFUSED(backing_json, -ENOTSUP, "json:"),
	REFUSED(backing_missing, -ENOENT, "none"),
	REFUSED(backing_fmt_vmdk, -ENOTSUP, "vmdk"),
	REFUSED(backing_self, -ELOOP, NULL),
	REFUSED(backing_dir, 0, NULL),
	ANY(backing_raw),
	ANY(backing_no_fmt),
	REFUSED(backing_qcow2_no_fmt, -EINVAL, "qcow2"),
	EIO_AT(l1e_unaligned, G_DATA),
	EIO_AT(l1e_past_eof, G_DATA),
	EIO_AT(l1e_header, G_DATA),
	ANY(l1e_l1),
	ANY(l1e_rt),
	ANY(l1e_rb),
	ANY(l1e_reserved),
	ANY(l1e_twice),
	ANY(l1e_cut),
	EIO_AT(l2e_unaligned, G_DATA),
	EIO_AT(l2e_past_eof, G_DATA),
	EIO_AT(l2e_far, G_DATA),
	ANY(l2e_header),
	ANY(l2e_on_l1),
	ANY(l2e_on_l2),
	ANY(l2e_on_l2b),
	ANY(l2e_on_rt),
	ANY(l2e_on_rb),
	ANY(l2e_twice),
	ANY(l2e_reserved),
	ANY(l2e_zero_on_l1),
	ANY(l2e_zero_past_eof),
	ANY(l2e_both),
	EIO_AT(packed_past_eof, G_PACKED),
	EIO_AT(packed_far, G_PACKED),
	NO_WRITE(packed_long, -EINVAL, "twice"),
	NO_WRITE(packed_at_eof, -EINVAL, "end of the file"),
	SOUND(packed_cut_short),
	NO_WRITE(packed_into_nothing, -EINVAL, "end of the file"),
	ANY(packed_garbage),
	ANY(packed_copied),
	ANY(packed_header),
	ANY(packed_on_l2),
	ANY(rc_header_free),
	ANY(rc_l1_free),
	ANY(rc_l2_free),
	ANY(rc_rt_free),
	ANY(rc_rb_free),
	ANY(rc_data_free),
	ANY(rc_packed_free),
	ANY(rc_all_free),
	ANY(rc_all_max),
	ANY(rc_data_2),
	ANY(rc_l2_2),
	ANY(rc_packed_max),
	ANY(rc_leak),
	ANY(rte_0),
	SOUND(rte_0_dirty),
	NO_WRITE(rte_past_eof, 0, NULL),
	NO_WRITE(rte_unaligned, 0, NULL),
	ANY(rte_rt),
	ANY(rte_l1),
	ANY(rte_l2),
	ANY(rte_data),
	NO_WRITE(rte_header, 0, NULL),
	NO_WRITE(rte_far, 0, NULL),
	ANY(rte_twice),
	ANY(rte_wide),
	SOUND(v2),
	ANY(v2_zero_flag),
};

const unsigned int craft_nr_variants = sizeof(craft_variants) / sizeof(craft_variants[0]);
