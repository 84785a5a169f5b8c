#include "common/util/dir.h"

#include <errno.h>
#include <unistd.h>

int dir_own(const char *path, mode_t mode, struct err *e)
{
    struct stat st;
    if (mkdir(path, mode) == 0)
        return 0;
    if (errno != EEXIST)
        return err_errno(e, errno, "make folder %s", path);
    if (lstat(path, &st) < 0)
        return err_errno(e, errno, "look at folder %s", path);
    if (!S_ISDIR(st.st_mode))
        return err_set(e, ERR_DENIED, "%s: must be a folder", path);
    if (st.st_uid != geteuid() && st.st_uid != 0)
        return err_set(e, ERR_DENIED, "folder %s belongs to user %u: must be ours", path, st.st_uid);
    if (st.st_mode & 022)
        return err_set(e, ERR_DENIED, "folder %s has mode %o: others may write to it", path, st.st_mode & 07777);
    return 0;
}
