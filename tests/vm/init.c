// SPDX-License-Identifier: GPL-2.0-only
/*
 * The first and only system process of a test guest.
 *
 * It loads the few modules that reach the host's files, stacks a writable
 * tmpfs on the host's read-only root, changes into it, runs one command and
 * reports how that ended. The guest then stops; nothing is kept.
 *
 * What it is told stands in /config of the initramfs: strings that end in NUL,
 * each KEY=VALUE (see struct config). What it has to say goes out by three
 * ways that do not mix:
 *
 *   serial port            the kernel's log
 *   virtio port "output"   what the command writes to stdout and stderr
 *   virtio port "control"  lines to the host: "ready MS" when the command
 *                          starts, "fail TEXT" when it could not be started,
 *                          "status N" at its end. The host may send one byte,
 *                          which means "time is up": tell the log where every
 *                          task hangs, then stop.
 *
 * The command's output passes through a pipe, because a virtio port can be
 * opened once only and a script may reopen /dev/stderr. An interactive shell
 * has /dev/hvc0 as its terminal instead.
 */

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define LOWER "/lower" /* the host's root, read-only */
#define RW "/rw" /* tmpfs: the overlay's upper and work folders */
#define ROOT "/root" /* the overlay: the command's root */

#define P9_OPTS "trans=virtio,version=9p2000.L,msize=512000,access=any"

#define MAX_STRINGS 256

struct config {
	const char *modules; /* folder of the guest kernel's modules, or NULL */
	const char *insmod; /* module to load before the command, or NULL */
	const char *cwd; /* working folder of the command */
	bool share; /* a 9p export named "share" goes to /share */
	const char *hung_secs; /* how long a task may hang, or NULL */
	bool terminal; /* interactive: the command talks to /dev/hvc0 */
	unsigned short rows; /* terminal size, 0 where unknown */
	unsigned short cols;
	size_t nr_keep; /* paths that must stay visible below a tmpfs */
	const char *keep[MAX_STRINGS];
	size_t nr_env;
	char *env[MAX_STRINGS + 1];
	size_t nr_arg;
	char *arg[MAX_STRINGS + 1];
};

static struct config cfg;
static int control_fd = -1;
static int output_fd = -1;

static void write_all(int fd, const void *data, size_t len_bytes)
{
	const char *p = data;

	while (len_bytes) {
		ssize_t n = write(fd, p, len_bytes);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return;
		p += n;
		len_bytes -= n;
	}
}

/* One line to the host. */
__attribute__((format(printf, 1, 2))) static void tell(const char *fmt, ...)
{
	char line[512];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(line, sizeof(line) - 1, fmt, ap);
	va_end(ap);
	if (n < 0)
		return;
	if ((size_t)n > sizeof(line) - 2)
		n = sizeof(line) - 2;
	line[n++] = '\n';
	write_all(control_fd >= 0 ? control_fd : STDERR_FILENO, line, n);
}

__attribute__((noreturn)) static void stop(void)
{
	kill(-1, SIGKILL);
	sync();
	/* QEMU runs with -no-reboot: this ends it. */
	reboot(RB_AUTOBOOT);
	_exit(0);
}

__attribute__((noreturn, format(printf, 1, 2))) static void
fail(const char *fmt, ...)
{
	char text[400];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	tell("fail %s", text);
	stop();
}

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	write_all(fd, text, strlen(text));
	close(fd);
}

static int mkdir_p(const char *path)
{
	char part[PATH_MAX];
	char *p;

	if (snprintf(part, sizeof(part), "%s", path) >= (int)sizeof(part))
		return -ENAMETOOLONG;
	for (p = part + 1; *p; p++) {
		if (*p != '/')
			continue;
		*p = '\0';
		mkdir(part, 0755);
		*p = '/';
	}
	if (mkdir(part, 0755) && errno != EEXIST)
		return -errno;
	return 0;
}

static void must_mount(const char *source, const char *target, const char *type,
		       unsigned long flags, const char *options)
{
	if (!(flags & MS_BIND))
		mkdir_p(target);
	if (mount(source, target, type, flags, options))
		fail("mount %s on %s: %s", source, target, strerror(errno));
}

/* For file systems that a small kernel may lack. */
static void may_mount(const char *type, const char *target, const char *options)
{
	mkdir_p(target);
	(void)mount(type, target, type, 0, options);
}

static char *read_file(const char *path, size_t *len_bytes)
{
	size_t room = 1 << 16, len = 0;
	char *data = malloc(room + 1);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0 || !data) {
		free(data);
		return NULL;
	}
	while (len < room && (n = read(fd, data + len, room - len)) > 0)
		len += n;
	close(fd);
	data[len] = '\0';
	*len_bytes = len;
	return data;
}

