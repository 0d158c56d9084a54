/* libnvidia-ml.so.1, simulated: the calls that pynvml makes, answered from a world file.
 *
 * It fails the way NVML does: the layout is frozen at the first nvmlInit, handles die with their session,
 * readings that MIG forbids are NotSupported, buffers can be too small, and any call can be told to fail,
 * to be late, to answer nothing or never to come back. What lies in the world file is read by world.c.
 */
#include "world.h"

#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define API __attribute__((visibility("default")))

typedef uintptr_t handle;

enum { HANDLE_MAGIC = 0xD5, WHOLE = 0xFF, NO_INSTANCE = -1 };

static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static struct world now;    /* as the file says at this moment */
static struct world frozen; /* as it was at the first nvmlInit of this session */
static unsigned sessions;   /* nvmlInit minus nvmlShutdown */
static unsigned generation; /* of handles: a new one with every session */

/* One call: which function, at which device, and what came of the checks that every call shares. */
struct call {
    const char *function;
    int gpu, mig;    /* positions in the frozen layout; -1: not about a device */
    bool empty;   /* a fault asks for an empty list */
    unsigned delay_ms;
};

static handle handle_of(int gpu, int mig) {
    return (handle)HANDLE_MAGIC << 48 | (handle)(generation & 0xFFFFFF) << 24 | (handle)(gpu & 0xFF) << 8 |
           (handle)(mig < 0 ? WHOLE : mig);
}

static bool position_of(handle device, int *gpu, int *mig) {
    int low = (int)(device & 0xFF);
    *gpu = (int)(device >> 8 & 0xFF);
    *mig = low == WHOLE ? -1 : low;
    return device >> 48 == HANDLE_MAGIC && (device >> 24 & 0xFFFFFF) == (generation & 0xFFFFFF) && *gpu < frozen.gpus &&
           *mig < frozen.gpu[*gpu].migs;
}

/* A thread that the driver holds in the kernel: no signal but SIGKILL ends it. */
static void hang(void) {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    for (;;) pause();
}

static void wait_ms(unsigned milliseconds) {
    struct timespec left = {milliseconds / 1000, (long)(milliseconds % 1000) * 1000000L};
    while (nanosleep(&left, &left) != 0) {}
}

/* Read the world and apply the faults meant for this call. Locks the guard, also when it fails; but no call
 * that hangs or is late holds up the others. */
static int enter(struct call *call) {
    int code = SUCCESS;
    pthread_mutex_lock(&guard);
    int loaded = world_read(&now);
    if (loaded != SUCCESS) return loaded;
    int gpu_index = call->gpu, mig_index = -1;
    if (call->gpu >= 0 && call->gpu < frozen.gpus && call->mig >= 0)
        mig_index = frozen.gpu[call->gpu].mig[call->mig].index;
    for (int i = 0; i < now.faults; i++) {
        struct fault *fault = &now.fault[i];
        if (!world_fault_meets(fault, call->function, gpu_index, mig_index)) continue;
        if (fault->effect == EFFECT_HANG) {
            pthread_mutex_unlock(&guard);
            hang();
        } else if (fault->effect == EFFECT_DELAY) {
            call->delay_ms += fault->value;
        } else if (fault->effect == EFFECT_EMPTY) {
            call->empty = true;
        } else if (code == SUCCESS) {
            code = (int)fault->value;
        }
    }
    if (call->delay_ms) {
        pthread_mutex_unlock(&guard);
        wait_ms(call->delay_ms);
        pthread_mutex_lock(&guard);
    }
    return code;
}

static int leave(int code) {
    pthread_mutex_unlock(&guard);
    return code;
}

/* A call that is about no device. */
static int enter_system(struct call *call, const char *function) {
    *call = (struct call){.function = function, .gpu = -1, .mig = -1};
    int code = enter(call);
    return code == SUCCESS && !sessions ? UNINITIALIZED : code;
}

