/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * probe.h - which format a file has, and which backing files are let in.
 */
#ifndef SLOWPATH_PROBE_H
#define SLOWPATH_PROBE_H

#include "io.h"

enum sp_format { SP_FMT_RAW, SP_FMT_QCOW2 };

/*
 * Decide the format of the image the user named: as stated, else by the file
 * name (.qcow2; .raw, .img, a block device).  The content is looked at only to
 * find a contradiction (qcow2 by name without the magic; raw by name with the
 * magic of qcow2, vmdk, vdi, vhdx, qed, luks, ...), which is refused with a
 * message that says how to state the format.
 */
int sp_probe_image(struct sp_file *f, const char *stated, enum sp_format *fmt,
		   struct sp_err *err);
/*
 * The same for a backing file: stated is the backing format in the image's
 * header or NULL.  Without one: raw only if no known magic is there, else refuse.
 */
int sp_probe_backing(struct sp_file *f, const char *stated, enum sp_format *fmt,
		     struct sp_err *err);
/*
 * Resolve a backing file name against the image that names it.  Refuses
 * protocol names ("nbd:...", "json:...", anything with a scheme), empty names and
 * embedded NULs.  *out is malloc'ed.
 */
int sp_backing_path(const char *image_path, const char *name, size_t name_len,
		    char **out, struct sp_err *err);

#endif /* SLOWPATH_PROBE_H */
