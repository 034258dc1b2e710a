// SPDX-License-Identifier: GPL-2.0-only
/*
 * fuzz_qcow2.c - open, read, write, discard, flush, attach and finish on an image
 * of anybody's making, through the fake device.
 *
 * Input, numbers being big-endian: a byte n; n operations of 4 bytes each (what,
 * where, where, how much); the size of the image file in 4 bytes; then pieces of the
 * file, each with its offset in 4 bytes, its length in 2, and its bytes.  All else
 * in the file is zeros.  Whatever it contains: no crash, no breach of the contract
 * with the kernel, no hang, no large memory.  Seeds: CORPUS_OUT=folder
 * build/asan/test_hostile.
 *
 * The image lies on tmpfs.  The backing files it may name are in its own folder;
 * no other path that it names is ever opened.
 */
#include <sys/resource.h>

#include "util.h"
#include "fakedev.h"

#define LIMIT_S		10
#define MAX_LEN		512		/* sectors of one operation */
#define MAX_FILE	(24u << 20)

const char *__asan_default_options(void);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

const char *__asan_default_options(void)
{
	return "max_allocation_size_mb=64:hard_rss_limit_mb=1024:detect_leaks=1";
}

static char folder[64], image[96];

static void clean_up(void)
{
	char cmd[128];

	snprintf(cmd, sizeof(cmd), "rm -rf '%s'", folder);
	if (system(cmd))
		perror(folder);
}

static void put(const char *path, const void *data, size_t len)
{
	int fd = open(path, O_RDWR | O_CREAT, 0600);

	if (fd < 0 || ftruncate(fd, 0) || pwrite(fd, data, len, 0) != (ssize_t)len)
		abort();
	close(fd);
}

static void set_up(void)
{
	static const uint8_t qcow2[112] = {
		'Q', 'F', 'I', 0xfb, 0, 0, 0, 3, [23] = 9, [30] = 0x40,
		[39] = 1, [46] = 2, [54] = 4, [59] = 1, [99] = 4, [103] = 112,
	};
	char path[128], block[4096];
	struct rlimit lim = { 1 << 30, 1 << 30 };

	snprintf(folder, sizeof(folder), "%s/ubdmap-fuzz-XXXXXX",
		 access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
	if (!mkdtemp(folder))
		abort();
	atexit(clean_up);
	snprintf(image, sizeof(image), "%s/img.qcow2", folder);
	memset(block, 0x77, sizeof(block));
	snprintf(path, sizeof(path), "%s/base", folder);
	put(path, block, sizeof(block));
	memset(block, 0, sizeof(block));
	memcpy(block, qcow2, sizeof(qcow2));
	snprintf(path, sizeof(path), "%s/base.qcow2", folder);
	put(path, block, 2048);
	/* A write far out fails instead of filling memory. */
	signal(SIGXFSZ, SIG_IGN);
	setrlimit(RLIMIT_FSIZE, &lim);
}

static bool allow(void *ctx, const char *path)
{
	const char *base = path + strlen(folder);

	(void)ctx;
	if (strncmp(path, folder, strlen(folder)))
		return false;
	return !strcmp(base, "/base") || !strcmp(base, "/base.qcow2") ||
	       !strcmp(base, "/img.qcow2");
}

static void operate(struct fdev *d, const uint8_t *op, bool *gone)
{
	static char buf[MAX_LEN * 512];
	uint64_t size = fdev_info(d)->size, blk = fdev_info(d)->block_size / 512;
	uint64_t lba, len, where = op[1] << 8 | op[2];
	struct sp_err err;

	if (size < blk)
		return;
	/* Mostly near the beginning and the end, and all over. */
	lba = op[0] & 0x80 ? where * (size / 65536) : op[0] & 0x40 ? where % 512 :
	      size - 1 - where % (size < 512 ? size : 512);
	lba = lba % size / blk * blk;
	len = (op[3] & 0x80 ? (op[3] & 0x7f) * 4 + 1 : (op[3] & 0xf) + 1) + blk - 1;
	len = len / blk * blk;
	if (len > MAX_LEN)
		len = MAX_LEN / blk * blk;
	if (len > size - lba)
		len = (size - lba) / blk * blk;
	if (!len)
		return;
	switch (op[0] & 0xf) {
	case 0 ... 3:
		fdev_read(d, buf, lba, len);
		break;
	case 4 ... 8:
		memset(buf, op[3], len * 512);
		fdev_write(d, buf, lba, len, op[0] & 0x10);
		break;
	case 9 ... 10:
		fdev_discard(d, lba, len);
		break;
	case 11 ... 12:
		fdev_zeroes(d, lba, len, op[0] & 0x10);
		break;
	case 13:
		fdev_flush(d);
		break;
	case 14:
		fdev_evict(d, 50);
		break;
	case 15:
		/* May fail on such an image; then only the end is left. */
		*gone = fdev_reattach(d, &err);
		break;
	}
}

static uint32_t be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3];
}

static void put_image(const uint8_t *data, size_t size)
{
	uint32_t file = be32(data) % (MAX_FILE + 1), off, len;
	int fd = open(image, O_RDWR | O_CREAT, 0600);

	data += 4;
	size -= 4;
	/* Emptied first: nothing of an earlier input stays. */
	if (fd < 0 || ftruncate(fd, 0) || ftruncate(fd, file))
		abort();
	while (size >= 6) {
		off = be32(data);
		len = data[4] << 8 | data[5];
		data += 6;
		size -= 6;
		if (len > size)
			len = size;
		if (off < file &&
		    pwrite(fd, data, len > file - off ? file - off : len, off) < 0)
			abort();
		data += len;
		size -= len;
	}
	close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fdev_opts o = { .format = "qcow2", .hostile = true, .allow_backing = allow,
			       .evict = 5, .late = 20, .work = 10, .widen = 20 };
	struct sp_err err;
	struct fdev *d;
	bool gone = false;
	unsigned int i, nr;

	if (!folder[0])
		set_up();
	if (!size || size < 1 + 4u * data[0] + 4)
		return 0;
	nr = data[0];
	put_image(data + 1 + 4 * nr, size - 1 - 4 * nr);
	o.path = image;
	o.seed = nr;
	o.read_only = nr & 1 && nr & 2 && nr & 4;
	alarm(LIMIT_S);
	if (!fdev_open(&d, &o, &err)) {
		for (i = 0; i < nr && i < 64 && !gone; i++)
			operate(d, data + 1 + 4 * i, &gone);
		if (gone || (nr & 8 && nr & 16))
			fdev_drop(d);
		else
			fdev_finish(d, &err);
	}
	alarm(0);
	return 0;
}