/* A call about a device: both as frozen, and as it is now. */
static int enter_device(struct call *call, const char *function, handle device, struct gpu **gpu, struct mig **mig) {
    *call = (struct call){.function = function, .gpu = -1, .mig = -1};
    pthread_mutex_lock(&guard);
    int gpu_at, mig_at;
    bool known = sessions && position_of(device, &gpu_at, &mig_at);
    if (known) call->gpu = gpu_at, call->mig = mig_at;
    pthread_mutex_unlock(&guard);
    int code = enter(call);
    if (code != SUCCESS) return code;
    if (!sessions) return UNINITIALIZED;
    if (!known || !position_of(device, &gpu_at, &mig_at)) return INVALID_ARGUMENT;
    *gpu = world_gpu(&now, frozen.gpu[gpu_at].uuid);
    if (!*gpu) return GPU_IS_LOST;
    *mig = NULL;
    if (mig_at >= 0) {
        *mig = world_mig(*gpu, frozen.gpu[gpu_at].mig[mig_at].uuid);
        if (!*mig) return INVALID_ARGUMENT;
    }
    return SUCCESS;
}

static int put(char *buffer, unsigned length, const char *text) {
    if (!buffer) return INVALID_ARGUMENT;
    if (length < strlen(text) + 1) return INSUFFICIENT_SIZE;
    memcpy(buffer, text, strlen(text) + 1);
    return SUCCESS;
}

/* ---- the library as a whole ------------------------------------------------------------------- */

API int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    struct call call = {.function = "nvmlInit", .gpu = -1, .mig = -1};
    int code = enter(&call);
    if (code == SUCCESS && sessions++ == 0) {
        frozen = now;
        generation++;
        world_session(true);
    }
    return leave(code);
}

API int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
API int nvmlInit(void) { return nvmlInitWithFlags(0); }

API int nvmlShutdown(void) {
    struct call call;
    int code = enter_system(&call, "nvmlShutdown");
    if (code == SUCCESS && --sessions == 0) world_session(false);
    return leave(code);
}

API const char *nvmlErrorString(int code) {
    switch (code) {
    case SUCCESS: return "The operation was successful";
    case UNINITIALIZED: return "Uninitialized";
    case INVALID_ARGUMENT: return "Invalid Argument";
    case NOT_SUPPORTED: return "Not Supported";
    case NO_PERMISSION: return "Insufficient Permissions";
    case NOT_FOUND: return "Not Found";
    case INSUFFICIENT_SIZE: return "Insufficient Size";
    case DRIVER_NOT_LOADED: return "Driver Not Loaded";
    case GPU_IS_LOST: return "GPU is lost";
    case RESET_REQUIRED: return "GPU requires reset";
    case LIB_RM_VERSION_MISMATCH: return "Driver/library version mismatch";
    case IN_USE: return "In use by another client";
    case ARGUMENT_VERSION_MISMATCH: return "Argument version mismatch";
    default: return "Unknown Error";
    }
}

API int nvmlSystemGetDriverVersion(char *version, unsigned length) {
    struct call call;
    int code = enter_system(&call, __func__);
    return leave(code == SUCCESS ? put(version, length, now.driver) : code);
}

API int nvmlSystemGetNVMLVersion(char *version, unsigned length) {
    struct call call;
    char text[96];
    int code = enter_system(&call, __func__);
    snprintf(text, sizeof text, "%d.%s", now.cuda / 1000, now.driver);
    return leave(code == SUCCESS ? put(version, length, text) : code);
}

API int nvmlSystemGetCudaDriverVersion_v2(int *version) {
    struct call call;
    int code = enter_system(&call, "nvmlSystemGetCudaDriverVersion");
    if (code == SUCCESS) *version = now.cuda;
    return leave(code);
}

API int nvmlSystemGetCudaDriverVersion(int *version) { return nvmlSystemGetCudaDriverVersion_v2(version); }

/* ---- finding devices -------------------------------------------------------------------------- */

API int nvmlDeviceGetCount_v2(unsigned *count) {
    struct call call;
    int code = enter_system(&call, "nvmlDeviceGetCount");
    if (code == SUCCESS) *count = call.empty ? 0 : (unsigned)frozen.gpus;
    return leave(code);
}

