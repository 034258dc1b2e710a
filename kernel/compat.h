/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * compat.h - what differs between the kernels we build for.
 */
#ifndef UBDM_COMPAT_H
#define UBDM_COMPAT_H

#include <linux/version.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 12, 0)
#error "ubdmap needs Linux 6.12 or newer"
#endif

#endif /* UBDM_COMPAT_H */
