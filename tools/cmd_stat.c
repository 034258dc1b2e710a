// SPDX-License-Identifier: GPL-2.0-only
/*
 * cmd_stat.c - ubdmap stat: what the driver counted.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <json-c/json.h>

#include "cmd.h"

/* In the order of printing; sectors are told as bytes. */
static const struct {
	enum ubdm_stat stat;
	bool sectors;
	const char *key, *text;
} rows[] = {
	{ UBDM_S_READ_HITS, false, "read_hits", "read hits" },
	{ UBDM_S_READ_MISSES, false, "read_misses", "read misses" },
	{ UBDM_S_WRITE_HITS, false, "write_hits", "write hits" },
	{ UBDM_S_WRITE_MISSES, false, "write_misses", "write misses" },
	{ UBDM_S_ZERO_FILLS, false, "zero_fills", "zero fills" },
	{ UBDM_S_READ_SECTORS, true, "read_bytes", "bytes read" },
	{ UBDM_S_WRITE_SECTORS, true, "write_bytes", "bytes written" },
	{ UBDM_S_FAULTS, false, "faults", "faults to the mapper" },
	{ UBDM_S_FLUSH_KERNEL, false, "flushes_kernel",
	  "flushes by the kernel" },
	{ UBDM_S_FLUSH_MAPPER, false, "flushes_mapper",
	  "flushes by the mapper" },
	{ UBDM_S_EXTENTS, false, "extents", "extents now" },
	{ UBDM_S_EVICTED, false, "evicted", "extents evicted" },
	{ UBDM_S_PARKED, false, "parked", "requests waiting now" },
	{ UBDM_S_BACKINGS, false, "backings", "backings" },
	{ UBDM_S_INLINE, false, "inline", "hits issued inline" },
	{ UBDM_S_WORKER, false, "worker", "hits issued by a worker" },
	{ UBDM_S_ERRORS, false, "errors", "requests failed" },
	{ UBDM_S_WAITING_MS, false, "waiting_ms", "ms the oldest miss waits" },
	{ UBDM_S_LONGEST_MS, false, "longest_ms", "ms a miss waited at most" },
	{ UBDM_S_MAX_TID, false, "max_tid", "last change" },
	{ UBDM_S_COMMITTED_TID, false, "committed_tid",
	  "last change committed" },
};

#define NR_ROWS (sizeof(rows) / sizeof(rows[0]))

struct stat_run {
	struct ubdm_ctl *ctl;
	bool json;
	bool first_done;
	struct json_object *devices;
};

static uint64_t value(const struct ubdm_stats *s, size_t i)
{
	uint64_t v = s->v[rows[i].stat];

	return rows[i].sectors ? v << 9 : v;
}

static void print_device(struct stat_run *r, const char *path,
			 const struct ubdm_stats *s)
{
	printf("%s%s\n", r->first_done ? "\n" : "", path);
	r->first_done = true;
	for (size_t i = 0; i < NR_ROWS; i++)
		printf("  %-24s %15llu\n", rows[i].text,
		       (unsigned long long)value(s, i));
}

static void add_device(struct stat_run *r, const char *path,
		       const struct ubdm_stats *s)
{
	struct json_object *o = json_object_new_object();

	json_object_object_add(o, "name", json_object_new_string(path));
	for (size_t i = 0; i < NR_ROWS; i++)
		json_object_object_add(o, rows[i].key,
				       json_object_new_uint64(value(s, i)));
	json_object_array_add(r->devices, o);
}

/* A device that went away since is left out unless it was asked for. */
static int show(struct stat_run *r, uint32_t index, bool asked)
{
	struct ubdm_stats s;
	char path[32];
	int ret;

	device_path(index, path);
	ret = ubdm_ctl_stats(r->ctl, index, &s);
	if (ret == -ENODEV && !asked)
		return EXIT_OK;
	if (ret)
		return fail(exit_status_of(ret), "%s: %s", path,
			    strerror(-ret));
	if (r->json)
		add_device(r, path, &s);
	else
		print_device(r, path, &s);
	return EXIT_OK;
}

static int stat_all(struct stat_run *r)
{
	uint32_t *index;
	unsigned int nr;
	int status = device_all(r->ctl, &index, &nr);

	for (unsigned int i = 0; i < nr && !status; i++)
		status = show(r, index[i], false);
	free(index);
	return status;
}

static int stat_one(struct stat_run *r, const char *name)
{
	struct ubdm_device dev;
	int status = device_get(r->ctl, name, &dev);

	return status ? status : show(r, dev.index, true);
}

static int run_stat(int argc, char **argv)
{
	static const struct arguments want = { 0, 1, NULL, "one device, or none for all" };
	struct stat_run r = {};
	const struct flag flags[] = { { "json", 'J', &r.json }, {} };
	struct json_object *top;
	int status = parse_flags(&cmd_stat, argc, argv, flags, &want);

	if (status != PARSED)
		return status;

	status = driver_ctl(&r.ctl);
	if (status)
		return status;
	r.devices = json_object_new_array();
	status = optind < argc ? stat_one(&r, argv[optind]) : stat_all(&r);
	ubdm_ctl_close(r.ctl);
	if (status || !r.json)
		return status;
	top = json_object_new_object();
	json_object_object_add(top, "devices", r.devices);
	return print_json(top);
}

const struct command cmd_stat = {
	.name = "stat",
	.args = "[OPTION]... [DEV]",
	.summary = "hits, misses, faults, bytes, extents",
	.help = "Prints what the driver counted since the device was made. A hit was served\n"
		"by the kernel alone; a miss had to wait for the mapper.\n"
		"\n"
		"  -J, --json              as JSON\n"
		"  -h, --help              this\n",
	.run = run_stat,
};