API int nvmlDeviceGetHandleByIndex_v2(unsigned index, handle *device) {
    struct call call = {.function = "nvmlDeviceGetHandleByIndex", .gpu = (int)index, .mig = -1};
    int code = enter(&call);
    if (code != SUCCESS) return leave(code);
    if (!sessions) return leave(UNINITIALIZED);
    if (index >= (unsigned)frozen.gpus) return leave(INVALID_ARGUMENT);
    if (!world_gpu(&now, frozen.gpu[index].uuid)) return leave(GPU_IS_LOST);
    *device = handle_of((int)index, -1);
    return leave(SUCCESS);
}

API int nvmlDeviceGetHandleByUUID(const char *uuid, handle *device) {
    struct call call = {.function = "nvmlDeviceGetHandleByUUID", .gpu = -1, .mig = -1};
    pthread_mutex_lock(&guard);
    for (int g = 0; sessions && uuid && g < frozen.gpus; g++) {
        if (strcmp(frozen.gpu[g].uuid, uuid) == 0) call.gpu = g;
        for (int m = 0; m < frozen.gpu[g].migs; m++)
            if (strcmp(frozen.gpu[g].mig[m].uuid, uuid) == 0) call.gpu = g, call.mig = m;
    }
    pthread_mutex_unlock(&guard);
    int code = enter(&call);
    if (code != SUCCESS) return leave(code);
    if (!sessions) return leave(UNINITIALIZED);
    if (!uuid) return leave(INVALID_ARGUMENT);
    if (call.gpu < 0) return leave(NOT_FOUND);
    *device = handle_of(call.gpu, call.mig);
    return leave(SUCCESS);
}

API int nvmlDeviceGetMaxMigDeviceCount(handle device, unsigned *count) {
    struct call call;
    struct gpu *gpu;
    struct mig *mig;
    int code = enter_device(&call, __func__, device, &gpu, &mig);
    if (code == SUCCESS && mig) code = INVALID_ARGUMENT;
    bool none = call.empty || frozen.gpu[call.gpu].mig_mode != 1;
    if (code == SUCCESS) *count = none ? 0 : (unsigned)frozen.gpu[call.gpu].max_migs;
    return leave(code);
}

API int nvmlDeviceGetMigDeviceHandleByIndex(handle device, unsigned index, handle *found) {
    struct call call;
    struct gpu *gpu;
    struct mig *mig;
    int code = enter_device(&call, __func__, device, &gpu, &mig);
    if (code != SUCCESS) return leave(code);
    struct gpu *layout = &frozen.gpu[call.gpu];
    if (mig) return leave(INVALID_ARGUMENT);
    if (layout->mig_mode < 0) return leave(NOT_SUPPORTED);
    if (index >= (unsigned)layout->max_migs) return leave(INVALID_ARGUMENT);
    for (int m = 0; layout->mig_mode == 1 && !call.empty && m < layout->migs; m++) {
        if (layout->mig[m].index != (int)index) continue;
        *found = handle_of(call.gpu, m);
        return leave(SUCCESS);
    }
    return leave(NOT_FOUND);
}

API int nvmlDeviceIsMigDeviceHandle(handle device, unsigned *answer) {
    struct call call;
    struct gpu *gpu;
    struct mig *mig;
    int code = enter_device(&call, __func__, device, &gpu, &mig);
    if (code == SUCCESS) *answer = mig != NULL;
    return leave(code);
}

API int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle device, handle *parent) {
    struct call call;
    struct gpu *gpu;
    struct mig *mig;
    int code = enter_device(&call, __func__, device, &gpu, &mig);
    if (code == SUCCESS && !mig) code = INVALID_ARGUMENT;
    if (code == SUCCESS) *parent = handle_of(call.gpu, -1);
    return leave(code);
}

/* ---- what a device is ------------------------------------------------------------------------- */

API int nvmlDeviceGetUUID(handle device, char *uuid, unsigned length) {
    struct call call;
    struct gpu *gpu;
    struct mig *mig;
    int code = enter_device(&call, __func__, device, &gpu, &mig);
    return leave(code == SUCCESS ? put(uuid, length, mig ? mig->uuid : gpu->uuid) : code);
}

