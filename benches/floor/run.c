/* run ROOTFS NAME CPUS MEMS KIND=DIR...
 * The floor of `run` of /bin/true with the default spec: what it does and leaves out stands in container.h. */
#include "container.h"

int main(int count, char **arguments) {
	if (count < 6)
		return 2;
	static struct cgroups cgroups;
	read_arguments(&cgroups, arguments + 5, arguments[2]);
	make_cgroups(&cgroups, arguments[3], arguments[4]);
	pid_t pid = clone_into(&cgroups, NAMESPACES);
	if (!pid) {
		enter_v1(&cgroups);
		build_root(arguments[1], &cgroups);
		become_process();
		execute("/bin/true", NULL);
	}
	int status = status_of(pid);
	remove_cgroups(&cgroups);
	return status;
}
