# SPDX-License-Identifier: GPL-2.0-only
# The N-th allocation fails: see test_sweep.c.
test_sweep_LDFLAGS := -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc \
		      -Wl,--wrap=aligned_alloc,--wrap=strdup
