/* The kernel's share of a container of `rrun spec`, for run.c and cycle.c, which time what a runtime cannot do without;
 * and of a process in it, for exec.c. Each block says which part of config.json it is for.
 *
 * What a runtime does and this leaves out: reading and checking config.json; state on disk and its locks; looking up
 * paths so that an image cannot lead them out of the container, and looking at what was mounted there; closing
 * descriptors; protecting its own binary; telling the caller what is wrong; signals; the standard streams. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <linux/sched.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

/* Not in every libc's headers. */
enum { EMPTY_PATH = 0x1000, RECURSIVE = 0x8000, FROM_FD = 4, TO_FD = 0x40 };

static inline long checked(long result, const char *call) {
	if (result < 0) {
		perror(call);
		_exit(1);
	}
	return result;
}
#define must(call) checked((call), #call)

/* ---- linux.cgroupsPath: a cgroup of the container's own in every hierarchy, named on the command line KIND=DIR, DIR
 * being its parent for run and cycle, itself for exec. KIND is the controller; `unified` the v2 hierarchy beside v1,
 * `v2` where there is no other. */
enum { MOST = 16 };
struct hierarchy {
	const char *kind;
	char path[512];
	int entry; /* v1: `tasks`; v2: the directory */
};
struct cgroups {
	struct hierarchy all[MOST];
	int count, v2; /* v2: its directory, or -1 */
};

static inline int is(const struct hierarchy *h, const char *kind) { return !strcmp(h->kind, kind); }

static inline void read_arguments(struct cgroups *c, char **arguments, const char *name) {
	c->count = 0;
	c->v2 = -1;
	for (; *arguments && c->count < MOST; arguments++) {
		struct hierarchy *h = &c->all[c->count++];
		char *path = strchr(*arguments, '=');
		if (!path)
			exit(2);
		*path = 0;
		h->kind = *arguments;
		snprintf(h->path, sizeof h->path, name ? "%s/%s" : "%s", path + 1, name);
	}
}

/* Opened before the namespaces are entered, where these paths are. */
static inline void open_entries(struct cgroups *c) {
	for (int i = 0; i < c->count; i++) {
		struct hierarchy *h = &c->all[i];
		if (is(h, "unified") || is(h, "v2")) {
			c->v2 = h->entry = must(open(h->path, O_PATH | O_DIRECTORY | O_CLOEXEC));
		} else {
			char tasks[sizeof h->path + 8];
			snprintf(tasks, sizeof tasks, "%s/tasks", h->path);
			h->entry = must(open(tasks, O_WRONLY | O_CLOEXEC));
		}
	}
}

/* In the new process, which is in the v2 cgroup since clone3: `0` in `tasks` is the writer, and no grace period. */
static inline void enter_v1(const struct cgroups *c) {
	for (int i = 0; i < c->count; i++)
		if (c->all[i].entry != c->v2)
			must(write(c->all[i].entry, "0", 1));
}

static inline void write_file(const char *directory, const char *name, const char *values[]) {
	char path[600];
	snprintf(path, sizeof path, "%s/%s", directory, name);
	int fd = must(open(path, O_WRONLY | O_CLOEXEC));
	for (; *values; values++)
		must(write(fd, *values, strlen(*values)));
	close(fd);
}

/* linux.resources.devices (nothing) and the devices that each container has, for v1. */
static const char *deny[] = {"a", NULL};
static const char *allow[] = {"c *:* m",   "b *:* m",   "c 1:3 rwm",   "c 1:8 rwm", "c 1:7 rwm",    "c 5:0 rwm",
                              "c 1:5 rwm", "c 1:9 rwm", "c 136:* rwm", "c 5:2 rwm", "c 10:200 rwm", NULL};

