// SPDX-License-Identifier: GPL-2.0-only
/*
 * cmd_detach.c - ubdmap detach: a device that goes on without a mapper.
 *
 * A mapper of ours takes the device over, has all of it mapped, closes the image
 * and leaves.  If that is not possible it stays, as the device's mapper.
 */
#include <stdio.h>
#include <unistd.h>

#include "cmd.h"

static int detach(const char *name)
{
	char path[32], *args[] = { "--attach", path, "--take-over",
				   "--detach" };
	struct ubdm_device dev;
	struct ubdm_ctl *ctl;
	struct launched out;
	int status;

	status = driver_ctl(&ctl);
	if (status)
		return status;
	status = device_get(ctl, name, &dev);
	ubdm_ctl_close(ctl);
	if (status || dev.state == UBDM_STATE_DETACHED)
		return status;
	device_path(dev.index, path);
	return launch_mapper(4, args, &out, false);
}

static int run_detach(int argc, char **argv)
{
	static const struct arguments want = { 1, 1, "which device?", "one device at a time" };
	static const struct flag none[] = { {} };
	int status = parse_flags(&cmd_detach, argc, argv, none, &want);

	return status == PARSED ? detach(argv[optind]) : status;
}

const struct command cmd_detach = {
	.name = "detach",
	.args = "DEV",
	.summary = "let the device go on without a mapper",
	.help = "Maps all of the device, closes its image cleanly, and ends the mapper: the\n"
		"driver alone serves it from then on. That is possible for raw images, and for\n"
		"qcow2 images in which everything is allocated, or which are read-only and have\n"
		"nothing compressed. The image stays locked. A discard then frees nothing.\n"
		"ubdmap attach gives the device a mapper again.\n"
		"\n"
		"  -h, --help              this\n",
	.run = run_detach,
};