static void read_config(void)
{
	size_t len;
	char *data = read_file("/config", &len);
	char *p, *value;

	if (!data)
		fail("no /config in the initramfs");
	for (p = data; p < data + len; p += strlen(p) + 1) {
		value = strchr(p, '=');
		if (!value)
			continue;
		value++;
		if (!strncmp(p, "arg=", 4) && cfg.nr_arg < MAX_STRINGS)
			cfg.arg[cfg.nr_arg++] = strdup(value);
		else if (!strncmp(p, "env=", 4) && cfg.nr_env < MAX_STRINGS)
			cfg.env[cfg.nr_env++] = strdup(value);
		else if (!strncmp(p, "keep=", 5) && cfg.nr_keep < MAX_STRINGS)
			cfg.keep[cfg.nr_keep++] = strdup(value);
		else if (!strncmp(p, "modules=", 8))
			cfg.modules = strdup(value);
		else if (!strncmp(p, "hung_secs=", 10))
			cfg.hung_secs = strdup(value);
		else if (!strncmp(p, "insmod=", 7))
			cfg.insmod = strdup(value);
		else if (!strncmp(p, "cwd=", 4))
			cfg.cwd = strdup(value);
		else if (!strncmp(p, "share=", 6))
			cfg.share = value[0] == '1';
		else if (!strncmp(p, "terminal=", 9))
			cfg.terminal = value[0] == '1';
		else if (!strncmp(p, "rows=", 5))
			cfg.rows = atoi(value);
		else if (!strncmp(p, "cols=", 5))
			cfg.cols = atoi(value);
	}
	free(data);
	if (!cfg.nr_arg)
		fail("no command given");
}

static int load_module(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	int err = 0;

	if (fd < 0)
		return -errno;
	if (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST)
		err = -errno;
	close(fd);
	return err;
}

/* /modules/order lists file names in /modules, dependencies first. */
static void load_boot_modules(void)
{
	char path[PATH_MAX];
	char *list, *name, *save = NULL;
	size_t len;
	int err;

	list = read_file("/modules/order", &len);
	if (!list)
		return;
	for (name = strtok_r(list, "\n", &save); name;
	     name = strtok_r(NULL, "\n", &save)) {
		snprintf(path, sizeof(path), "/modules/%s", name);
		err = load_module(path);
		if (err)
			fail("load %s: %s", name, strerror(-err));
	}
	free(list);
}

