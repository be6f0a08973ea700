/* An NFSv4 client in user space: libnfs under FUSE, for kernels without one. Usage: client URL FOLDER SECONDS [FAULT]
 *
 * Each mounted client has a connection, and dentries, of its own. For SECONDS it remembers that a name exists or does
 * not, as the kernel's client does; what a file holds is asked for at each use. Like that client it knows no rename
 * without replacing, and asks again if the server answers "later". FAULT: `lose` answers EEXIST or ENOENT to every second link or rename that it made, as after a
 * lost answer; `refuse` refuses hard links.
 */
#define FUSE_USE_VERSION 31
#define _FILE_OFFSET_BITS 64
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <nfsc/libnfs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/time.h>
#include <unistd.h>

static struct nfs_context *nfs;
static double seconds;
static const char *fault = "";
static unsigned made;

/* One open file of the server per inode, shared and counted: libnfs has one owner of opens, whose first close would
 * close them all. */
struct handle {
    uint64_t inode;
    int uses;
    struct nfsfh *file;
    struct handle *next;
};
static struct handle *handles;

#define MOST_READ 65536
#define MOST_WRITTEN 3072 /* libnfs 4.0 encodes no longer request of NFSv4 */
#define HANDLE(info) ((struct handle *)(uintptr_t)(info)->fh)

/* libnfs gives ERANGE for answers of NFSv4 that it knows no error for, such as NFS4ERR_DELAY. */
#define ASK(code, call) \
    for (int tries = 0; ((code) = (call)) == -ERANGE && tries < 100; tries++) { \
        fprintf(stderr, "asking again: %s\n", nfs_get_error(nfs)); \
        usleep(50000); \
    }

static size_t least(size_t one, size_t other)
{
    return one < other ? one : other;
}

static void to_stat(const struct nfs_stat_64 *from, struct stat *to)
{
    memset(to, 0, sizeof *to);
    to->st_ino = from->nfs_ino;
    to->st_mode = from->nfs_mode;
    to->st_nlink = from->nfs_nlink;
    to->st_uid = from->nfs_uid;
    to->st_gid = from->nfs_gid;
    to->st_size = from->nfs_size;
    to->st_blksize = 1 << 17;
    to->st_blocks = (from->nfs_size + 511) / 512;
    to->st_atim = (struct timespec){from->nfs_atime, from->nfs_atime_nsec};
    to->st_mtim = (struct timespec){from->nfs_mtime, from->nfs_mtime_nsec};
    to->st_ctim = (struct timespec){from->nfs_ctime, from->nfs_ctime_nsec};
}

static void *start(struct fuse_conn_info *connection, struct fuse_config *config)
{
    (void)connection;
    config->use_ino = 1;
    config->attr_timeout = 0;
    config->entry_timeout = seconds;
    config->negative_timeout = seconds;
    return NULL;
}

static int get_attributes(const char *path, struct stat *to, struct fuse_file_info *info)
{
    struct nfs_stat_64 found;
    int code;
    ASK(code, info ? nfs_fstat64(nfs, HANDLE(info)->file, &found) : nfs_lstat64(nfs, path, &found))
    if (code < 0)
        return code;
    to_stat(&found, to);
    return 0;
}

static int open_any(const char *path, int flags, int mode, struct fuse_file_info *info)
{
    struct nfs_stat_64 found;
    struct nfsfh *file;
    struct handle *one;
    int code;
    if (!(flags & O_CREAT) && nfs_stat64(nfs, path, &found) == 0)
        for (one = handles; one; one = one->next)
            if (one->inode == found.nfs_ino && one->uses) {
                if (flags & O_TRUNC && (code = nfs_ftruncate(nfs, one->file, 0)) < 0)
                    return code;
                one->uses++;
                info->fh = (uint64_t)(uintptr_t)one;
                return 0;
            }
    ASK(code, nfs_open2(nfs, path, O_RDWR | (flags & (O_CREAT | O_EXCL | O_TRUNC)), mode, &file))
    if (code < 0)
        return code;
    ASK(code, nfs_fstat64(nfs, file, &found))
    if (code < 0)
        return code;
    one = calloc(1, sizeof *one);
    *one = (struct handle){found.nfs_ino, 1, file, handles};
    handles = one;
    info->fh = (uint64_t)(uintptr_t)one;
    return 0;
}

static int open_file(const char *path, struct fuse_file_info *info)
{
    return open_any(path, info->flags & ~O_CREAT, 0, info);
}

static int create_file(const char *path, mode_t mode, struct fuse_file_info *info)
{
    return open_any(path, info->flags | O_CREAT, mode & 07777, info);
}

static int release_file(const char *path, struct fuse_file_info *info)
{
    struct handle **at, *one = HANDLE(info);
    (void)path;
    if (--one->uses)
        return 0;
    for (at = &handles; *at != one; at = &(*at)->next)
        ;
    *at = one->next;
    nfs_close(nfs, one->file);
    free(one);
    return 0;
}

static int read_file(const char *path, char *to, size_t size, off_t at, struct fuse_file_info *info)
{
    size_t done = 0;
    (void)path;
    while (done < size) {
        int count = nfs_pread(nfs, HANDLE(info)->file, at + done, least(size - done, MOST_READ), to + done);
        if (count < 0)
            return count;
        if (!count)
            break;
        done += count;
    }
    return done;
}