API int nvmlDeviceGetName(handle device, char *name, unsigned length) {
    struct call call;
    struct gpu *gpu;
    struct mig *mig;
    char text[TEXT * 2 + 8];
    int code = enter_device(&call, __func__, device, &gpu, &mig);
    if (code != SUCCESS) return leave(code);
    snprintf(text, sizeof text, mig ? "%s MIG %s" : "%s", gpu->name, mig ? mig->profile : "");
    return leave(put(name, length, text));
}

API int nvmlDeviceGetIndex(handle device, unsigned *index) {
    struct call call;
    struct gpu *gpu;
    struct mig *mig;
    int code = enter_device(&call, __func__, device, &gpu, &mig);
    if (code == SUCCESS) *index = (unsigned)(mig ? mig->index : call.gpu);
    return leave(code);
}

API int nvmlDeviceGetMinorNumber(handle device, unsigned *minor) {
    struct call call;
    struct gpu *gpu;
    struct mig *mig;
    int code = enter_device(&call, __func__, device, &gpu, &mig);
    if (code == SUCCESS && mig) code = NOT_SUPPORTED;
    if (code == SUCCESS) *minor = (unsigned)gpu->minor;
    return leave(code);
}

struct pci_info {
    char bus_id_legacy[16];
    unsigned domain, bus, device, pci_device_id, pci_subsystem_id;
    char bus_id[32];
};

API int nvmlDeviceGetPciInfo_v3(handle device, struct pci_info *pci) {
    struct call call;
    struct gpu *gpu;
    struct mig *mig;
    int code = enter_device(&call, "nvmlDeviceGetPciInfo", device, &gpu, &mig);
    if (code != SUCCESS) return leave(code);
    if (mig) return leave(NOT_SUPPORTED);
    *pci = (struct pci_info){.bus = (unsigned)gpu->pci_bus, .pci_device_id = 0x20B210DE};
    snprintf(pci->bus_id_legacy, sizeof pci->bus_id_legacy, "0000:%02X:00.0", gpu->pci_bus & 0xFF);
    snprintf(pci->bus_id, sizeof pci->bus_id, "00000000:%02X:00.0", gpu->pci_bus & 0xFF);
    return leave(SUCCESS);
}

API int nvmlDeviceGetMigMode(handle device, unsigned *current, unsigned *pending) {
    struct call call;
    struct gpu *gpu;
    struct mig *mig;
    int code = enter_device(&call, __func__, device, &gpu, &mig);
    if (code == SUCCESS && mig) code = INVALID_ARGUMENT;
    if (code == SUCCESS && gpu->mig_mode < 0) code = NOT_SUPPORTED;
    if (code == SUCCESS) {
        *current = call.empty ? 0 : (unsigned)frozen.gpu[call.gpu].mig_mode;
        *pending = call.empty ? 0 : (unsigned)gpu->mig_pending;
    }
    return leave(code);
}

API int nvmlDeviceGetGpuInstanceId(handle device, unsigned *id) {
    struct call call;
    struct gpu *gpu;
    struct mig *mig;
    int code = enter_device(&call, __func__, device, &gpu, &mig);
    if (code == SUCCESS && !mig) code = NOT_SUPPORTED;
    if (code == SUCCESS) *id = (unsigned)mig->gi;
    return leave(code);
}

API int nvmlDeviceGetComputeInstanceId(handle device, unsigned *id) {
    struct call call;
    struct gpu *gpu;
    struct mig *mig;
    int code = enter_device(&call, __func__, device, &gpu, &mig);
    if (code == SUCCESS && !mig) code = NOT_SUPPORTED;
    if (code == SUCCESS) *id = (unsigned)mig->ci;
    return leave(code);
}

struct attributes {
    unsigned multiprocessors, copy_engines, decoders, encoders, jpeg, ofa, gpu_slices, compute_slices;
    unsigned long long memory_mb;
};

