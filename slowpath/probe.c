// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * probe.c - which format a file has, and which backing files are let in.
 *
 * A guest can write whatever it likes into the first sectors of its raw disk, a
 * qcow2 header with any backing file for instance.  So the content never decides;
 * it can only contradict what was stated or what the name says, and then a
 * person has to state the format.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "err.h"
#include "probe.h"

#define PROBE_LEN	512

struct magic {
	const char *format;
	unsigned int off;
	unsigned int len;
	const char *bytes;
};

#define MAGIC(fmt, off, str) { fmt, off, sizeof(str) - 1, str }

static const char qcow_magic[] = "QFI\xfb";

static const struct magic magics[] = {
	MAGIC("vmdk", 0, "KDMV"),
	MAGIC("vmdk", 0, "COWD"),
	MAGIC("vmdk", 0, "# Disk DescriptorFile"),
	MAGIC("vdi", 0x40, "\x7f\x10\xda\xbe"),
	MAGIC("vhdx", 0, "vhdxfile"),
	MAGIC("vpc (vhd)", 0, "conectix"),
	MAGIC("qed", 0, "QED\0"),
	MAGIC("luks", 0, "LUKS\xba\xbe"),
	MAGIC("parallels", 0, "WithoutFreeSpace"),
	MAGIC("parallels", 0, "WithouFreSpacExt"),
	MAGIC("bochs", 0, "Bochs Virtual HD Image"),
	MAGIC("cloop", 0, "#!/bin/sh\n#V2.0 Format"),
};

/* Of qcow2, or of qcow before it, which is another format. */
static bool is_qcow(const char *head)
{
	return !memcmp(head, qcow_magic, 4);
}

static bool is_qcow1(const char *head)
{
	return is_qcow(head) && !memcmp(head + 4, "\0\0\0\1", 4);
}

/* The format whose magic is there, or NULL. */
static const char *content(const char *head)
{
	size_t i;

	if (is_qcow(head))
		return is_qcow1(head) ? "qcow" : "qcow2";
	for (i = 0; i < sizeof(magics) / sizeof(magics[0]); i++)
		if (!memcmp(head + magics[i].off, magics[i].bytes, magics[i].len))
			return magics[i].format;
	return NULL;
}

static int read_head(struct sp_file *f, char *head, struct sp_err *err)
{
	size_t got;
	int rc;

	rc = sp_file_pread(f, head, PROBE_LEN, 0, &got);
	if (rc)
		return sp_fail(err, rc, "%s: cannot read it: %s", f->path, strerror(-rc));
	return 0;
}

static int take_qcow2(const struct sp_file *f, const char *head, enum sp_format *fmt,
		      struct sp_err *err)
{
	if (is_qcow1(head))
		return sp_fail(err, -ENOTSUP, "%s: a qcow image, of version 1, which is not supported, only qcow2; convert it: qemu-img convert -f qcow -O qcow2",
			       f->path);
	*fmt = SP_FMT_QCOW2;
	return 0;
}

static int from_stated(const struct sp_file *f, const char *stated, const char *head,
		       enum sp_format *fmt, struct sp_err *err)
{
	if (!strcmp(stated, "raw")) {
		*fmt = SP_FMT_RAW;
		return 0;
	}
	if (strcmp(stated, "qcow2"))
		return sp_fail(err, -ENOTSUP, "%s: format '%s' is not supported, only raw and qcow2; convert it with qemu-img",
			       f->path, stated);
	if (!is_qcow(head))
		return sp_fail(err, -EINVAL, "%s: not a qcow2 image, it lacks the magic; is it raw?",
			       f->path);
	return take_qcow2(f, head, fmt, err);
}

static bool ends_in(const char *path, const char *ext)
{
	size_t n = strlen(path), m = strlen(ext);

	return n > m && !strcasecmp(path + n - m, ext);
}

/**
 * sp_probe_image - the format of the image that the user named
 * @f: the image
 * @stated: as stated, or NULL
 * @fmt: the answer
 * @err: message
 *
 * Return: 0; -EINVAL: unclear or contradictory; -ENOTSUP: a format we lack; or
 * what reading gave.
 */
