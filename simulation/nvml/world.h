/* The world behind the simulated NVML, as its file describes it. See world.py for the format. */
#ifndef DS01_SIM_WORLD_H
#define DS01_SIM_WORLD_H

#include <stdbool.h>

enum {
    SUCCESS = 0,
    UNINITIALIZED = 1,
    INVALID_ARGUMENT = 2,
    NOT_SUPPORTED = 3,
    NO_PERMISSION = 4,
    NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9,
    GPU_IS_LOST = 15,
    RESET_REQUIRED = 16,
    LIB_RM_VERSION_MISMATCH = 18,
    IN_USE = 19,
    ARGUMENT_VERSION_MISMATCH = 25,
    UNKNOWN = 999,
};

enum { MAX_GPUS = 32, MAX_MIGS = 16, MAX_PROCESSES = 4096, MAX_FAULTS = 64, TEXT = 96 };

#define UNKNOWN_MEMORY 0xFFFFFFFFFFFFFFFFull

struct mig {
    char uuid[TEXT], profile[32];
    int index, gi, ci;
    unsigned long long memory;
};

struct gpu {
    char uuid[TEXT], name[TEXT];
    int minor, pci_bus, mig_mode, mig_pending, max_migs; /* mig_mode -1: this GPU knows no MIG */
    int utilization, temperature, persistence, remapped, remap_pending, remap_failed; /* remapped -1: not supported */
    long long ecc_errors; /* -1: no ECC */
    unsigned long long memory, used;
    struct mig mig[MAX_MIGS];
    int migs;
};

struct process {
    int pid, gpu, mig; /* positions; mig -1: the whole GPU */
    bool graphics;
    unsigned long long memory;
};

enum effect { EFFECT_CODE, EFFECT_HANG, EFFECT_EMPTY, EFFECT_DELAY };

struct fault {
    char function[64], id[40];
    int gpu, mig; /* indices; -1: any */
    enum effect effect;
    unsigned value, first; /* first 0: always */
};

struct world {
    char driver[64];
    int cuda;
    struct gpu gpu[MAX_GPUS];
    struct process process[MAX_PROCESSES];
    struct fault fault[MAX_FAULTS];
    int gpus, processes, faults;
};

/* Bring `world` up to the file named by DS01_SIM_NVML. No such variable: no driver. Unreadable: unknown. */
int world_read(struct world *world);

struct gpu *world_gpu(struct world *world, const char *uuid);
struct mig *world_mig(struct gpu *gpu, const char *uuid);

/* Is this fault meant for this call? One that is limited to its first calls is used up by asking. */
bool world_fault_meets(struct fault *fault, const char *function, int gpu, int mig);

/* Enter this process in the register of open sessions, or take it out. */
void world_session(bool open);

#endif