API int nvmlDeviceGetAttributes_v2(handle device, struct attributes *attributes) {
    struct call call;
    struct gpu *gpu;
    struct mig *mig;
    int code = enter_device(&call, "nvmlDeviceGetAttributes", device, &gpu, &mig);
    if (code != SUCCESS) return leave(code);
    if (!mig) return leave(NOT_SUPPORTED);
    unsigned slices = 0;
    sscanf(mig->profile, "%ug", &slices);
    *attributes = (struct attributes){.multiprocessors = 14 * slices, .copy_engines = slices, .gpu_slices = slices,
                                      .compute_slices = slices, .memory_mb = mig->memory >> 20};
    return leave(SUCCESS);
}

/* ---- what a device does ----------------------------------------------------------------------- */

/* Memory in use: what is said of the GPU, or what its processes add up to. */
static unsigned long long used_of(const struct gpu *gpu, const struct mig *mig) {
    unsigned long long sum = mig ? 0 : gpu->used;
    for (int p = 0; p < now.processes; p++) {
        const struct process *process = &now.process[p];
        if (process->gpu != gpu - now.gpu || process->memory == UNKNOWN_MEMORY) continue;
        if (!mig || process->mig == mig - gpu->mig) sum += process->memory;
    }
    unsigned long long total = mig ? mig->memory : gpu->memory;
    return sum < total ? sum : total;
}

struct memory {
    unsigned long long total, free, used;
};

API int nvmlDeviceGetMemoryInfo(handle device, struct memory *memory) {
    struct call call;
    struct gpu *gpu;
    struct mig *mig;
    int code = enter_device(&call, __func__, device, &gpu, &mig);
    if (code != SUCCESS) return leave(code);
    memory->total = mig ? mig->memory : gpu->memory;
    memory->used = used_of(gpu, mig);
    memory->free = memory->total - memory->used;
    return leave(SUCCESS);
}

struct memory_v2 {
    unsigned version;
    unsigned long long total, reserved, free, used;
};

API int nvmlDeviceGetMemoryInfo_v2(handle device, struct memory_v2 *memory) {
    struct call call;
    struct gpu *gpu;
    struct mig *mig;
    int code = enter_device(&call, "nvmlDeviceGetMemoryInfo", device, &gpu, &mig);
    if (code != SUCCESS) return leave(code);
    if (memory->version != (sizeof *memory | 2u << 24)) return leave(ARGUMENT_VERSION_MISMATCH);
    memory->total = mig ? mig->memory : gpu->memory;
    memory->reserved = 0;
    memory->used = used_of(gpu, mig);
    memory->free = memory->total - memory->used;
    return leave(SUCCESS);
}

struct utilization {
    unsigned gpu, memory;
};

API int nvmlDeviceGetUtilizationRates(handle device, struct utilization *rates) {
    struct call call;
    struct gpu *gpu;
    struct mig *mig;
    int code = enter_device(&call, __func__, device, &gpu, &mig);
    if (code == SUCCESS && (mig || gpu->mig_mode == 1)) code = NOT_SUPPORTED;
    if (code == SUCCESS) *rates = (struct utilization){(unsigned)gpu->utilization, 0};
    return leave(code);
}

API int nvmlDeviceGetTemperature(handle device, unsigned sensor, unsigned *temperature) {
    struct call call;
    struct gpu *gpu;
    struct mig *mig;
    int code = enter_device(&call, __func__, device, &gpu, &mig);
    if (code == SUCCESS && mig) code = NOT_SUPPORTED;
    if (code == SUCCESS && sensor != 0) code = INVALID_ARGUMENT;
    if (code == SUCCESS) *temperature = (unsigned)gpu->temperature;
    return leave(code);
}

API int nvmlDeviceGetPersistenceMode(handle device, unsigned *mode) {
    struct call call;
    struct gpu *gpu;
    struct mig *mig;
    int code = enter_device(&call, __func__, device, &gpu, &mig);
    if (code == SUCCESS && mig) code = NOT_SUPPORTED;
    if (code == SUCCESS) *mode = (unsigned)gpu->persistence;
    return leave(code);
}

