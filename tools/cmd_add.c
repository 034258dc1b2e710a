// SPDX-License-Identifier: GPL-2.0-only
/*
 * cmd_add.c - ubdmap add, ubdmap attach.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "options.h"

static int run_add(int argc, char **argv)
{
	struct serve_options o;
	struct launched out = { .made = false };
	int ret, fd;

	ret = parse_serve(&cmd_add, argc, argv, false, &o);
	if (ret)
		return ret == OPTIONS_HELP_DONE ? EXIT_OK : ret;

	/* What needs no mapper to be found out. */
	if (access(o.image, F_OK))
		return fail(exit_status_of(-errno), "%s: %s%s", o.image,
			    strerror(errno),
			    errno == ENOENT ? "; check the path" : "");
	ret = driver_channel(&fd);
	if (ret)
		return ret;
	close(fd);
	out.partscan = o.partscan;
	return launch_mapper(o.nr_args, o.args, &out, true);
}

const struct command cmd_add = {
	.name = "add",
	.args = "[OPTION]... IMAGE",
	.summary = "make a block device of IMAGE and print its name",
	.help = "Serves IMAGE as a block device and prints its name, /dev/ubdmapN, as soon as it\n"
		"can be used. A mapper stays in the background until the device is deleted; if it\n"
		"dies another one is started.\n"
		"\n"
		"  -r, --read-only         write nothing\n"
		"  -f, --format FORMAT     raw or qcow2; by default as the name says: .qcow2,\n"
		"                          .raw, .img, or a block device (raw)\n"
		"  -b, --sector-size SIZE  logical sector of the device, 512 to 4096 bytes;\n"
		"                          by default the smallest that is possible\n"
		"  -P, --partscan          look for partitions, /dev/ubdmapNp1 and so on\n"
		"      --cache-size SIZE   bound of the memory for decompressed data (64M)\n"
		"      --space-timeout S   seconds that writes wait when the disk below is full,\n"
		"                          before they fail (60; 0: without end)\n"
		"      --orphan-timeout S  seconds that requests wait when the mapper is gone and\n"
		"                          no new one comes (120; 0: without end)\n"
		"      --detach            leave the device to the driver alone; see ubdmap detach\n"
		"  -h, --help              this\n",
	.run = run_add,
};

static int find_image(const char *name, char path[32])
{
	struct ubdm_device dev;
	struct ubdm_ctl *ctl;
	int status = driver_ctl(&ctl);

	if (status)
		return status;
	status = device_get(ctl, name, &dev);
	if (!status)
		device_path(dev.index, path);
	ubdm_ctl_close(ctl);
	return status;
}

static int run_attach(int argc, char **argv)
{
	static const struct arguments want = { 1, 1, "which device?", "one device at a time" };
	static const struct flag none[] = { {} };
	int status = parse_flags(&cmd_attach, argc, argv, none, &want);
	char path[32], *args[2] = { "--attach" };
	struct launched out = { .made = false };
	uint32_t index;

	if (status != PARSED)
		return status;
	args[1] = argv[optind];
	if (device_index(args[1], &index)) {
		status = find_image(args[1], path);
		if (status)
			return status;
		args[1] = path;
	}
	return launch_mapper(2, args, &out, true);
}

const struct command cmd_attach = {
	.name = "attach",
	.args = "DEV",
	.summary = "start a mapper for a device that lost its own",
	.help = "Starts a new mapper for an orphaned or detached device. It links into the image\n"
		"what the old one had not written there yet, and takes the waiting requests.\n"
		"\n"
		"  -h, --help              this\n",
	.run = run_attach,
};
