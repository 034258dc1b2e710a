// SPDX-License-Identifier: GPL-2.0-only
/*
 * cmd_list.c - ubdmap list: which devices there are.
 */
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <json-c/json.h>

#include "cmd.h"
#include "text.h"

struct list {
	bool json, bytes, header_done;
	struct json_object *devices;
};

static const char *owner_of(const struct ubdm_device *dev, char buf[16])
{
	struct passwd *pw = getpwuid(dev->owner_uid);

	if (pw)
		return pw->pw_name;
	snprintf(buf, 16, "%u", dev->owner_uid);
	return buf;
}

static void put(struct json_object *o, const char *key, struct json_object *v)
{
	json_object_object_add(o, key, v);
}

static void add_json(struct list *l, const struct ubdm_device *dev)
{
	struct json_object *o = json_object_new_object();
	char path[32], uid[16];
	char text[TEXT_UTF8_MAX * sizeof(dev->ident) + 1];

	device_path(dev->index, path);
	put(o, "name", json_object_new_string(path));
	put(o, "size", json_object_new_uint64(dev->size << 9));
	put(o, "sector-size", json_object_new_uint64(dev->block_size));
	put(o, "ro", json_object_new_boolean(dev->flags & UBDM_DEV_F_RO));
	put(o, "partscan",
	    json_object_new_boolean(dev->flags & UBDM_DEV_F_PARTSCAN));
	put(o, "format", json_object_new_string(text_utf8(text, dev->format)));
	put(o, "state", json_object_new_string(device_state(dev)));
	put(o, "mapper",
	    dev->mapper_pid ? json_object_new_int64(dev->mapper_pid) : NULL);
	put(o, "owner", json_object_new_string(owner_of(dev, uid)));
	put(o, "openers", json_object_new_int64(dev->openers));
	put(o, "image", json_object_new_string(text_utf8(text, dev->ident)));
	json_object_array_add(l->devices, o);
}

static void print_line(struct list *l, const struct ubdm_device *dev)
{
	char path[32], size[24], uid[16], pid[16] = "-";
	char image[sizeof(dev->ident)], format[sizeof(dev->format)];

	device_path(dev->index, path);
	if (l->bytes)
		snprintf(size, sizeof(size), "%llu",
			 (unsigned long long)dev->size << 9);
	else
		format_size(dev->size << 9, size);
	if (dev->mapper_pid)
		snprintf(pid, sizeof(pid), "%u", dev->mapper_pid);

	if (!l->header_done)
		printf("%-14s %8s %2s %-6s %-8s %8s %-8s %s\n", "NAME", "SIZE",
		       "RO", "FORMAT", "STATE", "MAPPER", "OWNER", "IMAGE");
	l->header_done = true;
	/* Both are its mapper's, who may be anybody. */
	snprintf(image, sizeof(image), "%s", dev->ident);
	text_one_line(image);
	snprintf(format, sizeof(format), "%s", dev->format);
	text_one_line(format);
	printf("%-14s %8s %2d %-6s %-8s %8s %-8s %s\n", path, size,
	       !!(dev->flags & UBDM_DEV_F_RO), format, device_state(dev), pid,
	       owner_of(dev, uid), image);
}

static int show(void *arg, const struct ubdm_device *dev)
{
	struct list *l = arg;

	if (l->json)
		add_json(l, dev);
	else
		print_line(l, dev);
	return 0;
}

static int finish(struct list *l)
{
	struct json_object *top;

	if (!l->json)
		return EXIT_OK;
	top = json_object_new_object();
	put(top, "devices", l->devices);
	return print_json(top);
}

static int list(struct list *l, const char *name)
{
	struct ubdm_device dev;
	struct ubdm_ctl *ctl;
	int ret, status;

	status = driver_ctl(&ctl);
	if (status)
		return status;
	if (name) {
		status = device_get(ctl, name, &dev);
		if (!status)
			show(l, &dev);
	} else {
		ret = ubdm_ctl_list(ctl, show, l);
		if (ret)
			status = fail(exit_status_of(ret), "list: %s",
				      strerror(-ret));
	}
	ubdm_ctl_close(ctl);
	return status;
}

static int run_list(int argc, char **argv)
{
	static const struct arguments want = { 0, 1, NULL, "one device, or none for all" };
	struct list l = {};
	const struct flag flags[] = {
		{ "json", 'J', &l.json },
		{ "bytes", 'b', &l.bytes },
		{}
	};
	int status = parse_flags(&cmd_list, argc, argv, flags, &want);

	if (status != PARSED)
		return status;
	l.devices = json_object_new_array();
	status = list(&l, argv[optind]);
	return status ? status : finish(&l);
}

const struct command cmd_list = {
	.name = "list",
	.args = "[OPTION]... [DEV]",
	.summary = "devices, with image, format, state, mapper and owner",
	.help = "Lists the devices, or the one named.\n"
		"\n"
		"  -J, --json              as JSON; sizes in bytes\n"
		"  -b, --bytes             sizes in bytes\n"
		"  -h, --help              this\n"
		"\n"
		"States: new (not started yet), live, orphaned (its mapper is gone: what is\n"
		"mapped is served on, all else waits; see ubdmap attach), failed (writing to the\n"
		"image failed: reads only), dying (being deleted), detached (no mapper, and none\n"
		"needed), stalled (the mapper does not answer a request), space (writes wait for\n"
		"space below).\n",
	.run = run_list,
};
