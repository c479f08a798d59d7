/* What the tests do inside a container, or beside it, that neither busybox nor Rust without `unsafe` can.
 *
 *   probe call64 NR [ARG...]   the system call NR; prints the errno, 0 if there was none
 *   probe call32 NR            the same through the 32-bit entry (x86_64 only)
 *   probe notify TEXT          sends TEXT to $NOTIFY_SOCKET
 *   probe agent SOCKET DIR     a seccomp agent: notes each state in DIR/state.N, answers mkdir with EDQUOT once
 *                              for each filter, lets later ones pass; prints a line when it listens
 *   probe forks                forks without end, each child too
 *   probe policy               its memory policy, as get_mempolicy(2) has it: MODE NODES
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void say(int error)
{
	char text[16];
	int n = snprintf(text, sizeof text, "%d\n", error);
	if (write(1, text, n) != n)
		_exit(1);
	_exit(0);
}

static void call32(long nr)
{
#ifdef __x86_64__
	long result;
	__asm__ volatile("int $0x80" : "=a"(result) : "a"(nr), "b"(0), "c"(0), "d"(0) : "memory", "r8", "r9", "r10", "r11");
	say((int)result < 0 ? -(int)result : 0);
#else
	(void)nr;
	exit(1);
#endif
}

static struct sockaddr_un address(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	strncpy(a.sun_path, path, sizeof a.sun_path - 1);
	return a;
}

static void notify(const char *text)
{
	const char *path = getenv("NOTIFY_SOCKET");
	if (!path)
		fail("NOTIFY_SOCKET");
	struct sockaddr_un a = address(path);
	int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
	if (sendto(fd, text, strlen(text), 0, (void *)&a, sizeof a) < 0)
		fail("sendto");
}

/* Answers for one filter until nobody uses it any more. */
static void answer(int fd)
{
	struct seccomp_notif_sizes sizes;
	if (syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes))
		fail("seccomp");
	struct seccomp_notif *ask = malloc(sizes.seccomp_notif + sizeof *ask);
	struct seccomp_notif_resp *reply = malloc(sizes.seccomp_notif_resp + sizeof *reply);
	int refused = 0;
	for (;;) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		if (poll(&p, 1, -1) < 0 || !(p.revents & POLLIN))
			_exit(0);
		memset(ask, 0, sizes.seccomp_notif);
		memset(reply, 0, sizes.seccomp_notif_resp);
		if (ioctl(fd, SECCOMP_IOCTL_NOTIF_RECV, ask))
			continue;
		int mkdir = ask->data.nr == SYS_mkdirat;
#ifdef SYS_mkdir
		mkdir |= ask->data.nr == SYS_mkdir;
#endif
		reply->id = ask->id;
		if (mkdir && !refused++)
			reply->error = -EDQUOT;
		else
			reply->flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
		ioctl(fd, SECCOMP_IOCTL_NOTIF_SEND, reply);
	}
}

static void agent(const char *path, const char *dir)
{
	struct sockaddr_un a = address(path);
	int listener = socket(AF_UNIX, SOCK_STREAM, 0);
	if (bind(listener, (void *)&a, sizeof a) || listen(listener, 8))
		fail(path);
	signal(SIGCHLD, SIG_IGN);
	if (write(1, "listening\n", 10) != 10)
		fail("write");
	for (int n = 0;; n++) {
		int connection = accept(listener, NULL, NULL);
		static char text[65536];
		union {
			struct cmsghdr header;
			char space[CMSG_SPACE(sizeof(int))];
		} control;
		struct iovec data = { text, sizeof text };
		struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control };
		ssize_t length = recvmsg(connection, &message, 0);
		struct cmsghdr *c = CMSG_FIRSTHDR(&message);
		if (length < 0 || !c || c->cmsg_type != SCM_RIGHTS)
			fail("recvmsg");
		int fd;
		memcpy(&fd, CMSG_DATA(c), sizeof fd);
		char name[4096];
		snprintf(name, sizeof name, "%s/state.%d", dir, n);
		int file = open(name, O_WRONLY | O_CREAT | O_EXCL, 0600);
		if (file < 0 || write(file, text, length) != length)
			fail(name);
		close(file);
		close(connection);
		if (!fork()) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			close(listener);
			answer(fd);
		}
		close(fd);
	}
}

static void policy(void)
{
	int mode = -1;
	unsigned long nodes[16] = { 0 };
	if (syscall(SYS_get_mempolicy, &mode, nodes, sizeof nodes * 8, 0, 0))
		fail("get_mempolicy");
	printf("%d %lx\n", mode, nodes[0]);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	if (argc > 2 && !strcmp(what, "call64")) {
		long args[6] = { 0 };
		for (int i = 0; i < 6 && i + 3 < argc; i++)
			args[i] = atol(argv[i + 3]);
		errno = 0;
		syscall(atol(argv[2]), args[0], args[1], args[2], args[3], args[4], args[5]);
		say(errno);
	}
	if (argc == 3 && !strcmp(what, "call32"))
		call32(atol(argv[2]));
	if (argc == 3 && !strcmp(what, "notify"))
		return notify(argv[2]), 0;
	if (argc == 4 && !strcmp(what, "agent"))
		agent(argv[2], argv[3]);
	if (argc == 2 && !strcmp(what, "forks")) {
		signal(SIGCHLD, SIG_IGN);
		for (;;)
			fork();
	}
	if (argc == 2 && !strcmp(what, "policy"))
		return policy(), 0;
	fprintf(stderr, "probe: see the source for how to call it\n");
	return 2;
}
