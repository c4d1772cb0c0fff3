# What is checked on a machine with cgroup v2 alone. Each check says PASS or FAIL with its name.
export PATH=/bin:/sbin HOME=/root
/bin/busybox --install -s /bin
ln -sf /bin/gantry /bin/gantry-runtime
mount -t proc proc /proc && mount -t sysfs sysfs /sys && mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm /dev/mqueue && mount -t devpts devpts /dev/pts && mount -t tmpfs shm /dev/shm
mount -t mqueue mqueue /dev/mqueue; mount -t cgroup2 cgroup2 /sys/fs/cgroup && mount -t tmpfs run /run && mount -t tmpfs tmp /tmp
hostname machine; ip link set lo up; : >/etc/resolv.conf; echo 127.0.0.1 localhost >/etc/hosts; chmod 1777 /tmp
for module in overlay veth bridge nf_tables nf_conntrack nft_ct nft_nat nft_masq nft_chain_nat; do modprobe $module; done
export GANTRY_ROOT=/var/lib/gantry DOCKER_HOST=unix:///var/lib/gantry/run/docker.sock KUBECONFIG=/var/lib/gantry/kubeconfig
check() { name=$1; shift; if "$@" >/tmp/said 2>&1; then echo "PASS $name"; else echo "FAIL $name"; tail -40 /tmp/said; fi; }
says() { wanted=$1; shift; said=$("$@" 2>&1); echo "$said"; [ "$said" = "$wanted" ]; }
soon() { for i in $(seq 300); do "$@" && return 0; sleep 0.2; done; return 1; }
v2_only() { grep -q '^0::/' /proc/self/cgroup && [ "$(wc -l </proc/self/cgroup)" = 1 ]; }
# Each kernel-facing test binary has its own containers, and sees that nothing is left. (There is no compiler here for the one that needs it.)
tests() { /bin/$1 --test-threads=2 --skip in_every_call_table; }
image() {
    mkdir -p /tmp/image/bin /tmp/image/etc && cp /bin/busybox /tmp/image/bin/ && cp /etc/passwd /tmp/image/etc/ &&
    for a in sh true sleep cat tail echo mknod wc; do ln -s busybox /tmp/image/bin/$a; done && tar -C /tmp/image -cf /tmp/image.tar . &&
    docker import -c 'CMD ["sh"]' /tmp/image.tar bb:latest
}
limits() {
    says "67108864
50000 100000
50" docker run --rm --memory 64m --cpus 0.5 --pids-limit 50 bb cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max /sys/fs/cgroup/pids.max
}
oom() { docker run --name oom --memory 16m bb tail /dev/zero; says "137 true" docker inspect -f '{{.State.ExitCode}} {{.State.OOMKilled}}' oom && docker rm oom; }
cgroup_of() { cat /proc/$(docker inspect -f '{{.State.Pid}}' $1)/cgroup | cut -d: -f3; }
paused() {
    docker run -d --name p --memory 64m bb sleep 300 && docker pause p && [ "$(cat /sys/fs/cgroup/$(cgroup_of p)/cgroup.freeze)" = 1 ] &&
    says paused docker inspect -f '{{.State.Status}}' p && docker unpause p && [ "$(cat /sys/fs/cgroup/$(cgroup_of p)/cgroup.freeze)" = 0 ]
}
updated() { docker update --memory 32m --memory-swap 64m --cpus 0.25 p && says "33554432
25000 100000" cat /sys/fs/cgroup/$(cgroup_of p)/memory.max /sys/fs/cgroup/$(cgroup_of p)/cpu.max; }
stats() { docker stats --no-stream --format '{{.MemUsage}} {{.PIDs}}' p | tee /dev/stderr | grep -q '/ 32MiB 1$'; }
in_cgroup() { docker exec p sh -c 'cat /proc/self/cgroup' && docker exec -d p sleep 301 && [ "$(wc -l </sys/fs/cgroup/$(cgroup_of p)/cgroup.procs)" = 2 ]; }
device() { docker run --rm bb sh -c 'mknod /disk b 8 0 && mknod /mem c 1 1 && ! cat /disk && ! cat /mem && echo x >/dev/null'; }
granted() { docker run --rm --device /dev/kmsg:/dev/log:w bb sh -c ': >/dev/log && ! cat /dev/log'; }
pids() { docker run --rm --pids-limit 5 bb sh -c 'for i in 1 2 3 4 5 6 7 8; do sleep 5 & done; wait' 2>&1 | tee /dev/stderr | grep -q "can't fork"; }
removed() { dir=/sys/fs/cgroup/$(cgroup_of p); docker rm -f p && [ ! -d "$dir" ]; }
pod() {
    cat >/tmp/pod.yaml <<POD
{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","namespace":"default"},"spec":{"terminationGracePeriodSeconds":1,"containers":[{"name":"c",
"image":"bb:latest","imagePullPolicy":"Never","command":["sh","-c","cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.weight; exec sleep 300"],
"resources":{"limits":{"memory":"48Mi","cpu":"200m"}}}]}}
POD
    gantry apply -f /tmp/pod.yaml && soon running && soon logged
}
running() { [ "$(gantry get pod p -o 'jsonpath={.status.phase}')" = Running ]; }
logged() { gantry logs pod/p | tee /dev/stderr | grep -q '^50331648$'; }
pod_gone() { gantry delete pod p && soon no_pod; }
no_pod() { ! gantry get pod p >/dev/null 2>&1 && [ -z "$(find /sys/fs/cgroup -type d -path '*pod*')" ]; }
down() { gantry down && [ -z "$(find /sys/fs/cgroup -type d -path '*gantry*')" ]; }

check "cgroup v2 alone" v2_only
for test in /bin/test-*; do check "tests of ${test#/bin/test-}" tests ${test#/bin/}; done
check "gantry up" gantry up --detach
check "docker import" image
check "docker run with limits" limits
check "an out-of-memory kill is on record" oom
check "pause and unpause" paused
check "update" updated
check "stats" stats
check "exec joins the cgroup" in_cgroup
check "devices are denied" device
check "a device is granted" granted
check "the pids limit holds" pids
check "a removed container leaves no cgroup" removed
check "a pod runs with its limits" pod
check "a deleted pod leaves no cgroup" pod_gone
check "gantry down leaves no cgroup" down
echo DONE
poweroff -f