/* The virtio port of this name, opened; -1 if it has not appeared yet. */
static int open_port(const char *name, int flags)
{
	static const char class[] = "/sys/class/virtio-ports";
	char path[PATH_MAX], text[64];
	struct dirent *entry;
	int fd, found = -1;
	ssize_t n;
	DIR *dir;

	dir = opendir(class);
	if (!dir)
		return -1;
	while (found < 0 && (entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s/name", class,
			 entry->d_name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		n = read(fd, text, sizeof(text) - 1);
		close(fd);
		if (n <= 0)
			continue;
		text[n] = '\0';
		text[strcspn(text, "\n")] = '\0';
		if (strcmp(text, name))
			continue;
		snprintf(path, sizeof(path), "/dev/%s", entry->d_name);
		found = open(path, flags | O_CLOEXEC);
	}
	closedir(dir);
	return found;
}

static void open_ports(void)
{
	const struct timespec pause = { .tv_nsec = 5 * 1000 * 1000 };
	int tries;

	/* The ports are announced by messages, after the device is there. */
	for (tries = 0; tries < 2000; tries++) {
		if (control_fd < 0)
			control_fd = open_port("control", O_RDWR);
		if (output_fd < 0 && !cfg.terminal)
			output_fd = open_port("output", O_WRONLY);
		if (control_fd >= 0 && (output_fd >= 0 || cfg.terminal))
			return;
		nanosleep(&pause, NULL);
	}
	fail("the virtio ports did not appear");
}

/*
 * What our own mounts would hide (a checkout below /tmp, say) is brought back
 * from the host's root.
 */
static void keep_visible(const char *path)
{
	char from[PATH_MAX], to[PATH_MAX];
	struct stat st;

	snprintf(from, sizeof(from), LOWER "%s", path);
	snprintf(to, sizeof(to), ROOT "%s", path);
	if (!stat(to, &st) || stat(from, &st))
		return;
	if (!S_ISDIR(st.st_mode)) {
		char *slash = strrchr(to, '/');
		int fd;

		*slash = '\0';
		mkdir_p(to);
		*slash = '/';
		fd = open(to, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
		if (fd < 0)
			fail("keep %s: %s", path, strerror(errno));
		close(fd);
	} else {
		mkdir_p(to);
	}
	must_mount(from, to, NULL, MS_BIND, NULL);
}

static void build_root(void)
{
	char path[PATH_MAX], lower[PATH_MAX];
	const char *release;
	size_t i;

	must_mount("host", LOWER, "9p", MS_RDONLY, P9_OPTS ",cache=loose");
	must_mount("rw", RW, "tmpfs", 0, "mode=755,size=75%");
	mkdir_p(RW "/upper");
	mkdir_p(RW "/work");
	must_mount("root", ROOT, "overlay", 0,
		   "lowerdir=" LOWER ",upperdir=" RW "/upper,workdir=" RW
		   "/work");

	must_mount("tmp", ROOT "/tmp", "tmpfs", 0, "mode=1777,size=75%");
	must_mount("run", ROOT "/run", "tmpfs", 0, "mode=755");
	if (cfg.modules) {
		release = strrchr(cfg.modules, '/');
		snprintf(path, sizeof(path), ROOT "/lib/modules%s", release);
		mkdir_p(path);
		snprintf(lower, sizeof(lower), LOWER "%s", cfg.modules);
		must_mount(lower, path, NULL, MS_BIND, NULL);
	}
	for (i = 0; i < cfg.nr_keep; i++)
		keep_visible(cfg.keep[i]);
	if (cfg.share)
		must_mount("share", ROOT "/share", "9p", 0,
			   P9_OPTS ",cache=mmap");

	must_mount("/proc", ROOT "/proc", NULL, MS_MOVE, NULL);
	must_mount("/sys", ROOT "/sys", NULL, MS_MOVE, NULL);
	must_mount("/dev", ROOT "/dev", NULL, MS_MOVE, NULL);
	if (chdir(ROOT) || mount(ROOT, "/", NULL, MS_MOVE, NULL) || chroot("."))
		fail("change root: %s", strerror(errno));

	may_mount("devpts", "/dev/pts", "mode=620,ptmxmode=666");
	may_mount("tmpfs", "/dev/shm", "mode=1777");
	may_mount("cgroup2", "/sys/fs/cgroup", NULL);
	may_mount("debugfs", "/sys/kernel/debug", NULL);
	may_mount("tracefs", "/sys/kernel/tracing", NULL);
	may_mount("configfs", "/sys/kernel/config", NULL);
	(void)symlink("/proc/self/fd", "/dev/fd");
	(void)symlink("/proc/self/fd/0", "/dev/stdin");
	(void)symlink("/proc/self/fd/1", "/dev/stdout");
	(void)symlink("/proc/self/fd/2", "/dev/stderr");
	mkdir_p("/run/lock");
}

static void settle_system(void)
{
	static const struct rlimit files = { 1024, 1 << 19 };
	struct ifreq ifr = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int fd;

	(void)sethostname("guest", 5);
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd >= 0) {
		ioctl(fd, SIOCSIFFLAGS, &ifr);
		close(fd);
	}
	setrlimit(RLIMIT_NOFILE, &files);
	/*
	 * A task that hangs ends the run with its stack in the log. Emulated
	 * CPUs are slow and share the host's: the lockup detectors get time.
	 */
	write_file("/proc/sys/kernel/hung_task_timeout_secs",
		   cfg.hung_secs ? cfg.hung_secs : "120");
	write_file("/proc/sys/kernel/hung_task_panic", "1");
	write_file("/proc/sys/kernel/watchdog_thresh", "30");
	write_file("/proc/sys/kernel/sysrq", "1");
	write_file("/proc/sys/kernel/core_pattern", "core");
	/* The modules the kernel asks for itself come from the usual place. */
	write_file("/proc/sys/kernel/modprobe", "/sbin/modprobe");
}

static void insmod(void)
{
	int err = load_module(cfg.insmod);

	if (err)
		fail("insmod %s: %s", cfg.insmod, strerror(-err));
}

static pid_t start_command(int out_fd)
{
	struct winsize size = { .ws_row = cfg.rows, .ws_col = cfg.cols };
	sigset_t none;
	pid_t pid;
	int fd;

	pid = fork();
	if (pid)
		return pid;

	setsid();
	if (cfg.terminal) {
		fd = open("/dev/hvc0", O_RDWR);
		ioctl(fd, TIOCSCTTY, 1);
		if (size.ws_row && size.ws_col)
			ioctl(fd, TIOCSWINSZ, &size);
		out_fd = fd;
	} else {
		fd = open("/dev/null", O_RDONLY);
	}
	dup2(fd, STDIN_FILENO);
	dup2(out_fd, STDOUT_FILENO);
	dup2(out_fd, STDERR_FILENO);
	if (fd > STDERR_FILENO)
		close(fd);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (chdir(cfg.cwd ? cfg.cwd : "/"))
		(void)chdir("/");
	environ = cfg.env;
	execvp(cfg.arg[0], cfg.arg);
	dprintf(STDERR_FILENO, "%s: %s\n", cfg.arg[0], strerror(errno));
	_exit(errno == ENOENT ? 127 : 126);
}

/* Move what is in the pipe; it does not block. */
static void relay(int fd)
{
	static char buf[1 << 16];
	ssize_t n;

	while ((n = read(fd, buf, sizeof(buf))) > 0)
		write_all(output_fd, buf, n);
}

/* Collect the dead. True, with its status, when the command is among them. */
static bool reap(pid_t command, int *status)
{
	bool ended = false;
	pid_t pid;
	int st;

	while ((pid = waitpid(-1, &st, WNOHANG)) > 0) {
		if (pid != command)
			continue;
		*status = WIFSIGNALED(st) ? 128 + WTERMSIG(st) :
					    WEXITSTATUS(st);
		ended = true;
	}
	return ended;
}

__attribute__((noreturn)) static void give_up(void)
{
	/* Not by dprintf(), which seeks: this device refuses that. */
	write_file("/dev/kmsg",
		   "<4>guest: time is up; blocked tasks and busy CPUs:\n");
	write_file("/proc/sysrq-trigger", "w");
	write_file("/proc/sysrq-trigger", "l");
	stop();
}

static int run_command(void)
{
	struct signalfd_siginfo info;
	struct timespec now;
	struct pollfd fds[3];
	int pipe_fds[2] = { -1, -1 };
	int status = 0;
	sigset_t chld;
	pid_t command;
	char byte;

	if (!cfg.terminal && pipe2(pipe_fds, O_CLOEXEC))
		fail("pipe: %s", strerror(errno));
	if (!cfg.terminal)
		fcntl(pipe_fds[0], F_SETFL, O_NONBLOCK);
	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	sigprocmask(SIG_BLOCK, &chld, NULL);

	fds[0] = (struct pollfd){ signalfd(-1, &chld, SFD_CLOEXEC), POLLIN, 0 };
	fds[1] = (struct pollfd){ control_fd, POLLIN, 0 };
	fds[2] = (struct pollfd){ pipe_fds[0], POLLIN, 0 };

	clock_gettime(CLOCK_BOOTTIME, &now);
	tell("ready %lld", now.tv_sec * 1000LL + now.tv_nsec / 1000000);
	command = start_command(pipe_fds[1]);
	if (command < 0)
		fail("fork: %s", strerror(errno));

	for (;;) {
		if (poll(fds, 3, -1) < 0)
			continue;
		if (fds[2].revents)
			relay(pipe_fds[0]);
		if ((fds[1].revents & POLLIN) && read(control_fd, &byte, 1) > 0)
			give_up();
		if (fds[1].revents & POLLHUP)
			fds[1].fd = -1;
		if (!(fds[0].revents & POLLIN))
			continue;
		(void)read(fds[0].fd, &info, sizeof(info));
		if (reap(command, &status))
			break;
	}
	if (!cfg.terminal)
		relay(pipe_fds[0]);
	return status;
}

/*
 * Where the kernel looks for leaks, have what it found in the log. An object
 * must be five seconds old and without a reference in two scans; what RCU is
 * about to free has references of no kind that the scan knows.
 */
static void look_for_leaks(void)
{
	static const char *const file = "/sys/kernel/debug/kmemleak";
	char *line, *rest, *text;
	char out[1024];
	size_t len;
	int i;

	if (access(file, F_OK))
		return;
	write_file(file, "scan=off");
	for (i = 0; i < 2; i++) {
		sleep(6);
		write_file(file, "scan");
	}
	text = read_file(file, &len);
	if (!text)
		return;
	/* The log takes a line at a time. */
	for (rest = text; (line = strsep(&rest, "\n"));) {
		if (!*line)
			continue;
		snprintf(out, sizeof(out), "<4>%s\n", line);
		write_file("/dev/kmsg", out);
	}
	free(text);
}

int main(void)
{
	int status;

	must_mount("proc", "/proc", "proc", 0, NULL);
	must_mount("sys", "/sys", "sysfs", 0, NULL);
	must_mount("dev", "/dev", "devtmpfs", 0, "mode=755");
	read_config();
	load_boot_modules();
	open_ports();
	build_root();
	settle_system();
	if (cfg.insmod)
		insmod();
	status = run_command();
	look_for_leaks();
	tell("status %d", status);
	stop();
}
