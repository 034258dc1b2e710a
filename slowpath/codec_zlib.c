// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * codec_zlib.c - raw deflate, as qcow2 compresses a cluster by default.
 *
 * libdeflate takes half of zlib's time, but knows whole streams only.  What it does
 * not take, as one that fills the cluster and does not end, zlib decides about.
 */
#include <errno.h>
#include <libdeflate.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>
#include <zlib.h>

#include "codec.h"

#define WINDOW_BITS	(-12)	/* raw: no header, no checksum; 4 KiB window */

static bool whole_stream(void *out, size_t out_len, const void *in, size_t in_len)
{
	struct libdeflate_decompressor *d = libdeflate_alloc_decompressor();
	enum libdeflate_result res;

	if (!d)
		return false;
	/* Without a place for the length this is success only if all is filled. */
	res = libdeflate_deflate_decompress(d, in, in_len, out, out_len, NULL);
	libdeflate_free_decompressor(d);
	return res == LIBDEFLATE_SUCCESS;
}

static int any_stream(void *out, size_t out_len, const void *in, size_t in_len)
{
	z_stream z;
	int rc;

	if (out_len > UINT_MAX || in_len > UINT_MAX)
		return -EIO;
	memset(&z, 0, sizeof(z));
	z.next_in = (z_const Bytef *)in;
	z.avail_in = in_len;
	z.next_out = out;
	z.avail_out = out_len;
	rc = inflateInit2(&z, WINDOW_BITS);
	if (rc != Z_OK)
		return rc == Z_MEM_ERROR ? -ENOMEM : -EIO;
	rc = inflate(&z, Z_FINISH);
	inflateEnd(&z);
	if (rc == Z_MEM_ERROR)
		return -ENOMEM;
	/* A full buffer will do, whether or not the stream says that it ends. */
	if (rc != Z_STREAM_END && rc != Z_BUF_ERROR && rc != Z_OK)
		return -EIO;
	return z.avail_out ? -EIO : 0;
}

static int decompress(void *out, size_t out_len, const void *in, size_t in_len)
{
	if (whole_stream(out, out_len, in, in_len))
		return 0;
	return any_stream(out, out_len, in, in_len);
}

const struct sp_codec sp_codec_zlib = {
	.name = "zlib",
	.decompress = decompress,
};
