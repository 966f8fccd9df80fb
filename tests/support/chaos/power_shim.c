/*
 * Writes down, in the order in which they happen, what a process does to the files of one directory and what it sends on
 * its sockets. Preloaded into a relay (LD_PRELOAD); power.py reads the record and makes of it what a disk may hold after
 * the power went: what was synced, and of the rest whatever had got there.
 *
 *   POWER_DIR   the directory, POWER_LOG the record, POWER_BOOT a file that is read in place of the kernel's boot id
 *
 * A record is: kind (1 byte), descriptor (4), offset (8), length (4), then length bytes. Kinds: o file opened (path),
 * w bytes written, t truncated or lengthened (offset: new size), f synced, u unlinked (path), r renamed (both paths, a NUL
 * between), v sent to a viewer (TCP), a sent to a trader (Unix socket). One lock is held around each operation and its record, so
 * that the order in the record is the real one.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define MOST_FDS 65536
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define BOOT_ID "/proc/sys/kernel/random/boot_id"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned char watched[MOST_FDS];
static int log_fd = -1;

static int ours(const char *path) {
  const char *dir = getenv("POWER_DIR");
  size_t size = dir ? strlen(dir) : 0;
  return size && path && !strncmp(path, dir, size) && (path[size] == '/' || !path[size]);
}

static int known(int fd) { return fd >= 0 && fd < MOST_FDS && watched[fd]; }

static void put(char kind, int fd, int64_t offset, const void *data, uint32_t size, const void *more, uint32_t rest) {
  unsigned char head[17];
  int32_t number = fd;
  uint32_t all = size + rest;
  if (log_fd < 0) {
    const char *path = getenv("POWER_LOG");
    if (!path) return;
    log_fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  }
  head[0] = kind;
  memcpy(head + 1, &number, 4);
  memcpy(head + 5, &offset, 8);
  memcpy(head + 13, &all, 4);
  struct iovec parts[] = {{head, 17}, {(void *)data, size}, {(void *)more, rest}};
  syscall(SYS_writev, log_fd, parts, 3);
}

static int opened(int fd, const char *path) {
  if (fd >= 0 && fd < MOST_FDS) watched[fd] = ours(path);
  if (known(fd)) put('o', fd, 0, path, strlen(path), 0, 0);
  return fd;
}

#define OPEN(name, call)                                                     \
  int name(const char *path, int flags, ...) {                               \
    va_list rest;                                                            \
    va_start(rest, flags);                                                   \
    mode_t mode = va_arg(rest, mode_t);                                      \
    va_end(rest);                                                            \
    if (!strcmp(path, BOOT_ID) && getenv("POWER_BOOT")) path = getenv("POWER_BOOT"); \
    pthread_mutex_lock(&lock);                                               \
    int fd = opened(REAL(call)(path, flags, mode), path);                    \
    pthread_mutex_unlock(&lock);                                             \
    return fd;                                                               \
  }
OPEN(open, open)
OPEN(open64, open64)

int close(int fd) {
  pthread_mutex_lock(&lock);
  if (fd >= 0 && fd < MOST_FDS) watched[fd] = 0;
  int done = REAL(close)(fd);
  pthread_mutex_unlock(&lock);
  return done;
}

static void sent(int fd, const void *data, ssize_t size) {
  int domain = 0;
  socklen_t length = sizeof domain;
  if (size <= 0 || getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length)) return;
  if (domain == AF_INET) put('v', fd, 0, data, size, 0, 0);
  if (domain == AF_UNIX) put('a', fd, 0, data, size, 0, 0);
}

static void sent_parts(int fd, const struct iovec *parts, int count, ssize_t done) {
  for (int i = 0; i < count && done > 0; i++) {
    ssize_t size = (ssize_t)parts[i].iov_len < done ? (ssize_t)parts[i].iov_len : done;
    sent(fd, parts[i].iov_base, size);
    done -= size;
  }
}

ssize_t write(int fd, const void *data, size_t size) {
  pthread_mutex_lock(&lock);
  off_t at = known(fd) ? lseek(fd, 0, SEEK_CUR) : 0;
  ssize_t done = REAL(write)(fd, data, size);
  if (known(fd) && done > 0) put('w', fd, at, data, done, 0, 0);
  else if (!known(fd)) sent(fd, data, done);
  pthread_mutex_unlock(&lock);
  return done;
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
  pthread_mutex_lock(&lock);
  ssize_t done = REAL(writev)(fd, parts, count);
  sent_parts(fd, parts, count, done);
  pthread_mutex_unlock(&lock);
  return done;
}

ssize_t send(int fd, const void *data, size_t size, int flags) {
  pthread_mutex_lock(&lock);
  ssize_t done = REAL(send)(fd, data, size, flags);
  sent(fd, data, done);
  pthread_mutex_unlock(&lock);
  return done;
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
  pthread_mutex_lock(&lock);
  ssize_t done = REAL(sendmsg)(fd, message, flags);
  sent_parts(fd, message->msg_iov, message->msg_iovlen, done);
  pthread_mutex_unlock(&lock);
  return done;
}

#define PWRITE(name, type)                                        \
  ssize_t name(int fd, const void *data, size_t size, type at) {  \
    pthread_mutex_lock(&lock);                                    \
    ssize_t done = REAL(name)(fd, data, size, at);                \
    if (known(fd) && done > 0) put('w', fd, at, data, done, 0, 0); \
    pthread_mutex_unlock(&lock);                                  \
    return done;                                                  \
  }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

#define TRUNCATE(name, type)                       \
  int name(int fd, type size) {                    \
    pthread_mutex_lock(&lock);                     \
    int done = REAL(name)(fd, size);               \
    if (known(fd) && !done) put('t', fd, size, 0, 0, 0, 0); \
    pthread_mutex_unlock(&lock);                   \
    return done;                                   \
  }
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)

/* Room taken beforehand: a file that has become longer, with zeros. */
#define ALLOCATE(name, type)                                      \
  int name(int fd, type at, type size) {                          \
    pthread_mutex_lock(&lock);                                    \
    struct stat before;                                           \
    int known_size = known(fd) && !fstat(fd, &before);            \
    int failed = REAL(name)(fd, at, size);                        \
    if (known_size && !failed && at + size > before.st_size) put('t', fd, at + size, 0, 0, 0, 0); \
    pthread_mutex_unlock(&lock);                                  \
    return failed;                                                \
  }
ALLOCATE(posix_fallocate, off_t)
ALLOCATE(posix_fallocate64, off64_t)

#define SYNC(name)                                 \
  int name(int fd) {                               \
    pthread_mutex_lock(&lock);                     \
    int done = REAL(name)(fd);                     \
    if (known(fd) && !done) put('f', fd, 0, 0, 0, 0, 0); \
    pthread_mutex_unlock(&lock);                   \
    return done;                                   \
  }
SYNC(fsync)
SYNC(fdatasync)

int unlink(const char *path) {
  pthread_mutex_lock(&lock);
  int done = REAL(unlink)(path);
  if (!done && ours(path)) put('u', -1, 0, path, strlen(path), 0, 0);
  pthread_mutex_unlock(&lock);
  return done;
}

int rename(const char *from, const char *to) {
  pthread_mutex_lock(&lock);
  int done = REAL(rename)(from, to);
  if (!done && ours(from)) put('r', -1, 0, from, strlen(from) + 1, to, strlen(to));
  pthread_mutex_unlock(&lock);
  return done;
}