/* The same rules for v2: a program that looks at type, access, major and minor in turn. */
static inline void attach_device_rules(int cgroup) {
	static const struct { int major, minor; } nodes[] = {{1, 3}, {1, 8}, {1, 7}, {5, 0}, {1, 5},
	                                                     {1, 9}, {136, -1}, {5, 2}, {10, 200}};
	enum { CHAR = BPF_DEVCG_DEV_CHAR, OTHER_THAN_MKNOD = BPF_DEVCG_ACC_READ | BPF_DEVCG_ACC_WRITE };
	struct bpf_insn code[80];
	int n = 0;
#define insn(c, d, s, o, i) (code[n++] = (struct bpf_insn){.code = (c), .dst_reg = (d), .src_reg = (s), .off = (o), .imm = (i)})
#define load(d, field) insn(BPF_LDX | BPF_MEM | BPF_W, d, 1, offsetof(struct bpf_cgroup_dev_ctx, field), 0)
#define if_not(d, i, skip) insn(BPF_JMP | BPF_JNE | BPF_K, d, 0, skip, i)
#define answer(i) (insn(BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, i), insn(BPF_JMP | BPF_EXIT, 0, 0, 0, 0))
	load(2, access_type);
	insn(BPF_ALU64 | BPF_MOV | BPF_X, 3, 2, 0, 0);
	insn(BPF_ALU64 | BPF_AND | BPF_K, 2, 0, 0, 0xffff); /* type */
	insn(BPF_ALU64 | BPF_RSH | BPF_K, 3, 0, 0, 16);     /* access */
	insn(BPF_ALU64 | BPF_AND | BPF_K, 3, 0, 0, OTHER_THAN_MKNOD);
	load(4, major);
	load(5, minor);
	if_not(3, 0, 2);
	answer(1);
	if_not(2, CHAR, 4 * (int)(sizeof nodes / sizeof *nodes) - 1);
	for (unsigned i = 0; i < sizeof nodes / sizeof *nodes; i++) {
		int any = nodes[i].minor < 0;
		if_not(4, nodes[i].major, any ? 2 : 3);
		if (!any)
			if_not(5, nodes[i].minor, 2);
		answer(1);
	}
	answer(0);
	union bpf_attr load = {.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE, .insns = (__u64)(unsigned long)code, .insn_cnt = n,
	                       .license = (__u64)(unsigned long)""};
	int program = must(syscall(SYS_bpf, BPF_PROG_LOAD, &load, sizeof load));
	union bpf_attr attach = {.target_fd = cgroup, .attach_bpf_fd = program, .attach_type = BPF_CGROUP_DEVICE,
	                         .attach_flags = BPF_F_ALLOW_MULTI};
	must(syscall(SYS_bpf, BPF_PROG_ATTACH, &attach, sizeof attach));
	close(program);
}

/* CPUS and MEMS are the parent's, which v1 does not hand down. */
static inline void make_cgroups(struct cgroups *c, const char *cpus, const char *mems) {
	for (int i = 0; i < c->count; i++) {
		const char *path = c->all[i].path;
		must(mkdir(path, 0755));
		if (is(&c->all[i], "cpuset")) {
			write_file(path, "cpuset.cpus", (const char *[]){cpus, NULL});
			write_file(path, "cpuset.mems", (const char *[]){mems, NULL});
		} else if (is(&c->all[i], "devices")) {
			write_file(path, "devices.deny", deny);
			write_file(path, "devices.allow", allow);
		}
	}
	open_entries(c);
	for (int i = 0; i < c->count; i++)
		if (is(&c->all[i], "v2"))
			attach_device_rules(c->v2);
}

static inline void remove_cgroups(const struct cgroups *c) {
	for (int i = 0; i < c->count; i++)
		must(rmdir(c->all[i].path));
}

/* Also linux.namespaces, when they are new ones. */
static inline pid_t clone_into(const struct cgroups *c, unsigned long long namespaces) {
	struct clone_args clone = {.flags = namespaces, .exit_signal = SIGCHLD};
	if (c->v2 >= 0) {
		clone.flags |= CLONE_INTO_CGROUP;
		clone.cgroup = c->v2;
	}
	return must(syscall(SYS_clone3, &clone, sizeof clone));
}
enum { NAMESPACES = CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNS };

/* ---- root.path, mounts, linux.maskedPaths, linux.readonlyPaths, hostname: in the container's first process. */
static inline void set_attributes(int mount, int flags, unsigned long long set, unsigned long long propagation) {
	struct mount_attr attributes = {.attr_set = set, .propagation = propagation};
	must(mount_setattr(mount, "", EMPTY_PATH | flags, &attributes, sizeof attributes));
}

