// SPDX-License-Identifier: GPL-2.0-only
/*
 * driver.c - reaching the driver, or saying why that is not possible.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "cmd.h"

static bool mentions(const char *path, const char *word)
{
	FILE *f = fopen(path, "re");
	char *line = NULL;
	size_t size = 0;
	bool found = false;

	if (!f)
		return false;
	while (!found && getline(&line, &size, f) >= 0)
		found = strstr(line, word);
	free(line);
	fclose(f);
	return found;
}

/**
 * driver_missing - why there is no driver, and what to do
 */
const char *driver_missing(void)
{
	static char msg[256];
	char path[256];
	struct utsname u;
	int major = 0, minor = 0;

	if (uname(&u))
		return "the ubdmap driver is not loaded; run: modprobe ubdmap";
	if (!access("/sys/module/ubdmap", F_OK))
		return "the ubdmap driver is loaded, but " UBDM_CHANNEL_PATH
		       " is missing; is devtmpfs mounted on /dev?";

	sscanf(u.release, "%d.%d", &major, &minor);
	snprintf(path, sizeof(path), "/lib/modules/%s/modules.dep", u.release);
	if (mentions(path, "/ubdmap.ko"))
		return "the ubdmap driver is not loaded; run: modprobe ubdmap";
	if (major < 6 || (major == 6 && minor < 12))
		snprintf(
			msg, sizeof(msg),
			"the ubdmap driver needs Linux 6.12 or later, this is %.64s",
			u.release);
	else
		snprintf(
			msg, sizeof(msg),
			"there is no ubdmap driver for this kernel (%.64s); build and install it: make install, then modprobe ubdmap",
			u.release);
	return msg;
}

/* A new channel.  Returns an exit status, having said why if not 0. */
int driver_channel(int *fd)
{
	*fd = open(UBDM_CHANNEL_PATH, O_RDWR | O_CLOEXEC);
	if (*fd >= 0)
		return EXIT_OK;
	switch (errno) {
	case ENOENT:
	case ENODEV:
	case ENXIO:
		return fail(EXIT_DRIVER, "%s", driver_missing());
	case EACCES:
	case EPERM:
		return fail(EXIT_PERM,
			    UBDM_CHANNEL_PATH ": no permission; run as root");
	default:
		return fail(EXIT_FAIL, UBDM_CHANNEL_PATH ": %s",
			    strerror(errno));
	}
}

/* The control plane.  Returns an exit status, having said why if not 0. */
int driver_ctl(struct ubdm_ctl **ctl)
{
	int ret = ubdm_ctl_open(ctl);

	switch (ret) {
	case 0:
		return EXIT_OK;
	case -ENOENT:
		return fail(EXIT_DRIVER, "%s", driver_missing());
	case -EPROTO:
		return fail(
			EXIT_DRIVER,
			"the loaded driver is of another version; run: modprobe -r ubdmap && modprobe ubdmap");
	default:
		return fail(exit_status_of(ret), "netlink: %s", strerror(-ret));
	}
}
