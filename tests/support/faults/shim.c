/* A library for LD_PRELOAD: lets one chosen step of a program fail, stop, or kill the program.
 *
 * A step is a call that changes a file below one folder: write, fsync, rename, link, unlink, truncate, mkdir, or an open
 * that may create a file. The steps of all processes that share a control file are counted together, from 1. What
 * happens at step number `at` is in the control file, which tests/support/faults/shim.py writes and reads; both sides
 * map it. A process uses the control file named by FAULTS_CONTROL, or the one that it passes to faults_attach.
 * Without a control file every call goes straight to libc.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* The numbers of operations and actions are those of shim.py. */
enum operation { WRITE, FSYNC, RENAME, LINK, UNLINK, TRUNCATE, MKDIR, CREATE };
enum action { NOTHING, FAIL, FAIL_AFTER, SHORT, STOP, STOP_AFTER, KILL, KILL_AFTER, TORN };

#define PATH_BYTES 512
#define NAME_BYTES 128
#define TRACED_BYTES 192
#define TRACED_STEPS 4096

/* A step that was written down. Both moments are of one clock, which every beginning and every end moves on. */
struct traced {
  uint32_t operation;
  int32_t error;               /* errno of the call; 0 if it went well */
  uint32_t began, ended;       /* moments, from 1; `ended` is 0 if the process died in the call */
  uint64_t file;               /* inode of the file or folder; 0 if there was none */
  uint32_t is_new;             /* CREATE: 1 if the name did not exist */
  int32_t pid;
  char path[TRACED_BYTES];     /* inside the folder */
  char source[TRACED_BYTES];   /* RENAME and LINK: the earlier name, inside the folder */
};

struct control {
  char folder[PATH_BYTES];     /* only files below this folder count */
  char name[NAME_BYTES];       /* and only those with this text in their path; "" for all */
  char without[NAME_BYTES];    /* but none with this text in their path; "" excludes none */
  uint32_t operations;         /* one bit per operation that counts */
  uint32_t action;             /* what happens at step `at` */
  int32_t error;               /* errno of FAIL and FAIL_AFTER */
  uint32_t at;                 /* number of the step, from 1; 0 for none */
  uint32_t again;              /* 1: the same at every later step */
  uint32_t delay;              /* microseconds, at most, that every step waits first */
  uint32_t slow;               /* microseconds that every fsync takes at least */
  uint32_t traces;             /* 1: write down every step */
  _Atomic uint32_t seed;       /* of the delays */
  _Atomic uint32_t steps;      /* steps so far */
  _Atomic uint32_t clock;      /* beginnings and ends of steps so far */
  _Atomic uint32_t fired;      /* how often the action was done */
  int32_t pid;                 /* process that did it first */
  uint32_t operation;          /* of that step */
  char path[PATH_BYTES];       /* of that step */
  struct traced trace[TRACED_STEPS];
};

static struct control *control = NULL;
static __thread struct traced *current = NULL; /* the step that this thread is doing, if it is written down */

/* Use a control file from now on, in this process and in those that it forks. Returns 0, or -1 with errno. */
int faults_attach(const char *path) {
  int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);
  if (fd < 0) return -1;
  void *map = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  syscall(SYS_close, fd);
  if (map == MAP_FAILED) return -1;
  control = map;
  return 0;
}

__attribute__((constructor)) static void attach_from_environment(void) {
  const char *path = getenv("FAULTS_CONTROL");
  if (path != NULL && path[0] != '\0') faults_attach(path);
}

/* The absolute path of a name that is relative to an open folder. Returns 0 if there is none. */
static int absolute(int folder, const char *name, char *path) {
  if (name[0] == '/') return snprintf(path, PATH_MAX, "%s", name) < PATH_MAX;
  char link[64];
  if (folder == AT_FDCWD)
    snprintf(link, sizeof link, "/proc/self/cwd");
  else
    snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
  long length = syscall(SYS_readlinkat, AT_FDCWD, link, path, (size_t)PATH_MAX - 1);
  if (length <= 0) return 0;
  return snprintf(path + length, PATH_MAX - length, "/%s", name) < PATH_MAX - length;
}

/* The path of an open file. Returns 0 if there is none. */
static int path_of(int fd, char *path) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  long length = syscall(SYS_readlinkat, AT_FDCWD, link, path, (size_t)PATH_MAX - 1);
  if (length <= 0) return 0;
  path[length] = '\0';
  return 1;
}

/* The signal goes to this thread, so that the call after it is not reached before the signal acts. */
static void send(int number) {
  syscall(SYS_tgkill, syscall(SYS_getpid), syscall(SYS_gettid), number);
  if (number == SIGKILL)
    for (;;) pause();
}

static void wait_a_moment(void) {
  uint32_t random = atomic_fetch_add(&control->seed, 2654435761u) * 2246822519u;
  random ^= random >> 15;
  usleep(random % (control->delay + 1));
}

