/* cycle create ROOTFS NAME SOCKET CPUS MEMS KIND=DIR...   writes the process's id to standard output
 * cycle start SOCKET
 * cycle delete NAME SOCKET PID KIND=DIR...
 * The floor of create, start and delete --force of `sleep 1000` with the default spec, a process each: what it does and
 * leaves out stands in container.h. The id on standard output is for what a runtime keeps on disk. */
#include "container.h"
#include <poll.h>
#include <sys/pidfd.h>
#include <sys/un.h>

static struct cgroups cgroups;

static struct sockaddr_un address(const char *path) {
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
	return address;
}

static int create(char **arguments) {
	read_arguments(&cgroups, arguments + 5, arguments[1]);
	make_cgroups(&cgroups, arguments[3], arguments[4]);
	struct sockaddr_un at = address(arguments[2]);
	int listener = must(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)), ready[2];
	must(bind(listener, (struct sockaddr *)&at, sizeof at));
	must(listen(listener, 1));
	must(pipe2(ready, O_CLOEXEC));
	pid_t pid = clone_into(&cgroups, NAMESPACES);
	if (!pid) {
		enter_v1(&cgroups);
		build_root(arguments[0], &cgroups);
		become_process();
		must(write(ready[1], "", 1));
		/* Until `start` comes; execve closes its connection, which tells it. */
		must(accept4(listener, NULL, NULL, SOCK_CLOEXEC));
		execute("/bin/sleep", "1000");
	}
	close(ready[1]);
	char byte;
	if (must(read(ready[0], &byte, 1)) != 1)
		return 1;
	return dprintf(1, "%d\n", pid) < 0;
}

static int start(const char *path) {
	struct sockaddr_un at = address(path);
	int connection = must(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
	must(connect(connection, (struct sockaddr *)&at, sizeof at));
	char byte;
	return must(read(connection, &byte, 1)) != 0;
}

static int delete(char **arguments) {
	read_arguments(&cgroups, arguments + 3, arguments[0]);
	int init = must(pidfd_open(atoi(arguments[2]), 0));
	must(pidfd_send_signal(init, SIGKILL, NULL, 0));
	must(poll(&(struct pollfd){.fd = init, .events = POLLIN}, 1, 10000));
	must(unlink(arguments[1]));
	remove_cgroups(&cgroups);
	return 0;
}

int main(int count, char **arguments) {
	if (count > 7 && !strcmp(arguments[1], "create"))
		return create(arguments + 2);
	if (count == 3 && !strcmp(arguments[1], "start"))
		return start(arguments[2]);
	if (count > 5 && !strcmp(arguments[1], "delete"))
		return delete(arguments + 2);
	return 2;
}
