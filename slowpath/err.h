/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * err.h - filling in the one-line message for the user.
 */
#ifndef SLOWPATH_ERR_H
#define SLOWPATH_ERR_H

#include <stdarg.h>
#include <stdio.h>
#include "slowpath.h"

/**
 * sp_fail - write the message and pass the error on
 * @err: where, or NULL
 * @rc: -errno
 * @fmt: printf format: file, cause, what to do
 *
 * The first message stands: whoever knows the cause best comes first.
 *
 * Return: @rc.
 */
__attribute__((format(printf, 3, 4)))
static inline int sp_fail(struct sp_err *err, int rc, const char *fmt, ...)
{
	va_list ap;

	if (err && !err->msg[0]) {
		va_start(ap, fmt);
		vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
		va_end(ap);
	}
	return rc;
}

#endif /* SLOWPATH_ERR_H */
