/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * stack.h - what a file lies on, as far as sysfs tells.
 */
#ifndef UBDM_STACK_H
#define UBDM_STACK_H

#include <stdbool.h>

bool ubdm_stack_lies_on(const char *sys, int fd, const char *disk);

#endif /* UBDM_STACK_H */
