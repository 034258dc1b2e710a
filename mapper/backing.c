// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * backing.c - stores of the image as backings of the device.
 *
 * They are registered in their order on a fresh device, so that the index of
 * a backing is the number of its store.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "mapper.h"
#include "stack.h"

static int add(struct ubdm_mapper *m, const struct sp_store *st)
{
	struct ubdm_msg msg;
	uint32_t flags = 0;
	int ret;

	if (st->flags & SP_STORE_WRITE)
		flags |= UBDM_BACKING_F_WRITE;
	if (st->flags & SP_STORE_BUFFERED)
		flags |= UBDM_BACKING_F_BUFFERED;
	ubdm_encode_backing_add(&msg, st->fd, flags);
	ret = ubdm_sync_run(m, &msg);
	/*
	 * What is written to must not go through the page cache on one side and around it
	 * on the other; what is only read may.
	 */
	if (ret == -EOPNOTSUPP &&
	    !(flags & (UBDM_BACKING_F_BUFFERED | UBDM_BACKING_F_WRITE))) {
		flags |= UBDM_BACKING_F_BUFFERED;
		ubdm_encode_backing_add(&msg, st->fd, flags);
		ret = ubdm_sync_run(m, &msg);
	}
	return ret;
}

static void explain(struct ubdm_err *err, const struct sp_store *st, int ret)
{
	switch (ret) {
	case -ELOOP:
		ubdm_err_set(
			err,
			"%s: lies on the device it is to back; use a file elsewhere",
			st->path);
		break;
	case -EOPNOTSUPP:
		ubdm_err_set(
			err,
			"%s: no direct I/O with this sector size; try -b 4096",
			st->path);
		break;
	default:
		ubdm_err_set(err, "%s: the driver refuses it as a backing: %s",
			     st->path, strerror(-ret));
	}
}

/**
 * ubdm_backing_add_all - register every store of the image
 * @m: the mapper
 * @err: gets the reason of a failure
 */
int ubdm_backing_add_all(struct ubdm_mapper *m, struct ubdm_err *err)
{
	const struct sp_store *st;

	for (unsigned int i = 0; (st = sp_store(m->img, i)); i++) {
		int ret = add(m, st);

		if (ret < 0) {
			explain(err, st, ret);
			return ret;
		}
		if (ret != (int)i) {
			ubdm_err_set(
				err,
				"the driver numbered backing %u as %d; it does not fit this ubdmap",
				i, ret);
			return -EPROTO;
		}
	}
	return 0;
}

/**
 * ubdm_backing_get_all - the files an earlier mapper registered
 * @m: the mapper, attached
 * @fds: room for SP_MAX_STORES
 * @nr: how many there are
 *
 * Return: 0, or -errno; nothing is left open then.
 */
int ubdm_backing_get_all(struct ubdm_mapper *m, int *fds, unsigned int *nr)
{
	struct ubdm_msg msg;
	int ret;

	for (*nr = 0; *nr < SP_MAX_STORES; ++*nr) {
		ubdm_encode_backing_get(&msg, *nr);
		ret = ubdm_sync_run(m, &msg);
		if (ret == -ENOENT)
			return 0;
		if (ret < 0)
			goto err_close;
		fds[*nr] = ret;
	}
	return 0;

err_close:
	while (*nr)
		close(fds[--*nr]);
	return ret;
}

/**
 * ubdm_backing_check_all - does the device lie on itself?
 * @fds: its files
 * @nr: how many
 * @index: the device
 * @err: which
 *
 * Return: 0 or -ELOOP.
 */
int ubdm_backing_check_all(const int *fds, unsigned int nr, uint32_t index,
			   struct ubdm_err *err)
{
	char disk[32];

	snprintf(disk, sizeof(disk), "ubdmap%u", index);
	for (unsigned int i = 0; i < nr; i++) {
		if (!ubdm_stack_lies_on("/sys", fds[i], disk))
			continue;
		ubdm_err_set(
			err,
			"/dev/%s: backing %u has come to lie on the device itself; undo that first",
			disk, i);
		return -ELOOP;
	}
	return 0;
}

/**
 * ubdm_backing_unlock_all - the image is clean and the device gone: let others in
 * @m: the mapper
 *
 * The kernel closes its reference to the files a little later, and the locks
 * belong to the open file, which is one and the same.
 */
void ubdm_backing_unlock_all(struct ubdm_mapper *m)
{
	struct flock fl = { .l_type = F_UNLCK, .l_whence = SEEK_SET };
	const struct sp_store *st;

	for (unsigned int i = 0; (st = sp_store(m->img, i)); i++)
		fcntl(st->fd, F_OFD_SETLK, &fl);
}