static int write_file(const char *path, const char *from, size_t size, off_t at, struct fuse_file_info *info)
{
    size_t done = 0;
    (void)path;
    while (done < size) {
        int count = nfs_pwrite(nfs, HANDLE(info)->file, at + done, least(size - done, MOST_WRITTEN), from + done);
        if (count < 0)
            return count;
        done += count;
    }
    return done;
}

static int sync_file(const char *path, int data, struct fuse_file_info *info)
{
    (void)path;
    (void)data;
    return nfs_fsync(nfs, HANDLE(info)->file);
}

static int sync_folder(const char *path, int data, struct fuse_file_info *info)
{
    (void)path;
    (void)data;
    (void)info;
    return 0; /* the server answers once a name is durable */
}

static int truncate_file(const char *path, off_t size, struct fuse_file_info *info)
{
    return info ? nfs_ftruncate(nfs, HANDLE(info)->file, size) : nfs_truncate(nfs, path, size);
}

static int read_folder(const char *path, void *to, fuse_fill_dir_t fill, off_t at, struct fuse_file_info *info,
                       enum fuse_readdir_flags flags)
{
    struct nfsdir *folder;
    struct nfsdirent *entry;
    int code = nfs_opendir(nfs, path, &folder);
    (void)at;
    (void)info;
    (void)flags;
    if (code < 0)
        return code;
    while ((entry = nfs_readdir(nfs, folder)))
        fill(to, entry->name, NULL, 0, 0);
    nfs_closedir(nfs, folder);
    return 0;
}

static int make_folder(const char *path, mode_t mode)
{
    return nfs_mkdir2(nfs, path, mode & 07777);
}

static int remove_folder(const char *path)
{
    return nfs_rmdir(nfs, path);
}

static int remove_file(const char *path)
{
    int code;
    ASK(code, nfs_unlink(nfs, path))
    return code;
}

static int rename_file(const char *from, const char *to, unsigned flags)
{
    int code;
    if (flags)
        return -EINVAL;
    ASK(code, nfs_rename(nfs, from, to))
    return !code && !strcmp(fault, "lose") && ++made % 2 ? -ENOENT : code;
}

static int link_file(const char *from, const char *to)
{
    int code;
    if (!strcmp(fault, "refuse"))
        return -EPERM;
    ASK(code, nfs_link(nfs, from, to))
    return !code && !strcmp(fault, "lose") && ++made % 2 ? -EEXIST : code;
}

static int link_by_name(const char *target, const char *path)
{
    return nfs_symlink(nfs, target, path);
}

static int read_link(const char *path, char *to, size_t size)
{
    return nfs_readlink(nfs, path, to, size) < 0 ? -EINVAL : 0;
}

static int change_mode(const char *path, mode_t mode, struct fuse_file_info *info)
{
    (void)info;
    return nfs_chmod(nfs, path, mode & 07777);
}

static int change_owner(const char *path, uid_t uid, gid_t gid, struct fuse_file_info *info)
{
    (void)info;
    return nfs_chown(nfs, path, uid, gid);
}

static int change_times(const char *path, const struct timespec times[2], struct fuse_file_info *info)
{
    struct timeval to[2];
    (void)info;
    for (int i = 0; i < 2; i++) {
        if (times[i].tv_nsec == UTIME_NOW || times[i].tv_nsec == UTIME_OMIT)
            gettimeofday(&to[i], NULL);
        else
            to[i] = (struct timeval){times[i].tv_sec, times[i].tv_nsec / 1000};
    }
    return nfs_utimes(nfs, path, to);
}

static int get_space(const char *path, struct statvfs *to)
{
    (void)path;
    memset(to, 0, sizeof *to);
    to->f_bsize = to->f_frsize = 4096;
    to->f_blocks = to->f_bfree = to->f_bavail = 1 << 28;
    to->f_files = to->f_ffree = to->f_favail = 1 << 28;
    to->f_namemax = 255;
    return 0;
}

static const struct fuse_operations operations = {
    .init = start,
    .getattr = get_attributes,
    .open = open_file,
    .create = create_file,
    .release = release_file,
    .read = read_file,
    .write = write_file,
    .fsync = sync_file,
    .fsyncdir = sync_folder,
    .truncate = truncate_file,
    .readdir = read_folder,
    .mkdir = make_folder,
    .rmdir = remove_folder,
    .unlink = remove_file,
    .rename = rename_file,
    .link = link_file,
    .symlink = link_by_name,
    .readlink = read_link,
    .chmod = change_mode,
    .chown = change_owner,
    .utimens = change_times,
    .statfs = get_space,
};

int main(int count, char **words)
{
    char *options[] = {words[0], "-f", "-s", "-o", "fsname=nfs-in-user-space,default_permissions,allow_other", words[2], NULL};
    struct nfs_url *url;
    if (count < 4)
        return 2;
    seconds = atof(words[3]);
    fault = count > 4 ? words[4] : "";
    nfs = nfs_init_context();
    url = nfs_parse_url_dir(nfs, words[1]);
    nfs4_set_client_name(nfs, words[2]);
    if (!url || nfs_mount(nfs, url->server, url->path)) {
        fprintf(stderr, "%s: %s\n", words[1], nfs_get_error(nfs));
        return 1;
    }
    return fuse_main(6, options, &operations, NULL);
}
