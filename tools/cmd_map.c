// SPDX-License-Identifier: GPL-2.0-only
/*
 * cmd_map.c - ubdmap map: the extents that the kernel holds now.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <json-c/json.h>

#include "cmd.h"

struct map_run {
	bool json, header_done;
	struct json_object *extents;
};

static const char *type_of(const struct ubdm_extent *e)
{
	switch (e->type) {
	case UBDM_EXT_LINEAR:
		return "linear";
	case UBDM_EXT_ZERO:
		return "zero";
	case UBDM_EXT_ERROR:
		return "error";
	case UBDM_EXT_JOURNAL:
		return "journal";
	default:
		return "?";
	}
}

static bool is_located(const struct ubdm_extent *e)
{
	return e->type == UBDM_EXT_LINEAR || e->type == UBDM_EXT_JOURNAL;
}

static const char *perm_of(const struct ubdm_extent *e)
{
	return e->perm & UBDM_PERM_W ? "rw" : e->perm & UBDM_PERM_R ? "r" : "-";
}

static void print_line(struct map_run *r, const struct ubdm_extent *e)
{
	char backing[16] = "-", off[24] = "-";

	if (is_located(e)) {
		snprintf(backing, sizeof(backing), "%u", e->backing);
		snprintf(off, sizeof(off), "%llu",
			 (unsigned long long)e->off << 9);
	}
	if (!r->header_done)
		printf("%16s %12s %-7s %-4s %7s %16s %s\n", "START", "LENGTH",
		       "TYPE", "PERM", "BACKING", "OFFSET", "CHANGE");
	r->header_done = true;
	printf("%16llu %12llu %-7s %-4s %7s %16s ",
	       (unsigned long long)e->lba << 9, (unsigned long long)e->len << 9,
	       type_of(e), perm_of(e), backing, off);
	if (e->tid)
		printf("%llu\n", (unsigned long long)e->tid);
	else
		puts("-");
}

static void put(struct json_object *o, const char *key, uint64_t v)
{
	json_object_object_add(o, key, json_object_new_uint64(v));
}

static void add_json(struct map_run *r, const struct ubdm_extent *e)
{
	struct json_object *o = json_object_new_object();

	put(o, "start", e->lba << 9);
	put(o, "length", e->len << 9);
	json_object_object_add(o, "type", json_object_new_string(type_of(e)));
	json_object_object_add(o, "perm", json_object_new_string(perm_of(e)));
	if (is_located(e)) {
		put(o, "backing", e->backing);
		put(o, "offset", e->off << 9);
	}
	if (e->tid)
		put(o, "uncommitted", e->tid);
	json_object_array_add(r->extents, o);
}

static int show(void *arg, const struct ubdm_extent *ext)
{
	struct map_run *r = arg;

	if (r->json)
		add_json(r, ext);
	else
		print_line(r, ext);
	return 0;
}

static int say_why(const char *name, int error)
{
	if (error == -EPERM || error == -EACCES)
		return fail(EXIT_PERM, "%s: not yours to look into; run as root",
			    name);
	return fail(exit_status_of(error), "%s: %s", name, strerror(-error));
}

static int map(struct map_run *r, const char *name)
{
	struct ubdm_device dev;
	struct ubdm_ctl *ctl;
	int ret, status;

	status = driver_ctl(&ctl);
	if (status)
		return status;
	status = device_get(ctl, name, &dev);
	if (!status) {
		ret = ubdm_ctl_extents(ctl, dev.index, show, r);
		if (ret)
			status = say_why(name, ret);
	}
	ubdm_ctl_close(ctl);
	return status;
}

static int run_map(int argc, char **argv)
{
	static const struct arguments want = { 1, 1, "which device?", "one device at a time" };
	struct map_run r = {};
	const struct flag flags[] = { { "json", 'J', &r.json }, {} };
	struct json_object *top;
	int status = parse_flags(&cmd_map, argc, argv, flags, &want);

	if (status != PARSED)
		return status;

	r.extents = json_object_new_array();
	status = map(&r, argv[optind]);
	if (status || !r.json)
		return status;
	top = json_object_new_object();
	json_object_object_add(top, "extents", r.extents);
	return print_json(top);
}

const struct command cmd_map = {
	.name = "map",
	.args = "[OPTION]... DEV",
	.summary = "the extents that the kernel holds now",
	.help = "Prints where the kernel finds the device's data without asking the mapper, in\n"
		"bytes. Backing 0 is the image, the next are its backing files, the last can be\n"
		"the cache for decompressed data. CHANGE numbers what the image's metadata does\n"
		"not have yet.\n"
		"\n"
		"  -J, --json              as JSON\n"
		"  -h, --help              this\n",
	.run = run_map,
};
