/* NVML of a machine with one Tesla V100-SXM2-32GB, for scripts/check_v100_set.sh.

   What is not here is missing, as it is in an old driver. Structures and constants are those of
   NVIDIA's nvml.h; every function gives 0 (NVML_SUCCESS). */
#include <stdint.h>
#include <string.h>

#define GIB ((uint64_t)1 << 30)

static int text(char *to, unsigned int size, const char *from) {
    strncpy(to, from, size);
    return 0;
}

int nvmlInit_v2(void) { return 0; }
int nvmlInitWithFlags(unsigned int flags) { return 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { return "a stand-in for the driver"; }

int nvmlSystemGetDriverVersion(char *to, unsigned int size) { return text(to, size, "570.86.10"); }
int nvmlSystemGetCudaDriverVersion(int *to) { *to = 12080; return 0; }
int nvmlSystemGetCudaDriverVersion_v2(int *to) { *to = 12080; return 0; }

int nvmlDeviceGetCount_v2(unsigned int *to) { *to = 1; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **to) { *to = (void *)1; return index != 0; }
int nvmlDeviceGetHandleByUUID(const char *uuid, void **to) { *to = (void *)1; return 0; }
int nvmlDeviceGetName(void *gpu, char *to, unsigned int size) { return text(to, size, "Tesla V100-SXM2-32GB"); }
int nvmlDeviceGetUUID(void *gpu, char *to, unsigned int size) { return text(to, size, "GPU-00000000-0000-0000-0000-000000000000"); }
int nvmlDeviceGetCudaComputeCapability(void *gpu, int *major, int *minor) { *major = 7; *minor = 0; return 0; }

typedef struct { uint64_t total, free, used; } memory_t;
typedef struct { unsigned int version; uint64_t total, reserved, free, used; } memory_v2_t;

int nvmlDeviceGetMemoryInfo(void *gpu, memory_t *to) {
    to->total = 32 * GIB;
    to->used = 0;
    to->free = to->total;
    return 0;
}

int nvmlDeviceGetMemoryInfo_v2(void *gpu, memory_v2_t *to) {
    to->total = 32 * GIB;
    to->reserved = to->used = 0;
    to->free = to->total;
    return 0;
}
