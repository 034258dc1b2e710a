// SPDX-License-Identifier: GPL-2.0-only
/*
 * Runs a fuzz target once on each file of its corpus, as a plain test: no
 * fuzzer and no clang are needed. Arguments are files and folders.
 */

#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len_bytes);

static unsigned int nr_done;

static void replay_file(const char *path, size_t len_bytes)
{
	/* Exactly as long as the input, so that ASan sees a read past it. */
	uint8_t *data = malloc(len_bytes ? len_bytes : 1);
	FILE *f = fopen(path, "rb");

	if (!data || !f || fread(data, 1, len_bytes, f) != len_bytes) {
		perror(path);
		exit(1);
	}
	fclose(f);
	printf("# %s\n", path);
	fflush(stdout);
	LLVMFuzzerTestOneInput(data, len_bytes);
	printf("ok %u - %s\n", ++nr_done, path);
	free(data);
}

static void replay(const char *path)
{
	struct dirent **entries;
	char inner[4096];
	struct stat st;
	int i, n;

	if (stat(path, &st)) {
		perror(path);
		exit(1);
	}
	if (!S_ISDIR(st.st_mode)) {
		replay_file(path, st.st_size);
		return;
	}
	n = scandir(path, &entries, NULL, alphasort);
	for (i = 0; i < n; i++) {
		if (entries[i]->d_name[0] != '.') {
			snprintf(inner, sizeof(inner), "%s/%s", path,
				 entries[i]->d_name);
			replay(inner);
		}
		free(entries[i]);
	}
	if (n >= 0)
		free(entries);
}

int main(int argc, char **argv)
{
	int i;

	for (i = 1; i < argc; i++)
		replay(argv[i]);
	printf("1..%u\n", nr_done);
	return 0;
}