int sp_probe_image(struct sp_file *f, const char *stated, enum sp_format *fmt,
		   struct sp_err *err)
{
	char head[PROBE_LEN];
	const char *found;
	int rc;

	rc = read_head(f, head, err);
	if (rc)
		return rc;
	if (stated)
		return from_stated(f, stated, head, fmt, err);
	found = content(head);
	if (ends_in(f->path, ".qcow2")) {
		if (!is_qcow(head))
			return sp_fail(err, -EINVAL, "%s: named like a qcow2 image but looks like %s; state its format (-f raw)",
				       f->path, found ? found : "none");
		return take_qcow2(f, head, fmt, err);
	}
	if (ends_in(f->path, ".qcow") && is_qcow1(head))
		return take_qcow2(f, head, fmt, err);
	if (f->blockdev || ends_in(f->path, ".raw") || ends_in(f->path, ".img")) {
		if (found)
			return sp_fail(err, -EINVAL, "%s: would be raw by its name but begins like %s; state its format (-f raw, -f qcow2)",
				       f->path, found);
		*fmt = SP_FMT_RAW;
		return 0;
	}
	return sp_fail(err, -EINVAL, "%s: its name does not tell the format; state it (-f raw, -f qcow2)",
		       f->path);
}

/**
 * sp_probe_backing - the format of a backing file
 * @f: the backing file
 * @stated: the format that the image's header states, or NULL
 * @fmt: the answer
 * @err: message
 *
 * Return: 0; -EINVAL: none stated and not plainly raw, or contradictory;
 * -ENOTSUP: a format we lack; or what reading gave.
 */
int sp_probe_backing(struct sp_file *f, const char *stated, enum sp_format *fmt,
		     struct sp_err *err)
{
	char head[PROBE_LEN];
	const char *found;
	int rc;

	rc = read_head(f, head, err);
	if (rc)
		return rc;
	if (stated)
		return from_stated(f, stated, head, fmt, err);
	found = content(head);
	if (found)
		return sp_fail(err, -EINVAL, "%s: backing file without a stated format that begins like %s; state it in the image: qemu-img rebase -u -F FORMAT -b ...",
			       f->path, found);
	*fmt = SP_FMT_RAW;
	return 0;
}

/**
 * sp_backing_path - where a backing file is
 * @image_path: the image that names it
 * @name: the name as the image has it, not terminated
 * @name_len: bytes
 * @out: malloc'ed path
 * @err: message
 *
 * A name that is not absolute counts from the folder of @image_path, as QEMU
 * has it.
 *
 * Return: 0; -EINVAL: no name of a file; -ENOTSUP: a protocol; -ENOMEM.
 */
int sp_backing_path(const char *image_path, const char *name, size_t name_len,
		    char **out, struct sp_err *err)
{
	const char *slash;
	size_t dir_len, i;
	char *path;

	if (!name_len)
		return sp_fail(err, -EINVAL, "%s: its backing file has an empty name",
			       image_path);
	if (memchr(name, 0, name_len))
		return sp_fail(err, -EINVAL, "%s: a NUL byte inside its backing file's name",
			       image_path);
	for (i = 0; i < name_len && name[i] != '/'; i++)
		if (name[i] == ':')
			return sp_fail(err, -ENOTSUP, "%s: its backing file '%.*s' is not a plain file name",
				       image_path, (int)(name_len < 200 ? name_len : 200), name);
	slash = name[0] == '/' ? NULL : strrchr(image_path, '/');
	dir_len = slash ? (size_t)(slash - image_path) + 1 : 0;
	path = malloc(dir_len + name_len + 1);
	if (!path)
		return sp_fail(err, -ENOMEM, "%s: out of memory", image_path);
	memcpy(path, image_path, dir_len);
	memcpy(path + dir_len, name, name_len);
	path[dir_len + name_len] = 0;
	*out = path;
	return 0;
}