/* A new filesystem, not yet mounted. Options: KEY, VALUE, ..., NULL. */
static inline int new_mount(const char *type, const char *source, const char *options[], unsigned attributes) {
	int context = must(fsopen(type, FSOPEN_CLOEXEC));
	must(fsconfig(context, FSCONFIG_SET_STRING, "source", source, 0));
	for (; *options; options += options[1] ? 2 : 1)
		if (options[1] && *options[1])
			must(fsconfig(context, FSCONFIG_SET_STRING, options[0], options[1], 0));
		else
			must(fsconfig(context, FSCONFIG_SET_FLAG, options[0], NULL, 0));
	must(fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0));
	int mount = must(fsmount(context, FSMOUNT_CLOEXEC, attributes));
	close(context);
	return mount;
}

static inline void attach(int mount, int directory, const char *path) {
	must(move_mount(mount, "", directory, path, FROM_FD));
	close(mount);
}
#define OPTIONS(...) ((const char *[]){__VA_ARGS__, NULL})

/* Of a path that need not be there. */
static inline int copy_of(int directory, const char *path, int recursive) {
	int tree = open_tree(directory, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | recursive);
	if (tree < 0 && errno != ENOENT)
		must(tree);
	return tree;
}

static inline void build_root(const char *rootfs, const struct cgroups *c) {
	enum { N = MOUNT_ATTR_NOSUID, E = MOUNT_ATTR_NOEXEC, D = MOUNT_ATTR_NODEV, R = MOUNT_ATTR_RDONLY };
	/* root.path: nothing comes out of the namespace; the root is a mount of its own, into which nothing comes. */
	int host = must(open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
	set_attributes(host, RECURSIVE, 0, MS_SLAVE);
	int root = must(open_tree(AT_FDCWD, rootfs, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | RECURSIVE));
	must(move_mount(root, "", AT_FDCWD, rootfs, FROM_FD));
	set_attributes(root, RECURSIVE, 0, MS_PRIVATE);

	/* mounts, in their order. */
	attach(new_mount("proc", "proc", (const char *[]){NULL}, 0), root, "proc");
	attach(new_mount("tmpfs", "tmpfs", OPTIONS("mode", "755", "size", "65536k"), N | MOUNT_ATTR_STRICTATIME), root,
	       "dev");
	must(mkdirat(root, "dev/pts", 0755));
	attach(new_mount("devpts", "devpts", OPTIONS("newinstance", "", "ptmxmode", "0666", "mode", "0620", "gid", "5"), N | E),
	       root, "dev/pts");
	must(mkdirat(root, "dev/shm", 0755));
	attach(new_mount("tmpfs", "shm", OPTIONS("mode", "1777", "size", "65536k"), N | E | D), root, "dev/shm");
	must(mkdirat(root, "dev/mqueue", 0755));
	attach(new_mount("mqueue", "mqueue", (const char *[]){NULL}, N | E | D), root, "dev/mqueue");
	attach(new_mount("sysfs", "sysfs", (const char *[]){NULL}, N | E | D | R), root, "sys");
	/* type `cgroup`: on v1 a tmpfs with the container's own cgroup of each hierarchy. */
	int pure_v2 = c->count == 1 && c->v2 >= 0;
	if (!pure_v2)
		attach(new_mount("tmpfs", "tmpfs", OPTIONS("mode", "755"), N | E | D), root, "sys/fs/cgroup");
	for (int i = 0; i < c->count; i++) {
		char target[300] = "sys/fs/cgroup";
		if (!pure_v2) {
			snprintf(target, sizeof target, "sys/fs/cgroup/%s", c->all[i].kind);
			must(mkdirat(root, target, 0755));
		}
		int tree = must(copy_of(AT_FDCWD, c->all[i].path, 0));
		set_attributes(tree, 0, N | E | D | R, 0);
		attach(tree, root, target);
	}

	/* The devices and links that runtime-spec's config-linux.md wants in every container. */
	static const struct { const char *path; int major, minor; } nodes[] = {
	    {"dev/null", 1, 3}, {"dev/random", 1, 8}, {"dev/full", 1, 7}, {"dev/tty", 5, 0}, {"dev/zero", 1, 5}, {"dev/urandom", 1, 9}};
	mode_t mask = umask(0);
	for (unsigned i = 0; i < sizeof nodes / sizeof *nodes; i++)
		must(mknodat(root, nodes[i].path, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)));
	umask(mask);
	must(symlinkat("pts/ptmx", root, "dev/ptmx"));
	must(symlinkat("/proc/self/fd", root, "dev/fd"));
	must(symlinkat("/proc/self/fd/0", root, "dev/stdin"));
	must(symlinkat("/proc/self/fd/1", root, "dev/stdout"));
	must(symlinkat("/proc/self/fd/2", root, "dev/stderr"));

	/* root.path again: it takes the place of the host's. */
	must(fchdir(root));
	must(syscall(SYS_pivot_root, ".", "."));
	must(umount2(".", MNT_DETACH));
	must(chdir("/"));

	/* hostname */
	must(sethostname("floor", 5));

	/* `ro` of the cgroup mount, when all is in it; root.readonly. */
	if (!pure_v2) {
		struct mount_attr attributes = {.attr_set = R};
		must(mount_setattr(root, "sys/fs/cgroup", 0, &attributes, sizeof attributes));
	}
	set_attributes(root, 0, R, 0);

	/* linux.readonlyPaths */
	static const char *readonly[] = {"proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"};
	for (unsigned i = 0; i < sizeof readonly / sizeof *readonly; i++) {
		int tree = copy_of(root, readonly[i], RECURSIVE);
		if (tree >= 0) {
			set_attributes(tree, 0, R, 0);
			attach(tree, root, readonly[i]);
		}
	}

	/* linux.maskedPaths: an empty read-only directory, or /dev/null, over each. */
	static const struct { const char *path; int directory; } masked[] = {
	    {"proc/acpi", 1},       {"proc/asound", 1},      {"proc/kcore", 0},       {"proc/keys", 0},    {"proc/latency_stats", 0},
	    {"proc/timer_list", 0}, {"proc/timer_stats", 0}, {"proc/sched_debug", 0}, {"sys/firmware", 1}, {"proc/scsi", 1}};
	int original[] = {must(copy_of(root, "dev/null", 0)),
	                  new_mount("tmpfs", "tmpfs", OPTIONS("nr_blocks", "1", "nr_inodes", "1"), N | E | D | R)};
	int next[] = {original[0], original[1]};
	for (unsigned i = 0; i < sizeof masked / sizeof *masked; i++) {
		int kind = masked[i].directory;
		/* A copy is made only when the one before is mounted: to give one up unused costs a grace period. */
		if (next[kind] < 0)
			next[kind] = must(open_tree(original[kind], "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | EMPTY_PATH));
		if (!move_mount(next[kind], "", root, masked[i].path, FROM_FD))
			next[kind] = -1;
		else if (errno != ENOENT)
			must(-1);
	}

	/* linux.namespaces, network: its loopback is up. */
	struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
	int socket_fd = must(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
	must(ioctl(socket_fd, SIOCSIFFLAGS, &lo));
	close(socket_fd);
}

/* ---- process, up to its execve; exec.c too. */
static inline void become_process(void) {
	/* A session and a session keyring of its own, the latter for its user to search. */
	must(setsid());
	long keyring = must(syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, "_ses.floor"));
	must(syscall(SYS_keyctl, KEYCTL_SETPERM, keyring, 0x3f1b0000));

	/* process.rlimits */
	must(prlimit(0, RLIMIT_NOFILE, &(struct rlimit){1024, 1024}, NULL));

	/* process.capabilities.bounding: all others are dropped, up to the last that the kernel knows. */
	enum { KEEP = 1 << CAP_AUDIT_WRITE | 1 << CAP_KILL | 1 << CAP_NET_BIND_SERVICE };
	for (int capability = 0;; capability++)
		if ((capability > 31 || !(KEEP & 1u << capability)) && prctl(PR_CAPBSET_DROP, capability))
			break;

	/* process.user */
	must(syscall(SYS_setgroups, 0, NULL));
	must(setresgid(0, 0, 0));
	must(setresuid(0, 0, 0));

	/* process.noNewPrivileges; process.capabilities.effective, permitted, and no ambient ones. */
	must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct sets[2] = {{.effective = KEEP, .permitted = KEEP}};
	must(syscall(SYS_capset, &header, sets));
	must(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0));
}

/* process.args and env; process.cwd is where pivot_root or setns has left it. */
static inline void execute(char *program, char *argument) {
	char *env[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm", NULL};
	execve(program, (char *[]){program, argument, NULL}, env);
	must(-1);
}

static inline int status_of(pid_t pid) {
	int status;
	must(waitpid(pid, &status, 0));
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