static uint64_t inode_of(int fd) {
  struct stat found;
  return fstat(fd, &found) == 0 ? found.st_ino : 0;
}

static uint64_t inode_at(int folder, const char *name) {
  struct stat found;
  return fstatat(folder, name, &found, AT_SYMLINK_NOFOLLOW) == 0 ? found.st_ino : 0;
}

static void begin(uint32_t number, enum operation operation, const char *inside) {
  current = &control->trace[number - 1];
  current->operation = operation;
  current->pid = (int32_t)syscall(SYS_getpid);
  snprintf(current->path, TRACED_BYTES, "%s", inside);
  current->began = atomic_fetch_add(&control->clock, 1) + 1;
}

static void end(int error) {
  if (current == NULL) return;
  current->error = error;
  current->ended = atomic_fetch_add(&control->clock, 1) + 1;
  current = NULL;
}

/* The earlier name of a file that a call names. */
static void note_source(int folder, const char *name) {
  char path[PATH_MAX];
  if (current == NULL || !absolute(folder, name, path)) return;
  size_t length = strlen(control->folder);
  int is_inside = strncmp(path, control->folder, length) == 0;
  snprintf(current->source, TRACED_BYTES, "%s", is_inside ? path + length : path);
  current->file = inode_at(folder, name);
}

/* Count a step. Returns the action if it happens at this one, else NOTHING. Stops or kills the process before it. */
static enum action step(enum operation operation, const char *path) {
  struct control *c = control;
  size_t length = strlen(c->folder);
  current = NULL;
  if (!(c->operations & (1u << operation))) return NOTHING;
  if (strncmp(path, c->folder, length) != 0 || (path[length] != '/' && path[length] != '\0')) return NOTHING;
  if (c->name[0] != '\0' && strstr(path + length, c->name) == NULL) return NOTHING;
  if (c->without[0] != '\0' && strstr(path + length, c->without) != NULL) return NOTHING;
  if (c->delay > 0) wait_a_moment();
  uint32_t number = atomic_fetch_add(&c->steps, 1) + 1;
  if (c->traces && number <= TRACED_STEPS) begin(number, operation, path + length);
  if (c->at == 0 || number < c->at || (number > c->at && !c->again)) return NOTHING;
  if (atomic_fetch_add(&c->fired, 1) == 0) {
    c->pid = (int32_t)syscall(SYS_getpid);
    c->operation = operation;
    snprintf(c->path, PATH_BYTES, "%s", path);
  }
  if (c->action == KILL) send(SIGKILL);
  if (c->action == STOP) send(SIGSTOP);
  return c->action;
}

static enum action step_at(enum operation operation, int folder, const char *name) {
  char path[PATH_MAX];
  int saved = errno;
  enum action action = NOTHING;
  if (control != NULL && name != NULL && absolute(folder, name, path)) action = step(operation, path);
  if (current != NULL && operation != CREATE) current->file = inode_at(folder, name);
  errno = saved;
  return action;
}

static enum action step_of(enum operation operation, int fd) {
  char path[PATH_MAX];
  int saved = errno;
  enum action action = NOTHING;
  if (control != NULL && path_of(fd, path)) action = step(operation, path);
  if (current != NULL) current->file = inode_of(fd);
  if (control != NULL && control->slow > 0 && operation == FSYNC) usleep(control->slow);
  errno = saved;
  return action;
}

static int failed(void) {
  end(control->error);
  errno = control->error;
  return -1;
}

/* What happens after the call. Returns the result that the caller gets: FAIL_AFTER hides that a call went well. */
static ssize_t after(enum action action, ssize_t result) {
  int saved = errno;
  if (action == KILL_AFTER || action == TORN) send(SIGKILL);
  if (action == STOP_AFTER) send(SIGSTOP);
  end(result < 0 ? saved : 0);
  errno = saved;
  return action == FAIL_AFTER && result >= 0 ? failed() : result;
}

/* How many of the bytes to write: half of them for a write that is short or torn. */
static size_t share(enum action action, size_t count) {
  return (action == SHORT || action == TORN) && count > 1 ? count / 2 : count;
}