API int nvmlDeviceGetEccMode(handle device, unsigned *current, unsigned *pending) {
    struct call call;
    struct gpu *gpu;
    struct mig *mig;
    int code = enter_device(&call, __func__, device, &gpu, &mig);
    if (code == SUCCESS && (mig || gpu->ecc_errors < 0)) code = NOT_SUPPORTED;
    if (code == SUCCESS) *current = *pending = 1;
    return leave(code);
}

API int nvmlDeviceGetTotalEccErrors(handle device, unsigned type, unsigned counter, unsigned long long *count) {
    struct call call;
    struct gpu *gpu;
    struct mig *mig;
    int code = enter_device(&call, __func__, device, &gpu, &mig);
    if (code == SUCCESS && (mig || gpu->ecc_errors < 0)) code = NOT_SUPPORTED;
    if (code == SUCCESS && (type > 1 || counter > 1)) code = INVALID_ARGUMENT;
    if (code == SUCCESS) *count = type == 1 ? (unsigned long long)gpu->ecc_errors : 0;
    return leave(code);
}

API int nvmlDeviceGetRemappedRows(handle device, unsigned *correctable, unsigned *uncorrectable, unsigned *pending,
                                  unsigned *failed) {
    struct call call;
    struct gpu *gpu;
    struct mig *mig;
    int code = enter_device(&call, __func__, device, &gpu, &mig);
    if (code == SUCCESS && (mig || gpu->mig_mode == 1 || gpu->remapped < 0)) code = NOT_SUPPORTED;
    if (code == SUCCESS) {
        *correctable = 0;
        *uncorrectable = (unsigned)gpu->remapped;
        *pending = (unsigned)gpu->remap_pending;
        *failed = (unsigned)gpu->remap_failed;
    }
    return leave(code);
}

/* ---- who uses a device ------------------------------------------------------------------------ */

#ifndef WITHOUT_PROCESS_LISTS

struct process_v1 {
    unsigned pid;
    unsigned long long memory;
};

struct process_v2 {
    unsigned pid;
    unsigned long long memory;
    unsigned gi, ci;
};

/* All processes of a GPU, those of its MIG devices included; or those of one MIG device. */
static int list_processes(const char *function, bool graphics, handle device, unsigned *count, void *list, bool v1) {
    struct call call;
    struct gpu *gpu;
    struct mig *mig;
    unsigned found = 0, room = count ? *count : 0;
    int code = enter_device(&call, function, device, &gpu, &mig);
    if (code != SUCCESS) return leave(code);
    if (!count || (room && !list)) return leave(INVALID_ARGUMENT);
    for (int p = 0; !call.empty && p < now.processes; p++) {
        const struct process *process = &now.process[p];
        if (process->gpu != gpu - now.gpu || process->graphics != graphics) continue;
        if (mig && process->mig != mig - gpu->mig) continue;
        const struct mig *instance = process->mig < 0 ? NULL : &gpu->mig[process->mig];
        struct process_v2 row = {(unsigned)process->pid, process->memory,
                                 (unsigned)(instance ? instance->gi : NO_INSTANCE),
                                 (unsigned)(instance ? instance->ci : NO_INSTANCE)};
        if (found < room && v1) ((struct process_v1 *)list)[found] = (struct process_v1){row.pid, row.memory};
        if (found < room && !v1) ((struct process_v2 *)list)[found] = row;
        found++;
    }
    *count = found;
    return leave(found > room ? INSUFFICIENT_SIZE : SUCCESS);
}

#define PROCESS_LIST(NAME, GRAPHICS)                                                                        \
    API int NAME(handle device, unsigned *count, void *list) {                                              \
        return list_processes(#NAME, GRAPHICS, device, count, list, true);                                  \
    }                                                                                                       \
    API int NAME##_v2(handle device, unsigned *count, void *list) {                                         \
        return list_processes(#NAME, GRAPHICS, device, count, list, false);                                 \
    }                                                                                                       \
    API int NAME##_v3(handle device, unsigned *count, void *list) {                                         \
        return list_processes(#NAME, GRAPHICS, device, count, list, false);                                 \
    }

PROCESS_LIST(nvmlDeviceGetComputeRunningProcesses, false)
PROCESS_LIST(nvmlDeviceGetGraphicsRunningProcesses, true)

#endif
