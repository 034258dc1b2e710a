// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * codec_zstd.c - zstd, the other compression type of qcow2 version 3.
 *
 * Frame by frame rather than as a stream: the output buffer is then the window,
 * and a frame that claims a window of gigabytes costs no memory.
 */
#include <errno.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "codec.h"

static int decompress(void *out, size_t out_len, const void *in, size_t in_len)
{
	ZSTD_DCtx *ctx = ZSTD_createDCtx();
	size_t frame, n;
	int rc = 0;

	if (!ctx)
		return -ENOMEM;
	while (out_len) {
		frame = ZSTD_findFrameCompressedSize(in, in_len);
		if (ZSTD_isError(frame)) {	/* damaged, or the input ends */
			rc = -EIO;
			break;
		}
		n = ZSTD_decompressDCtx(ctx, out, out_len, in, frame);
		if (ZSTD_isError(n)) {
			rc = ZSTD_getErrorCode(n) == ZSTD_error_memory_allocation ?
				-ENOMEM : -EIO;
			break;
		}
		out = (char *)out + n;
		out_len -= n;
		in = (const char *)in + frame;
		in_len -= frame;
	}
	ZSTD_freeDCtx(ctx);
	return rc;
}

const struct sp_codec sp_codec_zstd = {
	.name = "zstd",
	.decompress = decompress,
};