#define LIBC(result, name, ...) \
  static result (*libc)(__VA_ARGS__) = NULL; \
  if (libc == NULL) libc = (result(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

ssize_t write(int fd, const void *data, size_t count) {
  LIBC(ssize_t, "write", int, const void *, size_t);
  enum action action = step_of(WRITE, fd);
  return action == FAIL ? failed() : after(action, libc(fd, data, share(action, count)));
}

ssize_t pwrite64(int fd, const void *data, size_t count, off64_t offset) {
  LIBC(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
  enum action action = step_of(WRITE, fd);
  return action == FAIL ? failed() : after(action, libc(fd, data, share(action, count), offset));
}

ssize_t pwrite(int fd, const void *data, size_t count, off_t offset) { return pwrite64(fd, data, count, offset); }

ssize_t writev(int fd, const struct iovec *parts, int count) {
  LIBC(ssize_t, "writev", int, const struct iovec *, int);
  enum action action = step_of(WRITE, fd);
  return action == FAIL ? failed() : after(action, libc(fd, parts, (int)share(action, (size_t)count)));
}

int fsync(int fd) {
  LIBC(int, "fsync", int);
  enum action action = step_of(FSYNC, fd);
  return action == FAIL ? failed() : (int)after(action, libc(fd));
}

int fdatasync(int fd) {
  LIBC(int, "fdatasync", int);
  enum action action = step_of(FSYNC, fd);
  return action == FAIL ? failed() : (int)after(action, libc(fd));
}

int ftruncate64(int fd, off64_t length) {
  LIBC(int, "ftruncate64", int, off64_t);
  enum action action = step_of(TRUNCATE, fd);
  return action == FAIL ? failed() : (int)after(action, libc(fd, length));
}

int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

int rename(const char *from, const char *to) {
  LIBC(int, "rename", const char *, const char *);
  enum action action = step_at(RENAME, AT_FDCWD, to);
  note_source(AT_FDCWD, from);
  return action == FAIL ? failed() : (int)after(action, libc(from, to));
}

int renameat(int from_folder, const char *from, int to_folder, const char *to) {
  LIBC(int, "renameat", int, const char *, int, const char *);
  enum action action = step_at(RENAME, to_folder, to);
  note_source(from_folder, from);
  return action == FAIL ? failed() : (int)after(action, libc(from_folder, from, to_folder, to));
}

int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags) {
  LIBC(int, "renameat2", int, const char *, int, const char *, unsigned);
  enum action action = step_at(RENAME, to_folder, to);
  note_source(from_folder, from);
  return action == FAIL ? failed() : (int)after(action, libc(from_folder, from, to_folder, to, flags));
}

int link(const char *from, const char *to) {
  LIBC(int, "link", const char *, const char *);
  enum action action = step_at(LINK, AT_FDCWD, to);
  note_source(AT_FDCWD, from);
  return action == FAIL ? failed() : (int)after(action, libc(from, to));
}

int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags) {
  LIBC(int, "linkat", int, const char *, int, const char *, int);
  enum action action = step_at(LINK, to_folder, to);
  note_source(from_folder, from);
  return action == FAIL ? failed() : (int)after(action, libc(from_folder, from, to_folder, to, flags));
}

int unlink(const char *path) {
  LIBC(int, "unlink", const char *);
  enum action action = step_at(UNLINK, AT_FDCWD, path);
  return action == FAIL ? failed() : (int)after(action, libc(path));
}

int unlinkat(int folder, const char *path, int flags) {
  LIBC(int, "unlinkat", int, const char *, int);
  enum action action = step_at(UNLINK, folder, path);
  return action == FAIL ? failed() : (int)after(action, libc(folder, path, flags));
}

int mkdir(const char *path, mode_t mode) {
  LIBC(int, "mkdir", const char *, mode_t);
  enum action action = step_at(MKDIR, AT_FDCWD, path);
  return action == FAIL ? failed() : (int)after(action, libc(path, mode));
}

/* The mode exists only where a file may be created. */
#define MODE(flags) \
  mode_t mode = 0; \
  if ((flags) & (O_CREAT | O_TMPFILE)) { \
    va_list more; \
    va_start(more, flags); \
    mode = (mode_t)va_arg(more, int); \
    va_end(more); \
  }

static enum action creation(int folder, const char *path, int flags) {
  if (!(flags & O_CREAT)) return NOTHING;
  enum action action = step_at(CREATE, folder, path);
  int saved = errno;
  if (current != NULL) current->is_new = inode_at(folder, path) == 0;
  errno = saved;
  return action;
}

/* The end of an open. FAIL_AFTER does nothing here, since nobody could close the file. */
static int opened(enum action action, int flags, int fd) {
  if (!(flags & O_CREAT)) return fd;
  int saved = errno;
  if (current != NULL && fd >= 0) current->file = inode_of(fd);
  errno = saved;
  return (int)after(action == FAIL_AFTER ? NOTHING : action, fd);
}

#define OPEN(name) \
  int name(const char *path, int flags, ...) { \
    LIBC(int, #name, const char *, int, ...); \
    MODE(flags) \
    enum action action = creation(AT_FDCWD, path, flags); \
    return action == FAIL ? failed() : opened(action, flags, libc(path, flags, mode)); \
  }

#define OPENAT(name) \
  int name(int folder, const char *path, int flags, ...) { \
    LIBC(int, #name, int, const char *, int, ...); \
    MODE(flags) \
    enum action action = creation(folder, path, flags); \
    return action == FAIL \
               ? failed() \
               : opened(action, flags, libc(folder, path, flags, mode)); \
  }

OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)
