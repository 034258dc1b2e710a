/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * genl.h - the control plane over generic netlink.
 */
#ifndef UBDM_GENL_H
#define UBDM_GENL_H

#include "dev.h"

void ubdm_genl_event_fault(struct ubdm_dev *dev, u32 event, int error,
			   const struct ubdm_fault *fault, u32 ms);
void ubdm_genl_event(struct ubdm_dev *dev, u32 event, int error);
int ubdm_genl_init(void);
void ubdm_genl_exit(void);

#endif /* UBDM_GENL_H */
