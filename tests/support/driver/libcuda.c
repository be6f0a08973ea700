/* A stand-in for NVIDIA's driver library. EMBEDKIT_TEST_GPUS has the names of the node's GPUs, with ; between them. */
#include <stdlib.h>
#include <string.h>

static int first_visible(void) {
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    if (visible == NULL) return 0;
    return *visible >= '0' && *visible <= '9' ? atoi(visible) : -1;
}

int cuInit(unsigned flags) { return first_visible() < 0 ? 100 : 0; }

int cuDriverGetVersion(int *version) {
    *version = 13000;
    return 0;
}

int cuDeviceGet(int *device, int ordinal) {
    *device = first_visible() + ordinal;
    return 0;
}

int cuDeviceGetName(char *name, int length, int device) {
    const char *names = getenv("EMBEDKIT_TEST_GPUS");
    while (names != NULL && device-- > 0) {
        names = strchr(names, ';');
        names = names == NULL ? NULL : names + 1;
    }
    if (names == NULL) return 101;
    size_t size = strcspn(names, ";");
    if (size >= (size_t)length) return 1;
    memcpy(name, names, size);
    name[size] = 0;
    return 0;
}
