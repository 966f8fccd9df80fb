#!/bin/bash
# A throw-away machine: systemd as process 1 of its own namespaces, on an overlay of this machine's root file system.
#
#   box.sh start DIR PREPARE   boot; PREPARE is a program that gets the new root as $1 and may put files there
#   box.sh run DIR COMMAND...  run a command inside; its exit status is passed on
#   box.sh stop DIR            end everything inside and forget it
#
# DIR is an empty directory that belongs to the box. Needs root, overlayfs and a writable cgroup2 mount.
# Nothing written inside reaches the machine: every write goes to a tmpfs that dies with the box.
set -euo pipefail

LIMIT_S=${BOX_LIMIT_S:-240} # until the manager answers, until it has started everything, until the last process is gone

cgroup_of() { # the box's own cgroup: a manager moves every process of its root cgroup, so never start it in ours
  local mount
  mount=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
  [ -n "$mount" ] || { echo "no cgroup2 file system is mounted" >&2; exit 1; }
  # Of the directory above too: tests that run beside one another give their boxes directories of one name.
  echo "$mount/box-$(basename "$(dirname "$1")")-$(basename "$1")"
}

inside() { # DIR COMMAND...
  local dir=$1
  shift
  nsenter --target "$(<"$dir/manager")" --all --root --wdns=/ -- "$@"
}

start() {
  local dir=$1 prepare=$2 group outer manager= end=$((SECONDS + LIMIT_S))
  group=$(cgroup_of "$dir")
  mkdir "$group"
  (
    echo "$BASHPID" >"$group/cgroup.procs"
    exec setsid unshare --mount --propagation private --cgroup --net --uts --ipc --pid --fork --kill-child \
      bash "$(readlink -f "$0")" _boot "$dir" "$prepare"
  ) </dev/null >"$dir/log" 2>&1 &
  outer=$!
  echo "$outer" >"$dir/outer"
  while ((SECONDS < end)); do
    manager=$(tr -d ' ' <"/proc/$outer/task/$outer/children" 2>/dev/null || true) # one child at most
    if [ -n "$manager" ] && [ "$(cat "/proc/$manager/comm" 2>/dev/null)" = systemd ] &&
      [ -S "/proc/$manager/root/run/systemd/private" ]; then
      echo "$manager" >"$dir/manager"
      timeout "$LIMIT_S" "$0" run "$dir" systemctl is-system-running --wait
      return
    fi
    [ -d "/proc/$outer" ] || break
    sleep 0.05
  done
  cat "$dir/log" >&2
  echo "the box did not boot" >&2
  exit 1
}

_boot() { # process 1 of the new namespaces, until it becomes systemd
  local dir=$1 prepare=$2 layers root name
  layers=$dir/layers
  root=$layers/root
  mkdir "$layers"
  mount -t tmpfs box "$layers"
  mkdir "$layers/written" "$layers/work" "$root"
  mount -t overlay overlay -o "lowerdir=/,upperdir=$layers/written,workdir=$layers/work" "$root"

  mount -t proc proc "$root/proc"
  mount --bind "$root/proc/sys" "$root/proc/sys" # the kernel's settings are the machine's, not ours
  mount -o remount,bind,ro "$root/proc/sys"
  mount -t sysfs -o ro sysfs "$root/sys"
  mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
  mount -t tmpfs -o mode=0755 run "$root/run"
  mount -t tmpfs -o mode=1777 tmp "$root/tmp"
  mount -t tmpfs -o mode=0755 dev "$root/dev"
  mkdir "$root/dev/pts" "$root/dev/shm"
  mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,gid=5 devpts "$root/dev/pts"
  mount -t tmpfs -o mode=1777 shm "$root/dev/shm"
  for name in null zero full random urandom tty; do
    : >"$root/dev/$name"
    mount --bind "/dev/$name" "$root/dev/$name"
  done
  ln -s pts/ptmx "$root/dev/ptmx"
  ln -s /proc/self/fd "$root/dev/fd"
  ln -s fd/0 "$root/dev/stdin"
  ln -s fd/1 "$root/dev/stdout"
  ln -s fd/2 "$root/dev/stderr"

  # Only what a service needs: no disks to mount, no clock to set, no devices to wait for.
  rm -f "$root/etc/fstab"
  : >"$root/etc/machine-id"
  for name in systemd-{timesyncd,sysctl,modules-load,udevd,udev-trigger,remount-fs,hwdb-update,firstboot}.service \
    {tmp,dev-hugepages,dev-mqueue,sys-kernel-debug,sys-kernel-tracing,sys-fs-fuse-connections}.mount; do
    ln -sf /dev/null "$root/etc/systemd/system/$name"
  done
  printf '%s\n' '[Unit]' 'Requires=basic.target' 'After=basic.target' 'Wants=dbus.socket' \
    >"$root/etc/systemd/system/box.target"
  "$prepare" "$root"

  ip link set lo up
  cd "$root"
  mkdir -p old
  pivot_root . old
  umount --lazy /old
  mount --make-rshared / # services get their own mounts from it
  exec setpriv --bounding-set -sys_time,-sys_module,-sys_rawio,-sys_boot --inh-caps=-all \
    env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin container=box \
    /lib/systemd/systemd --system --unit=box.target --show-status=no
}

stop() {
  local dir=$1 group outer end=$((SECONDS + LIMIT_S))
  group=$(cgroup_of "$dir")
  outer=$(cat "$dir/outer" 2>/dev/null || true)
  # With unshare dies process 1 of the box, and with that everything inside. Only if the pid is still what we started.
  if [ -n "$outer" ] && [ "$(cat "/proc/$outer/comm" 2>/dev/null)" = unshare ]; then
    kill -KILL "$outer"
  fi
  while ((SECONDS < end)); do
    [ -d "$group" ] || return 0
    find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.05
  done
  echo "$group is still in use" >&2
  exit 1
}

case ${1-} in
start | _boot) [ $# -eq 3 ] || exit 2 ;;
stop) [ $# -eq 2 ] || exit 2 ;;
run)
  shift
  inside "$@"
  exit
  ;;
*)
  echo "usage: box.sh start DIR PREPARE | run DIR COMMAND... | stop DIR" >&2
  exit 2
  ;;
esac
"$@"
