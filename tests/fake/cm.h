/* SPDX-License-Identifier: GPL-2.0-only */
/* cm.h - cmocka with what it needs in front. */
#ifndef TESTS_FAKE_CM_H
#define TESTS_FAKE_CM_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#endif /* TESTS_FAKE_CM_H */
