/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * codec.h - decompression of one cluster.
 */
#ifndef SLOWPATH_CODEC_H
#define SLOWPATH_CODEC_H

#include <stddef.h>

struct sp_codec {
	const char *name;
	/*
	 * Decompress in[0..in_len) to exactly out_len bytes.  The input may be
	 * longer than the compressed data (qcow2 rounds it up to sectors).
	 * Reentrant.  0, -EIO (damaged, or too short), -ENOMEM.
	 */
	int (*decompress)(void *out, size_t out_len, const void *in, size_t in_len);
};

extern const struct sp_codec sp_codec_zlib;	/* raw deflate, window of 12 bits */
extern const struct sp_codec sp_codec_zstd;

#endif /* SLOWPATH_CODEC_H */
